"""How like every place of one map is to the places around it in another."""

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable("tfssl")
class Correlation(keras.layers.Layer):
    """FlowNetC's correlation of single places (Dosovitskiy et al., ICCV 2015, equation 1).

    Two maps [B, H, W, C] -> [B, H, W, n^2], n = 2 (displacement // stride) + 1: the mean over
    channels of first(p) second(p + d), for d in {-displacement, ..., displacement}^2 at every
    `stride`, y slowest; 0 where p + d lies outside. The paper's sum over channels is divided by
    their number, as in the authors' code. No weights.
    """

    def __init__(self, displacement=20, stride=2, **kwargs):
        super().__init__(**kwargs)
        self.displacement, self.stride = displacement, stride

    def call(self, first, second):
        steps = self.displacement // self.stride
        reach = steps * self.stride
        height = tf.shape(first)[1]
        second = tf.pad(second, [[0, 0], [reach, reach], [reach, reach], [0, 0]])
        first = first / first.shape[-1]  # before the sum, which 16 bits might not hold
        found = []
        for down in range(0, 2 * reach + 1, self.stride):
            # Each row with the whole row `down - reach` below it, of which a band is wanted.
            rows = second[:, down : down + height]
            products = tf.matmul(first, rows, transpose_b=True)  # [B, H, W, W + 2 reach]
            band = tf.linalg.diag_part(products, k=(0, 2 * reach))  # the farthest right first
            found.append(band[..., :: -self.stride, :])
        return tf.transpose(tf.concat(found, axis=2), [0, 1, 3, 2])

    def compute_output_spec(self, first, second):
        side = 2 * (self.displacement // self.stride) + 1
        return keras.KerasTensor((*first.shape[:3], side**2), dtype=self.compute_dtype)

    def get_config(self):
        return {
            **super().get_config(),
            "displacement": self.displacement,
            "stride": self.stride,
        }
