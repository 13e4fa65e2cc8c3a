"""One vector must tell the places of its own image from the places of all others.

Paper: Learning Deep Representations by Mutual Information Estimation and Maximization
Authors: R Devon Hjelm, Alex Fedorov, Samuel Lavoie-Marchildon, Karan Grewal, Phil Bachman, Adam Trischler, Yoshua Bengio
Venue: ICLR 2019
URL: https://arxiv.org/abs/1808.06670
Family: contrastive
"""  # noqa: E501

import functools
import math

import keras
import tensorflow as tf

from tfssl import encoders, layers
from tfssl.errors import BadInput
from tfssl.layers.normalisation import BatchNormalization
from tfssl.method import Adversarial, Run
from tfssl.objectives import adversarial, infomax, replicas
from tfssl.pipelines import batching, load
from tfssl.pipelines.sample.noise import image_and_noise

ESTIMATORS = {"jsd": infomax.jsd, "infonce": infomax.nce, "dv": infomax.dv}


def views(examples, seed, size=32, width=64, area=(1.0, 1.0), flip=0.0):
    """Two samples: "image" float32 [B, size, size, 3], the middle of each image (it
    needs no more), and "noise" [B, width], uniform in [0, 1), of the prior."""
    uniform = tf.random.stateless_uniform
    return image_and_noise(examples["image"], seed, size, width, area, flip, uniform)


def convolutional(size=32, channels=(64, 128, 256), hidden=1024):
    """The paper's encoder for CIFAR-10 but for its last layer: [B, size, size, 3] -> [B, hidden].

    Convolutions 4 x 4 of stride 2, then one fully connected layer; each with batch norm and ReLU.
    Taps: c1, c2, ... (appendix A.2).
    """
    image = keras.Input([size, size, 3], name="image")
    x = keras.layers.Rescaling(2.0, -1.0, name="normalise")(image)
    for i, filters in enumerate(channels, 1):
        x = keras.layers.Conv2D(filters, 4, 2, "same", use_bias=False)(x)
        x = keras.layers.ReLU(name=f"c{i}")(BatchNormalization()(x))
    x = keras.layers.Dense(hidden, use_bias=False)(keras.layers.Flatten()(x))
    x = keras.layers.ReLU(name="features")(BatchNormalization()(x))
    return keras.Model(image, x, name="convolutional")


def nearly_identity(shape, dtype=None):
    """Ones on the diagonal and a hundredth of noise: a shortcut that passes on what comes in."""
    return tf.eye(*shape, dtype=dtype) + keras.random.uniform(shape, -0.01, 0.01, dtype)


def scorer(shape, units, name):
    """Vectors of `shape` [..., C] -> [..., units]: a hidden layer beside a linear shortcut.

    Places of a map pass it each for itself, as by convolutions 1 x 1, and end in a layer norm.
    Appendix A.2.
    """
    vectors = keras.Input(shape)
    x = keras.layers.Dense(units, use_bias=False)(vectors)
    x = keras.layers.Dense(units)(keras.layers.ReLU()(BatchNormalization()(x)))
    x += keras.layers.Dense(units, kernel_initializer=nearly_identity)(vectors)
    x = keras.layers.LayerNormalization()(x) if len(shape) > 1 else x
    return keras.Model(vectors, x, name=name)


class DeepInfoMax(Adversarial):
    """DIM: y, a linear layer on the encoder, against places of one of its maps; a critic of y.

    Args:
        encoder: published; y, which is not, is a linear layer on top of it.
        local: name of its tap whose places are compared. No place may see the whole image.
        estimator: "jsd", "infonce" or "dv".
        width: of y.
        units: of the scores' networks.
        alpha, beta, gamma: weights of the global and local terms and of the prior. With `alpha` the
            map must have a known size.
    """

    def __init__(
        self,
        encoder,
        local="c2",
        estimator="jsd",
        width=64,
        units=2048,
        alpha=0.0,
        beta=1.0,
        gamma=0.1,
    ):
        super().__init__(encoder)
        taps = encoders.taps_of(encoder)
        if local not in taps or len(taps[local].shape) != 4:
            raise BadInput(
                f"local={local}: {encoder.name} has no such map; it has {', '.join(taps)}."
            )
        if estimator not in ESTIMATORS:
            raise BadInput(f"estimator={estimator}: choose among {', '.join(ESTIMATORS)}.")
        self.estimate = ESTIMATORS[estimator]
        self.alpha, self.beta, self.gamma = alpha, beta, gamma
        places = taps[local]
        y = keras.layers.Dense(width, name="y")(encoder.output)
        self.trunk = keras.Model(encoder.input, [places, y])
        self.of_places = scorer([None, None, places.shape[-1]], units, "of_places")
        self.of_summary = scorer([width], units, "of_summary")
        self.critic = layers.mlp(width, [1000, 200, 1], False, name="critic")  # section 3.2
        if alpha:  # an MLP on the concatenated pair, its first layer applied to either half
            values = math.prod(places.shape[1:])
            self.of_map = layers.mlp(values, [512], False, name="of_map")
            self.of_y = layers.mlp(width, [512], False, name="of_y")
            self.of_pair = layers.mlp(512, [512, 1], False, name="of_pair")

    def call(self, x, training=False):
        places, y = self.trunk(x["image"], training=training)
        local = self.of_places(places, training=training)  # [B, h, w, units]
        outputs = {
            "summary": self.of_summary(y, training=training),
            "local": tf.reshape(local, [tf.shape(local)[0], -1, local.shape[-1]]),  # [B, M, units]
            # The prior is uniform in [0, 1], so y is brought there to be compared.
            "fake": self.critic(tf.nn.sigmoid(y)),
            "real": self.critic(x["noise"]),
        }
        if self.alpha:
            maps = self.of_map(tf.reshape(places, [-1, self.of_map.input_shape[1]]))
            pairs = tf.nn.relu(self.of_y(y)[:, None] + replicas.gather(maps)[None])  # [B, G, 512]
            scores = self.of_pair(tf.reshape(pairs, [-1, pairs.shape[-1]]))
            outputs["pairs"] = tf.reshape(scores, [*tf.unstack(tf.shape(pairs)[:2]), 1])
        return outputs

    def objective(self, x, y, outputs):
        total = self.gamma * adversarial.generator(outputs["fake"])  # equation 7
        if self.beta:
            scores = infomax.dot_scores(outputs["summary"], outputs["local"])
            total += self.beta * self.estimate(*scores)  # equation 6
        if self.alpha:
            own = infomax.own_of(outputs["summary"])
            total += self.alpha * self.estimate(outputs["pairs"], own)
        return total

    def critique(self, x, y, outputs):
        return adversarial.discriminator(outputs["real"], outputs["fake"])


def recipe(
    encoder="",
    data="tfds:cifar10",
    size=32,
    batch_size=64,
    epochs=1000,
    learning_rate=1e-4,
    end_rate=1e-4,  # of an exponential decay
    local="c2",
    estimator="jsd",
    width=64,
    channels=(64, 128, 256),
    hidden=1024,
    units=2048,
    alpha=0.0,
    beta=1.0,
    gamma=0.1,
    area=(1.0, 1.0),
    flip=0.0,
    seed=0,
):
    """The paper's run on CIFAR-10, local DIM (section 4.1, appendix A; rdevon/DIM).

    Without an `encoder` it is `convolutional`, the paper's own.
    """
    view = functools.partial(views, size=size, width=width, area=area, flip=flip)
    dataset = batching.train(load(data, keys=("image",)), view, batch_size, seed)
    made = encoders.get(encoder or convolutional(size, channels, hidden), size=size)
    model = DeepInfoMax(made, local, estimator, width, units, alpha, beta, gamma)
    rate = keras.optimizers.schedules.ExponentialDecay(
        learning_rate, max(1, round(dataset.steps * epochs)), end_rate / learning_rate
    )
    model.compile(keras.optimizers.Adam(rate), keras.optimizers.Adam(rate))
    return Run(model, dataset, epochs)


SMALL = dict(
    data="digits",
    size=32,
    batch_size=128,
    epochs=15,
    learning_rate=1e-3,
    channels=(32, 64, 128),
    hidden=512,
    units=256,
)
