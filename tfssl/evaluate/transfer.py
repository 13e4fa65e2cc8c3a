"""The twelve-dataset transfer suite: L2-regularised logistic regression on frozen features."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfssl.errors import BadInput
from tfssl.evaluate import features, metrics
from tfssl.evaluate.knn import counts
from tfssl.evaluate.linear import held_out_split, moments, ranked, regression, rescaled
from tfssl.evaluate.voc07 import as_wide, tables

# lambda of  sum_i CE_i + (lambda / 2) |W|^2: 45 values from 1e-6 to 1e5, a factor of 10^0.25 apart.
PENALTIES = tuple(10.0 ** (exponent / 4) for exponent in range(-24, 21))


class Entry(NamedTuple):
    """A data set of the suite."""

    data: str  # as `--data` names it
    metric: str  # of the published table: top1, mean_per_class or mAP_11point
    classes: int
    train: int  # pictures that are fitted in the end, validation included
    test: int
    validation: str = ""  # the split that chooses the penalty; "": a part of the training set


# Kornblith et al., CVPR 2019, table 1; SimCLR's table 8. TFDS itself has no Birdsnap and no FGVC
# Aircraft: under these names they are found where somebody has prepared them.
SUITE = {
    "food101": Entry("tfds:food101", "top1", 101, 75_750, 25_250),
    "cifar10": Entry("tfds:cifar10", "top1", 10, 50_000, 10_000),
    "cifar100": Entry("tfds:cifar100", "top1", 100, 50_000, 10_000),
    "birdsnap": Entry("tfds:birdsnap", "top1", 500, 47_386, 2_443),
    "sun397": Entry("tfds:sun397/standard-part1-120k", "top1", 397, 19_850, 19_850),
    "cars196": Entry("tfds:cars196", "top1", 196, 8_144, 8_041),
    "fgvc_aircraft": Entry("tfds:fgvc_aircraft", "mean_per_class", 100, 6_667, 3_333, "val"),
    "voc2007": Entry("tfds:voc/2007", "mAP_11point", 20, 5_011, 4_952, "val"),
    "dtd": Entry("tfds:dtd", "top1", 47, 3_760, 1_880, "val"),
    "oxford_iiit_pet": Entry("tfds:oxford_iiit_pet", "mean_per_class", 37, 3_680, 3_369),
    "caltech101": Entry("tfds:caltech101", "mean_per_class", 102, 3_060, 6_084),
    "oxford_flowers102": Entry(
        "tfds:oxford_flowers102", "mean_per_class", 102, 2_040, 6_149, "val"
    ),
}


def transfer(
    encoder,
    train,
    test,
    validation=None,
    metric="top1",
    penalties=PENALTIES,
    held_out=0.2,
    iterations=500,
    seed=0,
    **reading,
):
    """Logistic regression as the transfer tables fit it (Kornblith et al., CVPR 2019, A.4).

    Minimises sum_i CE_i + (lambda / 2) |W|^2 by L-BFGS over the features as they are, the bias
    unpenalised. lambda is the one of 45 values that does best on the validation split, each fit
    beginning where the one before ended, from strong to weak; then training and validation split
    are fitted together.

    Args:
        encoder: anything callable on a batch (see `features.extract`).
        train, test: labelled examples, in any form that `features.extract` reads; for
            `metric="mAP_11point"` with several labels each, in a form that `voc07` reads.
        validation: examples of the same form that choose lambda; None: `held_out` of the training
            set, drawn by class.
        metric: `top1`, `mean_per_class` or `mAP_11point` (one regression a class against the rest,
            one lambda for all): what the table reports and what lambda is chosen by.
        penalties: the values of lambda that are tried; a single one is taken as it is.
        iterations: the most that L-BFGS makes per fit.
        seed: of the held-out part and the bootstrap.
        **reading: `batch_size`, `key`, `size`, `label` of `features.extract`.

    Returns:
        dict: the metric; for classes `top1` with `top1_low` and `top1_high`, `top5`,
        `mean_per_class`; `metric` (its name), `lambda`, `penalties` (how many), `train_examples`
        (fitted in the end), `test_examples`, `classes`.

    Raises:
        BadInput: an unknown metric, and all that `linear` and `voc07` raise.
    """
    if metric not in ("top1", "mean_per_class", "mAP_11point"):
        raise BadInput(f"metric is top1, mean_per_class or mAP_11point, not {metric!r}")
    read = _several if metric == "mAP_11point" else _single
    x, y, queries, truth, names, fitting, chosen_by = read(
        encoder, train, validation, test, held_out, seed, reading
    )
    x, queries, squared = _of_deviation_one(x, queries)
    grid = sorted(penalties, reverse=True)
    best = grid[0]
    if len(grid) > 1:
        models, values = None, []
        for penalty in grid:
            models = _fits(x[fitting], y[fitting], penalty / squared, iterations, models)
            values.append(_value(models, x[chosen_by], y[chosen_by], metric))
        best = grid[int(np.argmax(values))]
    models = _fits(x, y, best / squared, iterations)
    if metric == "mAP_11point":
        result = {metric: _value(models, queries, truth, metric)}
        sizes = {"train_examples": len(x), "test_examples": len(queries), "classes": y.shape[1]}
    else:
        logits = models[0].decision_function(queries)
        result = ranked(logits, models[0].classes_, truth, seed)
        sizes = counts(y, truth, names)
    return {**result, "metric": metric, "lambda": best, "penalties": len(grid), **sizes}


def in_suite(source):
    """The names of the suite's data sets that `--data source` means; all for ""."""
    return [name for name, entry in SUITE.items() if source in ("", entry.data)]


def suite(encoder, load, size=224, seed=0, names=tuple(SUITE), **fitting):
    """`transfer` over every data set of the suite that is there.

    Args:
        encoder: anything callable on a batch.
        load: function (entry, split) -> the examples of an `Entry`'s split, unbatched, or raises
            ValueError where the set is not on this disk. Nothing is downloaded here.
        size: side in pixels: shorter side by bicubic interpolation, then the centre.
        names: the data sets that are asked for, keys of `SUITE`.
        seed, **fitting: of `transfer`.

    Returns:
        dict: for every set that was measured `<name>` (its own metric); `mean` over these, or
        None; `size`; `datasets` {name: result of `transfer`, with `size`}; `missing` {name: why,
        in a sentence} of those that are not there or were refused.

    Raises:
        BadInput: every set that is there was refused.
    """
    found, missing, refusal = {}, {}, None
    for name in names:
        entry = SUITE[name]
        try:
            parts = {split: load(entry, split) for split in ("train", "test")}
            parts["validation"] = load(entry, entry.validation) if entry.validation else None
        except ValueError as reason:
            missing[name] = str(reason)
            continue
        parts = {
            key: part and part.map(lambda e: covered(e, size), tf.data.AUTOTUNE, True)
            for key, part in parts.items()
        }
        try:
            result = transfer(encoder, metric=entry.metric, seed=seed, **parts, **fitting)
        except ValueError as reason:  # the hours that the others took are not thrown away
            missing[name], refusal = str(reason), reason
            continue
        found[name] = {**result, "size": size}
    if refusal and not found:
        raise refusal
    main = {name: result[SUITE[name].metric] for name, result in found.items()}
    return {
        **main,
        "mean": float(np.mean(list(main.values()))) if main else None,
        "size": size,
        "datasets": found,
        "missing": missing,
    }


def covered(example, size):
    """The example with its picture's shorter side brought to `size`, the centre cut out."""
    image = features.scaled(example["image"])
    shape = tf.cast(tf.shape(image)[:2], tf.float32)
    target = tf.cast(tf.math.round(shape * size / tf.reduce_min(shape)), tf.int32)
    image = tf.image.resize(image, target, "bicubic", antialias=True)
    image = tf.image.resize_with_crop_or_pad(image, size, size)
    return {**example, "image": tf.clip_by_value(image, 0.0, 1.0)}


def _single(encoder, train, validation, test, held_out, seed, reading):
    """Features and classes, with the positions that are fitted and those that choose."""
    first, queries = (features.extract(encoder, part, **reading) for part in (train, test))
    if validation is None:
        y, truth, names = features.number(first.labels, queries.labels)
        fitting, chosen_by = held_out_split(y, held_out, seed)
        if not len(chosen_by):
            raise BadInput(
                "too few examples of every class to hold some out: give more (or `validation`)"
            )
        return first.features, y, queries.features, truth, names, fitting, chosen_by
    second = features.extract(encoder, validation, **reading)
    features.number(first.labels, second.labels)  # refuses a training part of one class
    x = np.concatenate([first.features, second.features])
    labels = np.concatenate([first.labels, second.labels])
    y, truth, names = features.number(labels, queries.labels)
    where = np.arange(len(y))
    cut = len(first.features)
    return x, y, queries.features, truth, names, where[:cut], where[cut:]


def _several(encoder, train, validation, test, held_out, seed, reading):
    """As `_single`, with tables of several labels."""
    x, y = tables(encoder, train, **reading)
    queries, truth = tables(encoder, test, **reading)
    if validation is None:
        order = np.random.default_rng(seed).permutation(len(x))
        cut = round(held_out * len(x))
        chosen_by, fitting = np.sort(order[:cut]), np.sort(order[cut:])
    else:
        more, theirs = tables(encoder, validation, **reading)
        fitting, chosen_by = np.arange(len(x)), len(x) + np.arange(len(more))
        x, y = np.concatenate([x, more]), np.concatenate([y, theirs])
    y, truth = as_wide(y, truth)
    return x, y, queries, truth, None, fitting, chosen_by


def _of_deviation_one(x, queries):
    """(x, queries, s^2): both less the mean of x [N, D] and divided by s, its overall deviation.

    With lambda / s^2 this is the same problem, as the bias takes up the mean and W the s. But
    L-BFGS ends where the gradient is small, which that of small features is from the beginning.
    """
    mean, deviation = moments(x)
    squared = float(np.mean(np.square(deviation))) or 1.0
    return *(rescaled(part, mean, squared**-0.5) for part in (x, queries)), squared


def _fits(x, y, penalty, iterations, start=None):
    """One regression over classes [N], or one a column of a table [N, classes]."""
    columns = [y] if y.ndim == 1 else list(y.T)
    models = []
    for i, column in enumerate(columns):
        asked = column >= 0
        if len(np.unique(column[asked])) < 2:
            models.append(None)
            continue
        before = start[i] if start else None
        models.append(regression(x[asked], column[asked], 1 / penalty, iterations, before))
    return models


def _value(models, x, y, metric):
    if metric == "mAP_11point":
        each = []
        for model, column in zip(models, y.T):
            asked = column >= 0
            if model is not None and (column[asked] == 1).any():
                margins = model.decision_function(x[asked])
                each.append(metrics.average_precision(margins, column[asked], "11point"))
        if not each:
            raise BadInput("no class has a positive example on both sides: check the splits")
        return float(np.mean(each))
    right = models[0].predict(x) == y
    if metric == "top1":
        return float(right.mean())
    return float(np.mean([right[y == c].mean() for c in np.unique(y)]))
