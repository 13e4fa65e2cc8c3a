"""Merge clusters and learn from them by turns, from many tiny ones to as many as are wanted.

Paper: Joint Unsupervised Learning of Deep Representations and Image Clusters
Authors: Jianwei Yang, Devi Parikh, Dhruv Batra
Venue: CVPR 2016
URL: https://arxiv.org/abs/1604.03628
Family: clustering
"""

import functools

import keras
import numpy as np
import tensorflow as tf

from tfssl import encoders
from tfssl.callbacks import EmbedEachEpoch
from tfssl.errors import BadInput
from tfssl.layers.agglomeration import chains, merge, neighbour_graph
from tfssl.layers.kmeans import unit_rows
from tfssl.method import Method, Run
from tfssl.objectives import replicas
from tfssl.objectives.numerics import normalise
from tfssl.objectives.reconstruction import masked_mean
from tfssl.optimizers import SGD
from tfssl.pipelines import batching, load
from tfssl.pipelines.augment.image import centre_crop
from tfssl.pipelines.datasets import numbered


def views(examples, seed, size=28):
    """The central square, float32 [B, size, size, 3]; and "index" int64 [B]. Nothing is drawn."""
    return {"image": centre_crop(examples["image"], size), "index": examples["index"]}


class JULE(Method):
    """Triplets of the present clusters, which `reassign` merges between periods of training.

    Args:
        encoder: a linear layer to `width` values follows it. Both are published, the network up to
            the (not yet normalised) embedding as "embedding".
        examples: N, whose `index` runs from 0 to N - 1. The memory grows with the square of the
            number of first clusters, about N / 4.
        clusters: how many are left in the end.
        neighbours: of each example in the graph, K_s.
        contrast: over how many clusters a merge has to stand out, K_c.
        rate: share of the clusters that one period merges, eta.
        margin: of the triplets.
    """

    def __init__(
        self,
        encoder,
        examples,
        clusters=10,
        width=160,
        neighbours=20,
        contrast=5,
        rate=0.9,
        margin=0.2,
    ):
        super().__init__(encoder)
        embedding = keras.layers.Dense(width, name="embedding")(encoder.output)
        self.embedding = keras.Model(encoder.input, embedding, name=f"{encoder.name}_embedding")
        self.clusters, self.margin = clusters, margin
        self.neighbours, self.contrast, self.rate = neighbours, contrast, rate
        state = dict(trainable=False, initializer="zeros", dtype="int32", autocast=False)
        self.assignment = self.add_weight(name="assignment", shape=[examples], **state)
        self.passes = self.add_weight(name="passes", shape=[], **state)

    @property
    def published(self):
        return {"encoder": self.encoder, "embedding": self.embedding}

    @property
    def compared(self):
        """By what examples are neighbours: their pixels at first, then their embeddings."""
        return self.embedding if int(tf.convert_to_tensor(self.passes)) else _pixels

    def call(self, x, training=False):
        return self.embedding(x["image"], training=training)  # [B, width]

    def objective(self, x, y, outputs):
        label = tf.gather(tf.convert_to_tensor(self.assignment), x["index"])
        return triplets(outputs, label, self.margin)

    def reassign(self, features):
        """Fewer clusters, by features [N, D] in the order of `index`; first of all, tiny ones."""
        first = not int(tf.convert_to_tensor(self.passes))
        points = features if first else unit_rows(features)
        graph = neighbour_graph(points, self.neighbours)
        labels = chains(graph) if first else self.assignment.numpy()
        count = labels.max() + 1
        merges = min(int(np.ceil(self.rate * count)), count - self.clusters)
        self.assignment.assign(merge(graph, labels, merges, self.contrast))
        self.passes.assign_add(1)


def _pixels(images):
    return tf.reshape(images, [tf.shape(images)[0], -1])


def triplets(z, label, margin, weight=1.0):
    """Mean of max(weight |a - p|^2 - |a - n|^2 + margin, 0) over all triplets of the batch.

    Args:
        z: [B, D], made unit vectors here.
        label: int [B]; p has a's, n another.

    The released code draws up to 20 negatives for each pair; all of them have the same mean. 0 for
    a batch in which no two share a label. Equation 9.
    """
    z = normalise(z)
    everything, labels = replicas.gather(z), replicas.gather(label)
    squared = tf.reduce_sum(tf.math.squared_difference(z[:, None], everything), axis=-1)  # [B, G]
    same = label[:, None] == labels
    own = replicas.own_columns(z)[:, None] == tf.range(tf.shape(labels)[0])
    costs = tf.nn.relu(weight * squared[:, :, None] - squared[:, None] + margin)  # [B, p, n]
    return masked_mean(costs, (same & ~own)[:, :, None] & ~same[:, None])


@keras.saving.register_keras_serializable("tfssl")
class SlowDecay(keras.optimizers.schedules.LearningRateSchedule):
    """`rate` (1 + 1e-4 step) ^ -0.75."""

    def __init__(self, rate):
        self.rate = rate

    def __call__(self, step):
        return self.rate * (1 + 1e-4 * tf.cast(step, tf.float32)) ** -0.75

    def get_config(self):
        return {"rate": self.rate}


def recipe(
    encoder="conv4",
    data="tfds:mnist",
    size=28,
    batch_size=100,
    epochs=100,
    learning_rate=0.01,
    weight_decay=5e-5,
    clusters=10,
    width=160,
    neighbours=20,
    contrast=5,
    rate=0.9,
    margin=0.2,
    every=20,
    seed=0,
):
    """The paper's runs of jwyang/JULE.torch (section 4), with a small network of ours.

    `every` epochs the clusters are merged, the first time by raw pixels. This is the variant SF:
    RC, which clusters once more from the start with the network that was learnt, is left out. The
    contrast is the paper's throughout; the released code drops it at the last hundred clusters.
    """
    examples = numbered(load(data, keys=("image", "index")))
    dataset = batching.train(examples, functools.partial(views, size=size), batch_size, seed)
    count = batching.count_examples(examples)
    if count < 2:
        raise BadInput("joint_cluster merges what is alike: give two examples or more.")
    encoder = encoders.get(encoder, size=size)
    model = JULE(encoder, count, clusters, width, neighbours, contrast, rate, margin)
    model.compile(SGD(SlowDecay(learning_rate), weight_decay=weight_decay))
    merging = EmbedEachEpoch(examples, every, key="image", size=size, of="compared")
    return Run(model, dataset, epochs, [merging])


SMALL = dict(
    encoder="resnet9",
    data="digits",
    size=32,
    batch_size=128,
    epochs=20,
    learning_rate=0.05,
    width=64,
    neighbours=10,
    rate=0.5,
    every=2,
)
