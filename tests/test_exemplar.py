"""Exemplars, as classes and as triplets: targets, worked numbers, collapse, what is learnt."""

import numpy as np
import pytest
import tensorflow as tf

from tfssl import zoo
from tfssl.objectives.contrastive import triplet

exemplar_triplet = zoo.get("image.exemplar_triplet")
RANDOM = np.random.default_rng(0)
SEED = tf.constant([3, 4])


def slow_semi_hard(z, margin):
    """The mean over all pairs of crops of one image, pair by pair."""
    images, crops, _ = z.shape
    flat = (z / np.linalg.norm(z, axis=-1, keepdims=True)).reshape(images * crops, -1)
    costs = []
    for a in range(images * crops):
        others = [n for n in range(images * crops) if n // crops != a // crops]
        for p in range(images * crops):
            if p == a or p // crops != a // crops:
                continue
            near = 1 - flat[a] @ flat[p]
            far = np.array([1 - flat[a] @ flat[n] for n in others])
            negative = far[far > near].min() if (far > near).any() else far.max()
            costs.append(max(near - negative + margin, 0))
    return np.mean(costs)


def test_the_cards_triplets_cost_what_it_says_in_both_orders():
    anchor, negative = [[1.0, 0.0]], [[0.0, 1.0]]
    positive = [[2**-0.5, 2**-0.5]]
    assert float(triplet(anchor, positive, negative, 0.5)) == 0
    assert float(triplet(anchor, negative, positive, 0.5)) == pytest.approx(1.20711, abs=1e-5)
    # As two images of two crops: [1, 0] pays nothing; [1, 1] has all at 0.29289 and pays M; the two
    # of the other image coincide, and their nearest negative is [1, 1].
    z = tf.constant([[[1, 0], [1, 1]], [[0, 3], [0, 2]]], tf.float32)
    expected = np.mean([0, 0.5, 0.20711, 0.20711])
    assert float(exemplar_triplet.semi_hard(z, 0.5)) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("crops", [2, 3])
def test_triplets_are_the_slow_formula_and_its_gradient(crops):
    z = RANDOM.normal(size=[4, crops, 5])
    loss = exemplar_triplet.semi_hard(tf.constant(z, tf.float32), 0.5)
    assert float(loss) == pytest.approx(slow_semi_hard(z, 0.5), rel=1e-5)
    with tf.GradientTape() as tape:
        x = tf.constant(z, tf.float32)
        tape.watch(x)
        loss = exemplar_triplet.semi_hard(x, 0.5)
    gradient, step = tape.gradient(loss, x).numpy(), 1e-5
    for _ in range(8):
        at = tuple(RANDOM.integers(0, side) for side in z.shape)
        moved = np.zeros_like(z)
        moved[at] = step
        slope = (slow_semi_hard(z + moved, 0.5) - slow_semi_hard(z - moved, 0.5)) / (2 * step)
        assert gradient[at] == pytest.approx(slope, abs=1e-4)


def test_the_length_of_an_embedding_and_its_neighbours_in_the_batch_do_not_enter_its_norm():
    z = RANDOM.normal(size=[3, 2, 4]).astype("float32")
    longer = z * RANDOM.uniform(0.1, 10, [3, 2, 1]).astype("float32")
    a, b = (float(exemplar_triplet.semi_hard(tf.constant(v), 0.5)) for v in (z, longer))
    assert a == pytest.approx(b, abs=1e-5)


def test_one_embedding_for_all_costs_exactly_the_margin_and_has_no_gradient():
    z = tf.tile(tf.constant([[[3.0, 4.0, 0.0]]]), [4, 2, 1])
    with tf.GradientTape() as tape:
        tape.watch(z)
        loss = exemplar_triplet.semi_hard(z, 0.5)
    assert float(loss) == pytest.approx(0.5, abs=1e-6)
    np.testing.assert_allclose(tape.gradient(loss, z), 0, atol=1e-6)


def test_crops_of_one_image_are_drawn_apart_and_some_are_grey():
    pictures = tf.constant(RANDOM.integers(0, 256, [20, 32, 32, 3]), tf.uint8)
    crops = exemplar_triplet.views({"image": pictures}, SEED, size=16, crops=4).numpy()
    assert crops.shape == (20, 4, 16, 16, 3)
    assert (np.abs(crops[:, 0] - crops[:, 1]).max(axis=(1, 2, 3)) > 0.01).all()
    grey = np.ptp(crops, axis=-1).max(axis=(2, 3)) < 1e-3
    assert 0.5 < grey.mean() < 0.8
    assert (grey.any(axis=1) & ~grey.all(axis=1)).any(), "each crop has its own draw"
