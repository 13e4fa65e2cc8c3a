"""A run that is stopped anywhere and called again ends where an undisturbed one ends, to the bit."""

import json
import os
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
import tensorflow as tf
from command_line import ROOT, call, start
from PIL import Image

from tfssl import callbacks, rundir, savedmodel, zoo
from tfssl.errors import BadInput
from tfssl.pipelines import batching, load

EPOCHS, STEPS = 3, 3


def words(out, method="image.simclr", data="digits", batch=16, steps=STEPS):
    """A call that trains for a few seconds."""
    options = ["--size", "8", "--batch-size", batch, "--epochs", EPOCHS, "--precision", "float32"]
    options += ["--quiet", "--seed", "3"] + (["--steps-per-epoch", steps] if steps else [])
    return ["pretrain", method, "--small", "--data", data, *options, "--out", out]


def left(out):
    """Everything a run leaves that is a matter of its numbers: checkpoint, encoder, losses."""
    checkpoints = sorted((out / "checkpoints").glob("*.npz"))
    assert [path.name for path in checkpoints] == [f"epoch-{n:06d}.npz" for n in (2, 3)]
    with np.load(checkpoints[-1]) as arrays:
        # Keras numbers layers through a process, so names differ where numbers do not.
        checkpoint = {key: arrays[key] for key in arrays if key != "paths"}
    encoder = [v.numpy() for v in tf.saved_model.load(str(out / "encoder")).variables]
    history = json.loads((out / "history.json").read_text())
    assert [row["epoch"] for row in history] == [1, 2, 3]
    assert json.loads((out / "run.json").read_text())["finished"]
    stray = [str(path) for path in out.rglob(".*")]
    assert not stray, stray
    return checkpoint, encoder, [row["loss"] for row in history]


def same(ours, theirs):
    assert ours[2] == theirs[2]
    assert list(ours[0]) == list(theirs[0])
    for key in ours[0]:
        np.testing.assert_array_equal(ours[0][key], theirs[0][key], err_msg=key)
    assert len(ours[1]) == len(theirs[1]) > 0
    for mine, other in zip(ours[1], theirs[1]):
        np.testing.assert_array_equal(mine, other)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    done = call(*words(out))
    assert done.code == 0, done
    return out


def in_a_step(patch):
    """In the middle of the second epoch."""
    steps = []

    def stop(self, batch, logs=None):
        steps.append(batch)
        if len(steps) == STEPS + 2:
            raise KeyboardInterrupt

    patch.setattr(rundir.Journal, "on_train_batch_end", stop)


def before_a_checkpoint_is_named(patch):
    replace = os.replace

    def stop(source, target):
        if str(target).endswith("epoch-000002.npz"):
            raise KeyboardInterrupt
        replace(source, target)

    patch.setattr(os, "replace", stop)


def before_history_is_written(patch):
    patch.setattr(rundir, "write_json", _stops_at("history.json", rundir.write_json))


def before_it_is_called_finished(patch):
    def ends(path, content):
        return path.name == "run.json" and content["finished"]

    patch.setattr(rundir, "write_json", _stops_where(ends, rundir.write_json))


def in_the_export(patch):
    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    patch.setattr(savedmodel, "_write", stop)


def _stops_at(name, function):
    return _stops_where(lambda path, content: path.name == name, function)


def _stops_where(condition, function):
    def wrapped(path, content):
        if condition(path, content):
            raise KeyboardInterrupt
        function(path, content)

    return wrapped


MOMENTS = (
    in_a_step,
    before_a_checkpoint_is_named,
    before_history_is_written,
    in_the_export,
    before_it_is_called_finished,
)


@pytest.mark.parametrize("moment", MOMENTS, ids=lambda moment: moment.__name__)
def test_an_interrupted_run_continues_to_the_same_bits(moment, undisturbed, tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        moment(patch)
        stopped = call(*words(tmp_path / "run"))
    assert stopped.code == 130 and "Interrupted" in stopped.err, stopped
    before = tmp_path / "run" / "history.json"
    rows = json.loads(before.read_text()) if before.exists() else []
    finished = callbacks.Resume(tmp_path / "run" / "checkpoints").epoch
    done = call(*words(tmp_path / "run"))
    assert done.code == 0, done
    same(left(tmp_path / "run"), left(undisturbed))
    # Finished epochs keep even their seconds.
    assert json.loads(before.read_text())[:finished] == rows[:finished]


def test_two_undisturbed_runs_are_equal_and_a_finished_one_is_left_alone(undisturbed, tmp_path):
    assert call(*words(tmp_path / "run")).code == 0
    same(left(tmp_path / "run"), left(undisturbed))
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    assert call(*words(tmp_path / "run")).code == 0
    assert stamps == {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
