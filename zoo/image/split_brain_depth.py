"""Two networks predict each other's view of a scene, its colours and its depth.

Paper: Split-Brain Autoencoders: Unsupervised Learning by Cross-Channel Prediction
Authors: Richard Zhang, Phillip Isola, Alexei A. Efros
Venue: CVPR 2017
URL: https://arxiv.org/abs/1611.09842
Family: pretext-generative
"""

import functools
import math

import keras
import tensorflow as tf

from tfssl import encoders
from tfssl.encoders.image import MEAN, STD
from tfssl.objectives.reconstruction import masked_mean
from tfssl.pipelines import batching, load
from tfssl.pipelines.augment.image import random_resized_crop, to_float
from tfssl.zoo.image import split_brain_regression
from tfssl.zoo.image.split_brain_regression import SplitBrainRegression, asked, compiled

# Of the logarithm of the depth in metres: world's own mean and deviation, those of a room.
LOG_DEPTH = ((1.7,), (0.5,))
NEAREST = 0.1  # metres; what a sensor could not measure is 0
UNKNOWN = math.log(NEAREST)


def views(examples, seed, size=180, area=(0.49, 0.49), stride=15):
    """A crop of the image and of its depth map, and what each half is asked: the other one.

    Returns:
        (x, y), a dict each. x: "image", RGB in [0, 1] [B, size, size, 3], and "depth", the
        logarithm of metres [B, size, size, 1]. y: "image", the depth that the image's half is
        asked, and "depth", the other way round, at every `stride`-th pixel. What was not measured
        is seen as the mean, and not asked (`UNKNOWN`).

    Depth is an annotation that this method needs by design (`views.uses`): a sensor's, or the
    generated ground truth of world.
    """
    metres = tf.cast(examples["depth"], tf.float32)[..., None]
    depth = tf.math.log(tf.maximum(metres, NEAREST))
    known = tf.cast(metres > NEAREST, tf.float32)
    both = tf.concat([to_float(examples["image"]), depth, known], axis=-1)
    both = random_resized_crop(both, size, seed, area=area, aspect=(1.0, 1.0))
    image, depth, known = tf.split(both, [3, 1, 1], axis=-1)
    known = known > 0.99  # not mixed with what is unknown either
    x = {"image": image, "depth": tf.where(known, depth, LOG_DEPTH[0][0])}
    return x, asked({"image": image, "depth": tf.where(known, depth, UNKNOWN)}, stride)


views.uses = ("depth",)


class SplitBrainDepth(SplitBrainRegression):
    """RGB | depth by regression on standardised channels; the two networks are published apart.

    An encoder of images is asked for before one of images with depth: "encoder" takes RGB,
    "depth_encoder" the logarithm of metres [B, H, W, 1]. Both together are the paper's
    representation. It encodes depth as HHA, in three channels; here it stays one.

    Args:
        encoder, width, stride: as `SplitBrainRegression` has them.
    """

    def __init__(self, encoder, width=256, stride=15):
        parts = {"image": (MEAN, STD), "depth": LOG_DEPTH}
        super().__init__(encoder, width, stride, parts=parts)
        self.depth_encoder = features(self.halves["depth"])

    def join(self, halves, name):
        return features(halves["image"])

    def cost(self, name, target, prediction):
        """Squared error of the predicted part; of depth where it was measured."""
        if name != "depth":
            return super().cost(name, target, prediction)
        mean, deviation = (tf.constant(value) for value in self.parts[name])
        error = tf.math.squared_difference(prediction, (target - mean) / deviation)
        return masked_mean(error, target > UNKNOWN + 1e-3)

    @property
    def published(self):
        return {"encoder": self.encoder, "depth_encoder": self.depth_encoder}


def features(half):
    """A half as an encoder of its own."""
    return keras.Model(half.input, half.output["features"], name=half.name)


def recipe(
    encoder="alexnet",
    data="world",  # in the paper NYU Depth v2
    size=180,
    batch_size=40,
    epochs=14,
    learning_rate=3e-5,
    weight_decay=1e-3,
    width=256,
    area=(0.49, 0.49),
    stride=15,
    seed=0,
):
    """`split_brain`'s run on images with depth."""
    view = functools.partial(views, size=size, area=area, stride=stride)
    dataset = batching.train(load(data, keys=("image", "depth")), view, batch_size, seed)
    model = SplitBrainDepth(encoders.get(encoder, size=size), width, stride)
    return compiled(model, dataset, epochs, learning_rate, weight_decay)


SMALL = dict(split_brain_regression.SMALL)
