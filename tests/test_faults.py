"""Whatever callers do wrong is told in a sentence, with exit code 2, and nothing is lost."""

import json
import os
import pathlib
import shutil
import signal
import struct
import subprocess
import sys
import wave
import zlib

import numpy as np
import pytest
import tensorflow as tf
from command_line import ROOT, TINY, call, refused
from PIL import Image

from tfssl.cli.console import callers_fault
from tfssl.errors import BadInput

SIMCLR = ("pretrain", "image.simclr", *TINY, "--encoder", "conv4")


@pytest.fixture
def out(tmp_path):
    return tmp_path / "run"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    done = call(*SIMCLR, "--epochs", 1, "--out", folder)
    assert done.code == 0, done
    return folder


def noise(number=0, size=(12, 12), channels=3):
    return np.random.default_rng(number).integers(0, 256, (*size, channels), dtype=np.uint8)


def pictures(folder, count=4, first=0, **noisy):
    """JPEG files of noise in a new folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(first, first + count):
        Image.fromarray(noise(i, **noisy)).save(folder / f"{i}.jpg")
    return folder


def sound(path, samples, rate=16000):
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((np.asarray(samples) * 32767).astype("<i2").tobytes())


def bomb(path, side=30_000):
    """A PNG of a few bytes that claims to be huge."""

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(3 * side)))
        + chunk(b"IEND", b"")
    )


WRONG_OPTIONS = [
    (["--data", "digits@trian"], "digits@train"),
    (["--data", "wrold"], "did you mean world"),
    (["--data", "tfds:nothere"], "tfds:nothere"),
    (["--data", "tfds:"], "tfds:"),
    (["--data", "world:nope=3"], "nope"),
    (["--data", "world:n"], "world:n"),
    (["--data", "@train"], "@train"),
    (["--data", "x" * 5000], "too long"),
    (["--data", "digits@val"], "@train"),
    (["--encoder", "resnet99"], "did you mean resnet9"),
    (["--encoder", "audio_cnn"], ["--encoder audio_cnn", "resnet9"]),
    (["--encoder", "cnn3d"], "--encoder cnn3d"),
    (["--encoder", "text_bag"], "--encoder text_bag"),
    (["--encoder", "flownet_s"], "--encoder flownet_s"),
    (["--encoder", "vit_mini", "--size", "30"], "size 30"),
    (["--size", "4"], "--size"),
    (["--size", "-8"], "--size"),
    (["--epochs", "0"], "--epochs"),
    (["--epochs", "1.5"], "--epochs"),
    (["--batch-size", "0"], "--batch-size"),
    (["--batch-size", "5000"], ["5000", "1617"]),
    (["--steps-per-epoch", "0"], "--steps-per-epoch"),
    (["--minutes", "nan"], "--minutes"),
    (["--minutes", "inf"], "--minutes"),
    (["--minutes", "-1"], "--minutes"),
    (["--seed", "-1"], "--seed"),
    (["--seed", "99999999999"], "--seed"),
    (["--seed", "x"], "--seed"),
    (["--max-broken", "nan"], "--max-broken"),
    (["--max-broken", "2"], "--max-broken"),
    (["--precision", "float8"], ["--precision", "float32"]),
    (["--strategy", "tpu"], ["--strategy", "mirrored"]),
    (["--strategy", "multiworker"], "TF_CONFIG"),
    (["--epohcs", "2"], "--epochs"),
    (["--set", "foo"], "key=value"),
    (["--set", "=3"], "--set"),
    (["--set", "foo=1"], ["foo", "temperature"]),
    (["--set", "temprature=1"], "did you mean temperature"),
    (["--set", "epochs=x"], "epochs"),
    (["--set", "epochs=0"], "epochs"),
    (["--set", "epochs=-3"], "epochs"),
    (["--set", "batch_size=0"], "batch_size"),
    (["--set", "size=0"], "size"),
    (["--set", "size="], "size"),
    (["--set", "seed=1.5"], "seed"),
    (["--set", "seed=-1"], "seed"),
    (["--set", "temperature=nan"], "temperature"),
    (["--set", "temperature=inf"], "temperature"),
    (["--set", "temperature=-1"], "above 0"),
    (["--set", "temperature=0"], "temperature is above 0"),
    (["--set", "learning_rate=fast"], "learning_rate"),
    (["--set", "encoder=resnet99"], "resnet9"),
    (["--set", "data=nope"], "nope"),
    (["--data", ""], "--data is empty"),
]
OF_METHODS = [
    ("video.tcc", ["--encoder", "vit_mini"], "its taps are block_1"),
    ("video.tcc", ["--set", "tap=x"], "its taps are c1"),
    ("image.jigsaw", ["--set", "grid=0"], "grid is at least 1"),
    ("image.jigsaw", ["--set", "grid=2"], "orders=64"),
    ("image.jigsaw", ["--set", "orders=30000"], "30000"),
    ("image.mae", ["--set", "width=95"], "width=95"),
    ("image.dcgan", ["--encoder", "audio_cnn"], "--encoder audio_cnn"),
    ("audio_visual.ave_net", ["--encoder", "audio_cnn"], "--encoder audio_cnn"),
    ("image.boosting", ["--set", "teacher=audio_cnn"], "teacher=audio_cnn"),
    ("image.multi_task", ["--encoder", "vit_mini", "--set", "tasks=relative_position"], "vit_mini"),
    ("image.learning_to_count", ["--batch-size", "1"], "batch_size"),
    ("image.exemplar_triplet", ["--set", "crops=1"], "crops"),
    ("image.predict_noise", ["--set", "width=0"], "width is at least 1"),
    ("image.exemplar", ["--set", "dropout=1"], "dropout is below 1"),
    ("image.exemplar", ["--set", "transformations=0"], "transformations is at least 1"),
    ("image.simclr", ["--set", "area=0.5,7"], "area is at most 1"),
    ("image.byol", ["--set", "momentum=1.5"], "momentum is at most 1"),
    ("image.rotation", ["--set", "falls=0.9,0.5,0.1"], "low to high"),
    ("image.relative_position", ["--size", "8"], "leaves nothing"),
    ("image.jigsaw", ["--size", "8"], "leaves nothing"),
]


@pytest.mark.parametrize(
    "words, naming", WRONG_OPTIONS, ids=[" ".join(w)[:40] for w, _ in WRONG_OPTIONS]
)
def test_a_wrong_option_is_named_and_leaves_no_folder(words, naming, out):
    refused(*SIMCLR, "--out", out, *words, naming=naming)
    assert not out.exists()


@pytest.mark.parametrize("method, words, naming", OF_METHODS)
def test_what_a_method_cannot_do_is_named_and_leaves_no_encoder(method, words, naming, out):
    refused("pretrain", method, "--small", "--epochs", 1, "--quiet", "--out", out, *words,
            naming=naming)  # fmt: skip
    assert not (out / "encoder").exists()


def test_after_a_fault_that_comes_late_the_corrected_call_finds_its_folder_free(out, monkeypatch):
    from tfssl.cli import training

    whole = training._publish

    def broken(*arguments):
        raise BadInput("so late")

    words = ("pretrain", "image.rotation", *TINY, "--out", out)
    monkeypatch.setattr(training, "draw_sheet", broken)
    refused(*words, naming="so late")
    assert not out.exists()
    monkeypatch.undo()
    monkeypatch.setattr(training, "_publish", broken)
    refused(*words, naming="so late")
    assert any(out.glob("checkpoints/*.npz")), "what has been trained stays"
    monkeypatch.setattr(training, "_publish", whole)
    assert call(*words).code == 0


def test_a_folder_in_which_another_process_trains_is_left_alone(out):
    from tfssl import rundir

    words = ("pretrain", "image.rotation", *TINY, "--out", out)
    with rundir.alone(out):
        (out / ".run-1.json").touch()
        refused(*words, naming="another process")
        assert (out / ".run-1.json").exists(), "it may be writing that"
    assert call(*words).code == 0 and not (out / ".run-1.json").exists()


def test_what_recipes_ask_of_themselves_is_in_range():
    import inspect

    from tfssl import zoo
    from tfssl.cli.options import _in_range

    for module in map(zoo.get, zoo.names()):
        for key, parameter in inspect.signature(module.recipe).parameters.items():
            for value in (parameter.default, module.SMALL.get(key, parameter.default)):
                value = list(value) if isinstance(value, tuple) else value
                _in_range(key, str(value), value, parameter.default)


def test_a_range_goes_from_low_to_high(out):
    words = ("--set", "area=0.5,0.1")
    refused("pretrain", "image.moco", *TINY, "--out", out, *words, naming=["area", "low to high"])
    assert not out.exists()


def test_what_is_missing_is_named(out):
    refused("pretrain", "image.simclr", "--data", "digits", naming="--out")
    refused("pretrain", "image.simclr", "--out", out, naming="--data")
    refused("pretrain", naming="method")
    refused("evaluate", out, "--data", "digits", naming="--protocol")
    refused("evaluate", out, "--protocol", "knn", naming="--data")
    refused("report", naming="runs")
    assert not out.exists()


def test_unknown_names_suggest_the_nearest(out):
    for name in ("image.simclrr", "simclr", "image.SimCLR"):
        refused("pretrain", name, "--data", "digits", "--out", out, naming="image.simclr")
        refused("show", name, "--data", "digits", "--out", out, naming="image.simclr")
    refused("evaluate", out, "--data", "digits", "--protocol", "knnn", naming="mean knn")
    refused("pretrian", naming="pretrian")


def test_mae_says_that_it_needs_a_transformer(out):
    refused("pretrain", "image.mae", *TINY, "--encoder", "resnet9", "--out", out, naming="vit_")
    assert not out.exists()


def test_a_foreign_folder_is_refused_and_untouched(tmp_path):
    folder = tmp_path / "theirs"
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    source = pictures(tmp_path / "pictures")
    refused(*SIMCLR, "--out", folder, naming=folder)
    refused("ingest", source, folder, naming=folder)
    refused(*SIMCLR, "--out", folder / "thesis.txt", naming="thesis.txt")
    refused(*SIMCLR, "--out", folder / "thesis.txt" / "run", naming="thesis.txt")
    refused("ingest", source, folder / "thesis.txt", naming="thesis.txt")
    assert [path.name for path in folder.iterdir()] == ["thesis.txt"]
    assert (folder / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize("where", ["/proc/run", "/dev/null/run", "/sys/run"])
def test_a_folder_that_cannot_be_written_is_refused(where):
    if not pathlib.Path(where).parts[1:] or not pathlib.Path("/proc").exists():
        pytest.skip("no such system")
    refused(*SIMCLR, "--out", where, naming=where)


def test_too_long_and_impossible_paths_are_refused(tmp_path):
    refused(*SIMCLR, "--out", tmp_path / ("x" * 300))
    refused(*SIMCLR, "--out", tmp_path / "run", "--data", "a\0b")


def test_empty_and_missing_folders_are_refused(tmp_path, out):
    (tmp_path / "empty").mkdir()
    for command in (SIMCLR, ("show", "image.simclr")):
        end = ["--out", out if command is SIMCLR else tmp_path / "a.png"]
        refused(*command, "--data", tmp_path / "empty", *end, naming="empty")
        refused(*command, "--data", tmp_path / "nowhere", *end, naming="nowhere")
    refused("ingest", tmp_path / "empty", out, naming="empty")
    refused("ingest", tmp_path / "nowhere", out, naming="nowhere")
    assert not out.exists() and not (tmp_path / "a.png").exists()


def test_files_that_are_not_what_their_name_says_are_refused(tmp_path, out):
    pictures(tmp_path / "one", 1)
    refused(*SIMCLR, "--data", tmp_path / "one" / "0.jpg", "--out", out, naming="0.jpg")
    for name, content, naming in (
        ("wrong.csv", b"a,b\n1,2\n", "a, b"),
        ("empty.csv", b"", "empty.csv"),
        ("words.csv", b"caption\nhello\nworld\n", "image"),
        ("binary.csv", b"\xff\xfe\x00image\n\xff", "UTF-8"),
        ("gone.csv", b"image\ngone.jpg\n", "gone.jpg"),
        ("hole.csv", b"image,caption\n,x\n", ["hole.csv", "image"]),
        ("cut.jsonl", b'{"image": \n', "row 1"),
        ("list.jsonl", b"[1, 2]\n", "row 1"),
        ("deep.jsonl", b"[" * 100_000, "row 1"),
        ("open.csv", b'image\n"0.jpg,' + b"x" * 150_000, ["open.csv", "row 1", "quote"]),
        ("zip.npz", b"PK\x03\x04 and no more", "zip.npz"),
        ("readme.md", b"# hello", "readme.md"),
    ):
        (tmp_path / name).write_bytes(content)
        refused(*SIMCLR, "--data", tmp_path / name, "--out", out, naming=naming)
    assert not out.exists()


def test_broken_files_among_good_ones_are_skipped_listed_and_counted(tmp_path, out):
    folder = pictures(tmp_path / "pictures", 8)
    whole = (folder / "0.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.png").touch()
    os.mkfifo(folder / "pipe.jpg")
    bomb(folder / "bomb.png")
    few = ("--data", folder, "--batch-size", 4)
    refused(*SIMCLR, *few, "--max-broken", 0.2, "--out", out, naming=["--max-broken", "4 of 12"])
    assert not out.exists()
    done = call(*SIMCLR, *few, "--epochs", 1, "--out", out)
    assert done.code == 0, done
    for name in ("cut.jpg", "empty.png", "pipe.jpg", "bomb.png"):
        assert f"broken: {name}: " in done.err
    assert "4 of 12 files are broken and were skipped." in done.err
    ingested = call("ingest", folder, tmp_path / "shards", "--quiet")
    assert ingested.code == 0, ingested
    lines = done.err.strip().splitlines()
    for line in lines:
        assert line in ingested.out + ingested.err
    again = ("--data", tmp_path / "shards", "--batch-size", 64, "--out", tmp_path / "other")
    assert call(*SIMCLR, *again).err.splitlines()[:-1] == lines  # and then that 64 are too many


def test_a_source_that_is_mostly_broken_is_refused(tmp_path, out):
    folder = pictures(tmp_path / "pictures", 2)
    for i in range(3):
        (folder / f"broken{i}.jpg").write_bytes(b"xxxx")
    few = ("--data", folder, "--batch-size", 2)
    for words in ([*SIMCLR, *few, "--out", out], ["ingest", folder, out]):
        listing = words[0] == "ingest"
        refused(*words, naming=["3 of 5", "--max-broken", "broken0.jpg"], listing=listing)
        assert {path.name for path in tmp_path.iterdir()} == {"pictures"}
    refused(
        *SIMCLR,
        *few,
        "--max-broken",
        1,
        "--batch-size",
        64,
        "--out",
        out,
        naming="64",
        listing=True,
    )


def test_every_sort_of_picture_trains(tmp_path, out):
    folder = tmp_path / "Bilder für mich, 写真"
    folder.mkdir()
    colour = Image.fromarray(noise(0, (20, 14)))
    colour.convert("L").save(folder / "grey.jpg")
    colour.convert("CMYK").save(folder / "cmyk.jpg")
    Image.fromarray(noise(1).astype(np.uint16)[..., 0] * 257).save(folder / "sixteen bits.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    colour.save(folder / "gedreht ☂.jpg", exif=exif)
    frames = [Image.fromarray(noise(i)) for i in range(3)]
    frames[0].save(folder / "animated.gif", save_all=True, append_images=frames[1:])
    colour.convert("RGBA").save(folder / "clear.png")
    Image.fromarray(noise(2, (1, 1))).save(folder / "1x1.png")
    colour.save(folder / "-rf.webp")
    done = call(*SIMCLR, "--data", folder, "--batch-size", 4, "--epochs", 1, "--out", out)
    assert done.code == 0 and not done.err, done
    found = call("embed", out, f"{folder}@all", "--out", tmp_path / "f.npz", "--quiet")
    assert found.code == 0, found
    arrays = np.load(tmp_path / "f.npz")
    assert sorted(arrays["paths"]) == sorted(path.name for path in folder.iterdir())
    assert np.isfinite(arrays["features"]).all()


def test_one_image_is_told_to_take_a_batch_of_one(tmp_path, out):
    folder = pictures(tmp_path / "one", 1)
    refused(*SIMCLR, "--data", folder, "--out", out, naming=["1 example", "at most 1"])
    assert call("show", "image.simclr", "--data", folder, "--out", tmp_path / "a.png").code == 0


def test_one_image_trains_in_a_batch_of_one(tmp_path, out):
    folder = pictures(tmp_path / "one", 1)
    small = ("--batch-size", 1, "--epochs", 1, "--out", out)
    done = call("pretrain", "image.rotation", *TINY, "--data", folder, *small)
    assert done.code == 0, done


def test_a_source_of_another_kind_is_refused(tmp_path, out):
    (tmp_path / "sounds").mkdir()
    for i in range(3):
        sound(tmp_path / "sounds" / f"{i}.wav", np.sin(np.arange(8000) * 0.1))
    refused(*SIMCLR, "--data", tmp_path / "sounds", "--out", out, naming=["sounds", "image"])
    assert not out.exists()


def test_silent_and_unreadable_sounds_are_broken_files(tmp_path, out):
    folder = tmp_path / "sounds"
    folder.mkdir()
    for i in range(7):
        sound(folder / f"{i}.wav", np.sin(np.arange(8000) * 0.1 * (i + 1)))
    sound(folder / "silent.wav", np.zeros(8000))
    sound(folder / "cut.wav", np.sin(np.arange(8000)))
    (folder / "cut.wav").write_bytes((folder / "cut.wav").read_bytes()[:9000])
    with wave.open(str(folder / "opposed.wav"), "wb") as file:
        file.setparams((2, 2, 16000, 0, "NONE", None))
        file.writeframes(np.outer(8000 * np.sin(np.arange(8000)), [1, -1]).astype("<i2").tobytes())
    os.mkfifo(folder / "pipe.wav")
    nan = np.full(8000, np.nan, "<f4").tobytes()
    form = b"fmt " + struct.pack("<IHHIIHH", 16, 3, 1, 16000, 64000, 4, 32)
    body = b"WAVE" + form + b"data" + struct.pack("<I", len(nan)) + nan
    (folder / "nan.wav").write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)
    (folder / "empty.mp4").touch()
    done = call("ingest", folder, out, "--quiet")
    assert done.code == 0, done
    told = done.out + done.err
    assert "broken: silent.wav: it is silent" in told and "broken: nan.wav" in told
    assert "broken: empty.mp4" in told and "6 of 13 files are broken" in told
    assert "broken: cut.wav: cut short: 8956 of 16000 bytes" in told
    assert "broken: opposed.wav: its channels cancel" in told
    assert "broken: pipe.wav: not a regular file" in told


def test_labelled_protocols_refuse_data_without_labels(run, tmp_path):
    flat = pictures(tmp_path / "flat", 30)
    words = ("evaluate", run, "--data", flat, "--protocol", "knn")
    refused(*words, naming=["flat", "label"])
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    refused(*words, "--json", tmp_path / "r.json", naming="label")
    assert before == {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    assert not (tmp_path / "r.json").exists()


def test_evaluating_something_that_is_no_encoder_is_refused(tmp_path, run):
    (tmp_path / "file").write_text("x")
    (tmp_path / "fake").mkdir()
    (tmp_path / "fake" / "saved_model.pb").write_bytes(b"no protocol buffer")
    some = pictures(tmp_path / "pictures")
    for path in (tmp_path / "nowhere", tmp_path / "file", tmp_path / "fake", some):
        refused("evaluate", path, "--data", "digits", "--protocol", "knn", naming=path)
        refused("embed", path, "digits", "--out", tmp_path / "f.npz", naming=path)
        refused("export", path, tmp_path / "dest", naming=path)
        refused("report", path, "--out", tmp_path / "r.html", naming=path)
    refused("export", run, tmp_path / "dest", "--name", "ears", naming=["ears", "encoder"])
    for name in ("f.npz", "dest", "r.html"):
        assert not (tmp_path / name).exists()


def test_a_network_that_takes_something_else_is_refused_by_its_input(tmp_path):
    """Anybody's SavedModel may come, but not of grey or 8-bit pictures, or of two inputs."""
    for name, inputs in {
        "grey": [tf.TensorSpec([None, None, None, 1], tf.float32)],
        "bytes": [tf.TensorSpec([None, None, None, 3], tf.uint8)],
        "first": [tf.TensorSpec([None, 3, 32, 32], tf.float32)],
        "alone": [tf.TensorSpec([1, 32, 32, 3], tf.float32)],
        "pair": [tf.TensorSpec([None, 8, 8, 3], tf.float32, name=n) for n in "ab"],
    }.items():
        module = tf.Module()
        module.mean = tf.function(lambda *x: tf.reduce_mean(x[0], [1, 2]), input_signature=inputs)
        tf.saved_model.save(module, str(tmp_path / name), signatures=module.mean)
        words = ("embed", tmp_path / name, "digits", "--out", tmp_path / "f.npz")
        refused(*words, naming=[name, "takes"])


def test_what_a_protocol_cannot_measure_is_named(run, tmp_path):
    for i, split in enumerate(("train", "test")):
        pictures(tmp_path / "data" / split / "a", 3, first=6 * i)
    pictures(tmp_path / "data" / "test" / "b", 3, first=20)
    words = ("evaluate", run, "--data", tmp_path / "data", "--protocol", "knn")
    refused(*words, naming=[tmp_path / "data", "same label"])
    refused(*words, "--json", tmp_path, naming="--json")


@pytest.fixture
def wood(tmp_path):
    """Twelve pictures with boxes of two classes, one of them damaged."""
    folder = pictures(tmp_path / "wood", 12)
    lines = ["file,class,xmin,ymin,xmax,ymax,width,height"]
    lines += [f"{i}.jpg,{'ab'[i % 2]},1,1,9,9,12,12" for i in range(12)]
    (folder / "boxes.csv").write_text("\n".join(lines))
    (folder / "3.jpg").write_bytes((folder / "3.jpg").read_bytes()[:300])
    return folder


def test_damaged_pictures_with_boxes_are_skipped_listed_and_counted(run, wood):
    words = ("evaluate", run, "--data", wood, "--protocol", "voc07", "--size", 16, "--quiet")
    done = call(*words)
    assert done.code == 0 and "broken: 3.jpg: " in done.err, done
    assert "files are broken and were skipped." in done.err
    refused(*words, "--max-broken", 0.01, naming=["--max-broken 0.01", "3.jpg"])


def test_annotations_that_cannot_be_read_are_named(run, wood):
    words = ("evaluate", run, "--data", wood, "--protocol", "voc07", "--quiet")
    table = wood / "boxes.csv"
    table.write_text(table.read_text().replace("5.jpg,b,1", "5.jpg,b,left"))
    refused(*words, naming=["boxes.csv, row 7, column 'xmin'", "'left'"])
    table.unlink()
    (wood / "annotations").mkdir()
    for split in ("train", "val"):
        (wood / "annotations" / f"instances_{split}.json").write_text("{")
    refused(*words, naming="instances_train.json is no JSON")


def test_an_encoder_of_other_channels_or_another_length_is_told_what_it_takes(tmp_path):
    import keras

    import tfssl

    inputs = keras.Input((None, None, 1))
    depth = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(inputs))
    tfssl.export(depth, tmp_path / "depth")
    fixed = tf.Module()
    fixed.call = tf.function(
        lambda x: tf.reshape(x, [-1, 16, 1000])[..., 0],
        input_signature=[tf.TensorSpec([None, 16000], tf.float32)],
    )
    tf.saved_model.save(fixed, str(tmp_path / "fixed"), signatures=fixed.call)
    for name in "ab":
        (tmp_path / "sounds" / name).mkdir(parents=True)
        for i in range(6):
            sound(tmp_path / "sounds" / name / f"{i}.wav", np.sin(np.arange(8000) * 0.1 * (i + 1)))
    for name, source, takes in (
        ("depth", "digits", ["1 channel ", "examples have 3"]),
        ("fixed", tmp_path / "sounds", ["16000 values", "examples have 8000"]),
    ):
        words = (tmp_path / name, "--data", source, "--protocol", "knn", "--quiet")
        refused("evaluate", *words, naming=[tmp_path / name, *takes])
        refused("embed", tmp_path / name, source, "--out", tmp_path / "f.npz", naming=takes)


@pytest.mark.parametrize("name, settings", [("text_bag", {"dim": 8}), ("audio_cnn", {"width": 4})])
def test_maps_and_boxes_are_not_asked_of_encoders_of_another_kind(name, settings, tmp_path):
    import tfssl
    from tfssl import encoders

    tfssl.export(encoders.get(name, **settings), tmp_path / "encoder")
    words = ("evaluate", tmp_path / "encoder", "--data", "world:size=32,n=4", "--quiet")
    for protocol, told in (
        ("segmentation", "needs an encoder of pictures"),
        ("detection", "needs an encoder of pictures"),
        ("voc07", "the encoder takes"),
    ):
        refused(*words, "--protocol", protocol, naming=[tmp_path / "encoder", told])


def test_a_full_disk_is_told_in_a_sentence():
    text = callers_fault(OSError(28, os.strerror(28)))
    assert "No space left" in text and callers_fault(RuntimeError(f"f.data; {text}"))


def test_a_reader_that_leaves_is_no_fault():
    done = subprocess.run(
        f"{sys.executable} -m tfssl list --json | true; exit ${{PIPESTATUS[0]}}",
        **{"shell": True, "executable": "/bin/bash", "capture_output": True, "cwd": ROOT},
    )
    assert done.returncode == 128 + signal.SIGPIPE and not done.stderr, done


def test_a_tampered_encoder_is_refused(run, tmp_path):
    dest = tmp_path / "dest"
    assert call("export", run, dest).code == 0
    for name in ("saved_model.pb", "card.md", "variables/variables.index"):
        whole = (dest / name).read_bytes()
        (dest / name).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        words = ("evaluate", dest, "--data", "digits", "--protocol", "knn")
        refused(*words, naming=[name, "sha256"])
        refused("embed", dest, "digits", "--out", tmp_path / "f.npz", naming=name)
        (dest / name).write_bytes(whole)
    (dest / "manifest.json").unlink()
    refused("embed", dest, "digits", "--out", tmp_path / "f.npz", naming="manifest.json")


def test_results_go_to_files_of_the_right_name(run, tmp_path):
    some = pictures(tmp_path / "pictures")
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "x").touch()
    refused("embed", run, some, "--out", tmp_path / "f.csv", naming=".npz")
    refused("show", "image.simclr", "--data", "digits", "--out", tmp_path / "a.jpg", naming=".png")
    refused("export", run, tmp_path / "theirs", naming="theirs")
    (tmp_path / "thesis.txt").write_text("years of work")
    refused("report", run, "--out", tmp_path / "thesis.txt", naming=".html")
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
    for name in ("f.npz", "a.png", "r.html"):
        (tmp_path / name).mkdir()
    refused("embed", run, some, "--out", tmp_path / "f.npz", naming="f.npz")
    refused("show", "image.simclr", "--data", "digits", "--out", tmp_path / "a.png", naming="a.png")
    refused("report", run, "--out", tmp_path / "r.html", naming="r.html")
    assert [path.name for path in (tmp_path / "theirs").iterdir()] == ["x"]
    to = ("--data", "digits", "--protocol", "knn", "--json", "/proc/r.json")
    refused("evaluate", run, *to, naming="--json /proc/r.json cannot be written")
    refused("embed", run, some, "--out", "/proc/f.npz", naming="--out /proc/f.npz")
    refused("report", run, "--out", "/proc/r.html", naming="--out /proc/r.html")
    refused("ingest", some, "/proc/shards", naming="/proc/shards cannot be written")
    refused("ingest", tmp_path / "nothing", tmp_path / "s", naming="nothing: there is no such")


def test_what_was_deleted_of_a_finished_run_is_made_again(run, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(run, out)
    words = (*SIMCLR, "--epochs", 1, "--out", out)
    for name in ("sheet.png", "features.npz", "report.html"):
        (out / name).unlink()
    assert call(*words).code == 0
    for name in ("sheet.png", "features.npz", "report.html"):
        assert (out / name).stat().st_size > 0
    (out / "history.json").unlink()
    done = call(*words)
    assert done.code == 0 and "history.json is gone" in done.err


def test_resuming_with_other_options_names_the_option(run):
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    same = (*SIMCLR, "--epochs", 1, "--out", run)
    for words, naming in (
        (["--epochs", 2], "epochs"),
        (["--batch-size", 8], "batch_size"),
        (["--seed", 1], "seed"),
        (["--set", "temperature=0.5"], "temperature"),
        (["--precision", "mixed_bfloat16"], "precision"),
        (["--steps-per-epoch", 3], "steps_per_epoch"),
        (["--data", "digits@test"], "data"),
    ):
        refused(*same, *words, naming=naming)
    refused("pretrain", "image.rotation", *TINY, "--epochs", 1, "--out", run, naming="method")
    assert before == {path: path.stat().st_mtime_ns for path in run.rglob("*")}


def test_one_example_cannot_be_merged_with_any(tmp_path, out):
    words = ("--small", "--data", f"{pictures(tmp_path / 'one', 1)}@all", "--batch-size", 1)
    refused("pretrain", "image.joint_cluster", *words, "--out", out, naming="two examples")


def test_an_encoder_of_two_inputs_is_not_measured(tmp_path):
    import keras

    import tfssl

    left, right = keras.Input((4,), name="left"), keras.Input((4,), name="right")
    both = keras.Model([left, right], keras.layers.Concatenate()([left, right]))
    path = tfssl.export(both, tmp_path / "both")
    refused("evaluate", path, "--data", "digits", "--protocol", "knn", naming="one input")


def test_a_run_is_not_resumed_on_data_that_have_changed(run, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(run, out)
    record = json.loads((out / "run.json").read_text())
    record["finished"], record["plan"]["steps_per_pass"] = None, 7
    (out / "run.json").write_text(json.dumps(record))
    refused(*SIMCLR, "--epochs", 1, "--out", out, naming="7 batches")


def test_a_damaged_run_folder_is_named(tmp_path):
    (tmp_path / "run.json").write_text("[]")
    refused(*SIMCLR, "--out", tmp_path, naming="run.json")
    (tmp_path / "run.json").write_text("{")
    refused(*SIMCLR, "--out", tmp_path, naming="run.json")
    refused("export", tmp_path, tmp_path / "dest", naming="run.json")


def test_a_loss_that_is_no_number_publishes_nothing(out):
    done = call(*SIMCLR, "--set", "temperature=1e-40", "--out", out)
    assert done.code == 2 and "learning_rate" in done.err and "Traceback" not in done.err, done
    assert not out.exists(), "nothing of it is worth keeping"


def test_damaged_shards_are_named(tmp_path, out):
    shards = tmp_path / "shards"
    assert call("ingest", pictures(tmp_path / "pictures", 12), shards, "--quiet").code == 0
    words = (*SIMCLR, "--data", shards, "--batch-size", 4, "--out", out)
    shard = max(shards.rglob("*.tfrecord*"), key=lambda path: path.stat().st_size)
    whole = shard.read_bytes()
    for content in (whole[: len(whole) // 2], whole[:200] + b"XXXX" + whole[204:]):
        shard.write_bytes(content)
        refused(*words, naming=shard.name)
    shard.unlink()
    refused(*words, naming=shard.name)
    assert not out.exists()
    shard.write_bytes(whole)
    for name in ("tfssl.json", "broken.jsonl"):
        good = (shards / name).read_text()
        (shards / name).write_text("{")
        refused(*words, naming=name)
        (shards / name).write_text(good)
    (shards / "dataset_info.json").write_text("{")
    refused(*words, naming="shards")
