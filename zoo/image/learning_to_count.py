"""What is counted in the whole image is the sum of what is counted in its four quarters.

Paper: Representation Learning by Learning to Count
Authors: Mehdi Noroozi, Hamed Pirsiavash, Paolo Favaro
Venue: ICCV 2017
URL: https://arxiv.org/abs/1708.06734
Family: pretext-spatial
"""

import functools

import keras
import numpy as np
import tensorflow as tf

from tfssl import encoders, layers
from tfssl.errors import BadInput
from tfssl.method import Method, Run
from tfssl.objectives import replicas
from tfssl.pipelines import batching, load
from tfssl.pipelines.augment.image import random_square_crop
from tfssl.pipelines.sample.patches import quadrants, shifted_channels

SHRINKING = ("area", "bilinear", "bicubic", "lanczos3", "gaussian")


def views(examples, seed, size=228, share=0.9, grey=2 / 3, shift=2):
    """A crop shrunk to half, then its four quarters: float32 [B, 5, size / 2, size / 2, 3].

    The square crop has `share` of the shorter side; its quarters together are it, pixel by pixel.
    Against what would tell shrunk from cut (section 4.2): one of five ways of shrinking, each with
    its blur, drawn for each image; a share `grey` of the images without colour; and in the others
    channels apart by up to `shift` pixels. The paper's quarters are jittered as well; ours are not,
    so that every pixel is counted once.
    """
    seeds = tf.random.split(seed, 4)
    crops = random_square_crop(examples["image"], size + shift, seeds[0], share)
    crops = shifted_channels(crops, seeds[1], shift) if shift else crops
    chosen = tf.random.stateless_uniform([tf.shape(crops)[0], 1, 1, 1], seeds[2]) < grey
    crops = tf.where(chosen, tf.reduce_mean(crops, axis=-1, keepdims=True), crops)
    way = tf.random.stateless_uniform([tf.shape(crops)[0]], seeds[3], 0, len(SHRINKING), tf.int32)
    return tf.concat([shrink(crops, way)[:, None], quadrants(crops)], axis=1)


def shrink(images, way):
    """Images [B, size, size, 3] at half the size, image b by SHRINKING[way[b]]; in [0, 1]."""
    matrix = tf.gather(_halvings(images.shape[1]), way)  # [B, size / 2, size]
    rows = tf.einsum("bij,bjkc->bikc", matrix, images)
    return tf.clip_by_value(tf.einsum("bij,bkjc->bkic", matrix, rows), 0.0, 1.0)


@functools.cache
def _halvings(size):
    """Each way of shrinking a column of `size` pixels to half as a matrix: [5, size / 2, size]."""
    with tf.init_scope():
        pixels = tf.eye(size)[:, :, None, None]  # images one pixel wide, one for each input
        half = [
            tf.image.resize(pixels, [size // 2, 1], method, antialias=method != "area")
            for method in SHRINKING
        ]
        return np.stack([np.transpose(matrix[..., 0, 0]) for matrix in half])


class LearningToCount(Method):
    """Counts that are never negative, and add up; those of another image must not.

    Args:
        hidden: widths of the layers between encoder and counts.
        counts: number of things counted.
        margin: M, squared distance from which another image's counts are far enough.
    """

    def __init__(self, encoder, hidden=(4096, 4096), counts=1000, margin=10.0):
        super().__init__(encoder)
        widths = [*hidden, counts]
        self.counter = layers.mlp(encoder.output_shape[-1], widths, normalise=False, name="counter")
        self.margin = self.chance = margin

    def call(self, x, training=False):
        # All in one batch, so that batch norm cannot tell whole images from quarters.
        h = self.encoder(layers.fold(x), training=training)
        phi = tf.nn.relu(self.counter(h, training=training))
        return layers.unfold(phi, 5)  # [B, whole and four quarters, counts]

    def objective(self, x, y, outputs):
        whole, total = outputs[:, 0], tf.reduce_sum(outputs[:, 1:], axis=1)
        return counting(whole, total, another(whole), self.margin)


def another(whole):
    """The counts of the image before in the batch (of all replicas): [B, counts]."""
    rolled = tf.roll(replicas.gather(whole), 1, axis=0)
    first = replicas.offset(whole)
    return rolled[first : first + tf.shape(whole)[0]]


def counting(whole, total, other, margin):
    """Mean of |phi(D x) - S|^2 + max(0, M - |phi(D y) - S|^2), equation 5.

    Args:
        whole: phi(D x) [B, counts], of the shrunk image.
        total: S [B, counts], the sum over its quarters.
        other: phi(D y) [B, counts], of another image shrunk.
        margin: M. All counts 0 cost exactly this.

    Norms are of the whole vector; the public re-implementation has a hinge for each element.
    """
    apart = tf.reduce_sum(tf.math.squared_difference(other, total), axis=1)
    together = tf.reduce_sum(tf.math.squared_difference(whole, total), axis=1)
    return tf.reduce_mean(together + tf.nn.relu(margin - apart))


def recipe(
    encoder="alexnet",
    data="tfds:imagenet2012",
    size=228,
    batch_size=128,
    epochs=20,
    learning_rate=1e-4,
    share=0.9,
    grey=2 / 3,
    shift=2,
    hidden=(4096, 4096),
    counts=1000,
    margin=10.0,
    seed=0,
):
    """The paper's ImageNet run (section 4.1): M = 10, 1000 counts, crops of 228 px shrunk to 114.

    Adam, its rate, the number of epochs and the crops' `share` are ours.
    """
    if batch_size < 2:
        raise BadInput("learning_to_count: batch_size must be 2 or more, or none is another.")
    if size % 2:
        raise BadInput(f"learning_to_count halves images of {size} px: choose an even size.")
    view = functools.partial(views, size=size, share=share, grey=grey, shift=shift)
    dataset = batching.train(load(data, keys=("image",)), view, batch_size, seed)
    encoder = encoders.get(encoder, size=size // 2)
    model = LearningToCount(encoder, hidden, counts, margin)
    model.compile(keras.optimizers.Adam(learning_rate))
    return Run(model, dataset, epochs)


SMALL = dict(
    encoder="resnet9",
    data="world:n=4000",
    size=32,
    batch_size=64,
    epochs=3,
    learning_rate=3e-4,
    shift=1,
    hidden=(256,),
    counts=64,
)
