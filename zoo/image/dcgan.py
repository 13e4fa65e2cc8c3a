"""Tell photographs from pictures that a second network makes of noise to be taken for them.

Paper: Unsupervised Representation Learning with Deep Convolutional Generative Adversarial Networks
Authors: Alec Radford, Luke Metz, Soumith Chintala
Venue: ICLR 2016
URL: https://arxiv.org/abs/1511.06434
Family: adversarial
"""

import functools

import keras
import tensorflow as tf

from tfssl import encoders
from tfssl.layers.generator import generator, normal, strided, unnoticed
from tfssl.method import Adversarial, Run
from tfssl.objectives import adversarial
from tfssl.pipelines import batching, load
from tfssl.pipelines.sample.noise import image_and_noise

GRID = 4  # every map is pooled to 4 x 4 (section 5.1)


def views(examples, seed, size=64, width=100, area=(1.0, 1.0), flip=0.0):
    """Two samples: "image" float32 [B, size, size, 3], the middle of each image (nothing else is
    done to it), and "noise" [B, width], uniform in [-1, 1] (section 4)."""
    uniform = functools.partial(tf.random.stateless_uniform, minval=-1.0, maxval=1.0)
    return image_and_noise(examples["image"], seed, size, width, area, flip, uniform)


def trunk(size=64, channels=(128, 256, 512, 1024), kernel=5):
    """The discriminator without its logit: images [B, size, size, 3] in [0, 1] -> features.

    Features are all maps, max-pooled to a grid of 4 x 4 and concatenated: 16 x sum(channels)
    values (section 5.1). Taps: c1, c2, ..., each half the side of the one before.
    """
    image = keras.Input([size, size, 3], name="image")
    x = keras.layers.Rescaling(2.0, -1.0, name="normalise")(image)
    x = strided(x, channels, kernel)
    maps = encoders.taps_of(keras.Model(image, x)).values()
    pooled = []
    for map_ in maps:
        window = -(-map_.shape[1] // GRID)
        if window > 1:
            map_ = keras.layers.MaxPooling2D(window, padding="same")(map_)
        pooled.append(keras.layers.Flatten()(map_))
    pooled = keras.layers.Concatenate(name="pool")(pooled) if len(pooled) > 1 else pooled[0]
    return keras.Model(image, pooled, name="discriminator")


class DCGAN(Adversarial):
    """A generator, and a discriminator that is one logit on the encoder.

    Both take their step after one forward pass; the paper's take turns.

    Args:
        encoder: `trunk`, whose deepest map the logit reads; or any other, by its features.
        size: side of the images, a multiple of 2 ** len(channels).
        width: of the noise.
        channels: of the generator's maps, from the finest to the coarsest.
        kernel: side of the generator's kernels.
    """

    def __init__(self, encoder, size=64, width=100, channels=(128, 256, 512, 1024), kernel=5):
        super().__init__(encoder)
        self.generator = generator(size, width, channels, kernel)
        deepest = [encoder.output, *encoders.taps_of(encoder).values()][-1]
        if None in deepest.shape[1:]:
            deepest = encoder.output
        logit = keras.layers.Dense(1, use_bias=False, kernel_initializer=normal(), name="logit")
        x = logit(keras.layers.Flatten()(deepest))
        self.critic = keras.Model(encoder.input, x, name="critic")

    def call(self, x, training=False):
        made = self.generator(x["noise"], training=training) / 2 + 0.5
        # Two calls, so that batch norm sees real and made images apart.
        fake = unnoticed(self.critic, made, training)
        real = self.critic(x["image"], training=training)
        return {"real": real, "fake": fake}

    def objective(self, x, y, outputs):
        return adversarial.generator(outputs["fake"])

    def critique(self, x, y, outputs):
        return adversarial.discriminator(outputs["real"], outputs["fake"])


def recipe(
    encoder="",
    data="tfds:celeb_a",
    size=64,
    batch_size=128,
    epochs=25,
    learning_rate=2e-4,
    beta=0.5,
    weight_decay=1e-5,
    width=100,
    channels=(128, 256, 512, 1024),
    kernel=5,
    area=(1.0, 1.0),
    flip=0.0,
    seed=0,
):
    """The released run on faces, Newmu/dcgan_code faces/train_uncond_dcgan.py (section 4).

    Without an `encoder` the discriminator follows the paper's rules. The released faces are not
    public; CelebA stands in for them. Weights decay apart from the gradient, as in AdamW.
    """
    view = functools.partial(views, size=size, width=width, area=area, flip=flip)
    dataset = batching.train(load(data, keys=("image",)), view, batch_size, seed)
    made = encoder or trunk(size, channels, kernel)
    model = DCGAN(encoders.get(made, size=size), size, width, channels, kernel)
    optimizer, critic_optimizer = (
        keras.optimizers.Adam(learning_rate, beta, weight_decay=weight_decay) for _ in range(2)
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
    kernel=4,
)
