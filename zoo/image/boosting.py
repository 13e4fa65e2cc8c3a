"""Sort a solved pretext's features into clusters once, and teach them to a new network.

Paper: Boosting Self-Supervised Learning via Knowledge Transfer
Authors: Mehdi Noroozi, Ananth Vinjimoor, Paolo Favaro, Hamed Pirsiavash
Venue: CVPR 2018
URL: https://arxiv.org/abs/1805.00385
Family: clustering
"""

import functools

import keras
import tensorflow as tf

from tfssl import encoders, layers, savedmodel
from tfssl.callbacks import EmbedEachEpoch
from tfssl.callbacks.first import TrainFirst
from tfssl.errors import BadInput
from tfssl.layers.kmeans import kmeans
from tfssl.method import Method, Run
from tfssl.objectives.classification import cross_entropy
from tfssl.optimizers import SGD, falling
from tfssl.pipelines import batching, load
from tfssl.pipelines.augment.image import random_resized_crop
from tfssl.pipelines.datasets import numbered
from tfssl.zoo.image import jigsaw

ONCE = 10**9  # epochs between two passes of clustering


def views(examples, seed, size=227, area=(0.6, 1.0)):
    """For the new network: one crop, float32 [B, size, size, 3], in colour; and "index" [B].

    The paper crops 227 px of 256 without resizing, 79 % of a square image's area; here `area` is
    uniform around that.
    """
    crops = random_resized_crop(examples["image"], size, seed, area=area, aspect=(1.0, 1.0))
    return {"image": crops, "index": examples["index"]}


def jigsaw_plus_plus(puzzled, seed=0, most=2):
    """Jigsaw++, the pretext: puzzles of `jigsaw.views` with up to `most` tiles of another image.

    `puzzled` is a dataset as `batching.train` gives it. Which order it is does not change, nor is
    told how many tiles are foreign: 0, 1, ..., `most`, one as likely as another (section 3.1). Done
    to batches and not in the views, for these see one image at a time where sizes differ.
    """

    def occluded(batches, start_step=0):
        def one(step, xy):
            return occlude(xy[0], tf.stack([seed, tf.cast(step, tf.int32)]), most), xy[1]

        numbers = tf.data.Dataset.counter(start_step, dtype=tf.int64)
        return tf.data.Dataset.zip(numbers, batches).map(one)

    batches = occluded(puzzled)
    batches.steps = puzzled.steps
    batches.endless = lambda start_step=0: occluded(puzzled.endless(start_step), start_step)
    return batches


def occlude(pieces, seed, most=2):
    """0 to `most` tiles [B, P, ...] at random places come from the image before in the batch."""
    seeds = tf.random.split(seed, 2)
    batch, places = tf.shape(pieces)[0], pieces.shape[1]
    count = tf.random.stateless_uniform([batch], seeds[0], 0, most + 1, tf.int32)
    rank = tf.argsort(tf.argsort(tf.random.stateless_uniform([batch, places], seeds[1])))
    foreign = (rank < count[:, None])[:, :, None, None, None]
    return tf.where(foreign, tf.roll(pieces, 1, axis=0), pieces)


class Boosting(Method):
    """A network learns from scratch the clusters that another one's features fall into.

    Args:
        encoder: the new one, published.
        teacher: whose features are clustered: a `Method`, for its encoder, or an encoder. Nothing
            changes it but its own training, before this one's first step.
        examples: N, whose `index` runs from 0 to N - 1.
        clusters: K, at most N.
        tap: the teacher's layer that is pooled and clustered; the last ones know their pretext
            better than the world.
    """

    def __init__(self, encoder, teacher, examples, clusters=2000, tap="c4", seed=0):
        super().__init__(encoder)
        self.teacher = teacher
        source = getattr(teacher, "encoder", teacher)
        known = encoders.tap_names(source)
        if tap not in known:
            raise BadInput(f"tap: the teacher has no layer {tap!r}; there are {', '.join(known)}.")
        seen = encoders.representation(source)
        self.describe = tf.function(lambda batch: seen(batch)[tap], reduce_retracing=True)
        self.clusters, self.seed = min(clusters, examples), seed
        self.classifier = layers.linear(encoder.output_shape[-1], self.clusters)
        state = dict(trainable=False, initializer="zeros", dtype="int32")
        self.assignment = self.add_weight(name="assignment", shape=[examples], **state)
        self.ready = self.add_weight(name="ready", shape=[], **state)
        self.accuracy = keras.metrics.SparseCategoricalAccuracy(name="accuracy")

    @property
    def trainable_variables(self):
        """The student's alone."""
        return [*self.encoder.trainable_variables, *self.classifier.trainable_variables]

    trainable_weights = trainable_variables

    def call(self, x, training=False):
        return self.classifier(self.encoder(x["image"], training=training))  # [B, K]

    def objective(self, x, y, outputs):
        label = tf.gather(tf.convert_to_tensor(self.assignment), x["index"])
        self.accuracy.update_state(label, outputs)
        return cross_entropy(outputs, label)

    def reassign(self, features):
        """Every example's cluster for good, from features [N, D] in the order of `index`."""
        _, assigned = kmeans(features, self.clusters, seed=self.seed)
        self.assignment.assign(assigned)


def recipe(
    encoder="alexnet",
    data="tfds:imagenet2012",
    size=227,
    batch_size=256,
    epochs=90,
    learning_rate=0.01,
    weight_decay=5e-4,
    clusters=2000,
    teacher="alexnet",
    tap="c4",
    pretext_epochs=70,
    pretext_rate=0.01,
    side=256,
    tile=64,
    orders=701,
    shift=2,
    grey=0.7,
    tile_width=1024,
    width=4096,
    dropout=0.5,  # of the pretext's head
    area=(0.6, 1.0),
    seed=0,
):
    """Jigsaw++, k-means of conv4, and a new network (sections 3 and 4).

    `teacher` is an encoder's name, to be trained here by Jigsaw++ for `pretext_epochs`, or the
    folder or URL of a published encoder, whatever its pretext was. The paper's is a VGG-16, which
    we have not; its tiles move by up to 18 px in their cells, ours by 21. The rate falls to a tenth
    at each third, as AlexNet's for ImageNet's classes.
    """
    examples = numbered(load(data, keys=("image", "index")))
    dataset = batching.train(
        examples, functools.partial(views, size=size, area=area), batch_size, seed
    )
    first = []
    if isinstance(teacher, str) and teacher not in encoders.NAMES:
        teacher = savedmodel.load(teacher, trainable=False)
    else:
        cut = side * 255 // 256
        cut = dict(size=cut, share=cut / side, fill=tile / (cut // 3), orders=orders, shift=shift)
        puzzled = functools.partial(jigsaw.views, **cut, grey=grey, projection=0.0)
        pretext = jigsaw_plus_plus(batching.train(examples, puzzled, batch_size, seed + 1), seed)
        network = encoders.get(teacher, size=tile)
        teacher = jigsaw.Jigsaw(network, orders, 9, tile_width, width, dropout, seed)
        teacher.compile(SGD(pretext_rate, weight_decay=weight_decay))
        first = [TrainFirst("teacher", pretext, round(pretext.steps * pretext_epochs))]
    count = batching.count_examples(examples)
    student = encoders.get(encoder, size=size)
    model = Boosting(student, teacher, count, clusters, tap, seed)
    rate = falling(learning_rate, round(dataset.steps * epochs), at=(1 / 3, 2 / 3))
    model.compile(SGD(rate, weight_decay=weight_decay))
    clustering = EmbedEachEpoch(examples, ONCE, key="image", size=size, of="describe")
    return Run(model, dataset, epochs, [*first, clustering])


SMALL = dict(
    encoder="resnet9",
    data="world:n=4000",
    size=32,
    batch_size=64,
    epochs=4,
    learning_rate=0.05,
    clusters=100,
    teacher="resnet9",
    pretext_epochs=1,
    pretext_rate=0.03,
    side=60,
    tile=16,
    orders=64,
    shift=1,
    tile_width=128,
    width=512,
    dropout=0.0,
    area=(0.3, 1.0),
)
