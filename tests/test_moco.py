"""MoCo: the loss by its numbers, the order of a step, and batch norm that cannot tell the key."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
import zoo_runs

from tfssl import zoo

moco = zoo.get("image.moco")
pair = functools.partial(zoo_runs.pair, noise=0.05)


def tiny(normalise=False):
    image = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(8, 3, 2)(image)
    if normalise:
        x = keras.layers.BatchNormalization()(x)
    x = keras.layers.Flatten()(keras.layers.ReLU()(x))
    return keras.Model(image, keras.layers.Dense(16)(x))


def method(**options):
    keras.utils.set_random_seed(0)
    model = moco.MoCo(tiny(), **{"widths": (16, 8), "size": 32, **options})
    model.compile(keras.optimizers.SGD(0.1))
    return model


@pytest.mark.parametrize("temperature, expected", [(0.2, 0.026595), (0.07, 2.4995e-6)])
def test_a_perfect_key_among_four_orthogonal_ones(temperature, expected):
    model = method(size=4, temperature=temperature)
    model.queue.embeddings.assign(np.eye(8)[1:5])
    q = tf.constant(np.eye(8)[:1], tf.float32)
    loss = model.objective(None, None, {"query": 3 * q, "key": 2 * q})
    assert float(loss) == pytest.approx(expected, rel=1e-3)
    assert float(model.accuracy.result()) == 1


@pytest.mark.parametrize("size, expected", [(4, 1.609438), (65536, 11.090370)])
def test_equal_scores_cost_ln_of_k_plus_one(size, expected):
    model = method(size=size)
    model.queue.embeddings.assign(np.tile(np.eye(8)[1], [size, 1]))
    q, k = tf.constant(np.eye(8)[:1], tf.float32), tf.constant(np.eye(8)[7:], tf.float32)
    loss = model.objective(None, None, {"query": q, "key": k})
    assert float(loss) == pytest.approx(expected) == model.chance


def test_the_queue_takes_the_keys_after_their_loss_and_the_key_encoder_follows():
    model, x = method(momentum=0.9), pair(8)
    queue, outputs = np.array(model.queue()), model(x, training=True)
    loss = float(model.objective(x, None, outputs))
    online = model.encoder.trainable_variables + model.head.trainable_variables
    start = [np.array(w) for w in online]
    logs = model.train_on_batch(x, return_dict=True)
    assert float(logs["loss"]) == pytest.approx(loss, rel=1e-5)  # of the old queue
    keys = outputs["key"] / np.linalg.norm(outputs["key"], axis=1, keepdims=True)
    np.testing.assert_allclose(model.queue()[:8], keys, atol=1e-5)
    np.testing.assert_array_equal(model.queue()[8:], queue[8:])
    for w0, w1, followed in zip(start, online, model.key.weights):
        np.testing.assert_allclose(followed, 0.9 * w0 + 0.1 * np.array(w1), atol=1e-6)


def test_no_gradient_reaches_the_keys():
    model, x = method(), pair(8)
    with tf.GradientTape() as tape:
        loss = model.objective(x, None, model(x, training=True))
    state = [w.value for w in model.key.weights] + [model.queue.embeddings.value]
    assert all(g is None for g in tape.gradient(loss, state))


def test_groups_return_every_example_to_its_place():
    x = pair(32)
    one, four = method(), method(groups=4)
    for name in ("query", "key"):  # without batch norm the groups change nothing
        np.testing.assert_allclose(
            one(x, training=True)[name], four(x, training=True)[name], atol=1e-5
        )


def test_the_groups_of_a_key_are_not_those_of_its_query():
    """With one group the statistics of query and key are of the same examples; with four not."""
    x = pair(32, noise=0.0)

    def gap(groups):
        keras.utils.set_random_seed(0)
        model = moco.MoCo(tiny(normalise=True), (16, 8), 32, groups=groups)
        outputs = model(x, training=True)
        return np.abs(outputs["query"] - outputs["key"]).max()

    assert gap(1) < 1e-5 < 1e-3 < gap(4)


def test_version_1_is_reached_by_keywords():
    version_1 = dict(widths=(8,), temperature=0.07, hue=0.4, jitter=1.0, blur=0.0)
    run = moco.recipe(**{**moco.SMALL, **version_1, "epochs": 1})
    assert [len(layer.weights) for layer in run.model.head.layers] == [2]


def test_matching_pairs_are_found_shuffled_ones_stay_at_chance_and_quick_keys_collapse():
    """Keys of the queries' own weights (momentum 0) differ from the queue's by their age alone: all
    pictures become alike, and the loss goes back to that of equal scores."""
    ends = []
    for momentum, shuffled in ((0.99, False), (0.99, True), (0.0, False)):
        model = method(size=256, momentum=momentum)
        model.compile(keras.optimizers.Adam(3e-3))
        batches = tf.stack([pair(32, seed) for seed in range(30)])
        if shuffled:
            batches = tf.stack([batches[:, :, 0], tf.roll(batches[:, :, 1], 1, axis=1)], axis=2)
        history = model.fit(tf.data.Dataset.from_tensor_slices(batches), epochs=6, verbose=0)
        ends.append({name: values[-1] for name, values in history.history.items()})
    assert ends[0]["loss"] < 0.7 * ends[1]["loss"]
    assert ends[0]["accuracy"] > 0.25 and ends[1]["accuracy"] < 0.05, ends
    assert ends[1]["loss"] > 0.7 * np.log(257)
    assert ends[2]["loss"] > 0.9 * np.log(257), ends
