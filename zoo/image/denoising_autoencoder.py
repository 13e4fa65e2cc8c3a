"""Give back the clean image from a corrupted one; without corruption a plain autoencoder.

Paper: Extracting and Composing Robust Features with Denoising Autoencoders
Authors: Pascal Vincent, Hugo Larochelle, Yoshua Bengio, Pierre-Antoine Manzagol
Venue: ICML 2008
URL: https://www.cs.toronto.edu/~larocheh/publications/icml-2008-denoising-autoencoders.pdf
Family: pretext-generative
"""

import functools

import keras
import tensorflow as tf

from tfssl import encoders
from tfssl.encoders.maps import trunk
from tfssl.errors import BadInput
from tfssl.layers.decoders import decoder
from tfssl.method import Method, Run
from tfssl.objectives.numerics import float32
from tfssl.pipelines import batching, load
from tfssl.pipelines.augment.image import random_resized_crop


def views(examples, seed, size=32, area=(0.5, 1.0), corruption="masking", level=0.25, block=1):
    """A crop, corrupted anew each time, and the crop itself, which is the target.

    Returns:
        (x, y): x a dict of "image", the corrupted crop, and "corrupted", 1 where it was touched;
        y the clean crop. All float32 [B, size, size, 3]; Gaussian noise is not clipped to [0, 1].
        Corruption as in `corrupt`; a `level` of 0 leaves the image as it is.
    """
    seeds = tf.random.split(seed, 2)
    clean = random_resized_crop(examples["image"], size, seeds[0], area=area)
    image, corrupted = corrupt(clean, seeds[1], corruption, level, block)
    return {"image": image, "corrupted": corrupted}, clean


def corrupt(x, seed, corruption="masking", level=0.25, block=1):
    """q(x~ | x) of the paper: (corrupted, which), both float32 of x's shape.

    Args:
        x: images [B, H, W, C], of which whole pixels are drawn, or vectors [B, d].
        seed: int32 [2].
        corruption: "masking" sets the share `level` of the inputs to 0, each by itself;
            "salt_and_pepper" sets it to 0 or to 1, as likely one as the other; "gaussian" adds
            N(0, level^2) to all.
        level: the share, or the standard deviation.
        block: side in pixels of the squares of an image that are drawn as one; 1: single pixels.

    Raises:
        BadInput: for any other corruption.
    """
    if corruption not in ("masking", "salt_and_pepper", "gaussian"):
        raise BadInput(
            f"corruption={corruption!r}: there are masking, salt_and_pepper and gaussian."
        )
    if corruption == "gaussian":
        noise = tf.random.stateless_normal(tf.shape(x), seed, 0.0, level)
        return x + noise, tf.fill(tf.shape(x), 1.0 if level else 0.0)
    shape = tf.shape(x)
    if len(x.shape) == 4:
        shape = tf.stack([shape[0], -(-shape[1] // block), -(-shape[2] // block), 1])
    u = tf.random.stateless_uniform(shape, seed)
    if len(x.shape) == 4:
        u = tf.repeat(tf.repeat(u, block, axis=1), block, axis=2)
        u = tf.broadcast_to(u[:, : tf.shape(x)[1], : tf.shape(x)[2]], tf.shape(x))
    # Below half the level pepper, above it salt; masking has no salt.
    salt = tf.cast((u >= level / 2) & (corruption == "salt_and_pepper"), x.dtype)
    return tf.where(u < level, salt, x), tf.cast(u < level, tf.float32)


class DenoisingAutoencoder(Method):
    """A code of the corrupted image, a decoder, and the clean image.

    Real-valued reconstruction: squared error, a mean over all inputs. The paper trains layer by
    layer, each on the clean codes of those below, with tied weights; here encoder and decoder are
    one deep network, trained as a whole. What is published sees images as they are.

    Args:
        encoder: what is published.
        code: the part of it that the decoder reads, a network of the encoder's own layers:
            `encoder` itself, or its last map, whose places need not be told by the features then.
        decoder: layer, codes -> reconstructions of the targets' shape, linear.
        emphasis: alpha and beta, the weights of errors where the input was corrupted and where it
            was kept (JMLR 2010, section 4.2); (1, 0) is full emphasis.
    """

    def __init__(self, encoder, code, decoder, emphasis=(1.0, 1.0)):
        super().__init__(encoder)
        self.code, self.decoder, self.emphasis = code, decoder, emphasis

    def call(self, x, training=False):
        code = self.code(x["image"], training=training)
        return self.decoder(code, training=training)

    def objective(self, x, y, outputs):
        return tf.reduce_mean(self.weights_of(x) * self.cost(float32(outputs), float32(y)))

    def weights_of(self, x):
        """Alpha where the input was corrupted, beta where not."""
        alpha, beta = self.emphasis
        return beta + (alpha - beta) * x["corrupted"]

    def cost(self, z, y):
        return tf.math.squared_difference(z, y)


class BinaryDenoisingAutoencoder(DenoisingAutoencoder):
    """For inputs that are, or are nearly, bits: the cross-entropy of sigmoid outputs.

    Summed over the inputs, a mean over the batch, as the paper has it (equation 4); its least
    value is the entropy of the targets, which is 0 only for true bits.
    """

    def objective(self, x, y, outputs):
        costs = self.weights_of(x) * self.cost(float32(outputs), float32(y))
        return tf.reduce_mean(tf.reduce_sum(tf.reshape(costs, [tf.shape(costs)[0], -1]), axis=1))

    def cost(self, z, y):
        return tf.nn.sigmoid_cross_entropy_with_logits(labels=y, logits=z)


def bottleneck(shape, size, width, channels):
    """A decoder of maps [B, h, w, C] by way of `width` numbers -> images [B, size, size, 3]."""
    maps = keras.Input(shape)
    narrow = keras.layers.Dense(width, name="bottleneck")(keras.layers.Flatten()(maps))
    return keras.Model(maps, decoder((width,), size, channels)(narrow))


def recipe(
    encoder="resnet18",
    data="tfds:cifar10",
    size=32,
    batch_size=128,
    epochs=100,
    learning_rate=1e-3,
    corruption="masking",
    level=0.25,
    block=1,
    emphasis=(1.0, 1.0),
    width=256,
    channels=(64, 128, 256),
    area=(0.5, 1.0),
    seed=0,
):
    """A convolutional one for photographs; network, rate and epochs are ours.

    The paper's own runs are of one to three layers of 1000 to 3000 units on variants of MNIST. Its
    grids: masking 0, 0.1, 0.25 or 0.4; JMLR 2010 adds salt_and_pepper of the same shares and
    gaussian of 0.05, 0.1, 0.15, 0.3 or 0.5.
    """
    corruption = dict(corruption=corruption, level=level, block=block)
    view = functools.partial(views, size=size, area=area, **corruption)
    dataset = batching.train(load(data, keys=("image",)), view, batch_size, seed)
    encoder = encoders.get(encoder, size=size)
    code = trunk(encoder, "denoising_autoencoder")
    shape = code.compute_output_shape([None, size, size, 3])[1:]
    model = DenoisingAutoencoder(encoder, code, bottleneck(shape, size, width, channels), emphasis)
    rate = keras.optimizers.schedules.CosineDecay(learning_rate, round(dataset.steps * epochs))
    model.compile(keras.optimizers.Adam(rate))
    return Run(model, dataset, epochs)


SMALL = dict(
    encoder="resnet9",
    data="digits",
    size=32,
    batch_size=128,
    epochs=30,
    block=4,
    channels=(32, 64, 128),
)
