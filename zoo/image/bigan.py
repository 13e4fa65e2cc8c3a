"""Learn to invert a generator: a critic compares image and code, real pairs with made ones.

Paper: Adversarial Feature Learning
Authors: Jeff Donahue, Philipp Krähenbühl, Trevor Darrell
Venue: ICLR 2017
URL: https://arxiv.org/abs/1605.09782
Family: adversarial
"""

import functools

import keras
import tensorflow as tf

from tfssl import encoders
from tfssl.layers.generator import generator, strided
from tfssl.layers.normalisation import BatchNormalization
from tfssl.method import Adversarial, Run
from tfssl.objectives import adversarial
from tfssl.pipelines import batching, load
from tfssl.zoo.image import dcgan


def views(examples, seed, size=64, width=200, area=(0.5, 1.0), flip=0.5):
    """Two samples: "image" float32 [B, size, size, 3], one crop; "noise" [B, width] in [-1, 1].

    The paper crops 64 px of 72 without resizing; here `area` is uniform around that share.
    """
    return dcgan.views(examples, seed, size, width, area, flip)


def critic(size, width, channels, hidden):
    """(image, z) -> logit [B, 1]: convolutions of the image, then layers that see the code too."""
    image, z = keras.Input([size, size, 3]), keras.Input([width])
    x = strided(image, channels)
    x = keras.layers.Concatenate()([keras.layers.Flatten()(x), z])
    for _ in range(2):
        x = keras.layers.LeakyReLU(0.2)(keras.layers.Dense(hidden)(x))
    return keras.Model([image, z], keras.layers.Dense(1)(x), name="critic")


def perceptron(size, hidden=512):
    """The paper's network for digits: two hidden layers over all pixels, as if in no order."""
    x = image = keras.Input([size, size, 3], name="image")
    x = keras.layers.Flatten()(x)
    for name in ("fc1", "fc2"):
        x = keras.layers.Dense(hidden, use_bias=False, name=f"{name}_dense")(x)
        x = BatchNormalization(name=f"{name}_norm")(x)
        x = keras.layers.LeakyReLU(0.2, name=name)(x)
    return keras.Model(image, x, name="perceptron")


class BiGAN(Adversarial):
    """An encoder and a generator against a critic of pairs: (x, E(x)) real, (G(z), z) made.

    Args:
        encoder: of images; a linear layer to `width` values in [-1, 1], the range of z, is put on
            top of it, and this whole network E is published.
        size: side of the images, a multiple of 2 ** len(channels).
        channels: of generator and critic, from the image inwards.
        hidden: width of the two layers that join image and code.
    """

    def __init__(self, encoder, size=64, width=200, channels=(64, 128, 256, 512), hidden=1024):
        code = keras.layers.Dense(width, activation="tanh", name="code")(encoder.output)
        super().__init__(keras.Model(encoder.input, code, name=f"{encoder.name}_code"))
        self.generator = generator(size, width, channels)
        self.critic = critic(size, width, channels, hidden)

    def call(self, x, training=False):
        code = self.encoder(x["image"], training=training)
        made = self.generator(x["noise"], training=training)
        # Two calls, so that batch norm sees real and made pairs apart.
        real = self.critic([2 * x["image"] - 1, code], training=training)
        fake = self.critic([made, x["noise"]], training=training)
        return {"real": real, "fake": fake}

    def objective(self, x, y, outputs):
        return adversarial.encoder_generator(outputs["real"], outputs["fake"])

    def critique(self, x, y, outputs):
        return adversarial.discriminator(outputs["real"], outputs["fake"])  # equation 3


@keras.saving.register_keras_serializable("tfssl")
class LateDecay(keras.optimizers.schedules.LearningRateSchedule):
    """`rate` for the first half of the steps, then exponentially down to a hundredth of it."""

    def __init__(self, rate, steps):
        self.rate, self.steps = rate, steps

    def __call__(self, step):
        share = tf.cast(step, tf.float32) / max(1.0, float(self.steps))
        return self.rate * 0.01 ** tf.clip_by_value(2 * share - 1, 0.0, 1.0)

    def get_config(self):
        return {"rate": self.rate, "steps": self.steps}


def recipe(
    encoder="alexnet",
    data="tfds:imagenet2012",
    size=64,
    batch_size=128,
    epochs=400,  # 200 at the full rate, 200 decaying
    learning_rate=2e-4,
    beta=0.5,
    weight_decay=2.5e-5,
    width=200,
    channels=(64, 128, 256, 512),
    hidden=1024,
    area=(0.5, 1.0),
    flip=0.5,
    seed=0,
):
    """The released ImageNet run, jeffdonahue/bigan train_imagenet.sh (appendix C of the paper).

    The released code halves both losses, which Adam does not notice, and decays weights through
    the gradient; here they decay apart from it, as in AdamW.

    Without an `encoder` it is `perceptron`, the paper's own for digits. Networks that average over
    the image, as `conv4` and the residual ones do, hardly learn to invert here: on digits the codes
    of made pictures follow their noise a little by `perceptron`, and not at all by `conv4`; the
    nearest neighbour by E(x) tells 93 % of the digits, and 98 % before training (SMALL, one seed).
    What it makes of photographs stands in benchmarks/image_zoo.json.
    """
    view = functools.partial(views, size=size, width=width, area=area, flip=flip)
    dataset = batching.train(load(data, keys=("image",)), view, batch_size, seed)
    made = encoders.get(encoder or perceptron(size), size=size)
    model = BiGAN(made, size, width, channels, hidden)
    rate = LateDecay(learning_rate, round(dataset.steps * epochs))
    optimizer, critic_optimizer = (
        keras.optimizers.Adam(rate, beta, weight_decay=weight_decay) for _ in range(2)
    )
    model.compile(optimizer, critic_optimizer)
    return Run(model, dataset, epochs)


SMALL = dict(
    encoder="",
    data="digits",
    size=32,
    batch_size=128,
    epochs=30,
    width=32,
    channels=(32, 64, 128),
    hidden=256,
    area=(0.8, 1.0),
    flip=0.0,
)
