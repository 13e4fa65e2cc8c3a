"""Colour taken apart inside a network, so that an exported encoder still takes RGB."""

import keras
import tensorflow as tf

AB = 110.0
"""About the largest |a| and |b| of a colour of sRGB."""

# Linear sRGB to XYZ (IEC 61966-2-1), each row by its white point D65; then to L, a, b.
_XYZ = (
    (0.412453 / 0.95047, 0.357580 / 0.95047, 0.180423 / 0.95047),
    (0.212671, 0.715160, 0.072169),
    (0.019334 / 1.08883, 0.119193 / 1.08883, 0.950227 / 1.08883),
)
_LAB = ((0.0, 116.0, 0.0), (500.0, -500.0, 0.0), (0.0, 200.0, -200.0))
_DARK = 0.008856  # below it the cube root is a line


@keras.saving.register_keras_serializable("tfssl")
class Lab(keras.layers.Layer):
    """sRGB [B, H, W, 3] in [0, 1] -> CIE Lab (D65) in two parts, float32 under every policy.

    A dict of "lightness", L / 100 [B, H, W, 1] in [0, 1], and "colour", ab / 110 [B, H, W, 2] in
    about [-1, 1]. Nothing here is learnt.
    """

    def __init__(self, **kwargs):
        super().__init__(**{**kwargs, "dtype": "float32"})

    def call(self, images):
        images = tf.cast(images, tf.float32)
        curve = (tf.maximum(images, 0.0) + 0.055) / 1.055
        linear = tf.where(images > 0.04045, curve**2.4, images / 12.92)
        xyz = tf.tensordot(linear, tf.constant(_XYZ), [[-1], [1]])
        root = tf.maximum(xyz, _DARK) ** (1 / 3)  # never of 0, where its slope is infinite
        curved = tf.where(xyz > _DARK, root, 7.787 * xyz + 16 / 116)
        lab = tf.tensordot(curved, tf.constant(_LAB), [[-1], [1]]) - tf.constant([16.0, 0.0, 0.0])
        return {"lightness": lab[..., :1] / 100, "colour": lab[..., 1:] / AB}
