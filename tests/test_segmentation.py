"""Segmentation reads classes out of maps, counts them as the formula does, and knows the forms."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.command_line import call
from tfssl import evaluate
from tfssl.errors import BadInput
from tfssl.evaluate import metrics
from tfssl.evaluate.segmentation import confusion, mean, per_class
from tfssl.pipelines import errors, sources
from tfssl.pipelines.sources import annotated


def painted(count, seed=0, size=32):
    """Pictures of a red and a blue rectangle on grey: classes 1, 2 and 0, a void row above."""
    generator = np.random.default_rng(seed)
    images = generator.integers(90, 110, (count, size, size, 3)).astype(np.uint8)
    truth = np.zeros((count, size, size), np.int32)
    for i in range(count):
        for label, channel in ((1, 0), (2, 2)):
            y, x = generator.integers(2, size - 14, 2)
            images[i, y : y + 12, x : x + 12] = 40
            images[i, y : y + 12, x : x + 12, channel] = 230
            truth[i, y : y + 12, x : x + 12] = label
    truth[:, 0] = 255
    return images, truth


@pytest.fixture(scope="module")
def tiny():
    keras.utils.set_random_seed(3)
    inputs = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(16, 3, padding="same", activation="relu", name="c1")(inputs)
    x = keras.layers.Conv2D(24, 3, 2, padding="same", activation="relu", name="c2")(x)
    return keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x))


def test_the_worked_confusion_gives_its_mean():
    table = np.array([[50, 10], [5, 35]])
    np.testing.assert_allclose(per_class(table), [50 / 65, 0.7])
    assert mean(table) == pytest.approx(0.734615, abs=1e-6)


def test_tables_of_pictures_sum_to_the_metric_of_them_all():
    generator = np.random.default_rng(0)
    truth = generator.choice([0, 1, 2, 4, 255], (6, 9, 7))
    prediction = generator.choice([0, 1, 2, 3], (6, 9, 7))
    tables = sum(confusion(p, t, 6) for p, t in zip(prediction, truth))
    assert mean(tables) == pytest.approx(metrics.mean_iou(prediction, truth, 6))
    assert np.isnan(per_class(tables)[5]) and tables.sum() == (truth != 255).sum()


def test_a_head_on_frozen_maps_finds_colours(tiny):
    before = tiny.get_weights()
    result = evaluate.segmentation(tiny, painted(40), painted(10, 1), iterations=80)
    json.dumps(result, allow_nan=False)
    assert result["mean_iou"] > 0.75 > 0.4 > result["majority_mean_iou"]
    assert result["mean_iou_low"] <= result["mean_iou"] <= result["mean_iou_high"]
    assert result["classes"] == 3 and len(result["iou"]) == 3 and result["taps"] == ["c1", "c2"]
    for old, new in zip(before, tiny.get_weights()):
        np.testing.assert_array_equal(old, new)


def test_the_fit_repeats_with_its_seed(tiny):
    parts = painted(12), painted(4, 1)
    first, again = (evaluate.segmentation(tiny, *parts, iterations=4) for _ in range(2))
    assert first == again


def test_a_trunk_may_train_too_and_is_put_back(tiny):
    before = tiny.get_weights()
    parts = painted(20), painted(6, 1)
    moved = evaluate.segmentation(tiny, *parts, iterations=40, frozen=False)
    assert moved["mean_iou"] > 0.5 and not moved["frozen"]
    for old, new in zip(before, tiny.get_weights()):
        np.testing.assert_array_equal(old, new)


def test_ignored_pixels_count_neither_in_training_nor_in_testing(tiny):
    (images, truth), (queries, true) = painted(12), painted(4, 1)

    def hidden(part, value):
        return np.where(np.isin(part, (2, 255)), value, part)

    first, second = (
        evaluate.segmentation(
            tiny,
            (images, hidden(truth, value)),
            (queries, hidden(true, value)),
            iterations=4,
            ignore=value,
            classes=2,
        )
        for value in (255, 7)
    )
    assert first == {**second, "ignore": 255} and first["classes"] == 2
    test = queries, true
    with pytest.raises(BadInput, match="no pixel that counts"):
        evaluate.segmentation(tiny, (images, np.full_like(truth, 255)), test)
    with pytest.raises(BadInput, match="hold class 2"):
        evaluate.segmentation(tiny, (images, truth), test, classes=2)


def test_a_class_that_only_the_test_shows_is_always_wrong(tiny):
    images, truth = painted(10, 1)
    truth[:, -6:] = 3
    result = evaluate.segmentation(tiny, painted(20), (images, truth), iterations=40)
    share = (truth == 3).sum() / (truth != 255).sum()
    assert result["classes"] == 4 and result["iou"][3] == 0
    assert result["pixel_accuracy"] <= 1 - share
    with pytest.raises(BadInput, match="class 3"):
        evaluate.segmentation(tiny, painted(20), (images, truth), iterations=1, classes=3)


def test_predictions_are_counted_at_the_true_maps_own_size(tiny):
    images, truth = painted(6)
    result = evaluate.segmentation(tiny, (images, truth), (images, truth), iterations=2, size=16)
    whole = tf.data.Dataset.from_tensor_slices({"image": images, "segmentation": truth[..., None]})
    again = evaluate.segmentation(tiny, whole.batch(3), whole, iterations=2, size=(16, 16))
    assert (result["height"], result["width"]) == (16, 16) and result["size"] == 16
    assert again == result


def test_pictures_are_taken_as_they_are_where_all_have_one_size(tiny):
    """Whether it is known beforehand or not; else they are brought to one."""
    images, truth = painted(4)

    def read_from_files(*sides):
        spec = tf.TensorSpec([None, None, 3], tf.uint8), tf.TensorSpec([None, None], tf.int32)
        pairs = [(images[0, :side], truth[0, :side]) for side in sides]
        rows = tf.data.Dataset.from_generator(lambda: iter(pairs), output_signature=spec)
        return rows.map(lambda image, truth: {"image": image, "segmentation": truth})

    few = dict(iterations=1, batch_size=2)
    uniform = evaluate.segmentation(tiny, read_from_files(24, 24), read_from_files(24), **few)
    assert uniform["size"] == [24, 32] and (uniform["height"], uniform["width"]) == (24, 32)
    for parts in (
        (read_from_files(24, 20), read_from_files(24)),
        (read_from_files(24), read_from_files(20)),
    ):
        assert evaluate.segmentation(tiny, *parts, **few)["size"] == 256


def test_pairs_dicts_and_lists_of_arrays_serve_in_colour_and_in_grey(tiny):
    images, truth = painted(6)
    few = dict(iterations=2)
    expected = evaluate.segmentation(tiny, (images, truth), (images, truth), **few)
    dicts = {"image": images, "segmentation": truth}
    for form in ((images, truth[..., None]), dicts, (list(images), list(truth))):
        assert evaluate.segmentation(tiny, form, form, **few) == expected
    grey = images[..., :1], truth
    as_one = np.repeat(images[..., :1], 3, -1), truth
    expected = evaluate.segmentation(tiny, as_one, as_one, **few)
    assert evaluate.segmentation(tiny, grey, grey, **few) == expected
    several = [images[0], images[1, :20]], [truth[0], truth[1, :20]]
    assert evaluate.segmentation(tiny, several, several, size=32, **few)["train_examples"] == 2
    for bad, told in (
        ((images, truth[:3]), "one of each"),
        ((np.zeros((2, 8, 8, 4), np.uint8), truth[:2, :8, :8]), "takes 3 channels"),
        (tf.data.Dataset.from_tensor_slices((images, truth)), "map of classes"),
    ):
        with pytest.raises(BadInput, match=told):
            evaluate.segmentation(tiny, bad, bad, **few)


def test_an_encoder_that_gives_no_numbers_is_refused(tiny):
    inputs = keras.Input((None, None, 3))
    broken = keras.Model(inputs, keras.layers.Conv2D(4, 3, padding="same", name="c1")(inputs))
    broken.set_weights([weight * np.nan for weight in broken.get_weights()])
    with pytest.raises(BadInput, match="loss became NaN"):
        evaluate.segmentation(broken, painted(4), painted(2, 1), iterations=2)
    images, truth = painted(4)
    truth[0] = 255  # a batch without a pixel that counts is no fault
    evaluate.segmentation(tiny, (images, truth), painted(2, 1), iterations=6, batch_size=1)


def test_a_saved_model_and_a_transformers_tokens_serve(tiny, tmp_path):
    import tfssl
    from tfssl import encoders

    tfssl.export(tiny, tmp_path / "encoder")
    parts = painted(10), painted(4, 1)
    live = evaluate.segmentation(tiny, *parts, iterations=5)
    loaded = evaluate.segmentation(
        tf.saved_model.load(str(tmp_path / "encoder")), *parts, iterations=5
    )
    assert loaded["mean_iou"] == pytest.approx(live["mean_iou"], abs=0.02)
    tokens = encoders.get("vit_mini", size=32)
    result = evaluate.segmentation(tokens, *parts, iterations=2)
    assert result["taps"] == [encoders.tap_names(tokens)[-1]]
    with pytest.raises(BadInput, match="32 x 32 pixels only, not of 64 x 64"):
        evaluate.segmentation(tokens, *parts, size=64)
    flat = keras.Sequential([keras.Input((32, 32, 3)), keras.layers.GlobalAveragePooling2D()])
    with pytest.raises(BadInput):
        evaluate.segmentation(flat, *parts)


def saved(path, array):
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def as_camvid(folder, images, truth):
    for split, part in (("train", slice(0, 4)), ("test", slice(4, 6))):
        for i, (image, classes) in enumerate(zip(images[part], truth[part])):
            saved(folder / split / f"{i}.jpg", image)
            saved(folder / f"{split}annot" / f"{i}.png", np.where(classes == 255, 11, classes))


def as_voc(folder, images, truth):
    from PIL import Image

    for split, part in (("train", range(4)), ("val", range(4, 6))):
        for i in part:
            saved(folder / "JPEGImages" / f"{i}.jpg", images[i])
            picture = Image.fromarray(truth[i].astype(np.uint8)).convert("P")
            palette = Image.fromarray(truth[i].astype(np.uint8), "L")
            picture = Image.new("P", palette.size)
            picture.putdata(list(palette.getdata()))
            picture.putpalette([value for i in range(256) for value in (255 - i, i // 2, 7)])
            path = folder / "SegmentationClass" / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.save(path)
        lists = folder / "ImageSets" / "Segmentation"
        lists.mkdir(parents=True, exist_ok=True)
        (lists / f"{split}.txt").write_text("".join(f"{i}\n" for i in part))


def as_coco(folder, images, truth):
    for split, part in (("train2017", range(4)), ("val2017", range(4, 6))):
        for i in part:
            saved(folder / "images" / split / f"{i}.jpg", images[i])
            saved(folder / "semantic" / split / f"{i}.png", truth[i].astype(np.uint8))


@pytest.mark.parametrize("form", [as_camvid, as_voc, as_coco])
def test_folders_of_every_form_give_the_same_maps(form, tmp_path):
    images, truth = painted(6)
    form(tmp_path, images, truth.astype(np.uint8))
    train, test = annotated.segmented(str(tmp_path)), annotated.segmented(f"{tmp_path}@test")
    assert int(train.cardinality()) == 4 and int(test.cardinality()) == 2
    for position, example in enumerate([*train, *test]):
        np.testing.assert_array_equal(example["segmentation"], truth[position])
        assert example["image"].dtype == tf.uint8 and example["image"].shape == (32, 32, 3)


def test_sources_without_maps_are_refused_in_a_sentence(tmp_path):
    with pytest.raises(errors.BadInput, match="no maps of classes"):
        annotated.segmented(str(tmp_path))
    with pytest.raises(errors.BadInput, match="no such file or folder"):
        annotated.segmented(str(tmp_path / "nothing"))
    with pytest.raises(BadInput, match="map of classes"):
        rows = tf.data.Dataset.from_tensor_slices({"image": np.zeros((2, 8, 8, 3), np.uint8)})
        evaluate.segmentation(None, rows, rows)


@pytest.mark.parametrize("form", [as_camvid, as_voc, as_coco])
def test_damaged_pictures_and_maps_are_skipped_listed_and_counted(form, tmp_path):
    images, truth = painted(6)
    form(tmp_path, images, truth.astype(np.uint8))
    picture, classes = max(tmp_path.rglob("0.jpg")), max(tmp_path.rglob("2.png"))
    for path in (picture, classes):
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
    data = annotated.segmented(str(tmp_path))
    rows = list(data)
    assert [int(example["index"]) for example in rows] == [0, 1] and data.total == 4
    for example, position in zip(rows, (1, 3)):
        np.testing.assert_array_equal(example["segmentation"], truth[position])
    named = {path.relative_to(tmp_path).as_posix() for path in (picture, classes)}
    assert {path for path, _ in data.broken} == named
    assert not annotated.segmented(str(tmp_path), "test").broken
    with sources.accepting(0.4), pytest.raises(errors.BadInput, match="2 of 4 files are broken"):
        annotated.segmented(str(tmp_path))


@pytest.mark.parametrize("name, settings", [("text_bag", {"dim": 8}), ("audio_cnn", {"width": 4})])
def test_an_encoder_of_another_kind_is_refused(name, settings, tmp_path):
    import tfssl
    from tfssl import encoders

    encoder = encoders.get(name, **settings)
    tfssl.export(encoder, tmp_path / "encoder")
    for each in (encoder, tfssl.load(tmp_path / "encoder")):
        with pytest.raises(BadInput, match="segmentation needs an encoder of pictures"):
            evaluate.segmentation(each, painted(2), painted(2))


def test_in_world_a_pixels_class_is_its_objects(tiny):
    world = annotated.segmented("world:size=32,n=12")
    from tfssl.evaluate.segmentation import examples

    for raw, (_, truth) in zip(world, examples(world)):
        for row, label in enumerate(raw["object_label"].numpy()):
            assert (truth.numpy()[raw["masks"].numpy() == row + 1] == label + 1).all()
        assert (truth.numpy()[raw["masks"].numpy() == 0] == 0).all()
    result = evaluate.segmentation(
        tiny, world, annotated.segmented("world:size=32,n=4", "test"), iterations=3
    )
    assert result["test_examples"] == 4 and 0 < result["mean_iou"] < 1


def test_the_command_measures_segmentation_beside_a_random_encoder(tiny, tmp_path, monkeypatch):
    import functools

    import tfssl

    few = functools.partial(evaluate.segmentation, iterations=2)
    monkeypatch.setitem(evaluate.ANNOTATED, "segmentation", few)

    images, truth = painted(6)
    as_camvid(tmp_path / "roads", images, truth.astype(np.uint8))
    tfssl.export(tiny, tmp_path / "encoder")
    words = ("--protocol", "segmentation", "--protocol", "random", "--json", tmp_path / "r.json")
    done = call("evaluate", tmp_path / "encoder", "--data", tmp_path / "roads", *words, "--quiet")
    assert done.code == 0, done.err
    found = json.loads((tmp_path / "r.json").read_text())
    assert {"mean_iou", "mean_iou_low", "ignore"} <= set(found["results"]["segmentation"])
    assert found["results"]["segmentation"]["size"] == 32
    assert "segmentation" in found["random"] and "mean_iou" in done.out
    refused = call("evaluate", tmp_path / "encoder", "--data", "digits", *words[:2], "--quiet")
    assert refused.code == 2 and "maps of classes" in refused.err


@pytest.mark.slow
def test_roads_are_found_on_camvid(shared):
    from tfssl import encoders

    parts = [annotated.segmented(shared / "data" / "camvid", split) for split in ("train", "test")]
    keras.utils.set_random_seed(0)
    encoder = encoders.get("conv4")
    result = evaluate.segmentation(encoder, *parts, iterations=100, batch_size=4, size=(90, 120))
    assert result["classes"] == 11 and result["test_examples"] == 50
    assert result["mean_iou"] > result["majority_mean_iou"] + 0.1
