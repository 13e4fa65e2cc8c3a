"""Callbacks watch training and tell the truth about it, without touching it."""

import functools
import json
import random
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfssl import callbacks, encoders, evaluate
from tfssl.callbacks import health
from tfssl.callbacks.health import measure
from tfssl.errors import BadInput
from tfssl.pipelines import batching


class Toy(keras.Model):
    """Pulls two views together and features apart; has batch norm, dropout and an encoder."""

    def __init__(self, chance=0.0):
        super().__init__()
        inputs = keras.Input((6, 6, 3))
        x = keras.layers.Conv2D(8, 3, activation="relu", name="c1")(inputs)
        x = keras.layers.BatchNormalization()(x)
        x = keras.layers.Dropout(0.2)(x)
        self.encoder = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x))
        self.head = keras.layers.Dense(4)
        self.chance = chance

    def call(self, x, training=False):
        return self.head(self.encoder(x, training=training))


@pytest.fixture(scope="module")
def data():
    generator = np.random.default_rng(0)
    y = generator.integers(0, 4, 96)
    x = generator.random((96, 6, 6, 3)) * 0.5 + np.eye(4, 3)[y][:, None, None] * 0.4
    return x.astype(np.float32), y


def trained(data, watching=(), epochs=3, **toy):
    keras.utils.set_random_seed(0)
    model = Toy(**toy)
    model.compile(
        keras.optimizers.Adam(1e-2),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False,
    )
    batches = tf.data.Dataset.from_tensor_slices(data).shuffle(96).batch(16)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", callbacks.HealthWarning)
        history = model.fit(batches, epochs=epochs, verbose=0, callbacks=list(watching))
    return model, history.history


def probes(data):
    x, y = data
    train, test = (x[:64], y[:64]), (x[64:], y[64:])
    settings = dict(train=train, test=test)
    return [
        callbacks.Probe(functools.partial(evaluate.knn, k=5, **settings)),
        callbacks.Probe(
            functools.partial(evaluate.finetune, epochs=1, least_steps=2, **settings), every=2
        ),
        callbacks.Probe(functools.partial(evaluate.linear_sgd, epochs=1, **settings), every=3),
    ]


def test_training_is_the_same_to_the_bit_with_and_without_watching(data):
    plain, history = trained(data)
    following = random.random(), np.random.random(), tf.random.uniform([]).numpy()
    looking = [*probes(data), callbacks.Health(data[0])]
    watched, seen = trained(data, looking)
    assert following == (random.random(), np.random.random(), tf.random.uniform([]).numpy())
    assert len(plain.variables) == len(watched.variables)
    for before, after in zip(plain.variables, watched.variables):
        np.testing.assert_array_equal(before, after)
    assert seen["loss"] == history["loss"]


def test_a_probe_writes_numbers_and_no_settings_into_the_history(data):
    (knn, finetune, _), last = probes(data), callbacks.Probe(lambda e: {"one": 1.0}, 5, "mine")
    _, history = trained(data, [knn, finetune, last])
    assert len(history["knn_top1"]) == 3 and all(0 <= v <= 1 for v in history["knn_top1"])
    assert "knn_top1_low" in history and "knn_mean_per_class" in history
    assert not {"knn_k", "knn_temperature", "finetune_labels"} & set(history)
    assert len(history["finetune_top1"]) == 2  # Epoch 2, and the last one.
    assert history["mine_one"] == [1.0]
    assert knn.results["k"] == 5
    json.dumps(history)


def test_the_epoch_in_which_training_stops_is_the_last(data):
    def stop(epoch, logs):
        if epoch == 1:
            stopping.model.stop_training = True

    stopping = keras.callbacks.LambdaCallback(on_epoch_end=stop)
    probe = callbacks.Probe(lambda encoder: {"one": 1.0}, 5, "mine")
    _, history = trained(data, [stopping, probe, callbacks.Health(data[0], every=5)])
    assert len(history["loss"]) == 2
    assert history["mine_one"] == [1.0] and len(history["health_std"]) == 1


def test_a_probe_takes_the_published_encoder():
    class Published(keras.Model):
        @property
        def published(self):
            return {"encoder": "first", "audio_encoder": "second"}

    for of, expected in (("", "first"), ("audio_encoder", "second")):
        got = []
        probe = callbacks.Probe(lambda e, got=got: got.append(e) or {}, of=of)
        probe.set_model(Published())
        probe.set_params({"epochs": 1})
        probe.on_epoch_end(0, {})
        assert got == [expected]


def test_health_measures_what_the_equations_say():
    generator = np.random.default_rng(0)
    x, other = generator.normal(size=(2, 12, 5)) + 0.3
    found = measure(x, other)
    share = np.linalg.svd(x)[1] / np.linalg.svd(x)[1].sum()
    assert found["rank"] == pytest.approx(np.exp(-sum(p * np.log(p) for p in share)))
    unit = [row / np.sqrt(sum(row**2)) for row in x]
    unit_other = [row / np.sqrt(sum(row**2)) for row in other]
    kernel = [
        np.exp(-2 * sum((unit[i] - unit[j]) ** 2)) for i in range(12) for j in range(12) if i != j
    ]
    assert found["uniformity"] == pytest.approx(np.log(np.mean(kernel)))
    distances = [sum((a - b) ** 2) for a, b in zip(unit, unit_other)]
    assert found["alignment"] == pytest.approx(np.mean(distances))
    deviations = [np.std([row[d] for row in unit]) for d in range(5)]
    assert found["std"] == pytest.approx(np.mean(deviations) * np.sqrt(5))


def test_health_of_even_and_of_collapsed_features():
    even = measure(np.concatenate([np.eye(8), -np.eye(8)]))
    assert even["std"] == pytest.approx(1) and even["rank"] == pytest.approx(8)
    collapsed = measure(np.ones((16, 8)))
    assert collapsed["std"] == pytest.approx(0, abs=1e-9)
    assert collapsed["rank"] == pytest.approx(1) and collapsed["uniformity"] == pytest.approx(0)
    assert measure(np.zeros((4, 8)))["std"] == 0


def looked_at(model, health, logs=None, epochs=(0,)):
    """What `health` says of `model` in these epochs, and the logs of the last."""
    health.set_model(model)
    health.set_params({"epochs": 100})
    health.on_train_begin()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for epoch in epochs:
            current = dict(logs or {})
            health.on_epoch_begin(epoch)
            health.on_epoch_end(epoch, current)
    return [str(w.message) for w in said if w.category is callbacks.HealthWarning], current


def test_health_detects_a_collapsed_encoder_and_not_a_healthy_one(data):
    healthy = Toy()
    said, logs = looked_at(healthy, callbacks.Health(data[0]))
    assert said == [] and logs["health_std"] > 0.01 and logs["health_rank"] > 1.2
    collapsed = Toy()
    kernel, bias = collapsed.encoder.get_layer("c1").weights
    kernel.assign(1e-5 * kernel)
    bias.assign(np.ones(8))
    health = callbacks.Health(data[0])
    said, logs = looked_at(collapsed, health, epochs=(0, 1, 2))
    assert len(said) == 1 and health.messages == said, "a fault is told once"
    assert "nearly constant" in said[0] and "learning rate" in said[0] and "\n" not in said[0]
    assert logs["health_std"] < 0.01


def test_untrained_encoders_are_not_called_collapsed():
    from tfssl import encoders

    images = np.random.default_rng(0).random((24, 32, 32, 3)).astype(np.float32)
    for name in ("resnet9", "vit_mini"):
        model = keras.Sequential([encoders.get(name, size=32)])
        model.encoder = model.layers[0]
        assert looked_at(model, callbacks.Health(images))[0] == []


def test_health_aligns_pairs_of_views_and_takes_training_data(data):
    x, y = data
    pairs = np.stack([x, x + 0.01], axis=1)
    several = np.stack([x, x, x + 1], axis=1)
    model = Toy()
    logs = looked_at(model, callbacks.Health(pairs))[1]
    assert 0 < logs["health_alignment"] < 0.01
    assert looked_at(model, callbacks.Health(several))[1]["health_alignment"] == 0
    assert "health_alignment" not in looked_at(model, callbacks.Health(x))[1]
    sets = tf.data.Dataset.from_tensor_slices((pairs, y)).batch(10)
    for given in (sets, sets.map(lambda a, b: a), {"image": pairs, "index": np.arange(96)}):
        again = looked_at(model, callbacks.Health(given, examples=96))[1]
        assert again["health_alignment"] == pytest.approx(logs["health_alignment"], rel=1e-3)


def test_health_looks_at_the_examples_where_the_views_are_no_inputs_of_the_encoder():
    texts = tf.data.Dataset.from_tensor_slices({"text": ["one two", "two three", "one", "three"]})

    def views(examples, seed):
        return {"numbers": tf.ones([tf.shape(examples["text"])[0], 3], tf.int32)}

    encoder = encoders.get("text_bag", words=4, dim=4)
    (seen,) = health._views(batching.train(texts, views, 2), encoder, 4)
    assert sorted(seen.numpy()) == [b"one", b"one two", b"three", b"two three"]


def test_health_does_not_move_the_training_sets_pass(data):
    from tfssl.pipelines import batching

    x, _ = data
    examples = tf.data.Dataset.from_tensor_slices({"image": x, "index": np.arange(96)})
    batches = [
        batching.train(examples, lambda batch, seed: batch["image"], 32, seed=0) for _ in range(2)
    ]
    looked_at(Toy(), callbacks.Health(batches[0]))
    for a, b in zip(*batches):
        np.testing.assert_array_equal(a, b)


def test_health_stops_training_when_the_loss_is_no_number(data):
    x, y = data
    model, health = Toy(), callbacks.Health(x)
    model.compile("sgd", lambda truth, logits: tf.reduce_mean(logits, axis=-1) * np.nan)
    with pytest.warns(callbacks.HealthWarning) as said:
        history = model.fit(x, y, batch_size=16, epochs=5, verbose=0, callbacks=[health])
    assert len(history.history["loss"]) == 1
    sentences = [str(w.message) for w in said if w.category is callbacks.HealthWarning]
    assert len(sentences) == 1 and "loss is nan (epoch 1, batch 1)" in sentences[0]
    assert "training stops" in sentences[0] and "learning rate" in sentences[0]


def test_health_tells_when_the_loss_stays_at_chance(data):
    health = callbacks.Health(data[0])
    said, logs = looked_at(Toy(chance=np.log(4)), health, {"loss": 1.386}, epochs=(0, 1))
    assert said == [] and logs["health_loss_to_chance"] == pytest.approx(1, abs=1e-3)
    said, _ = looked_at(Toy(chance=np.log(4)), health, {"loss": 1.386}, epochs=(2, 3))
    assert len(said) == 1 and "guessing" in said[0]
    given = callbacks.Health(data[0], chance=np.log(4))
    assert looked_at(Toy(), given, {"loss": 0.9}, epochs=(2, 3))[0] == []


def test_what_decay_adds_to_a_loss_is_no_guessing(data):
    toy = Toy(chance=1.0)
    toy.head.kernel_regularizer = keras.regularizers.L2(0.1)
    toy(data[0][:2])
    decay = 0.1 * float(tf.reduce_sum(tf.square(toy.head.kernel)))
    assert decay > 0.03
    said, logs = looked_at(toy, callbacks.Health(data[0]), {"loss": 0.97 + decay}, epochs=(2, 3))
    assert said == [] and logs["health_loss_to_chance"] == pytest.approx(0.97, abs=1e-5)


def test_health_tells_when_the_data_ask_nothing_of_the_method(data):
    for logs in ({"loss": 0.0}, {"loss": 0.7, "colorization_loss": 0.0}):
        said, _ = looked_at(Toy(), callbacks.Health(data[0]), logs, epochs=(0, 1))
        assert len(said) == 1 and "exactly 0" in said[0]
    assert looked_at(Toy(), callbacks.Health(data[0]), {"loss": 0.0}, epochs=(5,))[0] == []


class Clustering(Toy):
    def __init__(self):
        super().__init__()
        self.calls = []

    def reassign(self, features):
        self.calls.append(features)


def examples_of(x, order, offset=0):
    return tf.data.Dataset.from_tensor_slices({"image": x[order], "index": order + offset})


def test_embedding_comes_in_index_order_and_inference_mode_before_each_epoch(data):
    x, y = data
    model = Clustering()
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    order = np.random.default_rng(0).permutation(96)
    embed = callbacks.EmbedEachEpoch(examples_of(x, order), every=2, batch_size=40)
    expected = model.encoder(x, training=False).numpy()
    model.fit(x, y, epochs=4, verbose=0, callbacks=[embed])
    assert len(model.calls) == 2
    np.testing.assert_allclose(model.calls[0], expected, atol=1e-5)
    assert model.calls[0].dtype == np.float32 and model.calls[0].shape == (96, 8)
    assert not np.allclose(model.calls[1], expected, atol=1e-5)


def test_embedding_depends_on_weights_and_epoch_alone(data):
    x, _ = data
    embed = callbacks.EmbedEachEpoch(examples_of(x, np.arange(96)), every=3)
    model = Clustering()
    embed.set_model(model)
    for epoch in (3, 4, 5, 6):
        embed.on_epoch_begin(epoch)
    assert len(model.calls) == 2
    np.testing.assert_array_equal(*model.calls)


def test_embedding_refuses_indices_with_holes_unless_they_are_asked_for(data):
    x, _ = data
    embed = callbacks.EmbedEachEpoch(examples_of(x, np.arange(96), offset=5))
    embed.set_model(Clustering())
    with pytest.raises(BadInput, match="from 5 to 100"):
        embed.on_epoch_begin(0)

    class Keyed(Clustering):
        def reassign(self, features, index):
            self.calls.append(index)

    keyed = Keyed()
    embed.set_model(keyed)
    embed.on_epoch_begin(0)
    np.testing.assert_array_equal(keyed.calls[0], np.arange(5, 101))
