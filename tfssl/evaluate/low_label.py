"""A hundred labels: a linear classifier on frozen features of a few examples a class."""

import numpy as np

from tfssl.errors import BadInput
from tfssl.evaluate import bootstrap, features
from tfssl.evaluate.knn import counts
from tfssl.evaluate.linear import PENALTIES, fit


def low_label(
    encoder,
    train,
    test,
    per_class=10,
    draws=10,
    penalties=PENALTIES,
    validation=0.2,
    iterations=200,
    seed=0,
    **reading,
):
    """Error with `per_class` labels of every class, mean and deviation over fixed draws.

    MNIST with 100 labels is its usual form: ten of each digit, at least ten draws, all test
    examples (Exemplar networks, the ladder network and their successors report it so). Draw i
    follows `seed + i` alone. The classifier is that of `linear`: features standardised and C chosen
    by cross-validation, both within the labels drawn; no other label is looked at. With one or two
    labels of each class nothing can be held out, and C is 1, scikit-learn's default.

    Args:
        encoder: anything callable on a batch (see `features.extract`).
        train, test: labelled examples, in any form that `features.extract` reads.
        per_class: labels of each class; a class with fewer gives all it has.
        draws: how often labels are drawn.
        penalties, validation, iterations: as in `linear`.
        seed: of the first draw, and of the bootstrap.
        **reading: `batch_size`, `key`, `size`, `label` of `features.extract`.

    Returns:
        dict: `top1`, the mean over draws, with `top1_low` and `top1_high` (95 %, bootstrap over
        draws), `error_mean`, `error_std` (over draws, n - 1), `errors` (one a draw), `C_by_draw`,
        `C_from` (as in `linear`), `per_class`, `draws`, `labels` (how many a draw has),
        `standardised`, `validation`, `iterations`, `train_examples` (there to draw from),
        `test_examples`, `classes`.

    Raises:
        BadInput: less than one label or draw, and all that `linear` raises.
    """
    if per_class < 1 or draws < 1:
        raise BadInput(
            f"at least one label a class and one draw are needed, not {per_class} and {draws}"
        )
    x, y, queries, truth, names = features.labelled(encoder, train, test, **reading)
    errors, penalties_used, found, used = [], [], {}, 0
    for draw in range(draws):
        chosen = drawn(y, per_class, seed + draw)
        found = fit(
            *(x[chosen], y[chosen], queries, truth, names),
            penalties,
            validation,
            iterations,
            seed + draw,
        )
        errors.append(1 - found["top1"])
        penalties_used.append(found["C"])
        used = len(chosen)
    errors = np.array(errors)
    return {
        **bootstrap.with_interval("top1", 1 - errors, seed),
        "error_mean": float(errors.mean()),
        "error_std": float(errors.std(ddof=1)) if draws > 1 else 0.0,
        "errors": errors.tolist(),
        "C_by_draw": penalties_used,
        "C_from": found["C_from"],
        "per_class": per_class,
        "draws": draws,
        "labels": used,
        **{name: found[name] for name in ("standardised", "validation", "iterations")},
        **counts(y, truth, names),
    }


def drawn(y, per_class, seed):
    """Sorted positions of `per_class` examples of every class in y [N]; the same for one seed."""
    generator = np.random.default_rng(seed)
    each = [generator.permutation(np.flatnonzero(y == c))[:per_class] for c in np.unique(y)]
    return np.sort(np.concatenate(each))
