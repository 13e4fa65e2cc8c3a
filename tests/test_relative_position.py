"""Relative position: labels, geometry, the guards against shortcuts, and what can be learnt."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import zoo_runs

from tfssl import zoo
from tfssl.errors import BadInput
from tfssl.pipelines.augment.image import project_colour
from tfssl.pipelines.sample.patches import NEIGHBOURS, neighbour_label, neighbour_patches

relative_position = zoo.get("image.relative_position")
RANDOM = np.random.default_rng(0)
SEED = tf.constant([3, 4])
MEAN = np.array([0.485, 0.456, 0.406])


def images(count=200, side=64):
    return tf.constant(RANDOM.integers(0, 256, [count, side, side, 3]), tf.uint8)


def test_labels_are_raster_order_and_opposites_add_to_seven():
    for down, right in NEIGHBOURS:
        assert neighbour_label(-down, -right) == 7 - neighbour_label(down, right)
    assert (
        neighbour_label(-1, -1) == 0 and neighbour_label(0, 1) == 4 and neighbour_label(1, 0) == 6
    )


def test_the_second_patch_lies_where_the_label_says_with_a_free_strip_between():
    ramp = np.arange(64) / 64
    coordinates = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None], 0.0), axis=-1)
    pictures = tf.constant(np.tile(coordinates, [300, 1, 1, 1]), tf.float32)
    patches, labels = relative_position.neighbours(pictures, SEED, 64, (1.0, 1.0), shrink=0.0)
    corners = np.round(patches[:, :, 0, 0, :2].numpy() * 64)
    moved = corners[:, 1] - corners[:, 0]  # lattice of 16 + 6 px, each corner up to 2 px off
    for offset, label in zip(moved, labels.numpy()):
        cell = np.array(NEIGHBOURS[label])
        assert (np.abs(offset - 22 * cell) <= 4).all()
        assert (np.abs(offset[cell != 0]) >= 16 + 2).all(), "a strip of 2 px stays free"
    assert set(labels.numpy()) == set(range(8))


def test_at_the_papers_sizes_patches_are_130_to_158_pixels_apart():
    place = np.arange(300, dtype=np.float32)
    coordinates = np.stack(np.broadcast_arrays(place[:, None], place[None], 0.0), axis=-1)
    pictures = tf.constant(np.tile(coordinates, [40, 1, 1, 1]))
    patches, labels = neighbour_patches(pictures, SEED, 96, 48, 7, grid=2)
    moved = np.abs(patches[:, 1, 0, 0, :2] - patches[:, 0, 0, 0, :2])
    apart = moved[np.array(NEIGHBOURS)[labels] != 0]
    assert apart.min() >= 130 and apart.max() <= 158, "34 to 62 pixels stay free"


def test_the_papers_sizes_fit_pictures_of_any_shape():
    wide = tf.constant(RANDOM.integers(0, 256, [1, 60, 200, 3]), tf.uint8)
    patches, _ = relative_position.views({"image": wide}, SEED)
    assert patches.shape == (1, 2, 96, 96, 3)


def test_each_patch_keeps_one_channel_in_noise_with_a_root_mean_square_of_exactly_fifty():
    patches, _ = relative_position.views({"image": images(50)}, SEED, size=64, area=(1.0, 1.0))
    p = 255 * (patches.numpy().reshape(100, -1, 3) - MEAN)
    np.testing.assert_allclose(np.sqrt((p**2).mean(axis=(1, 2))), 50, rtol=1e-3)
    energy = np.sort(np.sqrt((p**2).mean(axis=1)), axis=1)
    assert (energy[:, 1] < 4).all() and (energy[:, 2] > 85).all()
    kept = np.argmax((p**2).mean(axis=1), axis=1).reshape(50, 2)
    assert len(set(kept.ravel())) == 3 and (kept[:, 0] != kept[:, 1]).any()
    flat = relative_position.standardise(tf.fill([1, 8, 8, 3], 0.3))
    np.testing.assert_array_equal(flat, 0)


def test_projection_takes_out_green_against_magenta_alone():
    matrix = project_colour(tf.eye(3)[:, None, None]).numpy()[:, 0, 0]
    expected = [[5 / 6, 1 / 3, -1 / 6], [1 / 3, 1 / 3, 1 / 3], [-1 / 6, 1 / 3, 5 / 6]]
    np.testing.assert_allclose(matrix, expected, atol=1e-6)
    patches, _ = relative_position.views({"image": images(4)}, SEED, size=64, guard="project")
    p = patches.numpy() - MEAN
    np.testing.assert_allclose(p @ [-1, 2, -1], 0, atol=1e-5)


def test_without_a_guard_all_colours_stay_and_an_unknown_guard_is_refused():
    patches, _ = relative_position.views({"image": images(4)}, SEED, size=64, guard="none")
    p = patches.numpy() - MEAN
    assert np.abs(p @ [-1, 2, -1]).max() > 0.1
    assert np.sqrt((p**2).mean(axis=(2, 3))).min() > 10 / 255, "no channel is noise"
    with pytest.raises(BadInput, match="drop, project, none"):
        relative_position.views({"image": images(4)}, SEED, size=64, guard="grey")


def test_shrinking_and_enlarging_is_that_of_the_resize_function():
    patches = RANDOM.random([3, 16, 16, 3]).astype("float32")
    table = relative_position._resamplings(16, 2)
    for side in (2, 7, 16):
        small = tf.image.resize(patches, [side, side], antialias=True)
        expected = tf.image.resize(small, [16, 16])
        both = table[side - 2]
        ours = np.einsum("ij,bjkc,lk->bilc", both, patches, both)
        np.testing.assert_allclose(ours, expected, atol=1e-5)
    untouched = relative_position._shrunken(patches, SEED, 0.0)
    np.testing.assert_allclose(untouched, patches, atol=1e-6)


def test_the_smallest_images_have_patches_too():
    x, _ = relative_position.views({"image": images(64, 8)}, SEED, size=8, shrink=1.0)
    assert x.shape == (64, 2, 2, 2, 3) and np.isfinite(x).all()


def test_swapping_the_patches_changes_the_answer_and_equal_answers_cost_ln_8():
    model = relative_position.RelativePosition(zoo_runs.tiny_image_encoder(), width=16)
    x = RANDOM.random([4, 2, 16, 16, 3]).astype("float32")
    assert np.abs(model(x) - model(x[:, ::-1])).max() > 1e-4
    loss = model.objective(None, tf.range(8), tf.zeros([8, 8]))
    assert float(loss) == pytest.approx(2.0794415) == model.chance


def test_two_patches_of_one_picture_tell_the_place_and_of_two_pictures_do_not():
    """Light that swells downwards and colour that does to the right, from any phase on: no patch
    alone tells where it lies, two of a picture tell how far apart their rows and columns are."""

    def accuracy(related):
        keras.utils.set_random_seed(0)
        phase = np.random.default_rng(0).uniform(0, 2 * np.pi, [2, 256, 1, 1])
        place = 2 * np.pi * np.arange(32) / 44  # a quarter turn from patch to patch
        light, colour = np.cos(place[:, None] + phase[0]), np.cos(place + phase[1])
        pictures = np.stack([light + colour, light + 0 * colour, light - colour], axis=-1)
        pictures = tf.constant(0.5 + 0.25 * pictures, tf.float32)
        x = keras.Input([8, 8, 3])
        quarters = keras.layers.Flatten()(keras.layers.AveragePooling2D(4)(x))
        model = relative_position.RelativePosition(keras.Model(x, quarters), width=64)
        model.compile(keras.optimizers.Adam(1e-2))

        def batch(i):
            seed = tf.stack([0, tf.cast(i, tf.int32)])
            patches, labels = relative_position.neighbours(pictures, seed, 32, (1.0, 1.0), 0.0)
            if not related:
                patches = tf.stack([patches[:, 0], tf.roll(patches[:, 1], 1, axis=0)], axis=1)
            return patches, labels

        data = tf.data.Dataset.range(140).map(batch)
        model.fit(data.take(120), verbose=0)
        return model.fit(data.skip(120), verbose=0).history["accuracy"][0]

    assert accuracy(related=True) > 0.9
    assert accuracy(related=False) == pytest.approx(1 / 8, abs=0.04)
