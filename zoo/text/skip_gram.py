"""Score the words around a word above noise words drawn from the vocabulary.

Paper: Distributed Representations of Words and Phrases and their Compositionality
Authors: Tomas Mikolov, Ilya Sutskever, Kai Chen, Greg Corrado, Jeffrey Dean
Venue: NeurIPS 2013
URL: https://arxiv.org/abs/1310.4546
Family: context-prediction
"""

import collections
import functools
import math

import keras
import numpy as np
import tensorflow as tf

from tfssl import encoders
from tfssl.encoders.text import split_words
from tfssl.errors import BadInput
from tfssl.layers.lookup import looked_up
from tfssl.method import Method, Run
from tfssl.objectives.embedding import negative_sampling_costs
from tfssl.objectives.reconstruction import masked_mean
from tfssl.pipelines import batching, load

FIRST = 2  # the first word's number: 0 pads, 1 is every word outside the vocabulary
POWER = 0.75  # of the noise words' frequencies, section 2.2


def views(examples, seed, vocabulary=(), counts=(), words=32, window=5, negatives=5, threshold=0.0):
    """Each word, the words around it and noise for each of them, as numbers; 0 where none is.

    Words are numbered as the encoder `text_bag` numbers them. Those outside the vocabulary are
    left out, frequent ones at random (`kept`, with `threshold`; 0 keeps all) before windows are
    laid. Around each word a window of 1 to `window` words to either side is drawn.

    Args:
        vocabulary, counts: the words and how often each occurs. Without them words are hashed into
            text_bag's 20,000 buckets and the noise is uniform.
        words: of each sentence, the first so many count.

    Returns:
        dict of int32: `centre` [B, words], `context` [B, words, 2 window] and `negatives`
        [B, words, 2 window, negatives], which mean nothing where there is no context.
    """
    seeds = tf.random.split(seed, 3)
    numbers = _numbers(examples["text"], vocabulary, words)
    if len(counts):
        chances = np.concatenate([[0] * FIRST, kept(np.array(counts), threshold)])
        u = tf.random.stateless_uniform(tf.shape(numbers), seeds[0])
        numbers = tf.where(u < tf.gather(tf.constant(chances, tf.float32), numbers), numbers, 0)
    # What is left moves together, in its order.
    order = tf.argsort(tf.cast(numbers == 0, tf.int32), axis=1, stable=True)
    centre = tf.gather(numbers, order, axis=1, batch_dims=1)  # [B, words]
    reach = 1 + tf.cast(window * tf.random.stateless_uniform(tf.shape(centre), seeds[1]), tf.int32)
    offsets = tf.constant([o for o in range(-window, window + 1) if o])
    padded = tf.pad(centre, [[0, 0], [window, window]])
    context = tf.gather(padded, tf.range(words)[:, None] + window + offsets, axis=1)
    near = (tf.abs(offsets) <= reach[..., None]) & (centre > 0)[..., None]
    context = tf.where(near, context, 0)
    pairs = tf.where(context > 0)  # most places are padding, and to look for noise takes long
    # In float32 a rare word's share of a large vocabulary would be nothing.
    u = tf.random.stateless_uniform([tf.shape(pairs)[0], negatives], seeds[2], dtype=tf.float64)
    noise = tf.fill([*tf.unstack(tf.shape(context)), negatives], FIRST)
    noise = tf.tensor_scatter_nd_update(noise, pairs, _noise(u, np.array(counts)))
    return {"centre": centre, "context": context, "negatives": noise}


def kept(counts, threshold):
    """The chance of each word to stay: (sqrt(f / t) + 1) t / f, at most 1, f its frequency.

    As in word2vec.c; the paper's equation 5 is sqrt(t / f).
    """
    if not threshold:
        return np.ones(len(counts))
    share = threshold / (counts / counts.sum())
    return np.minimum(1.0, np.sqrt(share) + share)


def _numbers(text, vocabulary, words):
    """int32 [B, words]; a look-up by sorted hashes, because a table would be state."""
    split = split_words(text)[:, :words].to_tensor("", shape=(None, words))
    if not len(vocabulary):
        return tf.where(split == "", 0, 1 + _hash(split, 20000 - 1))
    known = _hash(tf.constant(list(vocabulary)))
    order = tf.argsort(known)
    known, wanted = tf.gather(known, order), _hash(split)
    place = tf.searchsorted(known, tf.reshape(wanted, [-1]))
    place = tf.reshape(tf.minimum(place, len(vocabulary) - 1), tf.shape(wanted))
    return tf.where(tf.gather(known, place) == wanted, FIRST + tf.gather(order, place), 0)


def _hash(words, buckets=None):
    hashed = tf.strings.to_hash_bucket_fast(words, buckets or 2**63 - 1)
    return tf.cast(hashed, tf.int32) if buckets else hashed


def _noise(u, counts):
    """Word numbers of the unigram distribution to the power 0.75, by uniform float64 `u`."""
    if not len(counts):
        return 1 + tf.cast(u * (20000 - 1), tf.int32)
    upto = np.cumsum(counts**POWER)
    found = tf.searchsorted(upto / upto[-1], tf.reshape(u, [-1]), side="right")
    return FIRST + tf.minimum(tf.reshape(found, tf.shape(u)), len(counts) - 1)


class SkipGram(Method):
    """Two tables of word vectors: the encoder's, which is kept, and one of the words' contexts.

    `encoder` is a `text_bag` (or has its layer `c1`). Noise words that happen to be the true one
    count, as in equation 4 (word2vec.c skips them): then the optimum is PMI - ln k, whose constant
    all vectors share: subtract their mean, or words with nothing in common have a cosine of 0.4.
    """

    def __init__(self, encoder, negatives=5):
        super().__init__(encoder)
        self.table = encoder.get_layer("c1")
        rows, dim = self.table.embeddings.shape
        near_zero = keras.initializers.RandomUniform(-0.5 / dim, 0.5 / dim)
        self.table.embeddings.assign(near_zero((rows, dim)))
        self.context = keras.layers.Embedding(rows, dim, "zeros", name="context")
        self.context.build(None)
        self.chance = (negatives + 1) * math.log(2)

    def call(self, x, training=False):
        # The vectors of all places would not fit into memory: those of the N words that are there.
        there = x["centre"] > 0
        x = {name: tf.boolean_mask(numbers, there) for name, numbers in x.items()}
        v = looked_up(self.table, x["centre"])  # [N, D]
        words = tf.concat([x["context"][..., None], x["negatives"]], axis=2)  # [N, C, 1 + K]
        scores = tf.einsum("nd,nckd->nck", v, looked_up(self.context, words))
        return {
            "true": scores[..., 0],
            "noise": scores[..., 1:],
            "pairs": x["context"] > 0,  # [N, C]
        }

    def objective(self, x, y, outputs):
        """Equation 4, mean over the pairs that are there."""
        cost = negative_sampling_costs(outputs["true"], outputs["noise"])
        return masked_mean(cost, outputs["pairs"])


def count_words(dataset, least):
    """The words that occur `least` times or more and their counts, most frequent first."""
    counter = collections.Counter()
    for text in dataset.map(lambda example: example["text"]).batch(1024):
        counter.update(split_words(text).flat_values.numpy().tolist())
    found = sorted((-count, word) for word, count in counter.items() if count >= least)
    if len(found) < FIRST:
        raise BadInput(
            f"Only {len(found)} words occur {least} times or more: give more text, or a smaller "
            "`least`."
        )
    return tuple(word.decode() for _, word in found), tuple(-count for count, _ in found)


def recipe(
    data="tfds:lm1b",  # in place of Google's own news corpus
    batch_size=256,  # sentences; the released code takes one pair at a time
    epochs=5,  # word2vec.c
    learning_rate=0.025,  # word2vec.c; falls linearly to 1e-4 of it
    dim=300,
    words=1000,
    window=5,
    negatives=5,
    threshold=1e-5,  # section 2.3
    least=5,
    seed=0,
):
    """word2vec.c's settings with the paper's subsampling, by Adam on means over batches of pairs.

    The first of its passes over the data counts the words.
    """
    examples = load(data, keys=("text",))
    vocabulary, counts = count_words(examples, least)
    numbers = dict(vocabulary=vocabulary, counts=counts, words=words)
    draws = dict(window=window, negatives=negatives, threshold=threshold)
    view = functools.partial(views, **numbers, **draws)
    dataset = batching.train(examples, view, batch_size, seed)
    encoder = encoders.get("text_bag", vocabulary=vocabulary, words=words, dim=dim)
    model = SkipGram(encoder, negatives)
    steps = max(1, round(dataset.steps * epochs))
    rate = keras.optimizers.schedules.PolynomialDecay(learning_rate, steps, learning_rate * 1e-4)
    model.compile(keras.optimizers.Adam(rate), jit_compile=False)  # XLA would pad N
    return Run(model, dataset, epochs)


SMALL = dict(
    data="world:n=2000",
    batch_size=32,
    epochs=5,
    learning_rate=4e-2,  # the lowest loss of seven between 2.5e-3 and 0.1
    dim=32,
    words=16,
    threshold=1e-2,  # there are only some fifty words
)
