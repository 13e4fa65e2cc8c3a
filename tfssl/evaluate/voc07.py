"""VOC07 classification: one linear SVM a class on frozen features, mean average precision."""

import warnings

import numpy as np
import tensorflow as tf

from tfssl.errors import BadInput
from tfssl.evaluate import features, inputs, metrics
from tfssl.evaluate.layers import pooled_taps
from tfssl.evaluate.svm import unit

# Ten decades and sixteen powers of two (Goyal et al., ICCV 2019, appendix): 26 values.
PENALTIES = tuple(sorted([10.0**e for e in range(-7, 3)] + [2.0**-e for e in range(4, 20)]))
# Side in pixels to which pictures are squeezed (Goyal et al., ICCV 2019, appendix).
SIDE = 224
# Classes are numbered below this.
_MOST = 1024


def voc07(
    encoder,
    train,
    test,
    penalties=PENALTIES,
    folds=3,
    positive_weight=2.0,
    tap="",
    dimensions=9600,
    pooling="fair",
    size=0,
    seed=0,
    **reading,
):
    """Mean AP of one-against-the-rest linear SVMs (Goyal et al., ICCV 2019, section 5.1).

    Every feature vector is divided by its length plus 1e-5. For each class: L2 penalty, squared
    hinge, dual, tolerance 1e-4, at most 2,000 iterations, positives weighing 2; C by
    cross-validated average precision on the training set, then all of it is fitted. A picture
    whose objects of a class are all difficult is left out for that class, in both sets.

    Args:
        encoder: anything callable on a batch (see `features.extract`).
        train, test: unbatched datasets of dicts with an input and `labels` int [k], the classes of
            all objects, and perhaps `labels_no_difficult` int [l], as tfds:voc has them; or tuples
            (inputs, table) with a table [N, classes] of 1 (there), 0 (not), -1 (not to be asked).
            VOC07's training set is trainval, 5,011 pictures; its test set holds 4,952.
        penalties: the values of C that are tried for each class.
        folds: of the cross-validation; fewer where a class has fewer positives.
        positive_weight: of the positives; negatives weigh 1.
        tap: a tap's name, to take its map pooled to `dimensions` by `pooling` (see
            `layers.pooled`) in place of the encoder's features.
        size: side of the square to which pictures are squeezed, nothing cropped; 0: the encoder's
            own where it takes one size only, else 224. Arrays are taken as they are.
        seed: of the SVMs.
        **reading: `batch_size`, `key` of `features.extract`.

    Returns:
        dict: `mAP` (area) and `mAP_11point` over the classes with a positive in both sets,
        `ap_by_class` (area, None for others), `C` and `folds` (lists by class, None for others; 0
        folds where C was not chosen by cross-validation), `positive_weight`, `tap`, `dimensions`
        and `pooling` (of the tap's map, if one is named), `size` (as it was taken: a side, or
        [height, width]; 0 of arrays), `train_examples`, `test_examples`, `classes`.

    Raises:
        BadInput: data without several labels, a class above 1023, no class with positives,
            features not finite.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.model_selection import StratifiedKFold, cross_val_score
    from sklearn.svm import LinearSVC

    arrays = isinstance(train, tuple)
    size = 0 if arrays else size or own_size(encoder)
    how = dict(tap=tap, dimensions=dimensions, pooling=pooling, size=size, **reading)
    (x, y), (queries, truth) = (tables(encoder, part, **how) for part in (train, test))
    y, truth = as_wide(y, truth)
    x, queries = unit(x), unit(queries)

    def machine(penalty):
        return LinearSVC(
            C=penalty,
            dual=True,  # left to itself scikit-learn takes the primal, with another stopping rule
            class_weight={1: positive_weight, 0: 1.0},
            tol=1e-4,
            max_iter=2000,
            random_state=seed,
        )

    areas, elevenths, chosen, used = [], [], [], []
    for label in range(y.shape[1]):
        asked, there = y[:, label] >= 0, truth[:, label] >= 0
        classes = y[asked, label]
        rarest = np.bincount(classes, minlength=2).min() if len(classes) else 0
        if not rarest or not (truth[there, label] == 1).any():
            areas.append(np.nan)
            elevenths.append(np.nan)
            chosen.append(None)
            used.append(None)
            continue
        with warnings.catch_warnings():
            # An unfinished fit at a weak penalty is scored like any other.
            warnings.simplefilter("ignore", ConvergenceWarning)
            best, parts = sorted(penalties)[0], 0
            if len(penalties) > 1 and rarest > 1:
                parts = int(min(folds, rarest))
                cut = StratifiedKFold(parts)
                found = [
                    cross_val_score(
                        machine(c), x[asked], classes, cv=cut, scoring="average_precision"
                    ).mean()
                    for c in sorted(penalties)
                ]
                best = sorted(penalties)[int(np.argmax(found))]
            margins = machine(best).fit(x[asked], classes).decision_function(queries[there])
        areas.append(metrics.average_precision(margins, truth[there, label]))
        elevenths.append(metrics.average_precision(margins, truth[there, label], "11point"))
        chosen.append(best)
        used.append(parts)
    if np.isnan(areas).all():
        raise BadInput("no class has a positive example in both sets: check the splits' labels")
    return {
        "mAP": float(np.nanmean(areas)),
        "mAP_11point": float(np.nanmean(elevenths)),
        "ap_by_class": [None if np.isnan(value) else float(value) for value in areas],
        "C": chosen,
        "folds": used,
        "positive_weight": positive_weight,
        "tap": tap,
        "dimensions": dimensions,
        "pooling": pooling,
        "size": size if isinstance(size, int) else list(size),
        "train_examples": len(x),
        "test_examples": len(queries),
        "classes": y.shape[1],
    }


def own_size(encoder):
    """The side, or (height, width), of the only pictures that an encoder takes, else `SIDE`."""
    for shape, _ in inputs.input_specs(encoder).values():
        if len(shape) == 4 and shape[1] and shape[2]:
            return shape[1] if shape[1] == shape[2] else shape[1:3]
    return SIDE


def tables(encoder, data, tap="", dimensions=9600, pooling="fair", size=0, batch_size=256, key=""):
    """(features [N, D], table int [N, classes] of 1, 0 and -1) of data with several labels."""
    if isinstance(data, tuple):
        table = np.asarray(data[1])
        if table.ndim != 2 or len(table) != len(data[0]):
            raise BadInput(f"labels must be a table [N, classes] of 1, 0 and -1, not {table.shape}")
        rows = {"inputs": data[0], "table": table.astype(np.int8), "index": np.arange(len(table))}
        data = features.in_rows(rows)
    else:
        spec = data.element_spec
        if not isinstance(spec, dict) or "labels" not in spec or spec["labels"].shape.rank != 1:
            raise BadInput(
                "this protocol needs unbatched examples with `labels` [k], the classes of all "
                "their objects: tfds:voc/2007, or a VOCdevkit's folder"
            )
        data = data.map(lambda example: _tabled(example, size), num_parallel_calls=tf.data.AUTOTUNE)
    if tap:
        run, _ = pooled_taps(encoder, dimensions, pooling)
    else:
        run = features.inference(encoder)
    kept = ("table", "highest")
    results, columns = features.run(run, encoder, data, batch_size, key, 0, "label", kept)
    highest = np.max(columns.get("highest", 0))
    if highest >= _MOST:
        raise BadInput(
            f"labels holds class {highest}, but classes are numbered below {_MOST}: number those "
            "that there are from 0 on"
        )
    if tap and tap not in results:
        raise BadInput(f"the encoder has no tap {tap!r}; it has {', '.join(results)}")
    return results[tap or "features"], columns["table"].astype(np.int64)


def _tabled(example, size):
    labels = tf.cast(example["labels"], tf.int32)
    sure = tf.cast(example.get("labels_no_difficult", labels), tf.int32)

    def held(numbers):
        return tf.reduce_max(tf.one_hot(numbers, _MOST, dtype=tf.int8), axis=0, keepdims=False)

    # An empty list of labels has the smallest int8 as its maximum.
    any_of, sure_of = tf.maximum(held(labels), 0), tf.maximum(held(sure), 0)
    kept = {k: v for k, v in example.items() if k in ("image", "inputs", "index")}
    if size and "image" in kept:
        shape = (size, size) if isinstance(size, int) else size
        kept["image"] = tf.image.resize(features.scaled(kept["image"]), shape, antialias=True)
    table = tf.where(sure_of > 0, tf.ones_like(any_of), -any_of)
    return {**kept, "table": table, "highest": tf.reduce_max(labels)}


def as_wide(y, truth):
    """Both tables cut to the classes that occur anywhere, or as wide as they were given."""
    if y.shape[1] == truth.shape[1] == _MOST:
        used = np.flatnonzero((y != 0).any(0) | (truth != 0).any(0))
        width = int(used[-1]) + 1 if len(used) else 0
        return y[:, :width], truth[:, :width]
    if y.shape[1] != truth.shape[1]:
        raise BadInput(f"{y.shape[1]} classes in training, but {truth.shape[1]} in testing")
    return y, truth
