"""VOC07's classification: one SVM a class, C by cross-validated AP, difficult objects left out."""

import json
from contextlib import nullcontext

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfssl import evaluate
from tfssl.errors import BadInput
from tfssl.evaluate import metrics
from tfssl.evaluate.voc07 import PENALTIES, tables

FEW = dict(penalties=(0.1, 1.0, 10.0))


def identity(x):
    return x


def pictures(count, seed=0, noise=0.4, classes=3):
    """Features with a direction a class, and a table of which classes are there."""
    generator = np.random.default_rng(seed)
    table = (generator.random((count, classes)) < 0.35).astype(int)
    x = table @ np.eye(classes, 8) + 0.2 + noise * generator.normal(size=(count, 8))
    return x.astype(np.float32), table


def test_the_grid_has_the_twenty_six_published_values():
    assert len(set(PENALTIES)) == 26
    assert min(PENALTIES) == pytest.approx(1e-7) and max(PENALTIES) == pytest.approx(1e2)
    assert {2.0**-4, 2.0**-19, 1e-3, 1.0} <= set(PENALTIES)


def test_map_equals_svms_fitted_one_by_one():
    from sklearn.model_selection import StratifiedKFold
    from sklearn.svm import LinearSVC

    (x, y), (queries, truth) = pictures(150), pictures(80, 1)
    result = evaluate.voc07(identity, (x, y), (queries, truth), **FEW)
    json.dumps(result, allow_nan=False)
    rows, others = (
        part / (np.sqrt((part**2).sum(1, keepdims=True)) + 1e-5) for part in (x, queries)
    )

    def machine(c):
        return LinearSVC(
            C=c, dual=True, class_weight={1: 2, 0: 1}, tol=1e-4, max_iter=2000, random_state=0
        )

    areas = []
    for label in range(3):
        means = []
        for c in FEW["penalties"]:
            parts = []
            for fit, held in StratifiedKFold(3).split(rows, y[:, label]):
                margins = machine(c).fit(rows[fit], y[fit, label]).decision_function(rows[held])
                order = np.argsort(-margins)
                hits = y[held, label][order]
                precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
                parts.append(precision[hits == 1].mean())
            means.append(np.mean(parts))
        best = FEW["penalties"][int(np.argmax(means))]
        assert result["C"][label] == best
        margins = machine(best).fit(rows, y[:, label]).decision_function(others)
        areas.append(metrics.average_precision(margins, truth[:, label]))
    assert result["mAP"] == pytest.approx(np.mean(areas), abs=1e-6)
    assert result["ap_by_class"] == pytest.approx(areas, abs=1e-6)
    assert result["mAP"] > 0.6 > truth.mean()


def test_every_machine_has_the_published_settings(machines):
    """On such easy data primal and dual agree, so that results do not tell which was solved."""
    evaluate.voc07(identity, pictures(60), pictures(30, 1), penalties=[0.1, 1.0])
    assert len(machines) == 3 * (2 * 3 + 1)  # classes, each cross-validated, then fitted to all
    for settings in machines:
        assert settings["dual"] is True and settings["loss"] == "squared_hinge"
        assert settings["penalty"] == "l2" and settings["intercept_scaling"] == 1
        assert settings["tol"] == 1e-4 and settings["max_iter"] == 2000
        assert settings["class_weight"] == {1: 2, 0: 1}


def test_folds_are_those_that_were_used():
    (x, y), test = pictures(60), pictures(30, 1)
    y[:, 1], y[:2, 1], y[:, 2], y[0, 2] = 0, 1, 0, 1
    result = evaluate.voc07(identity, (x, y), test, **FEW)
    assert result["folds"] == [3, 2, 0]


def test_what_is_difficult_is_asked_on_neither_side():
    (x, y), (queries, truth) = pictures(150), pictures(60, 1)
    hidden, gone = y.copy(), np.arange(150) < 20
    hidden[gone, 1] = -1
    found = evaluate.voc07(identity, (x, hidden), (queries, truth), penalties=[1.0])
    kept = evaluate.voc07(identity, (x[~gone], y[~gone]), (queries, truth), penalties=[1.0])
    whole = evaluate.voc07(identity, (x, y), (queries, truth), penalties=[1.0])
    assert found["ap_by_class"][1] == pytest.approx(kept["ap_by_class"][1], abs=1e-6)
    assert found["ap_by_class"][0] == pytest.approx(whole["ap_by_class"][0], abs=1e-6)
    asked = truth.copy()
    asked[:15, 2] = -1
    tested = evaluate.voc07(identity, (x, y), (queries, asked), penalties=[1.0])
    fewer = evaluate.voc07(identity, (x, y), (queries[15:], truth[15:]), penalties=[1.0])
    assert tested["ap_by_class"][2] == pytest.approx(fewer["ap_by_class"][2], abs=1e-6)


def test_lists_of_labels_become_the_table():
    examples = [
        {"image": np.zeros((9, 7, 3), np.uint8), "labels": [0, 2], "labels_no_difficult": [2]},
        {"image": np.zeros((6, 8, 3), np.uint8), "labels": [1], "labels_no_difficult": [1]},
        {"image": np.zeros((5, 5, 3), np.uint8), "labels": [], "labels_no_difficult": []},
    ]
    several = tf.TensorSpec([None], tf.int64)
    spec = {
        "image": tf.TensorSpec([None, None, 3], tf.uint8),
        "labels": several,
        "labels_no_difficult": several,
    }
    data = tf.data.Dataset.from_generator(lambda: iter(examples), output_signature=spec)

    def mean(x):
        return tf.reduce_mean(x, axis=(1, 2))

    x, table = tables(mean, data, size=8)
    assert x.shape == (3, 3)
    np.testing.assert_array_equal(table[:, :3], [[-1, 0, 1], [0, 1, 0], [0, 0, 0]])
    assert not table[:, 3:].any()


def test_classes_beyond_the_tables_width_are_refused_by_number():
    images = np.zeros((8, 9, 9, 3), np.uint8)
    for highest in (1023, 1500):
        labels = np.where(np.arange(8) % 2, highest, 3)[:, None]
        data = tf.data.Dataset.from_tensor_slices({"image": images, "labels": labels})
        with pytest.raises(BadInput, match="class 1500") if highest > 1023 else nullcontext():
            evaluate.voc07(lambda x: x[:, 0, 0], data, data, penalties=[1.0], size=9)


def test_arrays_of_several_sizes_serve_unless_a_taps_grid_depends_on_them():
    from tfssl import encoders

    images = [np.zeros((side, side, 3), np.float32) for side in (8, 16, 16, 8)]
    data = images, np.array([[0], [1], [1], [0]])
    found = evaluate.voc07(lambda x: x[:, 0, 0], data, data, penalties=[1.0])
    assert found["train_examples"] == 4 and found["size"] == 0
    with pytest.raises(BadInput, match="state size="):
        evaluate.voc07(encoders.get("conv4"), data, data, penalties=[1.0], tap="c1")


def test_a_class_without_positives_is_left_out_of_the_mean():
    (x, y), (queries, truth) = pictures(100), pictures(50, 1)
    wide, more = (np.pad(part, [(0, 0), (0, 1)]) for part in (y, truth))
    found = evaluate.voc07(identity, (x, wide), (queries, more), penalties=[1.0])
    plain = evaluate.voc07(identity, (x, y), (queries, truth), penalties=[1.0])
    assert found["ap_by_class"][3] is None and found["mAP"] == plain["mAP"]
    with pytest.raises(BadInput, match="no class has a positive"):
        evaluate.voc07(identity, (x, 0 * y), (queries, truth))
    with pytest.raises(BadInput, match="`labels`"):
        rows = tf.data.Dataset.from_tensor_slices({"image": np.zeros((2, 8, 8, 3), np.uint8)})
        evaluate.voc07(identity, rows, rows)


def test_world_has_several_labels_a_picture_and_taps_may_be_read():
    from tfssl import encoders
    from tfssl.pipelines.sources import annotated

    parts = annotated.tagged("world:size=32,n=60"), annotated.tagged("world:size=32,n=20", "test")
    assert max(len(example["labels"]) for example in parts[0]) > 1
    encoder = encoders.get("conv4")
    settings = dict(penalties=[0.1], size=32)
    result = evaluate.voc07(encoder, *parts, **settings, tap="c3", dimensions=1200)
    assert 0 < result["mAP"] <= 1 and result["train_examples"] == 60
    assert (result["tap"], result["dimensions"], result["pooling"]) == ("c3", 1200, "fair")
    assert result["size"] == 32 and set(result["folds"]) <= {0, None}
    with pytest.raises(BadInput, match="no tap"):
        evaluate.voc07(encoder, *parts, **settings, tap="c9")


def pooled(shape, seen):
    """An encoder that keeps the shapes of what it is given."""
    inputs = keras.Input(shape)

    def noted(x):
        seen.append(tuple(x.shape[1:3]))
        return x

    outputs = keras.layers.GlobalAveragePooling2D()(keras.layers.Lambda(noted)(inputs))
    return keras.Model(inputs, outputs)


@pytest.mark.parametrize(
    "shape, size, expected",
    [
        ((None, None, 3), 0, 224),
        ((None, None, 3), 40, 40),
        ((48, 48, 3), 0, 48),
        ((48, 64, 3), 0, [48, 64]),
    ],
)
def test_pictures_are_squeezed_whole_to_224_or_to_what_the_encoder_takes(shape, size, expected):
    """Their colours lie at the ends, which a centre crop would cut off."""
    images = np.zeros((12, 20, 80, 3), np.uint8)
    images[:6, :, :20, 0], images[6:, :, 60:, 2] = 250, 250
    labels = np.repeat([[0], [1]], 6, 0)
    data = tf.data.Dataset.from_tensor_slices({"image": images, "labels": labels})
    seen = []
    result = evaluate.voc07(pooled(shape, seen), data, data, penalties=[1.0], size=size)
    assert result["size"] == expected and result["mAP"] == pytest.approx(1)
    side = (expected, expected) if isinstance(expected, int) else tuple(expected)
    assert set(seen) - {shape[:2]} <= {side} and side in seen
