"""The order in which probes and fine-tuning see examples: anew on every pass, classes mixed."""

import contextlib
import operator
import re

import numpy as np
import tensorflow as tf

from tfssl.errors import BadInput

# Examples that are read together where a dataset can be read at any positions.
_TOGETHER = 64


def epochs(rows, batch_size, seed):
    """Endless batches of rows in memory, all of them in a new order on every pass.

    Args:
        rows: nest of arrays [N, ...].
        batch_size: at most N; what does not fill the last batch of a pass begins the next one's.
        seed: of the orders.

    Returns:
        Dataset of batches, nested as `rows`.
    """
    count = len(tf.nest.flatten(rows)[0])

    def batches():
        generator = np.random.default_rng(seed)
        waiting = np.zeros(0, np.int64)
        while True:
            waiting = np.concatenate([waiting, generator.permutation(count)])
            while len(waiting) >= batch_size:
                now, waiting = waiting[:batch_size], waiting[batch_size:]
                yield tf.nest.map_structure(operator.itemgetter(now), rows)

    spec = tf.nest.map_structure(
        lambda part: tf.TensorSpec([batch_size, *part.shape[1:]], tf.as_dtype(part.dtype)), rows
    )
    return tf.data.Dataset.from_generator(batches, output_signature=spec)


def streamed(read, examples, spec, batch_size, buffer, seed):
    """Endless batches of what is computed from examples that do not fit in memory.

    Args:
        read: function of examples that yields nests of arrays [B, ...], in one pass.
        examples: those that `permuted` can are read in a new order on every pass. Every other
            dataset is read in its own order and mixed only as far as `buffer` reaches: it must come
            mixed, not class by class.
        spec: of what `read` yields.
        batch_size: as for the batches.
        buffer: rows that are shuffled at a time.
        seed: of the orders.

    Within `refusing` a BadInput that `read` raises stays one.
    """

    def passes():
        generator = np.random.default_rng(seed)
        while True:
            nothing = True
            for rows in read(permuted(examples, generator)):
                nothing = False
                yield rows
            if nothing:
                raise BadInput("the training set can be read once only: give one that starts anew")

    data = tf.data.Dataset.from_generator(passes, output_signature=spec).unbatch()
    return data.shuffle(buffer, seed=seed).batch(batch_size, drop_remainder=True)


@contextlib.contextmanager
def refusing():
    """A BadInput out of examples that are read while a model is fitted, as the sentence it was.

    TensorFlow makes an error of its own of it, with the sentence in the midst of a trace.
    """
    try:
        yield
    except tf.errors.OpError as fault:
        told = re.search(r"^(?:[\w.]+\.)?BadInput: (.+)$", str(fault), re.MULTILINE)
        if told is None:
            raise
        raise BadInput(told[1]) from None


def permuted(examples, generator):
    """The examples in a new order if they can be read in any; else as they are.

    Arrays can, and datasets with a `gather` (positions [B] -> batch of examples), as
    `tfssl.pipelines.load` and, already batched and with their number in `examples`,
    `tfssl.pipelines.batching.evaluation` give them.
    """
    if isinstance(examples, tuple) and len(examples) == 2:
        order = generator.permutation(len(examples[0]))
        return tuple(_taken(part, order) for part in examples)
    if isinstance(examples, dict):
        order = generator.permutation(len(next(iter(examples.values()))))
        return {name: _taken(part, order) for name, part in examples.items()}
    if not hasattr(examples, "gather"):
        return examples
    batched = hasattr(examples, "examples")
    count = int(examples.examples if batched else examples.cardinality())
    if count < 1:
        return examples
    # Pictures of several sizes do not make a batch.
    shapes = [spec.shape[int(batched) :] for spec in tf.nest.flatten(examples.element_spec)]
    uniform = all(shape.is_fully_defined() for shape in shapes)
    positions = tf.data.Dataset.from_tensor_slices(generator.permutation(count))
    read = positions.batch(_TOGETHER if uniform else 1).map(
        examples.gather, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
    )
    return read if uniform or batched else read.unbatch()


def _taken(values, order):
    if isinstance(values, list):  # of several sizes, perhaps
        return [values[i] for i in order]
    return np.asarray(values)[order]
