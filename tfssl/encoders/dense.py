"""Encoders whose maps matter more than their pooled features: the contracting half of FlowNet."""

import keras
import tensorflow as tf
from keras import ops

from tfssl.encoders.image import normalise
from tfssl.errors import BadInput

SLOPE = 0.1


@keras.saving.register_keras_serializable("tfssl")
class StackFrames(keras.layers.Layer):
    """Two frames become channels: [B, 2, H, W, C] -> [B, H, W, 2 C]."""

    def call(self, frames):
        return ops.concatenate([frames[:, 0], frames[:, 1]], axis=-1)


@keras.saving.register_keras_serializable("tfssl")
class Enlarge(keras.layers.Layer):
    """Maps [B, H, W, C] -> [B, factor H, factor W, C], bilinear; Keras' own needs fixed sides."""

    def __init__(self, factor, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, maps):
        large = tf.image.resize(maps, self.factor * tf.shape(maps)[1:3])
        return tf.cast(large, self.compute_dtype)

    def compute_output_spec(self, maps):
        sides = [None if side is None else self.factor * side for side in maps.shape[1:3]]
        shape = (maps.shape[0], *sides, maps.shape[3])
        return keras.KerasTensor(shape, dtype=self.compute_dtype)

    def get_config(self):
        return {**super().get_config(), "factor": self.factor}


@keras.saving.register_keras_serializable("tfssl")
class FlowModel(keras.Model):
    """A functional model whose output is the map itself: pairs [B, 2, H, W, 3] -> [B, H, W, 2].

    Where an encoder's map would get a pooling layer (`encoders.get`), this one's passes as it is.
    """

    keeps_map = True


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


def expand(encoder):
    """FlowNetS' expanding part on the taps of its contracting one: the flows, finest first.

    A model: pairs [B, 2, H, W, 3], sides multiples of 64 -> five maps [B, H / 4, W / 4, 2] ..
    [B, H / 64, W / 64, 2], float32 (Dosovitskiy et al., ICCV 2015, figure 3).
    """
    taps = {name: encoder.get_layer(name).output for name in ("c2", "c3", "c4", "c5", "c6")}
    x, flows = taps["c6"], []

    def head(x, name):
        # Almost no flow at first: the usual weights, times 20, would point out of small frames.
        small = keras.initializers.VarianceScaling(1e-3)
        conv = keras.layers.Conv2D(
            2, 3, padding="same", kernel_initializer=small, dtype="float32", name=name
        )
        return conv(x)

    widths = {"c5": 2, "c4": 4, "c3": 8, "c2": 16}  # c6 has this many times more
    for name, less in widths.items():
        flow = head(x, f"to_{name}")
        flows.append(flow)
        up = keras.layers.Conv2DTranspose(2, 4, 2, "same", name=f"flow_{name}")(flow)
        wide = keras.layers.Conv2DTranspose(taps["c6"].shape[-1] // less, 4, 2, "same")(x)
        wide = keras.layers.LeakyReLU(SLOPE)(wide)
        x = keras.layers.Concatenate()([taps[name], wide, up])
    flows.append(head(x, "finest"))
    return keras.Model(encoder.input, flows[::-1], name="flownet")


def flow_model(network, scale):
    """`expand`'s finest map, enlarged fourfold and times `scale`: pairs -> flow at their size."""
    finest = network.outputs[0]
    flow = Enlarge(4, dtype="float32")(finest)
    flow = keras.layers.Rescaling(scale, dtype="float32", name="flow")(flow)
    return FlowModel(network.input, flow, name="flow")
