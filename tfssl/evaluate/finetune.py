"""Fine-tuning: what pretraining saves in labels when all weights may still move."""

import contextlib
import random

import keras
import numpy as np
import tensorflow as tf

from tfssl.errors import BadInput
from tfssl.evaluate import features
from tfssl.evaluate.knn import counts
from tfssl.evaluate.linear import ranked


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

    After Chen et al. (ICML 2020, section 5): 1 %, 10 % or all of the labels, every layer trains.
    Departures: Adam with cosine decay to 0 instead of SGD or LARS, and no augmentation, as the
    right one depends on the data (digits must not be mirrored).

    Args:
        encoder: a Keras model or layer, or a loaded SavedModel with trainable variables. It is as
            before when this returns: it is copied or, where it cannot be, put back.
        train, test: labelled examples, in any form that `features.extract` reads.
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
        `steps`, `batch_size`, `learning_rate`, `train_examples` (labels used), `test_examples`,
        `classes`.

    Raises:
        BadInput: an encoder that cannot train, a set without labels or examples, one training
            class only.
    """
    reading = dict(label=label, key=key, size=size)
    y, truth, names = features.number(
        features.read_labels(train, label), features.read_labels(test, label)
    )
    drawn = balanced(y, labels, seed)
    data = _chosen(encoder, train, y, drawn, reading)
    batch_size = min(batch_size, len(drawn))
    data = data.cache().shuffle(min(len(drawn), 20_000), seed=seed).repeat()
    data = data.batch(batch_size, drop_remainder=True).prefetch(2)
    steps = max(least_steps, epochs * len(drawn) // batch_size)
    trained = len(np.unique(y))
    with reproducible(seed), trainable_copy(encoder) as network:
        model = _with_head(network, data.element_spec[0], trained)
        rate = keras.optimizers.schedules.CosineDecay(learning_rate, steps)
        model.compile(
            keras.optimizers.Adam(rate),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            jit_compile=False,
        )
        model.fit(data, epochs=1, steps_per_epoch=steps, shuffle=False, verbose=0)
        logits = features.extract(model, test, **reading).features
    return {
        **ranked(logits, np.arange(trained), truth, seed),
        "labels": labels,
        "epochs": epochs,
        "steps": steps,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        **counts(y[drawn], truth, names),
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
    generator = np.random.default_rng(seed)
    classes = np.unique(y)
    each = max(1, round(share * len(y) / len(classes)))
    drawn = [generator.permutation(np.flatnonzero(y == c))[:each] for c in classes]
    return np.sort(np.concatenate(drawn))


def _chosen(encoder, train, y, drawn, reading):
    """Dataset of (input, class), unbatched, of the drawn positions only."""
    data, batched, _ = features.dataset(encoder, train, **reading)
    data = data.map(lambda x, extra: x)
    data = data.unbatch() if batched else data
    wanted = np.zeros(len(y), bool)
    wanted[drawn] = True
    wanted, classes = tf.constant(wanted), tf.constant(y)
    data = data.enumerate().filter(lambda i, x: wanted[i])
    if any(not shape.is_fully_defined() for shape in _shapes(data.element_spec[1])):
        raise BadInput(
            "fine-tuning needs inputs of one known size: state size= (pixels), or bring sounds and "
            "clips to one length before"
        )
    return data.map(lambda i, x: (features.scaled(x), classes[i]))


def _shapes(spec):
    return [part.shape for part in tf.nest.flatten(spec)]


def _with_head(network, spec, classes):
    def tensor(part, name=None):
        return keras.Input(part.shape[1:], dtype=part.dtype.name, name=name)

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
        self._loaded = [loaded]  # In a list, or Keras would look for layers inside it.
        trainable = {id(v) for v in loaded.trainable_variables}
        self.held = [
            keras.Variable(
                v, shape=v.shape, dtype=v.dtype.name, trainable=id(v) in trainable, name=f"v{i}"
            )
            for i, v in enumerate(loaded.variables)
        ]

    def call(self, x, training=False):
        return self._loaded[0](x, training=bool(training))


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
    copy = _cloned(encoder)
    if copy is not None:
        copy.set_weights(encoder.get_weights())
        copy.trainable = True
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
    before, frozen = [v.numpy() for v in variables], not network.trainable
    try:
        network.trainable = True
        yield network
    finally:
        network.trainable = not frozen
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
