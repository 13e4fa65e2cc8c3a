"""Fine-tuning: what pretraining saves in labels when all weights may still move."""

import contextlib
import random

import keras
import numpy as np
import tensorflow as tf

from tfssl import copies, encoders
from tfssl.errors import BadInput
from tfssl.evaluate import features, order
from tfssl.evaluate.knn import counts
from tfssl.evaluate.linear import ranked
from tfssl.evaluate.low_label import drawn


def finetune(
    encoder,
    train,
    test,
    labels=1.0,
    epochs=10,
    least_steps=200,
    batch_size=64,
    learning_rate=1e-3,
    seed=0,
    label="label",
    key="",
    size=0,
):
    """Trains a copy of the encoder with a linear head on a class-balanced share of the labels.

    After Chen et al. (ICML 2020, section 5): 1 %, 10 % or all of the labels, every layer trains,
    also those that are frozen in the encoder. The examples that are used are held in memory, so
    that all of them are mixed, in whatever order they come.
    Departures: Adam with cosine decay to 0 instead of SGD or LARS, and no augmentation, as the
    right one depends on the data (digits must not be mirrored). Sounds and clips of several lengths
    are trained on at the median of their lengths, cut behind it or filled with silence or their
    last frame; they are measured whole.

    Args:
        encoder: a Keras model or layer, or a loaded SavedModel with trainable variables. It is as
            before when this returns: it is copied or, where it cannot be, put back.
        train, test: labelled examples, in any form that `features.extract` reads; every pass must
            give the same examples, their order may change.
        labels: the share of the training labels that is used, 0.01, 0.1, 1.0, ...; the same
            number of every class, at least one, as far as a class has them.
        epochs: passes over that share.
        least_steps: optimiser steps that are made even if the passes would be fewer.
        batch_size, learning_rate: of the fit.
        seed: of the draw, the head's weights, the order and the bootstrap.
        label, key, size: as in `features.extract`.

    Returns:
        dict: `top1` with `top1_low` and `top1_high` (95 %, bootstrap over test examples), `top5`
        where there are more than five classes, `mean_per_class`, `labels` (the share), `epochs`,
        `least_steps`, `steps` (those made), `batch_size`, `learning_rate`, `train_examples` (labels
        used), `test_examples`, `classes`.

    Raises:
        BadInput: an encoder that cannot train, a set without labels or examples, one training
            class only.
    """
    reading = dict(label=label, key=key, size=size)
    known = features.read_labels(train, label)
    y, _, names = features.number(known, features.read_labels(test, label))
    positions = balanced(y, labels, seed)
    inputs, classes, spec = _chosen(encoder, train, y, names, positions, reading)
    batch_size = min(batch_size, len(classes))
    data = order.epochs((inputs, classes), batch_size, seed).prefetch(2)
    steps = max(least_steps, epochs * len(classes) // batch_size)
    trained = len(np.unique(y))
    with reproducible(seed), trainable_copy(encoder) as network:
        model = _with_head(network, spec, trained)
        rate = keras.optimizers.schedules.CosineDecay(learning_rate, steps)
        model.compile(
            keras.optimizers.Adam(rate),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            jit_compile=False,
        )
        model.fit(data, epochs=1, steps_per_epoch=steps, shuffle=False, verbose=0)
        found = features.extract(model, test, **reading)
    _, truth, names = features.number(known, found.labels)
    return {
        **ranked(found.features, np.arange(trained), truth, seed),
        "labels": labels,
        "epochs": epochs,
        "least_steps": least_steps,
        "steps": steps,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        **counts(classes, truth, names),
    }


def balanced(y, share, seed=0):
    """Positions of `share` of the examples, the same number of every class, sorted.

    At least one of each class; a class with fewer gives all it has. A share of 1 is everything.

    Args:
        y: [N] classes.
        share: 0 < share <= 1.
        seed: same seed, same draw; a smaller share is part of a larger one.

    Raises:
        BadInput: a share outside (0, 1].
    """
    if not 0 < share <= 1:
        raise BadInput(f"labels is a share of the training labels, 0 < labels <= 1, not {share}")
    if share == 1:
        return np.arange(len(y))
    return drawn(y, max(1, round(share * len(y) / len(np.unique(y)))), seed)


def _chosen(encoder, train, y, names, positions, reading):
    """(inputs, classes int [n], spec) of the examples at `positions` of y [N], read in one pass.

    The dataset may come in another order than y did: the r-th example of a class that comes is
    taken where the r-th of that class in y was drawn.
    """
    data, batched, _ = features.dataset(encoder, train, **reading)
    data = data.map(lambda x, extra: features.scaled(x))
    spec = (data.unbatch() if batched else data).element_spec
    if any(not part.shape[1:].is_fully_defined() for part in tf.nest.flatten(spec)):
        raise BadInput("fine-tuning needs inputs of one known size: state size= (pixels)")
    wanted = [np.isin(np.flatnonzero(y == c), positions) for c in range(len(names))]
    seen, count = [0] * len(names), 0
    inputs = tf.nest.map_structure(lambda part: _room(part, len(positions)), spec)
    classes = np.empty(len(positions), np.int64)
    for x, extra, _ in features.batches(encoder, train, **reading):
        numbers, rows = features.numbered(extra["label"], names), []
        for row, c in enumerate(numbers):
            if seen[c] < len(wanted[c]) and wanted[c][seen[c]]:
                rows.append(row)
            seen[c] += 1
        for held, part in zip(tf.nest.flatten(inputs), tf.nest.flatten(x)):
            part = part.numpy()
            for place, row in enumerate(rows, count):
                held[place] = part[row]
        classes[count : count + len(rows)] = numbers[rows]
        count += len(rows)
    if count < len(positions):
        raise BadInput(
            "the training set held fewer examples of a class when it was read again: it must hold "
            "the same examples on every pass, in whatever order"
        )
    return tf.nest.map_structure(_of_one_length, inputs), classes, spec


def _room(part, count):
    """Where `count` values of a spec are put: one array, or a list where their lengths differ."""
    if part.shape.is_fully_defined():
        return np.empty([count, *part.shape], part.dtype.as_numpy_dtype)
    return np.empty([count], object)


def _of_one_length(values):
    """Values of several lengths as one array of their median length."""
    if values.dtype != object or values.ndim > 1 or isinstance(values[0], (str, bytes)):
        return values
    length = int(np.median([len(value) for value in values]))

    def fitted(value):
        room = [(0, max(0, length - len(value)))] + [(0, 0)] * (value.ndim - 1)
        return np.pad(value[:length], room, "edge" if value.ndim > 1 else "constant")

    return np.stack([fitted(value) for value in values])


def _with_head(network, spec, classes):
    def tensor(part, name=None):
        return keras.Input(part.shape, dtype=part.dtype.name, name=name)

    if isinstance(spec, dict):
        inputs = {name: tensor(part, name) for name, part in spec.items()}
    else:
        inputs = tensor(spec)
    logits = keras.layers.Dense(classes, dtype="float32", name="classes")(
        _Vectors()(network(inputs))
    )
    return keras.Model(inputs, logits)


class _Vectors(keras.layers.Layer):
    """Whatever the encoder gives -> [B, D] float32, as evaluation reads it."""

    def __init__(self):
        super().__init__(dtype="float32")

    def call(self, output):
        return features.vectors(output)


class _Restored(keras.layers.Layer):
    """A loaded SavedModel as a layer whose variables Keras trains."""

    def __init__(self, loaded):
        super().__init__(dtype="float32")
        self._run = features.restored(loaded)
        trainable = {id(v) for v in loaded.trainable_variables}
        self.held = [
            keras.Variable(
                v, shape=v.shape, dtype=v.dtype.name, trainable=id(v) in trainable, name=f"v{i}"
            )
            for i, v in enumerate(loaded.variables)
        ]

    def call(self, x, training=False):
        return self._run(x, training=bool(training))


def _cloned(encoder):
    """The same architecture again, or None where it is not known (subclasses without a config)."""
    if not isinstance(encoder, keras.Model):
        return None
    try:
        return keras.models.clone_model(encoder)
    except (NotImplementedError, TypeError, ValueError):
        return None


@contextlib.contextmanager
def trainable_copy(encoder):
    """A network that computes what `encoder` does and may be trained; `encoder` stays as it is."""
    encoder = encoders.of_unit_range(encoder)
    copy = _cloned(encoder)
    if copy is not None:
        copies.with_weights(copy, encoder)
        encoders.unfreeze(copy)
        yield copy
        return
    if isinstance(encoder, keras.layers.Layer):
        network, variables = encoder, [v.value for v in encoder.weights]
    elif callable(encoder) and getattr(encoder, "trainable_variables", None):
        network, variables = _Restored(encoder), list(encoder.variables)
    else:
        raise BadInput(
            "fine-tuning needs an encoder with trainable weights: a Keras model, or a SavedModel "
            "that tfssl exported"
        )
    before = [v.numpy() for v in variables]
    flags = [(part, part.trainable) for part in [*network.weights, *network._flatten_layers()]]
    try:
        encoders.unfreeze(network)
        yield network
    finally:
        for part, flag in flags:
            # A layer's own setter would pass the flag on to the layers inside.
            name = "_trainable" if isinstance(part, keras.layers.Layer) else "trainable"
            setattr(part, name, flag)
        for variable, value in zip(variables, before):
            variable.assign(value)


@contextlib.contextmanager
def reproducible(seed):
    """Weights made inside depend on `seed` alone; the callers' random numbers are not touched.

    Keras draws the seeds of initialisers and dropout from Python's own generator.
    """
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)
