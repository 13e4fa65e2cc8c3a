"""Every seed patch is a class of its own, to be known again however it is transformed.

Paper: Discriminative Unsupervised Feature Learning with Convolutional Neural Networks
Authors: Alexey Dosovitskiy, Jost Tobias Springenberg, Martin Riedmiller, Thomas Brox
Venue: NeurIPS 2014
URL: https://arxiv.org/abs/1406.6909
Family: contrastive
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
from tfssl.pipelines.augment.image import turned_crop
from tfssl.pipelines.sample.patches import seed_boxes

# Principal components of the colours of ImageNet's pixels (Krizhevsky et al., 2012), one a row.
COMPONENTS = ((-0.5675, -0.5808, -0.5836), (0.7192, -0.0045, -0.6948), (0.4009, -0.8140, 0.4203))


def views(
    examples,
    seed,
    size=32,
    positions=1,
    extent=(0.25, 0.5),
    translation=0.2,
    scale=(0.7, 1.4),
    rotation=20.0,
    colour=1.0,
):
    """A transformed seed patch, float32 [B, size, size, 3]; and which seed it is, int64 [B].

    An image has `positions` seeds, of which one is drawn: seed `index` * positions + p. Where its
    patch lies follows from that number alone (`seed_boxes`). Drawn anew each time (section 2.1):
    a shift by up to `translation` of the patch's side, a `scale` and a `rotation` up to so many
    degrees, all cut at once from the image around the patch; and `recolour` of strength `colour`.
    """
    seeds = tf.random.split(seed, 3)
    images, index = tf.convert_to_tensor(examples["image"]), examples["index"]
    batch = tf.shape(images)[0]
    p = tf.random.stateless_uniform([batch], seeds[0], 0, positions, index.dtype)
    target = index * positions + p
    boxes = seed_boxes(images, target, extent)
    u = tf.random.stateless_uniform([batch, 4], seeds[1], -1.0, 1.0)
    side = boxes[:, 2:] * (scale[0] + (scale[1] - scale[0]) * (u[:, 2:3] + 1) / 2)
    centre = boxes[:, :2] + boxes[:, 2:] * (0.5 + translation * u[:, :2])
    angle = u[:, 3] * rotation * math.pi / 180
    patches = turned_crop(images, tf.concat([centre - side / 2, side], axis=1), angle, size)
    return recolour(patches, seeds[2], colour), target


def recolour(patches, seed, strength=1.0):
    """Both contrasts and the hue of section 2.1, at `strength` 1; at 0 nothing: in [0, 1].

    Each principal component of the patch's colours about their mean is multiplied by 1/2 to 2;
    then saturation and value are raised to a power of 1/4 to 4, multiplied by 0.7 to 1.4 and moved
    by up to 0.1; then hue is moved by up to 0.1. One draw a patch; factors and powers are uniform
    in their logarithm. The components are ImageNet's, not those of the data.
    """
    u = strength * tf.random.stateless_uniform([tf.shape(patches)[0], 10, 1, 1], seed, -1.0, 1.0)
    axes, factors = tf.constant(COMPONENTS), 2 ** u[:, :3, 0]  # [B, 3, 1]
    matrix = tf.matmul(axes, factors * axes, transpose_a=True)[:, None]  # [B, 1, 3, 3]
    mean = tf.reduce_mean(patches, axis=[1, 2], keepdims=True)
    patches = tf.clip_by_value(mean + tf.matmul(patches - mean, matrix), 0.0, 1.0)
    hue, saturation, value = tf.unstack(tf.image.rgb_to_hsv(patches), axis=-1)

    def bent(x, first):
        power, factor, shift = (u[:, first + i] for i in range(3))
        return tf.clip_by_value(1.4**factor * x ** (4**power) + 0.1 * shift, 0.0, 1.0)

    hue = tf.math.floormod(hue + 0.1 * u[:, 9], 1.0)
    return tf.image.hsv_to_rgb(tf.stack([hue, bent(saturation, 3), bent(value, 6)], axis=-1))


class Exemplar(Method):
    """A hidden layer and a classifier of the seeds on the encoder.

    Args:
        classes: number of seeds N.
        width: of the hidden layer.
        dropout: after it; `seed` is of what it drops.
    """

    def __init__(self, encoder, classes, width=512, dropout=0.5, seed=0):
        super().__init__(encoder)
        self.hidden = layers.linear(encoder.output_shape[-1], width, name="hidden")
        self.dropout = keras.layers.Dropout(dropout, seed=seed)
        self.classifier = layers.linear(width, classes)
        self.accuracy = keras.metrics.SparseCategoricalAccuracy(name="accuracy")
        self.chance = math.log(classes)

    def call(self, x, training=False):
        h = tf.nn.relu(self.hidden(self.encoder(x, training=training)))
        return self.classifier(self.dropout(h, training=training))  # [B, N]

    def objective(self, x, y, outputs):
        self.accuracy.update_state(y, outputs)
        return cross_entropy(outputs, y)  # equation 1


def surrogate(examples, seeds, transformations):
    """`seeds` images, numbered from 0, each `transformations` times; and how many there are.

    They are taken at equal distances: sources are often in order of their class folders, and the
    first images all of one kind. A dataset of "image" and "index", without annotation.
    """
    total = batching.count_examples(examples)
    count = min(seeds, total)
    every = max(1, total // max(1, count))
    chosen = examples.shard(every, 0).take(count).enumerate()
    chosen = chosen.map(lambda i, example: {"image": example["image"], "index": i})
    if not hasattr(examples, "gather"):
        chosen = chosen.cache()  # else all others are read again for each of them
    chosen = chosen.repeat(transformations)
    if hasattr(examples, "gather"):
        # What can be read anywhere is shuffled by position, not through a buffer of images.
        chosen.gather = lambda at: {
            "image": examples.gather(at % count * every)["image"],
            "index": at % count,
        }
    return chosen, count


def recipe(
    encoder="alexnet",
    data="tfds:stl10",
    size=32,
    batch_size=128,
    epochs=10,
    learning_rate=0.01,
    seeds=8000,
    transformations=150,
    extent=(0.25, 0.5),
    translation=0.2,
    scale=(0.7, 1.4),
    rotation=20.0,
    colour=1.0,
    width=512,
    dropout=0.5,
    weight_decay=0.004,
    seed=0,
):
    """The paper's STL-10 run (section 4.1) with N = 8000 seeds and K = 150 transformations.

    An epoch sees each seed `transformations` times, drawn anew, where the paper keeps the K that it
    drew once. Where there are fewer images than seeds each gives several patches, all equally many.
    The paper's seeds are of STL-10's unlabelled split, and the mean of its images is subtracted;
    our encoders subtract ImageNet's. Its text has the `scale`, its code 0.8 to 1.2. At 32 px our
    AlexNet begins with convolutions of 5 x 5 as the paper's three-layer network does; it is
    averaged over the whole image, not over quadrants. The rate falls tenfold at half, three and
    seven eighths; batch and epochs are ours. More than some 8,000 to 16,000 seeds are too much
    alike to be told apart.
    """
    examples = load(data, keys=("image", "index"))
    first, images = surrogate(examples, seeds, transformations)
    positions = max(1, seeds // images)
    view = functools.partial(
        views,
        size=size,
        positions=positions,
        extent=extent,
        translation=translation,
        scale=scale,
        rotation=rotation,
        colour=colour,
    )
    dataset = batching.train(first, view, batch_size, seed)
    encoder = encoders.get(encoder, size=size)
    model = Exemplar(encoder, images * positions, width, dropout, seed)
    rate = falling(learning_rate, round(dataset.steps * epochs), at=(0.5, 0.75, 0.875))
    model.compile(SGD(rate, weight_decay=weight_decay))
    return Run(model, dataset, epochs)


SMALL = dict(
    encoder="resnet9",
    data="world:n=500",
    size=32,
    batch_size=128,
    epochs=3,
    learning_rate=0.03,
    seeds=500,
    transformations=20,
    extent=(0.6, 0.9),
    width=128,
    dropout=0.0,
    weight_decay=5e-4,
)
