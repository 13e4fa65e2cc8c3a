"""Rows of a table by number, for tables of which a batch meets the same rows again and again."""

import tensorflow as tf


def looked_up(table, *numbers):
    """The vectors [..., D] of several arrays of numbers [...], for which each row is read once.

    So the gradient of a row is one sum. Keras' Adam takes that of a row that was read many times in
    as many parts, and adds the squares of the parts where it needs the square of their sum.

    Args:
        table: a built `keras.layers.Embedding`.
        *numbers: int arrays of any shapes.

    Returns:
        list of vectors in the table's compute dtype, one array for each of `numbers`.
    """
    flat = tf.concat([tf.reshape(n, [-1]) for n in numbers], axis=0)
    rows, places = tf.unique(flat)
    vectors = tf.cast(table(rows), tf.float32)  # in which the gradients are summed
    parts = tf.split(places, [tf.size(n) for n in numbers])
    return [
        tf.cast(tf.gather(vectors, tf.reshape(part, tf.shape(n))), table.compute_dtype)
        for part, n in zip(parts, numbers)
    ]
