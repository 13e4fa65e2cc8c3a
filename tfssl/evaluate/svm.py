"""A linear support vector machine on frozen features, C chosen by cross-validation."""

import warnings

import numpy as np

from tfssl.evaluate import features
from tfssl.evaluate.knn import counts
from tfssl.evaluate.linear import ranked

PENALTIES = tuple(10.0**exponent for exponent in (-3, -2, -1, 0, 1, 2))


def svm(encoder, train, test, penalties=PENALTIES, folds=3, seed=0, **reading):
    """One-against-the-rest linear SVMs (Goyal et al., ICCV 2019, section 5.1).

    Squared hinge loss, L2 penalty, dual, tolerance 1e-4, at most 2,000 iterations; every feature
    vector is divided by its length (plus 1e-5). C is shared by all classes and chosen by
    cross-validated accuracy; fits that are unfinished after 2,000 iterations, as they may be at a
    large C, count like any other. Departures: the paper chooses C per class by average precision,
    out of 26 values, and weighs positives twice, as its data have several labels an image.

    Args:
        encoder: anything callable on a batch (see `features.extract`).
        train, test: labelled examples, in any form that `features.extract` reads.
        penalties: the values of C that are tried; a single one is taken as it is.
        folds: of the cross-validation; fewer where a class has fewer training examples.
        seed: of the folds and the bootstrap.
        **reading: `batch_size`, `key`, `size`, `label` of `features.extract`.

    Returns:
        dict: `top1` with `top1_low` and `top1_high` (95 %, bootstrap over test examples), `top5`
        where there are more than five classes, `mean_per_class`, `C`, `folds`, `train_examples`,
        `test_examples`, `classes`.

    Raises:
        BadInput: a set without labels or examples, one training class only, features not finite.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.model_selection import KFold, StratifiedKFold, cross_val_score
    from sklearn.svm import LinearSVC

    x, y, queries, truth, names = features.labelled(encoder, train, test, **reading)
    x, queries = unit(x), unit(queries)

    def machine(penalty):
        # Left to itself scikit-learn takes the primal, with another stopping rule.
        return LinearSVC(C=penalty, dual=True, tol=1e-4, max_iter=2000, random_state=seed)

    rarest = np.bincount(y).min()
    folds = int(min(folds, max(rarest, 2), len(y)))
    # With one example of a class no fold can hold it on both sides.
    kind = StratifiedKFold if rarest >= folds else KFold
    cut = kind(folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        # A fold that lost one of two classes gives NaN, which must not win.
        warnings.simplefilter("ignore", UserWarning)
        chosen = sorted(penalties)[0]
        if len(penalties) > 1:
            shares = [
                np.nan_to_num(cross_val_score(machine(c), x, y, cv=cut, error_score=np.nan).mean())
                for c in sorted(penalties)
            ]
            chosen = sorted(penalties)[int(np.argmax(shares))]
        model = machine(chosen).fit(x, y)
    margins = model.decision_function(queries)
    return {
        **ranked(margins, model.classes_, truth, seed),
        "C": chosen,
        "folds": folds,
        **counts(y, truth, names),
    }


def unit(x):
    """Rows divided by their length plus 1e-5, as the benchmark's SVMs take them."""
    return x / (np.linalg.norm(x, axis=1, keepdims=True) + 1e-5)
