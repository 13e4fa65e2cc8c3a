"""Nearest-neighbour retrieval: is something of the same class among the first k found?"""

import numpy as np
import tensorflow as tf

from tfssl.errors import BadInput
from tfssl.evaluate import bootstrap, features, metrics
from tfssl.evaluate.knn import counts

_SIMILARITIES = 2**25


def retrieval(encoder, train, test, ks=(1, 5, 10), seed=0, **reading):
    """R@k with the test set as queries and the training set as gallery, by cosine similarity.

    A query is a hit at k if any of its k nearest training examples has its class (Buechler et al.,
    ECCV 2018, section 4.2). It needs no k to vote with and no training, and chance is high for
    large k: compare with the random encoder.

    Args:
        encoder: anything callable on a batch (see `features.extract`).
        train, test: labelled examples, in any form that `features.extract` reads. Where both are
            one object, an example does not find itself.
        ks: the numbers of neighbours; larger than the training set means all of it.
        seed: of the bootstrap.
        **reading: `batch_size`, `key`, `size`, `label` of `features.extract`.

    Returns:
        dict: for each k `R@k` (a share), `R@k_low` and `R@k_high` (95 %, bootstrap over
        queries); `train_examples`, `test_examples`, `classes`.

    Raises:
        BadInput: a set without labels or examples, one training class only, features not finite.
    """
    if not ks or min(ks) < 1:
        raise BadInput(f"retrieval needs at least one k, each 1 or more, got {ks}")
    x, y, queries, truth, names = features.labelled(encoder, train, test, **reading)
    same = test is train
    found, _ = nearest(x, queries, max(ks) + same)
    if same:
        own = found == np.arange(len(x))[:, None]
        own[~own.any(axis=1), -1] = True  # more copies of it came first than were asked for
        found = found[~own].reshape(len(x), -1)
    hits = y[found] == truth[:, None]
    result = {}
    for k in ks:
        result.update(bootstrap.with_interval(f"R@{k}", hits[:, :k].any(axis=1), seed))
    return {**result, **counts(y, truth, names)}


def nearest(gallery, queries, k):
    """The k most similar gallery rows of every query, best first, in bounded memory.

    Args:
        gallery: [N, D] features.
        queries: [M, D] features.
        k: how many; all N where there are fewer.

    Returns:
        (positions int [M, k], cosine similarities float32 [M, k]).
    """
    gallery, queries = (tf.cast(metrics.unit(part), tf.float32) for part in (gallery, queries))
    k = min(k, gallery.shape[0])
    rows = max(1, _SIMILARITIES // gallery.shape[0])
    found = [
        tf.math.top_k(tf.matmul(queries[start : start + rows], gallery, transpose_b=True), k)
        for start in range(0, queries.shape[0], rows)
    ]
    return (
        np.concatenate([part.indices.numpy() for part in found]),
        np.concatenate([part.values.numpy() for part in found]),
    )
