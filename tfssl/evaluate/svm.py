"""A linear support vector machine on frozen features, C chosen by cross-validation."""

import warnings

import numpy as np

from tfssl.evaluate import features
from tfssl.evaluate.knn import counts
from tfssl.evaluate.linear import DEFAULT_PENALTY, ranked

PENALTIES = tuple(10.0**exponent for exponent in (-3, -2, -1, 0, 1, 2))


def svm(encoder, train, test, penalties=PENALTIES, folds=3, seed=0, **reading):
    """One-against-the-rest linear SVMs (Goyal et al., ICCV 2019, section 5.1).

    Squared hinge loss, L2 penalty, dual, tolerance 1e-4, at most 2,000 iterations; every feature
    vector is divided by its length (plus 1e-5). C is shared by all classes and chosen by
    cross-validated accuracy, or is 1 where fewer than two classes have the two examples that this
    takes; fits that are unfinished after 2,000 iterations, as they may be at a large C, count like
    any other. Departures: the paper chooses C per class by average precision, out of 26 values, and
    weighs positives twice, as its data have several labels an image.

    Args:
        encoder: anything callable on a batch (see `features.extract`).
        train, test: labelled examples, in any form that `features.extract` reads.
        penalties: the values of C that are tried; a single one is taken as it is.
        folds: of the cross-validation; fewer, but at least two, where a class has fewer training
            examples.
        seed: of the folds and the bootstrap.
        **reading: `batch_size`, `key`, `size`, `label` of `features.extract`.

    Returns:
        dict: `top1` with `top1_low` and `top1_high` (95 %, bootstrap over test examples), `top5`
        where there are more than five classes, `mean_per_class`, `C`, `folds` (0 where C was not
        chosen by cross-validation), `train_examples`, `test_examples`, `classes`.

    Raises:
        BadInput: a set without labels or examples, one training class only, features not finite.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.model_selection import StratifiedKFold, cross_val_score
    from sklearn.svm import LinearSVC

    x, y, queries, truth, names = features.labelled(encoder, train, test, **reading)
    x, queries = unit(x), unit(queries)

    def machine(penalty):
        # Left to itself scikit-learn takes the primal, with another stopping rule.
        return LinearSVC(C=penalty, dual=True, tol=1e-4, max_iter=2000, random_state=seed)

    grid, sizes = sorted(penalties), np.sort(np.bincount(y))
    chosen, used = grid[0], 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        # That a class has a single example: held out it is never right, whatever C.
        warnings.simplefilter("ignore", UserWarning)
        if len(grid) > 1 and sizes[-2] < 2:
            # A fold would be fitted on one class only.
            chosen = DEFAULT_PENALTY
        elif len(grid) > 1:
            used = int(min(folds, max(sizes[0], 2)))
            cut = StratifiedKFold(used, shuffle=True, random_state=seed)
            shares = [cross_val_score(machine(c), x, y, cv=cut).mean() for c in grid]
            chosen = grid[int(np.argmax(shares))]
        model = machine(chosen).fit(x, y)
    margins = model.decision_function(queries)
    return {
        **ranked(margins, model.classes_, truth, seed),
        "C": chosen,
        "folds": used,
        **counts(y, truth, names),
    }


def unit(x):
    """Rows divided by their length plus 1e-5, as the benchmark's SVMs take them."""
    return x / (np.linalg.norm(x, axis=1, keepdims=True) + 1e-5)
