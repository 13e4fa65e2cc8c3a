"""Sort the features into clusters, learn to tell the clusters apart, and sort again.

Paper: Deep Clustering for Unsupervised Learning of Visual Features
Authors: Mathilde Caron, Piotr Bojanowski, Armand Joulin, Matthijs Douze
Venue: ECCV 2018
URL: https://arxiv.org/abs/1807.05520
Family: clustering
"""

import functools

import keras
import numpy as np
import tensorflow as tf

from tfssl import encoders
from tfssl.callbacks import EmbedEachEpoch
from tfssl.layers.kmeans import kmeans, unit_rows, whiten
from tfssl.layers.sobel import with_sobel
from tfssl.method import Method, Run
from tfssl.objectives.classification import weighted_cross_entropy
from tfssl.optimizers import SGD
from tfssl.pipelines import batching, load
from tfssl.pipelines.augment.image import random_resized_crop
from tfssl.pipelines.datasets import numbered


def views(examples, seed, size=224, area=(0.08, 1.0)):
    """One crop, mirrored or not: "image" float32 [B, size, size, 3]; and "index" int64 [B]."""
    crops = random_resized_crop(examples["image"], size, seed, area=area)
    return {"image": crops, "index": examples["index"]}


class DeepCluster(Method):
    """A classifier of pseudo-labels on an encoder of edges; `reassign` makes the labels.

    The clusters weigh the same however large they are (section 3.3, "trivial parametrization"): the
    paper draws examples uniformly over clusters, here the loss of each is weighted by N / (K n), n
    the size of its cluster, which has the same mean. So the data stay one plain pass.

    Args:
        encoder: a copy of it behind a Sobel layer is trained and published.
        examples: N, whose `index` runs from 0 to N - 1.
        clusters: K, at most N.
        widths: of the fully connected layers between the encoder and the classifier. What is
            clustered is the last one's output before its ReLU.
        dropout: before each of them.
        dimensions: of the whitened features that are clustered.
        iterations: of k-means.
    """

    def __init__(
        self,
        encoder,
        examples,
        clusters=10000,
        widths=(4096, 4096),
        dropout=0.5,
        dimensions=256,
        iterations=20,
        seed=0,
    ):
        super().__init__(with_sobel(encoder))
        x = self.encoder.output
        for i, width in enumerate(widths):
            x = keras.layers.ReLU()(x) if i else x  # an encoder's features have had theirs
            x = keras.layers.Dropout(dropout, seed=seed + i)(x) if dropout else x
            x = keras.layers.Dense(width)(x)
        self.embedder = keras.Model(self.encoder.input, x)
        self.clusters = min(clusters, examples)
        self.classifier = keras.layers.Dense(self.clusters, name="classifier")
        self.classifier.build(x.shape)
        self.dimensions, self.iterations, self.seed = dimensions, iterations, seed
        state = dict(trainable=False, initializer="zeros", autocast=False)
        self.assignment = self.add_weight(
            name="assignment", shape=[examples], dtype="int32", **state
        )
        self.sizes = self.add_weight(
            name="sizes", shape=[self.clusters], dtype="float32", **state
        )  # how many examples each cluster holds
        self.passes = self.add_weight(name="passes", shape=[], dtype="int32", **state)
        self.accuracy = keras.metrics.SparseCategoricalAccuracy(name="accuracy")

    def call(self, x, training=False):
        features = self.embedder(x["image"], training=training)
        return self.classifier(tf.nn.relu(features))  # [B, K]

    def objective(self, x, y, outputs):
        label = tf.gather(tf.convert_to_tensor(self.assignment), x["index"])
        self.accuracy.update_state(label, outputs)
        sizes = tf.convert_to_tensor(self.sizes)
        filled = tf.reduce_sum(tf.cast(sizes > 0, tf.float32))
        weight = tf.math.divide_no_nan(tf.reduce_sum(sizes) / filled, tf.gather(sizes, label))
        return weighted_cross_entropy(outputs, label, weight)

    def reassign(self, features):
        """New pseudo-labels of features [N, D], row i of the example with index i; a new head.

        Whitened by PCA, scaled to unit length, k-means (section 4.2). Each pass has a random seed
        of its own, which follows from the number of passes: a resumed run repeats it.
        """
        seed = self.seed, int(tf.convert_to_tensor(self.passes))
        points = unit_rows(whiten(features, self.dimensions))
        _, assigned = kmeans(points, self.clusters, self.iterations, seed)
        self.assignment.assign(assigned)
        self.sizes.assign(np.bincount(assigned, minlength=self.clusters).astype(np.float32))
        self.passes.assign(seed[1] + 1)
        kernel, bias = self.classifier.kernel, self.classifier.bias
        kernel.assign(0.01 * tf.random.stateless_normal(kernel.shape, seed))
        bias.assign(tf.zeros(bias.shape))
        self._forget(kernel, bias)

    def _forget(self, *variables):
        """Empties what the optimiser keeps of these variables: the head's optimiser is new too."""
        names = tuple(variable.path.replace("/", "_") + "_" for variable in variables)
        for slot in getattr(self.optimizer, "variables", ()):
            if slot.name.startswith(names):
                slot.assign(tf.zeros(slot.shape, slot.dtype))


def recipe(
    encoder="alexnet",
    data="tfds:imagenet2012",
    size=224,
    batch_size=256,
    epochs=200,  # the released run; the paper's is of 500
    learning_rate=0.05,
    weight_decay=1e-5,
    clusters=10000,
    widths=(4096, 4096),
    dropout=0.5,
    dimensions=256,
    every=1,
    area=(0.08, 1.0),
    seed=0,
):
    """The released ImageNet run, facebookresearch/deepcluster main.py (section 4.2 of the paper).

    Our AlexNet ends in a mean over its last map, where the paper's fully connected layers see all
    of it. What is clustered is the whole central square, there 224 px of 256. The head shares the
    trunk's optimiser, with momentum, though it forgets at each pass; the paper's has none.
    """
    examples = numbered(load(data, keys=("image", "index")))
    view = functools.partial(views, size=size, area=area)
    dataset = batching.train(examples, view, batch_size, seed)
    count = batching.count_examples(examples)
    model = DeepCluster(
        encoders.get(encoder, size=size), count, clusters, widths, dropout, dimensions, seed=seed
    )
    model.compile(SGD(learning_rate, weight_decay=weight_decay))
    embedding = EmbedEachEpoch(examples, every, key="image", size=size, of="embedder")
    return Run(model, dataset, epochs, [embedding])


SMALL = dict(
    encoder="resnet9",
    data="digits",
    size=32,
    batch_size=64,
    epochs=15,
    learning_rate=0.05,
    clusters=60,
    widths=(256,),
    dropout=0.0,
    dimensions=64,
    area=(0.5, 1.0),
)
