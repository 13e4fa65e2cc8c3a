"""Linear probes: how much of the labels a linear layer reads out of frozen features."""

import warnings

import keras
import numpy as np
import tensorflow as tf

from tfssl.errors import BadInput
from tfssl.evaluate import features, order
from tfssl.evaluate.knn import counts, scores

# scikit-learn's C = 1 / lambda of  sum_i CE_i + (lambda / 2) |W|^2; the bias is not penalised
# there either. On standardised features the best C moves little, so a short grid serves.
PENALTIES = tuple(10.0**exponent for exponent in (-4, -3, -2, -1, 0, 1))
# Where nothing can be held out to choose by: the grid's middle and scikit-learn's own default.
DEFAULT_PENALTY = 1.0
# Of the probes' batch norm, as published. Keras' own 1e-3 is more than the whole variance of many
# features that are averages over a map, and would shrink them away.
EPSILON, MOMENTUM = 1e-5, 0.9
# Below this many training examples one held-out part is too small to choose by: the mean of five.
_FEW, _FEW_SPLITS = 1000, 5
# Values in a feature matrix from which more than one thread pays.
_THREADED = 2**25


def linear(
    encoder,
    train,
    test,
    penalties=PENALTIES,
    validation=0.2,
    iterations=500,
    seed=0,
    **reading,
):
    """Multinomial logistic regression by L-BFGS on frozen features (Kornblith et al., CVPR 2019).

    Features are standardised with the training set's mean and deviation. C is the one that does
    best on a part of the training set held out by class (five such parts below 1,000 examples), or
    1 where every class is too small to hold any out; then all of the training set is fitted.
    Departure from the paper: six decades of C instead of 45 values, as features are standardised.

    Args:
        encoder: anything callable on a batch (see `features.extract`).
        train, test: labelled examples, in any form that `features.extract` reads.
        penalties: the values of C that are tried; a single one is taken without validation.
        validation: share of the training set that chooses C.
        iterations: the most that L-BFGS makes per fit.
        seed: of the validation split and the bootstrap.
        **reading: `batch_size`, `key`, `size`, `label` of `features.extract`.

    Returns:
        dict: `top1` with `top1_low` and `top1_high` (95 %, bootstrap over test examples), `top5`
        where there are more than five classes, `mean_per_class`, `C`, `C_from` (`validation`;
        `default`, where nothing could be held out; `given`, where there was one only),
        `standardised`, `validation` (the share), `validation_top1`, `iterations`, `train_examples`,
        `test_examples`, `classes`.

    Raises:
        BadInput: a set without labels or examples, one training class only, features not finite.
    """
    x, y, queries, truth, names = features.labelled(encoder, train, test, **reading)
    return fit(x, y, queries, truth, names, penalties, validation, iterations, seed)


def fit(x, y, queries, truth, names, penalties=PENALTIES, validation=0.2, iterations=500, seed=0):
    """`linear` on features [N, D] and [M, D] that are there already, classes as `number` gives."""
    penalties = sorted(penalties)
    chosen, validation_top1, source = penalties[0], None, "given"
    if len(penalties) > 1:
        chosen, validation_top1 = _choose(x, y, penalties, validation, iterations, seed)
        source = "default" if validation_top1 is None else "validation"
    x, queries = standardised(x, queries)
    model = regression(x, y, chosen, iterations)
    logits = model.decision_function(queries)
    return {
        **ranked(logits, model.classes_, truth, seed),
        "C": chosen,
        "C_from": source,
        "standardised": True,
        "validation": validation,
        "iterations": iterations,
        **({} if validation_top1 is None else {"validation_top1": validation_top1}),
        **counts(y, truth, names),
    }


def _choose(x, y, penalties, validation, iterations, seed):
    """(the best C, its share of right ones among the held out); the smallest C among equals.

    (`DEFAULT_PENALTY`, None) where nothing can be held out.
    """
    right, splits = np.zeros(len(penalties)), []
    for i in range(1 if len(y) >= _FEW else _FEW_SPLITS):
        fitting, held_out = held_out_split(y, validation, seed + i)
        if len(held_out) and len(np.unique(y[fitting])) > 1:
            parts = standardised(x[fitting], x[held_out])
            splits.append((parts, y[fitting], y[held_out], []))
    if not splits:
        return DEFAULT_PENALTY, None
    count = sum(len(truth) for _, _, truth, _ in splits)
    for i, penalty in enumerate(penalties):
        for (fitted, held_out), classes, truth, models in splits:
            model = regression(fitted, classes, penalty, iterations, *models[-1:])
            models.append(model)
            right[i] += (model.predict(held_out) == truth).sum() / count
        best = right[: i + 1].max()
        clearly_worse = best - 2 * np.sqrt(best * (1 - best) / count)
        if i > 1 and right[i - 1 : i + 1].max() < clearly_worse:
            break  # Weaker penalties would overfit more, and they cost most.
    chosen = int(np.argmax(right))
    return penalties[chosen], float(right[chosen])


def regression(x, y, penalty, iterations, start=None):
    """Scikit-learn's fit of x [N, D], y [N] at C = `penalty`, beginning at `start` if one is given.

    Minimises sum_i CE_i + |W|^2 / (2 C); the bias is not penalised.
    """
    import threadpoolctl
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=penalty, max_iter=iterations, warm_start=True)
    if start is not None:
        # Along the grid each fit starts where the one before ended.
        model.coef_, model.intercept_, model.classes_ = (
            start.coef_,
            start.intercept_,
            start.classes_,
        )
    # On a busy machine two waiting BLAS threads were seen 30 times slower than one.
    threads = 1 if x.size < _THREADED else None
    with warnings.catch_warnings(), threadpoolctl.threadpool_limits(threads):
        # An unfinished fit at a weak penalty is scored like any other; it need not be announced.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(x, y)


def standardised(x, queries):
    """Both with the mean and the deviation of `x`; constant dimensions become 0."""
    mean, deviation = moments(x)
    # Below this a dimension is constant up to rounding, and dividing would only amplify noise.
    constant = deviation <= 1e-6 * np.maximum(1e-6, np.abs(mean))
    scale = np.where(constant, 0.0, 1 / np.where(constant, 1.0, deviation))
    return tuple(rescaled(part, mean, scale) for part in (x, queries))


def moments(x):
    """(mean, deviation) of every dimension of x [N, D], float64."""
    mean = x.mean(axis=0, dtype=np.float64)
    squares = sum(np.square(rows - mean).sum(axis=0) for rows in _blocks(x))
    return mean, np.sqrt(squares / len(x))


def rescaled(x, mean, scale):
    """(x - mean) * scale, float32."""
    return np.concatenate([((rows - mean) * scale).astype(np.float32) for rows in _blocks(x)])


def _blocks(x, rows=2**14):
    """x [N, D] a few rows at a time: all of it in float64 is more than many machines hold."""
    return (x[start : start + rows] for start in range(0, max(1, len(x)), rows))


def held_out_split(y, share, seed):
    """Positions (kept, held out): `share` of every class, drawn by `seed`.

    A class keeps at least one example; one with a single example holds none out.
    """
    generator = np.random.default_rng(seed)
    out = []
    for c in np.unique(y):
        where = generator.permutation(np.flatnonzero(y == c))
        out.append(where[: min(round(share * len(where)), len(where) - 1)])
    out = np.sort(np.concatenate(out))
    return np.setdiff1d(np.arange(len(y)), out), out


def ranked(logits, classes, truth, seed=0):
    """`scores` of logits [M, K], and `top5` where there are more than five classes to choose from.

    Logits [M], as scikit-learn gives for two classes, are those of the second.
    """
    if logits.ndim == 1:
        logits = np.stack([-logits, logits], axis=1)
    result = scores(classes[logits.argmax(axis=1)], truth, seed)
    if len(classes) > 5:
        best = classes[np.argsort(-logits, axis=1)[:, :5]]
        result["top5"] = float((best == truth[:, None]).any(axis=1).mean())
    return result


def linear_sgd(
    encoder,
    train,
    test,
    epochs=30,
    learning_rate=0.1,
    batch_size=256,
    cache=True,
    buffer=20_000,
    seed=0,
    label="label",
    **reading,
):
    """A linear layer trained by SGD on streamed frozen features: for data too large for `linear`.

    Batch norm without scale and shift (running averages at test time), then a linear layer from
    N(0, 0.01) (Goyal et al., ICCV 2019, appendix); momentum 0.9, no weight decay, and
    learning_rate * batch_size / 256 with cosine decay to 0 (Chen et al., ICML 2020, appendix
    B.6). No augmentation, so that features need computing only once.

    Args:
        encoder: anything callable on a batch (see `features.extract`).
        train, test: labelled examples, in any form that `features.extract` reads.
        epochs, learning_rate, batch_size: of the probe.
        cache: keep the training features in memory and mix all of them in every epoch; without it
            they are computed anew in every epoch and only `buffer` of them are held. Arrays and
            datasets with a `gather` are then read in a new order each time; other datasets should
            come mixed, as a buffer cannot mend an order by class.
        buffer: features that are shuffled at a time without `cache`.
        seed: of the initial weights, the order and the bootstrap.
        label, **reading: `key`, `size` of `features.extract`.

    Returns:
        dict: `top1` with `top1_low` and `top1_high` (95 %, bootstrap over test examples), `top5`
        where there are more than five classes, `mean_per_class`, `epochs`, `learning_rate`,
        `batch_size`, `train_examples`, `test_examples`, `classes`.

    Raises:
        BadInput: a set without labels or examples, one training class only, features not finite.
    """
    queries = features.extract(encoder, test, label=label, **reading)
    if cache or isinstance(train, features.Features):
        gallery = features.extract(encoder, train, label=label, **reading)
        y, truth, names = features.number(gallery.labels, queries.labels)
        batch_size = min(batch_size, len(y))
        data = order.epochs((gallery.features, y), batch_size, seed)
    else:
        y, truth, names = features.number(features.read_labels(train, label), queries.labels)
        batch_size = min(batch_size, len(y))
        call = features.inference(encoder)

        def read(examples):
            for x, extra, _ in features.batches(encoder, examples, label=label, **reading):
                vectors = np.asarray(call(x)["features"])
                features.check_finite(vectors)
                yield vectors, features.numbered(extra["label"], names)

        spec = (tf.TensorSpec([None, queries.features.shape[1]]), tf.TensorSpec([None], tf.int64))
        data = order.streamed(read, train, spec, batch_size, min(buffer, len(y)), seed)
    steps = len(y) // batch_size
    trained = len(np.unique(y))
    probe = keras.Sequential(
        [
            batch_norm(),
            keras.layers.Dense(
                trained,
                kernel_initializer=keras.initializers.RandomNormal(stddev=0.01, seed=seed),
                dtype="float32",
            ),
        ]
    )
    rate = keras.optimizers.schedules.CosineDecay(learning_rate * batch_size / 256, epochs * steps)
    probe.compile(
        keras.optimizers.SGD(rate, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False,
    )
    fitting = dict(epochs=epochs, steps_per_epoch=steps, shuffle=False, verbose=0)
    with order.refusing():
        fitted = probe.fit(data.prefetch(2), **fitting)
    refuse_diverged(fitted.history["loss"])
    settle(probe.layers[0], epochs * steps)
    logits = features.extract(probe, queries.features).features
    return {
        **ranked(logits, np.arange(trained), truth, seed),
        "epochs": epochs,
        "learning_rate": learning_rate,
        "batch_size": batch_size,
        **counts(y, truth, names),
    }


def batch_norm():
    """Batch norm without scale and shift, as probes have it; to be settled after the fit."""
    return keras.layers.BatchNormalization(
        momentum=MOMENTUM,
        epsilon=EPSILON,
        center=False,
        scale=False,
        moving_variance_initializer="zeros",
        dtype="float32",
    )


def settle(norm, steps):
    """Takes out of running averages the zeros that they began with.

    After 30 steps 4 % of a beginning are left, which can be many times a small variance.
    """
    for average in (norm.moving_mean, norm.moving_variance):
        average.assign(average / (1 - MOMENTUM**steps))


def refuse_diverged(losses):
    """Raises BadInput where a fit's losses are not all finite: its numbers would say nothing."""
    if not np.isfinite(losses).all():
        raise BadInput(
            "the fit's loss became NaN or infinite: the encoder gives no finite numbers (its "
            "weights have diverged, or a picture's are not finite), or learning_rate is too high"
        )
