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
    costs = cycle_back_regression_costs(u, v, _evenly(u), temperature, variance_weight)
    return tf.reduce_mean(costs)


def cycle_back_regression_costs(u, v, time, temperature, variance_weight):
    """What each start costs in `cycle_back_regression`, before the mean: [..., T].

    Args:
        u: [..., T, D] frame embeddings.
        v: [..., S, D] those of other videos; the leading axes of u, v and time broadcast.
        time: [..., T], the times of u's frames.
    """
    landed, variance = landing(u, v, time, temperature)
    variance += 1e-8
    off = tf.math.squared_difference(float32(time), landed)
    return off / variance + variance_weight * tf.math.log(variance)


def cycle_back_mse(u, v, temperature):
    """Mean of (t - mu)^2: the regression without its variance. Source: Dwibedi et al. 2019, 3.2."""
    time = _evenly(u)
    landed, _ = landing(u, v, time, temperature)
    return tf.reduce_mean(tf.math.squared_difference(time, landed))


def landing(u, v, time, temperature):
    """Mean and variance [..., T] of the time at which each start of u lands (equations 2 to 4).

    Args:
        u, v, time: as in `cycle_back_regression_costs`.
    """
    time = float32(time)
    back = tf.nn.softmax(_cycle_back(float32(u), float32(v), temperature))  # [..., T, T]
    landed = tf.linalg.matvec(back, time)
    spread = tf.math.squared_difference(time[..., None, :], landed[..., None])  # [..., T, T]
    return landed, tf.reduce_sum(back * spread, axis=-1)


def similarity(a, b, temperature):
    """Minus the squared distances of frames a [..., T, D] and b [..., S, D], over D temperature."""
    # Differences before squares: |a|^2 + |b|^2 - 2ab loses its digits far from the origin.
    squared = tf.math.squared_difference(a[..., :, None, :], b[..., None, :, :])
    return -tf.reduce_mean(squared, axis=-1) / temperature  # [..., T, S]


def _cycle_back(u, v, temperature):
    nearest = tf.matmul(tf.nn.softmax(similarity(u, v, temperature)), v)  # [..., T, D]
    return similarity(nearest, u, temperature)


def _evenly(u):
    """The times i / T of the frames of u [..., T, D]."""
    frames = tf.shape(u)[-2]
    return float32(tf.range(frames)) / float32(frames)
