"""Counting: worked numbers, the trivial solution, a tiling that partitions, and counts that add."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import zoo_runs

from tfssl import pipelines, zoo
from tfssl.errors import BadInput
from tfssl.pipelines.sample import patches

counting = zoo.get("image.learning_to_count")
RANDOM = np.random.default_rng(0)
SEED = tf.constant([3, 4])


def slow(whole, total, other, margin):
    """Equation 5, image by image."""
    costs = [
        ((d - s) ** 2).sum() + max(0, margin - ((y - s) ** 2).sum())
        for d, s, y in zip(whole, total, other)
    ]
    return np.mean(costs)


def model(**options):
    options = {"hidden": (16,), "counts": 8, **options}
    return counting.LearningToCount(zoo_runs.tiny_image_encoder(), **options)


def test_the_cards_number_comes_out_of_norms_of_whole_vectors():
    phi = np.concatenate([[[[1.0, 2.0]]], np.tile([0.25, 0.5], [1, 4, 1])], axis=1)
    outputs = tf.constant(phi, tf.float32)
    total = tf.reduce_sum(outputs[:, 1:], axis=1)
    np.testing.assert_allclose(total, [[1, 2]])
    loss = counting.counting(outputs[:, 0], total, tf.zeros([1, 2]), 10.0)
    assert float(loss) == pytest.approx(5.0)


def test_the_loss_is_the_slow_formula_and_its_gradient():
    arrays = [RANDOM.uniform(0, 2, [5, 4]) for _ in range(3)]
    tensors = [tf.constant(a, tf.float32) for a in arrays]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        loss = counting.counting(*tensors, 4.0)
    assert float(loss) == pytest.approx(slow(*arrays, 4.0), rel=1e-5)
    gradients, step = tape.gradient(loss, tensors), 1e-5
    for k in range(3):
        for at in [(0, 0), (2, 3), (4, 1)]:
            moved = [a.copy() for a in arrays]
            moved[k][at] += step
            slope = (slow(*moved, 4.0) - slow(*arrays, 4.0)) / step
            assert gradients[k].numpy()[at] == pytest.approx(slope, abs=1e-3)


def test_counting_nothing_costs_exactly_the_margin_and_without_it_nothing():
    nothing = tf.zeros([4, 5, 8])
    assert float(model().objective(None, None, nothing)) == 10.0
    assert float(model(margin=0.0).objective(None, None, nothing)) == 0.0


@pytest.mark.parametrize("distance, far", [(16.0, True), (10.0, True), (9.0, False)])
def test_an_other_image_beyond_the_margin_has_no_gradient_at_all(distance, far):
    total, other = tf.zeros([1, 10]), tf.sqrt(tf.fill([1, 10], distance / 10))
    with tf.GradientTape() as tape:
        tape.watch(other)
        loss = counting.counting(total, total, other, 10.0)
    assert (np.abs(tape.gradient(loss, other)).max() == 0) == far


def test_the_other_image_is_the_one_before_and_never_itself():
    whole = tf.constant([[0.0], [1.0], [2.0]])
    np.testing.assert_array_equal(counting.another(whole), [[2], [0], [1]])


def test_every_pixel_lies_in_exactly_one_quarter_and_white_dots_add_up():
    side = 16
    place = np.arange(side * side, dtype=np.float32).reshape(1, side, side, 1)
    quarters = patches.quadrants(tf.constant(np.tile(place, [1, 1, 1, 3]))).numpy()
    assert quarters.shape == (1, 4, 8, 8, 3)
    np.testing.assert_array_equal(np.sort(quarters[..., 0].ravel()), np.arange(side * side))
    np.testing.assert_array_equal(quarters[0, 1, :, :, 0], place[0, :8, 8:, 0])
    dots = (RANDOM.random([3, side, side, 1]) < 0.1).astype("float32") * np.ones(3, "float32")
    x = counting.views({"image": tf.constant(dots)}, SEED, side, share=1.0, shift=0).numpy()
    # Shrunk by areas a dot keeps all its light (other kernels overshoot, which is clipped).
    area = counting.shrink(tf.constant(dots), tf.zeros([3], tf.int32)).numpy()
    counts = x[:, 1:, :, :, 0].sum(axis=(1, 2, 3))
    np.testing.assert_allclose(counts, dots[..., 0].sum(axis=(1, 2)), rtol=1e-5)
    whole = 4 * area[..., 0].sum(axis=(1, 2))
    np.testing.assert_allclose(whole, counts, rtol=1e-4)
    phi = np.concatenate([whole[:, None], x[:, 1:, :, :, 0].sum(axis=(2, 3))], axis=1)[..., None]
    first = counting.counting(
        *(tf.constant(v, tf.float32) for v in (phi[:, 0], phi[:, 1:].sum(axis=1), phi[:, 0] + 1e3)),
        10.0,
    )
    assert float(first) == pytest.approx(0, abs=1e-5)


def test_each_image_is_shrunk_in_its_own_way_as_the_resize_function_does():
    pictures = tf.constant(RANDOM.random([5, 16, 16, 3]), tf.float32)
    ours = counting.shrink(pictures, tf.range(5)).numpy()
    for k, method in enumerate(counting.SHRINKING):
        expected = tf.image.resize(pictures[k], [8, 8], method, antialias=method != "area")
        np.testing.assert_allclose(ours[k], np.clip(expected, 0, 1), atol=1e-5)
    same = tf.tile(pictures[:1], [60, 1, 1, 1])
    whole = counting.views({"image": same}, SEED, 16, share=1.0, grey=0.0, shift=0)[:, 0]
    assert len(np.unique(np.round(whole.numpy(), 4), axis=0)) == 5


def test_two_thirds_are_grey_and_the_channels_of_the_others_are_apart():
    ramp = np.tile(np.arange(32, dtype=np.float32)[None, :, None, None] / 40, [300, 1, 32, 3])
    x = counting.views({"image": tf.constant(ramp)}, SEED, 28, share=30 / 32, shift=2).numpy()
    assert x.shape == (300, 5, 14, 14, 3)
    apart = np.round((x[:, 1, 3, 3, 1] - x[:, 1, 3, 3, 0]) * 40)
    colour = np.ptp(x, axis=-1).max(axis=(1, 2, 3)) > 1e-4
    assert set(apart.astype(int)) == {-2, -1, 0, 1, 2}
    # Where all three happen to move alike (1 of 27) nothing is to be seen.
    assert colour.mean() == pytest.approx(1 / 3 * 8 / 9, abs=0.08)


def test_a_side_that_has_no_half_is_refused():
    with pytest.raises(BadInput, match="even"):
        zoo_runs.tiny_run("image.learning_to_count", size=31)


def test_counts_are_never_negative():
    x = RANDOM.random([3, 5, 16, 16, 3]).astype("float32")
    phi = model()(x).numpy()
    assert phi.shape == (3, 5, 8) and phi.min() >= 0 and phi.max() > 0


def test_after_training_the_whole_counts_what_its_own_quarters_count():
    keras.utils.set_random_seed(0)
    source = pipelines.load("digits", keys=("image",))
    everything = np.stack([e["image"] for e in source.as_numpy_iterator()])
    training, held_out = tf.constant(everything[:-128]), tf.constant(everything[-128:])
    counter = model(hidden=(32,), counts=16)
    counter.compile(keras.optimizers.Adam(3e-3))

    def batch(i):
        seed = tf.stack([1, tf.cast(i, tf.int32)])
        picked = tf.random.stateless_uniform([64], seed, 0, len(training), tf.int32)
        return counting.views({"image": tf.gather(training, picked)}, seed, 32, shift=1)

    counter.fit(tf.data.Dataset.range(200).map(batch), verbose=0)
    phi = counter(counting.views({"image": held_out}, SEED, 32, shift=1)).numpy()
    whole, total = phi[:, 0], phi[:, 1:].sum(axis=1)
    alive = (whole.std(axis=0) > 1e-3) & (total.std(axis=0) > 1e-3)
    assert whole.mean() > 0.05 and alive.sum() >= 2, "the counts did not collapse"

    def correlation(a, b):
        return np.mean([np.corrcoef(a[:, k], b[:, k])[0, 1] for k in np.flatnonzero(alive)])

    own = correlation(whole, total)
    others = correlation(whole, np.roll(total, 1, axis=0))
    assert own > 0.5 and own > others + 0.4
