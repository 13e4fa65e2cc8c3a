"""Encoders whose maps matter more than their pooled features: the contracting half of FlowNets."""

import keras
import tensorflow as tf
from keras import ops

from tfssl.encoders.image import normalise
from tfssl.errors import BadInput
from tfssl.layers.correlation import Correlation

SLOPE = 0.1


@keras.saving.register_keras_serializable("tfssl")
class StackFrames(keras.layers.Layer):
    """Two frames become channels: [B, 2, H, W, C] -> [B, H, W, 2 C]."""

    def call(self, frames):
        return ops.concatenate([frames[:, 0], frames[:, 1]], axis=-1)


@keras.saving.register_keras_serializable("tfssl")
class Frame(keras.layers.Layer):
    """One frame of several: [B, T, H, W, C] -> [B, H, W, C]."""

    def __init__(self, index, **kwargs):
        super().__init__(**kwargs)
        self.index = index

    def call(self, frames):
        return frames[:, self.index]

    def get_config(self):
        return {**super().get_config(), "index": self.index}


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
    _at_least_one("flownet_s", width=width)
    pair = keras.Input((2, None, None, 3), name="frames")
    x = StackFrames(name="stack")(normalise(pair))
    x = _relu("c1")(_convolution(width, 7, 2, "stage_1")(x))
    x = _relu("c2")(_convolution(2 * width, 5, 2, "stage_2")(x))
    x = _relu("stage_3_relu")(_convolution(4 * width, 5, 2, "stage_3")(x))
    return keras.Model(pair, _from_stage_3_1(x, width), name="flownet_s")


def flownet_c(width=64, displacement=20, stride=2):
    """FlowNetC's contracting part (Dosovitskiy et al., ICCV 2015, figure 2), no batch norm.

    As `flownet_s`, but that each frame passes the first three convolutions alone, and the maps
    meet by their correlation up to `displacement` places away, at every `stride` (a place is 8
    pixels). Pairs [B, 2, H, W, 3] -> [B, 16 * width]; c1 and c2 are the first frame's.
    """
    _at_least_one("flownet_c", width=width, displacement=displacement, stride=stride)
    pair = keras.Input((2, None, None, 3), name="frames")
    frames = normalise(pair)
    first, second = Frame(0, name="first")(frames), Frame(1, name="second")(frames)
    for i, (factor, kernel) in enumerate(((1, 7), (2, 5), (4, 5)), 1):
        shared = _convolution(factor * width, kernel, 2, f"stage_{i}")
        first = _relu(f"c{i}" if i < 3 else "stage_3_relu")(shared(first))
        second = _relu(f"second_{i}_relu")(shared(second))
    likeness = Correlation(displacement, stride, name="correlation")(first, second)
    likeness = _relu("correlation_relu")(likeness)
    # 32 channels in the paper, half its width.
    kept = _convolution(max(1, width // 2), 1, 1, "kept")(first)
    x = keras.layers.Concatenate(name="meet")([_relu("kept_relu")(kept), likeness])
    return keras.Model(pair, _from_stage_3_1(x, width), name="flownet_c")


def _at_least_one(name, **options):
    for option, value in options.items():
        if value < 1:
            raise BadInput(f"{name}: {option} must be at least 1, not {value}.")


def _convolution(filters, kernel, strides, name):
    return keras.layers.Conv2D(
        filters,
        kernel,
        strides,
        padding="same",
        kernel_initializer="he_normal",
        name=f"{name}_conv",
    )


def _relu(name=None):
    return keras.layers.LeakyReLU(SLOPE, name=name)


def _from_stage_3_1(x, width):
    """What both networks have in common: conv3_1 to conv6_1, and the pooled features."""
    x = _relu("c3")(_convolution(4 * width, 3, 1, "stage_3_1")(x))
    for i, factor in ((4, 8), (5, 8), (6, 16)):
        x = _relu(f"stage_{i}_relu")(_convolution(factor * width, 3, 2, f"stage_{i}")(x))
        x = _relu(f"c{i}")(_convolution(factor * width, 3, 1, f"stage_{i}_1")(x))
    return keras.layers.GlobalAveragePooling2D(name="pool")(x)


def expand(encoder):
    """The expanding part that both have, on the taps of a contracting one: flows, finest first.

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
        wide = _relu()(wide)
        x = keras.layers.Concatenate()([taps[name], wide, up])
    flows.append(head(x, "finest"))
    return keras.Model(encoder.input, flows[::-1], name="flownet")


def flow_model(network, scale):
    """`expand`'s finest map, enlarged fourfold and times `scale`: pairs -> flow at their size."""
    finest = network.outputs[0]
    flow = Enlarge(4, dtype="float32")(finest)
    flow = keras.layers.Rescaling(scale, dtype="float32", name="flow")(flow)
    return FlowModel(network.input, flow, name="flow")
