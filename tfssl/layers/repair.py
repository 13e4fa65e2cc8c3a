"""Codes with holes in them, and layers that mend the holes and touch nothing else.

Jenni & Favaro, Learning to Spot Artifacts, CVPR 2018, section 3.
Masks are float32 [B, h, h, 1]: 1 where a map is whole, 0 where it is damaged.
"""

import keras
import tensorflow as tf


class Repair(keras.layers.Layer):
    """u + (1 - kept) f([u, kept]): changes the damaged places of a map alone, by what it sees."""

    def __init__(self, channels, **kwargs):
        super().__init__(**kwargs)
        self.first = keras.layers.Conv2D(channels, 3, padding="same", activation="leaky_relu")
        self.second = keras.layers.Conv2D(channels, 3, padding="same")
        self.first.build([None, None, None, channels + 1])
        self.second.build([None, None, None, channels])
        self.built = True

    def call(self, u, kept):
        kept = tf.cast(enlarged(kept, u.shape[1]), u.dtype)
        return u + (1 - kept) * self.second(self.first(tf.concat([u, kept], axis=-1)))


def enlarged(kept, side):
    """A mask [B, h, h, 1] on a map of `side` x `side`: each cell becomes a square."""
    times = side // kept.shape[1]
    return tf.repeat(tf.repeat(kept, times, axis=1), times, axis=2)


def damaged(code, kept):
    """The code where it is kept, elsewhere the mean of its 3 x 3 neighbours (those inside)."""
    kept = tf.cast(kept, code.dtype)
    return kept * code + (1 - kept) * tf.nn.avg_pool2d(code, 3, 1, "SAME")
