"""Tell on a single picture what would move by itself, as clips without labels have shown it.

Paper: Learning Features by Watching Objects Move
Authors: Deepak Pathak, Ross Girshick, Piotr Dollár, Trevor Darrell, Bharath Hariharan
Venue: CVPR 2017
URL: https://arxiv.org/abs/1612.06370
Family: free-label
"""

import functools
import math

import keras
import tensorflow as tf

from tfssl import encoders
from tfssl.encoders.maps import trunk
from tfssl.errors import BadInput
from tfssl.layers.motion import motion
from tfssl.layers.normalisation import BatchNormalization
from tfssl.method import Method, Run
from tfssl.objectives.classification import binary_cross_entropy
from tfssl.pipelines import batching, load
from tfssl.pipelines.augment.image import colour_jitter, crop, crop_boxes, to_float
from tfssl.pipelines.sample.clips import frame_pair

FOREGROUND, BACKGROUND = 0.7, 0.4  # scores above and below; what lies between is ignored
FULL = 0.5  # of the largest motion in a frame: so much scores 1
IGNORED = -1.0
STILL = 0.3  # pixels; where nothing moves by more against the camera, a clip teaches nothing


def views(examples, seed, size=224, side=56, area=(0.3, 1.0), least=0.1, apart=2, jitter=0.4):
    """A still, float32 [B, size, size, 3], and what moves in it, [B, side, side].

    The mask holds 1, 0 and IGNORED. It comes from the still and a frame `apart` frames later at
    most: what is left of their difference when the camera's motion is taken out. That stands for
    the paper's uNLC (optical flow and votes among superpixels), which takes minutes a shot; neither
    has seen a label. What is fed in is one picture, in which motion cannot be seen. Crop and flip
    are the same for both and put the moving thing anywhere; `jitter` is of the colours.
    """
    seeds = tf.random.split(seed, 2)
    pair = frame_pair(examples["frames"], seeds[0], 1, apart)
    return still_and_mask(to_float(pair), seeds[1], size, side, area, least, jitter)


def still_and_mask(pair, seed, size, side, area=(0.3, 1.0), least=0.1, jitter=0.4):
    """As `views`, of two frames [B, 2, H, W, 3] in [0, 1]."""
    seeds = tf.random.split(seed, 3)
    mask = labels(motion(pair), least)  # [B, H, W]
    height, width = (tf.shape(pair)[i] for i in (2, 3))
    boxes = _around(mask, crop_boxes(height, width, tf.shape(pair)[0], seeds[0], area))
    flip = tf.random.stateless_uniform([tf.shape(pair)[0]], seeds[1]) < 0.5
    still = crop(pair[:, 0], boxes, size, flip)
    # Classes cannot be averaged: each is cut out as a picture, and has to fill most of a pixel.
    shares = tf.stack([mask == 1, mask == 0, mask < 0], axis=-1)
    shares = crop(tf.cast(shares, tf.float32), boxes, side, flip)
    small = tf.where(shares > 0.5, tf.constant([1.0, 0.0, IGNORED]), 0.0)
    small = tf.where(tf.reduce_max(shares, -1) > 0.5, tf.reduce_sum(small, -1), IGNORED)
    return colour_jitter(still, seeds[2], jitter, jitter, jitter, jitter / 4), small


def labels(moved, least=0.1):
    """Motion [B, H, W] -> 1 what moves, 0 what does not, IGNORED; frames of no use are all ignored.

    The score is the motion over half the largest in the frame, at most 1. Half, since `motion` sees
    the part of it that lies along the slopes of grey: most of an object stays far below its peak.

    Pruned are frames in which nothing moves, those where less than `least` or more than 1 - `least`
    moves, and those where what moves takes up most of the border.
    """
    peak = tf.reduce_max(moved, axis=[1, 2], keepdims=True)
    score = tf.minimum(moved / (FULL * tf.maximum(peak, STILL)), 1.0)
    front = tf.cast(score > FOREGROUND, tf.float32)
    mask = tf.where(score > FOREGROUND, 1.0, tf.where(score < BACKGROUND, 0.0, IGNORED))
    share = tf.reduce_mean(front, axis=[1, 2])
    edges = [front[:, 0], front[:, -1], front[:, :, 0], front[:, :, -1]]
    border = tf.reduce_mean(tf.concat(edges, axis=1), axis=1)
    useful = (peak[:, 0, 0] > STILL) & (share > least) & (share < 1 - least) & (border < 0.5)
    return tf.where(useful[:, None, None], mask, IGNORED)


def _around(mask, boxes):
    """Boxes moved as little as makes them hold the middle of what moves, where anything does."""
    front = tf.cast(mask == 1, tf.float32)
    count = tf.reduce_sum(front, axis=[1, 2])
    corners = []
    for axis in (1, 2):
        along = tf.reduce_sum(front, axis=3 - axis)  # [B, H] or [B, W]
        places = tf.range(tf.cast(tf.shape(along)[1], tf.float32)) + 0.5
        middle = tf.math.divide_no_nan(tf.reduce_sum(along * places, axis=1), count)
        corner, extent = boxes[:, axis - 1], boxes[:, axis + 1]
        room = tf.cast(tf.shape(along)[1], tf.float32) - extent
        held = tf.clip_by_value(
            corner, tf.maximum(middle - extent, 0), tf.maximum(tf.minimum(middle, room), 0)
        )
        corners.append(tf.where(count > 0, held, corner))
    return tf.concat([tf.stack(corners, axis=1), boxes[:, 2:]], axis=1)


class WatchingMove(Method):
    """The encoder's deepest map, two fully connected layers, and one logit for each place.

    Args:
        encoder: its last tap must be a map [B, h, w, C].
        size: side of the stills in pixels.
        side: of the masks.
        width: of the layer between.
    """

    chance = math.log(2)

    def __init__(self, encoder, size=224, side=56, width=1024):
        super().__init__(encoder)
        self.trunk = trunk(encoder, "watching_move")
        self.side = side
        still = keras.KerasTensor([2, size, size, 3])
        self.head = self._head(self.trunk.compute_output_spec(still).shape[1:], width)

    def _head(self, shape, width):
        layers = [keras.layers.Flatten(), keras.layers.Dense(width, use_bias=False)]
        layers += [BatchNormalization(), keras.layers.ReLU(), keras.layers.Dense(self.side**2)]
        layers.append(keras.layers.Reshape([self.side, self.side]))
        return keras.Sequential([keras.Input(shape), *layers], name="head")

    def call(self, x, training=False):
        return self.head(self.trunk(x, training=training), training=training)  # [B, side, side]

    def objective(self, x, y, outputs):
        return binary_cross_entropy(outputs, tf.nn.relu(y), y >= 0)


class MotionSegmentation(WatchingMove):
    """The same from convolutions alone, as Doersch & Zisserman (ICCV 2017) have it."""

    def _head(self, shape, width):
        layers = [keras.layers.Conv2D(width, 3, padding="same", use_bias=False)]
        layers += [BatchNormalization(), keras.layers.ReLU(), keras.layers.Conv2D(1, 1)]
        return keras.Sequential([keras.Input(shape), *layers], name="head")

    def call(self, x, training=False):
        return tf.image.resize(super().call(x, training), [self.side, self.side])[..., 0]


def recipe(
    encoder="alexnet",
    data="tfds:ucf101",
    size=227,
    batch_size=128,
    epochs=10,
    learning_rate=0.01,
    side=56,
    width=1024,
    area=(0.3, 1.0),
    least=0.1,
    apart=2,
    seed=0,
):
    """The paper's run in outline (section 4): AlexNet, masks of 56 x 56, SGD with momentum.

    The paper learns from 205,000 clips of YFCC100m that nobody serves as one data set. Rate, epochs
    and data are ours, for the training script was not released. One layer of `width` stands for the
    paper's fc6 and fc7.
    """
    examples = load(data, keys=("frames",), short_side=size)
    if "frames" not in examples.element_spec:
        raise BadInput(f"watching_move learns from clips, and {data} has none: give it videos.")
    view = functools.partial(views, size=size, side=side, area=area, least=least, apart=apart)
    dataset = batching.train(examples, view, batch_size, seed)
    model = WatchingMove(encoders.get(encoder, size=size), size, side, width)
    model.compile(keras.optimizers.SGD(learning_rate, momentum=0.9))
    return Run(model, dataset, epochs)


SMALL = dict(
    encoder="resnet9",
    data="world:n=2000,length=4",
    size=32,
    batch_size=64,
    epochs=4,
    learning_rate=0.05,
    side=16,
    width=256,
    least=0.02,
)
