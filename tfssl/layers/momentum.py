"""A teacher: a copy of a network that follows it by exponential moving average."""

import math

import keras
import tensorflow as tf

from tfssl import copies


class Momentum(keras.layers.Layer):
    """A slowly moving copy of built models; no gradient reaches it.

    The copy's batch norms run as the caller says (`training=`) and keep their own moving
    statistics; only weights that the original trains are averaged, as in BYOL and MoCo.

    Args:
        *models: built `keras.Model`s, applied one after the other.
    """

    def __init__(self, *models, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.copies = [copies.with_weights(keras.models.clone_model(m), m) for m in models]
        pairs = [
            (theirs, ours)
            for model, copy in zip(models, self.copies)
            for theirs, ours in zip(model.weights, copy.weights)
            if theirs.trainable
        ]
        # Keras would make weights of this layer of what it finds in a list or tuple.
        self._pairs = lambda: pairs
        for copy in self.copies:
            for weight in copy.weights:
                weight.trainable = False
        self.built = True

    def call(self, x, training=False):
        for copy in self.copies:
            x = copy(x, training=training)
        return tf.stop_gradient(x)

    def follow(self, momentum):
        """Every averaged weight: ours <- momentum ours + (1 - momentum) theirs."""
        for theirs, ours in self._pairs():
            m = tf.cast(momentum, ours.dtype)
            ours.assign(m * tf.convert_to_tensor(ours) + (1 - m) * tf.convert_to_tensor(theirs))


def cosine_momentum(base, step, steps):
    """BYOL's schedule: 1 - (1 - base) (cos(pi step / steps) + 1) / 2, from `base` to 1.

    Without an end (`steps` infinite) it stays at `base`.
    Grill et al., Bootstrap Your Own Latent, NeurIPS 2020, section 3.2.
    """
    share = tf.clip_by_value(tf.cast(step, tf.float32) / float(steps), 0.0, 1.0)
    return 1.0 - (1.0 - base) * (tf.cos(share * math.pi) + 1.0) / 2.0
