"""Sound augmentation for whole batches: waveforms [B, N] in [-1, 1], spectrograms [B, T, F].

`seed` is int32 [2]; every example has its own draw; the same seed gives the same result.
"""

import tensorflow as tf

from tfssl.pipelines.augment import tensorflow_io


def gain(audio, seed, low=0.9, high=1.1):
    """Each waveform times U(low, high), or less where it would leave [-1, 1].

    The defaults are those of look, listen and learn (Arandjelović & Zisserman, ICCV 2017).
    """
    audio = tf.convert_to_tensor(audio, tf.float32)
    factor = tf.random.stateless_uniform([tf.shape(audio)[0], 1], seed, low, high)
    peak = tf.reduce_max(tf.abs(audio), axis=1, keepdims=True)
    return audio * tf.minimum(
        factor, tf.math.divide_no_nan(1.0, peak) + tf.cast(peak == 0, tf.float32)
    )


def noise(audio, seed, decibels=(10.0, 40.0)):
    """White noise added at a signal-to-noise ratio U(decibels), clipped to [-1, 1].

    The level follows the sound's own power, so silence stays silent.
    """
    audio = tf.convert_to_tensor(audio, tf.float32)
    seeds = tf.random.split(seed, 2)
    ratio = tf.random.stateless_uniform([tf.shape(audio)[0], 1], seeds[0], *decibels)
    power = tf.reduce_mean(audio**2, axis=1, keepdims=True)
    scale = tf.sqrt(power) * 10 ** (-ratio / 20)
    added = scale * tf.random.stateless_normal(tf.shape(audio), seeds[1])
    return tf.clip_by_value(audio + added, -1.0, 1.0)


def shift(audio, seed, most):
    """Moved in time by a whole number of samples in [-most, most]; what is uncovered is silent."""
    audio = tf.convert_to_tensor(audio, tf.float32)
    length = tf.shape(audio)[1]
    offset = tf.random.stateless_uniform(
        [tf.shape(audio)[0], 1], seed, -most, most + 1, dtype=tf.int32
    )
    framed = tf.pad(audio, [[0, 0], [most, most]])
    moved = tf.gather(framed, tf.range(length) + most - offset, axis=1, batch_dims=1)
    moved.set_shape(audio.shape)
    return moved


def spectrogram(audio, window, hop, fft):
    """Magnitudes [B, ceil(N / hop), fft / 2 + 1] of Hann windows; lengths in samples.

    tfio.audio.spectrogram: the end is padded with silence, so there are as many frames as hops.
    """
    audio = tf.convert_to_tensor(audio, tf.float32)
    return tensorflow_io().audio.spectrogram(audio, nfft=fft, window=window, stride=hop)


def log_mel(
    audio,
    sample_rate=16000,
    window=400,
    hop=160,
    fft=512,
    mels=64,
    lowest=125.0,
    highest=7500.0,
    floor=1e-6,
):
    """Natural logarithm of max(mel magnitudes, floor): float32 [B, ceil(N / hop), mels].

    Windows of 25 ms every 10 ms at 16 kHz; `lowest` and `highest` in Hz. From
    tfio.audio.spectrogram and tfio.audio.melscale.
    """
    magnitudes = spectrogram(audio, window, hop, fft)
    mel = tensorflow_io().audio.melscale(
        magnitudes, rate=sample_rate, mels=mels, fmin=lowest, fmax=highest
    )
    mel.set_shape([*magnitudes.shape[:2], mels])
    return tf.math.log(tf.maximum(mel, floor))


def decibels(magnitudes, top=80.0):
    """20 log10 of magnitudes [B, T, F], at most `top` below each example's own maximum.

    tfio.audio.dbscale example by example: over a whole batch its maximum would be the batch's.
    """
    scale = tensorflow_io().audio.dbscale
    return tf.map_fn(lambda one: scale(one, top_db=top), tf.convert_to_tensor(magnitudes))


def spec_augment(spectrograms, seed, frequency=27, time=100, frequency_masks=2, time_masks=2):
    """Bands of frequencies and of times replaced by the example's mean: [B, T, F] in and out.

    Widths are uniform in 0..`frequency` bins and 0..`time` frames, never more than there are, and
    positions uniform (Park et al., Interspeech 2019, section 2, without the time warp; the defaults
    are its LibriSpeech "LD" policy). tfio.audio.freq_mask and time_mask do the same, but draw from
    a stateful generator, one draw for a batch, and fill zeros: so the draws are made here.
    """
    spectrograms = tf.convert_to_tensor(spectrograms)
    batch = tf.shape(spectrograms)[0]
    seeds = tf.random.split(seed, 2)

    def bands(seed, length, widest, count):
        u = tf.random.stateless_uniform([batch, count, 2], seed)
        widest = tf.cast(tf.minimum(widest, length), tf.float32)
        width = tf.floor(u[..., 0] * (widest + 1))
        start = tf.floor(u[..., 1] * (tf.cast(length, tf.float32) - width + 1))
        at = tf.range(tf.cast(length, tf.float32))
        inside = (at >= start[..., None]) & (at < (start + width)[..., None])
        return tf.reduce_any(inside, axis=1)  # [B, length]

    times = bands(seeds[0], tf.shape(spectrograms)[1], time, time_masks)
    bins = bands(seeds[1], tf.shape(spectrograms)[2], frequency, frequency_masks)
    mean = tf.reduce_mean(spectrograms, axis=[1, 2], keepdims=True)
    masked = times[:, :, None] | bins[:, None, :]
    return tf.ensure_shape(tf.where(masked, mean, spectrograms), spectrograms.shape)
