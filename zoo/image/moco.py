"""Find the slowly learnt key of the same image among a long queue of other images' keys.

Paper: Improved Baselines with Momentum Contrastive Learning
Authors: Xinlei Chen, Haoqi Fan, Ross Girshick, Kaiming He
Venue: arXiv 2020
URL: https://arxiv.org/abs/2003.04297
Family: contrastive

This is version 2; the first, by the same authors and Yuxin Wu and Saining Xie (CVPR 2020,
https://arxiv.org/abs/1911.05722), differs in its numbers alone, see `recipe`.
"""

import functools
import math

import keras
import tensorflow as tf

from tfssl import encoders, layers
from tfssl.method import Method, Run
from tfssl.objectives.contrastive import info_nce_queue
from tfssl.optimizers import SGD, warmup_cosine
from tfssl.pipelines import batching, load
from tfssl.pipelines.augment.image import contrastive_view


def views(examples, seed, size=224, area=(0.2, 1.0), hue=0.1, jitter=0.8, blur=0.5):
    """Query and key on axis 1: float32 [B, 2, size, size, 3].

    Version 2's "aug+"; version 1 is hue=0.4, jitter=1.0, blur=0.0 (section 3.3 there).
    """
    law = dict(area=area, brightness=0.4, contrast=0.4, saturation=0.4, hue=hue)
    seeds = tf.unstack(tf.random.split(seed, 2))
    pair = [
        contrastive_view(examples["image"], size, view_seed, jitter=jitter, blur=blur, **law)
        for view_seed in seeds
    ]
    return tf.stack(pair, axis=1)


class MoCo(Method):
    """An encoder of queries, its momentum copy for keys, and a queue of the past keys.

    Args:
        widths: of the head's layers.
        size: of the queue, K.
        groups: batch norm sees the batch in this many parts, other ones for the keys than for the
            queries. Where both share their statistics, these tell which key belongs to a query
            (section 3.3 of version 1, "shuffling BN"). The parts are fixed, as the data come
            shuffled: example i is in part i of the queries and part i + i // groups of the keys,
            modulo groups, so that two of one part meet in the other no more often than by chance.
    """

    def __init__(
        self, encoder, widths=(2048, 128), size=65536, momentum=0.999, temperature=0.2, groups=1
    ):
        super().__init__(encoder)
        self.head = layers.mlp(encoder.output_shape[-1], widths, normalise=False, name="head")
        self.key = layers.Momentum(encoder, self.head)
        self.queue = layers.Queue(size, widths[-1])
        self.momentum, self.temperature, self.groups = momentum, temperature, groups
        self.chance = math.log(size + 1)
        self.accuracy = keras.metrics.Mean(name="accuracy")

    def call(self, x, training=False):
        # As many groups as a replica's share of the batch can be cut into.
        groups = math.gcd(self.groups, x.shape[0] or 1) if training else 1
        row = tf.range(tf.shape(x)[0])
        query = functools.partial(self.encoder, training=training)
        key = functools.partial(self.key, training=training)
        return {
            "query": self.head(_in_groups(query, x[:, 0], row % groups, groups)),
            "key": _in_groups(key, x[:, 1], (row + row // groups) % groups, groups),
        }

    def objective(self, x, y, outputs):
        q, k, queue = outputs["query"], outputs["key"], self.queue()
        self.accuracy.update_state(_found(q, k, queue))
        return info_nce_queue(q, k, queue, self.temperature)

    def after_step(self):
        # The published order, seen from the other end: the keys follow before each step but the
        # first, where they are equal to the queries; the batch enters the queue after its loss.
        self.key.follow(self.momentum)
        self.queue.enqueue(self.step_outputs["key"])


def _in_groups(network, x, group, groups):
    """The network on each group's rows by themselves; the results in the order of x."""
    if groups == 1:
        return network(x)
    order = tf.argsort(group, stable=True)
    outputs = [network(rows) for rows in tf.split(tf.gather(x, order), groups)]
    return tf.gather(tf.concat(outputs, 0), tf.argsort(order))


def _found(q, k, queue):
    """1 where a query [B, D] is nearer to its key [B, D] than to everything in the queue."""
    q, k = tf.math.l2_normalize(q, axis=1), tf.math.l2_normalize(k, axis=1)
    nearest = tf.reduce_max(tf.matmul(q, queue, transpose_b=True), axis=1)
    return tf.cast(tf.reduce_sum(q * k, axis=1) > nearest, tf.float32)


def recipe(
    encoder="resnet50",
    data="tfds:imagenet2012",
    size=224,
    batch_size=256,
    epochs=200,
    learning_rate=0.03,
    weight_decay=1e-4,
    widths=(2048, 128),
    queue=65536,
    momentum=0.999,
    temperature=0.2,
    groups=8,  # the eight devices of the paper
    area=(0.2, 1.0),
    hue=0.1,
    jitter=0.8,
    blur=0.5,
    seed=0,
):
    """Version 2's ImageNet run (sections 2 and 3; numbers as facebookresearch/moco gives them).

    Version 1 is widths=(128,), temperature=0.07, hue=0.4, jitter=1.0, blur=0.0, compiled with a
    rate that falls tenfold at epochs 120 and 160.
    """
    law = dict(size=size, area=area, hue=hue, jitter=jitter, blur=blur)
    dataset = batching.train(
        load(data, keys=("image",)), functools.partial(views, **law), batch_size, seed
    )
    groups = math.gcd(groups, batch_size)  # they are of equal size
    model = MoCo(encoders.get(encoder, size=size), widths, queue, momentum, temperature, groups)
    rate = warmup_cosine(learning_rate, dataset.steps, epochs)
    model.compile(SGD(rate, weight_decay=weight_decay))
    return Run(model, dataset, epochs)


SMALL = dict(
    encoder="resnet9",
    data="digits",
    size=32,
    batch_size=128,
    epochs=20,
    learning_rate=0.1,
    widths=(256, 64),
    queue=2048,
    momentum=0.99,
    groups=4,
    blur=0.0,
)
