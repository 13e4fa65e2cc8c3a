"""Encoders of text: strings go in, so that an exported encoder needs no vocabulary file."""

import keras
import tensorflow as tf
from keras import ops

from tfssl.errors import BadInput

PUNCTUATION = r"[!-/:-@\[-`{-~]"  # ASCII's, without letters and digits


def split_words(text):
    """Strings [B] -> their words, ragged [B, None]: lower-cased, without punctuation."""
    text = tf.strings.regex_replace(tf.strings.lower(text, "utf-8"), PUNCTUATION, "")
    return tf.strings.split(text)


@keras.saving.register_keras_serializable("tfssl")
class WordIds(keras.layers.Layer):
    """Strings [B] -> word numbers int32 [B, words], cut or padded with 0 at the end.

    Lower-cased (Unicode too), ASCII punctuation removed, split at white space. With a
    `vocabulary` its words are numbered from 2 and all others are 1; without one a word's number
    is its hash into the `buckets`, from 1.
    """

    def __init__(self, vocabulary=(), buckets=20000, words=32, **kwargs):
        kwargs["dtype"] = "string"
        super().__init__(**kwargs)
        self.vocabulary, self.buckets, self.words = tuple(vocabulary), buckets, words
        self.supports_jit = False  # XLA knows no strings

    def build(self, shape):
        if self.vocabulary:
            keys = tf.constant(self.vocabulary)
            numbers = tf.range(2, len(self.vocabulary) + 2)
            rows = tf.lookup.KeyValueTensorInitializer(keys, numbers)
            self.table = tf.lookup.StaticHashTable(rows, default_value=1)

    def call(self, text):
        split = split_words(text).to_tensor("", shape=(None, self.words))
        if self.vocabulary:
            numbers = self.table.lookup(split)
        else:
            numbers = tf.strings.to_hash_bucket_fast(split, self.buckets - 1)
            numbers = tf.cast(numbers, tf.int32) + 1
        return tf.where(split == "", 0, numbers)

    def compute_output_spec(self, text):
        return keras.KerasTensor((text.shape[0], self.words), dtype="int32")

    def get_config(self):
        own = {"vocabulary": list(self.vocabulary), "buckets": self.buckets, "words": self.words}
        config = {**super().get_config(), **own}
        config.pop("dtype")
        return config


@keras.saving.register_keras_serializable("tfssl")
class MeanOfWords(keras.layers.Layer):
    """Word vectors [B, words, D] and numbers [B, words] -> mean over the words that are there."""

    def call(self, vectors, numbers):
        there = ops.cast(numbers > 0, vectors.dtype)[..., None]
        return ops.sum(vectors * there, axis=1) / ops.maximum(ops.sum(there, axis=1), 1)


@keras.saving.register_keras_serializable("tfssl")
class MaxOfWords(keras.layers.Layer):
    """Word vectors [B, words, D] and numbers [B, words] -> maximum over the words, 0 without."""

    def call(self, vectors, numbers):
        there = (numbers > 0)[..., None]
        lowest = ops.cast(-3e4, vectors.dtype)  # fits into 16 bits
        largest = ops.max(ops.where(there, vectors, lowest), axis=1)
        return ops.where(ops.any(there, axis=1), largest, ops.zeros_like(largest))


def text_bag(vocabulary=(), buckets=20000, words=32, dim=128, pool="mean"):
    """A bag of word vectors: strings [B] -> [B, dim].

    `vocabulary`: the words that have a vector of their own (all others share one); without one,
    words are hashed into `buckets`. The first `words` words of a text count, lower-cased, without
    punctuation; a text without any gives zeros. `pool` is "mean" or "max". Tap: `c1`, the word
    vectors [B, words, dim]. Raises BadInput for any other `pool`.
    """
    pools = {"mean": MeanOfWords, "max": MaxOfWords}
    if pool not in pools:
        raise BadInput(f"text_bag: pool must be 'mean' or 'max', not {pool!r}.")
    text = keras.Input((), dtype="string", name="text")
    numbers = WordIds(vocabulary, buckets, words, name="word_ids")(text)
    rows = len(vocabulary) + 2 if len(vocabulary) else buckets
    vectors = keras.layers.Embedding(rows, dim, name="c1")(numbers)
    return keras.Model(text, pools[pool](name="pool")(vectors, numbers), name="text_bag")
