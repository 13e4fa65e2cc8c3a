"""Two halves of a network predict each other's channels, lightness and colour, in bins.

Paper: Split-Brain Autoencoders: Unsupervised Learning by Cross-Channel Prediction
Authors: Richard Zhang, Phillip Isola, Alexei A. Efros
Venue: CVPR 2017
URL: https://arxiv.org/abs/1611.09842
Family: pretext-generative
"""

import functools
import math

import tensorflow as tf

from tfssl import encoders
from tfssl.layers.lab import AB
from tfssl.objectives.classification import cross_entropy, soft_cross_entropy, soft_encoding
from tfssl.pipelines import batching, load
from tfssl.zoo.image import split_brain_regression
from tfssl.zoo.image.colorization import bins
from tfssl.zoo.image.split_brain_regression import SplitBrainRegression, compiled, views


class SplitBrain(SplitBrainRegression):
    """Both predictions are choices among bins (cl, cl): of ab as in colorization, and of L.

    Neither is rebalanced. A pixel's ab is spread over its nearest bins, its L lies in one.

    Args:
        encoder, width, stride: as `SplitBrainRegression` has them.
        centres: of the bins of ab, [Q, 2].
        levels: bins of L, of equal width.
        neighbours, sigma: of the soft encoding of ab.
    """

    def __init__(self, encoder, centres, levels=100, neighbours=5, sigma=5.0, width=256, stride=15):
        outputs = {"lightness": len(centres), "colour": levels}
        super().__init__(encoder, width, stride, outputs)
        self.centres, self.levels = tf.constant(centres), levels
        self.neighbours, self.sigma = neighbours, sigma
        self.chance = math.log(len(centres)) + math.log(levels)

    def cost(self, name, target, prediction):
        if name == "colour":
            shares = soft_encoding(AB * target, self.centres, self.neighbours, self.sigma)
            return soft_cross_entropy(prediction, shares)
        level = tf.cast(target[..., 0] * self.levels, tf.int32)
        return cross_entropy(prediction, tf.clip_by_value(level, 0, self.levels - 1))


def recipe(
    encoder="alexnet",
    data="tfds:imagenet2012",
    size=180,
    batch_size=40,
    epochs=14,
    learning_rate=3e-5,
    weight_decay=1e-3,
    grid=10,
    levels=100,  # not told; the paper's bins of L may be 50
    sigma=5.0,
    neighbours=5,
    width=256,
    area=(0.49, 0.49),
    stride=15,
    seed=0,
):
    """The paper's cl, cl on ImageNet; it names no schedule, so it has colorization's."""
    view = functools.partial(views, size=size, area=area, stride=stride)
    dataset = batching.train(load(data, keys=("image",)), view, batch_size, seed)
    encoder = encoders.get(encoder, size=size)
    model = SplitBrain(encoder, bins(grid), levels, neighbours, sigma, width, stride)
    return compiled(model, dataset, epochs, learning_rate, weight_decay)


SMALL = dict(split_brain_regression.SMALL, grid=20, levels=20, sigma=10.0)
