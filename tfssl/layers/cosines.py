"""A head that ends in cosines: a linear layer whose rows have unit length."""

import keras
import tensorflow as tf

from tfssl.objectives.numerics import normalise


@keras.saving.register_keras_serializable("tfssl")
class Cosines(keras.layers.Layer):
    """Inputs [..., D] of any length -> their cosines with `units` rows [..., units], float32.

    Weight normalisation with the gain fixed at 1 (Salimans & Kingma, NeurIPS 2016, equation 2):
    rows are divided by their length in the forward pass, so that the gradient is tangential.
    """

    def __init__(self, units, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.units = units

    def build(self, shape):
        self.rows = self.add_weight(
            name="rows",
            shape=[self.units, shape[-1]],
            dtype="float32",
            initializer=keras.initializers.VarianceScaling(mode="fan_out"),
            autocast=False,
        )

    def call(self, z, frozen=False):
        """While `frozen` (bool, may be a tensor) the rows get a gradient of zero."""
        z = normalise(z)
        rows = tf.math.l2_normalize(tf.convert_to_tensor(self.rows), axis=1)
        rows = tf.where(frozen, tf.stop_gradient(rows), rows)
        return tf.einsum("...d,kd->...k", z, rows)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


def gelu_cosines(inputs, widths, units, name="head"):
    """Dense, GELU, Dense, GELU, ..., Dense of `widths`, without batch norm, then `Cosines`.

    Weights start as in vision transformers, from a normal of deviation 0.02 cut off at two.
    """
    layers = [keras.Input([inputs])]
    for i, width in enumerate(widths, 1):
        start = keras.initializers.TruncatedNormal(stddev=0.02)
        activation = "gelu" if i < len(widths) else None
        layers.append(keras.layers.Dense(width, activation, kernel_initializer=start))
    return keras.Sequential([*layers, Cosines(units)], name=name)
