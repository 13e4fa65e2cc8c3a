"""The AlexNet tables: a linear classifier on every layer, pooled to about 9,000 values, by SGD."""

import keras
import numpy as np
import tensorflow as tf

from tfssl.evaluate import features, order
from tfssl.evaluate.knn import counts
from tfssl.evaluate.layers import pooled_taps, tap_features
from tfssl.evaluate.linear import batch_norm, ranked, refuse_diverged, settle
from tfssl.optimizers import falling

# The published runs last 140,000 iterations; the rate falls to a tenth after these shares of them.
_DROPS = (40 / 140, 80 / 140, 120 / 140)
# Bytes of pooled features that are held at a time.
_MEMORY = 2**30


def layers_sgd(
    encoder,
    train,
    test,
    iterations=1400,
    dimensions=9600,
    pooling="fair",
    learning_rate=0.01,
    weight_decay=5e-4,
    nesterov=False,
    batch_size=256,
    flip=True,
    seed=0,
    label="label",
    **reading,
):
    """One linear classifier a tap by SGD, as the AlexNet tables train it.

    Goyal et al. (ICCV 2019, appendix): the map after the ReLU, averaged to about 9,000 values, a
    batch norm without scale and shift, a linear layer from N(0, 0.01); momentum 0.9, batches of
    256, a rate of 0.01 that falls to a tenth after 40, 80 and 120 of 140 thousand iterations,
    weight decay 5e-4 (ResNet-50: 1e-4 with `nesterov`), pictures and their mirror images. The trunk
    is in inference mode; the probes share nothing and are trained together. Departure: a hundredth
    of the iterations, with the falls at the same shares; say 140_000 for ImageNet.

    Args:
        encoder: a Keras model with tap layers, or a SavedModel with a `representation` signature.
        train, test: labelled examples, in any form that `features.extract` reads. Features of more
            than 1 GiB are computed anew in every epoch: arrays and datasets with a `gather` are
            then read in a new order each time; other datasets should come mixed, not by class.
        iterations, learning_rate, weight_decay, nesterov, batch_size: of the probes.
        dimensions: most values per example and tap.
        pooling: see `pooled`.
        flip: mirrored pictures are trained on too; False for digits, letters and such.
        seed: of the initial weights, the order and the bootstrap.
        label, **reading: `key`, `size` of `features.extract`.

    Returns:
        dict: for every tap, in the network's order, `<tap>_top1`, `<tap>_top1_low`,
        `<tap>_top1_high`, `<tap>_dimensions`; then `taps` (how many) and the settings.

    Raises:
        BadInput: an encoder without taps, an unknown pooling, sets that `linear_sgd` refuses.
    """
    run, in_order = pooled_taps(encoder, dimensions, pooling)
    how = dict(label=label, pooling=pooling, **reading)
    queries, test_labels = tap_features(encoder, test, dimensions, **how)
    y, truth, names = features.number(features.read_labels(train, label), test_labels)
    spec = {tap: tf.TensorSpec([None, values.shape[1]]) for tap, values in queries.items()}

    def read(examples):
        for x, extra, _ in features.batches(encoder, examples, label=label, **reading):
            classes = features.numbered(extra["label"], names)
            yield arrays(x), classes
            if flip and not isinstance(x, dict) and x.shape.rank == 4:
                yield arrays(tf.reverse(x, [2])), classes

    def arrays(x):
        found = {tap: values.numpy() for tap, values in run(x).items()}
        for tap, values in found.items():
            features.refuse_other_widths(spec[tap].shape[1:], values)
            features.check_finite(values)
        return found

    width = sum(values.shape[1] for values in queries.values())
    batch_size = min(batch_size, len(y))
    # In memory a feature costs its four bytes; what does not fit is computed anew in every epoch.
    if 4 * width * len(y) * (2 if flip else 1) <= _MEMORY:
        rows = tf.nest.map_structure(lambda *parts: np.concatenate(parts), *read(train))
        data = order.epochs(rows, batch_size, seed)
    else:
        buffer = max(batch_size, min(len(y), _MEMORY // (4 * width)))
        row = (spec, tf.TensorSpec([None], tf.int64))
        data = order.streamed(read, train, row, batch_size, buffer, seed)
    probes = _probes(spec, len(np.unique(y)), weight_decay, seed)
    rate = falling(learning_rate, iterations, _DROPS)
    probes.compile(
        keras.optimizers.SGD(rate, momentum=0.9, nesterov=nesterov),
        {tap: keras.losses.SparseCategoricalCrossentropy(from_logits=True) for tap in spec},
        jit_compile=False,
    )
    data = data.map(lambda x, c: (x, dict.fromkeys(spec, c))).prefetch(2)
    with order.refusing():
        fitted = probes.fit(data, epochs=1, steps_per_epoch=iterations, shuffle=False, verbose=0)
    refuse_diverged(fitted.history["loss"])
    for layer in probes.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            settle(layer, iterations)
    logits = probes.predict(queries, batch_size=256, verbose=0)
    result = {}
    for tap in in_order(spec):
        found = ranked(logits[tap], np.arange(len(np.unique(y))), truth, seed)
        for metric in ("top1", "top1_low", "top1_high"):
            result[f"{tap}_{metric}"] = found[metric]
        result[f"{tap}_dimensions"] = queries[tap].shape[1]
    return {
        **result,
        "taps": len(spec),
        "dimensions": dimensions,
        "pooling": pooling,
        "iterations": iterations,
        "learning_rate": learning_rate,
        "weight_decay": weight_decay,
        "nesterov": nesterov,
        "batch_size": batch_size,
        "flip": flip,
        **counts(y, truth, names),
    }


def _probes(spec, classes, weight_decay, seed):
    """A batch norm and a linear layer for every tap, as one model of dicts."""
    inputs = {
        tap: keras.Input(part.shape[1:], dtype="float32", name=tap.replace("/", "_"))
        for tap, part in spec.items()
    }
    outputs = {}
    for i, (tap, x) in enumerate(inputs.items()):
        x = batch_norm()(x)
        outputs[tap] = keras.layers.Dense(
            classes,
            kernel_initializer=keras.initializers.RandomNormal(stddev=0.01, seed=seed + i),
            # Keras' L2 has no half in front: its gradient is twice its factor.
            kernel_regularizer=keras.regularizers.L2(weight_decay / 2),
            dtype="float32",
        )(x)
    return keras.Model(inputs, outputs)
