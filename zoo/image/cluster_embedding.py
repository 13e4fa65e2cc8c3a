"""Squeeze images into a short code, then draw the codes towards the clusters they lean to.

Paper: Unsupervised Deep Embedding for Clustering Analysis
Authors: Junyuan Xie, Ross Girshick, Ali Farhadi
Venue: ICML 2016
URL: https://arxiv.org/abs/1511.06335
Family: clustering
"""

import functools

import keras
import numpy as np
import tensorflow as tf

from tfssl import encoders
from tfssl.callbacks import EmbedEachEpoch
from tfssl.callbacks.first import TrainFirst
from tfssl.method import Method, Run
from tfssl.objectives.numerics import float32
from tfssl.objectives.reconstruction import squared_error
from tfssl.pipelines import batching, load
from tfssl.pipelines.augment.image import centre_crop
from tfssl.pipelines.datasets import numbered

SCALE = 255 * 0.02  # pixels come so large that a dimension's mean square is about 1 (MNIST)


def views(examples, seed, size=28):
    """The central square, float32 [B, size, size, 3]; and "index" int64 [B]. Nothing is drawn."""
    return {"image": centre_crop(examples["image"], size), "index": examples["index"]}


def mlp(size, widths):
    """The paper's encoder but for its code: images [B, size, size, 3] -> [B, widths[-1]].

    Fully connected layers with ReLUs, which are its taps.
    """
    image = keras.Input([size, size, 3], name="image")
    x = keras.layers.Flatten()(keras.layers.Rescaling(SCALE)(image))
    for i, width in enumerate(widths, 1):
        x = keras.layers.Dense(width, "relu", kernel_initializer="he_normal", name=f"c{i}")(x)
    return keras.Model(image, x, name="mlp")


class Autoencoder(Method):
    """The code's network, and a mirror of `widths` that makes the pixels of it again."""

    def __init__(self, coder, size, widths):
        super().__init__(coder)
        self.decoder = keras.Sequential([keras.Input(coder.output_shape[1:])], name="decoder")
        for width in reversed(widths):
            self.decoder.add(keras.layers.Dense(width, "relu", kernel_initializer="he_normal"))
        self.decoder.add(keras.layers.Dense(size * size * 3))
        self.decoder.add(keras.layers.Reshape([size, size, 3]))

    def call(self, x, training=False):
        return self.decoder(self.encoder(x["image"], training=training), training=training)

    def objective(self, x, y, outputs):
        return squared_error(outputs, SCALE * x["image"])


class DEC(Method):
    """Codes and K centres, moved so that soft assignments Q become what P says of them.

    Args:
        encoder: a linear layer to a code of `width` values follows it. Both are published, the
            network up to the code as "code".
        size: side of the images in pixels.
        examples: N, whose `index` runs from 0 to N - 1.
        clusters: K.
        widths: of the decoder's layers, from the image inwards; it only serves pretraining, which
            comes first (`autoencoder`).
        tolerance: training stops with the epoch before which a smaller share has changed cluster.
    """

    def __init__(self, encoder, size, examples, clusters, widths, width, tolerance, seed=0):
        super().__init__(encoder)
        code = keras.layers.Dense(width, name="code")(encoder.output)
        self.code = keras.Model(encoder.input, code, name=f"{encoder.name}_code")
        self.autoencoder = Autoencoder(self.code, size, widths)
        self.clusters = min(clusters, examples)
        self.tolerance, self.seed = tolerance, seed
        self.centres = self.add_weight(
            name="centres", shape=[self.clusters, width], initializer="zeros", autocast=False
        )
        state = dict(trainable=False, initializer="zeros", autocast=False)
        shape = [examples, self.clusters]
        self.target = self.add_weight(name="target", shape=shape, dtype="float32", **state)  # P
        self.assignment = self.add_weight(
            name="assignment", shape=[examples], dtype="int32", **state
        )
        self.passes = self.add_weight(name="passes", shape=[], dtype="int32", **state)
        self.ready = self.add_weight(name="ready", shape=[], dtype="int32", **state)

    @property
    def trainable_variables(self):
        """The code's network and the centres: the decoder has done its part."""
        return [*self.code.trainable_variables, self.centres]

    trainable_weights = trainable_variables

    @property
    def published(self):
        return {"encoder": self.encoder, "code": self.code}

    def call(self, x, training=False):
        return self.code(x["image"], training=training)  # z [B, width]

    def objective(self, x, y, outputs):
        p = tf.gather(tf.convert_to_tensor(self.target), x["index"])
        return tf.reduce_mean(divergence(p, outputs, tf.convert_to_tensor(self.centres)))

    def reassign(self, codes):
        """P of all codes [N, width], held until the next pass; at the first, k-means' centres."""
        first = not int(tf.convert_to_tensor(self.passes))
        if first:
            from sklearn.cluster import KMeans

            means = KMeans(self.clusters, n_init=20, random_state=self.seed).fit(codes)
            self.centres.assign(means.cluster_centers_)
        q = np.exp(log_similarity(codes, tf.convert_to_tensor(self.centres)))
        assigned = q.argmax(axis=1).astype(np.int32)
        changed = np.mean(assigned != self.assignment.numpy())
        self.target.assign(sharpened(q))
        self.assignment.assign(assigned)
        self.passes.assign_add(1)
        if not first and changed < self.tolerance:
            self.stop_training = True


def log_similarity(z, centres, freedom=1.0):
    """log Q [B, K]: a Student t of each code's distances to the centres (equation 1)."""
    difference = float32(z)[:, None] - float32(centres)
    squared = tf.reduce_sum(tf.square(difference), axis=-1)  # [B, K]
    return tf.nn.log_softmax(-(freedom + 1) / 2 * tf.math.log1p(squared / freedom))


def sharpened(q):
    """P of all examples' Q [N, K]: squared, over each cluster's frequency (equation 3).

    Without the frequencies large clusters would swallow the rest.
    """
    weight = np.square(q) / q.sum(axis=0)
    return (weight / weight.sum(axis=1, keepdims=True)).astype(np.float32)


def divergence(p, z, centres):
    """KL(P || Q) of every example: [B], no gradient through P (equation 2)."""
    p = tf.stop_gradient(float32(p))
    return tf.reduce_sum(tf.math.xlogy(p, p) - p * log_similarity(z, centres), axis=1)


def recipe(
    encoder="mlp",
    data="tfds:mnist",
    size=28,
    batch_size=256,
    epochs=100,
    learning_rate=0.01,
    clusters=10,
    widths=(500, 500, 2000),
    width=10,
    pretext_epochs=366,  # 100,000 steps
    pretext_rate=1e-3,
    tolerance=1e-3,
    every=1,
    seed=0,
):
    """The paper's MNIST run (section 4), numbers of piiswrong/dec; "mlp" is its encoder.

    P is made anew with every epoch, of 273 batches, there after 160. The autoencoder is trained in
    one piece, by Adam from He's weights, where the paper stacks denoising ones layer by layer. The
    grey of a digit goes in three times: 2352 inputs for the paper's 784.
    """
    examples = numbered(load(data, keys=("image", "index")))
    dataset = batching.train(examples, functools.partial(views, size=size), batch_size, seed)
    count = batching.count_examples(examples)
    encoder = mlp(size, widths) if encoder == "mlp" else encoders.get(encoder, size=size)
    model = DEC(encoder, size, count, clusters, widths, width, tolerance, seed)
    model.autoencoder.compile(keras.optimizers.Adam(pretext_rate))
    first = TrainFirst("autoencoder", dataset, round(dataset.steps * pretext_epochs))
    model.compile(keras.optimizers.SGD(learning_rate, momentum=0.9))
    targets = EmbedEachEpoch(examples, every, key="image", size=size, of="code")
    return Run(model, dataset, epochs, [first, targets])


SMALL = dict(
    encoder="mlp",
    data="digits",
    size=28,
    batch_size=64,
    epochs=20,
    widths=(256, 128),
    pretext_epochs=30,
)
