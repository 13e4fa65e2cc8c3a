"""Ingest: one clock for pictures and sound, nothing lost when killed, nothing half done."""

import fractions
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import wave

import numpy as np
import pytest
from command_line import call, refused
from PIL import Image

from tfssl import pipelines
from tfssl.pipelines import BadInput
from tfssl.pipelines.ingest import ingest

RATE = 16000
FPS = 25
CODECS = {
    "mp4": ("mpeg4", "aac"),
    "mov": ("mpeg4", "aac"),
    "avi": ("mpeg4", "mp2"),
    "mpg": ("mpeg2video", "mp2"),
}


def flash_and_click(path, frames=50, event=1.0, sound_begins=0.0, size=(64, 48)):
    """A noisy dark video that is white in the frame at `event` seconds, when its sound clicks.

    The sound's stream begins `sound_begins` seconds after the video's.
    """
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    video_codec, audio_codec = CODECS[path.suffix[1:]]
    noise = np.random.default_rng(0).integers(0, 40, (size[1], size[0], 3))
    late_video = max(0.0, -sound_begins)
    packets = []
    with av.open(str(path), "w") as out:
        video = out.add_stream(video_codec, FPS)
        video.width, video.height, video.pix_fmt = *size, "yuv420p"
        audio = out.add_stream(audio_codec, RATE)
        audio.layout = "mono"
        for i in range(frames):
            picture = noise + (215 if i == round(event * FPS) else 0)
            frame = av.VideoFrame.from_ndarray(picture.astype(np.uint8), "rgb24")
            frame.pts = i + round(late_video * FPS)
            frame.time_base = fractions.Fraction(1, FPS)
            packets += video.encode(frame)
        packets += video.encode(None)
        begins = max(0.0, sound_begins)
        samples = np.zeros(round((frames / FPS + late_video - begins) * RATE), np.float32)
        click = round((event + late_video - begins) * RATE)
        samples[click : click + 80] = 0.9
        kind = audio.codec_context.codec.audio_formats[0]
        frame = av.AudioFrame.from_ndarray(samples[None], "fltp", "mono")
        frame.sample_rate, frame.pts = RATE, round(begins * RATE)
        for piece in av.AudioResampler(kind, "mono", RATE).resample(frame):
            packets += audio.encode(piece)
        packets += audio.encode(None)
        out.start_encoding()
        for packet in sorted(packets, key=lambda p: p.dts * p.time_base):
            out.mux(packet)
    return path


def event_times(example):
    """When the flash is seen and when the click is heard, in seconds after frame 0."""
    flash = np.argmax(example["frames"].mean(axis=(1, 2, 3)))
    click = np.argmax(np.abs(example["audio"]) > 0.3)
    return flash / example["fps"], click / example["sample_rate"]


@pytest.mark.parametrize("ending", list(CODECS))
@pytest.mark.parametrize("sound_begins", [0.0, 0.48, -0.48])
def test_flash_and_click_stay_together(tmp_path, ending, sound_begins):
    if ending == "avi" and sound_begins:
        pytest.skip("an avi's streams begin together")
    source = flash_and_click(tmp_path / "in" / f"a.{ending}", sound_begins=sound_begins)
    ingest(source.parent, tmp_path / "out")
    shard = next(iter(pipelines.load(tmp_path / "out").as_numpy_iterator()))
    direct = next(iter(pipelines.load(source.parent).as_numpy_iterator()))
    for example in (shard, direct):
        flash, click = event_times(example)
        assert flash == pytest.approx(1.0) and click == pytest.approx(flash, abs=1 / FPS)
        assert example["frames"].shape == (50, 48, 64, 3)
        assert example["audio"].shape == (2 * RATE,)
        np.testing.assert_allclose(example["frame_times"], np.arange(50) / FPS, atol=1e-3)
    assert np.abs(shard["frames"].astype(int) - direct["frames"]).mean() < 3


def test_the_shards_open_with_tfds_alone(tmp_path):
    import tensorflow_datasets as tfds

    for i in range(20):
        flash_and_click(tmp_path / "in" / "cd"[i % 2] / f"{i}.mp4", frames=10, event=0.2)
    report = ingest(tmp_path / "in", tmp_path / "out")
    builder = tfds.builder_from_directory(tmp_path / "out")
    assert {name: info.num_examples for name, info in builder.info.splits.items()} == report.written
    assert sum(report.written.values()) == 20
    one = next(iter(builder.as_dataset(split="train").as_numpy_iterator()))
    assert one["frames"].shape == (10, 48, 64, 3) and one["audio"].dtype == np.int16
    assert one["audio_start"] == 0 and one["sample_rate"] == RATE and one["frame_times"][0] == 0
    assert builder.info.features["label"].names == ["c", "d"]


def test_shards_and_folder_hold_the_same_in_the_same_order(tmp_path):
    random = np.random.default_rng(0)
    for i in range(40):
        path = tmp_path / "in" / "ab"[i % 2] / f"{i} ü.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 255, (9, 9, 3), np.uint8)).save(path)
    ingest(tmp_path / "in", tmp_path / "out")
    for split in ("train", "test"):
        folder, shards = (pipelines.load(tmp_path / d, split) for d in ("in", "out"))
        assert folder.paths == shards.paths and folder.class_names == shards.class_names
        assert folder.element_spec["image"] == shards.element_spec["image"]
        for a, b in zip(folder.as_numpy_iterator(), shards.as_numpy_iterator()):
            np.testing.assert_array_equal(a["image"], b["image"])
            assert a["label"] == b["label"] and a["index"] == b["index"]
        everything = pipelines.load(tmp_path / "out", "all")
        assert [int(x["index"]) for x in everything] == list(range(40))
        last = int(shards.cardinality()) - 1
        some = shards.gather(np.array([last, 0]))
        np.testing.assert_array_equal(some["index"], [last, 0])
        np.testing.assert_array_equal(some["image"], folder.gather(np.array([last, 0]))["image"])


def test_photographs_are_the_same_from_a_folder_and_from_shards(tmp_path):
    waves = np.sin(np.arange(64)[:, None, None] / 7 + np.arange(64)[None, :, None] / [[[9, 5, 3]]])
    for i in range(4):
        path = tmp_path / "in" / f"{i}.jpg"
        path.parent.mkdir(exist_ok=True)
        pixels = (127 + 120 * waves * np.sin(i + 1)).astype(np.uint8)
        Image.fromarray(pixels).convert("L" if i == 3 else "RGB").save(path, quality=75)
    ingest(tmp_path / "in", tmp_path / "out")
    folder, shards = (pipelines.load(tmp_path / d) for d in ("in", "out"))
    for a, b in zip(folder.as_numpy_iterator(), shards.as_numpy_iterator()):
        difference = np.abs(a["image"].astype(int) - b["image"])
        assert difference.max() <= 2 and difference.mean() < 0.2


def test_the_length_of_a_sound_is_rounded_alike_by_ingest_and_by_load(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "FPS", fractions.Fraction(30000, 1001))
    flash_and_click(tmp_path / "in" / "a.mp4", frames=100)  # between two samples of 22,050 Hz
    ingest(tmp_path / "in", tmp_path / "out", sample_rate=22050)
    shard = next(iter(pipelines.load(tmp_path / "out").as_numpy_iterator()))
    seconds = float(shard["frame_times"][-1]) + 1 / float(shard["fps"])
    assert shard["audio"].shape == (round(seconds * 22050),)


def test_class_folders_whose_names_are_no_unicode_are_written_all_the_same(tmp_path):
    for name in (b"caf\xe9", b"caf\xe8", b"tea"):
        folder = os.fsencode(tmp_path / "in") + b"/" + name
        os.makedirs(folder)
        for i in range(9):
            Image.new("RGB", (8, 8), (i, 0, 0)).save(os.fsdecode(folder) + f"/{i}.png")
    ingest(tmp_path / "in", tmp_path / "out")
    dataset = pipelines.load(tmp_path / "out", "all")
    assert dataset.class_names == pipelines.load(tmp_path / "in").class_names
    assert {int(x["label"]) for x in dataset.as_numpy_iterator()} == {0, 1, 2}


def write_wav(path, samples, rate=RATE):
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes((np.asarray(samples) * 32767).astype("<i2").tobytes())


def test_sounds_are_resampled_once_and_kept_as_pcm(tmp_path):
    for i in range(6):
        write_wav(tmp_path / "in" / f"{i}.wav", 0.5 * np.sin(np.arange(4000) * 0.3), rate=8000)
    ingest(tmp_path / "in", tmp_path / "out")
    folder, shards = (pipelines.load(tmp_path / d) for d in ("in", "out"))
    assert folder.element_spec == shards.element_spec
    for a, b in zip(folder.as_numpy_iterator(), shards.as_numpy_iterator()):
        np.testing.assert_allclose(a["audio"], b["audio"], atol=1e-4)


@pytest.mark.parametrize("rate", [8000, 44100])
def test_shards_give_their_sound_at_the_rate_that_is_asked_for(tmp_path, rate):
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)
    for i in range(3):
        write_wav(tmp_path / "in" / f"{i}.wav", tone)
    ingest(tmp_path / "in", tmp_path / "out")
    sound = pipelines.load(tmp_path / "out", "all", sample_rate=rate)
    assert sound.element_spec["audio"].shape == [rate]
    wanted = 0.5 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate)
    for example in sound:
        assert int(example["sample_rate"]) == rate
        inner = slice(rate // 20, -rate // 20)  # a filter knows nothing of what lies outside
        np.testing.assert_allclose(example["audio"][inner], wanted[inner], atol=5e-3)
    both = sound.gather(np.array([2, 0]))
    np.testing.assert_array_equal(both["index"], [2, 0])
    np.testing.assert_array_equal(both["sample_rate"], [rate, rate])
    np.testing.assert_allclose(both["audio"][0], example["audio"], atol=1e-6)
    clips = pipelines.load(
        "world:n=4", keys=("frames", "fps", "audio", "sample_rate"), sample_rate=rate
    )
    clip = next(iter(clips))
    seconds = len(clip["frames"]) / float(clip["fps"])
    assert len(clip["audio"]) == pytest.approx(seconds * rate, abs=1)


def test_a_sound_encoder_gets_sounds_at_the_rate_that_it_was_made_for(tmp_path):
    import keras

    import tfssl

    rate = 8000
    keras.utils.set_random_seed(0)
    tfssl.export(tfssl.encoders.get("audio_cnn", sample_rate=rate, width=4), tmp_path / "ears")
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)
    for i in range(2):
        write_wav(tmp_path / "in" / f"{i}.wav", tone)
    assert not call("embed", tmp_path / "ears", tmp_path / "in", "--out", tmp_path / "f.npz").code
    found = np.load(tmp_path / "f.npz")["features"]
    slow = pipelines.load(tmp_path / "in", "all", sample_rate=rate)
    heard = np.stack([example["audio"] for example in slow])
    np.testing.assert_allclose(found, tfssl.load(tmp_path / "ears")(heard), atol=1e-5)
    assert f"sample_rate: {rate}" in (tmp_path / "ears" / "card.md").read_text()


def test_broken_files_are_listed_with_the_same_words_as_load(tmp_path):
    for i in range(8):
        write_wav(tmp_path / "in" / f"{i}.wav", 0.5 * np.sin(np.arange(4000) * 0.3))
    (tmp_path / "in" / "zero.wav").touch()
    (tmp_path / "in" / "words.mp3").write_text("no music at all " * 99)
    report = ingest(tmp_path / "in", tmp_path / "out")
    dataset = pipelines.load(tmp_path / "in")
    assert report.broken == dataset.broken and len(report.broken) == 2
    assert str(report).splitlines()[-1] == "2 of 10 files are broken and were skipped."
    listed = [json.loads(line) for line in (tmp_path / "out/broken.jsonl").open()]
    assert [entry["path"] for entry in listed] == ["words.mp3", "zero.wav"]
    with pytest.raises(BadInput, match="2 of 10 files are broken"):
        ingest(tmp_path / "in", tmp_path / "never", max_broken=0.1)
    assert not (tmp_path / "never").exists()


def test_a_folder_that_cannot_be_opened_is_listed_among_the_broken(tmp_path, monkeypatch):
    from test_sources import closed

    for i in range(8):
        write_wav(tmp_path / "in" / "ab"[i % 2] / f"{i}.wav", 0.5 * np.sin(np.arange(4000) * 0.3))
    closed(monkeypatch, tmp_path / "in" / "b")
    report = ingest(tmp_path / "in", tmp_path / "out")
    assert report.broken == [("b", "a folder that cannot be opened: Permission denied")]
    assert str(report).splitlines()[-1] == "1 of 5 files are broken and were skipped."
    assert pipelines.load(tmp_path / "out", "all").broken == report.broken


def test_the_clock_of_a_changing_rate_is_kept_in_shards(tmp_path):
    from test_ave_net import changing_rate

    (tmp_path / "in").mkdir()
    changing_rate(tmp_path / "in" / "a.mkv")
    ingest(tmp_path / "in", tmp_path / "out")
    for folder in ("in", "out"):
        (one,) = pipelines.load(tmp_path / folder, keys=("frames", "audio")).as_numpy_iterator()
        flash = one["frame_times"][np.argmax(one["frames"].mean(axis=(1, 2, 3)))]
        click = np.argmax(np.abs(one["audio"]) > 0.3) / one["sample_rate"]
        assert flash == pytest.approx(5.0) and click == pytest.approx(5.0, abs=1e-3)
        assert len(one["audio"]) / one["sample_rate"] == pytest.approx(10.0, abs=0.05)


KILLED = """
import sys, time
from tfssl.pipelines import ingest
from tfssl.pipelines.sources import media
sound = media.sound
def slow(*args):
    time.sleep(0.05)
    return sound(*args)
media.sound = slow
ingest.ingest(sys.argv[1], sys.argv[2], workers=1)
"""


def test_a_killed_ingest_continues_with_what_it_has(tmp_path):
    for i in range(60):
        write_wav(tmp_path / "in" / f"{i}.wav", 0.5 * np.sin(np.arange(2000) * 0.3))
    root = str(pathlib.Path(__file__).parents[1])
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path / "in"), str(tmp_path / "out")],
        env={**os.environ, "PYTHONPATH": root},
        stderr=subprocess.DEVNULL,
    )
    work = tmp_path / "out.unfinished"
    deadline = time.time() + 60
    while len(list(work.glob("part-*.json"))) < 2 and time.time() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    finished = {path: path.stat().st_mtime_ns for path in work.glob("part-*.json")}
    assert len(finished) >= 2 and not (tmp_path / "out").exists()
    steps = []
    report = ingest(tmp_path / "in", tmp_path / "out", progress=lambda *step: steps.append(step))
    assert sum(report.written.values()) == 60 and steps[-1] == (60, 60)
    # Files of finished parts were not decoded again: they were counted in one step.
    assert len(steps) < 60 and not work.exists()
    whole = ingest(tmp_path / "in", tmp_path / "other")
    assert whole.written == report.written
    for a, b in zip(pipelines.load(tmp_path / "out"), pipelines.load(tmp_path / "other")):
        np.testing.assert_array_equal(a["audio"], b["audio"])


def test_the_command_passes_on_how_videos_and_sounds_are_made(tmp_path):
    for i in range(2):
        flash_and_click(tmp_path / "in" / f"{i}.mp4", frames=310, size=(320, 240))
    made = [tmp_path / "in", tmp_path / "out", "--quiet"]
    options = ["--short-side", 64, "--max-frames", 305, "--sample-rate", 8000]
    assert call("ingest", *made, *options).code == 0
    shards = pipelines.load(tmp_path / "out", "all", max_frames=None)
    for example in shards.as_numpy_iterator():
        assert example["frames"].shape == (305, 64, 85, 3)
        assert example["sample_rate"] == 8000 and example["audio"].shape == (305 * 8000 // FPS,)
    refused("ingest", *made, naming="with other options")


@pytest.mark.parametrize("option", ["--short-side", "--max-frames", "--sample-rate"])
def test_the_command_refuses_what_makes_no_video(tmp_path, option):
    write_wav(tmp_path / "in" / "a.wav", np.ones(100) * 0.5)
    refused("ingest", tmp_path / "in", tmp_path / "out", option, 0, naming=[option, "greater than"])
    assert not (tmp_path / "out").exists()


def test_a_foreign_folder_is_left_alone(tmp_path):
    write_wav(tmp_path / "in" / "a.wav", np.ones(100) * 0.5)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("precious")
    with pytest.raises(BadInput, match="holds something else"):
        ingest(tmp_path / "in", tmp_path / "out")
    assert (tmp_path / "out" / "mine.txt").read_text() == "precious"
    again = ingest(tmp_path / "in", tmp_path / "done")
    assert ingest(tmp_path / "in", tmp_path / "done") == again
    with pytest.raises(BadInput, match="other files or with other options"):
        ingest(tmp_path / "in", tmp_path / "done", sample_rate=8000)


@pytest.mark.parametrize("harm", ["cut", "flip", "remove"])
def test_a_corrupt_shard_is_named(tmp_path, harm):
    for i in range(4):
        write_wav(tmp_path / "in" / f"{i}.wav", 0.5 * np.sin(np.arange(2000) * 0.3))
    ingest(tmp_path / "in", tmp_path / "out")
    shard = sorted((tmp_path / "out").glob("*train*"))[0]
    data = bytearray(shard.read_bytes())
    if harm == "cut":
        shard.write_bytes(data[:-100])
    elif harm == "flip":
        data[len(data) // 2] ^= 255
        shard.write_bytes(data)
    else:
        shard.unlink()
    with pytest.raises(BadInput, match=f"the shard {shard.name} is"):
        pipelines.load(tmp_path / "out")


def test_clips_without_sound_are_zeros_or_are_skipped(tmp_path):
    from test_sources import clip

    for i in range(9):
        clip(tmp_path / "in" / f"{i}.mp4", sound=None if i == 4 else 0.5)
    ingest(tmp_path / "in", tmp_path / "out")
    for name in ("in", "out"):
        train, test = (pipelines.load(tmp_path / name, split) for split in ("train", "test"))
        mute = [not x["audio"].any() for d in (train, test) for x in d.as_numpy_iterator()]
        assert sum(mute) == 1 and len(mute) == 9
        needed = pipelines.load(tmp_path / name, keys=["frames", "audio"])
        assert ("4.mp4", "it has no sound") in needed.broken or "4.mp4" in test.paths
        assert all(x["audio"].any() for x in needed.as_numpy_iterator())
        assert "audio" not in pipelines.load(tmp_path / name, keys=["frames"]).element_spec


def test_splits_of_which_one_has_no_sound_are_read_as_one(tmp_path):
    from test_sources import clip

    for i in range(3):
        clip(tmp_path / "in" / "train" / f"{i}.mp4", sound=0.5)
    clip(tmp_path / "in" / "test" / "mute.mp4", sound=None)
    ingest(tmp_path / "in", tmp_path / "out")
    both = list(pipelines.load(tmp_path / "out", "all", keys=("frames",)).as_numpy_iterator())
    assert [example["index"] for example in both] == [0, 1, 2, 3]
    heard = pipelines.load(tmp_path / "out", "all", keys=("audio",))
    assert len(list(heard)) == 3 and [path for path, _ in heard.broken] == ["test/mute.mp4"]
    with pytest.raises(BadInput, match="has no 'image'"):
        pipelines.load(tmp_path / "out", "all", keys=("image",))


def test_talking_faces_keep_picture_and_sound_together(shared, tmp_path):
    ingest(shared / "data" / "grid_talking_faces" / "mpg", tmp_path / "out")
    train = pipelines.load(tmp_path / "out")
    assert train.element_spec["frames"].shape == (75, 128, 160, 3)
    for path, one in zip(train.paths, train.as_numpy_iterator()):
        name = shared / "data" / "grid_talking_faces" / "wav" / path.replace("mpg", "wav")
        with wave.open(str(name)) as file:
            truth = np.frombuffer(file.readframes(-1), "<i2")[: 3 * RATE] / 32768
        lags = np.fft.irfft(np.fft.rfft(one["audio"], 2**17) * np.conj(np.fft.rfft(truth, 2**17)))
        lag = np.argmax(lags)
        assert min(lag, 2**17 - lag) <= RATE / FPS
