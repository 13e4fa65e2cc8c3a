"""Clips, ordered tuples and pairs of frames cut from videos, and the pure samplers behind them.

Frames are [B, T, H, W, 3] (any dtype, kept). A sampler maps (number of frames T, batch, seed) to
indices; `take` cuts them out. Where a video is shorter than what is asked, it is looped: index i
means frame i mod T, so shapes stay static and nothing is invented.
"""

import tensorflow as tf


def take(frames, indices):
    """Frames [B, T, ...] at `indices` int32 [B, ...]: [B, ..., H, W, 3]; indices loop over T."""
    frames = tf.convert_to_tensor(frames)
    looped = tf.math.floormod(indices, tf.shape(frames)[1])
    result = tf.gather(frames, looped, axis=1, batch_dims=1)
    result.set_shape([frames.shape[0], *indices.shape[1:], *frames.shape[2:]])
    return result


def _below(count, shape, seed):
    """Uniform integers in 0..count-1, zero where count is not positive."""
    count = tf.maximum(count, 1)
    u = tf.random.stateless_uniform(shape, seed) * tf.cast(count, tf.float32)
    return tf.minimum(tf.cast(u, tf.int32), count - 1)


def clip_indices(total, batch, seed, length, stride=1, count=1):
    """Indices [batch, count, length] of `count` clips with independent, uniform starts.

    Frames of a clip lie `stride` apart. Starts are such that the clip ends inside the video, and 0
    where it cannot.
    """
    start = _below(total - (length - 1) * stride, [batch, count, 1], seed)
    return start + tf.range(length) * stride


def ordered_indices(total, batch, seed, count):
    """Indices [batch, count] in rising order, every subset of the frames as likely as any other.

    A video of fewer than `count` frames gives all of its frames, in order, and then loops.
    """
    u = tf.random.stateless_uniform([batch, tf.maximum(total, count)], seed)
    # Frames beyond the video come last: they are the loop.
    late = tf.cast(tf.range(tf.maximum(total, count)) >= total, tf.float32)
    chosen = tf.argsort(u + late, axis=1)[:, :count]
    return tf.ensure_shape(tf.sort(chosen, axis=1), [None, count])


def pair_indices(total, batch, seed, nearest=1, furthest=1):
    """Indices [batch, 2] of an earlier and a later frame, `nearest` to `furthest` frames apart.

    The distance is uniform (and cut to what the video allows), then the first frame is uniform.
    """
    seeds = tf.random.split(seed, 2)
    most = tf.maximum(total - 1, nearest)
    distance = nearest + _below(tf.minimum(furthest, most) - nearest + 1, [batch], seeds[0])
    first = _below(total - distance, [batch], seeds[1])
    return tf.stack([first, first + distance], axis=1)


def _extent(frames):
    frames = tf.convert_to_tensor(frames)
    return frames, tf.shape(frames)[1], tf.shape(frames)[0]


def frame(frames, seed):
    """One frame of each video, uniformly: [B, H, W, 3]."""
    frames, total, batch = _extent(frames)
    return take(frames, _below(total, [batch], seed))


def clip(frames, seed, length, stride=1):
    """One clip of each video: [B, length, H, W, 3], frames `stride` apart, uniform start."""
    return clips(frames, seed, 1, length, stride)[:, 0]


def clips(frames, seed, count, length, stride=1):
    """`count` independent clips of each video, which may overlap: [B, count, length, H, W, 3]."""
    frames, total, batch = _extent(frames)
    indices = clip_indices(total, batch, seed, length, stride, count)
    return take(frames, tf.ensure_shape(indices, [None, count, length]))


def ordered_frames(frames, seed, count):
    """`count` different frames of each video in their order: [B, count, H, W, 3], int32 [B, count].

    The second result is their indices, for objectives that need the time.
    """
    frames, total, batch = _extent(frames)
    indices = ordered_indices(total, batch, seed, count)
    return take(frames, indices), indices


def frame_pair(frames, seed, nearest=1, furthest=1):
    """An earlier and a later frame: [B, 2, H, W, 3]; by default two consecutive ones."""
    frames, total, batch = _extent(frames)
    indices = pair_indices(total, batch, seed, nearest, furthest)
    return take(frames, tf.ensure_shape(indices, [None, 2]))
