"""Exact resume: checkpoints after every epoch, and the way back to the last one."""

import contextlib
import json
import pathlib
import re
import zipfile
import zlib

import keras
import numpy as np

from tfssl.errors import BadInput
from tfssl.files import written_whole

# What reading a file raises that was cut short, or has a bit flipped in it.
DAMAGED = (EOFError, KeyError, OSError, RuntimeError, ValueError, zipfile.BadZipFile, zlib.error)
NUMBER = re.compile(r"_\d+(?=[_/]|$)")  # Keras counts layers of one name through a process


class Resume(keras.callbacks.Callback):
    """Continues a run after its last finished epoch, with every bit of its state.

    All variables of the model (weights, teachers, queues, metrics, random generators) and of its
    optimisers are saved after each epoch, written aside and renamed; the last two files are kept.
    The data continue where they were if the dataset starts at the right step:

        resume = Resume("checkpoints")
        data = batching.train(ds, views, 64, start_step=resume.epoch * steps_per_epoch)
        model.fit(data, epochs=10, callbacks=[resume])

    Args:
        directory: where the checkpoints are, or will be.
        keep: number of checkpoints kept.

    Raises:
        BadInput: when training begins, if a checkpoint is of another model.
    """

    def __init__(self, directory, keep=2):
        super().__init__()
        self.directory = pathlib.Path(directory)
        self.keep = keep

    @property
    def epoch(self):
        """Number of epochs that the newest readable checkpoint has behind it; 0 without one."""
        return next((epoch for epoch, _ in self._readable()), 0)

    def on_train_begin(self, logs=None):
        optimizer = self.model.optimizer
        if optimizer is not None and not optimizer.built:
            with self.model.distribute_strategy.scope():
                optimizer.build(self.model.trainable_variables)
        for epoch, arrays in self._readable():
            self._restore(arrays)
            self.model._initial_epoch = epoch
            return

    def on_epoch_begin(self, epoch, logs=None):
        # `fit` knows by now where to begin; the next one, perhaps without this callback, does not.
        self.model._initial_epoch = None

    def on_train_end(self, logs=None):
        self.model._initial_epoch = None  # where no epoch was left to begin

    def on_epoch_end(self, epoch, logs=None):
        if not _is_chief(self.model):
            return
        # A run whose loss is no number any more shall resume from before that.
        if not np.isfinite((logs or {}).get("loss", 0.0)):
            return
        variables = self._variables()
        arrays = {f"v{i:05d}": _numpy(variable) for i, variable in enumerate(variables)}
        paths = json.dumps([variable.path for variable in variables])
        with (
            written_whole(self.directory / f"epoch-{epoch + 1:06d}.npz") as aside,
            open(aside, "wb") as file,
        ):
            np.savez(file, paths=np.array(paths), epoch=np.array(epoch + 1), **arrays)
        for old in self._files()[self.keep :]:
            old.unlink(missing_ok=True)

    def _variables(self):
        found = list(self.model.variables)
        for name in ("optimizer", "critic_optimizer"):
            found += getattr(getattr(self.model, name, None), "variables", [])
        return found

    def _files(self):
        """The checkpoints, newest first."""
        return sorted(self.directory.glob("epoch-*.npz"), reverse=True)

    def _readable(self):
        """(epoch, arrays) of each whole checkpoint, newest first."""
        for path in self._files():
            with contextlib.suppress(*DAMAGED):
                arrays = _arrays(path)
                yield int(arrays["epoch"]), arrays

    def _restore(self, arrays):
        variables = self._variables()
        saved = [arrays[key] for key in sorted(arrays) if key.startswith("v")]
        shapes = [tuple(variable.shape) for variable in variables]
        names = [variable.path for variable in variables], json.loads(str(arrays["paths"]))
        ours, theirs = ([NUMBER.sub("", path) for path in paths] for paths in names)
        if [value.shape for value in saved] != shapes or ours != theirs:
            raise BadInput(
                f"The checkpoint in {self.directory} is of another model or optimiser: give the "
                "options it was made with, or another output folder."
            )
        for variable, value in zip(variables, saved):
            variable.assign(value)


def _arrays(path):
    """What a checkpoint holds; an error of `DAMAGED` unless it is whole."""
    with zipfile.ZipFile(path) as file:
        # A header that is damaged may ask for less than there is, whose sum is then not looked at.
        if file.testzip():
            raise ValueError("a sum is wrong")
    with np.load(path) as file:
        arrays = dict(file)
    if len(arrays) != len(json.loads(str(arrays["paths"]))) + 2:
        raise ValueError("arrays are missing")
    return arrays


def _numpy(variable):
    value = keras.ops.convert_to_numpy(variable)
    return value.astype("float32") if value.dtype.name == "bfloat16" else value


def _is_chief(model):
    """Whether this process writes files; the first of several workers does."""
    resolver = model.distribute_strategy.cluster_resolver
    return resolver is None or resolver.task_id in (None, 0)
