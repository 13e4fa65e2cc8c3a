"""Find the places where an image's code was damaged, though a repair network hides them.

Paper: Self-Supervised Feature Learning by Learning to Spot Artifacts
Authors: Simon Jenni, Paolo Favaro
Venue: CVPR 2018
URL: https://arxiv.org/abs/1806.05024
Family: adversarial
"""

import functools

import keras
import tensorflow as tf

from tfssl import encoders
from tfssl.callbacks.first import TrainFirst
from tfssl.errors import BadInput
from tfssl.layers.decoders import coarsest_side
from tfssl.layers.generator import unnoticed
from tfssl.layers.normalisation import BatchNormalization
from tfssl.layers.repair import Repair, damaged, enlarged
from tfssl.method import Adversarial, Method, Run
from tfssl.objectives.classification import cross_entropy
from tfssl.objectives.reconstruction import squared_error
from tfssl.pipelines import batching, load
from tfssl.pipelines.augment.image import colour_jitter, random_resized_crop

FIDELITY = 30.0  # weight of squared errors in [-1, 1], of both networks that draw
PLACES = 0.1  # weight of the discriminator's map of places


def views(examples, seed, size=96, cells=6, keep=0.3, area=(0.333, 1.0), flip=0.5):
    """Two samples: "image" float32 [B, size, size, 3], a crop with other brightness (by a factor;
    the paper adds) and saturation; "kept" [B, cells, cells, 1], 1 with probability `keep`, or 0."""
    seeds = tf.random.split(seed, 3)
    image = random_resized_crop(
        examples["image"], size, seeds[0], area=area, aspect=(0.75, 1.33), flip=flip
    )
    image = colour_jitter(image, seeds[1], 32 / 255, 0.0, 0.5, 0.0, probability=1.0)
    shape = [tf.shape(image)[0], cells, cells, 1]
    kept = tf.random.stateless_uniform(shape, seeds[2]) < keep
    return {"image": image, "kept": tf.cast(kept, tf.float32)}


def convolve(x, filters, kernel, strides=1):
    x = keras.layers.Conv2D(filters, kernel, strides, "same", use_bias=False)(x)
    return keras.layers.LeakyReLU(0.2)(BatchNormalization(momentum=0.975)(x))


class Autoencoder(Method):
    """Images to a code of a few cells and back: what is frozen before the game begins.

    Args:
        size: side of the images, a multiple of 2 ** (len(channels) - 1).
        channels: of the maps from full size to the code; each has half the side of the one before.
    """

    def __init__(self, size, channels):
        cells = coarsest_side(size, len(channels) - 1)
        image = keras.Input([size, size, 3])
        x = convolve(2 * image - 1, channels[0], 3)
        for filters in channels[1:]:
            x = convolve(x, filters, 2, 2)
        super().__init__(keras.Model(image, x, name="code"))
        self.cells, self.stages = cells, []
        for filters in (*channels[-2::-1], 3):
            x = part = keras.Input(x.shape[1:])
            if x.shape[1] < size:
                x = keras.layers.UpSampling2D(interpolation="bilinear")(x)
                x = convolve(x, filters, 3)
            else:
                x = keras.layers.Conv2D(3, 3, padding="same", activation="tanh")(x)
            self.stages.append(keras.Model(part, x))

    def call(self, x, training=False):
        code = self.encoder(x["image"], training=training)
        return self.decode(code, training=training)

    def decode(self, code, before=None, training=False):
        """The image [B, size, size, 3] in [-1, 1]; `before(i, u)` is done ahead of each stage."""
        for i, stage in enumerate(self.stages):
            code = stage(before(i, code) if before else code, training=training)
        return code

    def objective(self, x, y, outputs):
        return FIDELITY * squared_error(outputs, 2 * x["image"] - 1)


class SpotArtifacts(Adversarial):
    """The encoder tells decoded images from damaged and repaired ones, and where the damage is.

    Args:
        encoder: the discriminator, published; its deepest tap must be a map.
        autoencoder: a trained `Autoencoder`, which nothing here changes; `ready` tells if it is.
        hidden: width of the layer between features and the two classes.
    """

    def __init__(self, encoder, autoencoder, hidden=4096, dropout=0.5, seed=0):
        super().__init__(encoder)
        self.autoencoder = autoencoder
        self.cells = autoencoder.cells
        self.repair = [Repair(part.input_shape[-1]) for part in autoencoder.stages]
        deepest = [encoder.output, *encoders.taps_of(encoder).values()][-1]
        if len(deepest.shape) != 4:
            raise BadInput(f"spot_artifacts needs an encoder of maps; {encoder.name} ends in none.")
        x = keras.layers.Dense(hidden, activation="relu")(encoder.output)
        x = keras.layers.Dropout(dropout, seed=seed)(x) if dropout else x
        places = keras.layers.Conv2D(1, 3, padding="same", name="places")(deepest)
        self.critic = keras.Model(encoder.input, [keras.layers.Dense(2)(x), places], name="critic")
        self.accuracy = keras.metrics.SparseCategoricalAccuracy(name="accuracy")
        self.ready = self.add_weight([], "zeros", "int32", trainable=False, name="ready")

    @property
    def player_variables(self):
        """The repair layers alone play against the critic."""
        return [v for layer in self.repair for v in layer.trainable_variables]

    def call(self, x, training=False):
        kept = x["kept"]
        code = self.autoencoder.encoder(x["image"], training=False)
        plain = self.autoencoder.decode(code)
        fake = self.autoencoder.decode(damaged(code, kept), lambda i, u: self.repair[i](u, kept))
        # Two calls, so that batch norm sees the two kinds apart.
        made = unnoticed(self.critic, fake / 2 + 0.5, training)
        real = self.critic(plain / 2 + 0.5, training=training)
        kinds, places = (tf.concat(pair, axis=0) for pair in zip(real, made))
        return {
            "repaired": fake,
            "kinds": kinds,  # [2B, 2], real ones first
            "places": tf.image.resize(places, [self.cells] * 2),  # [2B, cells, cells, 1]
        }

    def objective(self, x, y, outputs):
        """The repair layers': to be taken for real, and to leave undamaged places as they are."""
        _, fake = tf.split(outputs["kinds"], 2)
        fooled = cross_entropy(fake, tf.ones_like(fake[:, 0]))
        image = 2 * x["image"] - 1
        seen = enlarged(x["kept"], image.shape[1])
        return fooled + FIDELITY * squared_error(seen * outputs["repaired"], seen * image)

    def critique(self, x, y, outputs):
        whole = tf.ones_like(x["kept"])
        kinds = tf.concat([whole[:, 0, 0, 0], 0 * whole[:, 0, 0, 0]], axis=0)
        self.accuracy.update_state(kinds, outputs["kinds"])
        kept = tf.concat([whole, x["kept"]], axis=0)
        places = tf.nn.sigmoid_cross_entropy_with_logits(kept, outputs["places"])
        return cross_entropy(outputs["kinds"], kinds) + PLACES * tf.reduce_mean(places)


def recipe(
    encoder="alexnet",
    data="tfds:stl10/unlabelled",
    size=96,
    batch_size=128,
    epochs=500,
    learning_rate=3e-4,
    beta=0.5,
    weight_decay=5e-5,
    channels=(32, 64, 128, 256, 512),
    keep=0.3,
    autoencoder_steps=390_000,  # as many epochs
    hidden=4096,
    dropout=0.5,
    seed=0,
):
    """The released STL-10 run, sjenni/LearningToSpotArtifacts (section 4 of the paper).

    The autoencoder trains before the first epoch, no longer than the game itself. Our AlexNet ends
    in a mean over its last map, where the paper's fully connected layer sees all of it; weights
    decay apart from the gradient, and biases learn at the common rate.
    """
    autoencoder = Autoencoder(size, channels)
    view = functools.partial(views, size=size, cells=autoencoder.cells, keep=keep)
    dataset = batching.train(load(data, keys=("image",)), view, batch_size, seed)
    steps = round(dataset.steps * epochs)
    first = min(autoencoder_steps, steps)

    def adam(steps):
        rate = keras.optimizers.schedules.PolynomialDecay(learning_rate, max(1, steps), 0.0)
        return keras.optimizers.Adam(rate, beta, weight_decay=weight_decay)

    autoencoder.compile(adam(first))
    model = SpotArtifacts(encoders.get(encoder, size=size), autoencoder, hidden, dropout, seed)
    model.compile(adam(steps), adam(steps))
    return Run(model, dataset, epochs, [TrainFirst("autoencoder", dataset, first)])


SMALL = dict(
    encoder="resnet9",
    data="digits",
    size=32,
    batch_size=64,
    epochs=10,
    learning_rate=1e-3,
    channels=(16, 32, 64, 128),
    keep=0.5,
    autoencoder_steps=300,
    hidden=256,
    dropout=0.0,
)
