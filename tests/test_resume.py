"""A run that is stopped anywhere and called again ends as an undisturbed one, to the bit."""

import functools
import json
import os
import shutil
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
    options = ["--encoder", "conv4", "--size", "8", "--batch-size", batch, "--epochs", EPOCHS]
    options += ["--precision", "float32", "--quiet", "--seed", "3"]
    options += ["--steps-per-epoch", steps] if steps else []
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
    pytest.param(before_a_checkpoint_is_named, marks=pytest.mark.slow),  # SIGKILL comes there below
    pytest.param(before_history_is_written, marks=pytest.mark.slow),
    pytest.param(in_the_export, marks=pytest.mark.slow),
    before_it_is_called_finished,
)


@pytest.mark.parametrize("moment", MOMENTS)
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


def test_an_unfinished_run_can_be_exported_and_says_so_where_it_cannot(tmp_path, undisturbed):
    out = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        before_history_is_written(patch)
        assert call(*words(out)).code == 130
    assert call("export", out, tmp_path / "none").code == 2  # no epoch behind it
    with pytest.MonkeyPatch.context() as patch:
        in_the_export(patch)
        assert call(*words(out)).code == 130
    refused = call("evaluate", out, "--data", "digits", "--protocol", "knn")
    assert refused.code == 2 and "not trained to its end" in refused.err
    assert call("export", out, tmp_path / "dest").code == 0
    ours, theirs = (
        tf.saved_model.load(str(folder)).variables
        for folder in (tmp_path / "dest", undisturbed / "encoder")
    )
    assert len(ours) == len(theirs) > 0
    for mine, other in zip(ours, theirs):
        np.testing.assert_array_equal(mine, other)
    card = savedmodel.read_card(tmp_path / "dest")
    assert card["call"].startswith("tfssl pretrain image.simclr") and card["results"]["epoch"] == 3


def test_lost_checkpoints_or_encoders_are_made_again(tmp_path, undisturbed):
    out = tmp_path / "run"
    shutil.copytree(undisturbed, out)
    shutil.rmtree(out / "encoder")
    call_again = [*words(undisturbed)[:-1], out]
    assert call(*call_again).code == 0
    same(left(out), left(undisturbed))
    # A checkpoint that was cut short is passed over for the one before it.
    newest = out / "checkpoints" / "epoch-000003.npz"
    newest.write_bytes(newest.read_bytes()[:1000])
    shutil.rmtree(out / "encoder")
    assert call(*call_again).code == 0
    same(left(out), left(undisturbed))


@pytest.mark.parametrize(
    "method, data",
    [
        ("image.rotation", "folder"),
        pytest.param("image.moco", "digits", marks=pytest.mark.slow),
    ],
)
def test_passes_that_end_within_an_epoch_and_images_of_several_sizes(method, data, tmp_path):
    if data == "folder":
        folder = tmp_path / "pictures"
        folder.mkdir()
        generator = np.random.default_rng(0)
        for i in range(11):
            pixels = generator.integers(0, 256, (9 + i % 3, 12 + i, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{i}.png")
        data, settings = str(folder), dict(batch=4, steps=3)  # two batches a pass
    else:
        settings = dict(batch=600, steps=3)
    assert call(*words(tmp_path / "whole", method, data, **settings)).code == 0
    with pytest.MonkeyPatch.context() as patch:
        in_a_step(patch)
        assert call(*words(tmp_path / "run", method, data, **settings)).code == 130
    assert call(*words(tmp_path / "run", method, data, **settings)).code == 0
    same(left(tmp_path / "run"), left(tmp_path / "whole"))


@pytest.mark.skipif("image.deep_cluster" not in zoo.names(), reason="not written yet")
@pytest.mark.slow
def test_a_method_with_a_pass_between_epochs_resumes(tmp_path):
    method = "image.deep_cluster"
    assert call(*words(tmp_path / "whole", method)).code == 0
    with pytest.MonkeyPatch.context() as patch:
        in_a_step(patch)
        assert call(*words(tmp_path / "run", method)).code == 130
    assert call(*words(tmp_path / "run", method)).code == 0
    same(left(tmp_path / "run"), left(tmp_path / "whole"))


def killed(out, number):
    """Runs until files have been renamed `number` times, then dies as by the power cord."""
    script = (
        "import os, signal, sys\n"
        "replace, rename, seen = os.replace, os.rename, []\n"
        "def counted(function):\n"
        "    def wrapped(*names, **more):\n"
        "        seen.append(names)\n"
        f"        if len(seen) == {number}: os.kill(os.getpid(), signal.SIGKILL)\n"
        "        return function(*names, **more)\n"
        "    return wrapped\n"
        "os.replace, os.rename = counted(replace), counted(rename)\n"
        f"sys.argv = {['tfssl', *map(str, words(out))]!r}\n"
        "from tfssl.cli import main\n"
        "main()\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=300
    )
    return done.returncode


def test_sigkill_while_a_checkpoint_is_named(tmp_path, undisturbed):
    # run.json twice at most, the sheet, history and a checkpoint an epoch: within the second epoch
    assert killed(tmp_path / "run", 5) == -signal.SIGKILL
    assert (tmp_path / "run" / "run.json").exists()
    assert call(*words(tmp_path / "run")).code == 0
    same(left(tmp_path / "run"), left(undisturbed))


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 2, 3, 4, 6, 7, 8, 9, 10, 11])
def test_sigkill_before_any_file_is_named(number, tmp_path, undisturbed):
    assert killed(tmp_path / "run", number) in (-signal.SIGKILL, 0)
    assert call(*words(tmp_path / "run")).code == 0
    same(left(tmp_path / "run"), left(undisturbed))


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0.0, 0.35, 0.9, 1.7, 3.1])
def test_sigkill_at_any_time(delay, tmp_path, undisturbed):
    out = tmp_path / "run"
    process = start(*words(out))
    while not (out / "run.json").exists() and process.poll() is None:
        time.sleep(0.02)
    time.sleep(delay)
    process.kill()
    process.communicate()
    done = start(*words(out))
    _, err = done.communicate(timeout=300)
    assert done.returncode == 0, err
    same(left(out), left(undisturbed))


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_a_signal_ends_a_run_with_a_sentence(number, tmp_path, undisturbed):
    out = tmp_path / "run"
    process = start(*words(out))
    while not list(out.glob("checkpoints/epoch-*")) and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in err, err
    assert "Interrupted" in err
    assert call(*words(out)).code == 0
    same(left(out), left(undisturbed))


def test_resume_continues_a_plain_fit_as_its_docstring_shows(tmp_path):
    module = zoo.get("image.simclr")

    def trained(directory, epochs):
        keras.utils.set_random_seed(0)
        run = module.recipe(**{**module.SMALL, "size": 8, "batch_size": 16, "epochs": 4 / 101})
        resume = callbacks.Resume(directory)
        ds = load("digits", "train", keys=("image",))
        view = functools.partial(module.views, size=8, strength=0.5, blur=0.0)
        data = batching.train(ds, view, 16, start_step=resume.epoch * 2)
        run.model.fit(
            data.repeat(), epochs=epochs, steps_per_epoch=2, callbacks=[resume], verbose=0
        )
        return [np.asarray(v) for v in run.model.variables], resume

    whole, _ = trained(tmp_path / "whole", 2)
    _, first = trained(tmp_path / "parts", 1)
    assert first.epoch == 1
    parts, second = trained(tmp_path / "parts", 2)
    assert second.epoch == 2
    for mine, other in zip(whole, parts):
        np.testing.assert_array_equal(mine, other)


@pytest.mark.parametrize("epochs", [1, 2])  # of two, so that one or none is left
def test_a_model_that_was_resumed_can_be_fitted_again(epochs, tmp_path):
    def fitted(epochs):
        model = keras.Sequential([keras.Input([2]), keras.layers.Dense(3)])
        model.compile("sgd", "mse")
        model.fit(*data, epochs=epochs, verbose=0, callbacks=[callbacks.Resume(tmp_path)])
        return model

    data = np.ones([4, 2]), np.ones([4, 3])
    fitted(epochs)
    assert fitted(2).fit(*data, epochs=2, verbose=0).epoch == [0, 1]


def test_a_checkpoint_with_any_bit_flipped_is_passed_over_or_whole(tmp_path):
    model = keras.Sequential([keras.Input([2]), keras.layers.Dense(3)])
    model.compile("sgd", "mse")
    resume = callbacks.Resume(tmp_path)
    model.fit(np.ones([4, 2]), np.ones([4, 3]), epochs=2, verbose=0, callbacks=[resume])
    newest = tmp_path / "epoch-000002.npz"
    whole = newest.read_bytes()
    with np.load(newest) as arrays:
        expected = dict(arrays)
    generator, fallen = np.random.default_rng(0), 0
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << generator.integers(8)
        newest.write_bytes(damaged)
        epoch, found = next(resume._readable())
        fallen += epoch == 1
        if epoch == 2:  # a date, or what fills a header up
            assert found.keys() == expected.keys()
            assert all(np.array_equal(found[key], expected[key]) for key in found)
    assert fallen > len(whole) / 2


def test_a_run_that_its_deadline_stopped_is_published_as_it_stands(tmp_path):
    deadline, out = rundir.Deadline, tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rundir, "Deadline", lambda seconds: deadline(-1))
        in_the_export(patch)
        assert call(*words(out)).code == 130
    assert call(*words(out)).code == 0
    record = json.loads((out / "run.json").read_text())
    assert record["finished"] and record["stopped"] == 1
    assert [row["epoch"] for row in json.loads((out / "history.json").read_text())] == [1]


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    def model(width, name=None):
        found = keras.Sequential([keras.Input([2]), keras.layers.Dense(width, name=name)])
        found.compile("sgd", "mse")
        return found

    x = np.ones([4, 2])
    model(3).fit(x, np.ones([4, 3]), verbose=0, callbacks=[callbacks.Resume(tmp_path)])
    with pytest.raises(BadInput, match="another model"):
        model(4).fit(x, np.ones([4, 4]), verbose=0, callbacks=[callbacks.Resume(tmp_path)])
    with pytest.raises(BadInput, match="another model"):  # of the same shapes
        model(3, "other").fit(x, x[:, :1], verbose=0, callbacks=[callbacks.Resume(tmp_path)])
