"""Every frame must find its way to another video of the same action and back to where it began.

Paper: Temporal Cycle-Consistency Learning
Authors: Debidatta Dwibedi, Yusuf Aytar, Jonathan Tompson, Pierre Sermanet, Andrew Zisserman
Venue: CVPR 2019
URL: https://arxiv.org/abs/1904.07846
Family: tracking-correspondence
"""

import functools

import keras
import tensorflow as tf

from tfssl import encoders, layers
from tfssl.encoders.video import FoldFrames, UnfoldFrames
from tfssl.errors import BadInput
from tfssl.layers.convolution import Conv3D
from tfssl.layers.normalisation import BatchNormalization
from tfssl.method import Method, Run
from tfssl.objectives import replicas, temporal
from tfssl.pipelines import batching, load
from tfssl.pipelines.augment.image import random_flip, resize
from tfssl.pipelines.sample import clips


def views(
    examples, seed, size=224, count=20, context=2, stride=15, contrast=(0.5, 1.5), dropout=0.1,
    width=512,
):  # fmt: skip
    """Frames in their order with what came before them, and the noise of dropout.

    Returns:
        dict of `frames` float32 [B, count, context, size, size, 3], `time` float32 [B, count] (a
        frame's index over the length of its video) and `keep` float32 [B, count, 2, width], the
        factors of dropout: drawn here, so that nothing is drawn inside the network.

    Flip, brightness (by up to 32 / 255) and contrast are drawn once a video.
    """
    frames = tf.convert_to_tensor(examples["frames"])
    seeds = tf.random.split(seed, 4)
    batch, total = tf.shape(frames)[0], tf.shape(frames)[1]
    # All but frame 0, as the released sampling does; a short video repeats its last frame.
    steps = clips.ordered_indices(total - 1, batch, seeds[0], count)
    steps = 1 + tf.minimum(steps, total - 2)
    shown = with_context(frames, steps, context, stride)
    shown = tf.reshape(shown, tf.concat([[batch, count * context], tf.shape(frames)[2:]], 0))
    shown = random_flip(resize(tf.ensure_shape(shown, [None] * 4 + [3]), size), seeds[1])
    u = tf.random.stateless_uniform([2, batch, 1, 1, 1, 1], seeds[2])
    mean = tf.reduce_mean(shown, axis=[2, 3], keepdims=True)
    factor, shift = contrast[0] + u[0] * (contrast[1] - contrast[0]), (2 * u[1] - 1) * 32 / 255
    shown = tf.clip_by_value((shown - mean) * factor + mean + shift, 0.0, 1.0)
    noise = tf.random.stateless_uniform([batch, count, 2, width], seeds[3])
    return {
        "frames": tf.reshape(shown, [batch, count, context, size, size, 3]),
        "time": tf.cast(steps, tf.float32) / tf.cast(total, tf.float32),
        "keep": tf.cast(noise >= dropout, tf.float32) / (1 - dropout),
    }


def with_context(frames, steps, context=2, stride=15):
    """Frames [B, L, ...] at `steps` [B, T], each behind its past: [B, T, context, ...].

    The past lies `stride` frames apart, and is frame 0 before the video begins.
    """
    past = tf.range(context - 1, -1, -1) * stride
    return clips.take(frames, tf.maximum(steps[..., None] - past, 0))


def embedder(backbone, tap, width=512, dims=128, decay=1e-5):
    """A frame with its context, float32 [B, K, H, W, 3] in [0, 1] -> [B, dims], any K.

    The backbone's map of each frame at layer `tap`, two 3-D convolutions over all, their maximum,
    two layers and a linear one (table 1 of the paper's appendix). Taps: c1 (the maps), c2, c3.
    """
    l2 = {"kernel_regularizer": keras.regularizers.L2(decay)}
    named = (layer for layer in backbone.layers if layer.name == tap)
    if not any(getattr(layer.output, "ndim", 0) == 4 for layer in named):
        known = ", ".join(encoders.tap_names(backbone)) or "none"
        raise BadInput(
            f"tcc: tap={tap}: {backbone.name} has no map of that name; its taps are {known}."
        )
    maps = encoders.outputs_of(backbone, [tap])[tap]
    maps = keras.Model(backbone.input, maps, name="frame_network")
    frames = keras.Input((None, *backbone.input_shape[1:]), name="frames")
    x = UnfoldFrames(name="c1")([maps(FoldFrames(name="fold")(frames)), frames])
    for name in ("c2", "c3"):
        x = Conv3D(width, 3, padding="same", name=f"{name}_conv", **l2)(x)
        x = keras.layers.ReLU(name=name)(BatchNormalization(name=f"{name}_norm")(x))
    x = keras.layers.GlobalMaxPooling3D(name="pool")(x)
    for name in ("fc1", "fc2"):
        x = keras.layers.Dense(width, "relu", name=name, **l2)(x)
    return keras.Model(frames, keras.layers.Dense(dims, name="embedding", **l2)(x), name="tcc")


class TCC(Method):
    """Cycle-back regression over all ordered pairs of videos in the batch, on all replicas.

    Args:
        encoder: what `embedder` gives. Its embeddings are not normalised.
        temperature, variance_weight: of equations 2 and 5.
    """

    def __init__(self, encoder, temperature=0.1, variance_weight=0.001):
        super().__init__(encoder)
        self.trunk = keras.Model(encoder.input, encoder.get_layer("pool").output)
        self.temperature, self.variance_weight = temperature, variance_weight

    def call(self, x, training=False):
        h = self.trunk(layers.fold(x["frames"]), training=training)  # [B T, width]
        keep = layers.fold(x["keep"])
        for i, name in enumerate(("fc1", "fc2")):
            h = self.encoder.get_layer(name)(h)
            h = h * tf.cast(keep[:, i], h.dtype) if training else h
        return layers.unfold(self.encoder.get_layer("embedding")(h), x["frames"].shape[1])

    def objective(self, x, y, outputs):
        everyone = replicas.gather(outputs)  # [G, T, D]
        pairs = outputs[:, None], everyone[None], x["time"][:, None]
        cost = temporal.cycle_back_regression_costs(
            *pairs, self.temperature, self.variance_weight
        )  # [B, G, T]
        others = 1 - tf.one_hot(replicas.own_columns(outputs), tf.shape(everyone)[0])  # [B, G]
        return tf.reduce_sum(tf.reduce_mean(cost, axis=-1) * others) / tf.reduce_sum(others)


def imagenet(size=224, weights="imagenet"):
    """ResNet-50v2 of keras.applications for frames in [0, 1], of which only batch norm trains.

    Its batch norms are Keras' own: over several replicas each has the statistics of its own frames.
    """
    frame = keras.Input((size, size, 3))
    scaled = keras.layers.Rescaling(2.0, -1.0)(frame)
    try:
        network = keras.applications.ResNet50V2(False, weights, input_tensor=scaled)
    except Exception as fault:  # Keras raises no narrower one where it cannot download
        raise BadInput(
            f"resnet50v2 comes with ImageNet's weights, and Keras could not get them "
            f"({str(fault)[:150]}): name another network with --encoder."
        ) from None
    for layer in network.layers:
        layer.trainable = isinstance(layer, keras.layers.BatchNormalization)
    return network


def recipe(
    encoder="resnet50v2",  # with ImageNet's weights, those of a classifier; others start afresh
    data="pouring",  # a folder of videos of one action
    size=224,
    batch_size=2,
    epochs=4286,  # 150,000 steps on Pouring's 70 videos
    learning_rate=1e-4,
    tap="conv4_block3_out",
    count=20,
    context=2,
    stride=15,
    width=512,
    dims=128,
    dropout=0.1,
    temperature=0.1,
    variance_weight=0.001,
    seed=0,
):
    """The released configuration (google-research/tcc, config.py; the paper: section 4).

    All videos in `data` must show the same action: that is the method's only supervision. Train on
    a folder of one action, `DATA/tennis_serve`, not on DATA with all its class folders. Videos are
    held whole, a quarter of a megabyte a frame at 224 px: cut long ones to the action.

    From scratch and in minutes clips of `world` are not aligned: Kendall's tau of held-out clips
    shows no trend. The height of the rising object, read off its true box, orders them well: the
    cue is there, and is not found.
    """
    if batch_size < 2:
        raise BadInput("tcc: batch_size must be 2 or more, since one video has no other to match.")
    view = functools.partial(
        views, size=size, count=count, context=context, stride=stride, dropout=dropout, width=width
    )
    # Whole videos: a frame's time is its index over the length of all of it.
    examples = load(data, keys=("frames",), short_side=size, max_frames=None)
    dataset = batching.train(examples, view, batch_size, seed)
    backbone = imagenet(size) if encoder == "resnet50v2" else encoders.get(encoder, size=size)
    model = TCC(embedder(backbone, tap, width, dims), temperature, variance_weight)
    model.compile(keras.optimizers.Adam(learning_rate))
    return Run(model, dataset, epochs)


SMALL = dict(
    encoder="resnet9",
    data="world:n=240,size=32,action=rises",  # which goes on to the end of the clip
    size=32,
    batch_size=4,
    epochs=5,
    learning_rate=1e-3,
    tap="c2",
    count=12,
    stride=1,
    width=64,
    dims=32,
)
