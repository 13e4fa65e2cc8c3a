"""Correspondence in time: frames of one video must find their way back through another."""

import tensorflow as tf

from tfssl.objectives.numerics import float32


def cycle_back_classification(u, v, temperature):
    """From frame i of u to its soft nearest neighbour in v and back: land on i, as a class.

    Args:
        u: [B, T, D] frame embeddings, not normalised.
        v: [B, S, D] frames of other videos of the same action, row by row.
        temperature: similarity is minus the squared distance / (D temperature).

    Mean over all T starts of all pairs, one direction u -> v -> u, without label smoothing.
    Source: Dwibedi et al. 2019 (TCC), equations 1 to 3; the division by D is the code's.
    """
    logits = _cycle_back(float32(u), float32(v), temperature)  # [B, T, T]
    return -tf.reduce_mean(tf.linalg.diag_part(tf.nn.log_softmax(logits)))


def cycle_back_regression(u, v, temperature, variance_weight):
    """The same walk, judged by how far in time it lands from its start.

    Args:
        u, v, temperature: as in `cycle_back_classification`; frame i of u has the time i / T.
        variance_weight: lambda (0.001).

    Mean of (t - mu)^2 / sigma^2 + lambda log(sigma^2), with 1e-8 added to sigma^2; the paper has
    lambda log(sigma), the code's form is meant. Source: Dwibedi et al. 2019, equations 4 and 5.
    """
    time, landed, variance = _landing(u, v, temperature)
    variance += 1e-8
    return tf.reduce_mean(
        tf.math.squared_difference(time, landed) / variance
        + variance_weight * tf.math.log(variance)
    )


def cycle_back_mse(u, v, temperature):
    """Mean of (t - mu)^2: the regression without its variance. Source: Dwibedi et al. 2019, 3.2."""
    time, landed, _ = _landing(u, v, temperature)
    return tf.reduce_mean(tf.math.squared_difference(time, landed))


def _landing(u, v, temperature):
    """Times [T], and mean and variance [B, T] of the time at which each start of u lands."""
    back = tf.nn.softmax(_cycle_back(float32(u), float32(v), temperature))  # [B, T, T]
    frames = tf.shape(back)[-1]
    time = float32(tf.range(frames)) / float32(frames)
    landed = tf.linalg.matvec(back, time)
    spread = tf.math.squared_difference(time, landed[..., None])  # [B, T, T]
    return time, landed, tf.reduce_sum(back * spread, axis=-1)


def _cycle_back(u, v, temperature):
    nearest = tf.matmul(tf.nn.softmax(_similarity(u, v, temperature)), v)  # [B, T, D]
    return _similarity(nearest, u, temperature)


def _similarity(a, b, temperature):
    # Differences before squares: |a|^2 + |b|^2 - 2ab loses its digits far from the origin.
    squared = tf.reduce_sum(
        tf.math.squared_difference(a[:, :, None], b[:, None]), axis=-1
    )  # [B, T, S]
    return -squared / (float32(tf.shape(a)[-1]) * temperature)
