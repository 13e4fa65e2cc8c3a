"""Give every image a random vector of its own to match, and let images of a batch swap theirs.

Paper: Unsupervised Learning by Predicting Noise
Authors: Piotr Bojanowski, Armand Joulin
Venue: ICML 2017
URL: https://arxiv.org/abs/1704.05310
Family: clustering
"""

import functools

import keras
import tensorflow as tf

from tfssl import encoders
from tfssl.layers.normalisation import BatchNormalization
from tfssl.layers.sobel import with_sobel
from tfssl.method import Method, Run
from tfssl.objectives import replicas
from tfssl.objectives.clustering import assign
from tfssl.pipelines import batching, load
from tfssl.pipelines.augment.image import random_resized_crop
from tfssl.pipelines.datasets import numbered


def views(examples, seed, size=224, area=(0.6, 1.0)):
    """One crop, mirrored or not: "image" float32 [B, size, size, 3]; and "index" int64 [B].

    The paper crops 224 px of 256 without resizing, 77 % of a square image's area; here `area` is
    uniform around that.
    """
    crops = random_resized_crop(examples["image"], size, seed, area=area, aspect=(1.0, 1.0))
    return {"image": crops, "index": examples["index"]}


class NAT(Method):
    """Noise as targets: unit embeddings, fixed random unit targets, one each.

    Args:
        encoder: a copy of it behind a Sobel layer is trained and published.
        examples: n, whose `index` runs from 0 to n - 1.
        width: d, of embeddings and targets.
        hidden: widths of the fully connected layers before.
        dropout: before each of those.
        permute: the assignment moves in epochs 0, permute, 2 permute, ...
        steps: an epoch's.
    """

    chance = 2.0  # two random unit vectors

    def __init__(
        self, encoder, examples, width=2048, hidden=(), dropout=0.0, permute=1, steps=1, seed=0
    ):
        super().__init__(with_sobel(encoder))
        self.head = keras.Sequential([keras.Input([self.encoder.output_shape[-1]])], name="head")
        for i, units in enumerate(hidden):
            if dropout:
                self.head.add(keras.layers.Dropout(dropout, seed=seed + i))
            self.head.add(keras.layers.Dense(units, use_bias=False))
            self.head.add(BatchNormalization(synchronized=True))
            self.head.add(keras.layers.ReLU())
        self.head.add(keras.layers.Dense(width))
        self.permute, self.steps = permute, steps
        targets = tf.random.stateless_normal([examples, width], [seed, 0])
        order = tf.random.experimental.stateless_shuffle(tf.range(examples), [seed, 1])
        self.targets = self._state("targets", tf.math.l2_normalize(targets, axis=1), "float32")
        self.assignment = self._state("assignment", order, "int32")  # image -> target
        self.step = self._state("step", tf.constant(0), "int32")

    def _state(self, name, value, dtype):
        # Every replica writes the same numbers, so the first one's may stand for all.
        return self.add_weight(
            name=name,
            shape=value.shape,
            dtype=dtype,
            initializer=lambda shape, dtype=None: value,
            trainable=False,
            autocast=False,
            aggregation="only_first_replica",
        )

    def call(self, x, training=False):
        h = self.encoder(x["image"], training=training)
        z = tf.cast(self.head(h, training=training), tf.float32)
        z = tf.math.l2_normalize(z, axis=1)
        target = tf.gather(tf.convert_to_tensor(self.assignment), x["index"])
        if training:
            target = self.swapped(z, target, x["index"])
        return {"z": z, "target": target}

    def swapped(self, z, target, index):
        """The batch's targets [B] dealt out anew, if this epoch is one of those (section 3.2).

        The table follows here, where the outputs of all replicas meet anyway.
        """
        mine, size = replicas.offset(z), tf.shape(z)[0]
        z, target = replicas.gather(tf.stop_gradient(z)), replicas.gather(target)
        c = tf.gather(tf.convert_to_tensor(self.targets), target)
        epoch = tf.convert_to_tensor(self.step) // self.steps
        best = tf.cond(
            tf.equal(epoch % self.permute, 0),
            lambda: assign(tf.matmul(z, c, transpose_b=True)),
            lambda: tf.range(tf.shape(target)[0]),
        )
        target = tf.gather(target, best)
        table = tf.convert_to_tensor(self.assignment)
        rows = replicas.gather(index)[:, None]
        self.assignment.assign(tf.tensor_scatter_nd_update(table, rows, target))
        return target[mine : mine + size]

    def objective(self, x, y, outputs):
        c = tf.gather(tf.convert_to_tensor(self.targets), outputs["target"])
        squared = tf.math.squared_difference(outputs["z"], tf.stop_gradient(c))
        return tf.reduce_mean(tf.reduce_sum(squared, axis=1))  # equation 2, over b

    def after_step(self):
        self.step.assign(tf.convert_to_tensor(self.step) + 1)


def recipe(
    encoder="alexnet",
    data="tfds:imagenet2012",
    size=224,
    batch_size=256,
    epochs=100,
    learning_rate=2.56,  # 0.01 on the sum over the batch, which here is a mean
    width=2048,
    hidden=(4096, 4096),
    dropout=0.5,
    permute=3,
    area=(0.6, 1.0),
    seed=0,
):
    """The released ImageNet run, facebookresearch/noise-as-targets main.sh (section 4).

    Our AlexNet ends in a mean over its last map, where the paper's fully connected layers see all
    of it.
    """
    examples = numbered(load(data, keys=("image", "index")))
    view = functools.partial(views, size=size, area=area)
    dataset = batching.train(examples, view, batch_size, seed)
    count = batching.count_examples(examples)
    encoder = encoders.get(encoder, size=size)
    model = NAT(encoder, count, width, hidden, dropout, permute, dataset.steps, seed)
    model.compile(keras.optimizers.SGD(learning_rate))
    return Run(model, dataset, epochs)


SMALL = dict(
    encoder="resnet9",
    data="digits",
    size=32,
    batch_size=128,
    epochs=15,
    learning_rate=0.3,
    width=32,
    hidden=(),
    dropout=0.0,
    permute=1,
    area=(0.5, 1.0),
)
