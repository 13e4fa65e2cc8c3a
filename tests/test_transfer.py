"""The transfer suite's regression minimises what it says, and says which sets are not there."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.command_line import call
from tests.test_voc07 import identity, pictures
from tfssl import evaluate
from tfssl.errors import BadInput
from tfssl.evaluate.transfer import PENALTIES, SUITE, covered

FEW = (100.0, 1.0, 0.01)


def blobs(count, spread=1.0, seed=0, classes=4):
    generator = np.random.default_rng(seed)
    y = generator.integers(0, classes, count)
    x = 2 * np.eye(classes, 6)[y] + spread * generator.normal(size=(count, 6))
    return x.astype(np.float32), y


def test_the_grid_has_forty_five_values_a_quarter_of_a_decade_apart():
    assert len(PENALTIES) == 45
    assert min(PENALTIES) == pytest.approx(1e-6) and max(PENALTIES) == pytest.approx(1e5)
    np.testing.assert_allclose(np.divide(PENALTIES[1:], PENALTIES[:-1]), 1.778279, rtol=1e-6)


def test_the_suite_is_the_published_table():
    assert len(SUITE) == 12
    by_metric = {
        metric: {name for name, entry in SUITE.items() if entry.metric == metric}
        for metric in ("top1", "mean_per_class", "mAP_11point")
    }
    assert by_metric["mean_per_class"] == {
        "fgvc_aircraft",
        "oxford_iiit_pet",
        "caltech101",
        "oxford_flowers102",
    }
    assert by_metric["mAP_11point"] == {"voc2007"} and len(by_metric["top1"]) == 7
    assert all(entry.data.startswith("tfds:") for entry in SUITE.values())


def test_a_fit_is_the_minimum_of_the_regularised_cross_entropy():
    """At it the gradient of sum CE + lambda/2 |W|^2 vanishes, and the bias bears no penalty."""
    from tfssl.evaluate.linear import regression

    (x, y), penalty = blobs(120), 3.0
    model = regression(x, y, 1 / penalty, 2000)
    logits = x @ model.coef_.T + model.intercept_
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    error = p - np.eye(4)[y]
    np.testing.assert_allclose(error.T @ x + penalty * model.coef_, 0, atol=0.05)
    np.testing.assert_allclose(error.sum(0), 0, atol=0.05)


def test_the_penalty_is_the_best_on_validation_and_both_are_fitted_in_the_end():
    from tfssl.evaluate.linear import regression

    train, validation, test = blobs(60, 1.5), blobs(80, 1.5, 1), blobs(200, 1.5, 2)
    result = evaluate.transfer(identity, train, test, validation, penalties=FEW)
    json.dumps(result, allow_nan=False)
    each = [
        (regression(*train, 1 / penalty, 2000).predict(validation[0]) == validation[1]).mean()
        for penalty in FEW
    ]
    assert result["lambda"] == FEW[int(np.argmax(each))]
    both = [np.concatenate(parts) for parts in zip(train, validation)]
    model = regression(*both, 1 / result["lambda"], 2000)
    assert result["top1"] == pytest.approx((model.predict(test[0]) == test[1]).mean(), abs=0.01)
    assert result["train_examples"] == 140 and result["penalties"] == 3


@pytest.mark.parametrize("scale, shift", [(1e-3, 0), (1e3, 0), (1.0, 30.0)])
def test_features_of_any_size_are_fitted_to_the_same_minimum(scale, shift):
    """Scaled by s they are the same problem at lambda s^2, and shifted at lambda itself."""
    parts = [blobs(count, 1.5, seed) for seed, count in enumerate((150, 80, 400))]
    train, validation, test = [((x * scale + shift).astype(np.float32), y) for x, y in parts]
    changed = evaluate.transfer(
        identity, train, test, validation, penalties=[scale**2 * value for value in FEW]
    )
    usual = evaluate.transfer(identity, parts[0], parts[2], parts[1], penalties=FEW)
    assert changed["lambda"] == pytest.approx(scale**2 * usual["lambda"])
    assert changed["top1"] == pytest.approx(usual["top1"], abs=0.003) and usual["top1"] > 0.6


def test_a_training_part_of_one_class_is_refused():
    (x, y), test = blobs(60), blobs(20, seed=1)
    with pytest.raises(BadInput, match="all training examples have the same label"):
        evaluate.transfer(identity, (x[y == 0], y[y == 0]), test, test, penalties=FEW)
    with pytest.raises(BadInput, match="has no labels"):
        evaluate.transfer(identity, (x, y), test, x, penalties=FEW)


def test_mean_per_class_chooses_and_reports_by_itself():
    (x, y), test = blobs(300, 1.2), blobs(200, 1.2, 1)
    rare = (y != 3) | (np.arange(300) < 40)
    result = evaluate.transfer(
        identity, (x[rare], y[rare]), test, metric="mean_per_class", penalties=FEW
    )
    assert result["metric"] == "mean_per_class" and 0.5 < result["mean_per_class"] < 1
    with pytest.raises(BadInput, match="metric is"):
        evaluate.transfer(identity, (x, y), test, metric="top5")


def test_several_labels_share_one_penalty():
    train, test = pictures(200), pictures(100, 1)
    for validation in (None, pictures(60, 2)):
        result = evaluate.transfer(
            identity, train, test, validation, metric="mAP_11point", penalties=FEW
        )
        assert result["mAP_11point"] > 0.6 and result["lambda"] in FEW
        assert result["train_examples"] == (200 if validation is None else 260)


def test_pictures_are_covered_and_their_centre_is_cut():
    image = np.zeros((30, 60, 3), np.uint8)
    image[:, 15:45] = 255
    found = covered({"image": tf.constant(image), "label": 1}, 12)
    assert found["image"].shape == (12, 12, 3) and found["label"] == 1
    np.testing.assert_allclose(found["image"][:, 2:-2], 1, atol=0.05)


def mean_colour():
    inputs = keras.Input((None, None, 3))
    return keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(inputs))


def prepared(*there, one_class=""):
    """`load` of a disk with some data sets, dark and bright pictures; `one_class` has dark ones."""
    generator = np.random.default_rng(0)

    def load(entry, split):
        if entry.data not in there:
            raise ValueError(f"{entry.data} is not prepared")
        count = {"train": 40, "val": 30, "test": 20}[split]
        y = generator.integers(0, 1 if entry.data == one_class else 2, count)
        images = np.full((count, 20, 16, 3), 40, np.uint8) + 120 * y[:, None, None, None]
        return tf.data.Dataset.from_tensor_slices({"image": images.astype(np.uint8), "label": y})

    return load


def test_the_suite_measures_what_is_there_and_says_what_is_not():
    load = prepared("tfds:cifar10", "tfds:dtd")
    result = evaluate.suite(mean_colour(), load, size=16, penalties=FEW)
    json.dumps(result, allow_nan=False)
    assert result["cifar10"] == result["dtd"] == result["mean"] == 1
    assert len(result["missing"]) == 10 and "not prepared" in result["missing"]["food101"]
    assert result["datasets"]["dtd"]["train_examples"] == 70
    assert result["datasets"]["dtd"]["size"] == result["size"] == 16


def test_a_data_set_that_is_refused_does_not_cost_the_others_results():
    load = prepared("tfds:cifar10", "tfds:cifar100", one_class="tfds:cifar100")
    result = evaluate.suite(mean_colour(), load, size=16, penalties=FEW)
    assert result["cifar10"] == result["mean"] == 1 and "cifar100" not in result
    assert "the same label" in result["missing"]["cifar100"] and len(result["missing"]) == 11
    alone = prepared("tfds:cifar100", one_class="tfds:cifar100")
    with pytest.raises(BadInput, match="the same label"):
        evaluate.suite(mean_colour(), alone, size=16, penalties=FEW)


def test_the_command_names_every_set_that_is_not_on_this_disk(tmp_path, monkeypatch):
    import tfssl

    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    tfssl.export(mean_colour(), tmp_path / "encoder")
    words = ("--protocol", "transfer", "--json", tmp_path / "r.json", "--quiet")
    done = call("evaluate", tmp_path / "encoder", *words)
    assert done.code == 0, done.err
    assert all(f"not measured: {name}:" in done.out for name in SUITE)
    found = json.loads((tmp_path / "r.json").read_text())["results"]["transfer"]
    assert found["mean"] is None and set(found["missing"]) == set(SUITE)
    refused = call("evaluate", tmp_path / "encoder", "--protocol", "knn", "--quiet")
    assert refused.code == 2 and "--data is missing" in refused.err
