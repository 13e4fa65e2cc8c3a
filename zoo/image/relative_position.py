"""Tell where the second of two patches lies around the first.

Paper: Unsupervised Visual Representation Learning by Context Prediction
Authors: Carl Doersch, Abhinav Gupta, Alexei A. Efros
Venue: ICCV 2015
URL: https://arxiv.org/abs/1505.05192
Family: pretext-spatial
"""

import functools
import math

import keras
import numpy as np
import tensorflow as tf

from tfssl import encoders, layers
from tfssl.encoders.image import MEAN
from tfssl.errors import BadInput
from tfssl.layers.normalisation import BatchNormalization
from tfssl.method import Method, Run
from tfssl.objectives.classification import cross_entropy
from tfssl.pipelines import batching, load
from tfssl.pipelines.augment.image import drop_colour, project_colour, to_float
from tfssl.pipelines.sample.patches import lattice, neighbour_patches
from tfssl.pipelines.sample.patches import standardise as unit_patches

RMS = 50.0  # of a standardised patch, in grey levels of 0..255
# For `tfssl audit`: with which keywords of the recipe a cue gets in, and which keep it out.
GUARDS = {
    "aberration": ({"guard": "none"}, {"drop": {"guard": "drop"}, "project": {"guard": "project"}}),
    "gap": ({"guard": "touching"}, {}),
}


def views(examples, seed, size=548, area=(0.5, 1.5), shrink=0.33, guard="drop", **cell):
    """Two neighbouring patches: float32 [B, 2, patch, patch, 3]; int32 [B], where the second lies.

    Labels 0..7 are up-left, up, up-right, left, right, down-left, down, down-right of the first.
    The image is resized, its aspect kept, to `area` times size^2 pixels (548 px and 0.5 to 1.5: the
    paper's 150,000 to 450,000). Each patch is by itself shrunk and enlarged again with probability
    `shrink`, robbed of the colours by which a lens tells the place (`guard`: "drop" leaves one
    channel in noise, "project" takes out green-magenta), and standardised (section 3.1). To see
    what guards are worth, "none" keeps all colours, and "touching" has neither gap nor jitter.

    Patches come in the units of encoders: MEAN + p / 255 where p has mean 0 and an RMS of 50.
    `cell` is patch, gap and jitter in pixels: the paper's 96, 48, 7, below 241 px `lattice(size)`.
    """
    seeds = tf.random.split(seed, 2)
    cell = {**_cell(size, guard), **cell}
    patches, labels = neighbours(examples["image"], seeds[0], size, area, shrink, **cell)
    patches = layers.fold(patches)
    if guard == "project":
        patches = project_colour(patches)
    elif guard != "none":
        patches = drop_colour(patches, seeds[1])
    return layers.unfold(MEAN + standardise(patches) / 255, 2), labels


def neighbours(images, seed, size=548, area=(0.5, 1.5), shrink=0.33, **cell):
    """The two patches, in [0, 1] and with all their colours, and the labels."""
    cell = cell or _cell(size)
    seeds = tf.random.split(seed, 3)
    # Images of one batch have one size, so one draw an image only where sizes differ.
    share = tf.random.stateless_uniform([], seeds[0], *area)
    need = 2 * cell["patch"] + cell["gap"]
    images = _resize(images, size * tf.sqrt(share), need + 2 * cell["jitter"])
    patches, labels = neighbour_patches(images, seeds[1], grid=2, **cell)
    coarse = _shrunken(layers.fold(patches), seeds[2], shrink)
    return layers.unfold(coarse, 2), labels


def _cell(size, guard="drop"):
    if guard not in ("drop", "project", "none", "touching"):
        raise BadInput(f"guard={guard}: there are drop, project, none and touching.")
    cell = dict(patch=96, gap=48, jitter=7) if size > 240 else lattice(size)
    return {**cell, "gap": 0, "jitter": 0} if guard == "touching" else cell


def standardise(patches):
    """Patches [B, h, w, 3] in [0, 1] or signed -> mean 0 and a root mean square of exactly 50.

    The mean of each channel is taken out for the projected colours too, so that both guards give
    encoders what they expect. A patch of one colour stays 0.
    """
    return RMS * unit_patches(patches)


def _resize(images, side, least):
    """To side^2 pixels, aspect kept, no side below `least` (there, smaller are left out)."""
    images = to_float(images)
    extent = tf.cast(tf.shape(images)[1:3], tf.float32)
    scale = side / tf.sqrt(tf.reduce_prod(extent))
    scale = tf.maximum(scale, least / tf.reduce_min(extent))
    extent = tf.cast(tf.round(extent * scale), tf.int32)
    resized = tf.image.resize(images, extent, antialias=True)
    return tf.ensure_shape(tf.clip_by_value(resized, 0.0, 1.0), [*images.shape[:1], None, None, 3])


def _shrunken(patches, seed, probability):
    """Some patches shrunk to an area uniform between a hundredth and all of it, and enlarged."""
    side = patches.shape[1]
    least = max(2, round(side * 10 / 96))  # 10 of 96 px
    u = tf.random.stateless_uniform([tf.shape(patches)[0], 2], seed)
    smaller = tf.sqrt(u[:, 0] * (max(least, side - 1) ** 2 - least**2) + least**2)
    smaller = tf.where(u[:, 1] < probability, tf.cast(smaller, tf.int32), side)
    both = tf.gather(_resamplings(side, least), smaller - least)  # [B, side, side]
    rows = tf.einsum("bij,bjkc->bikc", both, patches)
    return tf.clip_by_value(tf.einsum("bij,bkjc->bkic", both, rows), 0.0, 1.0)


@functools.cache
def _resamplings(side, least):
    """Shrinking to least, ..., side and enlarging again as matrices [sizes, side, side]."""
    with tf.init_scope():
        columns = tf.eye(side)[:, :, None]
        sizes = range(least, side + 1)
        small = [tf.image.resize(columns, [s, side], antialias=True) for s in sizes]
        return np.stack([tf.image.resize(x, [side, side])[..., 0] for x in small])


class RelativePosition(Method):
    """The encoder on both patches, late fusion, and a classifier of the eight places.

    Args:
        width: of the layers after the encoder: one for each patch, one for the pair, one more.
    """

    chance = math.log(8)

    def __init__(self, encoder, width=4096):
        super().__init__(encoder)
        self.fc6 = _fully_connected(encoder.output_shape[-1], width, "fc6")
        self.fc7 = _fully_connected(2 * width, width, "fc7")
        self.classifier = layers.mlp(width, [width, 8], normalise=False, name="classifier")
        self.accuracy = keras.metrics.SparseCategoricalAccuracy(name="accuracy")

    def call(self, x, training=False):
        h = self.encoder(layers.fold(x), training=training)  # [2B, D], shared weights
        h = self.fc6(h, training=training)
        pair = tf.reshape(h, [-1, 2 * h.shape[-1]])  # the order carries the label
        return self.classifier(self.fc7(pair, training=training))  # [B, 8]

    def objective(self, x, y, outputs):
        self.accuracy.update_state(y, outputs)
        return cross_entropy(outputs, y)


def _fully_connected(inputs, width, name):
    """Dense, batch norm without scale and shift (they could silence a unit), ReLU."""
    return keras.Sequential(
        [
            keras.Input([inputs]),
            keras.layers.Dense(width, use_bias=False),
            BatchNormalization(center=False, scale=False),
            keras.layers.ReLU(),
        ],
        name=name,
    )


def recipe(
    encoder="alexnet",
    data="tfds:imagenet2012",
    size=548,
    batch_size=256,  # pairs; 512 patches
    epochs=100,
    learning_rate=2.56e-3,  # 1e-5 on the sum over the pairs, which here is a mean
    momentum=0.0,  # the released code; the paper speaks of 0.999
    width=4096,
    area=(0.5, 1.5),
    shrink=0.33,
    guard="drop",
    seed=0,
):
    """The released ImageNet run, cdoersch/deepcontext train.py (section 3.1).

    An epoch is one pair an image; the released code takes every pair of four grids. `epochs` is
    ours: the paper trains for four weeks. Our AlexNet ends in a mean over its last map, with batch
    norms that scale and shift. The smaller the image, the more tells a first patch's place alone.
    """
    encoder = encoders.get(encoder, size=_cell(size, guard)["patch"])
    view = functools.partial(views, size=size, area=area, shrink=shrink, guard=guard)
    dataset = batching.train(load(data, keys=("image",)), view, batch_size, seed)
    model = RelativePosition(encoder, width)
    model.compile(keras.optimizers.SGD(learning_rate, momentum))
    return Run(model, dataset, epochs)


SMALL = dict(
    encoder="resnet9",
    data="world:n=4000",
    size=64,
    batch_size=128,
    epochs=3,
    learning_rate=0.03,
    momentum=0.9,
    width=128,
    area=(1.0, 1.0),
)
