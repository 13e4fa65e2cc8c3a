"""The cues by which pretexts are known to be cheated: each can be put into any data, or taken out.

Every function takes images [B, H, W, 3] or clips [B, T, H, W, 3], bytes or floats in [0, 1], and
gives the same shape and type. Nothing but the cue is changed, so what a pretext gains by it, it
gains by the cue. Where something is drawn, `seeds` is int32 [B, 2], one an example: an example
looks the same in whatever batch it comes. The sizes of a cue are shares of the picture's side, so
that they mean the same at 32 and at 224 px.

`CUES` says of each cue what it is, how it gets in and out, and to which modalities it applies.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfssl.pipelines.augment.image import fold, for_frames, to_float, unfold
from tfssl.pipelines.sources.world import shortcuts

NOISE = shortcuts.BLACK_NOISE / 255  # of a black frame: grey values below this
FRAME = 1 / 8  # of the side, black at the top and at the bottom
GREEN = 1


def aberration(images, amount):
    """Red and blue magnified by 1 + `amount` about the centre, green kept: a simple lens.

    The lateral chromatic aberration of Doersch et al. (ICCV 2015, section 3.1). At a corner of a
    picture of 64 px, 0.05 is a shift of 1.6 px each way.
    """

    def magnify(pixels):
        height, width = pixels.shape[1:3]
        rows, columns = _magnifying(height, 1 + amount), _magnifying(width, 1 + amount)
        return tf.einsum("yi,bijc,xj->byxc", rows, pixels, columns)

    def spread(pixels):
        coloured = magnify(tf.stack([pixels[..., 0], pixels[..., 2]], axis=-1))
        return tf.stack([coloured[..., 0], pixels[..., GREEN], coloured[..., 1]], axis=-1)

    return _changed(images, spread)


def one_channel(images):
    """Green in all three channels: where no two colours are, none can lie beside another."""
    return _changed(images, lambda p: tf.repeat(p[..., GREEN : GREEN + 1], 3, axis=-1))


def border(images, share):
    """A white line along the lower edge, `share` of the height wide: scans and screens have it."""

    def drawn(pixels):
        height = pixels.shape[1]
        rows = tf.range(height) >= height - max(1, round(share * height))
        return tf.where(rows[:, None, None], 1.0, pixels)

    return _changed(images, drawn)


def jpeg_grid(images, quality):
    """Compressed as JPEG and decoded: blocks of 8 px, counted from the upper left corner."""

    def compressed(pixels):
        coded = tf.map_fn(lambda p: tf.image.adjust_jpeg_quality(p, int(quality)), pixels)
        return tf.ensure_shape(coded, pixels.shape)

    return _changed(images, compressed)


def resampled(images, seeds, most=0.3):
    """Every example seen through a window of its own, 1 - `most` to 1 - `most` / 3 of the side.

    A grid of blocks has neither its old period nor its old place then.
    """
    u = _uniform(seeds, [3])
    side = 1 - most / 3 - u[:, :1] * most * 2 / 3
    return _through(images, tf.concat([u[:, 1:] * (1 - side), side, side], axis=1))


def coarse_rows(images, factor):
    """Lines thrown away and interpolated again, as in deinterlaced or anamorphic video."""
    return _changed(images, lambda p: _coarse(p, factor, 1))


def coarse_columns(images, factor):
    """The same along the other axis; after both no direction is sharper than the other."""
    return _changed(images, lambda p: _coarse(p, factor, 2))


def watermark(images, strength):
    """The mark of `world` in the lower right corner, at `strength` of its weight there."""

    def marked(pixels):
        height, width = pixels.shape[1:3]
        side = min(height, width)
        keeps, adds = (np.ones([height, width, 1], "f"), np.zeros([height, width, 1], "f"))
        keeps[height - side :, width - side :], adds[height - side :, width - side :] = (
            shortcuts.mark(side)
        )
        return pixels + strength * (keeps * pixels + adds - pixels)

    return _changed(images, marked)


def black_frame(images, seeds, share):
    """Black bars at the top and the bottom, `share` of the height each, with faint noise.

    The noise has the grey values that compression leaves (0 to 5 of 255), new in every frame, and
    becomes less from the first frame of a clip to the last, as between two key frames (Wei et al.,
    CVPR 2018, section 2.1: black framing tells the arrow of time).
    """
    images = tf.convert_to_tensor(images)
    *frames, height, width, _ = images.shape[1:]
    time = np.linspace(1.0, 0.0, *frames) if frames else np.ones(())
    noise = _uniform(seeds, [*frames, height, width, 1]) * NOISE
    noise *= tf.constant(time.reshape(*frames, 1, 1, 1), tf.float32)
    wide = max(1, round(share * height))
    rows = tf.range(height)
    inside = (rows >= wide) & (rows < height - wide)
    return _like(tf.where(inside[:, None, None], to_float(images), noise), images)


def without_margin(images, share):
    """The middle, `share` of the side left out on all four sides, enlarged to the old size."""
    box = [share, share, 1 - 2 * share, 1 - 2 * share]
    images = tf.convert_to_tensor(images)
    return _through(images, tf.tile([box], [tf.shape(images)[0], 1]))


def tint(images, seeds, strength):
    """Each example in a light of its own: every channel times a number of 1 - strength to 1.

    All crops of an image share the colours of its light, so they can be told by those alone
    (Chen et al., ICML 2020, section 3.1: the histograms of pixel intensities).
    """
    gains = 1 - strength * _uniform(seeds, [3])
    images = tf.convert_to_tensor(images)
    gains = tf.reshape(gains, [-1, *[1] * (images.shape.rank - 2), 3])
    return _like(to_float(images) * gains, images)


def standard_colours(images):
    """Each channel of each example with mean 1/2 and deviation 1/5, whatever the light was."""
    images = tf.convert_to_tensor(images)
    pixels, axes = to_float(images), list(range(1, images.shape.rank - 1))
    mean, variance = tf.nn.moments(pixels, axes, keepdims=True)
    return _like(0.5 + 0.2 * (pixels - mean) * tf.math.rsqrt(variance + 1e-6), images)


def zoom(frames, amount):
    """The camera moves in: frame t of T is magnified by exp(amount t / (T - 1))."""
    return _through(frames, _zoomed(-amount * _time(frames)))


def any_zoom(frames, seeds, amount):
    """After `zoom`: half of the clips, by lot, move out instead; the range of sizes is one."""
    out = _uniform(seeds, [1]) < 0.5
    return _through(frames, _zoomed(-amount * tf.where(out, 2 * (1 - _time(frames)), 1.0)))


def tilt(frames, amount):
    """The camera tilts down: the window slides by `amount` of the height in a clip."""
    return _through(frames, _tilted(amount, amount * _time(frames)))


def any_tilt(frames, seeds, amount):
    """After `tilt`: half of the clips, by lot, tilt up instead, over the same range of places."""
    up = _uniform(seeds, [1]) < 0.5
    less = 2 * amount / (1 - amount)  # of the window that `tilt` left
    return _through(frames, _tilted(less, less * tf.where(up, 1 - _time(frames), 0.5)))


def sound_offset(audio, sample_rate, seconds):
    """Sound [B, N] that comes `seconds` late (early, if negative), as a muxer's delay makes it.

    What is moved in is silence, what is moved out is lost. `sample_rate` is [B].
    """
    length = tf.shape(audio)[1]
    late = tf.cast(tf.round(seconds * tf.cast(sample_rate, tf.float32)), tf.int32)
    at = tf.range(length) - tf.reshape(late, [-1, 1])
    inside = (at >= 0) & (at < length)
    moved = tf.gather(audio, tf.clip_by_value(at, 0, length - 1), axis=1, batch_dims=1)
    return tf.where(inside, moved, tf.zeros_like(moved))


def texture(seeds, height, width, frames=()):
    """Grey noise of one statistic everywhere, uint8 [B, (T,) height, width, 3]: no content at all.

    Neighbours are alike over about a pixel, so patches with a gap know nothing of each other, and
    no direction is preferred. A clip shows one picture standing still.
    """
    noise = _normal(seeds, [height + 4, width + 4])
    taps = tf.exp(-0.5 * tf.square(tf.range(-2, 3, dtype=tf.float32)))
    kernel = tf.reshape(taps[:, None] * taps[None], [5, 5, 1, 1])
    kernel /= tf.norm(kernel)  # the variance stays 1
    smooth = tf.nn.conv2d(noise[..., None], kernel, 1, "VALID")
    grey = tf.clip_by_value(0.5 + 0.2 * smooth, 0.0, 1.0)
    picture = tf.cast(tf.round(255 * tf.repeat(grey, 3, axis=-1)), tf.uint8)
    if not frames:
        return picture
    return tf.tile(picture[:, None], [1, *frames, 1, 1, 1])


class Cue(NamedTuple):
    """What is known of a cue.

    `put` and `remove` are f(values, seeds, strength) on images, clips, or (sound, sample rate);
    `remove` takes what `put` gave. Both are None where only a method's own views can let the cue in
    (the gap between patches).
    """

    meaning: str
    keys: tuple  # of an example: all of those that are there are changed
    rooms: tuple  # modalities of the methods that it may help
    strength: float = 0.0
    least: float = 0.0
    most: float = 0.0
    put: Callable | None = None
    remove: Callable | None = None
    remedy: str = ""


PICTURES = ("image", "image_right", "frames", "frames_right")
CLIPS = ("frames", "frames_right")
SEEING = ("image", "video", "geometry", "audio_visual", "video_text")
MOVING = ("video", "geometry", "audio_visual", "video_text")

CUES = {
    "aberration": Cue(
        "red and blue magnified by 1 + this about the centre", PICTURES, SEEING,
        0.05, -0.2, 0.2,
        lambda x, seeds, amount: aberration(x, amount),
        lambda x, seeds, amount: one_channel(x), "one channel only",
    ),
    "border": Cue(
        "a white line along the lower edge, this share of the height", PICTURES, SEEING,
        1 / 32, 1e-3, 0.3,
        lambda x, seeds, share: border(x, share),
        lambda x, seeds, share: without_margin(x, _whole(share, x)), "cropped",
    ),
    "gap": Cue("patches touch, so that lines run on from one into the next", (), ("image",)),
    "jpeg": Cue(
        "JPEG blocks of 8 px at this quality, counted from the corner", PICTURES, SEEING,
        15, 1, 100,
        lambda x, seeds, quality: jpeg_grid(x, quality),
        lambda x, seeds, quality: resampled(x, seeds), "a random window",
    ),
    "resize": Cue(
        "rows shrunk by this factor and enlarged again", PICTURES, SEEING,
        2, 1, 8,
        lambda x, seeds, factor: coarse_rows(x, factor),
        lambda x, seeds, factor: coarse_columns(x, factor), "columns too",
    ),
    "watermark": Cue(
        "a mark in the lower right corner, at this strength", PICTURES, SEEING,
        1, 0, 1,
        lambda x, seeds, strength: watermark(x, strength),
        lambda x, seeds, strength: without_margin(x, _corner(x)), "cropped",
    ),
    "black_frame": Cue(
        "black bars of this share of the height, with faint noise", PICTURES, SEEING,
        FRAME, 1e-3, 0.4,
        black_frame,
        lambda x, seeds, share: without_margin(x, _whole(share, x)), "cropped",
    ),
    "colour": Cue(
        "a light of its own on each example, channels down to 1 - this", PICTURES, SEEING,
        0.6, 0, 0.95,
        tint,
        lambda x, seeds, strength: standard_colours(x), "standardised colours",
    ),
    "zoom": Cue(
        "the camera moves in: log of the magnification in a clip", CLIPS, MOVING,
        0.3, -1, 1,
        lambda x, seeds, amount: zoom(x, amount), any_zoom, "in and out by lot",
    ),
    "tilt": Cue(
        "the camera tilts down by this share of the height in a clip", CLIPS, MOVING,
        0.15, 0, 0.3,
        lambda x, seeds, amount: tilt(x, amount), any_tilt, "up and down by lot",
    ),
    "sound_offset": Cue(
        "the sound comes this many seconds late", ("audio",), ("audio_visual",),
        0.2, -5, 5,
        lambda x, seeds, seconds: sound_offset(*x, seconds),
        lambda x, seeds, seconds: sound_offset(*x, -seconds), "moved back",
    ),
}  # fmt: skip


def applying(room, known=None):
    """The names of the cues that may help methods of a modality; `known` keys limit them."""
    return [
        name
        for name, cue in CUES.items()
        if room in cue.rooms and (known is None or not cue.keys or set(cue.keys) & set(known))
    ]


def changed(examples, change, strength, seed=0):
    """A batch of examples (dict) with `change`, a cue's `put` or `remove`, done to all `keys`.

    `change` is (keys, function). Draws follow `seed` and each example's `index`.
    """
    keys, function = change
    number = examples["index"]
    seeds = tf.map_fn(
        lambda i: tf.random.experimental.stateless_fold_in(tf.constant([seed, 0xC0E]), i),
        tf.cast(number, tf.int32),
    )
    seeds = tf.ensure_shape(seeds, [None, 2])
    out = dict(examples)
    for key in keys:
        if key == "audio" and key in examples:
            out[key] = function((examples[key], examples["sample_rate"]), seeds, strength)
        elif key in examples:
            out[key] = function(examples[key], seeds, strength)
    return out


def _changed(images, function):
    """`function` of float pixels [N, H, W, 3] on images or clips of any type."""
    images = tf.convert_to_tensor(images)
    return _like(unfold(function(fold(to_float(images))[0]), images), images)


def _like(pixels, images):
    """Floats in [0, 1] in the type of `images`, rounded where that is a whole number."""
    pixels = tf.clip_by_value(pixels, 0.0, 1.0)
    if images.dtype.is_integer:
        pixels = tf.round(pixels * float(images.dtype.max))
    return tf.cast(tf.ensure_shape(pixels, images.shape), images.dtype)


def _magnifying(length, factor):
    """Bilinear magnification about the centre as a matrix [length, length]."""
    middle = (length - 1) / 2
    at = np.clip((np.arange(length) - middle) / factor + middle, 0, length - 1)
    return np.maximum(0, 1 - np.abs(at[:, None] - np.arange(length))).astype(np.float32)


def _coarse(pixels, factor, axis):
    extent = list(pixels.shape[1:3])
    small = list(extent)
    small[axis - 1] = max(1, round(extent[axis - 1] / factor))
    return tf.image.resize(tf.image.resize(pixels, small, antialias=True), extent)


def _through(images, windows):
    """Seen through windows [N, 4] (top, left, height, width in shares), enlarged to the old size.

    One window an example, or one a frame. Bilinear at pixel centres; nothing outside is read.
    """
    images = tf.convert_to_tensor(images)
    pixels, frames = fold(to_float(images))
    if windows.shape.rank == 3:
        windows = tf.broadcast_to(windows, [tf.shape(images)[0], *windows.shape[1:]])
        windows = tf.reshape(windows, [-1, 4])
    else:
        windows = for_frames(windows, frames)
    extent = tf.constant(pixels.shape[1:3].as_list(), tf.float32)
    start, length = windows[:, :2] * extent, windows[:, 2:] * extent
    half = 0.5 * length / extent - 0.5
    first = tf.clip_by_value(start + half, 0.0, extent - 1)
    last = tf.clip_by_value(start + length - 1 - half, 0.0, extent - 1)
    # A hair inside: what lies outside by a rounding error would be painted black.
    between = tf.tile(tf.maximum(extent - 1, 1), [2])
    ends = tf.concat([first, last], 1) / between * (1 - 1e-6)
    seen = tf.image.crop_and_resize(
        pixels, ends, tf.range(tf.shape(pixels)[0]), pixels.shape[1:3].as_list()
    )
    return _like(unfold(seen, images), images)


def _time(frames):
    """0 to 1 over the frames of a clip: [1, T]."""
    return tf.linspace(0.0, 1.0, tf.convert_to_tensor(frames).shape[1])[None]


def _zoomed(log_side):
    """Central windows [B, T, 4] of sides exp(log_side [B, T])."""
    side = tf.exp(log_side)
    corner = (1 - side) / 2
    return tf.stack([corner, corner, side, side], axis=-1)


def _tilted(less, top):
    """Windows [B, T, 4] of a side 1 - less, at `top` [B, T] and in the middle."""
    left, side = less / 2 + 0 * top, 1 - less + 0 * top
    return tf.stack([top, left, side, side], axis=-1)


def _whole(share, images):
    """The share of the height that what was drawn in whole pixels really covers, and a half pixel
    more, which bilinear sampling would mix in."""
    height = tf.convert_to_tensor(images).shape[-3]
    return (max(1, round(share * height)) + 0.5) / height


def _corner(images):
    """The share of the shorter side that must go to be rid of the mark: whole pixels, and a half
    pixel more."""
    side = min(tf.convert_to_tensor(images).shape[-3:-1])
    return (math.ceil(shortcuts.MARK_SHARE * side) + 0.5) / side


def _uniform(seeds, shape):
    """A draw an example: [B, *shape] in [0, 1)."""
    draw = tf.map_fn(
        lambda seed: tf.random.stateless_uniform(shape, seed), seeds, fn_output_signature=tf.float32
    )
    return tf.ensure_shape(draw, [None, *shape])


def _normal(seeds, shape):
    draw = tf.map_fn(
        lambda seed: tf.random.stateless_normal(shape, seed), seeds, fn_output_signature=tf.float32
    )
    return tf.ensure_shape(draw, [None, *shape])
