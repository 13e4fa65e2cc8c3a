"""A first-in-first-out memory of past embeddings."""

import keras
import tensorflow as tf

from tfssl.objectives.numerics import normalise
from tfssl.objectives.replicas import gather


class Queue(keras.layers.Layer):
    """The last `size` embeddings, unit vectors; random ones until it has been filled once.

    Args:
        size: number of embeddings kept, K; of a batch that is larger the last ones.
        width: their dimension, D.
    """

    def __init__(self, size, width, seed=0, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.size = size
        start = keras.random.normal([size, width], seed=seed)
        start = keras.ops.normalize(start, axis=1)
        # Every replica writes the same gathered rows, so the first one's may stand for all.
        state = {"trainable": False, "aggregation": "only_first_replica", "autocast": False}
        self.embeddings = self.add_weight(
            name="embeddings",
            shape=[size, width],
            dtype="float32",
            initializer=lambda shape, dtype=None: keras.ops.cast(start, dtype),
            **state,
        )
        self.pointer = self.add_weight(
            name="pointer", shape=[], dtype="int32", initializer="zeros", **state
        )
        self.built = True

    def call(self, inputs=None):
        """The memory, float32 [K, D]; keys in the order they came, the oldest at `pointer`."""
        return tf.convert_to_tensor(self.embeddings)

    def enqueue(self, keys):
        """Overwrites the oldest rows with `keys` [B, D] of all replicas, scaled to unit length."""
        keys = gather(normalise(keys))
        keys = keys[-self.size :]
        count = tf.shape(keys)[0]
        pointer = tf.convert_to_tensor(self.pointer)
        rows = (pointer + tf.range(count)) % self.size
        memory = tf.convert_to_tensor(self.embeddings)
        self.embeddings.assign(tf.tensor_scatter_nd_update(memory, rows[:, None], keys))
        self.pointer.assign((pointer + count) % self.size)
