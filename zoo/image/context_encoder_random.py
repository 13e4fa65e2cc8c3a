"""Paint regions of any shape that are missing from an image, anywhere in it.

Paper: Context Encoders: Feature Learning by Inpainting
Authors: Deepak Pathak, Philipp Krähenbühl, Jeff Donahue, Trevor Darrell, Alexei A. Efros
Venue: CVPR 2016
URL: https://arxiv.org/abs/1604.07379
Family: pretext-generative
"""

import functools

import tensorflow as tf

from tfssl import encoders
from tfssl.errors import BadInput
from tfssl.objectives.numerics import float32
from tfssl.objectives.reconstruction import masked_mean
from tfssl.pipelines import batching, load
from tfssl.pipelines.augment.image import random_resized_crop
from tfssl.zoo.image import context_encoder
from tfssl.zoo.image.context_encoder import CROP, FILL, ContextEncoder, compiled

CELL = 1 / (0.06 * 128)  # of the side: a point of the coarse noise (the released code at 128 px)
COARSE = 10  # points of the coarse noise, of which a window of about 8 is seen
HIDDEN = 0.25  # share of the pixels
BLOCKS, BLOCK = 4, (0.125, 0.25)  # blocks an image, and their sides as shares of its own


def views(examples, seed, size=128, pattern="regions", area=(CROP, CROP), flip=0.5):
    """A crop with holes, the crop, and where the holes are.

    Returns:
        dict of "image", whose holes are FILL, and "target", without holes, float32
        [B, size, size, 3] in [0, 1]; "hidden" float32 [B, size, size, 1], 1 in the holes.

    `pattern`: "regions", blots of a quarter of the image, or "blocks", squares that may overlap,
    of up to a quarter in all (section 3.3).
    """
    seeds = tf.random.split(seed, 2)
    crops = random_resized_crop(examples["image"], size, seeds[0], area, (1.0, 1.0), flip)
    if pattern not in PATTERNS:
        raise BadInput(f"pattern={pattern!r}: there are {' and '.join(PATTERNS)}.")
    hidden = PATTERNS[pattern](tf.shape(crops)[0], size, seeds[1])
    return {"image": tf.where(hidden, FILL, crops), "target": crops, "hidden": float32(hidden)}


def regions(batch, size, seed):
    """Blots: the lowest quarter of smooth noise, bool [batch, size, size, 1].

    Coarse uniform noise, enlarged bicubically, seen through a window that is drawn once a batch.
    The released code cuts at a fixed level and draws again until 20 to 30 % are hidden; here each
    image has a level of its own, so that it always is a quarter.
    """
    seeds = tf.random.split(seed, 2)
    noise = tf.random.stateless_uniform([batch, COARSE, COARSE, 1], seeds[0])
    side = round(COARSE * CELL * size)
    noise = tf.image.resize(noise, [side, side], "bicubic")
    corner = tf.random.stateless_uniform([2], seeds[1], 0, side - size + 1, tf.int32)
    noise = noise[:, corner[0] : corner[0] + size, corner[1] : corner[1] + size]
    flat = tf.sort(tf.reshape(noise, [batch, size * size]), axis=1)
    level = flat[:, round(HIDDEN * size * size)]
    return tf.ensure_shape(noise < level[:, None, None, None], [None, size, size, 1])


def blocks(batch, size, seed):
    """Four squares an image that may overlap, bool [batch, size, size, 1]: at most a quarter."""
    u = tf.random.stateless_uniform([3, batch, BLOCKS], seed)
    side = tf.round((BLOCK[0] + u[0] * (BLOCK[1] - BLOCK[0])) * size)
    corners = tf.floor(u[1:] * (size - side + 1))  # [2, B, BLOCKS]
    at = tf.range(size, dtype=tf.float32)
    since = at - corners[..., None]  # [2, B, BLOCKS, size]
    inside = (since >= 0) & (since < side[..., None])
    covered = inside[0][..., :, None] & inside[1][..., None, :]
    return tf.reduce_any(covered, axis=1)[..., None]


PATTERNS = {"regions": regions, "blocks": blocks}


class ContextEncoderRandom(ContextEncoder):
    """The output is the whole image; only what was hidden is compared.

    The critic is shown the image with its holes painted, and true images. A hole in the middle
    teaches its own border; these have no place of their own, so features come out better.

    Args:
        encoder, size, share, channels: as `ContextEncoder` has them.
    """

    def __init__(self, encoder, size=128, share=0.001, channels=(64, 128, 256, 512, 512)):
        super().__init__(encoder, size, size, 0, share, channels)

    def shown(self, x, painting):
        true = 2 * x["target"] - 1
        return true, true + x["hidden"] * (painting - true)

    def painting_error(self, x, painting):
        error = tf.math.squared_difference(painting, 2 * x["target"] - 1)
        return masked_mean(error, x["hidden"])


def recipe(
    encoder="alexnet",
    data="tfds:imagenet2012",
    size=128,
    batch_size=64,
    epochs=500,
    learning_rate=2e-3,  # ten times the critic's
    critic_learning_rate=2e-4,
    pattern="regions",
    share=0.001,
    channels=(64, 128, 256, 512, 512),
    area=(CROP, CROP),
    flip=0.5,
    seed=0,
):
    """The released train_random.lua with the paper's network for features; the flip is ours."""
    view = functools.partial(views, size=size, pattern=pattern, area=area, flip=flip)
    dataset = batching.train(load(data, keys=("image",)), view, batch_size, seed)
    model = ContextEncoderRandom(encoders.get(encoder, size=size), size, share, channels)
    return compiled(model, dataset, epochs, learning_rate, critic_learning_rate)


SMALL = {k: v for k, v in context_encoder.SMALL.items() if k != "overlap"}
SMALL["channels"] = (32, 64, 128)
