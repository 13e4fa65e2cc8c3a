"""Refuses to measure what has diverged: weights and features that are no finite numbers."""

import keras
import numpy as np
import tensorflow as tf

from tfssl.errors import BadInput

_DIVERGED = "its weights have diverged (train again with a lower learning rate)"


def check_weights(encoder):
    """Raises BadInput for a Keras model whose weights are not finite numbers.

    Its features need not tell: compiled on a CPU, a convolution with a ReLU gives 0 for NaN.
    """
    for weight in encoder.weights if isinstance(encoder, keras.layers.Layer) else ():
        if tf.as_dtype(weight.dtype).is_floating and not _finite(weight):
            raise BadInput(
                f"the encoder's {weight.path} holds NaN or infinite numbers: {_DIVERGED}"
            )


def _finite(weight):
    return np.isfinite(keras.ops.convert_to_numpy(keras.ops.cast(weight, "float32"))).all()


def check_finite(features):
    """Raises BadInput for features [N, ...] that are not finite numbers."""
    if np.isfinite(features).all():
        return
    broken = ~np.isfinite(features).reshape(len(features), -1).all(axis=1)
    raise BadInput(
        f"the encoder gave NaN or infinite features for {broken.sum()} of {len(features)} "
        f"examples (the first is number {int(np.argmax(broken))}): {_DIVERGED} or that input holds "
        "no finite numbers"
    )
