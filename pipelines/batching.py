"""From examples to batches: shuffled views to train on, plain batches to evaluate on."""

import functools

import numpy as np
import tensorflow as tf

from tfssl.pipelines.augment.image import centre_crop
from tfssl.pipelines.datasets import changed, is_uniform, like, untuned
from tfssl.pipelines.errors import BadInput

# What a method may see of an example. Everything else is annotation.
UNLABELLED = frozenset(
    {
        "image",
        "image_right",
        "frames",
        "frames_right",
        "fps",
        "frame_times",
        "audio",
        "sample_rate",
        "text",
        "text_de",
        "text_es",
        "index",
    }
)
# The examples that a shuffle without random access may hold in memory.
SHUFFLE_BYTES = 1 << 30
SHUFFLE_MOST = 50_000
# The examples that `some` reads at a time, and of how many times as many it may read the rest.
TOGETHER, AROUND = 16, 20


def train(ds, views, batch_size, seed=0, start_step=0):
    """Batches of views: one shuffled pass over the data, shuffled anew at each further pass.

    `views(examples, seed)` sees whole batches where all examples have one shape, and batches of one
    otherwise. Only unlabelled keys reach it, and those it names in `views.uses`. The batch at a
    given step depends on `seed` and that step alone, so a run can be continued anywhere.

    Args:
        ds: finite dataset of example dicts.
        views: function (batch of examples, int32 [2] seed) -> x or (x, y).
        batch_size: examples a batch; what does not fill the last batch of a pass waits for the next
            shuffle.
        seed: int, for the order and for the views.
        start_step: number of batches that have been trained on already.

    Returns:
        A `tf.data.Dataset` of one pass. `.endless(start_step)` on it gives the same batches without
        an end, `.steps` is the number of batches a pass, and `.preview(n)` gives the first n
        examples beside their views.

    Raises:
        BadInput: if the data holds no full batch.
    """
    steps = _steps(ds, batch_size)
    seen = _unlabelled(ds, views)

    # Traced once for all the streams below, not once for each.
    @tf.function(autograph=not _is_own(views))
    def viewed(number, batch):
        return views(batch, _fold_in(seed, number))

    stream = functools.partial(_stream, seen, viewed, batch_size, seed)
    done = tf.Variable(start_step, dtype=tf.int64, trainable=False, name="step")

    def this_pass(_):
        step = done.read_value()
        done.assign((step // steps + 1) * steps)
        return step

    passes = tf.data.Dataset.from_tensors(0).map(this_pass)
    batches = stream(passes, steps)
    if start_step % steps == 0:
        batches = batches.apply(tf.data.experimental.assert_cardinality(steps))
    batches = batches.prefetch(tf.data.AUTOTUNE)
    batches.steps = steps
    batches.endless = functools.partial(_endless, stream, steps)
    batches.preview = functools.partial(_preview, ds, views, seed)
    return batches


def evaluation(ds, batch_size, size=None):
    """Batches in order, with their annotation, as encoders expect them.

    Args:
        ds: dataset of example dicts.
        batch_size: examples a batch; the last one may be smaller. Where the examples' shapes differ
            (clips and sounds of several lengths) each is a batch by itself.
        size: side in pixels to which images and frames are brought: their central square, resized.

    Returns:
        Dataset of dicts: images and frames float32 in [0, 1], everything else as it was. Of a `ds`
        with a `gather` (positions [B] -> batch of examples) it has one too, and `examples`, how
        many there are. `.some(most)` gives the same of the examples that `some` draws.
    """

    def ready(batch):
        batch = dict(batch)
        for key in ("image", "image_right", "frames", "frames_right"):
            if key in batch and size is not None:
                batch[key] = centre_crop(batch[key], size)
            elif key in batch:
                batch[key] = tf.cast(batch[key], tf.float32) / 255.0
        return batch

    each = changed(ds, ready)
    batches = each.batch(batch_size if is_uniform(each) else 1)
    batches = like(each, untuned(batches.prefetch(tf.data.AUTOTUNE)))
    if hasattr(each, "gather"):
        batches.examples, batches.gather = ds.cardinality(), each.gather
    batches.some = lambda most: evaluation(some(ds, most), batch_size, size)
    return batches


def multitask(tasks):
    """Joins datasets made by `train` into one: `x` and `y` are dicts keyed by task.

    Args:
        tasks: dict of name -> dataset of x or (x, y), all of one batch size.

    Returns:
        Dataset of (x, y), as long as the shortest, with which all begin anew; `.steps` and
        `.endless` as `train` has them, where each runs through all its own. A task without targets
        gets zeros [B].
    """

    def joined(datasets):
        return tf.data.Dataset.zip(datasets).map(_by_task)

    batches = joined(dict(tasks))
    batches.steps = min(ds.steps for ds in tasks.values())
    batches.endless = lambda start_step=0: joined(
        {name: ds.endless(start_step) for name, ds in tasks.items()}
    )

    def preview(count):
        previews = {name: ds.preview(count) for name, ds in tasks.items()}
        examples = next(iter(previews.values()))[0]
        return examples, _by_task({name: views for name, (_, views) in previews.items()})

    batches.preview = preview
    return batches


def count_examples(ds):
    """How many examples a dataset holds; one that does not know is read from end to end.

    Raises:
        BadInput: if it has no end.
    """
    count = int(ds.cardinality())
    if count == tf.data.INFINITE_CARDINALITY:
        raise BadInput("The data never ends; train on a finite dataset, for instance ds.take(n).")
    if count == tf.data.UNKNOWN_CARDINALITY:
        count = int(ds.reduce(tf.constant(0, tf.int64), lambda total, _: total + 1))
    return count


def some(ds, most):
    """At most `most` examples drawn evenly over a finite dataset, always the same ones, in order.

    Its first ones would be of its first classes, where these lie in folders. Without a `gather`
    what lies between is read too, so they come from the first AROUND times as many.
    """
    count = count_examples(ds)
    if count <= most:
        return ds
    if not hasattr(ds, "gather"):
        count = min(count, AROUND * most)
    at = drawn(count, most)
    if hasattr(ds, "gather"):
        positions = tf.data.Dataset.from_tensor_slices(at)
        positions = positions.batch(TOGETHER if is_uniform(ds) else 1)
        options = {"num_parallel_calls": tf.data.AUTOTUNE, "deterministic": True}
        chosen = positions.map(ds.gather, **options).unbatch()
    else:
        inside = tf.constant(np.isin(np.arange(count), at))
        chosen = (
            ds.take(count)
            .enumerate()
            .filter(lambda i, _: inside[i])
            .map(lambda _, example: example)
        )
    return untuned(chosen.apply(tf.data.experimental.assert_cardinality(most)))


def drawn(count, most):
    """Positions of at most `most` of `count` examples, int64, rising, the same ones each time.

    One of each of as many stretches of equal length: of every class, where these follow each other,
    and by chance, so that no order that repeats itself meets the same class again and again.
    """
    most = min(most, count)
    ends = np.arange(most + 1) * count // most
    return np.random.default_rng(0).integers(ends[:-1], ends[1:])


def _by_task(batches):
    x, y = {}, {}
    for name, batch in batches.items():
        if isinstance(batch, tuple):
            x[name], y[name] = batch
        else:
            x[name] = batch
            y[name] = tf.zeros(tf.shape(tf.nest.flatten(batch)[0])[:1])
    return x, y


def _endless(stream, steps, start_step=0):
    """Reads no state, so any number of iterators start at the same place."""
    first = tf.data.Dataset.from_tensors(tf.constant(start_step, tf.int64))
    later = tf.data.Dataset.counter(start_step // steps + 1, dtype=tf.int64)
    passes = first.concatenate(later.map(lambda p: p * steps))
    return stream(passes, steps).prefetch(tf.data.AUTOTUNE)


def _preview(ds, views, seed, count):
    """(examples, views) of the first `count` examples; pictures of several sizes are padded."""
    seen = _unlabelled(ds, views).take(count)
    if is_uniform(seen):
        examples = next(iter(seen.batch(count)))
        return examples, views(examples, _fold_in(seed, 0))
    singles = list(seen.batch(1))
    each = [views(single, _fold_in(seed, i)) for i, single in enumerate(singles)]
    joined = tf.nest.map_structure(lambda *parts: tf.concat(parts, 0), *each)
    return {key: _padded([single[key][0] for single in singles]) for key in singles[0]}, joined


def _padded(values):
    """Tensors of one rank, stacked, with zeros where one is smaller than the largest."""
    if values[0].shape.rank == 0:
        return tf.stack(values)
    largest = tf.reduce_max([tf.shape(value) for value in values], axis=0)
    return tf.stack(
        [tf.pad(v, tf.stack([tf.zeros_like(largest), largest - tf.shape(v)], 1)) for v in values]
    )


def _stream(ds, viewed, batch_size, seed, passes, steps):
    """Views for every batch of every pass; `passes` are the steps at which the passes begin."""
    one_by_one = not is_uniform(ds)
    size = 1 if one_by_one else batch_size
    each = batch_size // size
    shuffled = _by_position if hasattr(ds, "gather") else functools.partial(_by_buffer, _buffer(ds))

    def one_pass(step):
        epoch, first = step // steps, step % steps * each
        order = _fold_in(seed, -1 - epoch)
        batches = shuffled(ds, order, steps * batch_size, size).skip(first)
        number = tf.data.Dataset.counter(step * each, dtype=tf.int64)
        return tf.data.Dataset.zip(number, batches)

    numbered = passes.flat_map(one_pass)

    options = {"num_parallel_calls": tf.data.AUTOTUNE, "deterministic": True}
    if hasattr(ds, "gather"):
        batches = numbered.map(lambda number, at: viewed(number, ds.gather(at)), **options)
    else:
        batches = numbered.map(viewed, **options)
    if one_by_one:
        batches = batches.unbatch().batch(batch_size, drop_remainder=True)
    return untuned(batches)


def _by_position(ds, order, most, size):
    """One shuffled pass as batches of positions; nothing is read for what is skipped."""
    positions = tf.random.experimental.stateless_shuffle(tf.range(ds.examples), order)
    positions = tf.reshape(positions[:most], [-1, size])
    return tf.data.Dataset.from_tensor_slices(tf.ensure_shape(positions, [None, size]))


def _by_buffer(buffer, ds, order, most, size):
    """One shuffled pass as batches of examples, shuffled as far as `buffer` examples reach."""
    # Inside this graph the order shall follow `order` alone, not tf.random.set_seed.
    tf.compat.v1.set_random_seed(1)
    # fold_in draws the first half by the seed, and its second half is the number of the pass.
    order = tf.cast(order[0], tf.int64) + tf.cast(order[1], tf.int64)
    shuffled = ds.shuffle(buffer, seed=order, reshuffle_each_iteration=False)
    return shuffled.take(most).batch(size, drop_remainder=True)


def _unlabelled(ds, views):
    """The dataset without annotation, save what `views.uses` names."""
    views = getattr(views, "func", views)  # functools.partial
    allowed = UNLABELLED.union(getattr(views, "uses", ()))
    keys = [key for key in ds.element_spec if key in allowed]
    missing = set(getattr(views, "uses", ())) - set(keys)
    if missing:
        raise BadInput(f"This method needs the annotation {sorted(missing)}; the data has {keys}.")
    kept = ds.map(lambda example: {key: example[key] for key in keys})
    if hasattr(ds, "gather"):

        def gather(at):
            batch = ds.gather(at)
            return {key: batch[key] for key in keys}

        kept.examples = ds.cardinality()
        kept.gather = gather
    return kept


def _steps(ds, batch_size):
    if batch_size < 1:
        raise BadInput(f"A batch of {batch_size} is none: choose a batch size of at least 1.")
    count = count_examples(ds)
    if count == 0:
        raise BadInput("The data holds no example: give a source, or a split, that has some.")
    if count < batch_size:
        raise BadInput(
            f"The data has {count} example{'s' * (count != 1)}, fewer than one batch of "
            f"{batch_size}: choose a batch_size (--batch-size) of at most {count}."
        )
    return count // batch_size


def _is_own(views):
    """Whether they are the house's own: these are graphs as they stand, without Python's `if` and
    `for` over tensors, which TensorFlow would look for through everything they call, for seconds.
    """
    return getattr(views, "func", views).__module__.startswith("tfssl.")


def _buffer(ds):
    """How many examples to shuffle at a time without random access: all, if memory allows."""
    example = next(iter(ds.take(1)), None)
    if example is None:
        return 1
    size = sum(int(tf.size(v)) * (v.dtype.size or 64) for v in tf.nest.flatten(example)) or 1
    return max(1, min(SHUFFLE_MOST, SHUFFLE_BYTES // size))


def _fold_in(seed, number):
    """The int32 [2] seed of one batch (or, with a negative number, of one shuffle)."""
    number = tf.cast(number, tf.int32)
    base = tf.constant([seed, 0x5EED], tf.int32)
    return tf.random.experimental.stateless_fold_in(base, number)
