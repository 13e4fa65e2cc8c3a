"""Paint the missing middle of an image from what lies around it, so well that a critic is fooled.

Paper: Context Encoders: Feature Learning by Inpainting
Authors: Deepak Pathak, Philipp Krähenbühl, Jeff Donahue, Trevor Darrell, Alexei A. Efros
Venue: CVPR 2016
URL: https://arxiv.org/abs/1604.07379
Family: pretext-generative
"""

import functools

import keras
import tensorflow as tf

from tfssl import encoders
from tfssl.encoders.maps import trunk
from tfssl.errors import BadInput
from tfssl.layers.decoders import coarsest_side, decoder
from tfssl.layers.normalisation import BatchNormalization
from tfssl.method import Adversarial, Run
from tfssl.objectives import adversarial
from tfssl.objectives.numerics import float32
from tfssl.pipelines import batching, load
from tfssl.pipelines.augment.image import random_resized_crop

FILL = (117 / 255, 104 / 255, 123 / 255)  # what hides a region, RGB (the released code)
RING = 10.0  # weight of errors where the painted square overlaps what is seen
CHANNELS = (64, 128, 256, 512)  # of decoder and critic, from the image inwards
CROP = (128 / 350) ** 2  # of the image's area: 128 px of a side of 350


def views(examples, seed, size=128, overlap=4, area=(CROP, CROP), flip=0.5):
    """A crop whose middle is painted over, and what was there.

    Returns:
        dict of "image" [B, size, size, 3], whose middle is FILL, and "target", the true middle
        [B, size / 2, size / 2, 3], float32 in [0, 1]. The hole is `overlap` pixels smaller on each
        side than the target.
    """
    crops = random_resized_crop(examples["image"], size, seed, area, (1.0, 1.0), flip)
    hidden = square(size, size // 4 + overlap)
    middle = slice(size // 4, size // 4 + size // 2)
    return {"image": tf.where(hidden, FILL, crops), "target": crops[:, middle, middle]}


def square(size, margin):
    """bool [1, size, size, 1], true but in a frame `margin` pixels wide."""
    inside = tf.abs(2 * tf.range(size) - (size - 1)) < size - 2 * margin
    return (inside[:, None] & inside)[None, :, :, None]


class ChannelwiseDense(keras.layers.Layer):
    """Each channel's map by a matrix of its own: [B, h, w, C] -> [B, side, side, C].

    Knowledge moves across the whole image at C (h w) side^2 weights, where a dense layer would need
    C times as many (section 3.1).

    Args:
        shape: (h, w, C).
        side: of the result.
    """

    def __init__(self, shape, side, **kwargs):
        super().__init__(**kwargs)
        self.side = side
        height, width, channels = shape
        self.kernel = self.add_weight(
            name="kernel",
            shape=[channels, height * width, side * side],
            # Of one channel's matrix; Keras would take the channels for a receptive field.
            initializer=keras.initializers.RandomNormal(stddev=(height * width) ** -0.5),
        )
        self.built = True

    def call(self, maps):
        channels = maps.shape[-1]
        flat = tf.reshape(maps, [tf.shape(maps)[0], -1, channels])
        kernel = tf.cast(tf.convert_to_tensor(self.kernel), flat.dtype)
        mixed = tf.einsum("bic,cij->bjc", flat, kernel)
        return tf.reshape(mixed, [-1, self.side, self.side, channels])


def critic(size, channels):
    """Images [B, size, size, 3] in [-1, 1] -> logit [B, 1]; DCGAN's discriminator."""
    x = image = keras.Input([size, size, 3])
    for i, filters in enumerate(channels):
        x = keras.layers.Conv2D(filters, 4, 2, "same", use_bias=not i)(x)
        x = BatchNormalization()(x) if i else x
        x = keras.layers.LeakyReLU(0.2)(x)
    return keras.Model(image, keras.layers.Dense(1)(keras.layers.Flatten()(x)), name="critic")


class ContextEncoder(Adversarial):
    """The paper's network for features: the encoder's last map, a channel-wise layer, a decoder.

    Args:
        encoder: its last tap must be a map; this tap alone sees the hole's surroundings.
        size: side of the images.
        paint: side of what is painted, `size` / 2 or `size`.
        overlap: width of the ring of it that is seen, and weighs RING times as much.
        share: of the critic's part in the objective; the squared error has the rest.
        channels: of decoder and critic, from the image inwards.
    """

    def __init__(self, encoder, size=128, paint=64, overlap=4, share=0.001, channels=CHANNELS):
        super().__init__(encoder)
        self.trunk = trunk(encoder, "context_encoder")
        maps = self.trunk.compute_output_shape([None, size, size, 3])[1:]
        side = paint // 2 ** len(channels)
        self.decoder = decoder((side, side, maps[-1]), paint, channels)
        self.across = ChannelwiseDense(maps, side, name="across")
        self.critic = critic(paint, channels)
        self.share = share
        self.ring = 1 + (RING - 1) * (1 - tf.cast(square(paint, overlap), tf.float32))
        self.painting_loss = keras.metrics.Mean(name="painting_loss")

    def paint(self, images, training=False):
        """Images with a hole -> the painting, float32 in [-1, 1]."""
        across = self.across(self.trunk(images, training=training))
        return tf.tanh(float32(self.decoder(across, training=training)))

    def call(self, x, training=False):
        painting = self.paint(x["image"], training)
        real, fake = self.shown(x, painting)
        # Two calls, so that batch norm sees real and painted apart.
        return {
            "painting": painting,
            "real": self.critic(real, training=training),
            "fake": self.critic(fake, training=training),
        }

    def shown(self, x, painting):
        """What the critic sees: the true and the painted middle, and nothing around them."""
        return 2 * x["target"] - 1, painting

    def objective(self, x, y, outputs):
        error = self.painting_error(x, outputs["painting"])
        self.painting_loss.update_state(error)
        fooling = adversarial.generator(outputs["fake"])
        return (1 - self.share) * error + self.share * fooling

    def painting_error(self, x, painting):
        """Squared error in units of [-1, 1], a mean over the target; the ring counts RING times.

        The released code weighs the ring's gradient alone and reports the plain mean.
        """
        return tf.reduce_mean(self.ring * tf.math.squared_difference(painting, 2 * x["target"] - 1))

    def critique(self, x, y, outputs):
        return adversarial.discriminator(outputs["real"], outputs["fake"])


def compiled(model, dataset, epochs, learning_rate, critic_learning_rate):
    """The run with two Adams, which step at once; the released code's critic steps first.

    The biases that it holds at 0 are mostly not there.
    """
    model.compile(*(keras.optimizers.Adam(r, 0.5) for r in (learning_rate, critic_learning_rate)))
    return Run(model, dataset, epochs)


def recipe(
    encoder="alexnet",
    data="tfds:imagenet2012",
    size=128,
    batch_size=64,
    epochs=500,
    learning_rate=2e-3,  # ten times the critic's
    critic_learning_rate=2e-4,
    overlap=4,
    share=0.001,
    channels=CHANNELS,
    area=(CROP, CROP),
    flip=0.5,
    seed=0,
):
    """The released train.lua; the flip is ours. For features the paper reconstructs: `share=0`."""
    paint = size // 2
    if size % 4 or 2 * overlap >= paint:
        raise BadInput(
            f"context_encoder paints {paint} of {size} px, {overlap} of them seen on each side: "
            "choose a size that is a multiple of 4, and a smaller overlap."
        )
    coarsest_side(size, 1 + len(channels))  # half of it is painted
    view = functools.partial(views, size=size, overlap=overlap, area=area, flip=flip)
    dataset = batching.train(load(data, keys=("image",)), view, batch_size, seed)
    model = ContextEncoder(encoders.get(encoder, size=size), size, paint, overlap, share, channels)
    return compiled(model, dataset, epochs, learning_rate, critic_learning_rate)


SMALL = dict(
    encoder="resnet9",
    data="world:n=4000",
    size=32,
    batch_size=64,
    epochs=2,
    overlap=1,
    channels=(64, 128),
    area=(0.5, 1.0),
)
