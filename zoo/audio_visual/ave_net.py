"""Tell by one distance alone whether a frame and a second of sound belong together.

Paper: Objects that Sound
Authors: Relja Arandjelović, Andrew Zisserman
Venue: ECCV 2018
URL: https://arxiv.org/abs/1712.06651
Family: correspondence
"""

import functools
import math

import keras
import tensorflow as tf

from tfssl import encoders
from tfssl.encoders.audio import LogSpectrogram
from tfssl.encoders.image import normalise
from tfssl.errors import BadInput
from tfssl.layers.normalisation import BatchNormalization
from tfssl.method import Method, Run
from tfssl.objectives import replicas
from tfssl.objectives.contrastive import calibrated_pair, unit_distance
from tfssl.pipelines import batching, load
from tfssl.pipelines.augment.audio import gain
from tfssl.pipelines.augment.image import colour_jitter, crop
from tfssl.pipelines.sample.pairs import frame_and_sound

DECAY = keras.regularizers.L2(1e-5)
SCALE, SHIFT = (-2.0, 2.0), (2.0, -2.0)  # threshold at distance 1; near means "corresponds"


def views(examples, seed, size=224, seconds=1.0, sample_rate=16000, misalignment=1.0):
    """A frame, the sound around it, and whose sound shall be the wrong one.

    Returns:
        dict of `image` float32 [B, size, size, 3], `audio` float32 [B, seconds * sample_rate] and
        `other` float32 [B] in [0, 1), the draw that picks somebody else's sound from the batch.

    A wrong sound is somebody's right one, so all start on the same grid of 0.04 s, drawn by one law
    (section 3.2); up to `misalignment` seconds lie between a frame and its sound's middle. A square
    of 224 / 256 of the short side, flipped, brightness moved by up to 32 / 255, saturation by up to
    half; the sound's gain by up to a tenth.
    """
    seeds = tf.random.split(seed, 6)
    clips = (examples["frames"], examples["fps"], examples["audio"], sample_rate)
    when = dict(misalignment=misalignment, times=examples.get("frame_times"))  # if videos tell
    image, sound = frame_and_sound(*clips, seeds[0], seconds, **when)
    batch, extent = tf.shape(image)[0], tf.cast(tf.shape(image)[1:3], tf.float32)
    side = tf.fill([batch, 2], tf.reduce_min(extent) * 224 / 256)
    u = tf.random.stateless_uniform([batch, 4], seeds[1])
    boxes = tf.concat([u[:, :2] * (extent - side), side], axis=1)
    image = crop(image, boxes, size, flip=u[:, 2] < 0.5)
    image = colour_jitter(image, seeds[2], 0.0, 0.0, 0.5, 0.0, probability=1.0)
    shift = (2 * u[:, 3, None, None, None] - 1) * 32 / 255
    return {
        "image": tf.clip_by_value(image + shift, 0.0, 1.0),
        "audio": gain(sound, seeds[3]),
        "other": tf.random.stateless_uniform([batch], seeds[4]),
    }


def vision(width=64):
    """The paper's network of images: [B, H, W, 3] in [0, 1] -> [B, 8 width]; taps c1..c4."""
    image = keras.Input((None, None, 3), name="image")
    return keras.Model(image, _vgg(normalise(image), width, "same"), name="vision")


def hearing(width=64, sample_rate=48000):
    """Its network of sounds from 0.1 s: waveforms [B, N] -> [B, 8 width], by log-spectrogram."""
    sound = keras.Input((None,), name="audio")
    spectrogram = LogSpectrogram(sample_rate, window=0.01, hop=0.005, name="log_spectrogram")
    # Normalised as the released code of L3-Net has it: a spectrogram's mean is far from zero.
    x = BatchNormalization(name="normalise")(spectrogram(sound))
    return keras.Model(sound, _vgg(x, width, "valid"), name="hearing")  # 16 x 12 of 1 s


def _vgg(x, width, padding):
    """Four pairs of 3 x 3 convolutions, the first of stride 2 (section 3.1), and the maximum."""
    for i, factor in enumerate((1, 2, 4, 8), start=1):
        for j in (1, 2):
            x = keras.layers.Conv2D(
                factor * width,
                3,
                2 if i == j == 1 else 1,
                padding="same",
                use_bias=False,
                kernel_initializer="he_normal",
                kernel_regularizer=DECAY,
                name=f"stage_{i}_{j}_conv",
            )(x)
            x = BatchNormalization(name=f"stage_{i}_{j}_norm")(x)
            x = keras.layers.ReLU(name=f"c{i}" if j == 2 else f"stage_{i}_relu")(x)
        if i < 4:
            x = keras.layers.MaxPooling2D(2, padding=padding, name=f"stage_{i}_pool")(x)
    return keras.layers.GlobalMaxPooling2D(name="pool")(x)


def tower(encoder, dims=128):
    """An encoder, fc1, fc2 and L2 normalisation: its inputs -> unit vectors [B, dims]."""
    x = keras.layers.Dense(dims, "relu", kernel_regularizer=DECAY, name="fc1")(encoder.output)
    x = keras.layers.Dense(dims, kernel_regularizer=DECAY, name="fc2")(x)
    x = keras.layers.UnitNormalization(dtype="float32", name="embedding")(x)
    return keras.Model(encoder.input, x, name=encoder.name)


class AVENet(Method):
    """Two towers into one space; a two-way softmax sees nothing but the distance between them.

    Each frame is compared with its own sound and with another's: as many pairs belong together as
    do not, in every batch.

    Args:
        encoder, audio_encoder: images -> features and sounds -> features.
        dims: of the embeddings, which are what is published.
    """

    chance = math.log(2)

    def __init__(self, encoder, audio_encoder, dims=128):
        super().__init__(tower(encoder, dims))
        self.audio_encoder = tower(audio_encoder, dims)
        fc3 = {"shape": (2,), "dtype": "float32", "autocast": False}
        scale, shift = (keras.initializers.Constant(list(v)) for v in (SCALE, SHIFT))
        self.scale = self.add_weight(name="scale", initializer=scale, regularizer=DECAY, **fc3)
        self.shift = self.add_weight(name="shift", initializer=shift, **fc3)
        self.accuracy = keras.metrics.BinaryAccuracy(name="accuracy")

    @property
    def published(self):
        return {"encoder": self.encoder, "audio_encoder": self.audio_encoder}

    def call(self, x, training=False):
        return {
            "image": self.encoder(x["image"], training=training),
            "audio": self.audio_encoder(x["audio"], training=training),
        }

    def objective(self, x, y, outputs):
        image, audio = outputs["image"], outputs["audio"]  # [B, dims]
        sounds = replicas.gather(audio)
        everybody = tf.shape(sounds)[0]
        ahead = 1 + tf.cast(x["other"] * tf.cast(everybody - 1, tf.float32), tf.int32)
        whose = tf.one_hot((replicas.own_columns(audio) + ahead) % everybody, everybody)
        wrong = tf.matmul(whose, sounds)  # the gradient of `tf.gather` does not pass replicas
        images, sounds = tf.concat([image, image], 0), tf.concat([audio, wrong], 0)
        same = tf.repeat([1, 0], tf.shape(image)[0])
        self.accuracy.update_state(same[:, None], self.correspondence(images, sounds)[:, None])
        return calibrated_pair(images, sounds, same, self.scale, self.shift)

    def correspondence(self, images, sounds):
        """The probability [N] that embeddings [N, dims] of images and sounds belong together."""
        slope, offset = (w[0] - w[1] for w in map(tf.convert_to_tensor, (self.scale, self.shift)))
        return tf.sigmoid(slope * unit_distance(images, sounds) + offset)


def recipe(
    encoder="vision",  # the paper's, or any other name
    data="audioset_instruments",  # a folder of AudioSet's videos of instruments
    size=224,
    batch_size=1024,  # 2048 pairs
    epochs=200,
    learning_rate=1e-4,  # by grid search in the paper; this is L3-Net's
    width=64,
    dims=128,
    seconds=1.0,
    sample_rate=48000,
    misalignment=1.0,
    seed=0,
):
    """The paper's run (section 3), on 300 frames a video; the rate falls by 6 % every 16 epochs."""
    if batch_size < 2:
        raise BadInput("ave_net: batch_size must be 2 or more, or there is no other sound.")
    if seconds < 0.1 or sample_rate < 2000:
        raise BadInput("ave_net: seconds must be 0.1 or more, and sample_rate 2000 or more.")
    sound = dict(seconds=seconds, sample_rate=sample_rate, misalignment=misalignment)
    view = functools.partial(views, size=size, **sound)
    decoded = dict(short_side=round(size * 256 / 224), sample_rate=sample_rate)
    examples = load(data, keys=("frames", "fps", "audio"), **decoded)
    dataset = batching.train(examples, view, batch_size, seed)
    image = vision(width) if encoder == "vision" else encoders.get(encoder, size=size)
    model = AVENet(image, hearing(width, sample_rate), dims)
    rate = keras.optimizers.schedules.ExponentialDecay(
        learning_rate, 16 * dataset.steps, 0.94, staircase=True
    )
    model.compile(keras.optimizers.Adam(rate))
    return Run(model, dataset, epochs)


SMALL = dict(
    data="world:n=768",
    size=48,
    batch_size=32,
    epochs=8,
    learning_rate=1e-3,
    width=16,
    dims=64,
    sample_rate=16000,
    misalignment=0.0,  # clips of world are too short for it
)
