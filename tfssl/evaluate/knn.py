"""Weighted k-nearest-neighbour classification: what features give with nothing trained on them."""

import numpy as np

from tfssl.evaluate import bootstrap, features, metrics


def knn(encoder, train, test, k=20, temperature=0.07, seed=0, **reading):
    """Weighted kNN on cosine similarity (Wu et al., CVPR 2018, section 3.4).

    The k training examples most similar to a test example vote for their class with
    exp(similarity / temperature).

    Args:
        encoder: anything callable on a batch (see `features.extract`).
        train, test: labelled examples, in any form that `features.extract` reads. Where both are
            one object, an example does not vote for itself.
        k: neighbours; where the training set is smaller, all of it.
        temperature: of the votes.
        seed: of the bootstrap.
        **reading: `batch_size`, `key`, `size`, `label` of `features.extract`.

    Returns:
        dict: `top1` (a share) with `top1_low` and `top1_high` (95 %, bootstrap over test
        examples), `mean_per_class`, where there are at least five training classes `top5` (the
        class is among the five with most votes, and has one), the `k` that was used,
        `temperature`, `train_examples`, `test_examples`, `classes` and, where the test set has
        classes without a training example (always wrong), `unseen_classes`.

    Raises:
        BadInput: a set without labels or examples, one training class only, features not finite.
    """
    if k < 1 or temperature <= 0:
        raise features.BadInput(
            f"kNN needs k >= 1 and temperature > 0, got k={k} and temperature={temperature}"
        )
    x, y, queries, truth, names = features.labelled(encoder, train, test, **reading)
    same = test is train
    best, votes = metrics.ranked_knn(x, y, queries, 5, k, temperature, leave_out=same)
    among = ((best == truth[:, None]) & (votes > 0)).any(axis=1)
    return {
        **scores(best[:, 0], truth, seed),
        **({"top5": float(among.mean())} if best.shape[1] == 5 else {}),
        "k": min(k, len(x) - same),
        "temperature": temperature,
        **counts(y, truth, names),
    }


def scores(predicted, truth, seed=0):
    """Top-1 with its interval, and the mean over the test set's classes."""
    right = np.asarray(predicted) == truth
    return {
        **bootstrap.with_interval("top1", right, seed),
        "mean_per_class": float(np.mean([right[truth == c].mean() for c in np.unique(truth)])),
    }


def counts(y, truth, names):
    """How much data stands behind a number, and what it cannot have got right."""
    unseen = len(names) - len(np.unique(y))
    return {
        "train_examples": len(y),
        "test_examples": len(truth),
        "classes": len(names),
        **({"unseen_classes": unseen} if unseen else {}),
    }
