"""Sound of shards, of TFDS and of `world`, brought to the rate that is asked for."""

import math

import numpy as np
import tensorflow as tf

from tfssl.pipelines.datasets import changed


def at_rate(dataset, rate):
    """A source with its `audio` at `rate` Hz, as `sample_rate` then says; others as they are.

    By SciPy's polyphase filter, clipped to [-1, 1]; N samples at R Hz become ceil(N rate / R). The
    source's own rate is that of its first example.
    """
    if not {"audio", "sample_rate"} <= set(dataset.element_spec):
        return dataset
    first = next(iter(dataset.map(lambda example: example["sample_rate"]).take(1)), None)
    if first is None or int(first) == rate:
        return dataset
    common = math.gcd(int(first), rate)
    up, down = rate // common, int(first) // common

    def filtered(samples):
        from scipy import signal

        return np.clip(signal.resample_poly(samples, up, down, axis=-1), -1, 1).astype(np.float32)

    def resampled(examples):
        length = examples["audio"].shape[-1]
        audio = tf.numpy_function(filtered, [examples["audio"]], tf.float32, stateful=False)
        audio = tf.ensure_shape(audio, [None, length and -(-length * up // down)])
        rates = tf.fill(tf.shape(examples["sample_rate"]), tf.constant(rate, tf.int64))
        return {**examples, "audio": audio, "sample_rate": rates}

    return changed(dataset, resampled)
