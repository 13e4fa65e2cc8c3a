"""Barlow Twins: the loss by its numbers, what it is blind to, and features that do not repeat."""

import functools

import cifar_learning
import keras
import numpy as np
import pytest
import tensorflow as tf
import zoo_runs
from zoo_runs import tiny_dense_encoder

from tfssl import encoders, zoo
from tfssl.encoders import residual
from tfssl.optimizers import LARS

barlow_twins = zoo.get("image.barlow_twins")
SQUARE = np.array([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])
LAMBDA = 0.0051
# What all pixels share is what an untrained network's features repeat.
pair = functools.partial(zoo_runs.pair, brightness=1.0)


def method(**options):
    keras.utils.set_random_seed(0)
    return barlow_twins.BarlowTwins(tiny_dense_encoder(), **{"widths": (32, 32, 16), **options})


def loss(a, b, **options):
    z = tf.constant(np.stack([a, b], axis=1), tf.float32)
    return float(method(**options).objective(None, None, z))


def correlations(a, b):
    """The equation, pair by pair of features."""
    c = np.zeros([a.shape[1], b.shape[1]])
    for i, j in np.ndindex(c.shape):
        x, y = a[:, i] - a[:, i].mean(), b[:, j] - b[:, j].mean()
        c[i, j] = (x * y).sum() / np.sqrt((x**2).sum()) / np.sqrt((y**2).sum())
    return c


def test_the_worked_values():
    one = SQUARE[:, :1]
    assert loss(SQUARE, SQUARE) == pytest.approx(0, abs=1e-6)
    assert loss(SQUARE, -SQUARE) == pytest.approx(8, rel=1e-6)
    assert loss(np.tile(one, 2), np.tile(one, 2)) == pytest.approx(2 * LAMBDA, rel=1e-5)
    assert loss(np.tile(one, 4), np.tile(one, 4)) == pytest.approx(12 * LAMBDA, rel=1e-5)


def test_the_loss_is_its_equation():
    a, b = np.random.default_rng(0).normal(size=[2, 9, 5])
    c = correlations(a, b)
    away = c**2 * (1 - np.eye(5))
    expected = ((1 - np.diag(c)) ** 2).sum() + LAMBDA * away.sum()
    assert loss(a, b) == pytest.approx(expected, rel=1e-5)
    # The diagonal is 1 exactly where both views are the same.
    assert loss(a, a, off_diagonal=0.0) == pytest.approx(0, abs=1e-6) and loss(a, b) > 1


def test_scale_and_place_of_a_feature_are_free_and_its_sign_and_axes_are_not():
    a, b = np.random.default_rng(1).normal(size=[2, 9, 2]) * [1, 5]
    assert loss(3 * a + [1, 2], b * [0.1, 7] - 4) == pytest.approx(loss(a, b), rel=1e-4)
    assert abs(loss(a * [-1, 1], b) - loss(a, b)) > 0.1
    turn = np.array([[np.cos(0.5), -np.sin(0.5)], [np.sin(0.5), np.cos(0.5)]])
    assert abs(loss(a @ turn, a @ turn) - loss(a, a)) > LAMBDA / 10
    assert loss(SQUARE @ turn, SQUARE @ turn) == pytest.approx(0, abs=1e-6)  # isotropic


def test_no_correlation_passes_one():
    random = np.random.default_rng(2)
    for count in (2, 3, 50):  # of two examples all are one
        a = random.normal(size=[count, 1]) * [1, -2, 3, -4] + 5
        for noise, least in ((0, 12), (1, 0)):
            b = a + noise * random.normal(size=a.shape)
            away = loss(a, b, off_diagonal=1.0) - loss(a, b, off_diagonal=0.0)
            assert least - 1e-4 <= away <= 12 + 1e-4, "twelve pairs of features"


def test_each_view_is_standardised_by_itself():
    model, x = method(), pair()
    z = np.array(model(tf.stack([x[:, 0], 0.2 * x[:, 1]], axis=1), training=True))
    np.testing.assert_allclose(z.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(z.std(axis=0), 1, atol=2e-3)
    assert not any(getattr(layer, "use_bias", False) for layer in model.projector.layers)
    assert not model.projector.layers[-1].trainable_weights


def test_biases_and_scales_have_a_rate_of_their_own():
    w, b = keras.Variable([[3.0]]), keras.Variable([3.0])
    optimizer = LARS(0.5, momentum=0.0, eta=0.1, bias_rate=0.024)
    optimizer.apply([tf.constant([[2.0]]), tf.constant([2.0])], [w, b])
    assert float(w[0, 0]) == pytest.approx(3 - 0.5 * 0.1 * 3 / 2 * 2)
    assert float(b[0]) == pytest.approx(3 - 0.5 * 0.024 * 2)


def test_residual_branches_of_a_new_network_start_silent_and_can_wake():
    network = residual.get("resnet18", 32)
    gains = {layer.name: np.array(layer.gamma) for layer in network.layers if "norm" in layer.name
             and isinstance(layer, keras.layers.BatchNormalization)}  # fmt: skip
    silent = sorted(name for name, gain in gains.items() if not gain.any())
    assert len(silent) == 8 and all(name.endswith("_2_norm") for name in silent)
    ours = encoders.get("resnet9")
    assert residual.silence(ours) == []  # its branches end in a ReLU
    given = tiny_dense_encoder()
    assert residual.get(given, 32) is given


def off_diagonal(model, x):
    z = np.array(model(x, training=True))
    c = correlations(z[:, 0], z[:, 1])
    return np.abs(c[~np.eye(len(c), dtype=bool)]).mean(), np.diag(c).mean()


def test_held_out_features_agree_and_repeat_less_after_training():
    # Of 16 features there are few pairs: lambda is larger than for the paper's 8192.
    model, x = method(off_diagonal=0.05), pair(512, 99)
    repeated, agreed = off_diagonal(model, x)
    model.compile(keras.optimizers.Adam(2e-3))
    data = tf.data.Dataset.from_tensor_slices(tf.stack([pair(128, s) for s in range(30)]))
    model.fit(data, epochs=8, verbose=0)
    repeats, agrees = off_diagonal(model, x)
    assert repeats < 0.5 * repeated and agrees > 0.8, (repeated, repeats, agreed, agrees)


@pytest.mark.slow
def test_two_passes_over_photographs_beat_the_untrained_network(shared):
    untrained, trained = cifar_learning.before_and_after("image.barlow_twins", shared, epochs=2)
    assert trained > untrained + 0.01
