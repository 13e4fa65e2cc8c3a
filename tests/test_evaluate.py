"""Evaluation gives the numbers that its formulas give, of any encoder, and changes nothing."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfssl import evaluate
from tfssl.errors import BadInput
from tfssl.evaluate import bootstrap, features
from tfssl.evaluate.finetune import balanced, trainable_copy
from tfssl.evaluate.knn import scores
from tfssl.evaluate.layers import adaptive_average, pooled

FAST = {
    "layers": dict(iterations=30, penalties=(0.01, 0.1)),
    "layers_sgd": dict(iterations=60, batch_size=64, dimensions=600, flip=False),
    "linear_sgd": dict(epochs=10),
    "low_label": dict(draws=2, penalties=[0.1]),
    "transfer": dict(penalties=(0.01, 0.1)),
    "supervised": dict(epochs=2, least_steps=60),
    **{name: dict(epochs=2, least_steps=60) for name in ("finetune", "finetune_1", "finetune_10")},
}


@pytest.fixture(scope="module")
def digits():
    from sklearn.datasets import load_digits

    data = load_digits()
    images = np.repeat((data.images / 16 * 255).astype(np.uint8)[..., None], 3, axis=-1)
    return (images[:600], data.target[:600]), (images[600:900], data.target[600:900])


@pytest.fixture(scope="module")
def tiny():
    keras.utils.set_random_seed(1)
    inputs = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(16, 3, activation="relu", name="c1")(inputs)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.Conv2D(24, 3, strides=2, activation="relu", name="c2")(x)
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x))
    # Moving statistics far from a batch's own show whether inference mode is kept.
    model.layers[2].moving_mean.assign(np.full(16, 0.2))
    return model


def identity(x):
    return x


def blobs(count, classes=4, width=6, spread=1.0, seed=0):
    generator = np.random.default_rng(seed)
    y = generator.integers(0, classes, count)
    centres = 2 * np.eye(classes, width)
    x = centres[y] + spread * generator.normal(size=(count, width))
    return x.astype(np.float32), y


def test_knn_equals_a_slow_loop():
    (x, y), (queries, truth) = blobs(80), blobs(50, seed=1)
    k, temperature = 7, 0.3
    right = []
    for query, label in zip(queries.astype(float), truth):
        similarity = [
            (query @ row) / np.linalg.norm(query) / np.linalg.norm(row) for row in x.astype(float)
        ]
        votes = dict.fromkeys(range(4), 0.0)
        for i in np.argsort(similarity)[-k:]:
            votes[y[i]] += np.exp(similarity[i] / temperature)
        right.append(max(votes, key=votes.get) == label)
    result = evaluate.knn(identity, (x, y), (queries, truth), k=k, temperature=temperature)
    assert result["top1"] == pytest.approx(np.mean(right))
    assert (result["k"], result["temperature"]) == (k, temperature)


def test_knns_top5_counts_the_five_classes_with_most_votes():
    (x, y), (queries, truth) = blobs(120, 8, 9, 2.0), blobs(90, 8, 9, 2.0, seed=1)
    k, temperature = 12, 0.3
    hits = []
    for query, label in zip(queries.astype(float), truth):
        similarity = x @ query / np.linalg.norm(query) / np.linalg.norm(x, axis=1)
        votes = np.zeros(8)
        for i in np.argsort(similarity)[-k:]:
            votes[y[i]] += np.exp(similarity[i] / temperature)
        hits.append(label in np.argsort(-votes)[:5] and votes[label] > 0)
    result = evaluate.knn(identity, (x, y), (queries, truth), k=k, temperature=temperature)
    assert result["top5"] == pytest.approx(np.mean(hits)) and result["top1"] < result["top5"] < 1
    alone = evaluate.knn(identity, (x, y), (queries, truth), k=1)
    assert alone["top5"] == alone["top1"]  # classes without a vote are no guess
    assert "top5" not in evaluate.knn(identity, blobs(80), blobs(50))


def test_one_near_neighbour_outvotes_two_farther_ones_only_when_cold():
    def at(cosine):
        return [cosine, np.sqrt(1 - cosine**2)]

    train = np.array([at(0.9), at(0.8), at(0.8)], np.float32), np.array(["A", "B", "B"])
    test = np.array([[1, 0]], np.float32), np.array(["A"])
    assert evaluate.knn(identity, train, test, k=3, temperature=0.07)["top1"] == 1
    assert evaluate.knn(identity, train, test, k=3, temperature=1.0)["top1"] == 0


def test_mean_per_class_and_top1_of_the_worked_confusion():
    truth = np.repeat([0, 1], [100, 10])
    predicted = np.repeat([0, 1, 0, 1], [90, 10, 6, 4])
    result = scores(predicted, truth)
    assert result["top1"] == pytest.approx(0.854545, abs=1e-6)
    assert result["mean_per_class"] == pytest.approx(0.65)


@pytest.mark.parametrize("block", [2**24, 7 * 30])
def test_on_the_training_set_itself_no_example_votes_for_or_finds_itself(monkeypatch, block):
    monkeypatch.setattr(evaluate.metrics, "_BLOCK", block)
    data = x, y = blobs(30, spread=3.0)
    right = []
    for i in range(len(x)):
        others = np.delete(x, i, axis=0), np.delete(y, i)
        found = evaluate.knn(identity, others, (x[i : i + 1], y[i : i + 1]), k=4)
        right.append(found["top1"])
    assert 0 < np.mean(right) < 1
    assert evaluate.knn(identity, data, data, k=4)["top1"] == pytest.approx(np.mean(right))
    assert evaluate.knn(identity, data, data, k=50)["k"] == 29
    nearest = evaluate.knn(identity, data, data, k=1)["top1"]
    assert evaluate.retrieval(identity, data, data)["R@1"] == pytest.approx(nearest)
    copies = np.ones([30, 3], np.float32), y  # all similarities are equal
    assert evaluate.retrieval(identity, copies, copies, ks=(1, 40))["R@40"] == 1


def test_the_sgd_probes_read_features_that_hardly_vary():
    data, test = blobs(300, spread=0.3), blobs(100, spread=0.3, seed=1)
    faint = [(1e-2 * x, y) for x, y in (data, test)]
    result = evaluate.linear_sgd(identity, *faint, epochs=4, batch_size=32, learning_rate=0.3)
    assert result["top1"] > 0.9


def test_retrieval_equals_a_slow_loop():
    (x, y), (queries, truth) = blobs(60, spread=2.0), blobs(40, spread=2.0, seed=1)
    result = evaluate.retrieval(identity, (x, y), (queries, truth), ks=(1, 5))
    for k in (1, 5):
        hits = 0
        for query, label in zip(queries, truth):
            similarity = x @ query / np.linalg.norm(x, axis=1)
            hits += label in y[np.argsort(-similarity)[:k]]
        assert result[f"R@{k}"] == pytest.approx(hits / len(queries))


@pytest.mark.parametrize("length", [1e-9, 1e25])
def test_retrieval_does_not_care_for_the_length_of_features(length):
    (x, y), (queries, truth) = blobs(60, spread=2.0), blobs(40, spread=2.0, seed=1)
    usual = evaluate.retrieval(identity, (x, y), (queries, truth))
    scaled = (length * x).astype(np.float32), (length * queries).astype(np.float32)
    assert evaluate.retrieval(identity, (scaled[0], y), (scaled[1], truth)) == usual


@pytest.mark.parametrize(
    "size, channels, grid", [(55, 96, 10), (27, 256, 6), (13, 384, 5), (13, 256, 6)]
)
def test_the_alexnet_tables_grids_come_out_of_9600_dimensions(size, channels, grid):
    pooled = adaptive_average(tf.zeros([1, size, size, channels]), 9600)
    assert pooled.shape == (1, grid * grid * channels)


ALEXNET = [(55, 96, 10), (27, 256, 6), (13, 384, 5), (13, 256, 6)]
DENSER = [(109, 96, 10), (54, 256, 6), (26, 384, 5), (26, 256, 6)]
RESNET = [(112, 64, 12), (56, 256, 6), (28, 512, 4), (14, 1024, 3), (7, 2048, 2)]
TABLES = {"fair": [*ALEXNET, *DENSER, *RESNET], "deepcluster": ALEXNET}


@pytest.mark.parametrize("pooling", list(TABLES))
def test_published_kernels_give_the_tables_grids(pooling):
    for size, channels, grid in TABLES[pooling]:
        x = tf.zeros([1, size, size, channels])
        assert pooled(x, 9600, pooling).shape == (1, grid * grid * channels), (size, channels)
        assert pooled(x, 9600, "adaptive").shape == (1, grid * grid * channels), (size, channels)


def test_a_published_kernel_averages_windows_and_counts_padded_zeros():
    x = np.random.default_rng(0).normal(size=(1, 55, 55, 96)).astype(np.float32)
    wide = np.pad(x, [(0, 0), (3, 3), (3, 3), (0, 0)])
    slow = [
        wide[0, 6 * i : 6 * i + 6, 6 * j : 6 * j + 6].mean((0, 1))
        for i in range(10)
        for j in range(10)
    ]
    found = pooled(x, 9600, "deepcluster")[0]
    np.testing.assert_allclose(found, np.concatenate(slow), atol=1e-5)
    slow = [
        x[0, 4 * i : 4 * i + 19, 4 * j : 4 * j + 19].mean((0, 1))
        for i in range(10)
        for j in range(10)
    ]
    np.testing.assert_allclose(pooled(x, 9600, "fair")[0], np.concatenate(slow), atol=1e-5)


def test_our_alexnets_taps_have_the_tables_sizes():
    """With our padding the maps are a pixel wider than the tables', the grids equal."""
    from tfssl import encoders

    taps = encoders.representation(encoders.get("alexnet", size=224))(tf.zeros([1, 224, 224, 3]))
    sizes = [pooled(taps[f"c{i}"], 9600, "fair").shape[1] for i in range(1, 6)]
    assert sizes == [9600, 9216, 9600, 9600, 9216]


def test_the_tables_probes_learn_and_repeat_with_their_seed():
    train, test = blobs(300, spread=0.3), blobs(200, spread=0.3, seed=1)

    class Tapped:
        """A map whose c2 tells the class and whose c1 tells nothing."""

        def __call__(self, x):
            return x

        def representation(self, x):
            return {"c2": x[:, None, None], "c1": 0 * x[:, None, None]}

    first, again = (
        evaluate.layers_sgd(Tapped(), train, test, iterations=150, batch_size=64) for _ in range(2)
    )
    assert first == again
    assert first["c2_top1"] > 0.95 and first["c1_top1"] < 0.5
    assert [k for k in first if k.endswith("_top1")] == ["c1_top1", "c2_top1"]
    with pytest.raises(BadInput, match="pooling is one of"):
        evaluate.layers_sgd(Tapped(), train, test, pooling="max")


def test_a_transformers_patches_are_pooled_as_they_lie_in_the_picture():
    from tfssl import encoders
    from tfssl.evaluate.layers import as_map, tap_features

    tokens = np.arange(2 * 25 * 3, dtype=np.float32).reshape(2, 25, 3)
    found = as_map(tf.constant(tokens), tf.zeros([2, 16, 24, 3])).numpy()  # 4 x 6 and a class token
    np.testing.assert_array_equal(found, tokens[:, 1:].reshape(2, 4, 6, 3))
    for other in (tf.zeros([2, 8000]), {"frame": tf.zeros([2, 8, 8, 3])}):  # sounds, two inputs
        np.testing.assert_array_equal(as_map(tf.constant(tokens), other), tokens)
    encoder = encoders.get("vit_mini", size=32)
    images = np.random.default_rng(0).random((3, 32, 32, 3)).astype(np.float32)
    for dimensions, grid in ((9600, 8), (1024, 2)):
        taps, _ = tap_features(encoder, images, dimensions)
        assert {part.shape[1] for part in taps.values()} == {grid * grid * 128}


def test_adaptive_average_equals_a_slow_loop():
    x = np.random.default_rng(0).normal(size=(2, 13, 7, 3)).astype(np.float32)
    slow = np.zeros((2, 5, 5, 3))
    for i in range(5):
        for j in range(5):
            rows = slice(i * 13 // 5, -(-(i + 1) * 13 // 5))
            columns = slice(j * 7 // 5, -(-(j + 1) * 7 // 5))
            slow[:, i, j] = x[:, rows, columns].mean(axis=(1, 2))
    np.testing.assert_allclose(adaptive_average(x, 75), slow.reshape(2, -1), rtol=1e-4, atol=1e-6)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    generator = np.random.default_rng(0)
    covered = []
    for trial in range(300):
        low, high = bootstrap.interval(generator.random(200) < 0.7, seed=trial)
        covered.append(low <= 0.7 <= high)
    assert 0.91 <= np.mean(covered) <= 0.985


def test_right_and_wrong_need_no_loop_to_be_resampled():
    right = np.arange(150) < 100
    np.testing.assert_allclose(
        bootstrap.interval(right), bootstrap.interval(right.astype(float)), atol=0.012
    )


def test_same_seed_gives_the_same_interval():
    values = np.random.default_rng(0).random(50)
    assert bootstrap.interval(values, seed=3) == bootstrap.interval(values, seed=3)
    assert bootstrap.interval(values, seed=3) != bootstrap.interval(values, seed=4)


@pytest.mark.parametrize("name", list(evaluate.PROTOCOLS))
def test_every_protocol_measures_digits_above_chance(name, tiny, digits):
    before = tiny.get_weights()
    result = evaluate.PROTOCOLS[name](tiny, *digits, seed=0, **FAST.get(name, {}))
    json.dumps(result, allow_nan=False)
    main = {"layers": "c2_top1", "layers_sgd": "c2_top1", "retrieval": "R@1"}.get(name, "top1")
    assert result[f"{main}_low"] <= result[main] <= result[f"{main}_high"]
    assert 0.15 < result[main] <= 1
    assert result["test_examples"] == 300 and result["classes"] == 10
    for old, new in zip(before, tiny.get_weights()):
        np.testing.assert_array_equal(old, new)


def test_results_name_the_settings_that_made_them(tiny, digits):
    train, test = digits
    few = dict(penalties=[0.1], iterations=7)
    for name in ("linear", "layers", "low_label"):
        result = evaluate.PROTOCOLS[name](tiny, train, test, **few)
        assert (result["iterations"], result["C_from"]) == (7, "given"), name
    result = evaluate.layers_sgd(tiny, train, test, iterations=2, nesterov=True)
    assert result["nesterov"] is True and result["iterations"] == 2


def test_the_support_vector_machines_are_solved_in_the_dual(machines):
    evaluate.svm(identity, blobs(80), blobs(50), penalties=[0.1, 1.0])
    assert len(machines) == 2 * 3 + 1
    for settings in machines:
        assert settings["dual"] is True and settings["loss"] == "squared_hinge"
        assert settings["tol"] == 1e-4 and settings["max_iter"] == 2000


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("counts", [(1, 1), (1, 30), (1, 1, 1)])
def test_a_machine_whose_folds_would_lose_all_classes_but_one_takes_the_default(counts):
    x, y = blobs(200, classes=len(counts), spread=0.2)
    some = np.concatenate([np.flatnonzero(y == c)[:count] for c, count in enumerate(counts)])
    result = evaluate.svm(identity, (x[some], y[some]), (x, y))
    assert (result["C"], result["folds"]) == (1.0, 0) and result["top1"] > 0.9


@pytest.mark.filterwarnings("error")
def test_a_machine_is_chosen_by_two_folds_where_one_of_its_classes_has_a_single_example():
    x, y = blobs(200, spread=0.5)
    some = (y < 3) | (np.arange(200) == np.argmax(y == 3))
    chosen = evaluate.svm(identity, (x[some], y[some]), (x, y))
    each = [evaluate.svm(identity, (x[some], y[some]), (x, y), [c]) for c in (1e-3, 1.0)]
    assert chosen["folds"] == 2 and [found["folds"] for found in each] == [0, 0]
    assert chosen["top1"] >= each[0]["top1"] and chosen["top1"] > 0.7


@pytest.mark.parametrize("name", ["knn", "linear", "linear_sgd", "svm"])
def test_permuted_labels_give_chance(name):
    x, y = blobs(400, seed=3)
    queries, truth = blobs(400, seed=4)
    generator = np.random.default_rng(0)
    result = evaluate.PROTOCOLS[name](
        identity, (x, generator.permutation(y)), (queries, generator.permutation(truth))
    )
    # Four classes; three standard errors of 400 examples.
    assert abs(result["top1"] - 0.25) < 3 * np.sqrt(0.25 * 0.75 / 400)


@pytest.mark.parametrize("name", ["knn", "linear", "linear_sgd", "svm"])
def test_separable_features_are_separated(name):
    train, test = blobs(300, spread=0.1), blobs(200, spread=0.1, seed=1)
    assert evaluate.PROTOCOLS[name](identity, train, test)["top1"] == 1


@pytest.mark.parametrize("name", ["linear", "svm", "linear_sgd"])
def test_two_classes_are_enough(name):
    train, test = blobs(100, classes=2, spread=0.2), blobs(60, classes=2, spread=0.2, seed=1)
    assert evaluate.PROTOCOLS[name](identity, train, test)["top1"] == 1


def test_linear_chooses_a_penalty_about_as_good_as_the_best():
    """Three hundred useless dimensions: too strong a penalty leaves nothing but the majority."""
    generator = np.random.default_rng(0)

    def noisy(count, seed):
        x, y = blobs(count, spread=0.6, seed=seed)
        return np.concatenate([x, generator.normal(size=(count, 300))], axis=1), y

    train, test = noisy(300, 0), noisy(500, 1)
    grid = evaluate.linear.__globals__["PENALTIES"]
    each = [evaluate.linear(identity, train, test, penalties=[c])["top1"] for c in grid]
    chosen = evaluate.linear(identity, train, test)["top1"]
    assert chosen in each
    assert chosen >= max(each) - 0.05 and chosen >= min(each) + 0.2


def test_linear_does_not_care_for_scale_and_constant_dimensions():
    (x, y), (queries, truth) = blobs(150), blobs(100, seed=1)

    def rescaled(part):
        return np.concatenate([part * [1, 1e3, 1e-3, 5, 1, 1], np.full((len(part), 2), 7)], axis=1)

    plain = evaluate.linear(identity, (x, y), (queries, truth))
    assert evaluate.linear(identity, (rescaled(x), y), (rescaled(queries), truth))[
        "top1"
    ] == pytest.approx(plain["top1"], abs=0.011)


def test_the_sgd_probe_gives_the_same_with_and_without_a_cache():
    train, test = blobs(200), blobs(100, seed=1)
    results = [
        evaluate.linear_sgd(identity, train, test, epochs=10, batch_size=32, cache=cache)
        for cache in (True, False, False)
    ]
    assert results[1] == results[2]
    assert results[0].keys() == results[1].keys()
    assert results[0]["top1"] == pytest.approx(results[1]["top1"], abs=0.03) and (
        results[0]["top1"] > 0.7
    )


class Tapped:
    """Vectors as a tap, so that they can be probed layer by layer."""

    def __call__(self, x):
        return x

    def representation(self, x):
        return {"c1": x[:, None, None]}


def vector_model():
    inputs = keras.Input((6,))
    return keras.Model(inputs, keras.layers.Dense(16, "relu")(inputs))


def small_memory(monkeypatch):
    import sys

    monkeypatch.setattr(sys.modules["tfssl.evaluate.layers_sgd"], "_MEMORY", 4 * 6 * 8)


# Every protocol that trains on batches of examples, in memory and streamed: (train, test) -> top1.
# Few passes, small batches and buffers: examples in the order of their classes would spoil these.
SGD = dict(epochs=3, batch_size=8, learning_rate=2.0)
TAPS = dict(iterations=150, batch_size=8, learning_rate=0.1)
TUNING = dict(epochs=2, least_steps=1, batch_size=8, learning_rate=0.02)
BY_BATCHES = {
    "linear_sgd": lambda *data: evaluate.linear_sgd(identity, *data, **SGD)["top1"],
    "linear_sgd, streamed": lambda *data: evaluate.linear_sgd(
        identity, *data, cache=False, buffer=8, **SGD
    )["top1"],
    "layers_sgd": lambda *data: evaluate.layers_sgd(Tapped(), *data, **TAPS)["c1_top1"],
    "layers_sgd, streamed": lambda *data: evaluate.layers_sgd(Tapped(), *data, **TAPS)["c1_top1"],
    "finetune": lambda *data: evaluate.finetune(vector_model(), *data, **TUNING)["top1"],
}


@pytest.mark.parametrize("name", list(BY_BATCHES))
def test_a_data_set_that_is_shuffled_anew_on_each_pass_keeps_its_labels(name, monkeypatch):
    (x, y), test = blobs(320, spread=0.5), blobs(200, spread=0.5, seed=1)
    if "streamed" in name:
        small_memory(monkeypatch)
    names = np.array(["ant", "bee", "cat", "dog"])
    rows = tf.data.Dataset.from_tensor_slices((x, names[y])).shuffle(320, seed=0)
    keras.utils.set_random_seed(0)
    still = BY_BATCHES[name]((x, names[y]), (test[0], names[test[1]]))
    queries = tf.data.Dataset.from_tensor_slices((test[0], names[test[1]])).shuffle(200, seed=0)
    assert still > 0.9
    for moving in (rows, rows.batch(50)):
        assert BY_BATCHES[name](moving, queries) == pytest.approx(still, abs=0.03)


@pytest.mark.parametrize("name", list(BY_BATCHES))
def test_data_in_the_order_of_its_classes_are_learnt_as_well_as_mixed_ones(name, monkeypatch):
    (x, y), test = blobs(320, spread=0.5), blobs(200, spread=0.5, seed=1)
    if "streamed" in name:
        small_memory(monkeypatch)
    keras.utils.set_random_seed(0)
    by_class = np.argsort(y, kind="stable")
    mixed = BY_BATCHES[name]((x, y), test)
    columns = {"inputs": x[by_class], "label": y[by_class]}
    readable = tf.data.Dataset.from_tensor_slices(columns)
    readable.gather = lambda at: {k: tf.gather(v, at) for k, v in columns.items()}
    forms = [(x[by_class], y[by_class]), columns, readable]
    if "streamed" not in name:
        forms.append(tf.data.Dataset.from_tensor_slices(columns).batch(50))
    for form in forms:
        assert BY_BATCHES[name](form, test) == pytest.approx(mixed, abs=0.03)


def test_what_can_be_read_anywhere_is_read_whole_and_never_twice_in_one_order():
    from tfssl.evaluate.order import permuted
    from tfssl.pipelines.batching import evaluation

    sizes = [np.full((2 + i % 3, 4, 3), i, np.uint8) for i in range(9)]
    ragged = tf.data.Dataset.from_generator(
        lambda: iter(sizes), output_signature=tf.TensorSpec([None, 4, 3], tf.uint8)
    ).apply(tf.data.experimental.assert_cardinality(9))
    ragged = ragged.map(lambda x: {"image": x})
    ragged.gather = lambda at: {
        "image": tf.ensure_shape(
            tf.numpy_function(lambda i: sizes[i[0]][None], [at], tf.uint8), [None, None, 4, 3]
        )
    }
    numbers = np.arange(9)
    alike = tf.data.Dataset.from_tensor_slices({"label": numbers})
    alike.gather = lambda at: {"label": tf.gather(numbers, at)}

    def pixels(form):
        return [round(255 * float(image[0, 0, 0])) for e in form for image in e["image"]]

    forms = {
        "batches": (evaluation(alike, 4), lambda form: [n for e in form for n in e["label"]]),
        "ragged batches": (evaluation(ragged, 4), pixels),
        "pairs": ((sizes, list(range(9))), lambda form: form[1]),
        "dict": ({"inputs": tf.range(9)}, lambda form: form["inputs"].tolist()),
        "ragged": (ragged, lambda form: [int(e["image"][0, 0, 0]) for e in form]),
    }
    for name, (form, values) in forms.items():
        generator = np.random.default_rng(0)
        first, second = ([int(v) for v in values(permuted(form, generator))] for _ in range(2))
        assert sorted(first) == sorted(second) == list(range(9)), name
        assert first != second and first != list(range(9)), name
    inputs, numbers = permuted((sizes, np.arange(9)), np.random.default_rng(0))
    assert [picture[0, 0, 0] for picture in inputs] == numbers.tolist()


def test_a_training_set_that_changes_between_passes_is_refused():
    x, y = blobs(100)
    passes = iter([y, np.where(y == 0, 7, y)])

    def rows():
        yield from zip(x, next(passes))

    data = tf.data.Dataset.from_generator(
        rows, output_signature=(tf.TensorSpec([6]), tf.TensorSpec([], tf.int64))
    )
    with pytest.raises(BadInput, match="the label 7 was not there"):
        evaluate.finetune(vector_model(), data, blobs(20))


def test_layers_probes_every_tap_of_a_resnet(digits):
    from tfssl import encoders

    encoder = encoders.get("resnet9", size=32)
    (images, labels), _ = digits
    images = tf.cast(tf.image.resize(images[:60], [32, 32]), tf.uint8).numpy()
    result = evaluate.layers(
        encoder, (images[:40], labels[:40]), (images[40:], labels[40:60]), penalties=[0.1]
    )
    taps = [name.removesuffix("_top1") for name in result if name.endswith("_top1")]
    assert taps == encoders.tap_names(encoder) and len(taps) == result["taps"] >= 4
    assert all(result[f"{tap}_dimensions"] <= 1024 for tap in taps)


def test_a_saved_model_measures_like_the_live_one(tiny, digits, tmp_path):
    import tfssl

    tfssl.export(tiny, tmp_path / "encoder")
    plain, layer = tf.saved_model.load(str(tmp_path / "encoder")), tfssl.load(tmp_path / "encoder")
    train, test = digits
    live = features.extract(tiny, test).features
    for loaded in (plain, layer):
        np.testing.assert_allclose(features.extract(loaded, test).features, live, atol=1e-5)
        assert evaluate.knn(loaded, train, test) == evaluate.knn(tiny, train, test)
    probes = evaluate.layers(plain, train, test, penalties=[0.1], iterations=20)
    assert probes["taps"] == 2 and "c1_top1" in probes and "c2_top1" in probes


class Foreign(tf.Module):
    """Somebody's encoder: a mean colour, projected, with a signature of its own precision."""

    def __init__(self, dtype=tf.float32):
        super().__init__()
        self.kernel = tf.Variable(tf.cast(tf.random.stateless_normal([3, 8], [0, 1]), dtype))
        spec = tf.TensorSpec([None, None, None, 3], dtype)
        self.given = tf.function(self.project, input_signature=[spec])

    def project(self, images):
        return tf.matmul(tf.reduce_mean(images, [1, 2]), self.kernel)


class Narrow(Foreign):
    """Called in Python it takes the one size that it was called with."""

    @tf.function
    def __call__(self, images):
        return self.project(images)


@pytest.mark.parametrize("kind", ["float16", "float32", "float64", "narrow"])
def test_anybodys_saved_model_is_called_as_its_signature_says(kind, tmp_path):
    import tfssl

    module = Narrow() if kind == "narrow" else Foreign(getattr(tf, kind))
    if kind == "narrow":
        module(tf.zeros([1, 9, 9, 3]))
    tf.saved_model.save(module, str(tmp_path), signatures=module.given)
    images = np.random.default_rng(0).random((5, 12, 16, 3)).astype(np.float32)
    expected = images.mean((1, 2)) @ module.kernel.numpy().astype(np.float32)
    for loaded in (tf.saved_model.load(str(tmp_path)), tfssl.load(tmp_path)):
        found = features.extract(loaded, images).features
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=0.01 if kind == "float16" else 1e-5)


def test_a_reusable_saved_model_that_knows_no_mode_is_fine_tuned(digits, tmp_path):
    reusable = tf.__internal__.tracking.AutoTrackable()
    kernel = reusable.kernel = tf.Variable(tf.random.stateless_normal([192, 8], [0, 1]))
    reusable.variables = reusable.trainable_variables = [kernel]
    reusable.regularization_losses = []
    reusable.__call__ = tf.function(
        lambda x: tf.matmul(tf.reshape(x, [-1, 192]), kernel),
        input_signature=[tf.TensorSpec([None, 8, 8, 3])],
    )
    tf.saved_model.save(reusable, str(tmp_path))
    loaded = tf.saved_model.load(str(tmp_path))
    settings = dict(epochs=1, learning_rate=0.01)
    still = evaluate.finetune(loaded, *digits, **{**settings, "least_steps": 1})
    moved = evaluate.finetune(loaded, *digits, **{**settings, "least_steps": 60})
    assert moved["top1"] > still["top1"] + 0.1
    np.testing.assert_array_equal(loaded.kernel, kernel)


def test_fine_tuning_a_loaded_model_trains_it_and_puts_it_back(tiny, digits, tmp_path):
    import tfssl

    tfssl.export(tiny, tmp_path / "encoder")
    train, test = digits
    for loaded in (
        tf.saved_model.load(str(tmp_path / "encoder")),
        tfssl.load(tmp_path / "encoder"),
    ):
        before = features.extract(loaded, test).features
        still = evaluate.finetune(loaded, train, test, epochs=1, least_steps=1, learning_rate=0.0)
        moved = evaluate.finetune(loaded, train, test, epochs=1, least_steps=60)
        assert moved["top1"] > still["top1"] + 0.1
        np.testing.assert_array_equal(features.extract(loaded, test).features, before)


def test_fine_tuning_repeats_with_its_seed_and_leaves_others_random_numbers(tiny, digits):
    import random

    train, test = digits
    settings = dict(labels=0.1, epochs=1, least_steps=5)
    random.seed(5)
    first = evaluate.finetune(tiny, train, test, **settings)
    following = random.random()
    random.seed(5)
    assert following == random.random()
    assert evaluate.finetune(tiny, train, test, **settings) == first
    assert first["train_examples"] == 60 and first["labels"] == 0.1


def test_a_model_that_cannot_be_copied_is_put_back_after_fine_tuning(digits):
    class Own(keras.Model):
        def __init__(self, width, note):
            super().__init__()
            self.convolution = keras.layers.Conv2D(width, 3)
            self.note = note

        def call(self, x):
            return keras.ops.mean(keras.ops.relu(self.convolution(x)), axis=(1, 2))

    model = Own(8, object())
    train, test = digits
    before = features.extract(model, test).features
    result = evaluate.finetune(model, train, test, epochs=1, least_steps=3)
    assert 0 <= result["top1"] <= 1
    np.testing.assert_array_equal(features.extract(model, test).features, before)
    with pytest.raises(BadInput, match="built again"):
        evaluate.random_encoder(model)
    model.get_config = dict  # says nothing of the width
    with pytest.raises(BadInput, match="built again"):
        evaluate.random_encoder(model)


def test_sounds_of_several_lengths_are_fine_tuned_on():
    """High and low tones; the network takes any length."""
    random = np.random.default_rng(0)

    def tones(count):
        for i in range(count):
            time = np.arange(random.integers(60, 100)) / 100
            wave = np.sin(2 * np.pi * (5 + 30 * (i % 2)) * time + random.uniform(0, 6))
            yield {"audio": wave.astype("float32"), "label": np.int64(i % 2)}

    def dataset(count):
        examples = list(tones(count))
        kinds = {
            "audio": tf.TensorSpec([None], tf.float32),
            "label": tf.TensorSpec([], tf.int64),
        }
        return tf.data.Dataset.from_generator(lambda: iter(examples), output_signature=kinds)

    keras.utils.set_random_seed(0)
    sound = keras.Input((None,))
    x = keras.layers.Reshape((-1, 1))(sound)
    x = keras.layers.Conv1D(8, 9, activation="relu")(x)
    ear = keras.Model(sound, keras.layers.GlobalMaxPooling1D()(x))
    result = evaluate.finetune(ear, dataset(60), dataset(30), epochs=5, learning_rate=0.01)
    assert result["top1"] > 0.9 and result["train_examples"] == 60


def partly_frozen():
    """A functional model with a frozen layer and, inside, a frozen model with batch norm."""
    keras.utils.set_random_seed(0)
    inside = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(5, "relu"), keras.layers.BatchNormalization()]
    )
    inside.trainable = False
    inputs = keras.Input((6,))
    x = keras.layers.Dense(4, "relu", name="frozen", trainable=False)(inputs)
    return keras.Model(inputs, keras.layers.Dense(8, "relu", name="free")(inside(x)))


class Uncopied(keras.Model):
    """A model around another that Keras cannot build again."""

    def __init__(self, inside, note):
        super().__init__()
        self.inside, self.note = inside, note

    def call(self, x):
        return self.inside(x)


@pytest.mark.parametrize("kind", ["copied", "in place", "from a file"])
def test_fine_tuning_trains_what_is_frozen_and_puts_flags_and_weights_back(
    kind, tmp_path, monkeypatch
):
    import sys

    model = partly_frozen()
    if kind == "from a file":
        model.save(tmp_path / "model.keras")
        model = keras.models.load_model(tmp_path / "model.keras")
    elif kind == "in place":
        model = Uncopied(model, object())
        model.inside.get_layer("free").bias.trainable = False
    flags = [layer.trainable for layer in model._flatten_layers()]
    weights = [w.trainable for w in model.weights]
    before = model.get_weights()
    assert not all(flags) and not all(weights)
    seen = {}
    module = sys.modules["tfssl.evaluate.finetune"]
    build = module._with_head

    def watched(network, *rest):
        seen["network"], seen["start"] = network, network.get_weights()
        seen["model"] = build(network, *rest)
        return seen["model"]

    moved = []
    monkeypatch.setattr(module, "_with_head", watched)
    extract = module.features.extract

    def after(encoder, *data, **reading):
        moved.extend(
            not np.array_equal(old, new)
            for old, new in zip(seen["start"], seen["network"].get_weights())
        )
        assert all(layer.trainable for layer in seen["network"]._flatten_layers())
        return extract(encoder, *data, **reading)

    monkeypatch.setattr(module.features, "extract", after)
    evaluate.finetune(model, blobs(200, spread=0.5), blobs(50), epochs=1, least_steps=40)
    names = [w.path.split("/")[-1] for w in model.weights]
    still = [name for name, has_moved in zip(names, moved) if not has_moved]
    # A single weight that is frozen where its layer is not stays so where nothing is copied.
    assert still == (["bias"] if kind == "in place" else [])
    assert [layer.trainable for layer in model._flatten_layers()] == flags
    assert [w.trainable for w in model.weights] == weights
    for old, new in zip(before, model.get_weights()):
        np.testing.assert_array_equal(old, new)


def test_the_baseline_from_scratch_trains_what_the_encoder_had_frozen(monkeypatch):
    import sys

    module = sys.modules["tfssl.evaluate.finetune"]
    trained = []
    build = module._with_head

    def watched(network, *rest):
        model = build(network, *rest)
        trained.append((len(network.trainable_weights), len(network.weights)))
        return model

    monkeypatch.setattr(module, "_with_head", watched)
    encoder = partly_frozen()
    flags = [layer.trainable for layer in encoder._flatten_layers()]
    evaluate.supervised(encoder, blobs(100), blobs(50), epochs=1, least_steps=2)
    assert trained == [(8, 10)]  # all but the batch norm's two moving statistics
    assert [layer.trainable for layer in encoder._flatten_layers()] == flags


def test_fine_tuning_is_the_same_whether_layers_were_frozen_or_not():
    """Batch norm that a freeze keeps in inference mode included."""
    encoder, data = partly_frozen(), (blobs(150), blobs(80, seed=1))
    frozen = evaluate.finetune(encoder, *data, epochs=1, least_steps=30)
    for layer in encoder._flatten_layers():
        layer.trainable = True
    assert evaluate.finetune(encoder, *data, epochs=1, least_steps=30) == frozen


def test_draws_are_balanced_and_nested():
    y = np.repeat([0, 1, 2], [500, 300, 200])
    for share, each in ((0.01, 3), (0.1, 33), (0.0001, 1)):
        np.testing.assert_array_equal(np.bincount(y[balanced(y, share)]), [each] * 3)
    assert set(balanced(y, 0.01)) < set(balanced(y, 0.1))
    np.testing.assert_array_equal(balanced(y, 1.0), np.arange(1000))
    np.testing.assert_array_equal(np.bincount(y[balanced(y, 0.9)]), [300, 300, 200])
    for share in (0, 1.5):
        with pytest.raises(BadInput, match="share"):
            balanced(y, share)


def test_the_random_encoder_has_the_architecture_and_none_of_the_weights(tiny):
    first, again, other = (evaluate.random_encoder(tiny, seed) for seed in (0, 0, 1))
    assert [w.shape for w in first.weights] == [w.shape for w in tiny.weights]
    np.testing.assert_array_equal(first.get_weights()[0], again.get_weights()[0])
    assert not np.array_equal(first.get_weights()[0], other.get_weights()[0])
    assert not np.array_equal(first.get_weights()[0], tiny.get_weights()[0])
    np.testing.assert_array_equal(first.layers[2].moving_mean, np.zeros(16))


def adapted():
    normalise = keras.layers.Normalization()
    normalise.adapt(np.random.default_rng(0).normal(0.7, 0.1, (64, 8, 8, 3)))
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3)(normalise(inputs))
    return keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x))


def test_input_statistics_that_were_adapted_belong_to_every_copy_of_a_model():
    model, x = adapted(), np.random.default_rng(1).random((5, 8, 8, 3), np.float32)
    with trainable_copy(model) as copy:
        np.testing.assert_allclose(copy(x), model(x), atol=1e-5)
    untrained = evaluate.random_encoder(model)
    np.testing.assert_allclose(untrained.layers[1](x), model.layers[1](x), atol=1e-5)
    assert not np.array_equal(untrained.layers[2].kernel, model.layers[2].kernel)


def test_a_model_that_rescales_bytes_is_measured_on_the_unit_range_as_others_are(digits):
    image = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(8, 3, name="c1")(keras.layers.Rescaling(1 / 255)(image))
    model = keras.Model(image, keras.layers.GlobalAveragePooling2D()(x))
    pixels = digits[0][0][:20]
    expected = model(pixels.astype(np.float32))
    np.testing.assert_allclose(features.extract(model, pixels).features, expected, atol=1e-5)
    with trainable_copy(model) as copy:
        np.testing.assert_allclose(features.extract(copy, pixels).features, expected, atol=1e-5)


def test_the_random_baseline_holds_the_same_protocols(tiny, digits):
    found = evaluate.random(tiny, *digits, {"knn": evaluate.knn, "retrieval": evaluate.retrieval})
    assert set(found) == {"knn", "retrieval"}
    assert found["knn"] == evaluate.knn(evaluate.random_encoder(tiny), *digits)


def test_every_form_of_the_same_examples_gives_the_same_features(tiny, digits):
    (images, labels), _ = digits
    images, labels = images[:70], labels[:70]
    expected = tiny(images / np.float32(255), training=False).numpy()
    rows = tf.data.Dataset.from_tensor_slices(
        {"image": images, "label": labels, "index": np.arange(70), "depth": np.zeros((70, 8, 8))}
    )
    as_floats = rows.map(lambda e: {**e, "image": tf.cast(e["image"], tf.float32) / 255})
    no_index = rows.map(lambda e: {"image": e["image"], "label": e["label"]})
    forms = {
        "arrays": (images, labels),
        "inputs": images,
        "unbatched": rows,
        "batched": rows.batch(16),
        "floats": as_floats.batch(16),
        "without index": no_index,
        "without index, batched": no_index.batch(16),
        "pairs": tf.data.Dataset.from_tensor_slices((images, labels)),
        "pairs, batched": tf.data.Dataset.from_tensor_slices((images, labels)).batch(16),
        "dict": {"image": images, "label": labels},
    }
    for name, form in forms.items():
        found = features.extract(tiny, form, batch_size=32)
        np.testing.assert_allclose(found.features, expected, atol=1e-5, err_msg=name)
        if name != "inputs":
            np.testing.assert_array_equal(found.labels, labels, err_msg=name)


def test_pictures_of_several_sizes_keep_their_order(tiny):
    generator = np.random.default_rng(0)
    images = [generator.integers(0, 256, (8 + i % 3, 9 + i % 2, 3), np.uint8) for i in range(50)]
    expected = np.concatenate([tiny(x[None] / np.float32(255)) for x in images])
    found = features.extract(tiny, (images, np.arange(50)), batch_size=4)
    np.testing.assert_allclose(found.features, expected, atol=1e-5)
    np.testing.assert_array_equal(found.labels, np.arange(50))


def test_grey_pictures_are_made_colour_whatever_is_known_of_their_sizes(tiny):
    generator = np.random.default_rng(0)
    colours = [generator.integers(0, 256, (8 + i % 3, 9, 3), np.uint8) for i in range(6)]
    grey = [image[..., :1] for image in colours]
    mixed = [(image if i % 2 else image[..., :1]) for i, image in enumerate(colours)]
    for pictures in (grey, mixed, grey[:1]):
        rows = tf.data.Dataset.from_generator(
            lambda pictures=pictures: ({"image": image} for image in pictures),
            output_signature={"image": tf.TensorSpec([None, None, None], tf.uint8)},
        )
        as_one = [np.broadcast_to(image, [*image.shape[:2], 3]) for image in pictures]
        expected = np.concatenate([tiny(image[None] / np.float32(255)) for image in as_one])
        for form in (pictures, rows):
            np.testing.assert_allclose(features.extract(tiny, form).features, expected, atol=1e-5)
    with pytest.raises(BadInput, match="takes 3 channels"):
        features.extract(tiny, [np.zeros((8 + i, 9, 4), np.uint8) for i in range(2)])


def test_a_list_of_pictures_of_several_sizes_is_fine_tuned_at_one_size(tiny):
    generator = np.random.default_rng(0)
    images = [generator.integers(0, 256, (8 + i % 3, 9, 3), np.uint8) for i in range(20)]
    data = images, np.arange(20) % 2
    assert evaluate.finetune(tiny, data, data, size=8, epochs=1, least_steps=1)["classes"] == 2


def test_taps_of_pictures_of_several_sizes_are_refused_with_what_to_do(tiny):
    generator = np.random.default_rng(0)

    def squares(*sides):
        images = [generator.random((side, side, 3), np.float32) for side in sides]
        return images, np.arange(len(sides)) % 2

    one, other, several = squares(12, 12, 12, 12), squares(9, 9, 9, 9), squares(9, 9, 12, 12)
    few = dict(dimensions=9600, pooling="fair")
    for train, test in ((several, one), (one, several), (one, other)):
        with pytest.raises(BadInput, match="state size="):
            evaluate.layers(tiny, train, test, penalties=[0.1], **few)
        with pytest.raises(BadInput, match="state size="):
            evaluate.layers_sgd(tiny, train, test, iterations=1, **few)
    result = evaluate.layers(tiny, several, other, penalties=[0.1], size=9, **few)
    assert result["c1_dimensions"] == 7 * 7 * 16


def test_pictures_are_brought_to_the_encoders_fixed_size():
    inputs = keras.Input((6, 6, 3))
    encoder = keras.Model(inputs, keras.layers.Flatten()(inputs))
    images = [np.full((20, 12, 3), 51, np.uint8), np.full((7, 31, 3), 102, np.uint8)]
    found = features.extract(encoder, images)
    assert found.features.shape == (2, 108)
    np.testing.assert_allclose(found.features[:, 0], [0.2, 0.4], atol=1e-6)


def test_the_encoder_chooses_what_it_reads():
    data = tf.data.Dataset.from_tensors(
        {"image": np.ones((8, 8, 3), np.uint8), "audio": np.full(32, 0.5, np.float32)}
    )
    listening = keras.Sequential([keras.Input((None,)), keras.layers.Lambda(lambda x: x[:, :4])])
    np.testing.assert_array_equal(features.extract(listening, data).features, np.full((1, 4), 0.5))
    with pytest.raises(BadInput, match="frames"):
        watching = keras.Sequential([keras.Input((4, 8, 8, 3)), keras.layers.Flatten()])
        features.extract(watching, data)


def test_labels_may_be_strings_negative_numbers_or_one_hot():
    (x, y), (queries, truth) = blobs(100), blobs(50, seed=1)
    plain = evaluate.knn(identity, (x, y), (queries, truth))
    names = np.array(["ant", "bee", "cat", "dog"])
    for code in (lambda c: names[c], lambda c: 7 * c - 9, lambda c: np.eye(4)[c]):
        assert evaluate.knn(identity, (x, code(y)), (queries, code(truth))) == plain
    strings = tf.data.Dataset.from_tensor_slices((x, names[y]))
    assert evaluate.knn(identity, strings, (queries, names[truth])) == plain


@pytest.mark.parametrize("name", list(BY_BATCHES))
def test_labels_of_bytes_are_those_of_strings(name, monkeypatch):
    (x, y), (queries, truth) = blobs(320, spread=0.5), blobs(200, spread=0.5, seed=1)
    if "streamed" in name:
        small_memory(monkeypatch)
    names = np.array([b"ant", b"bee", b"cat", b"dog"])
    assert names.dtype.kind == "S"
    keras.utils.set_random_seed(0)
    assert BY_BATCHES[name]((x, names[y]), (queries, names[truth])) > 0.9


def test_a_label_that_is_not_a_number_is_refused_by_its_position():
    x, y = blobs(20)
    missing = y.astype(float)
    missing[[3, 7]] = np.nan
    for name in ("knn", "linear", "finetune"):
        with pytest.raises(BadInput, match="label of example number 3 is NaN"):
            evaluate.PROTOCOLS[name](identity, (x, missing), (x, y))
    with pytest.raises(BadInput, match="label of example number 7 is NaN"):
        evaluate.knn(identity, (x, y), (x, np.where(np.arange(20) == 7, np.nan, y)))


def test_labels_that_are_strings_on_one_side_only_are_refused():
    x, y = blobs(20)
    with pytest.raises(BadInput, match="strings"):
        evaluate.knn(identity, (x, y), (x, y.astype(str)))


def test_a_sequential_model_is_probed_layer_by_layer_even_where_it_was_called(digits):
    layers = keras.layers
    model = keras.Sequential([layers.Conv2D(4, 3, 2, name="c1"), layers.Conv2D(4, 3, 2, name="c2")])
    model(np.zeros([1, 32, 32, 3], np.float32))
    keras.Sequential([keras.Input((32, 32, 3)), model])
    result = evaluate.layers(model, *digits, penalties=(0.1,), dimensions=64)
    assert result["taps"] == 2 and result["c2_dimensions"] == 64


def test_fewer_examples_than_k_all_vote():
    (x, y), test = blobs(9), blobs(20, seed=1)
    assert evaluate.knn(identity, (x, y), test, k=200)["k"] == 9


@pytest.mark.parametrize("name", ["knn", "linear", "linear_sgd", "svm"])
def test_a_class_without_training_examples_is_always_wrong_and_counted(name):
    (x, y), (queries, truth) = blobs(200, spread=0.1), blobs(100, spread=0.1, seed=1)
    result = evaluate.PROTOCOLS[name](identity, (x[y < 3], y[y < 3]), (queries, truth))
    assert result["top1"] == pytest.approx(np.mean(truth < 3))
    assert result["unseen_classes"] == 1 and result["classes"] == 4


@pytest.mark.parametrize("name", list(evaluate.PROTOCOLS))
def test_sets_that_cannot_be_measured_are_refused_in_a_sentence(name, tiny, digits):
    (images, labels), test = digits
    bad = {
        "no labels": (tf.data.Dataset.from_tensor_slices({"image": images[:20]}), test),
        "no labels to test": ((images, labels), images[:20]),
        "one class": ((images[:20], np.zeros(20, int)), test),
        "empty": ((images[:0], labels[:0]), test),
    }
    for what, (train, queries) in bad.items():
        with pytest.raises(BadInput) as refusal:
            evaluate.PROTOCOLS[name](tiny, train, queries)
        assert 20 < len(str(refusal.value)) <= 600 and "\n" not in str(refusal.value), what


def test_features_that_are_not_numbers_are_refused(digits):
    (images, _), _ = digits

    def broken(x):
        rows = np.reshape(x, [len(x), -1]).copy()
        rows[3] = np.nan
        return rows

    with pytest.raises(BadInput, match=r"NaN or infinite features for 1 of 10 examples.*number 3"):
        features.extract(broken, images[:10])


@pytest.mark.parametrize("name", ["knn", "linear_sgd", "layers"])
def test_weights_that_are_not_numbers_are_refused_whatever_the_features(name, digits):
    """Compiled on a CPU, a convolution with its bias and a ReLU makes 0 of NaN."""
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(16, 3, activation="relu", name="c1")(inputs)
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x))
    model.layers[1].kernel.assign(np.full([3, 3, 3, 16], np.nan))
    with pytest.raises(BadInput, match=r"c1/kernel holds NaN .* weights have diverged"):
        evaluate.PROTOCOLS[name](model, *digits)


@pytest.mark.parametrize("name", ["knn", "linear", "linear_sgd", "svm", "retrieval", "transfer"])
def test_ready_made_features_that_are_not_numbers_are_refused_too(name):
    (x, y), (queries, truth) = blobs(40), blobs(20, seed=1)
    whole, test = (features.Features(*part, None, {}) for part in ((x, y), (queries, truth)))
    broken = x.copy()
    broken[3, 0] = np.nan
    broken = features.Features(broken, y, None, {})
    for data in ((broken, test), (whole, broken)):
        with pytest.raises(BadInput, match="NaN or infinite features for 1 of 40"):
            evaluate.PROTOCOLS[name](None, *data)


@pytest.mark.parametrize("memory", ["small", "large"])
def test_the_sgd_probes_refuse_what_is_no_number(memory, monkeypatch):
    if memory == "small":
        small_memory(monkeypatch)
    (x, y), test = blobs(64), blobs(20, seed=1)
    broken = x.copy()
    broken[5, 0] = np.nan
    few = dict(iterations=2, batch_size=8)
    with pytest.raises(BadInput, match="NaN or infinite features for 1 of 64"):
        evaluate.layers_sgd(Tapped(), (broken, y), test, **few)
    with pytest.raises(BadInput, match="NaN or infinite features for 1 of 64") as refusal:
        evaluate.linear_sgd(identity, (broken, y), test, cache=memory == "large")
    assert "\n" not in str(refusal.value)
    with pytest.raises(BadInput, match="learning_rate is too high"):
        evaluate.layers_sgd(Tapped(), (x, y), test, learning_rate=1e38, **few)


def test_features_computed_once_serve_every_protocol(tiny, digits):
    train, test = (features.extract(tiny, part) for part in digits)
    assert evaluate.knn(None, train, test) == evaluate.knn(tiny, *digits)


def test_a_compiled_encoder_is_freed_with_its_model(tiny):
    import gc
    import weakref

    model = keras.models.clone_model(tiny)
    features.extract(model, np.zeros((3, 8, 8, 3), np.uint8))
    alive = weakref.ref(model)
    del model
    gc.collect()
    assert alive() is None
