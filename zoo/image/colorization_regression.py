"""Guess the colour of every pixel from its lightness by regression, the baseline of colorization.

Paper: Colorful Image Colorization
Authors: Richard Zhang, Phillip Isola, Alexei A. Efros
Venue: ECCV 2016
URL: https://arxiv.org/abs/1603.08511
Family: pretext-generative
"""

import functools

import keras
import tensorflow as tf

from tfssl import encoders
from tfssl.encoders.maps import trunk
from tfssl.layers.decoders import PixelHead
from tfssl.layers.lab import AB
from tfssl.method import Method, Run
from tfssl.objectives.numerics import float32
from tfssl.pipelines import batching, load
from tfssl.zoo.image import colorization
from tfssl.zoo.image.colorization import colourful, paint, sides, views


class ColorizationRegression(Method):
    """`colorization` with two numbers a pixel in place of its bins: half the squared distance.

    What it learns of an object of many colours is their mean, which is grey. Nothing is
    rebalanced, and grey images are left out as they are there.

    Args:
        encoder: its last tap must be a map [B, h, w, C].
        width: of the convolution on it.
    """

    def __init__(self, encoder, width=256):
        super().__init__(encoder)
        self.trunk = trunk(encoder, "colorization_regression")
        self.head = PixelHead(self.trunk.output.shape[-1], width, 2)

    def call(self, x, training=False):
        maps = self.trunk(x, training=training)
        return self.head(maps, sides=sides(x), training=training)  # [B, H / 4, W / 4, 2]

    def objective(self, x, y, outputs):
        distance = tf.reduce_sum(tf.math.squared_difference(outputs, float32(y)), axis=-1)
        return tf.reduce_mean(0.5 * distance * colourful(AB * y)[:, None, None])  # equation 1

    def colourise(self, light):
        """Lightness, as `views` gives it -> sRGB [B, H, W, 3] in [0, 1]."""
        return paint(light, AB * tf.cast(self(light, training=False), tf.float32))


def recipe(
    encoder="alexnet",
    data="tfds:imagenet2012",
    size=224,
    batch_size=40,
    epochs=14,  # 450,000 steps
    learning_rate=3e-5,
    weight_decay=1e-3,
    width=256,
    area=(0.08, 1.0),
    seed=0,
):
    """`colorization`'s run; equation 1 is a sum over pixels, here a mean over them of ab / 110."""
    view = functools.partial(views, size=size, area=area)
    dataset = batching.train(load(data, keys=("image",)), view, batch_size, seed)
    model = ColorizationRegression(encoders.get(encoder, size=size), width)
    rate = colorization.steps_down(learning_rate, round(dataset.steps * epochs))
    model.compile(keras.optimizers.Adam(rate, 0.9, 0.99, weight_decay=weight_decay))
    return Run(model, dataset, epochs)


SMALL = {k: v for k, v in colorization.SMALL.items() if k not in ("grid", "sigma")}
