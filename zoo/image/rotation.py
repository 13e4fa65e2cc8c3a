"""Tell by how many quarter turns an image was rotated.

Paper: Unsupervised Representation Learning by Predicting Image Rotations
Authors: Spyros Gidaris, Praveer Singh, Nikos Komodakis
Venue: ICLR 2018
URL: https://arxiv.org/abs/1803.07728
Family: pretext-spatial
"""

import functools
import math

import keras
import tensorflow as tf

from tfssl import encoders, layers
from tfssl.method import Method, Run
from tfssl.objectives.classification import cross_entropy
from tfssl.optimizers import SGD, falling
from tfssl.pipelines import batching, load
from tfssl.pipelines.augment.image import random_resized_crop, rotate90


def views(examples, seed, size=224, area=(0.08, 1.0), flip=0.5):
    """All four rotations of one crop: float32 [B, 4, size, size, 3]; int32 [B, 4], their number.

    Class k is k quarter turns counter-clockwise (section 2.2). Crop and flip come first, and are
    the same for all four: whatever is done to the pixels after a turn could tell the turn. `area`
    is the crop's share of the image (the paper pads CIFAR's by 4 pixels, which keeps the scale).
    """
    crops = random_resized_crop(examples["image"], size, seed, area=area, flip=flip)
    turned = tf.stack([rotate90(crops, turns) for turns in range(4)], axis=1)
    return turned, tf.tile(tf.range(4)[None], [tf.shape(crops)[0], 1])


class Rotation(Method):
    """A linear classifier of the four turns on the encoder."""

    chance = math.log(4)

    def __init__(self, encoder):
        super().__init__(encoder)
        self.classifier = layers.linear(encoder.output_shape[-1], 4)
        self.accuracy = keras.metrics.SparseCategoricalAccuracy(name="accuracy")

    def call(self, x, training=False):
        h = self.encoder(layers.fold(x), training=training)  # [4B, D]
        return layers.unfold(self.classifier(h), 4)  # [B, 4 turns, 4 classes]

    def objective(self, x, y, outputs):
        self.accuracy.update_state(y, outputs)
        return cross_entropy(outputs, y)  # equation 2


def recipe(
    encoder="alexnet",
    data="tfds:imagenet2012",
    size=224,
    batch_size=192,  # images; each comes four times
    epochs=50,
    learning_rate=0.1,
    weight_decay=5e-4,
    falls=(0.3, 0.6, 0.9),  # shares of the run: epochs 15, 30, 45 of 50
    factor=0.1,  # of each fall; the released CIFAR runs have 0.2
    area=(0.08, 1.0),
    seed=0,
):
    """The released ImageNet run, gidariss/FeatureLearningRotNet (the paper: section 3.2)."""
    view = functools.partial(views, size=size, area=area)
    dataset = batching.train(load(data, keys=("image",)), view, batch_size, seed)
    model = Rotation(encoders.get(encoder, size=size))
    rate = falling(learning_rate, round(dataset.steps * epochs), falls, factor)
    model.compile(SGD(rate, weight_decay=weight_decay, nesterov=True))
    return Run(model, dataset, epochs)


SMALL = dict(
    encoder="conv4",
    data="digits",
    size=32,
    batch_size=64,
    epochs=8,
    learning_rate=0.03,
    falls=(0.5, 0.75, 0.9),
    factor=0.2,
    area=(0.5, 1.0),
)
