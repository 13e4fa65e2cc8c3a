"""A crop of each image, and the noise of which a generator makes others."""

import tensorflow as tf

from tfssl.pipelines.augment.image import random_resized_crop


def image_and_noise(images, seed, size, width, area, flip, draw):
    """Two samples: "image" float32 [B, size, size, 3], a square crop, and "noise" [B, width].

    Args:
        images: uint8 [B, H, W, 3].
        area, flip: share of the image that is cut out, and how often it is mirrored.
        draw: function (shape, seed) -> noise.
    """
    seeds = tf.random.split(seed, 2)
    image = random_resized_crop(images, size, seeds[0], area=area, aspect=(1.0, 1.0), flip=flip)
    return {"image": image, "noise": draw([tf.shape(image)[0], width], seeds[1])}
