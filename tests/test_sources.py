"""Sources: splits that hold for ever, files of every kind, and bad input told in one sentence."""

import csv
import fractions
import hashlib
import json
import os
import struct
import wave
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from tfssl import pipelines
from tfssl.pipelines import BadInput
from tfssl.pipelines.sources import (
    broken_report,
    folders,
    images,
    media,
    records,
    require,
    splits,
    tfds,
)


def picture(path, size=(8, 8), seed=0, mode="RGB", **options):
    """Write a random image whose parts differ enough to be told apart after JPEG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).convert(mode).save(path, **options)
    return path


def write_wav(path, samples, rate=16000):
    """Mono 16-bit sound from floats."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes((np.asarray(samples) * 32767).astype("<i2").tobytes())
    return path


def write_float_wav(path, samples, rate=16000):
    """Mono float sound, which may hold NaN."""
    data = np.asarray(samples, "<f4").tobytes()
    head = struct.pack("<4sI4s4sIHHIIHH", b"RIFF", 36 + len(data), b"WAVE", b"fmt ", 16, 3, 1, rate,
                       rate * 4, 4, 32)  # fmt: skip
    path.write_bytes(head + struct.pack("<4sI", b"data", len(data)) + data)


def clip(path, frames=20, fps=10, sound=0.5, size=(64, 48), sound_from=0.0, codec=None):
    """A grey video; `sound` is the amplitude of a tone, None for no sound stream at all."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    mpeg = path.suffix in (".mpg", ".avi")
    with av.open(str(path), "w") as out:
        video = out.add_stream(codec or ("mpeg4" if path.suffix != ".mpg" else "mpeg2video"), fps)
        video.width, video.height, video.pix_fmt = *size, "yuv420p"
        if sound is not None:
            audio = out.add_stream("mp2" if mpeg else "aac", 16000)
            audio.layout = "mono"
        packets = []
        # Flat frames would be so small that MPEG gives several of them one time stamp.
        noise = np.random.default_rng(0).integers(0, 20, (size[1], size[0], 3))
        for i in range(frames):
            grey = (10 * i % 230 + noise).astype(np.uint8)
            packets += video.encode(av.VideoFrame.from_ndarray(grey, "rgb24"))
        packets += video.encode(None)
        if sound is not None:
            t = np.arange(int(16000 * frames / fps)) / 16000
            tone = (sound * np.sin(2 * np.pi * 440 * t)).astype(np.float32)
            frame = av.AudioFrame.from_ndarray(tone[None], "fltp", "mono")
            frame.sample_rate, frame.pts = 16000, round(sound_from * 16000)
            for piece in av.AudioResampler("fltp" if not mpeg else "s16", "mono", 16000).resample(
                frame
            ):
                packets += audio.encode(piece)
            packets += audio.encode(None)
        out.start_encoding()
        for packet in sorted(packets, key=lambda p: p.dts * p.time_base):
            out.mux(packet)
    return path


def values(dataset, key):
    return [example[key] for example in dataset.as_numpy_iterator()]


def test_digits_are_real_and_cut_for_ever():
    train, test = pipelines.load("digits"), pipelines.load("digits@test")
    assert train.element_spec["image"].shape == (32, 32, 3)
    assert int(train.cardinality()) == len(train.paths) == 1797 - len(test.paths)
    assert 120 < len(test.paths) < 240
    assert not set(train.paths) & set(test.paths)
    one = next(iter(test.as_numpy_iterator()))
    assert one["image"].dtype == np.uint8 and one["image"].max() > 200 and one["index"] == 0
    assert test.paths[:3] == ["digits/2", "digits/9", "digits/13"]


def test_the_cut_is_the_hash_of_the_relative_path(tmp_path):
    names = [f"{i}.png" for i in range(60)]
    for i, name in enumerate(names):
        picture(tmp_path / name, seed=i)

    def in_test(name):
        return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") % 10 == 0

    train, test = pipelines.load(tmp_path), pipelines.load(tmp_path, "test")
    assert test.paths == sorted(filter(in_test, names))
    assert train.paths == sorted(set(names) - set(test.paths))
    assert values(train, "index") == list(range(len(train.paths)))
    before = set(test.paths)
    picture(tmp_path / "a new one.png")
    assert before <= set(pipelines.load(f"{tmp_path}@test").paths) <= before | {"a new one.png"}
    assert "label" not in train.element_spec


def test_even_two_images_leave_something_to_train_and_to_test_on(tmp_path):
    for name in ("a.png", "b.png"):
        picture(tmp_path / name)
    train, test = pipelines.load(tmp_path), pipelines.load(tmp_path, "test")
    assert len(train.paths) == len(test.paths) == 1 and train.paths != test.paths


@pytest.mark.parametrize("name", ["only.png", "1.png"])  # the second one's hash ends in 0
def test_a_single_image_is_trained_on(tmp_path, name):
    assert (splits.digest(name) % 10 == 0) == (name == "1.png")
    picture(tmp_path / name, size=(1, 1))
    assert values(pipelines.load(tmp_path), "image")[0].shape == (1, 1, 3)
    with pytest.raises(BadInput, match="no example in its split 'test'"):
        pipelines.load(tmp_path, "test")


def test_train_and_test_folders_are_the_splits(tmp_path):
    for split, names in {"train": "ab", "test": "abc", "extra": "z"}.items():
        for name in names:
            picture(tmp_path / split / name / "1.png")
    train, test = pipelines.load(tmp_path), pipelines.load(tmp_path, "test")
    assert train.paths == ["train/a/1.png", "train/b/1.png"]
    assert test.paths == ["test/a/1.png", "test/b/1.png", "test/c/1.png"]
    assert train.class_names == test.class_names == ["a", "b", "c"]
    assert values(test, "label") == [0, 1, 2]
    with pytest.raises(BadInput, match="no split 'val'; it holds test, train"):
        pipelines.load(tmp_path, "val")


def test_val_serves_where_there_is_no_test(tmp_path):
    for split in ("train", "val"):
        picture(tmp_path / split / f"{split}.png")
    assert pipelines.load(tmp_path, "test").paths == ["val/val.png"]
    assert pipelines.load(f"{tmp_path}@val").paths == ["val/val.png"]


def test_class_folders_may_lie_deeper_and_names_be_in_any_script(tmp_path):
    for name in ("im ages/Käse/größe 1.png", "im ages/猫/二.PNG", "im ages/猫/.hidden.png"):
        picture(tmp_path / name)
    dataset = pipelines.load(tmp_path)
    assert dataset.class_names == ["Käse", "猫"] and dataset.total == 2
    assert "label" in dataset.element_spec


def test_a_flat_split_has_no_labels_and_takes_none_from_the_others(tmp_path):
    for name in ("train/cat/1.png", "train/dog/1.png", "val/1.png", "val/2.png"):
        picture(tmp_path / name)
    train, val = pipelines.load(tmp_path), pipelines.load(tmp_path, "val")
    assert train.class_names == ["cat", "dog"] and values(train, "label") == [0, 1]
    assert val.class_names == [] and "label" not in val.element_spec
    assert "label" not in pipelines.load(tmp_path, "all").element_spec
    picture(tmp_path / "train" / "stray.png")
    with pytest.raises(BadInput, match=r"train/stray\.png lies beside the folders"):
        pipelines.load(tmp_path, keys=("image", "label"))


def test_a_loose_file_that_hides_the_classes_is_named(tmp_path):
    for name in ("cat/1.png", "dog/1.png", "preview.png"):
        picture(tmp_path / name)
    assert pipelines.load(tmp_path, "all").class_names == []
    with pytest.raises(BadInput, match=r"preview\.png lies beside the folders"):
        pipelines.load(tmp_path, "all", keys=("image", "label"))


@pytest.mark.parametrize("spec", ["{}@trian", "digits@trian"])
def test_an_unknown_split_suggests_the_nearest(tmp_path, spec):
    picture(tmp_path / "a.png")
    with pytest.raises(BadInput, match=r"did you mean .*@train"):
        pipelines.load(spec.format(tmp_path))


def test_two_splits_that_contradict_each_other_are_refused():
    with pytest.raises(BadInput, match="asks for the split 'test' where 'train' is needed"):
        pipelines.load("digits@test", "train")


def test_every_kind_of_image_becomes_eight_bit_rgb(tmp_path):
    left_red = np.zeros((4, 6, 3), np.uint8)
    left_red[:, :3, 0] = 255
    base = Image.fromarray(left_red)
    base.save(tmp_path / "rgb.png")
    base.convert("CMYK").save(tmp_path / "cmyk.jpg", quality=100, subsampling=0)
    base.convert("P").save(tmp_path / "palette.png")
    base.convert("RGBA").save(tmp_path / "alpha.png")
    base.save(tmp_path / "moving.gif", save_all=True, append_images=[Image.new("RGB", (6, 4))])
    base.save(tmp_path / "a.webp", lossless=True)
    base.save(tmp_path / "a.bmp")
    base.save(tmp_path / "a.tiff")
    turned = Image.fromarray(np.rot90(left_red).copy())  # as a camera held sideways stores it
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it upright
    turned.save(tmp_path / "exif.png", exif=exif)
    grey = (left_red[..., 0].astype(np.uint16)) * 257
    Image.fromarray(grey).save(tmp_path / "sixteen.png")
    Image.fromarray(left_red[..., 0]).save(tmp_path / "grey.png")
    dataset = pipelines.load(tmp_path, keys=["image"])
    other = pipelines.load(tmp_path, "test")
    assert dataset.broken == [] and dataset.element_spec["image"].shape == (4, 6, 3)
    found = dict(
        zip(dataset.paths + other.paths, values(dataset, "image") + values(other, "image"))
    )
    for name, image in found.items():
        truth = (
            np.repeat(left_red[..., :1], 3, -1) if name in ("sixteen.png", "grey.png") else left_red
        )
        assert np.abs(image.astype(int) - truth).max() < 12, name


def test_broken_files_among_good_ones_are_named_and_counted(tmp_path):
    for i in range(12):
        picture(tmp_path / f"{i}.jpg", size=(40, 40), seed=i)
    (tmp_path / "text.jpg").write_text("<html>not found</html>")
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "clip.mp4").touch()
    half = picture(tmp_path / "half.jpg", size=(40, 40)).read_bytes()
    (tmp_path / "half.jpg").write_bytes(half[: len(half) // 2])
    head = b"IHDR" + struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    import zlib

    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))
    (tmp_path / "bomb.png").write_bytes(bomb + struct.pack(">I", 0) + b"IDAT")
    dataset = pipelines.load(tmp_path)
    reasons = dict(dataset.broken)
    assert sorted(reasons) == ["bomb.png", "clip.mp4", "empty.jpg", "half.jpg", "text.jpg"]
    assert "pixels" in reasons["bomb.png"] and reasons["empty.jpg"] == "empty file"
    report = broken_report(dataset.broken, dataset.total)
    assert report.splitlines()[-1] == "5 of 17 files are broken and were skipped."
    assert all(any(name in line for line in report.splitlines()[:-1]) for name in reasons)
    assert int(dataset.cardinality()) == sum(1 for _ in dataset)
    with pytest.raises(BadInput, match=r"5 of 17 files are broken .*--max-broken 0.2") as error:
        pipelines.load(tmp_path, max_broken=0.2)
    assert len(str(error.value)) < 600


def test_a_run_inside_a_folder_of_pictures_gives_none(tmp_path):
    for i in range(4):
        picture(tmp_path / f"{i}.png", seed=i)
    picture(tmp_path / "runs" / "x" / "sheet.png")
    (tmp_path / "runs" / "x" / "run.json").write_text('{"method": "a.b", "arguments": {}}')
    picture(tmp_path / "mine" / "own.png")
    (tmp_path / "mine" / "run.json").write_text("[]")
    assert list(pipelines.load(tmp_path, "all").paths) == [
        *(f"{i}.png" for i in range(4)),
        "mine/own.png",
    ]


def closed(monkeypatch, folder):
    """Let a folder be one that may not be opened, also for root."""
    scandir, listdir = os.scandir, os.listdir

    def refusing(function):
        def opened(path="."):
            if path in (folder, os.fspath(folder)):
                raise PermissionError(13, "Permission denied", os.fspath(path))
            return function(path)

        return opened

    monkeypatch.setattr(os, "scandir", refusing(scandir))
    monkeypatch.setattr(os, "listdir", refusing(listdir))


@pytest.mark.parametrize("own", ["", "train/"])
def test_a_folder_that_cannot_be_opened_is_named_and_counted(tmp_path, monkeypatch, own):
    for i in range(4):
        picture(tmp_path / f"{own}cat" / f"{i}.png", seed=i)
        picture(tmp_path / f"{own}dog" / "deep" / f"{i}.png", seed=i)
        picture(tmp_path / "test" / f"{i}.png", seed=i)
    closed(monkeypatch, tmp_path / f"{own}dog" / "deep")
    dataset = pipelines.load(tmp_path, "all")
    reason = "a folder that cannot be opened: Permission denied"
    assert dataset.broken == [(f"{own}dog/deep", reason)] and dataset.total == 9
    assert len(dataset.paths) == 8
    lines = broken_report(dataset.broken, dataset.total).splitlines()
    assert lines[0] == f"broken: {own}dog/deep: {reason}" and lines[1].startswith("1 of 9 files")


@pytest.mark.parametrize("which", ["", "train", "deep"])
def test_a_folder_of_which_nothing_can_be_opened_is_refused(tmp_path, monkeypatch, which):
    for name in ("train", "test") if which == "train" else ("deep",):
        picture(tmp_path / name / "1.png")
    closed(monkeypatch, tmp_path / which)
    with pytest.raises(BadInput, match="cannot be opened: Permission denied"):
        pipelines.load(tmp_path, "test")


def test_a_link_to_itself_costs_one_file_and_a_name_of_two_lines_one_line(tmp_path):
    for i in range(6):
        picture(tmp_path / f"{i}.png", seed=i)
    os.symlink(tmp_path / "self.png", tmp_path / "self.png")
    (tmp_path / "two\nlines.png").touch()
    dataset = pipelines.load(tmp_path)
    assert [path for path, _ in dataset.broken] == ["self.png", "two\nlines.png"]
    lines = broken_report(dataset.broken, dataset.total).splitlines()
    assert lines[1] == r"broken: two\nlines.png: empty file" and len(lines) == 3


def test_a_folder_of_broken_files_is_refused(tmp_path):
    for i in range(3):
        (tmp_path / f"{i}.png").write_bytes(b"no picture")
    with pytest.raises(BadInput, match="3 of 3 files are broken"):
        pipelines.load(tmp_path, max_broken=1.0)


def test_missing_and_empty_folders_say_what_to_do(tmp_path):
    with pytest.raises(BadInput, match="endings understood"):
        pipelines.load(tmp_path)
    (tmp_path / "pictures").mkdir()
    with pytest.raises(BadInput, match=r"did you mean .*pictures"):
        pipelines.load(tmp_path / "pictrues")
    with pytest.raises(BadInput, match="did you mean digits"):
        pipelines.load("digit")


def test_a_folder_without_labels_is_refused_where_labels_are_needed(tmp_path):
    picture(tmp_path / "a.png")
    dataset = pipelines.load(tmp_path)
    with pytest.raises(BadInput, match="has no labels"):
        require(dataset, "label", tmp_path)
    with pytest.raises(BadInput, match="holds images, and 'frames' is needed"):
        pipelines.load(tmp_path, keys=["frames"])
    with pytest.raises(BadInput, match="has no labels"):
        pipelines.load(tmp_path, keys=["image", "label"])
    with pytest.raises(BadInput, match="has no 'audio'"):
        pipelines.load("digits", keys=["audio"])


def test_labels_are_known_without_reading_the_pictures(tmp_path):
    for i, name in enumerate(("cat", "dog", "cat")):
        picture(tmp_path / name / f"{i}.png", seed=i)
    dataset = pipelines.load(tmp_path, "all")
    assert dataset.labels == [int(example["label"]) for example in dataset]
    assert pipelines.batching.evaluation(dataset, 2, 8).labels == dataset.labels
    assert not hasattr(pipelines.load(tmp_path, "all", keys=("image",)), "labels")


def test_images_of_many_sizes_keep_them_in_memory_and_streamed(tmp_path, monkeypatch):
    for i in range(9):
        picture(tmp_path / f"{i}.jpg", size=(10 + i, 20), seed=i, quality=95)
    picture(tmp_path / "9.png", size=(10, 20), mode="RGBA")
    held = pipelines.load(tmp_path)
    records._latest = None, None
    scan = records.scan
    monkeypatch.setattr(records, "scan", lambda *args: scan(*args, memory=100))
    streamed = pipelines.load(tmp_path)
    assert held.element_spec == streamed.element_spec
    assert held.element_spec["image"].shape.as_list() == [20, None, 3]
    assert int(streamed.cardinality()) == len(held.paths)
    for a, b in zip(held.as_numpy_iterator(), streamed.as_numpy_iterator()):
        assert np.abs(a["image"].astype(int) - b["image"]).max() <= 2
        assert a["index"] == b["index"]
    for dataset in (held, streamed):
        third = dataset.gather(np.array([2]))
        assert third["index"].numpy() == [2]
        assert third["image"].shape == (1, *list(held.as_numpy_iterator())[2]["image"].shape)


def test_damaged_tables_do_not_pass_for_a_sound_header(tmp_path):
    whole = picture(tmp_path / "0.jpg", size=(60, 40)).read_bytes()
    first = whole.index(b"\xff\xc4")
    for name, damage, place in (
        ("gap.jpg", bytes(60), first + 10),
        ("code.jpg", b"\xff\xff", first + 5),
        ("mark.jpg", bytes(2), first),
    ):
        broken = bytearray(whole)
        broken[place : place + len(damage)] = damage
        (tmp_path / name).write_bytes(broken)
        assert images.glance(tmp_path / name) is None
    assert images.glance(tmp_path / "0.jpg") == ((40, 60, 3), True)
    picture(tmp_path / "1.jpg", size=(60, 40), progressive=True)
    assert images.glance(tmp_path / "1.jpg") == ((40, 60, 3), True)


def test_an_orientation_that_means_nothing_turns_nothing(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 9
    path = picture(tmp_path / "0.jpg", size=(60, 40), exif=exif)
    assert images.glance(path)[0] == images.decode(path.read_bytes()).shape == (40, 60, 3)


def test_a_huge_folder_is_checked_by_the_ends_of_its_files(tmp_path):
    for i in range(6):
        picture(tmp_path / f"{i}.jpg", size=(60, 40), seed=i)
    half = (tmp_path / "0.jpg").read_bytes()
    (tmp_path / "half.jpg").write_bytes(half[: len(half) // 2])
    exif = Image.Exif()
    exif[0x0112] = 8
    picture(tmp_path / "turned.jpg", size=(40, 60), exif=exif)
    rows, *_ = folders.records(tmp_path)
    found = records.scan(rows, ((), 128, 300, 16000), memory=-1)
    assert [path for path, _ in found.broken] == ["half.jpg"]
    assert {shape["image"] for shape in found.shapes} == {(40, 60, 3)}
    assert found.plain == (True,) * 6 + (False,)


@pytest.mark.parametrize("own", [False, True])
def test_all_is_every_split(tmp_path, own):
    names = sorted(f"{'train' if i % 3 else 'test'}{'/' if own else ''}{i}.png" for i in range(30))
    for i, name in enumerate(names):
        picture(tmp_path / name, seed=i)
    everything = pipelines.load(tmp_path, "all")
    assert everything.paths == names
    assert values(everything, "index") == list(range(30))
    assert int(pipelines.load("digits@all").cardinality()) == 1797


def test_positions_are_gathered_as_they_stand(tmp_path):
    for i in range(12):
        picture(tmp_path / f"{i:02}.png", seed=i)
    dataset = pipelines.load(tmp_path)
    examples = list(dataset.as_numpy_iterator())
    batch = dataset.gather(np.array([3, 1]))
    np.testing.assert_array_equal(batch["index"], [3, 1])
    np.testing.assert_array_equal(batch["image"], [examples[3]["image"], examples[1]["image"]])


def test_sounds_are_mono_floats_and_bad_ones_are_listed(tmp_path):
    import av

    tone = 0.5 * np.sin(np.arange(8000) * 0.2)
    for i in range(8):
        write_wav(tmp_path / "dog" / f"{i}.wav", tone)
        write_wav(tmp_path / "cat" / f"{i}.wav", tone[:4000], rate=8000)
    for name, codec in {"a.ogg": "libopus", "a.mp3": "libmp3lame", "a.flac": "flac"}.items():
        with av.open(str(tmp_path / "cat" / name), "w") as out:
            stream = out.add_stream(codec, 16000)
            stream.layout = "mono"
            frame = av.AudioFrame.from_ndarray(tone[None].astype(np.float32), "fltp", "mono")
            frame.sample_rate, frame.pts = 16000, 0
            wanted = stream.codec_context.codec.audio_formats[0]
            for piece in av.AudioResampler(wanted, "mono", 16000).resample(frame):
                out.mux(stream.encode(piece))
            out.mux(stream.encode(None))
    write_wav(tmp_path / "dog" / "silent.wav", np.zeros(8000))
    write_float_wav(tmp_path / "dog" / "nan.wav", np.where(np.arange(8000) == 9, np.nan, tone))
    (tmp_path / "dog" / "text.mp3").write_text("this is no music, only words " * 50)
    (tmp_path / "dog" / "zero.flac").touch()
    dataset = pipelines.load(tmp_path)
    assert [path for path, _ in dataset.broken] == [
        f"dog/{name}" for name in ("nan.wav", "silent.wav", "text.mp3", "zero.flac")
    ]
    assert dataset.class_names == ["cat", "dog"]
    for one in dataset.as_numpy_iterator():
        assert one["audio"].dtype == np.float32 and one["sample_rate"] == 16000
        assert 0.45 < np.abs(one["audio"]).max() <= 1
        assert abs(len(one["audio"]) - 8000) < 1200  # mp3 pads


@pytest.mark.parametrize("right", [1.0, 0.0])
def test_a_sound_of_two_channels_becomes_their_mean(tmp_path, right):
    tone = 0.9 * np.sin(np.arange(8000) * 0.2)
    with wave.open(str(tmp_path / "a.wav"), "wb") as out:
        out.setparams((2, 2, 16000, 0, "NONE", None))
        out.writeframes((np.stack([tone, right * tone], 1) * 32767).astype("<i2").tobytes())
    (heard,) = pipelines.load(tmp_path, keys=("audio",)).as_numpy_iterator()
    np.testing.assert_allclose(heard["audio"], (1 + right) / 2 * tone, atol=2e-4)


@pytest.mark.parametrize("ending", ["mp4", "mpg", "avi", "mov"])
def test_videos_become_frames_and_sound_of_one_length(tmp_path, ending):
    fps = 25
    for i in range(3):
        clip(tmp_path / f"{i}.{ending}", frames=30, fps=fps)
    dataset = pipelines.load(tmp_path, short_side=24)
    one = next(iter(dataset.as_numpy_iterator()))
    assert one["frames"].shape == (30, 24, 32, 3) and one["frames"].dtype == np.uint8
    assert one["fps"] == fps
    assert one["audio"].shape == (30 / fps * 16000,)
    np.testing.assert_allclose(one["frame_times"], np.arange(30) / fps, atol=1e-3)


def test_clips_without_sound_do_no_harm(tmp_path):
    for i in range(6):
        clip(tmp_path / f"{i}.mp4", sound=0.5)
    clip(tmp_path / "mute.mp4", sound=None)
    clip(tmp_path / "silent.mp4", sound=0.0)
    both = pipelines.load(tmp_path).concatenate(pipelines.load(tmp_path, "test"))
    sums = sorted(np.abs(x["audio"]).sum() for x in both.as_numpy_iterator())
    assert sums[1] == 0 < sums[2]
    needed = pipelines.load(tmp_path, keys=["frames", "audio"])
    assert needed.broken == [("mute.mp4", "it has no sound"), ("silent.mp4", "it has no sound")]
    assert all(x["audio"].any() for x in needed.as_numpy_iterator())
    pictures = pipelines.load(tmp_path, keys=["frames"])
    assert "audio" not in pictures.element_spec and pictures.broken == []


def test_clips_too_many_for_memory_are_read_as_they_come(tmp_path, monkeypatch):
    for i in range(5):
        clip(tmp_path / f"{i}.mp4", frames=10 + i, sound=None if i == 2 else 0.5)
    held = pipelines.load(tmp_path, "all")
    records._latest = None, None
    scan = records.scan
    monkeypatch.setattr(records, "scan", lambda *args: scan(*args, memory=1000))
    streamed = pipelines.load(tmp_path, "all")
    assert held.element_spec == streamed.element_spec
    for a, b in zip(held.as_numpy_iterator(), streamed.as_numpy_iterator()):
        for key in a:
            np.testing.assert_array_equal(a[key], b[key])


def test_videos_are_read_for_their_sound_alone(tmp_path):
    for i, sound in enumerate((0.5, 0.4, None)):
        clip(tmp_path / f"{i}.mp4", frames=20 + i, sound=sound, sound_from=0.3)
    whole = clip(tmp_path / "cut.avi", frames=60).read_bytes()
    (tmp_path / "cut.avi").write_bytes(whole[: len(whole) // 2])
    both = pipelines.load(tmp_path, "all", keys=("frames", "audio"))
    heard = pipelines.load(tmp_path, "all", keys=("audio",))
    assert set(heard.element_spec) == {"audio", "sample_rate", "index"}
    assert [path for path, _ in heard.broken] == ["2.mp4", "cut.avi"]
    assert "cut short" in heard.broken[1][1]
    for a, b in zip(heard.as_numpy_iterator(), both.as_numpy_iterator()):
        least = min(len(a["audio"]), len(b["audio"]))
        assert least >= 2 * 16000 and not a["audio"][:3200].any()  # AAC begins a packet early
        np.testing.assert_array_equal(a["audio"][:least], b["audio"][:least])


@pytest.mark.parametrize("keys", [("audio",), ("frames", "audio")])
def test_a_clip_of_a_video_ends_with_it_also_for_its_sound_alone(tmp_path, keys):
    clip(tmp_path / "v.mp4", frames=40, fps=10)
    (tmp_path / "c.csv").write_text("video,start,end\nv.mp4,0.5,1.5\nv.mp4,0.51,0.55\n")
    table = pipelines.load(tmp_path / "c.csv", "all", keys=keys)
    sounds = values(table, "audio")
    assert sounds[0].shape == (16000,)
    if "frames" in keys:
        assert table.broken == [("v.mp4", "no frame lies between 0.51 and 0.55 s")]
    else:
        assert sounds[1].shape == (640,)


def write_packets(path, starts, length=1024, rate=16000):
    """A sound in Matroska whose packets of a loud `length` begin at `starts`, in seconds."""
    import av

    with av.open(str(path), "w") as out:
        stream = out.add_stream("pcm_s16le", rate)
        stream.layout = "mono"
        for start in starts:
            frame = av.AudioFrame.from_ndarray(np.full([1, length], 9999, "<i2"), "s16", "mono")
            frame.sample_rate, frame.pts = rate, round(start * rate)
            frame.time_base = fractions.Fraction(1, rate)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("pause", [0.0, 0.004, 0.04, 0.2])
def test_pauses_between_packets_add_up_however_short(tmp_path, pause):
    starts = np.arange(157) * (0.064 + pause)
    samples = media.sound(write_packets(tmp_path / "a.mka", starts))
    ends = starts[-1] + 0.064
    assert len(samples) / 16000 == pytest.approx(ends, abs=media.GAP)
    assert (np.abs(samples) > 0.2).sum() / 16000 == pytest.approx(157 * 0.064, rel=0.01)


def test_stamps_that_tremble_or_overlap_leave_the_sound_as_it_is(tmp_path):
    random = np.random.default_rng(0)
    starts = np.arange(157) * 0.064
    trembling = starts + random.uniform(0, 0.02, 157)
    for name, stamps in {"tremble": trembling, "overlap": starts * 0.9}.items():
        samples = media.sound(write_packets(tmp_path / f"{name}.mka", stamps))
        assert len(samples) == pytest.approx(157 * 1024, abs=2)
        assert (np.abs(samples[100:-100]) > 0.2).all()


# What the eight EXIF orientations do, by ffmpeg's matrix a b c d: (x, y) goes to (ax+cy, bx+dy).
ORIENTATIONS = {
    (1, 0, 0, 1): lambda p: p,
    (-1, 0, 0, 1): np.fliplr,
    (1, 0, 0, -1): np.flipud,
    (-1, 0, 0, -1): lambda p: np.rot90(p, 2),
    (0, 1, -1, 0): lambda p: np.rot90(p, -1),  # as a telephone held upright writes it
    (0, -1, 1, 0): lambda p: np.rot90(p, 1),
    (0, 1, 1, 0): lambda p: p.transpose(1, 0, 2),
    (0, -1, -1, 0): lambda p: np.rot90(p, 2).transpose(1, 0, 2),
}


@pytest.mark.parametrize("signs", list(ORIENTATIONS))
def test_videos_are_turned_and_mirrored_as_their_matrix_says(tmp_path, signs):
    import av

    one, (a, b, c, d) = 1 << 16, signs
    matrix = [a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30]
    stored = np.zeros([48, 64, 3], np.uint8)
    stored[:24, :32, 0], stored[:24, 32:] = 255, 255  # red, beside white
    expected = ORIENTATIONS[signs](stored)
    np.testing.assert_array_equal(media.displayed(stored, np.array(matrix, np.int32)), expected)
    with av.open(str(tmp_path / "a.mp4"), "w") as out:
        stream = out.add_stream("mpeg4", 25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        if not hasattr(stream, "set_display_matrix"):
            pytest.skip("this PyAV writes no display matrix")
        stream.set_display_matrix(matrix)
        for _ in range(3):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(stored, "rgb24")))
        out.mux(stream.encode(None))
    (one,) = values(pipelines.load(tmp_path, keys=("frames",)), "frames")
    assert one.shape == (3, *expected.shape)
    assert np.abs(one[0].astype(int) - expected).mean() < 10


def test_a_matrix_between_the_quarters_means_the_nearest():
    picture = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    for degrees, turned in {30: picture, 60: np.rot90(picture), 89: np.rot90(picture)}.items():
        turn = np.deg2rad(degrees)
        a, b, c, d = np.cos(turn), -np.sin(turn), np.sin(turn), np.cos(turn)
        matrix = np.array([a, b, 0, c, d, 0, 0, 0, 1]) * 65536
        np.testing.assert_array_equal(media.displayed(picture, matrix.astype(np.int32)), turned)
    np.testing.assert_array_equal(media.displayed(picture, np.zeros(9, np.int32)), picture)


def remuxed(source, path, shift=0, drop=(), aspect=None):
    """A video's packets in another file: `shift` frames before its beginning, some left out."""
    import av

    with av.open(str(source)) as a, av.open(str(path), "w") as b:
        stream = a.streams.video[0]
        out = b.add_stream_from_template(stream)
        out.time_base = stream.time_base
        if aspect:
            out.sample_aspect_ratio = aspect
        frame = 1 / stream.average_rate / stream.time_base
        for number, packet in enumerate(a.demux(stream)):
            if packet.size and number not in drop:
                packet.pts = packet.dts = int((number - shift) * frame)
                packet.stream = out
                b.mux(packet)
    return path


def test_frames_that_are_hidden_or_left_out_do_not_make_a_video_cut_short(tmp_path):
    source = clip(tmp_path / "source.mp4", sound=None, frames=50)
    hidden = remuxed(source, tmp_path / "hidden.mp4", shift=20)
    assert len(media.video(hidden)["frames"]) == 30
    source = clip(tmp_path / "source.avi", sound=None, frames=50)
    gap = media.video(remuxed(source, tmp_path / "gap.avi", drop=range(10, 30)))
    assert len(gap["frames"]) == 30 and gap["frame_times"][-1] == pytest.approx(4.9)


def test_pixels_that_are_not_square_become_so(tmp_path):
    source = clip(tmp_path / "a.mp4", sound=None)
    wide = remuxed(source, tmp_path / "b.mp4", aspect=fractions.Fraction(3, 2))
    assert media.video(wide)["frames"].shape[1:3] == (48, 96)
    assert media.video(wide, short_side=24)["frames"].shape[1:3] == (24, 48)


def test_a_sound_cut_short_is_listed_whatever_its_box(tmp_path):
    import av

    tone = np.sin(np.arange(6 * 16000) / 5).astype(np.float32)
    with av.open(str(tmp_path / "a.m4a"), "w", options={"movflags": "faststart"}) as out:
        stream = out.add_stream("aac", 16000)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(tone[None], "fltp", "mono")
        frame.sample_rate, frame.pts = 16000, 0
        for packet in (*stream.encode(frame), *stream.encode(None)):
            out.mux(packet)
    whole = (tmp_path / "a.m4a").read_bytes()
    (tmp_path / "b.m4a").write_bytes(whole[: len(whole) * 6 // 10])
    assert len(media.sound(tmp_path / "a.m4a")) == pytest.approx(6 * 16000, abs=2048)
    with pytest.raises(images.Unreadable, match="cut short"):
        media.sound(tmp_path / "b.m4a")


def test_videos_that_are_none_are_listed(tmp_path):
    for i in range(9):
        clip(tmp_path / f"{i}.mp4", sound=None)
    (tmp_path / "zero.mp4").touch()
    (tmp_path / "text.avi").write_text("words, words, words\n" * 100)
    picture(tmp_path / "p.png")
    (tmp_path / "p.png").rename(tmp_path / "picture.mp4")
    whole = clip(tmp_path / "cut.avi", sound=None, frames=60).read_bytes()
    (tmp_path / "cut.avi").write_bytes(whole[: len(whole) // 2])
    dataset = pipelines.load(tmp_path)
    assert [path for path, _ in dataset.broken] == [
        "cut.avi",
        "picture.mp4",
        "text.avi",
        "zero.mp4",
    ]


def test_a_table_pairs_images_with_captions(tmp_path):
    for i in range(30):
        picture(tmp_path / "im" / f"{i}.png", seed=i)
    with open(tmp_path / "pairs.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "caption", "label"])
        for i in range(30):
            for j in range(3):
                writer.writerow([f"im/{i}.png", f'a "{i}", and {j}', "ab"[i % 2]])
    train, test = (pipelines.load(tmp_path / "pairs.csv", split) for split in ("train", "test"))
    assert train.total == 30 and len(train.paths) + len(test.paths) == 90
    assert not set(train.paths) & set(test.paths)
    for path, one in zip(train.paths, train.as_numpy_iterator()):
        number = int(path[3:-4])
        assert one["text"].decode().startswith(f'a "{number}", and')
        assert one["label"] == number % 2
        np.testing.assert_array_equal(one["image"], np.asarray(Image.open(tmp_path / path)))


def test_a_jsonl_cuts_clips_and_names_its_own_splits(tmp_path):
    clip(tmp_path / "v.mp4", frames=40, fps=10)
    rows = [
        {"video": "v.mp4", "start": 0.5, "end": 1.5, "text": "one", "split": "train"},
        {"video": "v.mp4", "start": 2, "text": "two", "split": "test"},
    ]
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    first = next(iter(pipelines.load(tmp_path / "c.jsonl").as_numpy_iterator()))
    second = next(iter(pipelines.load(tmp_path / "c.jsonl", "test").as_numpy_iterator()))
    assert first["frames"].shape[0] == 10 and first["audio"].shape == (16000,)
    assert abs(int(first["frames"][0].mean()) - 60) < 6
    assert second["frames"].shape[0] == 20 and second["text"] == b"two"


@pytest.mark.parametrize(
    "content, says",
    [
        ("picture,words\na,b\n", "no column that says"),
        ("image,caption\na.png,\n", "row 2, column 'caption' is empty"),
        ("image,caption\na.png,one,two\n", "row 2: it has more cells"),
        ("video,start\na.mp4,soon\n", "row 2, column 'start': 'soon' is no number"),
        ("video,start,end\na.mp4,3,2\n", "row 2: the clip's `end`"),
        ("video,end\na.mp4,inf\n", "row 2, column 'end': 'inf' is no number"),
        ("image,caption,text\na.png,x,y\n", "both `caption` and `text`"),
        ("image,caption\n", "holds no rows"),
        ("image,caption\nnot-there.png,x\n", "1 of 1 files are broken"),
    ],
)
def test_a_bad_table_names_row_and_column(tmp_path, content, says):
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(BadInput, match=says):
        pipelines.load(tmp_path / "t.csv")


def test_labels_may_be_any_whole_numbers_and_texts_hold_any_line_ends(tmp_path):
    for i in range(3):
        picture(tmp_path / f"{i}.png", seed=i)
    for label, names in (("2", ["0", "1", "2"]), ("20240131000", []), ("9" * 25, ["1", "9" * 25])):
        table = "image,caption,label\n" + f'0.png,a\u2028b,{label}\n1.png,"c\nd",1\n2.png,e,1\n'
        (tmp_path / "table.csv").write_text(table, encoding="utf-8")
        dataset = pipelines.load(tmp_path / "table.csv", "all")
        assert dataset.class_names == names
        texts = [one["text"].decode() for one in dataset.as_numpy_iterator()]
        assert texts == ["a\u2028b", "c\nd", "e"]


def test_bad_json_names_its_row(tmp_path):
    (tmp_path / "t.jsonl").write_text('{"text": "fine"}\n{"text": }\n')
    with pytest.raises(BadInput, match="row 2: not JSON"):
        pipelines.load(tmp_path / "t.jsonl")


def test_the_columns_of_json_are_those_of_all_its_rows_and_half_a_character_is_none(tmp_path):
    rows = ['{"Text": "\\ud83d cut", "label": "a"}', '{"text": "b"}']
    (tmp_path / "t.jsonl").write_text(rows[0])
    one = next(pipelines.load(tmp_path / "t.jsonl").as_numpy_iterator())
    assert one["text"] == b"? cut" and one["label"] == 0
    (tmp_path / "t.jsonl").write_text("\n".join(rows[::-1]))
    with pytest.raises(BadInput, match="row 1, column 'label' is empty"):
        pipelines.load(tmp_path / "t.jsonl")


def test_one_name_in_two_spellings_falls_on_one_side_of_the_cut(tmp_path):
    for i in range(30):
        picture(tmp_path / f"{i}.png", seed=i)
    lines = [f"{start}{i}.png,x" for i in range(30) for start in ("", "./", "../here/")]
    (tmp_path / "here").symlink_to(tmp_path)
    (tmp_path / "t.csv").write_text("image,caption\n" + "\n".join(lines[::3] + lines[1::3]))
    train, test = (set(pipelines.load(tmp_path / "t.csv", s).paths) for s in ("train", "test"))
    assert not train & test and len(train | test) == 30


def test_one_long_text_does_not_make_room_for_all(tmp_path):
    import tracemalloc

    texts = ["short\0"] * 5000 + ["x" * 20_000]
    (tmp_path / "t.txt").write_text("\n".join(texts))
    tracemalloc.start()
    dataset = pipelines.load(tmp_path / "t.txt", "all")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50e6, "5000 times 20,000 characters of four bytes would be 400 MB"
    assert values(dataset, "text")[0] == b"short\0"


def test_texts_alone_are_a_source(tmp_path):
    (tmp_path / "t.txt").write_text("".join(f"line {i}\n\n" for i in range(50)))
    train = pipelines.load(tmp_path / "t.txt")
    assert set(train.element_spec) == {"text", "index"} and 30 < len(train.paths) < 50
    assert values(train, "text")[0].startswith(b"line ")


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    """A TFDS set as download_and_prepare leaves it on the disk."""
    import tensorflow_datasets as tfds

    class Toy(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")
        pkg_dir_path = tmp_path

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=(8, 8, 1)),
                "label": tfds.features.ClassLabel(names=["no", "yes"]),
                "audio": tfds.features.Audio(shape=(None,)),
            }
            features = tfds.features.FeaturesDict(features)
            return tfds.core.DatasetInfo(
                builder=self, features=features, supervised_keys=("image", "label")
            )

        def _split_generators(self, _):
            return {"train": self._generate_examples(50)}

        def _generate_examples(self, count):
            for i in range(count):
                yield (
                    i,
                    {
                        "image": np.full((8, 8, 1), i, np.uint8),
                        "label": i % 2,
                        "audio": np.full([10 + i], 16384, np.int64),
                    },
                )

    Toy(data_dir=tmp_path).download_and_prepare()
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    return tmp_path


def test_a_prepared_tfds_set_loads_with_our_keys(prepared):
    train, test = pipelines.load("tfds:toy"), pipelines.load("tfds:toy@test")
    assert train.element_spec["image"].shape == (8, 8, 3)
    assert int(train.cardinality()) + int(test.cardinality()) == 50 and len(test.paths) > 0
    assert train.class_names == ["no", "yes"]
    examples = list(train.as_numpy_iterator())
    assert [x["index"] for x in examples] == list(range(len(examples)))
    for x in examples:
        assert x["label"] == x["image"][0, 0, 0] % 2
        assert x["audio"].dtype == np.float32 and x["audio"][0] == 0.5
    seen = {x["image"][0, 0, 0] for d in (train, test) for x in d.as_numpy_iterator()}
    assert seen == set(range(50))
    assert values(pipelines.load("tfds:toy@all"), "index") == list(range(50))
    assert set(pipelines.load("tfds:toy", keys=["image"]).element_spec) == {"image", "index"}
    again = values(pipelines.load("tfds:toy"), "image")
    assert [x["image"][0, 0, 0] for x in examples] == [image[0, 0, 0] for image in again]


@pytest.mark.parametrize(
    "has, train, test",
    [
        ({"full": 40}, ("full", 40), ("full", 40)),
        ({"clean": 9, "other": 40, "unlike": 9}, ("other", 40), ("other", 40)),
        ({"test": 40}, None, ("test", 40)),
        ({"validation": 20, "test": 40}, None, ("test", 40)),
        ({"validation": 40, "unsupervised": 20}, ("unsupervised", 20), ("validation", 40)),
        ({"train": 40, "validation": 20}, ("train", 40), ("validation", 20)),
    ],
)
def test_no_example_of_a_tfds_set_is_for_training_and_for_testing(monkeypatch, has, train, test):
    infos = {name: SimpleNamespace(num_examples=count) for name, count in has.items()}
    builder = SimpleNamespace(info=SimpleNamespace(splits=infos))

    def examples(builder, own, chosen, keys, what):
        return {(own, i) for i in (range(has[own]) if chosen is None else chosen)}

    monkeypatch.setattr(tfds, "one_split", examples)

    def split(name):
        return tfds.from_builder(builder, name, (), "it")

    if train is None:
        with pytest.raises(BadInput, match="no split 'train'"):
            split("train")
        return
    assert split("train") and split("test") and not split("train") & split("test")
    assert {name for name, _ in split("train")} == {train[0]}
    assert {name for name, _ in split("test")} == {test[0]}
    if train[0] == test[0]:
        assert len(split("train") | split("test")) == train[1]
    else:
        assert len(split("train")) == train[1] and len(split("test")) == test[1]


def test_an_unprepared_tfds_set_says_how_to_prepare_it(prepared):
    with pytest.raises(BadInput, match=r"Did you mean tfds:toy\?$"):
        pipelines.load("tfds:toyy")
    with pytest.raises(BadInput, match=r"prepared in [^?]*tfds.load\('mnist'\)"):
        pipelines.load("tfds:mnist")
    with pytest.raises(BadInput, match=r"Did you mean tfds:cifar10\?"):
        pipelines.load("tfds:cifr10")
    with pytest.raises(BadInput, match="none of that name"):
        pipelines.load("tfds:nosuch_qqqqqq")


def test_a_message_stays_readable_however_long_a_name_is(tmp_path):
    with pytest.raises(BadInput) as error:
        pipelines.load(tmp_path / ("long" * 50) / ("name" * 60) / ("is" * 100))
    assert len(str(error.value)) <= 600


def test_knobs_are_typed():
    from tfssl.pipelines.sources import knobs

    found = knobs("world:size=64,zoom=0.5,watermark=true,kind=ball")
    assert found == {"size": 64, "zoom": 0.5, "watermark": True, "kind": "ball"}
    with pytest.raises(BadInput, match="write world:key=value"):
        knobs("world:size")


def test_cifar_loads_in_seconds(shared):
    dataset = pipelines.load(shared / "data" / "cifar10")
    assert int(dataset.cardinality()) == 10_000
    assert dataset.element_spec["image"].shape == (32, 32, 3)
    assert dataset.class_names[0] == "airplane" and dataset.broken == []
