"""How TensorFlow runs the datasets of this package."""

import tensorflow as tf


def untuned(dataset):
    """`dataset`, run in order, split over replicas by example, and untuned.

    An iterator whose parallelism TensorFlow tunes waits for its tuning thread when it is let go,
    and that sleeps twice as long each time: a pass of six seconds has been seen to end after ten.
    Untuned, `tf.data.AUTOTUNE` means a call a core, which is as quick.
    """
    options = tf.data.Options()
    options.deterministic = True
    options.autotune.enabled = False
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return dataset.with_options(options)
