"""Cycle-consistency against slow transcriptions of its equations, and the card's numbers."""

import numpy as np
import pytest
from objective_checks import draw, gradients, holds

from tfssl.objectives import temporal


def softmax(x):
    return np.exp(x - x.max()) / np.exp(x - x.max()).sum()


def walk(u, v, temperature):
    """For each pair and start, the distribution over the frames of u where the walk ends."""
    scale, landings = u.shape[-1] * temperature, []
    for one, other in zip(u, v):
        for start in one:
            alpha = softmax(np.array([-sum((start - w) ** 2) / scale for w in other]))
            nearest = sum(a * w for a, w in zip(alpha, other))
            landings.append(softmax(np.array([-sum((nearest - w) ** 2) / scale for w in one])))
    return np.array(landings).reshape(len(u), u.shape[1], u.shape[1])


def classification(u, v, temperature):
    beta = walk(u, v, temperature)
    return -np.mean([np.log(b[i, i]) for b in beta for i in range(u.shape[1])])


def regression(u, v, temperature, weight):
    costs = []
    for beta in walk(u, v, temperature):
        t = np.arange(u.shape[1]) / u.shape[1]
        for i, b in enumerate(beta):
            mean = b @ t
            variance = b @ (t - mean) ** 2 + 1e-8
            costs.append((t[i] - mean) ** 2 / variance + weight * np.log(variance))
    return np.mean(costs)


def mse(u, v, temperature):
    t = np.arange(u.shape[1]) / u.shape[1]
    return np.mean([(t - beta @ t) ** 2 for beta in walk(u, v, temperature)])


def test_the_cycle_losses_are_their_equations():
    u, v = draw(2, 4, 3), draw(2, 5, 3, seed=1)
    holds(
        lambda u, v: temporal.cycle_back_classification(u, v, 0.7),
        lambda u, v: classification(u, v, 0.7),
        u,
        v,
    )
    holds(
        lambda u, v: temporal.cycle_back_regression(u, v, 0.7, 0.01),
        lambda u, v: regression(u, v, 0.7, 0.01),
        u,
        v,
    )
    holds(lambda u, v: temporal.cycle_back_mse(u, v, 0.7), lambda u, v: mse(u, v, 0.7), u, v)


@pytest.mark.parametrize(
    "u, expected",
    [
        (np.array([[[0.0], [1], [2]]]), (0.544700, 0.0151520, 0.427991)),
        (np.zeros((2, 4, 3)), (1.386294, 0.078125, 0.997451)),
    ],
)
def test_the_cycle_losses_have_the_worked_values(u, expected):
    found = (
        float(temporal.cycle_back_classification(u, u, 1.0)),
        float(temporal.cycle_back_mse(u, u, 1.0)),
        float(temporal.cycle_back_regression(u, u, 1.0, 0.001)),
    )
    assert found == pytest.approx(expected, abs=1e-5)


def test_the_walk_ignores_where_the_origin_is_and_the_order_of_the_other_video():
    u, v = draw(2, 5, 3), draw(2, 5, 3, seed=1)
    value = float(temporal.cycle_back_classification(u, v, 0.5))
    moved = float(temporal.cycle_back_classification(u + 100, v + 100, 0.5))
    assert moved == pytest.approx(value, abs=1e-3)
    assert float(temporal.cycle_back_classification(u, v[:, ::-1], 0.5)) == pytest.approx(value)


def test_a_video_and_itself_at_a_low_temperature_cost_nothing():
    u = draw(2, 6, 4)
    assert float(temporal.cycle_back_classification(u, u, 1e-3)) == pytest.approx(0, abs=1e-5)
    assert float(temporal.cycle_back_mse(u, u, 1e-3)) == pytest.approx(0, abs=1e-5)
    slopes = gradients(lambda u: temporal.cycle_back_regression(u, u, 1e-3, 0.001), u)
    assert np.isfinite(slopes[0]).all()
