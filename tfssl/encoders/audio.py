"""Encoders of sound: a waveform goes in, the spectrogram is the network's own first layer."""

import keras
import tensorflow as tf

from tfssl.layers.normalisation import BatchNormalization

SILENCE = 1e-5  # added to the mel energies: the logarithm of silence stays finite


@keras.saving.register_keras_serializable("tfssl")
class LogMel(keras.layers.Layer):
    """Waveforms [B, N] in [-1, 1] -> log-mel spectrograms [B, T, mels, 1], about zero mean.

    Magnitude spectra of Hann windows, T = 1 + (N - window) // hop, summed by triangular filters
    on the mel scale (tf.signal: HTK's formula), then (log(mel + 1e-5) + 4) / 4, constants that
    bring ordinary speech and music to about zero mean and unit deviation. A sound shorter than
    one window is padded with silence. `window` and `hop` are seconds; `sample_rate` is in Hz.
    Computed in float32 under any policy: a spectrum spans more than 16 bits hold.
    """

    def __init__(self, sample_rate=16000, mels=64, window=0.025, hop=0.01, **kwargs):
        super().__init__(**kwargs)
        self.sample_rate, self.mels, self.window, self.hop = sample_rate, mels, window, hop
        self.autocast = False

    def build(self, shape):
        self.length = round(self.window * self.sample_rate)
        self.step = round(self.hop * self.sample_rate)
        self.bins = 2 ** (self.length - 1).bit_length()

    def call(self, sound):
        sound = tf.cast(sound, tf.float32)
        missing = tf.maximum(self.length - tf.shape(sound)[1], 0)
        sound = tf.pad(sound, [[0, 0], [0, missing]])
        spectrum = tf.abs(tf.signal.stft(sound, self.length, self.step, self.bins))
        scaled = (tf.math.log(self.filtered(spectrum) + SILENCE) + 4.0) / 4.0
        return tf.cast(scaled[..., None], self.compute_dtype)

    def filtered(self, spectrum):
        """Magnitudes [B, T, bins / 2 + 1] -> energies [B, T, mels]."""
        filters = tf.signal.linear_to_mel_weight_matrix(
            self.mels, self.bins // 2 + 1, self.sample_rate, 60.0, self.sample_rate / 2
        )
        return tf.matmul(spectrum, filters)

    def compute_output_spec(self, sound):
        time = None if sound.shape[1] is None else self._frames(sound.shape[1])
        return keras.KerasTensor((sound.shape[0], time, self.mels, 1), dtype=self.compute_dtype)

    def _frames(self, samples):
        length, step = round(self.window * self.sample_rate), round(self.hop * self.sample_rate)
        return 1 + max(samples - length, 0) // step

    def get_config(self):
        own = {name: getattr(self, name) for name in ("sample_rate", "mels", "window", "hop")}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable("tfssl")
class LogSpectrogram(LogMel):
    """Waveforms [B, N] in [-1, 1] -> log-spectrograms [B, T, bins, 1], linear in frequency.

    As LogMel without its filters: the bins are those of the transform, whose length is the power
    of two that holds a window (257 of 10 ms at 48 kHz).
    """

    def __init__(self, sample_rate=48000, window=0.01, hop=0.005, **kwargs):
        length = round(window * sample_rate)
        kwargs["mels"] = 2 ** (length - 1).bit_length() // 2 + 1
        super().__init__(sample_rate, window=window, hop=hop, **kwargs)

    def filtered(self, spectrum):
        return spectrum


def audio_cnn(sample_rate=16000, mels=64, width=32):
    """A small network over log-mel: waveforms [B, N] in [-1, 1] -> [B, 8 * width].

    Five 3 x 3 convolutions with batch normalisation, each stage pooled in time and frequency, as
    the sound towers of the correspondence papers (Arandjelovic & Zisserman, ICCV 2017) at a
    quarter of their width; 1.0 M parameters. The waveform must have the `sample_rate` (Hz) and may
    have any length. Taps c1..c5, [B, T, F, C], before their pooling.
    """
    sound = keras.Input((None,), name="audio")
    x = LogMel(sample_rate, mels, name="log_mel")(sound)
    for i, factor in enumerate((1, 2, 4, 8, 8), start=1):
        x = keras.layers.Conv2D(
            factor * width,
            3,
            padding="same",
            use_bias=False,
            kernel_initializer="he_normal",
            name=f"stage_{i}_conv",
        )(x)
        x = keras.layers.ReLU(name=f"c{i}")(BatchNormalization(name=f"stage_{i}_norm")(x))
        if i < 5:
            x = keras.layers.MaxPooling2D(2, padding="same", name=f"stage_{i}_pool")(x)
    pooled = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(sound, pooled, name="audio_cnn")
