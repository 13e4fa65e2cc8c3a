"""Clips [B, T, H, W, 3] through the image functions: one draw a clip, or a frame where asked."""

import tensorflow as tf

from tfssl.pipelines.augment.image import (
    centre_crop,
    colour_jitter,
    contrastive_view,
    gaussian_blur,
    random_crop_with_padding,
    random_flip,
    random_greyscale,
    random_resized_crop,
    resize,
    rotate90,
    solarise,
    to_float,
)

# All of these take clips as they take images and draw once a clip.
__all__ = [
    "centre_crop",
    "colour_jitter",
    "contrastive_view",
    "differences",
    "each_frame",
    "gaussian_blur",
    "random_crop_with_padding",
    "random_flip",
    "random_greyscale",
    "random_resized_crop",
    "resize",
    "rotate90",
    "solarise",
    "to_float",
]


def each_frame(augment, frames, *args, seed, **kw):
    """`augment(images, *args, seed=seed, **kw)` with a draw of its own for every frame of a clip.

    For pretexts that must not be solved by what does not change in time (colour, position). Frames
    [B, T, H, W, 3] in, the same with the new height and width out.
    """
    frames = tf.convert_to_tensor(frames)
    shape = tf.shape(frames)
    known = None not in frames.shape[:2].as_list()
    images = tf.reshape(frames, tf.concat([[-1], shape[2:]], 0))
    images.set_shape([frames.shape[0] * frames.shape[1] if known else None, *frames.shape[2:]])
    images = augment(images, *args, seed=seed, **kw)
    result = tf.reshape(images, tf.concat([shape[:2], tf.shape(images)[1:]], 0))
    result.set_shape([*frames.shape[:2], *images.shape[1:]])
    return result


def differences(frames):
    """Each frame less the one before: float32 [B, T - 1, H, W, 3] in [-1, 1]."""
    frames = to_float(frames)
    return frames[:, 1:] - frames[:, :-1]
