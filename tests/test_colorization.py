"""Colourisation: Lab, bins, weights and the annealed mean by the card's numbers; no colour in."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import zoo_runs

from tfssl import zoo
from tfssl.objectives.classification import annealed_mean, rebalancing, soft_encoding
from tfssl.pipelines.augment.image import lab_to_rgb, rgb_to_lab

colorization = zoo.get("image.colorization")
regression = zoo.get("image.colorization_regression")
RANDOM = np.random.default_rng(0)
SEED = tf.constant([3, 4])


def model(grid=20, **options):
    centres = colorization.bins(grid)
    prior = np.full([len(centres)], 1 / len(centres), "float32")
    return colorization.Colorization(
        zoo_runs.tiny_image_encoder(), centres, prior, sigma=10.0, width=16, **options
    )


def test_lab_is_that_of_the_card():
    greys = np.linspace(0, 1, 101)[:, None].repeat(3, axis=1)
    colours = tf.constant([[1, 0, 0], [0, 0, 1], *greys], tf.float32)[None, None]
    lab = rgb_to_lab(colours).numpy()[0, 0]
    np.testing.assert_allclose(lab[:2], [[53.24, 80.09, 67.20], [32.30, 79.19, -107.86]], atol=0.05)
    assert np.abs(lab[2:, 1:]).max() < 0.01


def test_soft_targets_weights_and_annealed_means_are_those_of_the_card():
    plane = np.stack(np.meshgrid(range(-50, 51, 10), range(-50, 51, 10)), -1).reshape(-1, 2)
    for neighbours, expected in (
        (5, [0.648786] + [0.087804] * 4),
        (10, [0.619218] + [0.083802] * 4 + [0.011341] * 4 + [0.000208]),
    ):
        encoded = np.sort(soft_encoding(tf.constant([10.0, 20.0]), plane, neighbours, 5.0))[::-1]
        np.testing.assert_allclose(encoded[:neighbours], expected, atol=2e-6)
        assert encoded[neighbours:].max() == 0
    p = tf.constant([0.7, 0.2, 0.1])
    np.testing.assert_allclose(rebalancing(p, 0.5), [0.754170, 1.461204, 1.798405], atol=1e-5)
    np.testing.assert_allclose(rebalancing(p, 1.0), 1, atol=1e-6)
    z, centres = tf.math.log([0.6, 0.3, 0.1]), tf.constant([[0.0], [10.0], [20.0]])
    for temperature, expected in ((1.0, 5.0), (0.38, 1.5319), (0.01, 0.0)):
        assert float(annealed_mean(z, centres, temperature)[0]) == pytest.approx(expected, abs=1e-4)


def test_the_bins_hold_every_colour_of_the_gamut_and_none_is_empty():
    assert 255 <= len(colorization.bins(10)) <= 275 and 60 <= len(colorization.bins(20)) <= 85
    ab = rgb_to_lab(tf.constant(RANDOM.random([1, 1, 5000, 3]), tf.float32))[0, 0, :, 1:].numpy()
    nearest = np.abs(ab[:, None] - colorization.bins(10)[None]).max(axis=-1).min(axis=1)
    assert nearest.max() < 6.5, "a colour lies in its cell, or in a corner that the count missed"


def test_the_input_has_no_colour_and_the_target_is_every_fourth_pixels():
    examples = {"image": tf.constant(RANDOM.integers(0, 256, [2, 40, 40, 3]), tf.uint8)}
    x, y = colorization.views(examples, SEED, size=32)
    assert x.shape == (2, 32, 32, 3) and y.shape == (2, 8, 8, 2)
    np.testing.assert_array_equal(x[..., 0], x[..., 1])
    np.testing.assert_array_equal(x[..., 0], x[..., 2])
    from tfssl.pipelines.augment.image import random_resized_crop

    lab = rgb_to_lab(random_resized_crop(examples["image"], 32, SEED)).numpy()
    np.testing.assert_allclose(100 * x[..., 0].numpy(), lab[..., 0], atol=1e-4)
    np.testing.assert_allclose(110 * y.numpy(), lab[:, ::4, ::4, 1:], atol=1e-4)
    # The same lightness in other colours is the same input.
    swapped = lab_to_rgb(tf.constant(lab * [1, 0.2, -0.2], tf.float32))
    gamut = np.asarray((swapped > 0.001) & (swapped < 0.999)).all(axis=-1)
    again = colorization.lightness(rgb_to_lab(swapped)).numpy()
    np.testing.assert_allclose(again[gamut], x.numpy()[gamut], atol=1e-3)


def test_frequencies_are_counted_and_smoothed_and_even_where_all_is_grey():
    red = np.zeros([6, 8, 8, 3], np.uint8)
    red[:4, ..., 0] = 255
    examples = tf.data.Dataset.from_tensor_slices({"image": red})
    centres = colorization.bins(10)
    p = colorization.frequencies(examples, centres)
    assert p.sum() == pytest.approx(1, abs=1e-5)
    np.testing.assert_array_equal(centres[p.argmax()], [80, 70])
    assert np.sort(p)[-2] > 0.02, "its neighbours have a share"
    even = colorization.frequencies(examples.skip(4), centres)
    np.testing.assert_allclose(even, 1 / len(centres), rtol=1e-5)


def test_on_pictures_without_colour_a_run_is_built_and_its_loss_is_nothing():
    grey = np.repeat(RANDOM.integers(0, 256, [8, 32, 32, 1]), 3, axis=-1).astype("uint8")
    for name in ("image.colorization", "image.colorization_regression"):
        run = zoo_runs.tiny_run(name, {"image": grey})
        x, y = next(iter(run.dataset))
        assert float(run.model.objective(x, y, run.model(x))) == 0


def test_a_uniform_answer_costs_ln_q_and_grey_images_cost_nothing():
    method = model()
    y = tf.constant(RANDOM.uniform(-0.5, 0.5, [3, 8, 8, 2]), tf.float32)
    logits = tf.zeros([3, 8, 8, len(method.centres)])
    assert float(method.objective(None, y, logits)) == pytest.approx(method.chance, rel=1e-5)
    assert float(method.objective(None, y * 0.01, logits)) == 0
    half = tf.concat([y[:1], 0.01 * y[:1]], axis=0)
    loss = method.objective(None, half, logits[:2])
    assert float(loss) == pytest.approx(method.chance / 2, rel=1e-5)


def test_the_best_answer_costs_the_entropy_of_the_soft_targets():
    method = model()
    y = tf.constant(RANDOM.uniform(-0.5, 0.5, [2, 8, 8, 2]), tf.float32)
    target = soft_encoding(110 * y, method.centres, 5, 10.0)
    logits = tf.math.log(target + 1e-12)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = method.objective(None, y, logits)
    entropy = -np.sum(target * logits, axis=-1).mean()
    assert float(loss) == pytest.approx(entropy, rel=1e-4) and entropy > 0.5
    np.testing.assert_allclose(tape.gradient(loss, logits), 0, atol=1e-7)


def test_rare_colours_weigh_more_by_the_weight_of_the_nearest_bin():
    method = model()
    q = len(method.centres)
    balance = RANDOM.uniform(0.5, 2, q).astype("float32")
    method.balance.assign(balance)
    bins = RANDOM.integers(0, q, [2, 8, 8])
    y = method.centres.numpy()[bins] / 110
    loss = method.objective(None, tf.constant(y), tf.zeros([2, 8, 8, q]))
    assert float(loss) == pytest.approx(np.log(q) * balance[bins].mean(), rel=1e-5)


def test_two_textures_of_two_colours_are_told_apart_and_painted():
    keras.utils.set_random_seed(0)
    stripes = np.tile(np.array([0.35, 0.65])[np.arange(32) // 2 % 2], [32, 1])
    colours = np.array([[1.0, 0.6, 0.6], [0.6, 0.6, 1.0]])
    kinds = [stripes[..., None] * colours[0], stripes.T[..., None] * colours[1]]
    pictures = tf.constant(np.stack(kinds * 16), tf.float32)
    lab = rgb_to_lab(pictures)
    x, y = colorization.lightness(lab), lab[:, ::4, ::4, 1:] / 110
    method = model()
    method.compile(keras.optimizers.Adam(1e-2))
    method.fit(x, y, batch_size=8, epochs=25, verbose=0)
    painted = method.colourise(x[:2])
    assert painted.shape == (2, 32, 32, 3)
    difference = np.mean(painted[..., 0] - painted[..., 2], axis=(1, 2))
    assert difference[0] > 0.05 and difference[1] < -0.05


def test_the_regression_is_half_the_squared_distance_of_images_with_colour():
    method = regression.ColorizationRegression(zoo_runs.tiny_image_encoder(), 16)
    y = RANDOM.uniform(-0.5, 0.5, [3, 8, 8, 2])
    y[2] *= 0.01  # grey
    outputs = tf.constant(RANDOM.normal(size=y.shape), tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(outputs)
        loss = method.objective(None, tf.constant(y, tf.float32), outputs)
    difference = np.where(np.arange(3)[:, None, None, None] < 2, outputs.numpy() - y, 0)
    assert float(loss) == pytest.approx((difference**2).sum() / 2 / (3 * 8 * 8), rel=1e-5)
    gradient = tape.gradient(loss, outputs)
    np.testing.assert_allclose(gradient, difference / (3 * 8 * 8), atol=1e-6)
    assert method(tf.zeros([1, 30, 32, 3])).shape == (1, 8, 8, 2)


def test_of_a_thing_of_two_colours_the_regression_paints_the_mean_and_bins_the_likelier():
    light = tf.constant(RANDOM.random([1, 16, 16, 1]).repeat(3, -1), tf.float32)
    red = np.where(np.arange(8) % 4, 60.0, -60.0)[:, None, None, None]  # three times of four
    y = tf.constant(np.broadcast_to(red * [1.0, 0.0], [8, 4, 4, 2]) / 110, tf.float32)
    pictures = tf.tile(light, [8, 1, 1, 1])  # nothing tells which
    painted = {}
    for method in (model(), regression.ColorizationRegression(zoo_runs.tiny_image_encoder(), 16)):
        method.compile(keras.optimizers.Adam(0.02))
        method.fit(pictures, y, batch_size=8, epochs=60, verbose=0)
        # With the batch's own statistics: moving ones lag behind in so few steps.
        outputs = method(pictures, training=True)
        binned = isinstance(method, colorization.Colorization)
        ab = annealed_mean(outputs, method.centres, 0.38) if binned else 110 * outputs
        painted[binned] = float(tf.reduce_mean(ab[..., 0]))
    assert painted[False] == pytest.approx(30, abs=5)
    assert painted[True] > 45
