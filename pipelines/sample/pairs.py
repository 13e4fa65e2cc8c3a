"""Frames with the sound that belongs to them, and sounds that do not, drawn by one law.

A network finds any difference between the two kinds. Were the sounds of matching pairs aligned to
frames and the others not, traces of the compression would tell them apart (87.6 % against 81.9 %
without, and worse features: Arandjelović & Zisserman, ECCV 2018, section 3.2). So every sound
starts on one grid of times, and a wrong sound is the right one of somebody else.
"""

import tensorflow as tf

GRID = 0.04  # seconds: the frames of 25 a second


def start_steps(seen, heard, batch, seed, seconds=1.0, grid=GRID):
    """Starts of the sounds, int32 [batch], in steps of `grid` seconds: uniform over what fits.

    `seen` and `heard` are the lengths of the two streams in seconds, numbers or [batch]; the
    shorter one decides. Zero where nothing fits.
    """
    duration = tf.broadcast_to(tf.minimum(seen, heard), [batch])
    # A thousandth of a step forgives the rounding of exact multiples.
    last = tf.cast(tf.floor((duration - seconds) / grid + 1e-3), tf.int32)
    count = tf.maximum(last, 0) + 1
    u = tf.random.stateless_uniform([batch], seed)
    return tf.minimum(tf.cast(u * tf.cast(count, tf.float32), tf.int32), count - 1)


def frame_and_sound(
    frames, fps, audio, sample_rate, seed, seconds=1.0, grid=GRID, misalignment=0.0, times=None
):
    """A frame and the sound centred on it: [B, H, W, 3] as it was, and float32 [B, N].

    The sound of N = round(seconds * sample_rate) samples starts at a multiple of `grid` seconds;
    the frame is the one nearest to its middle, and of two that are equally near the later one. A
    sound shorter than N ends in silence.

    Args:
        frames: [B, T, H, W, 3].
        fps: frames a second, one number or [B].
        audio: [B, M], beginning with the first frame.
        sample_rate: samples a second, an int: it decides the static shape.
        seed: int32 [2].
        seconds: length of the sound.
        grid: seconds between possible starts.
        misalignment: the frame is that of a time which lies up to so many seconds before or after
            the middle, uniformly over what the video has of it.
        times: when the frames were taken, [B, T] in seconds after the first, rising; None where
            they keep to `fps`.
    """
    frames = tf.convert_to_tensor(frames)
    audio = tf.convert_to_tensor(audio, tf.float32)
    batch, length = tf.shape(frames)[0], round(seconds * sample_rate)
    fps = tf.broadcast_to(tf.cast(fps, tf.float32), [batch])[:, None]
    if times is None:
        times = tf.range(tf.shape(frames)[1], dtype=tf.float32) / fps  # [B, T]
    times = tf.cast(times, tf.float32)
    seen = times[:, -1] + 1 / fps[:, 0]
    heard = tf.cast(tf.shape(audio)[1], tf.float32) / float(sample_rate)
    start = tf.cast(start_steps(seen, heard, batch, seed, seconds, grid), tf.float32) * grid
    ends = start + seconds / 2 + tf.constant([[-misalignment], [misalignment]])  # [2, B]
    first, final = tf.unstack(tf.clip_by_value(ends, 0.0, times[:, -1]))
    u = tf.random.stateless_uniform([batch], tf.random.experimental.stateless_fold_in(seed, 1))
    at = first + u * (final - first)
    # Of two that are equally near the later one: of 1 s at 25 fps all middles are half-way. A
    # thousandth of a frame forgives rounding.
    half_way = (times[:, :-1] + times[:, 1:]) / 2
    at = tf.reduce_sum(tf.cast(half_way <= at[:, None] + 1e-3 / fps, tf.int32), axis=1)
    image = tf.gather(frames, at, axis=1, batch_dims=1)
    image.set_shape([frames.shape[0], *frames.shape[2:]])
    padded = tf.pad(audio, [[0, 0], [0, length]])
    begin = tf.cast(tf.round(start * float(sample_rate)), tf.int32)
    sound = tf.gather(padded, begin[:, None] + tf.range(length), axis=1, batch_dims=1)
    sound.set_shape([audio.shape[0], length])
    return image, sound


def mismatch(audio, seed):
    """Every example's sound replaced by another's: [B, N], a rotation of the batch by U{1..B-1}.

    Each of the others is equally likely. Raises for a batch of one, which has no other.
    """
    audio = tf.convert_to_tensor(audio)
    if audio.shape[0] == 1:
        raise ValueError(
            "a batch of one has no other sound to pair with: give videos of one size and length, "
            "which are batched before they are paired"
        )
    batch = tf.shape(audio)[0]
    by = tf.random.stateless_uniform([], seed, 1, batch, tf.int32)
    return tf.ensure_shape(tf.roll(audio, by, axis=0), audio.shape)


def half_mismatched(audio, seed):
    """Sounds [B, N] of which half are another example's, and int32 [B]: 1 where the sound belongs.

    Exactly half in every batch (one more belongs where B is odd), at random places.
    """
    audio = tf.convert_to_tensor(audio)
    seeds = tf.random.split(seed, 2)
    batch = tf.shape(audio)[0]
    place = tf.random.experimental.stateless_shuffle(tf.range(batch), seeds[0])
    belongs = place >= batch // 2
    sound = tf.where(belongs[:, None], audio, mismatch(audio, seeds[1]))
    return sound, tf.cast(belongs, tf.int32)
