"""Encoders whose maps matter more than their pooled features: the contracting half of FlowNet."""

import keras
from keras import ops

from tfssl.encoders.image import normalise
from tfssl.errors import BadInput

SLOPE = 0.1


@keras.saving.register_keras_serializable("tfssl")
class StackFrames(keras.layers.Layer):
    """Two frames become channels: [B, 2, H, W, C] -> [B, H, W, 2 C]."""

    def call(self, frames):
        return ops.concatenate([frames[:, 0], frames[:, 1]], axis=-1)


def flownet_s(width=64):
    """FlowNetS' contracting part (Dosovitskiy et al., ICCV 2015, figure 2), no batch norm.

    Pairs of frames [B, 2, H, W, 3] in [0, 1], sides best multiples of 64 -> [B, 16 * width].
    `width` is the first layer's: 64 in the paper (24.1 M parameters), 8 for a small one. Taps:
    c1..c6 at 1/2 .. 1/64 of the size, each the last of its scale (conv3_1, conv4_1, ...), after a
    leaky ReLU of slope 0.1. conv6_1 is in the authors' code and absent in the paper's figure.
    """
    if width < 1:
        raise BadInput(f"flownet_s: width must be at least 1, not {width}.")
    pair = keras.Input((2, None, None, 3), name="frames")
    x = StackFrames(name="stack")(normalise(pair))

    def convolve(x, factor, kernel, strides, name, out):
        x = keras.layers.Conv2D(
            factor * width,
            kernel,
            strides,
            padding="same",
            kernel_initializer="he_normal",
            name=f"{name}_conv",
        )(x)
        return keras.layers.LeakyReLU(SLOPE, name=out)(x)

    x = convolve(x, 1, 7, 2, "stage_1", "c1")
    x = convolve(x, 2, 5, 2, "stage_2", "c2")
    x = convolve(x, 4, 5, 2, "stage_3", "stage_3_relu")
    x = convolve(x, 4, 3, 1, "stage_3_1", "c3")
    for i, factor in ((4, 8), (5, 8), (6, 16)):
        x = convolve(x, factor, 3, 2, f"stage_{i}", f"stage_{i}_relu")
        x = convolve(x, factor, 3, 1, f"stage_{i}_1", f"c{i}")
    pooled = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(pair, pooled, name="flownet_s")
