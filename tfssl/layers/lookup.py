"""Rows of a table by number, for tables of which a batch meets the same rows again and again."""

import tensorflow as tf


def looked_up(table, numbers):
    """The vectors [..., D] of numbers [...], for which each row of the table is read once.

    So the gradient of a row is one sum. Keras' Adam takes that of a row that was read many times in
    as many parts, and adds the squares of the parts where it needs the square of their sum.

    Args:
        table: a built `keras.layers.Embedding`.
        numbers: int array of any shape.
    """
    rows, places = tf.unique(tf.reshape(numbers, [-1]))
    vectors = tf.cast(table(rows), tf.float32)  # in which the gradients are summed
    found = tf.gather(vectors, tf.reshape(places, tf.shape(numbers)))
    return tf.cast(found, table.compute_dtype)
