"""Losses without negatives against slow transcriptions of the equations, and the cards' numbers."""

import numpy as np
import pytest
from objective_checks import differences, draw, gradients, holds

from tfssl.objectives import decorrelation

SQUARE = np.array([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])


def negative_cosine(p, z):
    return -np.mean([x @ y / np.linalg.norm(x) / np.linalg.norm(y) for x, y in zip(p, z)])


def test_negative_cosine_is_its_equation_and_holds_the_target_fixed():
    p, z = draw(4, 3), draw(4, 3, seed=1)
    holds(decorrelation.negative_cosine, negative_cosine, p, z, frozen=(1,))
    holds(
        decorrelation.normalised_mse, lambda p, z: 2 + 2 * negative_cosine(p, z), p, z, frozen=(1,)
    )
    # The naive difference, which moves the target too, is another number.
    both = differences(lambda x: negative_cosine(x[:2], x[2:]), [p], 0)
    assert np.abs(both[2:]).max() > 1e-3


def test_negative_cosine_and_normalised_mse_have_the_worked_values():
    p, z = [[3.0, 4]], [[1.0, 0]]
    assert float(decorrelation.negative_cosine(p, z)) == pytest.approx(-0.6)
    assert float(decorrelation.normalised_mse(p, z)) == pytest.approx(0.8)
    for other, cosine in [([[5.0, 0]], 1), ([[-2.0, 0]], -1), ([[0.0, 9]], 0)]:
        assert float(decorrelation.negative_cosine(other, z)) == pytest.approx(-cosine)
        assert float(decorrelation.normalised_mse(other, z)) == pytest.approx(2 - 2 * cosine)


def barlow(a, b, weight):
    n, d = a.shape

    def standard(z):
        return [(z[:, j] - z[:, j].mean()) / np.sqrt(z[:, j].var()) for j in range(d)]

    x, y, total = standard(a), standard(b), 0.0
    for i in range(d):
        for j in range(d):
            c = sum(x[i] * y[j]) / n
            total += (1 - c) ** 2 if i == j else weight * c**2
    return total


def test_barlow_twins_is_its_equation():
    holds(
        lambda a, b: decorrelation.barlow_twins(a, b, 0.05),
        lambda a, b: barlow(a, b, 0.05),
        draw(6, 4),
        draw(6, 4, seed=1),
    )


def test_barlow_twins_sees_no_correlation_in_constant_embeddings():
    # Their float32 means are off by a rounding error, the same in every row.
    constant = np.tile([[100.3, -7.77, 3.7]], [7, 1])
    assert float(decorrelation.barlow_twins(constant, constant, 0.05)) == pytest.approx(3, abs=1e-4)


def test_barlow_twins_has_the_worked_values():
    twice, four = np.repeat(SQUARE[:, :1], 2, 1), np.repeat(SQUARE[:, :1], 4, 1)
    cases = [
        (SQUARE, SQUARE, 0),
        (SQUARE, -SQUARE, 8),
        (twice, twice, 0.0102),
        (four, four, 0.0612),
    ]
    for a, b, expected in cases:
        found = float(decorrelation.barlow_twins(a, b, 0.0051))
        assert found == pytest.approx(expected, abs=1e-5)


def test_barlow_twins_ignores_the_scale_and_place_of_each_dimension():
    a, b = draw(16, 3), draw(16, 3, seed=1) + draw(16, 3)
    value = float(decorrelation.barlow_twins(a, b, 0.01))
    moved = b * [0.01, 1, 100] + [3, -1, 0]
    assert float(decorrelation.barlow_twins(a, moved, 0.01)) == pytest.approx(value, rel=1e-4)
    flipped = float(decorrelation.barlow_twins(a, b * [-1, 1, 1], 0.01))
    assert abs(flipped - value) > 0.1


def vicreg(a, b, invariance=25.0, variance=25.0, covariance=1.0):
    n, d = a.shape

    def spread(z):
        return np.mean([max(0, 1 - np.sqrt(z[:, j].var(ddof=1) + 1e-4)) for j in range(d)])

    def redundancy(z):
        z = z - z.mean(0)
        c = [[z[:, i] @ z[:, j] / (n - 1) for j in range(d)] for i in range(d)]
        return sum(c[i][j] ** 2 for i in range(d) for j in range(d) if i != j) / d

    agree = np.mean((a - b) ** 2)
    spreads = (spread(a) + spread(b)) / 2
    return invariance * agree + variance * spreads + covariance * (redundancy(a) + redundancy(b))


def test_vicreg_is_its_equation():
    a, b = 0.5 * draw(5, 3), 1.3 * draw(5, 3, seed=1)
    holds(decorrelation.vicreg, vicreg, a, b)
    for weights in [(1, 0, 0), (0, 1, 0), (0, 0, 1)]:
        found = float(decorrelation.vicreg(a, b, *weights))
        assert found == pytest.approx(vicreg(a, b, *weights), abs=1e-5)


@pytest.mark.parametrize(
    "a, b, expected",
    [
        (np.ones((4, 2)), np.ones((4, 2)), 24.75),
        (SQUARE, SQUARE, 0),
        (SQUARE / 2, SQUARE / 2, 10.564078),
        (SQUARE, SQUARE + 1, 25),
        (np.repeat(SQUARE[:, :1], 2, 1), np.repeat(SQUARE[:, :1], 2, 1), 3.555556),
    ],
)
def test_vicreg_has_the_worked_values(a, b, expected):
    assert float(decorrelation.vicreg(a, b)) == pytest.approx(expected, abs=1e-5)


def test_doubling_an_embedding_multiplies_its_covariance_term_by_sixteen():
    a = 3 * draw(8, 3)
    once = float(decorrelation.vicreg(a, a, 0, 1, 1))
    assert float(decorrelation.vicreg(2 * a, 2 * a, 0, 1, 1)) == pytest.approx(16 * once, rel=1e-5)
    assert float(decorrelation.vicreg(a + 5, a - 5, 0, 1, 1)) == pytest.approx(once, rel=1e-4)


def test_collapsed_embeddings_have_finite_gradients():
    same, zero = np.ones((4, 3)), np.zeros((4, 3))
    losses = [
        lambda a, b: decorrelation.barlow_twins(a, b, 0.01),
        decorrelation.vicreg,
        decorrelation.negative_cosine,
    ]
    for loss in losses:
        for x in (same, zero):
            assert all(np.isfinite(slope).all() for slope in gradients(loss, x, x))
