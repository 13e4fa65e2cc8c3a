"""The commands do what the contract says, from a folder of pictures to a published encoder."""

import json
import math
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from command_line import ROOT, TINY, call, refused, start
from PIL import Image
from test_ingest import flash_and_click

from tfssl import encoders, savedmodel, zoo
from tfssl.cli import options
from tfssl.errors import BadInput

SIMCLR = ("pretrain", "image.simclr", *TINY, "--encoder", "conv4")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run on the digits."""
    folder = tmp_path_factory.mktemp("cli") / "run"
    done = call(*SIMCLR, "--out", folder)
    assert done.code == 0, done
    return folder


def test_keys_of_recipes_take_lists_as_long_as_their_small_recipes_have():
    def given(method, *pairs):
        return options.arguments_of(zoo.get(method), method, True, {"data": "digits"}, pairs)

    assert given("image.deep_cluster", "widths=128")["widths"] == [128]
    assert given("image.predict_noise", "hidden=")["hidden"] == []
    assert given("geometry.unflow", "size=64,128")["size"] == [64, 128]
    assert given("image.context_encoder", "channels=8,16,32")["channels"] == [8, 16, 32]
    assert given("image.denoising_autoencoder", "emphasis=1,0", "level=0")["emphasis"] == [1, 0]
    for wrong in ("area=0.5", "area=", "widths=128,x", "widths=-1"):
        with pytest.raises(BadInput, match=wrong.partition("=")[0]):
            given("image.deep_cluster", wrong)
    several = given("image.multi_task", "tasks=relative_position,colorization", "lasso=0.001")
    assert several["tasks"] == "relative_position,colorization" and several["lasso"] == 0.001


@pytest.fixture(scope="module")
def classes(tmp_path_factory):
    """A folder of three class folders of pictures that differ in colour."""
    folder = tmp_path_factory.mktemp("classes")
    generator = np.random.default_rng(0)
    for number, name in enumerate(("blue", "green", "red")):
        (folder / name).mkdir()
        for i in range(12):
            pixels = generator.integers(0, 100, (10, 10, 3), dtype=np.uint8)
            pixels[..., 2 - number] += 150
            Image.fromarray(pixels).save(folder / name / f"{i:02d}.png")
    return folder


def test_list_names_every_method_with_its_paper():
    done = call("list", "--json")
    cards = json.loads(done.out)
    assert done.code == 0 and [card["id"] for card in cards] == zoo.names()
    for card in cards:
        for field in ("id", "title", "authors", "venue", "url", "modality", "family"):
            assert isinstance(card[field], str) and card[field], (card["id"], field)
        assert isinstance(card["year"], int) and 1980 < card["year"] < 2030
        assert card["url"].startswith("http") and card["id"].startswith(card["modality"] + ".")
    plain = call("list").out.splitlines()
    assert [line.split()[0] for line in plain] == zoo.names()


@pytest.mark.parametrize("method", ["image.simclr", "image.rotation", "image.mae"])
def test_show_draws_what_a_method_sees(method, tmp_path, classes):
    out = tmp_path / "new folder" / "sheet.png"
    done = call("show", method, "--data", classes, "--out", out)
    assert done.code == 0 and done.out.strip() == str(out), done
    with Image.open(out) as image:
        assert image.format == "PNG" and min(image.size) > 100


def test_a_run_leaves_what_the_contract_names(run):
    for name in ("encoder/saved_model.pb", "checkpoints", "history.json", "run.json", "logs"):
        assert (run / name).exists(), name
    page = (run / "report.html").read_text()
    assert page.lstrip().lower().startswith("<!doctype html")
    history = json.loads((run / "history.json").read_text())
    assert [row["epoch"] for row in history] == [1, 2]
    for row in history:
        assert {"loss", "seconds", "examples_per_second"} <= set(row)
        assert all(isinstance(value, (int, float)) for value in row.values())
    record = json.loads((run / "run.json").read_text())
    assert record["call"].startswith("tfssl pretrain image.simclr --small --data digits")
    assert {"versions", "seed", "host", "precision", "strategy", "finished"} <= set(record)
    assert list(run.glob("logs/**/events.*"))


def test_evaluate_writes_the_promised_shape(run, classes, tmp_path):
    protocols = [word for name in ("knn", "linear", "random") for word in ("--protocol", name)]
    result = tmp_path / "new" / "r.json"
    done = call("evaluate", run, "--data", classes, *protocols, "--json", result, "--quiet")
    assert done.code == 0, done
    found = json.loads(result.read_text())
    assert set(found) == {"encoder", "data", "results", "random"}
    assert found["encoder"] == str(run) and found["data"] == str(classes)
    for who in ("results", "random"):
        assert set(found[who]) == {"knn", "linear"}
        for numbers in found[who].values():
            assert 0 <= numbers["top1_low"] <= numbers["top1"] <= numbers["top1_high"] <= 1
        assert found[who]["knn"]["k"] > 0 and found[who]["knn"]["temperature"] == 0.07
    assert "knn" in done.out and "linear" in done.out and "random" in done.out
    kept = run / "evaluation.json"
    assert json.loads(kept.read_text()) == found
    # Another protocol on the same data stands beside these; other data begin anew.
    again = ["evaluate", run, "--protocol", "retrieval", "--quiet", "--json", result]
    assert call(*again, "--data", classes).code == 0
    new = json.loads(result.read_text())
    assert set(new) == {"encoder", "data", "results"} and set(new["results"]) == {"retrieval"}
    joined = {**found, "results": {**found["results"], **new["results"]}}
    assert json.loads(kept.read_text()) == joined
    # A baseline of another size than its protocol's result says nothing of it.
    assert call(*again[:3], "knn", "--data", classes, "--size", 12, "--quiet").code == 0
    after = json.loads(kept.read_text())
    assert after["results"]["knn"]["size"] == 12 and "knn" not in after["random"]
    assert after["random"]["linear"] == found["random"]["linear"]
    kept.write_text("[1]")
    assert call(*again, "--data", "digits").code == 0
    assert json.loads(kept.read_text()) == json.loads(result.read_text())


def test_what_was_measured_before_a_refusal_is_not_lost(run, classes, tmp_path, monkeypatch):
    from tfssl import evaluate
    from tfssl.errors import BadInput

    def refusing(*data, **settings):
        raise BadInput("this cannot be measured")

    monkeypatch.setitem(evaluate.PROTOCOLS, "svm", refusing)
    words = ["evaluate", run, "--data", classes, "--protocol", "knn", "--protocol", "svm"]
    done = call(*words, "--json", tmp_path / "r.json", "--quiet")
    assert done.code == 2 and "this cannot be measured" in done.err
    assert set(json.loads((tmp_path / "r.json").read_text())["results"]) == {"knn"}
    assert "knn" in done.out


def test_a_baseline_that_cannot_be_built_is_refused_before_anything_is_measured(classes, tmp_path):
    class Foreign(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 3])])
        def __call__(self, x):
            return {"features": tf.reduce_mean(x, [1, 2])}

    module = Foreign()
    tf.saved_model.save(module, str(tmp_path / "m"), signatures=module.__call__)
    words = ["--data", classes, "--protocol", "knn", "--protocol", "random"]
    done = call("evaluate", tmp_path / "m", *words, "--json", tmp_path / "r.json")
    assert done.code == 2 and "does not say how it is built" in done.err
    assert "knn of" not in done.out and not (tmp_path / "r.json").exists()


def test_embed_gives_features_paths_and_indices_of_everything(run, classes, tmp_path):
    for source, count in ((classes, 36), (f"{classes}@all", 36), ("digits@test", None)):
        out = tmp_path / "f.npz"
        done = call("embed", run, source, "--out", out, "--quiet")
        assert done.code == 0, done
        arrays = np.load(out)
        rows, width = arrays["features"].shape
        assert width == 256 and np.isfinite(arrays["features"]).all()
        assert len(arrays["paths"]) == len(arrays["index"]) == rows
        assert len(set(arrays["paths"])) == rows
        if count:
            assert rows == count
            names = {path.relative_to(classes).as_posix() for path in classes.rglob("*.png")}
            assert set(arrays["paths"]) == names


def test_embedding_is_what_the_encoder_gives(run, classes, tmp_path):
    assert call("embed", run, classes, "--out", tmp_path / "f.npz", "--size", 10).code == 0
    arrays = np.load(tmp_path / "f.npz")
    encoder = tf.saved_model.load(str(run / "encoder"))
    pixels = np.asarray(Image.open(classes / str(arrays["paths"][5])), np.float32) / 255
    np.testing.assert_allclose(encoder(pixels[None])[0], arrays["features"][5], atol=1e-4)


def test_export_makes_a_saved_model_of_a_finished_run(run, tmp_path):
    dest = tmp_path / "new" / "encoder"
    done = call("export", run, dest)
    assert done.code == 0 and done.out.strip() == str(dest)
    x = tf.random.uniform([2, 16, 16, 3])
    ours, theirs = (tf.saved_model.load(str(p)) for p in (dest, run / "encoder"))
    np.testing.assert_array_equal(ours.serve(x), theirs.serve(x))
    assert call("evaluate", dest, "--data", "digits", "--protocol", "knn").code == 0


def test_report_compares_several_runs(run, tmp_path):
    done = call("report", run, run, "--out", tmp_path / "new" / "r.html")
    assert done.code == 0, done
    assert "<html" in (tmp_path / "new" / "r.html").read_text()


def test_shards_serve_as_the_folder_they_are_made_of(run, classes, tmp_path):
    shards = tmp_path / "shards"
    assert call("ingest", classes, shards, "--quiet").code == 0
    again = call("ingest", classes, shards, "--quiet")
    assert again.code == 0, again
    for source, name in ((classes, "a.npz"), (shards, "b.npz")):
        assert call("embed", run, f"{source}@train", "--out", tmp_path / name).code == 0
    ours, theirs = np.load(tmp_path / "b.npz"), np.load(tmp_path / "a.npz")
    assert list(ours["paths"]) == list(theirs["paths"])
    # The shards hold JPEGs, so the features are near, not equal.
    assert np.corrcoef(ours["features"].ravel(), theirs["features"].ravel())[0, 1] > 0.98
    small = ("--data", shards, "--batch-size", 4, "--epochs", 1, "--out", tmp_path / "run")
    assert call(*SIMCLR, *small).code == 0


def test_minutes_plan_the_epochs_and_the_plan_is_kept(tmp_path):
    words = ("--small", "--data", "digits", "--size", 8, "--batch-size", 64, "--minutes", 0.1)
    done = call("pretrain", "image.simclr", *words, "--quiet", "--out", tmp_path / "run")
    assert done.code == 0, done
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    history = json.loads((tmp_path / "run" / "history.json").read_text())
    assert record["minutes"] == 0.1 and 1 <= len(history) <= record["plan"]["epochs"]


@pytest.mark.parametrize("most", [math.inf, 2])
def test_minutes_are_filled_unless_epochs_are_asked_for(most, monkeypatch):
    from tfssl import zoo
    from tfssl.cli import training

    monkeypatch.setattr(training._Stopwatch, "each", 0.001)
    module = zoo.get("image.rotation")
    small = {**module.SMALL, "data": "digits", "size": 8, "batch_size": 64}
    record = {"arguments": small, "minutes": 1, "steps_per_epoch": None}
    plan, run = training._plan(module, record, True, most)
    assert run is None and plan["steps_per_pass"] == 1617 // 64
    if most == 2:
        assert plan["epochs"] == 2
    else:
        assert 500 < plan["epochs"] < 2400  # of 25 ms, in the minute that planning leaves


def test_a_batch_that_the_devices_cannot_share_is_refused(two_replicas):
    from tfssl.cli import training

    module = zoo.get("image.rotation")
    small = {**module.SMALL, "data": "digits", "size": 8, "encoder": "conv4"}
    with two_replicas.scope():
        training.build(module, {**small, "batch_size": 6})
        with pytest.raises(BadInput, match=r"--batch-size 5: 2 devices .* multiple of 2"):
            training.build(module, {**small, "batch_size": 5})


def test_python_m_tfssl_is_the_command_line(tmp_path):
    process = start("pretrain", "image.simclrr", "--data", "digits", "--out", tmp_path / "x")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 2 and not out
    assert err.strip().splitlines()[-1].endswith("did you mean image.simclr?")
    assert len(err) <= 600 and "Traceback" not in err


def test_a_fault_of_ours_is_not_called_the_callers():
    from tfssl.cli import console

    assert console.callers_fault(ValueError("shapes differ")) == ""
    assert console.callers_fault(KeyError("x")) == ""


def test_help_names_every_command():
    done = subprocess.run(
        [sys.executable, "-m", "tfssl", "--help"], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0
    commands = ("list", "show", "pretrain", "evaluate", "embed", "export", "report", "ingest")
    for command in (*commands, "demo"):
        assert command in done.stdout


def test_a_run_planned_by_the_clock_trains_in_the_precision_it_was_asked_for(tmp_path):
    words = ["image.simclr", "--small", "--encoder", "conv4", "--batch-size", "16"]
    words += ["--minutes", "0.1", "--precision", "mixed_bfloat16", "--out", tmp_path / "run"]
    done = call("pretrain", *words, "--quiet")
    assert done.code == 0, done
    # Measuring the speed once reset Keras' policy on its way, and the run was trained in float32.
    assert keras.config.dtype_policy().name == "mixed_bfloat16"


def test_a_new_process_can_build_again_what_layers_of_ours_it_loads(tmp_path, classes):
    """Keras finds a class by name only once its file was read, which nothing has done there."""
    folder, found = tmp_path / "encoder", tmp_path / "found.json"
    savedmodel.export(encoders.get("vit_mini", size=8, depth=1), folder, card={"size": 8})
    words = ["evaluate", folder, "--data", classes, "--json", found, "--quiet"]
    process = start(*words, "--protocol", "knn", "--protocol", "random")
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert set(json.loads(found.read_text())["random"]) == {"knn"}


@pytest.mark.parametrize("method", ["video.tcc", "audio_visual.ave_net", "text.skip_gram"])
def test_files_of_every_kind_and_length_go_in_and_features_come_out(method, tmp_path):
    if method == "text.skip_gram":
        source = tmp_path / "texts.txt"
        known = ["one", "two", "three", "four", "five", "six", "seven"]
        lines = [" ".join(known[(i + j) % 7] for j in range(3)) for i in range(14)]
        source.write_text("\n".join(lines))
    else:
        source = tmp_path / "clips"
        for i in range(3):
            flash_and_click(source / f"{i}.mp4", frames=40 + 5 * i)
    words = [method, "--small", "--data", source, "--batch-size", 2, "--epochs", 1]
    words += ["--steps-per-epoch", 1, "--out", tmp_path / "run", "--quiet"]
    if method == "text.skip_gram":
        words += ["--set", "threshold=0"]  # of so few words all are frequent, and would be left out
    done = call("pretrain", *words)
    assert done.code == 0 and not done.err, done
    (row,) = json.loads((tmp_path / "run" / "history.json").read_text())
    assert {"loss", "health_std"} <= set(row)
    assert (tmp_path / "run" / "features.npz").exists(), "nothing to show of the neighbours"
    if method == "audio_visual.ave_net":  # its first encoder takes pictures
        name = "audio_encoder"
        done = call("export", tmp_path / "run", tmp_path / "ears", "--name", name, "--quiet")
        assert done.code == 0, done
        card = savedmodel.read_card(tmp_path / "ears")
        assert card["title"] == f"{method}: {name}" and card["sample_rate"] == 16000
        assert "top1" not in json.dumps(card["results"])
        return
    done = call("embed", tmp_path / "run", source, "--out", tmp_path / "f.npz", "--quiet")
    assert done.code == 0, done
    assert len(np.load(tmp_path / "f.npz")["features"]) == (14 if source.is_file() else 3)


def clips(*lengths):
    """A source of clips whose frames are one pixel large and tell their number."""
    from tfssl.pipelines.sources import records

    frames = [np.arange(n, dtype=np.uint8).reshape(n, 1, 1, 1).repeat(3, -1) for n in lengths]
    return records.held({"index": np.arange(len(lengths))}, {"frames": frames})


def test_clips_are_cut_to_what_the_encoder_takes():
    from types import SimpleNamespace

    from tfssl.cli import artefact

    taking = SimpleNamespace(key="frames", frames=2, size=0)
    batches = artefact.batches_of(clips(6, 3, 1), taking, 0)
    seen = [255 * batch["frames"][..., 0].numpy().ravel() for batch in batches]
    np.testing.assert_allclose(np.ravel(seen), [2, 3, 0, 1, 0, 0])
    again = 255 * batches.gather(tf.constant([1, 0]))["frames"][..., 0].numpy().ravel()
    np.testing.assert_allclose(again, [0, 1, 2, 3])


def test_of_clips_an_encoder_of_pictures_is_shown_the_middle_frames(monkeypatch):
    from tfssl.cli import training
    from tfssl.pipelines import sources

    def load(data, split, max_broken, quiet, keys):
        sources.require(clips(6, 3, 1), *keys)
        return clips(6, 3, 1)

    monkeypatch.setattr(training, "load", load)
    shown = training._shown("clips", "image", {})
    assert [int(example["image"][0, 0, 0]) for example in shown] == [2, 1, 0]
    assert shown.gather(tf.constant([2, 0]))["image"][:, 0, 0, 0].numpy().tolist() == [0, 2]


def test_a_run_shows_neighbours_from_all_of_its_examples(run, monkeypatch):
    """The first thousand would be of the first classes, where these lie in folders."""
    from tfssl.cli import training

    given = []
    monkeypatch.setattr(training, "keep_neighbours", lambda _, batches: given.append(batches))
    training._show_neighbours({"data": "digits"}, run)
    index = np.concatenate([batch["index"] for batch in given[0].some(1000)])
    assert len(index) == 1000 and index[-1] > 1600


def test_a_protocol_is_not_measured_on_what_it_has_learned_from(run, classes, tmp_path):
    for split in ("train", "all"):
        refused(
            "evaluate", run, "--data", f"{classes}@{split}", "--protocol", "knn", naming="@test"
        )
    results = []
    for source in (classes, f"{classes}@test"):
        words = ("--protocol", "knn", "--json", tmp_path / "r.json", "--quiet")
        assert call("evaluate", run, "--data", source, *words).code == 0
        results.append(json.loads((tmp_path / "r.json").read_text())["results"])
    assert results[0] == results[1]


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((None, 24, 24, 3), 24), ((None, None, None, 3), 0), ((None, 4, 16, 16, 3), 16)],
)
def test_the_size_of_anybodys_saved_model_is_the_one_that_it_fixes(shape, expected, tmp_path):
    import tensorflow as tf

    from tfssl.cli.artefact import Artefact

    theirs = tf.Module()
    theirs.embed = tf.function(
        lambda x: tf.reduce_mean(x, [*range(1, len(shape) - 1)]),
        input_signature=[tf.TensorSpec(shape, tf.float32)],
    )
    tf.saved_model.save(theirs, str(tmp_path), signatures=theirs.embed)
    artefact = Artefact(tmp_path)
    assert artefact.size == expected
    assert artefact.frames == (4 if len(shape) == 5 else None)
