"""How TensorFlow runs the datasets of this package, and how one is made of another."""

import tensorflow as tf


def untuned(dataset):
    """`dataset`, run in order, split over replicas by example, and untuned.

    An iterator whose parallelism TensorFlow tunes waits for its tuning thread when it is let go,
    and that sleeps twice as long each time: a pass of six seconds has been seen to end after ten.
    Untuned, `tf.data.AUTOTUNE` means a call a core, which is as quick.
    """
    options = tf.data.Options()
    options.deterministic = True
    options.autotune.enabled = False
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return dataset.with_options(options)


def like(source, dataset):
    """The dataset, made of a source's examples in their order, with what the source tells of them.

    `labels` [N] are there where they are known without reading the examples.
    """
    for attribute in ("broken", "paths", "class_names", "total", "labels"):
        if hasattr(source, attribute):
            setattr(dataset, attribute, getattr(source, attribute))
    return dataset


def is_uniform(dataset):
    """Whether all examples have one shape."""
    return all(spec.shape.is_fully_defined() for spec in tf.nest.flatten(dataset.element_spec))


def changed(dataset, change):
    """A source with `change` (batch of examples -> the same) done to it, its attributes kept.

    The data may be of several shapes; what can be read anywhere (`gather`) still can, any number of
    examples at a time where `change` brings them to one shape.
    """

    def single(example):
        batch = change({key: value[None] for key, value in example.items()})
        return {key: value[0] for key, value in batch.items()}

    result = dataset.map(single, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)

    def gather(at):
        return change(dataset.gather(at))

    def one_by_one(at):
        def single(position):
            return {key: value[0] for key, value in gather(position[None]).items()}

        return tf.map_fn(single, at, fn_output_signature=result.element_spec)

    if hasattr(dataset, "gather"):
        made_one = is_uniform(result) and not is_uniform(dataset)
        result.gather = one_by_one if made_one else gather
    return like(dataset, result)


def numbered(source):
    """A source of `load` with `index` its examples' position, 0 to N - 1, whatever it was before.

    For methods that keep something for each example. A dataset of somebody's own is returned as it
    is: it may come in another order each time, and brings such an `index` itself.
    """
    if not hasattr(source, "paths"):
        return source
    result = source.enumerate().map(lambda i, example: {**example, "index": i})
    if hasattr(source, "gather"):
        result.gather = lambda at: {**source.gather(at), "index": tf.cast(at, tf.int64)}
    return result
