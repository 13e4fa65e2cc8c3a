"""The field's known shortcuts, each to be switched on alone: what a pretext can cheat with."""

import numpy as np

WATERMARK_STRENGTH = 0.6
BLACK_NOISE = 6  # the frame's grey values are 0..5 of 255, as compression leaves them
CANVAS = 64  # the side of pictures in whose pixels the mark is drawn
# A small "tf" in a box, drawn once for all: 1 is bright.
_MARK = np.array(
    [
        [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1],
        [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
        [1, 0, 1, 1, 1, 0, 1, 1, 1, 0, 1],
        [1, 0, 0, 1, 0, 0, 1, 0, 0, 0, 1],
        [1, 0, 0, 1, 0, 0, 1, 1, 0, 0, 1],
        [1, 0, 0, 1, 0, 0, 1, 0, 0, 0, 1],
        [1, 0, 0, 1, 0, 0, 1, 0, 0, 0, 1],
        [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
        [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1],
    ],
    np.float32,
)
MARK_SHARE = (max(_MARK.shape) + 1) / CANVAS  # of the side: as far as the mark reaches inwards


def _blend(size, factor):
    """First neighbours and second ones' weights of bilinear sampling, magnified by `factor`."""
    middle = (size - 1) / 2
    at = np.clip((np.arange(size) - middle) / factor + middle, 0, size - 1)
    first = np.minimum(np.floor(at).astype(np.int64), size - 2)
    return first, (at - first).astype(np.float32)


def aberration(images, amount):
    """Lateral chromatic aberration: red and blue magnified by 1 + amount about the centre, green
    kept; uint8 [V, H, W, 3] in and out."""
    size = images.shape[1]
    first, weight = _blend(size, 1 + amount)
    out = images.copy()
    for channel in (0, 2):
        plane = images[..., channel].astype(np.float32)
        rows = plane[:, first] * (1 - weight)[:, None] + plane[:, first + 1] * weight[:, None]
        plane = rows[:, :, first] * (1 - weight) + rows[:, :, first + 1] * weight
        out[..., channel] = np.rint(plane)
    return out


def black_frame(images, share, keys):
    """A black border as wide as `share` of the side, with faint noise that each view draws anew."""
    size = images.shape[1]
    width = max(1, round(share * size))
    border = np.ones((size, size), bool)
    border[width : size - width, width : size - width] = False
    out = images.copy()
    for view, key in enumerate(keys):
        noise = np.random.Generator(np.random.Philox(key=key)).integers(
            0, BLACK_NOISE, (size, size), np.uint8
        )
        out[view][border] = noise[border][:, None]
    return out


def watermark(images):
    """The same faint mark in the lower right corner of every view, as large a share of any side."""
    keeps, adds = mark(images.shape[1])
    return np.rint(keeps * images + 255 * adds).astype(np.uint8)


def mark(size):
    """(keeps, adds), float32 [size, size, 1]: of pixels p in [0, 1] the mark makes keeps p + adds.

    It is drawn in pixels of 64 px, and their means over areas are those of other sizes.
    """
    rows, columns = (slice(CANVAS - 1 - length, CANVAS - 1) for length in _MARK.shape)
    bright, alpha = np.zeros((2, CANVAS, CANVAS), np.float32)
    bright[rows, columns] = _MARK
    alpha[rows, columns] = WATERMARK_STRENGTH * (0.25 + 0.75 * _MARK)
    ends = np.arange(size + 1) * CANVAS / size  # of the pixels, on the canvas
    there = np.arange(CANVAS)
    shared = np.minimum(ends[1:, None], there + 1) - np.maximum(ends[:-1, None], there)
    means = (np.maximum(shared, 0) * size / CANVAS).astype(np.float32)
    return tuple((means @ each @ means.T)[..., None] for each in (1 - alpha, bright * alpha))
