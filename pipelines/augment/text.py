"""The one augmentation of sentences that methods ask for: words left out at random."""

import tensorflow as tf


def drop_words(text, seed, probability=0.1):
    """Sentences [B] of space-separated words, each word left out with `probability`.

    A sentence that would lose every word keeps them all.
    """
    words = tf.strings.split(text)
    u = tf.random.stateless_uniform([tf.size(words.flat_values)], seed)
    kept = words.with_flat_values(u >= probability)
    none = ~tf.reduce_any(kept, axis=1)
    kept = kept.with_flat_values(kept.flat_values | tf.gather(none, words.value_rowids()))
    return tf.strings.reduce_join(tf.ragged.boolean_mask(words, kept), axis=1, separator=" ")
