"""Give back what was taken away: regression of pixels and patches."""

import tensorflow as tf

from tfssl.objectives import replicas
from tfssl.objectives.numerics import float32


def masked_mse(prediction, target, mask):
    """Squared error of the patches that were hidden; the visible ones cost nothing.

    Args:
        prediction, target: [B, N, P], N patches of P values.
        mask: [B, N], 1 where the patch was hidden.

    Mean over the P values of a patch, then over all masked patches of the batch (0 if none is).
    Source: He et al. 2022 (MAE), section 3.
    """
    error = tf.reduce_mean(tf.math.squared_difference(float32(prediction), float32(target)), -1)
    return masked_mean(error, mask)


def masked_mean(x, mask):
    """sum(mask x) / sum(mask), the count taken over all replicas; 0 where nothing is masked.

    `mask` has x's shape or broadcasts to it, and no gradient.
    """
    x = float32(x)
    mask = tf.stop_gradient(tf.broadcast_to(float32(mask), tf.shape(x)))
    # `where` and not a product: a NaN outside the mask must not come in.
    total = tf.reduce_sum(tf.where(mask != 0, mask * x, 0.0))
    return tf.math.divide_no_nan(total, replicas.average(tf.reduce_sum(mask)))


def normalise_patches(patches):
    """Each patch standardised by its own mean and unbiased variance + 1e-6: MAE's better target.

    `patches` [..., P] with P > 1 values. Source: He et al. 2022, section 3, variance as coded.
    """
    patches = float32(patches)
    values = float32(tf.shape(patches)[-1])
    centred = patches - tf.reduce_mean(patches, axis=-1, keepdims=True)
    variance = tf.reduce_sum(tf.square(centred), axis=-1, keepdims=True) / (values - 1)
    return centred * tf.math.rsqrt(variance + 1e-6)


def squared_error(prediction, target):
    """Mean squared difference over all values of two tensors of one shape."""
    return tf.reduce_mean(tf.math.squared_difference(float32(prediction), float32(target)))


def absolute_error(prediction, target):
    """Mean absolute difference over all values of two tensors of one shape."""
    return tf.reduce_mean(tf.abs(float32(prediction) - float32(target)))
