"""Views on axis 1: into the batch to pass the network once, and out again."""

import tensorflow as tf


def fold(x):
    """[B, V, ...] -> [B V, ...]: view v of example b lands at row b V + v."""
    shape = tf.shape(x)
    folded = tf.reshape(x, tf.concat([[shape[0] * shape[1]], shape[2:]], 0))
    folded.set_shape([None, *x.shape[2:]])
    return folded


def unfold(x, views):
    """[B V, ...] -> [B, V, ...]: undoes `fold`."""
    shape = tf.shape(x)
    unfolded = tf.reshape(x, tf.concat([[-1, views], shape[1:]], 0))
    unfolded.set_shape([None, views, *x.shape[1:]])
    return unfolded
