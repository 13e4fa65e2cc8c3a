"""VICReg: the loss by its numbers, which term prevents which collapse."""

import cifar_learning
import keras
import numpy as np
import pytest
import tensorflow as tf
from zoo_runs import pair, tiny_dense_encoder

from tfssl import zoo

vicreg = zoo.get("image.vicreg")
SQUARE = np.array([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])


def method(**options):
    keras.utils.set_random_seed(0)
    return vicreg.VICReg(tiny_dense_encoder(), **{"widths": (32, 32, 16), **options})


def loss(a, b, **weights):
    z = tf.constant(np.stack([a, b], axis=1), tf.float32)
    return float(method(**weights).objective(None, None, z))


def test_the_worked_values():
    same = np.tile(SQUARE[:, :1], 2)
    assert loss(np.full([4, 2], 3.0), np.full([4, 2], 3.0)) == pytest.approx(24.75)
    assert loss(SQUARE, SQUARE) == pytest.approx(0, abs=1e-6)
    assert loss(0.5 * SQUARE, 0.5 * SQUARE) == pytest.approx(10.564078, rel=1e-6)
    assert loss(SQUARE, SQUARE + 1) == pytest.approx(25, rel=1e-6)
    assert loss(same, same) == pytest.approx(3.555556, rel=1e-6)


def test_the_loss_is_its_three_equations():
    a, b = 0.8 * np.random.default_rng(0).normal(size=[2, 7, 4])
    total = 25 * ((a - b) ** 2).sum() / 7 / 4
    for z in (a, b):
        centred = z - z.mean(axis=0)
        spread = [np.sqrt((centred[:, j] ** 2).sum() / 6 + 1e-4) for j in range(4)]
        total += 25 / 2 * sum(max(0, 1 - s) for s in spread) / 4
        for i, j in np.ndindex(4, 4):
            if i != j:
                total += ((centred[:, i] * centred[:, j]).sum() / 6) ** 2 / 4
    assert loss(a, b) == pytest.approx(total, rel=1e-5)


def test_spread_and_covariance_ignore_a_shift_and_doubling_counts_sixteenfold():
    a, b = 3 * np.random.default_rng(0).normal(size=[2, 9, 4])
    shifted = loss(a + 5, b - 7, invariance=0.0)
    assert shifted == pytest.approx(loss(a, b, invariance=0.0), rel=1e-4)
    only = dict(invariance=0.0, variance=0.0)
    assert loss(a, b, **only) == pytest.approx(shifted, rel=1e-4)  # the hinge is inactive
    assert loss(2 * a, 2 * b, **only) == pytest.approx(16 * loss(a, b, **only), rel=1e-4)
    assert loss(a, a + 1) > loss(a, a) + 24


def test_the_expander_ends_without_bias_or_normalisation():
    expander = method().expander
    assert not expander.layers[-1].use_bias
    kinds = [type(layer).__name__ for layer in expander.layers]
    assert kinds == ["Dense", "BatchNormalization", "ReLU"] * 2 + ["Dense"]
    z = np.array(method()(pair(), training=True))
    assert z.shape == (64, 2, 16) and not np.allclose(z.std(axis=0), 1, atol=0.1)


def trained(**weights):
    """Spread of the features, and effective rank of the embeddings, of held-out pictures."""
    model = method(**weights)
    model.compile(keras.optimizers.Adam(2e-3))
    data = tf.data.Dataset.from_tensor_slices(tf.stack([pair(128, s) for s in range(25)]))
    model.fit(data, epochs=6, verbose=0)
    z = np.array(model(pair(512, 99), training=True))[:, 0]
    shares = np.linalg.svd(z - z.mean(axis=0), compute_uv=False) + 1e-12
    shares /= shares.sum()
    return z.std(axis=0).mean(), np.exp(-(shares * np.log(shares)).sum())


def test_without_the_hinge_all_collapses_and_without_covariance_features_repeat():
    spread, rank = trained()
    assert spread > 0.7
    assert trained(variance=0.0)[0] < 0.1 * spread
    assert trained(covariance=0.0)[1] < 0.8 * rank


@pytest.mark.slow
def test_two_passes_over_photographs_beat_the_untrained_network(shared):
    untrained, trained = cifar_learning.before_and_after("image.vicreg", shared, epochs=2)
    assert trained > untrained + 0.01
