"""Evaluation while training: any protocol after an epoch, its numbers among the logs."""

import contextlib
import inspect
import random

import keras
import numpy as np


class Probe(keras.callbacks.Callback):
    """Runs an evaluation protocol on the encoder every few epochs and adds its numbers to the logs.

        Probe(functools.partial(evaluate.knn, train=train, test=test), every=5)

    adds `knn_top1`, `knn_top1_low`, ... to History, the progress bar and, if they come later in the
    list of callbacks, to TensorBoard and others. Training does not notice: nothing of the model is
    written, and the random numbers that follow are those that would have followed without it.

    Args:
        protocol: called with the encoder, returns a dict; its floats are logged, except settings,
            which are those that carry the name of an argument of the protocol.
        every: epochs between evaluations; the last epoch is evaluated too, whether planned or one
            within which training was stopped, unless its loss is no number.
        name: what the logs' names begin with; by default the protocol's own name.
        of: which encoder, one of the names in the model's `published`; by default the first.
    """

    def __init__(self, protocol, every=1, name="", of=""):
        super().__init__()
        function = protocol
        while hasattr(function, "func"):  # functools.partial
            function = function.func
        self.protocol, self.every, self.of = protocol, every, of
        self.name = name or getattr(function, "__name__", "probe").strip("<>")
        self.settings = _arguments(function)
        self.results = {}  # The last full result, settings included.

    def on_epoch_end(self, epoch, logs=None):
        if not due(self, epoch) or not np.isfinite((logs or {}).get("loss", 0.0)).all():
            return
        with undisturbed():
            self.results = self.protocol(encoder_of(self.model, self.of))
        if logs is not None:
            logs.update(
                {
                    f"{self.name}_{key}": value
                    for key, value in self.results.items()
                    if isinstance(value, float) and key not in self.settings
                }
            )


def due(callback, epoch):
    """Whether a callback that acts `every` few epochs has its turn after this one."""
    stopped = getattr(callback.model, "stop_training", False)  # `fit` makes the attribute
    last = stopped or epoch + 1 == callback.params.get("epochs")
    return last or not (epoch + 1) % callback.every


def encoder_of(model, name=""):
    """The encoder that a model will publish: by name, or the first; other models are their own."""
    published = getattr(model, "published", None) or {}
    if name:
        return published[name] if name in published else getattr(model, name)
    if published:
        return next(iter(published.values()))
    return getattr(model, "encoder", model)


@contextlib.contextmanager
def undisturbed():
    """Python's and NumPy's global random numbers go on afterwards as if nothing had been drawn."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def _arguments(function):
    try:
        return frozenset(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return frozenset()
