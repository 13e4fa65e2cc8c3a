"""SwAV: codes by their numbers, which crop teaches which, frozen prototypes, queue, spread."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfssl import zoo
from tfssl.objectives.clustering import sinkhorn

swav = zoo.get("image.swav")
K = 12


def tiny():
    image = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(16, 3, 2, activation="relu")(image)
    return keras.Model(image, keras.layers.GlobalAveragePooling2D()(x))


def method(**options):
    keras.utils.set_random_seed(0)
    model = swav.SwAV(tiny(), **{"prototypes": K, "hidden": 32, "width": 8, **options})
    model.compile(keras.optimizers.SGD(0.1))
    return model


def crops(count=16, seed=0):
    rng = np.random.default_rng(seed)
    colour = rng.uniform(size=[count, 1, 1, 1, 3])
    return {
        name: tf.constant(colour + 0.1 * rng.normal(size=[count, v, side, side, 3]), tf.float32)
        for name, v, side in (("global", 2, 8), ("local", 3, 6))
    }


def test_two_large_and_several_small_crops():
    images = tf.constant(np.random.default_rng(0).integers(0, 256, [3, 20, 20, 3]), tf.uint8)
    seed = tf.constant([1, 2])
    x = swav.views({"image": images}, seed, size=16, local_size=8, local_crops=4, blur=0.0)
    assert x["global"].shape == (3, 2, 16, 16, 3) and x["local"].shape == (3, 4, 8, 8, 3)
    assert np.abs(x["global"][:, 0] - x["global"][:, 1]).max() > 0.1
    assert set(swav.views({"image": images}, seed, size=16, local_crops=0, blur=0.0)) == {"global"}


def test_codes_are_the_cards():
    scores = tf.constant([[0.1, 0.0], [0.1, 0.0], [0.1, 0.0], [0.1, 0.05]])
    codes = method().codes(scores, 0)
    expected = [[0.560338, 0.439662]] * 3 + [[0.319197, 0.680803]]
    np.testing.assert_allclose(codes, expected, atol=1e-6)
    np.testing.assert_allclose(np.sum(codes, axis=0), [2.0002, 1.9998], atol=5e-5)
    np.testing.assert_allclose(method().codes(tf.zeros([5, K]), 0), np.full([5, K], 1 / K))


def test_equal_scores_cost_ln_k():
    model = method()
    loss = model.objective(None, None, {"scores": tf.zeros([5, 4, K])})
    assert float(loss) == pytest.approx(np.log(K)) == model.chance


def test_the_loss_is_the_papers_sum_over_other_crops():
    scores = tf.constant(np.random.default_rng(0).uniform(-1, 1, [6, 5, K]), tf.float32)
    total = 0.0
    for i in range(2):
        q = sinkhorn(scores[:, i], 0.05, 3).numpy()
        for v in range(5):
            if v != i:
                log_p = tf.nn.log_softmax(scores[:, v] / 0.1).numpy()
                total += -(q * log_p).sum(axis=1).mean() / 4 / 2
    assert float(method().objective(None, None, {"scores": scores})) == pytest.approx(total, 1e-5)


def test_a_large_crop_learns_only_where_it_is_predicted():
    """Of two crops, each gets the gradient of predicting the other's code, and none of its own."""
    scores = tf.Variable(np.random.default_rng(0).uniform(-1, 1, [6, 2, K]), dtype="float32")
    with tf.GradientTape() as tape:
        loss = method().objective(None, None, {"scores": scores})
    got = tape.gradient(loss, scores)[:, 0]
    q = sinkhorn(scores[:, 1], 0.05, 3)
    expected = (tf.nn.softmax(scores[:, 0] / 0.1) - q) / (0.1 * 6 * 2)
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_prototypes_wait_and_are_of_unit_length_after_every_step():
    model = method(freeze_steps=2)
    first = np.array(model.prototypes.prototypes)
    for step in range(4):
        model.train_on_batch(crops(seed=step))
        now = np.array(model.prototypes.prototypes)
        np.testing.assert_allclose(np.linalg.norm(now, axis=1), 1, rtol=1e-6)
        assert (np.abs(now - first).max() < 1e-6) == (step < 2)


def test_the_queue_fills_in_order_and_joins_after_its_start():
    model, plain = method(queue=32, queue_steps=1), method()
    x = crops()
    z = tf.math.l2_normalize(model(x, training=True)["embedding"], axis=-1)
    scores = tf.constant(np.random.default_rng(0).uniform(-1, 1, [16, K]), tf.float32)
    np.testing.assert_allclose(model.codes(scores, 1), plain.codes(scores, 1), atol=1e-6)
    model.train_on_batch(x)
    for view in range(2):
        np.testing.assert_allclose(model.queues[view]()[:16], z[:, view], atol=1e-5)
    past = np.array(model.queues[1]()) @ np.array(model.prototypes.prototypes).T
    together = sinkhorn(tf.concat([scores, past], 0), 0.05, 3)
    np.testing.assert_allclose(model.codes(scores, 1), together[:16], atol=1e-5)
    assert np.abs(model.codes(scores, 1) - plain.codes(scores, 1)).max() > 0.01


class Softmax(swav.SwAV):
    """Codes without the equal shares that Sinkhorn gives the prototypes."""

    def codes(self, scores, view):
        return tf.nn.softmax(tf.stop_gradient(scores) / self.epsilon)


def test_sinkhorn_keeps_all_prototypes_in_use_and_softmax_does_not():
    entropies, losses = [], []
    for make in (swav.SwAV, Softmax):
        keras.utils.set_random_seed(0)
        model = make(tiny(), prototypes=K, hidden=32, width=8)
        model.compile(keras.optimizers.Adam(3e-3))
        batches = [crops(32, seed) for seed in range(20)]
        data = tf.data.Dataset.from_tensor_slices(
            tf.nest.map_structure(lambda *b: tf.stack(b), *batches)
        )
        losses.append(model.fit(data, epochs=8, verbose=0, shuffle=False).history["loss"][-1])
        scores = model(crops(256, 99), training=True)["scores"][:, 0]
        mean = tf.reduce_mean(tf.nn.softmax(scores / 0.05), axis=0)
        entropies.append(-float(tf.reduce_sum(mean * tf.math.log(mean))))
    assert losses[0] < 0.9 * np.log(K)
    assert entropies[0] > 0.85 * np.log(K) and entropies[0] > entropies[1] + 0.2, entropies


def test_prototypes_stand_still_for_one_epoch_of_whatever_data():
    run = swav.recipe(**{**swav.SMALL, "batch_size": 64, "encoder": tiny()})
    assert run.model.freeze_steps == run.dataset.steps
    short = swav.recipe(**{**swav.SMALL, "epochs": 2, "encoder": tiny()})
    assert short.model.freeze_steps == short.dataset.steps * 2 // 10
