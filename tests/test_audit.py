"""`tfssl audit`: what it writes, what it refuses, and what it finds where the answer is known."""

import inspect
import json

import command_line
import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tfssl import audit, zoo
from tfssl.cli import laboratory
from tfssl.encoders.image import MEAN, STD
from tfssl.errors import BadInput
from tfssl.pipelines import load
from tfssl.pipelines.augment import cues
from tfssl.zoo.image import jigsaw

TINY = ("--data", "digits", "--size", "16", "--batch-size", "16", "--examples", "48")
TINY = (*TINY, "--steps", "2", "--seeds", "1", "--quiet")


def test_an_audit_writes_a_table_a_json_file_and_a_picture(tmp_path):
    words = ("--cue", "border=0.1", "--encoder", "conv4", "--out", tmp_path / "out")
    words = (*words, "--json", tmp_path / "copy.json")
    done = command_line.call("audit", "image.rotation", *TINY, *words)
    assert done.code == 0, done.err
    found = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert found == json.loads((tmp_path / "copy.json").read_text())
    assert found["metric"] == "accuracy" and found["steps"] == 2
    (row,) = found["cues"]
    assert row["cue"] == "border" and row["strength"] == 0.1
    for part in ("pretext", "alone"):
        assert set(row[part]) == {"without", "with", "removed"}
        for role in row[part].values():
            assert 0 <= role["low"] <= role["value"] <= role["high"] <= 1
        change = row[part]["with"]["difference"]
        assert change["value"] == pytest.approx(
            row[part]["with"]["value"] - row[part]["without"]["value"]
        )
    assert 0 < row["probe"]["without"]["value"] <= 1 and found["probe"]["untrained"]["value"] > 0
    assert "border" in done.out and "cropped" in done.out and row["verdict"] in done.out
    assert (tmp_path / "out" / "audit.txt").read_text() == done.out
    picture = np.asarray(Image.open(tmp_path / "out" / "audit.png").convert("RGB"))
    assert picture[0, 0].tolist() == [255] * 3 and picture.std() > 10


@pytest.mark.slow
def test_pictures_of_several_sizes_without_labels_are_audited_without_a_probe(tmp_path):
    random = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for i in range(60):
        pixels = random.integers(0, 256, [24 + i % 3, 30, 3], np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{i}.png")
    words = (*TINY, "--data", tmp_path / "photos", "--batch-size", "2", "--cue", "border")
    done = command_line.call("audit", "image.rotation", *words, "--out", tmp_path / "out")
    assert done.code == 0, done.err
    found = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert found["probe"] is None and found["cues"][0]["probe"] == {}


def test_a_caller_is_told_what_to_mend(tmp_path):
    out = ("--out", tmp_path / "out")

    def refused(method, *words, naming):
        return command_line.refused("audit", method, *TINY, *out, *words, naming=naming)

    refused("image.rotation", "--cue", "bordr", naming=["bordr", "border"])
    refused("image.rotation", "--cue", "zoom", naming=["zoom", "image.rotation", "aberration"])
    refused("image.rotation", "--cue", "gap", naming=["gap", "image.rotation"])
    refused("image.rotation", "--cue", "jpeg=500", naming=["jpeg", "100"])
    refused("image.rotation", "--cue", "jpeg=much", naming=["jpeg", "100"])
    refused("image.rotation", "--set", "nothing=1", naming="nothing")
    refused("image.rotation", "--data", "digits@train", naming="@split")
    refused("image.rotatoin", naming="image.rotation")
    refused("text.skip_gram", naming="text.skip_gram")
    refused("video.tcc", naming="frames")
    (tmp_path / "file").write_text("")
    words = ("audit", "image.rotation", *TINY, "--out", tmp_path / "file")
    command_line.refused(*words, naming="--out")


def test_a_world_that_has_the_cue_already_is_compared_with_one_that_has_it_not():
    cues = {"aberration": 0.05, "border": 0.03, "watermark": 1.0}
    spec = "world:n=40,aberration=0.03,watermark=on"
    assert laboratory.clean(spec, cues, ["border"]) == ("world:n=40", {**cues, "aberration": 0.03})
    # What --cue says goes before; what is not audited stays in the pictures.
    assert laboratory.clean(spec, cues, ["aberration=0.05"])[1]["aberration"] == 0.05
    assert laboratory.clean(spec, {"border": 0.03}, []) == (spec, {"border": 0.03})
    assert laboratory.clean("world:aberration=0", cues, []) == ("world", cues)
    assert laboratory.clean("digits", cues, []) == ("digits", cues)
    moved = {"zoom": 0.3, "sound_offset": 0.2}  # a camera's speed is another unit than the cue's
    assert laboratory.clean("world:zoom=1,sound_offset=-1", moved, [])[1] == {
        "zoom": 0.3,
        "sound_offset": -1,
    }
    with pytest.raises(BadInput, match="sound_offset from -5 to 5"):
        laboratory.clean("world:sound_offset=9", moved, [])


def test_trainings_that_two_cues_share_are_made_once():
    bench = bench_of("image.relative_position")
    arms = laboratory.arms(bench, {"aberration": 0.05, "gap": 0.0, "border": 0.03, "jpeg": 15.0})
    assert len(arms) == len(set(arms))
    data = [arm for arm in arms if arm.content == "data"]
    plain = {arm.guards for arm in data if not arm.cue}
    assert plain == {
        (),  # which is "drop": the same as without the border and without the blocks
        (("guard", "none"),),
        (("guard", "project"),),
        (("guard", "touching"),),
    }
    assert len(data) == 4 + 4 + 2 + 2


def bench_of(method, count=40, **arguments):
    """A bench over the world's pictures, or clips, of 64 px."""
    module = zoo.get(method)
    arguments = {**module.SMALL, "data": f"world:n={count}", **arguments}
    known = {"aberration": 0.05}
    return laboratory.Bench(
        module,
        method.partition(".")[0],
        arguments,
        lambda part, keys: load(arguments["data"], part, keys),
        count,
        known,
        lambda *_: None,
    )


def test_arms_differ_in_the_cue_and_in_nothing_else():
    bench = bench_of("image.relative_position")
    plain = bench.dataset(laboratory.Arm("data"), "train")
    put = bench.dataset(laboratory.Arm("data", "aberration", "put"), "train")
    removed = bench.dataset(laboratory.Arm("data", "aberration", "removed"), "train")
    for a, b, c in zip(plain, put, removed):
        assert a["index"] == b["index"] == c["index"] and "label" not in a
        np.testing.assert_array_equal(a["image"][..., 1], b["image"][..., 1])
        assert (a["image"] != b["image"]).numpy()[..., 0].any()
        np.testing.assert_array_equal(c["image"][..., 0], b["image"][..., 1])
    texture = next(iter(bench.dataset(laboratory.Arm("texture"), "train")))["image"].numpy()
    assert (texture[..., 0] == texture[..., 2]).all() and texture.std() > 20


def test_a_short_clip_stands_still_after_its_end_and_its_times_go_on():
    def example():
        times = tf.constant([0.0, 0.1, 0.4])
        frames = tf.cast(tf.reshape([10, 20, 30], [3, 1, 1, 1]), tf.uint8)
        yield {
            "frames": tf.tile(frames, [1, 9, 12, 3]),
            "frame_times": times,
            "fps": 5.0,
            "audio": tf.ones([30000]),
        }

    kinds = {
        "frames": tf.TensorSpec([None, None, None, 3], tf.uint8),
        "frame_times": tf.TensorSpec([None], tf.float32),
        "fps": tf.TensorSpec([], tf.float32),
        "audio": tf.TensorSpec([None], tf.float32),
    }
    clips = tf.data.Dataset.from_generator(example, output_signature=kinds)
    clip = next(iter(clips.map(lambda e: laboratory._shaped(dict(e), 8, 48000))))
    assert clip["frames"].shape == (48, 8, 8, 3)
    assert clip["frames"][:, 0, 0, 0].numpy().tolist() == [10, 20] + 46 * [30]
    np.testing.assert_allclose(clip["frame_times"][:5], [0.0, 0.1, 0.4, 0.6, 0.8], atol=1e-6)
    assert clip["audio"].shape == (3 * 48000,) and float(tf.reduce_sum(clip["audio"])) == 30000


def test_targets_of_single_examples_are_asked_of_those_that_were_trained_on():
    """Held-out examples have no cluster; their numbers lie outside the table or are others'."""
    from tfssl import zoo
    from tfssl.pipelines import fake

    bench = bench_of("image.deep_cluster", count=16, encoder="conv4", batch_size=8)
    _, asked = bench.trial(laboratory.Arm("data"), 1)(0)
    assert max(x["index"].numpy().max() for x in asked.endless().take(4)) < bench.count
    few = fake.examples("image")
    for method, own in (("image.exemplar", True), ("image.rotation", False)):
        assert laboratory._by_number(zoo.get(method).views, few) == own
    keras.backend.clear_session()


def bench_of_classes(count, most, classes=3):
    """A bench over pictures that lie in the order of their classes, `count` of each."""
    module = zoo.get("image.rotation")
    label = np.repeat(np.arange(classes), count)
    columns = {"image": np.zeros([len(label), 16, 16, 3], np.uint8), "index": np.arange(len(label))}
    source = tf.data.Dataset.from_tensor_slices({**columns, "label": label})
    arguments = {**module.SMALL, "data": "pictures", "size": 16}
    known = {"border": 0.03}
    return laboratory.Bench(
        module, "image", arguments, lambda *_: source, most, known, lambda *_: None
    )


def test_an_audit_of_class_folders_takes_of_every_class(monkeypatch):
    bench = bench_of_classes(count=100, most=30)
    for part in bench.parts.values():
        assert np.bincount(part["label"]).tolist() == [10, 10, 10]
    probed = []

    def linear(encoder, train, test, **settings):
        probed.extend(np.concatenate([b["label"] for b in part]) for part in (train, test))
        return dict.fromkeys(("top1", "top1_low", "top1_high"), 0.5)

    monkeypatch.setattr("tfssl.evaluate.linear", linear)
    monkeypatch.setattr(laboratory, "PROBED", 12)
    assert bench.probe()(None) == [0.5] * 3
    for labels in probed:
        assert np.bincount(labels).tolist() == [4, 4, 4]


def test_labels_of_one_class_are_none_to_probe_by():
    bench = bench_of_classes(count=20, most=20, classes=1)
    assert not bench.labelled and bench.probe() is None


def test_an_encoder_of_pictures_is_probed_on_the_middle_frames_of_clips():
    bench = bench_of("audio_visual.ave_net", count=12)
    seen = []

    def encoder(x):
        seen.append(np.asarray(x))
        return tf.reduce_mean(x, axis=(1, 2))

    assert 0 <= bench.probe()(encoder)[0] <= 1
    np.testing.assert_array_equal(seen[0], bench.parts["train"]["frames"][:, 8] / np.float32(255))


def test_the_same_seed_starts_every_arm_from_the_same_weights():
    bench = bench_of("image.relative_position", width=8, encoder="conv4")
    arms = (laboratory.Arm("data"), laboratory.Arm("data", "aberration", "put"))
    first, second = (bench.run(arm, "train", seed=3, steps=5).model for arm in arms)
    for a, b in zip(first.weights, second.weights):
        if "seed_generator" not in a.path:
            np.testing.assert_array_equal(a, b)


def test_a_difference_is_told_from_noise_by_its_seeds_and_batches():
    random = np.random.default_rng(0)
    theirs = random.normal(0.3, 0.03, [3, 16])
    raised = audit.difference(theirs + random.normal(0.1, 0.03, [3, 16]), theirs)
    assert raised["low"] < raised["value"] < raised["high"]
    assert audit.gained(raised, "accuracy", 0.3) and not audit.gained(raised, "loss", 0.3)
    same = audit.difference(theirs[:, ::-1], theirs)
    assert not audit.gained(same, "accuracy", 0.3)
    # One seed of three that gains much is no proof, however many batches say so.
    lucky = audit.difference(theirs + np.array([[0.3], [0.0], [-0.1]]), theirs)
    assert lucky["value"] > 0.06 and not audit.gained(lucky, "accuracy", 0.3)


def test_held_out_scores_are_those_of_the_model_on_whole_batches():
    run = bench_of("image.rotation", encoder="conv4", batch_size=8).run(
        laboratory.Arm("data"), "test", 0
    )
    metric, scores = audit.held_out_scores(run.model, run.dataset, units=3)
    x, y = next(iter(run.dataset.endless()))
    right = np.argmax(run.model(x), axis=-1) == np.asarray(y)
    assert metric == "accuracy" and scores.shape == (3,)
    assert scores[0] == pytest.approx(right.mean(), abs=1e-6)
    keras.backend.clear_session()


@pytest.mark.parametrize("name, logged", [("spot_artifacts", "accuracy"), ("dcgan", "loss")])
def test_a_game_is_measured_by_the_side_that_the_encoder_plays(name, logged):
    """Nothing but `critique` knows how well the critic tells, which is what is asked of it."""
    steps = {"autoencoder_steps": 1} if name == "spot_artifacts" else {}
    bench = bench_of(f"image.{name}", encoder="conv4", batch_size=8, **steps)
    run = bench.run(laboratory.Arm("data"), "test", 0)
    metric, scores = audit.held_out_scores(run.model, run.dataset, units=2)
    x = next(iter(run.dataset.endless()))
    x = x[0] if isinstance(x, tuple) else x
    outputs = run.model(x, training=False)
    if logged == "accuracy":
        kinds = np.repeat([1, 0], 8)
        expected = (np.argmax(outputs["kinds"], axis=-1) == kinds).mean()
    else:
        real, fake = outputs["real"].numpy(), outputs["fake"].numpy()
        expected = np.mean(np.log1p(np.exp(-real))) + np.mean(np.log1p(np.exp(fake)))
    assert metric == logged and scores[0] == pytest.approx(expected, rel=1e-5) and expected > 0
    keras.backend.clear_session()


def test_guards_are_keywords_of_their_recipes():
    guarded = {name: zoo.get(name) for name in zoo.names() if hasattr(zoo.get(name), "GUARDS")}
    assert {"image.relative_position", "image.jigsaw"} <= set(guarded)
    for module in guarded.values():
        known = inspect.signature(module.recipe).parameters
        for name, (off, fixes) in module.GUARDS.items():
            assert name in cues.CUES
            for keywords in (off, *fixes.values()):
                assert set(keywords) <= set(known)


def test_a_jigsaw_without_its_guards_has_a_lens_colours_and_each_guard_takes_them():
    lens = np.zeros([4, 64, 64, 3], np.uint8)
    lens[:, 20:44, 20:44] = 255
    lens = cues.aberration(lens, 0.05)
    off, fixes = jigsaw.GUARDS["aberration"]
    law = dict(size=48, share=1.0, fill=1.0, orders=4)

    def coloured(keywords):
        tiles, _ = jigsaw.views({"image": lens}, tf.constant([1, 2]), **law, **keywords)
        return float(tf.reduce_max(tf.math.reduce_std((tiles - MEAN) / STD, axis=-1)))

    assert coloured(off) > 0.05 > 1e-4 > coloured(fixes["grey"])


@pytest.mark.slow
def test_relative_position_is_solved_by_a_lens_and_both_fixes_take_that_away(tmp_path):
    words = ("--data", "world", "--cue", "aberration", "--batch-size", "64", "--examples", "1000")
    words = (*words, "--encoder", "conv4", "--steps", "150", "--out", tmp_path, "--quiet")
    assert command_line.call("audit", "image.relative_position", *words).code == 0
    (row,) = json.loads((tmp_path / "audit.json").read_text())["cues"]
    assert row["pretext"]["with"]["gained"], "accuracy rises"
    assert row["alone"]["without"]["value"] < 0.2 < 0.4 < row["alone"]["with"]["value"]
    for fix in ("with, drop", "with, project", "removed"):
        assert not row["pretext"][fix]["gained"]
        assert row["alone"][fix]["value"] < row["alone"]["with"]["value"] - 0.2


def test_an_unknown_guard_is_refused(tmp_path):
    words = ("audit", "image.relative_position", *TINY, "--set", "guard=dorp", "--cue", "border")
    command_line.refused(*words, "--out", tmp_path, naming=["dorp", "drop"])


def test_results_that_cannot_be_written_are_refused_before_anything_is_trained(tmp_path):
    words = ("audit", "image.rotation", *TINY, "--cue", "border", "--out", tmp_path / "out")
    command_line.refused(*words, "--json", tmp_path, naming="--json")
    assert not (tmp_path / "out").exists()


def test_a_fix_is_judged_only_where_the_cue_showed():
    shown, hidden = {"gained": True}, {"gained": False}
    assert laboratory.fixed({"with": shown, "removed": hidden}, "removed") == "takes it out"
    assert laboratory.fixed({"with": shown, "removed": shown}, "removed") == "the cue still shows"
    assert laboratory.fixed({"with": hidden, "removed": hidden}, "removed") == ""
    assert laboratory.fixed({}, "removed") == ""
