"""Regression losses against slow transcriptions of their equations, and the cards' numbers."""

import numpy as np
import pytest
from objective_checks import draw, gradients, holds

from tfssl.objectives import reconstruction


def masked_mse(prediction, target, mask):
    hidden = [(b, n) for b in range(mask.shape[0]) for n in range(mask.shape[1]) if mask[b, n]]
    return np.mean([np.mean((prediction[p] - target[p]) ** 2) for p in hidden])


def test_masked_mse_is_its_equation_and_leaves_visible_patches_alone():
    mask = np.array([[1, 0, 1], [0, 0, 1]])
    prediction, target = draw(2, 3, 4), draw(2, 3, 4, seed=1)
    holds(
        lambda p, t: reconstruction.masked_mse(p, t, mask),
        lambda p, t: masked_mse(p, t, mask),
        prediction,
        target,
    )
    (slope,) = gradients(lambda p: reconstruction.masked_mse(p, target, mask), prediction)
    assert not np.any(slope.numpy()[mask == 0])


def test_masked_mse_has_the_worked_value():
    patches = np.array([[[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]], float)
    for n, expected in enumerate([10.5, 24.5, 114.5, 160.5]):
        found = reconstruction.masked_mse(0 * patches, patches, np.eye(4)[n : n + 1])
        assert float(found) == pytest.approx(expected)
    found = reconstruction.masked_mse(0 * patches, patches, [[1, 0, 0, 1]])
    assert float(found) == pytest.approx(85.5)
    assert float(reconstruction.masked_mse(0 * patches, patches, [[0, 0, 0, 0]])) == 0


def test_what_lies_outside_the_mask_may_be_anything():
    x = np.array([[1.0, np.nan], [3.0, np.inf]])
    mask = [[1, 0], [1, 0]]
    assert float(reconstruction.masked_mean(x, mask)) == 2
    assert gradients(lambda x: reconstruction.masked_mean(x, mask), x)[0].numpy().tolist() == [
        [0.5, 0],
        [0.5, 0],
    ]


@pytest.mark.parametrize("values, expected", [(4, 0.75), (48, 0.979167), (768, 0.998698)])
def test_zero_against_a_normalised_patch_costs_its_biased_share(values, expected):
    patches = 3 * draw(1, 2, values) + 5
    target = reconstruction.normalise_patches(patches)
    found = reconstruction.masked_mse(0 * patches, target, [[1, 0]])
    assert float(found) == pytest.approx(expected, abs=1e-5)
    flat = reconstruction.normalise_patches(np.full((1, 1, values), 0.3))
    assert np.abs(flat).max() < 1e-3
    by_hand = (patches - patches.mean(-1, keepdims=True)) / np.sqrt(
        patches.var(-1, ddof=1, keepdims=True) + 1e-6
    )
    np.testing.assert_allclose(target, by_hand, atol=1e-5)


def test_plain_errors_are_means_over_everything():
    a, b = draw(3, 2, 2), draw(3, 2, 2, seed=1)
    holds(reconstruction.squared_error, lambda a, b: np.mean((a - b) ** 2), a, b)
    holds(reconstruction.absolute_error, lambda a, b: np.mean(np.abs(a - b)), a, b)
