"""Guess the colour of every pixel from its lightness, as a choice among bins of colour.

Paper: Colorful Image Colorization
Authors: Richard Zhang, Phillip Isola, Alexei A. Efros
Venue: ECCV 2016
URL: https://arxiv.org/abs/1603.08511
Family: pretext-generative
"""

import functools
import math

import keras
import numpy as np
import tensorflow as tf

from tfssl import encoders
from tfssl.encoders.maps import trunk
from tfssl.layers.decoders import PixelHead
from tfssl.layers.lab import AB
from tfssl.method import Method, Run
from tfssl.objectives.classification import (
    annealed_mean,
    rebalancing,
    soft_cross_entropy,
    soft_encoding,
)
from tfssl.pipelines import batching, load
from tfssl.pipelines.augment.image import centre_crop, lab_to_rgb, random_resized_crop, rgb_to_lab

GREY = 5.0  # an image whose |a| and |b| stay below has no colour to learn from
STRIDE = 4  # of the map of colours


def views(examples, seed, size=224, area=(0.08, 1.0)):
    """Lightness of a crop, float32 [B, size, size, 3] in [0, 1], all three channels alike; and its
    ab / 110, every fourth pixel, [B, size / 4, size / 4, 2] (section 2)."""
    lab = rgb_to_lab(random_resized_crop(examples["image"], size, seed, area=area))
    return lightness(lab), lab[:, ::STRIDE, ::STRIDE, 1:] / AB


def lightness(lab):
    """L / 100 three times, as encoders of colour images take it: [B, H, W, 3]."""
    return tf.clip_by_value(tf.tile(lab[..., :1] / 100, [1, 1, 1, 3]), 0.0, 1.0)


@functools.cache
def bins(grid=10):
    """Centres [Q, 2] of the cells of a grid over ab that hold a colour of sRGB, multiples of it.

    Counted with all colours of 52 levels a channel: some 260 at 10 (the released list has
    313, neighbours of the gamut among them).
    """
    with tf.init_scope():
        levels = tf.linspace(0.0, 1.0, 52)
        cube = tf.stack(tf.meshgrid(levels, levels, levels, indexing="ij"), axis=-1)
        ab = rgb_to_lab(tf.reshape(cube, [1, 52, -1, 3]))[..., 1:].numpy().reshape(-1, 2)
    return np.unique(np.round(ab / grid), axis=0).astype(np.float32) * grid


def frequencies(examples, centres, sigma=5.0, size=32):
    """How often each bin occurs, float32 [Q], from one pass over the data (section 2.2).

    Every image's central square, shrunk to `size` pixels; nearest centres, smoothed with a Gaussian
    of `sigma` over ab. Grey images are left out, as they are of the loss; where all are grey every
    bin is as likely.
    """

    def counted(example):
        ab = rgb_to_lab(centre_crop(example["image"][None], size))[..., 1:]
        nearest = tf.argmax(soft_encoding(ab, centres, 1, sigma), axis=-1)
        counts = tf.math.bincount(
            tf.cast(tf.reshape(nearest, [-1]), tf.int32), minlength=len(centres), dtype=tf.float32
        )
        return counts * colourful(ab)[0]

    each = examples.map(counted, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)
    counts = each.reduce(tf.zeros([len(centres)], tf.float64), lambda a, b: a + tf.cast(b, a.dtype))
    squared = ((centres[:, None] - centres[None]) ** 2).sum(axis=-1)
    kernel = np.exp(-squared / (2 * sigma**2))
    smooth = (kernel / kernel.sum(axis=0)) @ counts.numpy()
    smooth = smooth if smooth.any() else np.ones(len(centres))
    return (smooth / smooth.sum()).astype(np.float32)


def colourful(ab):
    """1 for images [B, h, w, 2] with some |a| or |b| above 5, else 0: float32 [B]."""
    return tf.cast(tf.reduce_max(tf.abs(ab), axis=[1, 2, 3]) > GREY, tf.float32)


class Colorization(Method):
    """The encoder's deepest map, one convolution, and the bins of every fourth pixel.

    Args:
        encoder: its last tap must be a map [B, h, w, C].
        centres: of the bins, [Q, 2].
        prior: how often each occurs, [Q]; a uniform one turns rebalancing off.
        neighbours, sigma: of the soft encoding.
        uniform: share of the uniform distribution in the weights, lambda.
        width: of the convolution.
    """

    def __init__(self, encoder, centres, prior, neighbours=5, sigma=5.0, uniform=0.5, width=256):
        super().__init__(encoder)
        self.trunk = trunk(encoder, "colorization")
        self.head = PixelHead(self.trunk.output.shape[-1], width, len(centres))
        self.centres = tf.constant(centres)
        self.neighbours, self.sigma = neighbours, sigma
        weights = rebalancing(prior, uniform)
        self.balance = self.add_weight(
            name="balance",
            shape=weights.shape,
            dtype="float32",
            initializer=lambda shape, dtype=None: weights,
            trainable=False,
            autocast=False,
        )
        self.chance = math.log(len(centres))

    def call(self, x, training=False):
        maps = self.trunk(x, training=training)
        return self.head(maps, sides=sides(x), training=training)  # [B, H / 4, W / 4, Q]

    def objective(self, x, y, outputs):
        ab = AB * y
        target = soft_encoding(ab, self.centres, self.neighbours, self.sigma)
        weight = tf.gather(tf.convert_to_tensor(self.balance), tf.argmax(target, axis=-1))
        return soft_cross_entropy(outputs, target, weight * colourful(ab)[:, None, None])

    def colourise(self, light, temperature=0.38):
        """Lightness, as `views` gives it -> sRGB [B, H, W, 3] in [0, 1], by the annealed mean."""
        logits = self(light, training=False)
        return paint(light, annealed_mean(logits, self.centres, temperature))  # equation 5


def sides(images):
    """Height and width of the map of colours of images [B, H, W, C] whose sides are static."""
    return [-(-images.shape[i] // STRIDE) for i in (1, 2)]


def paint(light, ab):
    """Lightness [B, H, W, 3] in [0, 1] in the colours ab [B, h, w, 2] -> sRGB [B, H, W, 3]."""
    ab = tf.image.resize(ab, tf.shape(light)[1:3])
    return lab_to_rgb(tf.concat([100 * light[..., :1], ab], axis=-1))


def steps_down(rate, steps):
    """`rate`, a third of it from 4 / 9 of the steps on, and a tenth from 5 / 6 on."""
    return keras.optimizers.schedules.PiecewiseConstantDecay(
        [steps * 4 // 9, steps * 5 // 6], [rate, rate / 3, rate / 10]
    )


def recipe(
    encoder="alexnet",
    data="tfds:imagenet2012",
    size=224,
    batch_size=40,
    epochs=14,  # 450,000 steps
    learning_rate=3e-5,
    weight_decay=1e-3,
    grid=10,
    sigma=5.0,
    neighbours=5,  # the released code: 10
    uniform=0.5,
    width=256,
    area=(0.08, 1.0),
    seed=0,
):
    """The paper's ImageNet run with an AlexNet for features (sections 2 and 3.2).

    The rate falls to a third and to a tenth at 200,000 and 375,000 of 450,000 steps; weights decay
    apart from the gradient, as in AdamW. The crops' `area` is ours.
    """
    examples = load(data, keys=("image",))
    view = functools.partial(views, size=size, area=area)
    dataset = batching.train(examples, view, batch_size, seed)
    centres = bins(grid)
    prior = frequencies(examples, centres, sigma)
    encoder = encoders.get(encoder, size=size)
    model = Colorization(encoder, centres, prior, neighbours, sigma, uniform, width)
    rate = steps_down(learning_rate, round(dataset.steps * epochs))
    model.compile(keras.optimizers.Adam(rate, 0.9, 0.99, weight_decay=weight_decay))
    return Run(model, dataset, epochs)


SMALL = dict(
    encoder="resnet9",
    data="world:n=4000",
    size=32,
    batch_size=64,
    epochs=2,
    learning_rate=1e-3,
    grid=20,
    sigma=10.0,
    width=64,
    area=(0.5, 1.0),
)
