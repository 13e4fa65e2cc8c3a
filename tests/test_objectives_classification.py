"""Cross-entropies, players' losses and word scores against their equations and worked numbers."""

import numpy as np
import pytest
import tensorflow as tf
from objective_checks import draw, gradients, holds

from tfssl.objectives import adversarial, classification, embedding


def log_softmax(x):
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_cross_entropies_are_their_equation():
    labels, weights = np.array([[0, 2], [1, 1], [2, 0]]), np.abs(draw(3, 2, seed=1))
    rows = [(i, j, labels[i, j]) for i in range(3) for j in range(2)]
    logits = draw(3, 2, 3)
    holds(
        lambda z: classification.cross_entropy(z, labels),
        lambda z: -np.mean([log_softmax(z)[row] for row in rows]),
        logits,
    )
    holds(
        lambda z, w: classification.weighted_cross_entropy(z, labels, w),
        lambda z, w: -np.mean([w[row[:2]] * log_softmax(z)[row] for row in rows]),
        logits,
        weights,
        frozen=(1,),
    )
    assert float(classification.cross_entropy(np.zeros((5, 8)), [0] * 5)) == pytest.approx(
        2.0794415
    )


def test_soft_cross_entropy_is_its_equation():
    targets = np.exp(log_softmax(draw(2, 3, 4, seed=1)))
    holds(
        lambda z, t, w: classification.soft_cross_entropy(z, t, w),
        lambda z, t, w: -np.mean(w * (t * log_softmax(z)).sum(-1)),
        draw(2, 3, 4),
        targets,
        np.abs(draw(2, 3, seed=2)),
        frozen=(1, 2),
    )
    uniform = classification.soft_cross_entropy(np.zeros((2, 313)), np.eye(313)[:2])
    assert float(uniform) == pytest.approx(5.7462, abs=1e-4)


def test_ignored_pixels_get_no_gradient():
    p, y, mask = np.array([[0.9, 0.2, 0.5, 0.6]]), np.array([[1.0, 0, 1, 1]]), [[1, 1, 0, 1]]
    logits = np.log(p / (1 - p))
    found = classification.binary_cross_entropy(logits, y, mask)
    assert float(found) == pytest.approx(0.279777, abs=1e-5)
    (slope,) = gradients(lambda z: classification.binary_cross_entropy(z, y, mask), logits)
    assert slope[0, 2] == 0 and np.all(slope.numpy()[0, [0, 1, 3]] != 0)
    holds(
        lambda z, t: classification.binary_cross_entropy(z, t, np.ones((3, 2))),
        lambda z, t: -np.mean(t * np.log(sigmoid(z)) + (1 - t) * np.log(1 - sigmoid(z))),
        draw(3, 2),
        sigmoid(draw(3, 2, seed=1)),
        frozen=(1,),
    )
    zero = classification.binary_cross_entropy(np.zeros((2, 2)), np.eye(2), np.ones((2, 2)))
    assert float(zero) == pytest.approx(0.693147, abs=1e-6)


def test_soft_encoding_has_the_worked_values():
    centres = [[10 * a, 10 * b] for a in range(-3, 4) for b in range(-3, 4)]
    five = np.sort(classification.soft_encoding([0.0, 0], centres, 5, 5.0))[::-1]
    np.testing.assert_allclose(five[:6], [0.648786] + [0.087804] * 4 + [0], atol=1e-6)
    ten = np.sort(classification.soft_encoding([0.0, 0], centres, 10, 5.0))[::-1]
    expected = [0.619218] + [0.083802] * 4 + [0.011341] * 4 + [0.000208]
    np.testing.assert_allclose(ten[:10], expected, atol=1e-6)
    image = classification.soft_encoding(20 * draw(2, 3, 4, 2), centres, 5, 5.0)
    assert image.shape == (2, 3, 4, 49)
    np.testing.assert_allclose(np.sum(image, -1), 1, atol=1e-6)


def test_rebalancing_has_the_worked_values():
    frequencies = np.array([0.7, 0.2, 0.1])
    weights = classification.rebalancing(frequencies, 0.5)
    np.testing.assert_allclose(weights, [0.754170, 1.461204, 1.798405], atol=1e-5)
    assert float(np.sum(frequencies * weights)) == pytest.approx(1)
    np.testing.assert_allclose(classification.rebalancing(frequencies, 1.0), 1, atol=1e-6)


@pytest.mark.parametrize("temperature, expected", [(1, 5), (0.38, 1.5319), (0.01, 0)])
def test_the_annealed_mean_goes_from_mean_to_mode(temperature, expected):
    logits = np.log([[0.6, 0.3, 0.1]])
    found = classification.annealed_mean(logits, [[0], [10], [20]], temperature)
    assert float(found[0, 0]) == pytest.approx(expected, abs=1e-4)


def test_the_players_losses_are_their_equations():
    def d(real, fake):
        return -np.mean(np.log(sigmoid(real))) - np.mean(np.log(1 - sigmoid(fake)))

    real, fake = draw(4, 1), draw(4, 1, seed=1)
    holds(adversarial.discriminator, d, real, fake)
    holds(adversarial.generator, lambda fake: -np.mean(np.log(sigmoid(fake))), fake)
    holds(adversarial.encoder_generator, lambda real, fake: d(fake, real), real, fake)
    holds(adversarial.wasserstein_critic, lambda r, f: f.mean() - r.mean(), real, fake)
    holds(adversarial.wasserstein_generator, lambda f: -f.mean(), fake)


def test_the_players_losses_have_the_worked_values():
    zero = np.zeros(3)
    assert float(adversarial.discriminator(zero, zero)) == pytest.approx(1.386294, abs=1e-6)
    assert float(adversarial.encoder_generator(zero, zero)) == pytest.approx(1.386294, abs=1e-6)
    assert float(adversarial.generator(zero)) == pytest.approx(0.693147, abs=1e-6)
    (slope,) = gradients(adversarial.generator, np.array([-5.0]))
    assert float(slope[0]) == pytest.approx(-0.9933, abs=1e-4)
    huge = np.array([1e4, -1e4])
    assert np.isfinite(adversarial.discriminator(huge, huge))
    p, q = np.array([0.5, 0.25, 0.25]), np.array([0.25, 0.25, 0.5])
    best = np.log(p / (p + q)) - np.log(q / (p + q))
    value = adversarial.discriminator(np.repeat(best, [2, 1, 1]), np.repeat(best, [1, 1, 2]))
    assert float(value) == pytest.approx(1.301345, abs=1e-5)


def test_swapped_labels_reach_both_encoder_and_generator():
    real, fake = gradients(adversarial.encoder_generator, draw(4), draw(4, seed=1))
    assert np.all(real != 0) and np.all(fake != 0)


def test_the_gradient_penalty_of_a_linear_critic_is_known():
    real, fake, mix = draw(5, 2), draw(5, 2, seed=1), np.linspace(0, 0.99, 5)

    def penalty(w):
        return adversarial.gradient_penalty(lambda x: tf.matmul(x, w), real, fake, mix)

    assert float(penalty(tf.constant([[3.0], [4.0]]))) == pytest.approx(16)
    assert float(penalty(tf.constant([[0.6], [0.8]]))) == pytest.approx(0, abs=1e-6)
    holds(penalty, lambda w: (np.sqrt((w**2).sum()) - 1) ** 2, np.array([[3.0], [4.0]]))
    images = np.zeros((2, 4, 4, 3))
    flat = adversarial.gradient_penalty(
        lambda x: tf.reduce_sum(x, [1, 2, 3]), images, images, [0, 1]
    )
    assert float(flat) == pytest.approx((np.sqrt(48) - 1) ** 2, rel=1e-5)


def test_negative_sampling_is_its_equation():
    def reference(v, u, noise):
        total = 0
        for b in range(len(v)):
            total -= np.log(sigmoid(u[b] @ v[b]))
            total -= sum(np.log(sigmoid(-n @ v[b])) for n in noise[b])
        return total / len(v)

    holds(
        embedding.negative_sampling,
        reference,
        draw(3, 4),
        draw(3, 4, seed=1),
        draw(3, 2, 4, seed=2),
    )


def test_negative_sampling_has_the_worked_values():
    found = embedding.negative_sampling([[0.5, -0.5]], [[1.0, 0]], [[[0.0, 1]]])
    assert float(found) == pytest.approx(0.948154, abs=1e-5)
    fresh = embedding.negative_sampling(draw(7, 3), np.zeros((7, 3)), np.zeros((7, 5, 3)))
    assert float(fresh) == pytest.approx(4.158883, abs=1e-5)
