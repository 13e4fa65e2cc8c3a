"""Warping and photometric losses against slow transcriptions, and the cards' numbers."""

import numpy as np
import pytest
import tensorflow as tf
from objective_checks import draw, gradients, holds

from tfssl.objectives import geometry


def warp(images, flow):
    out = np.zeros(flow.shape[:3] + images.shape[-1:])
    _, height, width, _ = images.shape
    for b, y, x in np.ndindex(flow.shape[:3]):
        u, v = x + flow[b, y, x, 0], y + flow[b, y, x, 1]
        for row in (int(np.floor(v)), int(np.floor(v)) + 1):
            for column in (int(np.floor(u)), int(np.floor(u)) + 1):
                if 0 <= row < height and 0 <= column < width:
                    weight = (1 - abs(v - row)) * (1 - abs(u - column))
                    out[b, y, x] += weight * images[b, row, column]
    return out


def test_warp_is_bilinear_with_zeros_outside():
    images, flow, probe = draw(2, 4, 5, 3), 1.5 * draw(2, 4, 5, 2, seed=1), draw(2, 4, 5, 3, seed=2)
    np.testing.assert_allclose(geometry.warp(images, flow), warp(images, flow), atol=1e-5)
    holds(
        lambda i, f: tf.reduce_mean(geometry.warp(i, f) * probe.astype("float32")),
        lambda i, f: np.mean(warp(i, f) * probe),
        images,
        flow,
    )


def test_warp_by_whole_pixels_copies_and_keeps_the_last_row_and_column():
    images = np.arange(1.0, 17).reshape(1, 4, 4, 1)
    assert np.array_equal(geometry.warp(images, np.zeros((1, 4, 4, 2))), images)
    right = geometry.warp(images, np.broadcast_to([1.0, 0], (1, 4, 4, 2))).numpy()[0, ..., 0]
    assert right.tolist() == [[2, 3, 4, 0], [6, 7, 8, 0], [10, 11, 12, 0], [14, 15, 16, 0]]
    down = geometry.warp(images, np.broadcast_to([0.0, 1], (1, 4, 4, 2))).numpy()[0, ..., 0]
    assert down.tolist() == [[5, 6, 7, 8], [9, 10, 11, 12], [13, 14, 15, 16], [0, 0, 0, 0]]
    far = geometry.warp(images, np.full((1, 4, 4, 2), 1e12))
    assert not np.any(far)


def test_a_flow_that_is_no_number_gives_none_and_spares_its_neighbours():
    """A run that diverges shall end by its loss, not by an index outside of the image."""
    flow = np.zeros((1, 3, 3, 2))
    flow[0, 1, 1] = np.nan
    warped = geometry.warp(np.ones((1, 3, 3, 1)), flow).numpy()[0, ..., 0]
    assert np.isnan(warped).tolist() == [[False] * 3, [False, True, False], [False] * 3]


def test_the_slope_of_a_warp_at_whole_pixels_is_that_towards_the_right_and_below():
    images = draw(2, 5, 6, 3)
    for shift in (0.0, 1.0, -2.0):
        flow = np.full((2, 5, 6, 2), shift)
        (_, found) = gradients(lambda i, f: tf.reduce_sum(geometry.warp(i, f)), images, flow)
        ahead = []
        for axis in (0, 1):
            moved = flow + 1e-3 * np.eye(2)[axis]
            ahead.append((warp(images, moved) - warp(images, flow)).sum(-1) / 1e-3)
        np.testing.assert_allclose(found, np.stack(ahead, axis=-1), atol=1e-4)


def test_inside_counts_the_border_as_inside():
    flow = np.broadcast_to([1.0, 0], (1, 2, 3, 2))
    assert geometry.inside(flow).numpy().tolist() == [[[1, 1, 0], [1, 1, 0]]]
    assert np.all(geometry.inside(np.zeros((1, 2, 3, 2))) == 1)


def census(images, patch):
    grey = 255 * (images[..., 0] if images.shape[-1] == 1 else images @ [0.2989, 0.587, 0.114])
    _, height, width = grey.shape
    r = patch // 2
    out = np.zeros((*grey.shape, patch**2))
    for b, y, x in np.ndindex(grey.shape):
        if r <= y < height - r and r <= x < width - r:
            around = [(dy, dx) for dy in range(-r, r + 1) for dx in range(-r, r + 1)]
            for n, (dy, dx) in enumerate(around):
                d = grey[b, y + dy, x + dx] - grey[b, y, x]
                out[b, y, x, n] = d / np.sqrt(0.81 + d**2)
    return out


def distance(a, b):
    return ((a - b) ** 2 / (0.1 + (a - b) ** 2)).sum(-1)


@pytest.mark.parametrize("channels, patch", [(1, 3), (3, 3), (1, 5)])
def test_census_is_its_equation(channels, patch):
    images = 0.02 * draw(2, 6, 7, channels) + 0.5
    found = geometry.census(images, patch)
    assert found.shape == (2, 6, 7, patch**2)
    np.testing.assert_allclose(found, census(images, patch), atol=5e-5)


def test_census_ignores_a_constant_added_to_the_image():
    image = np.random.default_rng(0).integers(0, 200, (1, 8, 8, 1)) / 255
    found, brighter = geometry.census(image, 7), geometry.census(image + 37 / 255, 7)
    np.testing.assert_array_equal(found, brighter)
    same = geometry.census_loss(image, image, 1.0, 7)
    assert float(geometry.census_loss(image, image + 37 / 255, 1.0, 7)) == float(same)


def test_census_has_the_worked_values():
    step = np.zeros((1, 3, 3, 1))
    step[0, 0, 0] = 1 / 255
    found = geometry.census(step, 3).numpy()[0, 1, 1]
    assert found[0] == pytest.approx(0.74329, abs=1e-5) and not found[1:].any()
    apart = geometry.census_distance(found[None, None, None], np.zeros((1, 1, 1, 9)))
    assert float(apart[0, 0, 0]) == pytest.approx(0.84674, abs=1e-5)
    black, dot = np.zeros((1, 5, 5, 1)), np.zeros((1, 5, 5, 1))
    dot[0, 2, 2] = 10 / 255
    h = geometry.census_distance(geometry.census(black, 3), geometry.census(dot, 3)).numpy()[0]
    assert h[2, 2] == pytest.approx(7.2674, abs=1e-4)
    assert h[1:4, 1:4].sum() - h[2, 2] == pytest.approx(8 * 0.9084, abs=1e-3)
    assert float(geometry.census_loss(black, dot, 1.0, 3)) == pytest.approx(0.531897, abs=1e-5)
    assert float(geometry.census_loss(black, black, 1.0, 3)) == pytest.approx(0.000718, abs=1e-6)


def test_census_loss_is_its_equation_and_sees_no_gradient_in_the_mask():
    mask = (draw(1, 5, 6, seed=2) > 0).astype(float)

    def reference(a, b, mask):
        cost = (distance(census(a, 3), census(b, 3)) ** 2 + 1e-6) ** 0.45
        inner = np.zeros((1, 5, 6))
        inner[:, 1:-1, 1:-1] = 1
        return np.sum(cost * mask * inner) / 30

    # Grey levels a few apart: beyond that the transform saturates and its slopes vanish.
    a, b = 0.01 * draw(1, 5, 6, 1) + 0.4, 0.01 * draw(1, 5, 6, 1, seed=1) + 0.4
    found = geometry.census_loss(a, b, mask, 3)
    assert float(found) == pytest.approx(reference(a, b, mask), abs=1e-5)
    from objective_checks import differences

    slopes = gradients(lambda a, b, m: geometry.census_loss(a, b, m, 3), a, b, mask)
    assert not np.any(slopes[2])
    for which in (0, 1):
        numeric = differences(reference, [a, b, mask], which, step=1e-7)
        np.testing.assert_allclose(slopes[which], numeric, rtol=1e-3, atol=2e-3)


def test_charbonnier_is_its_formula():
    x = np.array([-2.0, 0, 0.001, 5])
    found = geometry.charbonnier(x, 0.001, 0.45)
    np.testing.assert_allclose(found, (x**2 + 1e-6) ** 0.45, rtol=1e-5)
    assert float(found[1]) == pytest.approx(0.0019953, abs=1e-7)


def test_ssim_is_its_equation():
    def reference(a, b):
        costs = []
        for n, y, x, c in np.ndindex(a.shape[0], a.shape[1] - 2, a.shape[2] - 2, a.shape[3]):
            p, q = a[n, y : y + 3, x : x + 3, c], b[n, y : y + 3, x : x + 3, c]
            above = (2 * p.mean() * q.mean() + 1e-4) * (
                2 * np.mean((p - p.mean()) * (q - q.mean())) + 9e-4
            )
            below = (p.mean() ** 2 + q.mean() ** 2 + 1e-4) * (p.var() + q.var() + 9e-4)
            costs.append(np.clip((1 - above / below) / 2, 0, 1))
        return np.mean(costs)

    holds(
        geometry.ssim, reference, 0.5 + 0.1 * draw(1, 5, 4, 2), 0.5 + 0.1 * draw(1, 5, 4, 2, seed=1)
    )


def test_ssim_has_the_worked_values():
    def flat(value):
        return np.full((1, 5, 5, 3), value)

    assert float(geometry.ssim(flat(0.2), flat(0.6))) == pytest.approx((1 - 0.6001) / 2, abs=1e-6)
    e = 0.85 * float(geometry.ssim(flat(0.2), flat(0.6))) + 0.15 * 0.4
    assert e == pytest.approx(0.229958, abs=1e-5)
    assert 0.85 * float(geometry.ssim(flat(0.0), flat(1.0))) + 0.15 == pytest.approx(
        0.574958, abs=1e-5
    )
    assert float(geometry.ssim(flat(0.3), flat(0.3))) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("order", [1, 2])
def test_smoothness_is_its_equation_and_the_image_is_no_variable(order):
    def reference(field, image):
        total = 0.0
        for axis in (1, 2):
            f, i = np.moveaxis(field, axis, 0), np.moveaxis(image, axis, 0)
            costs = []
            for n in range(len(f) - order):
                bend = f[n + 1] - f[n] if order == 1 else f[n + 2] - 2 * f[n + 1] + f[n]
                edge = np.abs(i[n + order] - i[n]).mean(-1, keepdims=True)
                costs.append(np.abs(bend) * np.exp(-edge))
            total += np.mean(costs)
        return total

    holds(
        lambda f, i: geometry.smoothness(f, i, order),
        reference,
        draw(2, 4, 5, 2),
        draw(2, 4, 5, 3, seed=1),
        frozen=(1,),
    )


def test_a_step_of_the_field_costs_less_on_a_step_of_the_image():
    step = np.zeros((1, 4, 6, 1))
    step[:, :, 3:] = 1
    flat = float(geometry.smoothness(step, 0 * step, 1))
    assert float(geometry.smoothness(step, step, 1)) == pytest.approx(0.367879 * flat, abs=1e-6)
    ramp = np.broadcast_to(np.arange(6.0)[None, None, :, None], (1, 4, 6, 1))
    assert float(geometry.smoothness(ramp, step, 2)) == 0
    with pytest.raises(ValueError, match="order"):
        geometry.smoothness(step, step, 3)


def test_second_order_smoothness_is_its_equation():
    def reference(flow):
        batch, height, width, _ = flow.shape
        total = 0.0
        for b, y, x in np.ndindex(batch, height, width):
            for dy, dx in [(0, 1), (1, 0), (1, 1), (1, -1)]:
                ends = [(y - dy, x - dx), (y + dy, x + dx)]
                if all(0 <= r < height and 0 <= c < width for r, c in ends):
                    bend = flow[b][ends[0]] + flow[b][ends[1]] - 2 * flow[b, y, x]
                    total += ((bend**2 + 1e-6) ** 0.45).sum()
        return total / (4 * batch * height * width)

    holds(geometry.second_order_smoothness, reference, draw(2, 4, 5, 2))


def test_an_affine_flow_costs_only_the_floor():
    y, x = np.mgrid[:8, :8]
    flow = np.stack([2.0 * x + y, x - 3.0 * y + 1], -1)[None]
    found = float(geometry.second_order_smoothness(flow))
    assert found == pytest.approx(0.0026188, abs=1e-6)


@pytest.mark.parametrize("back, hidden", [(-9.0, 0), (-8.5, 1)])
def test_occlusion_has_the_worked_bounds(back, hidden):
    flow = np.zeros((1, 1, 21, 2))
    flow[..., 0] = 10
    returned = np.zeros((1, 1, 21, 2))
    returned[..., 0] = back
    found = geometry.occlusion(flow, returned).numpy()[0, 0]
    assert found[:11].tolist() == [hidden] * 11
    assert found[11:].tolist() == [1] * 10  # left the image


def test_masks_carry_no_gradient_and_consistency_is_its_equation():
    flow, back = 0.7 * draw(1, 4, 5, 2), 0.7 * draw(1, 4, 5, 2, seed=1)
    mask = (draw(1, 4, 5, seed=2) > 0).astype(float)
    slopes = gradients(lambda f, b: tf.reduce_sum(geometry.occlusion(f, b)), flow, back)
    assert not np.any(slopes[0]) and not np.any(slopes[1])

    def reference(f, b):
        cost = ((f + warp(b, f)) ** 2 + 1e-6) ** 0.45
        return np.sum(cost.sum(-1) * mask) / 20

    holds(lambda f, b: geometry.consistency(f, b, mask), reference, flow, back)


def test_the_true_flow_of_a_textured_translation_is_a_minimum():
    texture = np.random.default_rng(5).random((1, 20, 20, 1))
    texture = tf.image.resize(texture, (60, 60), "bicubic").numpy()
    first, second = texture[:, 10:50, 10:50], texture[:, 10:50, 7:47]  # content moves 3 px right
    flow = np.zeros((1, 40, 40, 2))

    def loss(u):
        flow[..., 0] = u
        mask = geometry.inside(flow)
        return float(geometry.census_loss(first, geometry.warp(second, flow), mask, 5))

    costs = [loss(u) for u in (2.0, 2.5, 3.0, 3.5, 4.0)]
    assert int(np.argmin(costs)) == 2
