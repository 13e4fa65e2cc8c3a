"""Tell real images from made ones, and how far the real ones were rotated.

Paper: Self-Supervised GANs via Auxiliary Rotation Loss
Authors: Ting Chen, Xiaohua Zhai, Marvin Ritter, Mario Lucic, Neil Houlsby
Venue: CVPR 2019
URL: https://arxiv.org/abs/1811.11212
Family: adversarial
"""

import functools

import keras
import tensorflow as tf

from tfssl import encoders
from tfssl.layers.generator import generator, strided
from tfssl.layers.spectral import SpectralDense
from tfssl.method import Adversarial, Run
from tfssl.objectives import adversarial, replicas
from tfssl.objectives.classification import cross_entropy
from tfssl.pipelines import batching, load
from tfssl.pipelines.augment.image import rotate90
from tfssl.pipelines.sample.noise import image_and_noise


def views(examples, seed, size=32, width=128, area=(1.0, 1.0), flip=0.0):
    """Two samples: "image" float32 [B, size, size, 3], the middle of each image, and "noise"
    [B, width], standard normal."""
    normal = tf.random.stateless_normal
    return image_and_noise(examples["image"], seed, size, width, area, flip, normal)


def trunk(size=32, channels=(64, 128, 256, 512), kernel=4):
    """The discriminator without its heads: images [B, size, size, 3] in [0, 1] -> [B, C].

    The mean of the last map; every kernel has spectral norm 1, and there is no batch norm. Taps:
    c1, c2, ..., each half the side of the one before.
    """
    image = keras.Input([size, size, 3], name="image")
    x = keras.layers.Rescaling(2.0, -1.0, name="normalise")(image)
    x = strided(x, channels, kernel, spectral=True)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(image, x, name="discriminator")


def turned(images, count):
    """The last `count` images by one, two and three quarter turns: [3 count, H, W, 3], in blocks.

    With those images as they are before them, four blocks of turns 0, 1, 2, 3.
    """
    last = images[tf.shape(images)[0] - count :]
    return tf.concat([rotate90(last, turns) for turns in (1, 2, 3)], axis=0)


def turns_of(count):
    """The turn of each image of four blocks of equal size, `count` in all: int32 [count]."""
    return tf.range(count) // (count // 4)


class SelfGAN(Adversarial):
    """A GAN whose discriminator tells rotations too (SS-GAN): two linear heads on the encoder.

    The generator is paid for images whose rotation can be told; only real ones teach it. The heads
    that tell real from made never see a rotated image. Both players take their step after one
    forward pass, where the paper gives the discriminator one or more steps of its own.

    Args:
        encoder: `trunk`, or any other (its batch norm, if it has one, sees real and made together).
        size: side of the images, a multiple of 2 ** len(channels).
        width: of the noise.
        channels: of the generator's maps, from the finest to the coarsest.
        rotated: R, images of a batch whose rotation is asked, their turns counted: a multiple of 4;
            the last R / 4 of each batch (of each replica's part) are turned.
        alpha, beta: weights of the rotation loss for the generator and for the discriminator.
    """

    def __init__(
        self,
        encoder,
        size=32,
        width=128,
        channels=(64, 128, 256, 512),
        rotated=16,
        alpha=0.2,
        beta=1.0,
    ):
        super().__init__(encoder)
        self.generator = generator(size, width, channels)
        features = encoder.output
        heads = SpectralDense(1, name="real")(features), SpectralDense(4, name="turn")(features)
        self.critic = keras.Model(encoder.input, heads, name="critic")
        self.rotated, self.alpha, self.beta = rotated, alpha, beta
        self.accuracy = keras.metrics.SparseCategoricalAccuracy(name="accuracy")

    def call(self, x, training=False):
        real = x["image"]
        made = self.generator(x["noise"], training=training) / 2 + 0.5
        made = tf.cast(made, real.dtype)
        batch = tf.shape(real)[0]
        count = tf.minimum(batch, max(1, self.rotated // 4 // replicas.count()))
        parts = [real, turned(real, count), made, turned(made, count)]
        logits, turns = self.critic(tf.concat(parts, axis=0), training=training)
        half = batch + 3 * count  # where the made ones begin
        return {
            "real": logits[:batch],
            "fake": logits[half : half + batch],
            "real_turns": turns[batch - count : half],  # the four blocks, [4 count, 4]
            "fake_turns": turns[half + batch - count :],
        }

    def objective(self, x, y, outputs):
        turns = outputs["fake_turns"]
        rotation = cross_entropy(turns, turns_of(tf.shape(turns)[0]))
        return adversarial.generator(outputs["fake"]) + self.alpha * rotation  # equation 3

    def critique(self, x, y, outputs):
        turns = outputs["real_turns"]
        labels = turns_of(tf.shape(turns)[0])
        self.accuracy.update_state(labels, turns)
        players = adversarial.discriminator(outputs["real"], outputs["fake"])
        return players + self.beta * cross_entropy(turns, labels)  # equation 4


def recipe(
    encoder="",
    data="tfds:cifar10",
    size=32,
    batch_size=64,
    epochs=128,  # 100,000 steps
    learning_rate=2e-4,
    beta_1=0.5,
    width=128,
    channels=(64, 128, 256, 512),
    rotated=16,
    alpha=0.2,
    beta=1.0,
    area=(1.0, 1.0),
    flip=0.0,
    seed=0,
):
    """The paper's CIFAR-10 run with the convolutional networks of DCGAN's shape (section 4.1).

    Without an `encoder` the discriminator is `trunk`; the paper's ResNet and self-modulated batch
    norm in the generator are left out. The loss is the non-saturating one.
    """
    view = functools.partial(views, size=size, width=width, area=area, flip=flip)
    dataset = batching.train(load(data, keys=("image",)), view, batch_size, seed)
    made = encoders.get(encoder or trunk(size, channels), size=size)
    model = SelfGAN(made, size, width, channels, rotated, alpha, beta)
    optimizer, critic_optimizer = (
        keras.optimizers.Adam(learning_rate, beta_1, 0.999) for _ in range(2)
    )
    model.compile(optimizer, critic_optimizer)
    return Run(model, dataset, epochs)


SMALL = dict(
    data="digits",
    size=32,
    batch_size=64,
    epochs=15,
    width=64,
    channels=(32, 64, 128),
    rotated=64,
)
