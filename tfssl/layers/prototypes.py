"""Cluster centres on the unit sphere, learnt by gradient."""

import keras
import tensorflow as tf

from tfssl.objectives.numerics import normalise


class Prototypes(keras.layers.Layer):
    """Scores of unit embeddings against unit prototypes: z C^T, without a bias.

    Args:
        count: number of prototypes, K.
        width: dimension of the embeddings, D.
    """

    def __init__(self, count, width, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.prototypes = self.add_weight(
            name="prototypes",
            shape=[count, width],
            dtype="float32",
            initializer=keras.initializers.VarianceScaling(mode="fan_out"),
            autocast=False,
        )
        self.normalise()
        self.built = True

    def call(self, z, frozen=False):
        """Embeddings [..., D] of any length -> cosine scores [..., K], float32.

        While `frozen` (bool, may be a tensor) the prototypes get a gradient of zero.
        """
        z = normalise(z)
        prototypes = tf.convert_to_tensor(self.prototypes)
        prototypes = tf.where(frozen, tf.stop_gradient(prototypes), prototypes)
        return tf.einsum("...d,kd->...k", z, prototypes)

    def normalise(self):
        """Brings every prototype back to unit length; call it after each step."""
        rows = tf.convert_to_tensor(self.prototypes)
        self.prototypes.assign(tf.math.l2_normalize(rows, axis=1))
