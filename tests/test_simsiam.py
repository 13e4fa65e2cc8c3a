"""SimSiam: the loss by its numbers, a fixed target, a predictor at full rate, and no collapse."""

import cifar_learning
import keras
import numpy as np
import pytest
import tensorflow as tf
from zoo_runs import pair, tiny_dense_encoder

from tfssl import zoo

simsiam = zoo.get("image.simsiam")


def method(kind=simsiam.SimSiam):
    keras.utils.set_random_seed(0)
    return kind(tiny_dense_encoder(), hidden=(32, 32), width=16, bottleneck=8)


def loss_of(p, z):
    return method().objective(None, None, {"prediction": p, "embedding": z})


@pytest.mark.parametrize("z, expected", [((1, 0), -0.6), ((6, 8), -1), ((4, -3), 0), ((-3, -4), 1)])
def test_the_loss_is_minus_the_cosine_of_either_prediction(z, expected):
    p, z = tf.constant([[[3.0, 4.0]] * 2] * 5), tf.constant([[z] * 2] * 5, tf.float32)
    assert float(loss_of(p, z)) == pytest.approx(expected, abs=1e-6)
    assert float(loss_of(7 * p, 3 * z)) == pytest.approx(expected, abs=1e-6)


def test_the_loss_is_half_of_each_direction_and_its_targets_are_held_fixed():
    """With the identity for a predictor, the gradient is that of the equation with z constant."""
    z = np.random.default_rng(0).normal(size=[4, 2, 3])

    def equation(p, target):
        total = 0.0
        for b in range(4):
            for mine, other in ((0, 1), (1, 0)):
                a, t = p[b, mine], target[b, other]
                total -= a @ t / np.linalg.norm(a) / np.linalg.norm(t) / 2 / 4
        return total

    def slope(function):
        found = np.zeros_like(z)
        for place in np.ndindex(z.shape):
            step = np.zeros_like(z)
            step[place] = 1e-5
            found[place] = (function(z + step) - function(z - step)) / 2e-5
        return found

    moving = tf.Variable(z, dtype=tf.float32)
    with tf.GradientTape() as tape:
        loss = loss_of(moving, moving)
    assert float(loss) == pytest.approx(equation(z, z), abs=1e-6)
    gradient = tape.gradient(loss, moving)
    np.testing.assert_allclose(gradient, slope(lambda p: equation(p, z)), atol=1e-5)
    naive = slope(lambda both: equation(both, both))
    assert np.abs(gradient - naive).max() > 0.01
    moving.assign(np.repeat(z[:, :1], 2, axis=1))
    with tf.GradientTape() as tape:
        loss = loss_of(moving, moving)
    np.testing.assert_allclose(tape.gradient(loss, moving), 0, atol=1e-6)  # views that agree


def test_embeddings_are_standardised_view_by_view_and_nothing_can_undo_it():
    model, x = method(), pair()
    last = model.projector.layers[-1]
    assert isinstance(last, keras.layers.BatchNormalization) and not last.trainable_weights
    assert not model.projector.layers[-2].use_bias and model.predictor.layers[-1].use_bias
    different = tf.stack([x[:, 0], 0.3 * x[:, 1]], axis=1)  # views of other brightness
    z = np.array(model(different, training=True)["embedding"])
    np.testing.assert_allclose(z.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(z.std(axis=0), 1, atol=2e-3)


def test_the_predictors_rate_stays_while_the_encoders_falls():
    batch = {"image": np.zeros([8, 8, 8, 3], np.uint8)}
    data = tf.data.Dataset.from_tensor_slices(batch)
    small = {
        **simsiam.SMALL,
        "encoder": tiny_dense_encoder(),
        "size": 8,
        "hidden": (8,),
        "width": 8,
    }
    rate = small["learning_rate"]
    run = simsiam.recipe(**{**small, "data": data, "batch_size": 4, "epochs": 5})
    optimizer, mine = run.model.optimizer, run.model.predictor.trainable_variables
    run.fit(epochs=3, verbose=0)
    assert all(float(optimizer.rate_of(v)) == pytest.approx(rate) for v in mine)
    theirs = run.model.encoder.trainable_variables + run.model.projector.trainable_variables
    expected = rate * 0.5 * (1 + np.cos(np.pi * 0.6))  # six of ten steps
    assert all(float(optimizer.rate_of(v)) == pytest.approx(expected, rel=1e-4) for v in theirs)


def test_a_step_is_momentum_over_gradient_plus_decay_of_every_weight():
    w, b = keras.Variable([[2.0]]), keras.Variable([4.0])
    schedule = simsiam.warmup_cosine(0.1, 2, 1)
    optimizer = simsiam.HalfFixedSGD(schedule, weight_decay=0.5, fixed=[b])
    values, speed = np.array([2.0, 4.0]), np.zeros(2)
    for step in range(2):
        optimizer.apply([tf.constant([[1.0]]), tf.constant([1.0])], [w, b])
        rate = np.array([0.1 * (1 + np.cos(np.pi * step / 2)) / 2, 0.1])
        speed = 0.9 * speed - rate * (1.0 + 0.5 * values)
        values = values + speed
        np.testing.assert_allclose([float(w[0, 0]), float(b[0])], values, rtol=1e-5)


class Free(simsiam.SimSiam):
    """With a gradient through both sides, and without the last batch norm, which would hide it."""

    def __init__(self, encoder, hidden, width, bottleneck):
        super().__init__(encoder, hidden, width, bottleneck)
        self.projector = keras.Sequential([keras.Input([16]), keras.layers.Dense(width)])

    def objective(self, x, y, outputs):
        super().objective(x, y, outputs)  # for its `std`
        p, z = (tf.math.l2_normalize(outputs[name], -1) for name in ("prediction", "embedding"))
        return -tf.reduce_mean(tf.reduce_sum(p * z[:, ::-1], axis=-1))


def test_the_stop_of_the_gradient_keeps_embeddings_apart():
    logs = []
    data = tf.data.Dataset.from_tensor_slices(tf.stack([pair(seed=s) for s in range(30)]))
    for kind in (simsiam.SimSiam, Free):
        model = method(kind)
        model.compile(keras.optimizers.SGD(0.05, momentum=0.9))
        logs.append(model.fit(data, epochs=10, verbose=0).history)
    assert logs[0]["std"][-1] > 0.5
    assert logs[1]["std"][-1] < 0.1 and logs[1]["loss"][-1] < -0.99


@pytest.mark.slow
def test_four_passes_over_photographs_beat_the_untrained_network(shared):
    untrained, trained = cifar_learning.before_and_after("image.simsiam", shared, epochs=4)
    assert trained > untrained + 0.02
