"""A hundred labels: draws are fixed and balanced, and only what was drawn is looked at."""

import json

import numpy as np
import pytest

from tfssl import evaluate, pipelines
from tfssl.errors import BadInput
from tfssl.evaluate.low_label import drawn
from tfssl.pipelines import errors

FAST = dict(penalties=[0.1], iterations=50)


def blobs(count, spread=0.3, seed=0):
    generator = np.random.default_rng(seed)
    y = generator.integers(0, 4, count)
    x = 2 * np.eye(4, 6)[y] + spread * generator.normal(size=(count, 6))
    return x.astype(np.float32), y


def identity(x):
    return x


def test_draws_are_balanced_fixed_and_different():
    y = np.random.default_rng(0).integers(0, 10, 3000)
    draws = [drawn(y, 10, seed) for seed in range(10)]
    for chosen in draws:
        np.testing.assert_array_equal(np.bincount(y[chosen]), [10] * 10)
        assert len(set(chosen)) == 100
    np.testing.assert_array_equal(drawn(y, 10, 3), draws[3])
    assert len({tuple(chosen) for chosen in draws}) == 10


def test_errors_have_the_mean_and_deviation_of_ten_draws():
    result = evaluate.low_label(identity, blobs(400, 1.2), blobs(300, 1.2, 1), **FAST)
    json.dumps(result, allow_nan=False)
    assert len(result["errors"]) == result["draws"] == 10 and result["labels"] == 40
    assert result["error_mean"] == pytest.approx(np.mean(result["errors"]))
    assert result["error_std"] == pytest.approx(np.std(result["errors"], ddof=1))
    assert result["top1"] == pytest.approx(1 - result["error_mean"])
    assert result["error_std"] > 0


def test_labels_that_were_not_drawn_change_nothing():
    (x, y), test = blobs(300), blobs(100, seed=1)
    chosen = drawn(y, 5, 0)
    only = evaluate.low_label(identity, (x, y), test, per_class=5, draws=1, **FAST)
    hidden = evaluate.low_label(
        identity, (x[chosen], y[chosen]), test, per_class=5, draws=1, **FAST
    )
    assert only["errors"] == hidden["errors"]


def test_more_labels_are_worth_more():
    parts = blobs(2000, 1.5), blobs(1000, 1.5, 1)
    few, many = (
        evaluate.low_label(identity, *parts, per_class=n, draws=5, **FAST)["error_mean"]
        for n in (2, 100)
    )
    assert many < few - 0.02


@pytest.mark.parametrize("per_class", [1, 2])
def test_where_nothing_can_be_held_out_c_is_the_stated_default(per_class):
    parts = blobs(400, 1.0), blobs(200, 1.0, 1)
    few = dict(per_class=per_class, draws=3)
    found = evaluate.low_label(identity, *parts, **few)
    assert found["C_by_draw"] == [1.0] * 3 and found["C_from"] == "default"
    given = evaluate.low_label(identity, *parts, penalties=[1.0], **few)
    assert given["errors"] == found["errors"] and given["C_from"] == "given"
    more = evaluate.low_label(identity, *parts, per_class=10, draws=3)
    assert more["C_from"] == "validation" and (more["validation"], more["iterations"]) == (0.2, 200)


def test_no_labels_at_all_are_refused():
    for bad in (dict(per_class=0), dict(draws=0)):
        with pytest.raises(BadInput, match="at least one label"):
            evaluate.low_label(identity, blobs(40), blobs(10), **bad)


def archive(path, **arrays):
    np.savez(path, **arrays)
    return str(path)


def test_an_archive_in_keras_layout_is_a_source(tmp_path):
    generator = np.random.default_rng(0)
    x, y = generator.integers(0, 256, (30, 7, 7), np.uint8), generator.integers(0, 10, 30)
    path = archive(tmp_path / "m.npz", x_train=x[:20], y_train=y[:20], x_test=x[20:], y_test=y[20:])
    train, test = pipelines.load(path), pipelines.load(f"{path}@test")
    assert int(train.cardinality()) == 20 and int(test.cardinality()) == 10
    for position, example in enumerate([*train, *test]):
        np.testing.assert_array_equal(example["image"], np.repeat(x[position, ..., None], 3, -1))
        assert int(example["label"]) == y[position]
    assert int(next(iter(train.gather(np.array([4]))["label"]))) == y[4]
    whole = pipelines.load(path, "all")
    assert [int(e["index"]) for e in whole] == list(range(30))
    alone = archive(tmp_path / "alone.npz", x_train=x, y_train=y)
    sizes = [int(pipelines.load(alone, split).cardinality()) for split in ("train", "test")]
    assert sum(sizes) == 30 and sizes[1] > 0


@pytest.mark.parametrize(
    "arrays, says",
    [
        (dict(x=np.zeros((3, 4, 4), np.uint8)), "needs x_train"),
        (dict(x_train=np.zeros((3, 4, 4), np.float32)), "must be pictures, uint8"),
        (
            dict(x_train=np.zeros((3, 4, 4), np.uint8), y_train=np.zeros(2, int)),
            "must be 3 integers",
        ),
    ],
)
def test_an_archive_of_something_else_is_refused_in_a_sentence(arrays, says, tmp_path):
    with pytest.raises(errors.BadInput, match=says):
        pipelines.load(archive(tmp_path / "bad.npz", **arrays))


def test_a_file_that_is_no_archive_is_refused(tmp_path):
    (tmp_path / "bad.npz").write_bytes(b"nothing of the kind")
    with pytest.raises(errors.BadInput, match="cannot be read as a NumPy archive"):
        pipelines.load(str(tmp_path / "bad.npz"))


def test_mnist_reads_and_its_pixels_alone_do_not_reach_the_mark(shared):
    path = shared / "data" / "mnist" / "mnist.npz"
    if not path.exists():
        pytest.skip("no mnist.npz")
    parts = [
        pipelines.load(path, split).map(
            lambda e: {"image": e["image"][::2, ::2], "label": e["label"]}
        )
        for split in ("train", "test")
    ]

    def pixels(x):
        return np.reshape(x, [len(x), -1])[:, ::3]

    result = evaluate.low_label(pixels, parts[0].take(4000), parts[1].take(1000), draws=3, **FAST)
    assert 0.15 < result["error_mean"] < 0.5 and result["labels"] == 100
