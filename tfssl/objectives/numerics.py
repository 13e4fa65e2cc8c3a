"""The numerical habits every objective shares: float32, norms that differentiate at zero, masks."""

import tensorflow as tf

# Minus infinity in a log-sum-exp: its exponential is 0, but unlike -inf it leaves no NaN gradient.
# Below every score that is not about to overflow: dot products of long embeddings reach billions.
MASKED = -1e30


def float32(x):
    """`x` as a float32 tensor; 16-bit and 64-bit inputs would change what the formulas promise."""
    # Converted first: casting a float32 variable gives the variable itself, which no -= accepts.
    return tf.cast(tf.convert_to_tensor(x), tf.float32)


def normalise(x):
    """Unit vectors along the last axis, however long they were; a zero vector stays zero.

    What has no element above 1e-12 counts as zero. The gradient is finite everywhere.
    """
    x = float32(x)
    # Brought near 1 first, as the direction does not tell: squares overflow beyond 1e19.
    largest = tf.stop_gradient(tf.reduce_max(tf.abs(x), axis=-1, keepdims=True))
    x /= tf.where(largest > 1e-12, largest, 1.0)
    return tf.math.l2_normalize(x, axis=-1, epsilon=0.5)  # only a zero vector is that short now


def norm(x, axis=-1):
    """Euclidean length along `axis`, exactly 0 with gradient 0 for a zero vector."""
    squared = tf.reduce_sum(tf.square(float32(x)), axis=axis)
    positive = squared > 0
    # The inner `where` keeps the root's infinite slope at 0 out of the backward pass.
    return tf.where(positive, tf.sqrt(tf.where(positive, squared, 1.0)), 0.0)


def cosine(a, b):
    """Cosine similarity along the last axis."""
    return tf.reduce_sum(normalise(a) * normalise(b), axis=-1)
