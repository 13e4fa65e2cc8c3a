"""Jigsaw: the set of orders, geometry of the tiles, the guards, and what can be learnt."""

import itertools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
import zoo_runs

from tfssl import pipelines, zoo
from tfssl.errors import BadInput
from tfssl.pipelines.augment.image import random_square_crop
from tfssl.pipelines.sample import patches

jigsaw = zoo.get("image.jigsaw")
RANDOM = np.random.default_rng(0)
SEED = tf.constant([3, 4])
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def distances(table):
    """The Hamming distances of all pairs of rows."""
    apart = (table[:, None] != table[None]).sum(axis=-1)
    return apart[np.triu_indices(len(table), 1)]


def images(count=20, side=64):
    return tf.constant(RANDOM.integers(0, 256, [count, side, side, 3]), tf.uint8)


@pytest.mark.parametrize("count", [10, 64, 100])
def test_the_orders_are_permutations_that_lie_far_apart(count):
    table = patches.permutations(count)
    assert table.shape == (count, 9) and len(np.unique(table, axis=0)) == count
    np.testing.assert_array_equal(np.sort(table, axis=1), np.tile(np.arange(9), [count, 1]))
    assert distances(table).min() >= 6 and distances(table).mean() >= 8.05


def test_the_orders_are_the_same_in_every_process_and_better_than_random_ones():
    table = patches.permutations(100)
    again = patches.permutations.__wrapped__(100)
    np.testing.assert_array_equal(table, again)
    assert distances(table).mean() == pytest.approx(8.08, abs=0.005)
    random = np.stack([np.random.default_rng(i).permutation(9) for i in range(100)])
    assert distances(random).min() <= 4


def test_a_thousand_orders_stay_apart_and_four_tiles_have_all_their_twenty_four():
    table = patches.permutations(1000)
    assert len(np.unique(table, axis=0)) == 1000 and distances(table).min() >= 5
    four = sorted(map(tuple, patches.permutations(24, 4).tolist()))
    assert four == list(itertools.permutations(range(4)))
    with pytest.raises(ValueError, match="24 orders"):
        patches.permutations(25, 4)


def test_each_order_is_the_farthest_from_those_before_it():
    table = patches.permutations(6, 4)
    everything = np.array(list(itertools.permutations(range(4))))
    for k in range(1, 6):
        nearest = (everything[:, None] != table[None, :k]).sum(axis=-1).min(axis=1)
        assert (table[k] != table[:k]).sum(axis=-1).min() == nearest.max()


def test_the_inverse_order_gives_raster_order_back():
    pieces = tf.tile(tf.range(9.0)[None, :, None, None, None], [100, 1, 4, 4, 3])
    table = patches.permutations(100)
    shuffled = jigsaw.shuffle(pieces, tf.constant(table)).numpy()
    np.testing.assert_array_equal(shuffled[:, :, 0, 0, 0], table)  # slot i holds tile pi(i)
    for y, order in enumerate(table):
        np.testing.assert_array_equal(shuffled[y, np.argsort(order), 0, 0, 0], np.arange(9))


def test_views_hand_over_the_tiles_in_the_order_that_they_name():
    # A picture whose every cell has a texture of its own, told by its frequency.
    rows = np.arange(63)
    cell = 3 * (rows[:, None] // 21) + rows[None] // 21
    wave = 0.5 + 0.5 * np.sin(2 * np.pi * (cell + 1) / 21 * (rows[:, None] + rows[None]))
    pictures = tf.constant(np.tile(wave[None, :, :, None], [30, 1, 1, 3]), tf.float32)
    options = dict(size=63, share=1.0, fill=1.0, orders=100, shift=0)
    x, y = jigsaw.views({"image": pictures}, SEED, grey=0.0, projection=0.0, **options)
    assert x.shape == (30, 9, 21, 21, 3) and y.dtype == tf.int32 and len(set(y.numpy())) > 20
    expected = jigsaw.standardised(patches.tiles(pictures, SEED, 3, 21)).numpy()
    for b, label in enumerate(y.numpy()):
        order = patches.permutations(100)[label]
        np.testing.assert_allclose(x[b], expected[b, order], atol=1e-3)


def coordinates(count, side):
    """Pictures whose pixels tell where they are, the same in all channels: row + 256 column."""
    rows = np.arange(side, dtype=np.float32)
    place = rows[:, None] + 256 * rows[None]
    return tf.constant(np.tile(place[None, :, :, None], [count, 1, 1, 3]))


@pytest.mark.parametrize("size, tile, shift", [(255, 64, 2), (48, 12, 1)])
def test_neighbouring_tiles_never_share_a_pixel_and_offsets_reach_all_of_the_cell(
    size, tile, shift
):
    cell = size // 3
    at = patches.tiles(coordinates(200, size), SEED, 3, tile, shift).numpy()
    rows, columns = (at % 256).astype(int), (at // 256).astype(int)
    offsets = set()
    for i in range(9):
        top, left = rows[:, i] - cell * (i // 3), columns[:, i] - cell * (i % 3)
        assert top.min() >= 0 and left.min() >= 0 and top.max() < cell and left.max() < cell
        offsets |= set(top[:, 0, 0].ravel())
    assert offsets == set(range(cell - tile + 1))  # 0..21 in the paper
    apart = rows[:, :, 0, 0, 1] - rows[:, :, 0, 0, 0]
    assert set(apart.ravel()) == set(range(-shift, shift + 1)), "channels are apart"
    assert (rows[:, 0, 0, 0] != rows[:, 1, 0, 0]).any(), "tiles are placed by themselves"


def test_half_of_the_puzzles_are_grey_and_half_of_the_others_have_no_green_against_magenta():
    pieces = tf.constant(RANDOM.random([600, 9, 4, 4, 3]), tf.float32)
    out = jigsaw.guard(pieces, SEED, grey=0.5, projection=0.5).numpy()
    grey = np.ptp(out, axis=-1).max(axis=(1, 2, 3)) < 1e-6
    flat = np.abs(out @ [-1, 2, -1]).max(axis=(1, 2, 3)) < 1e-5
    whole = np.abs(out - pieces).max(axis=(1, 2, 3, 4)) == 0
    assert 0.44 < grey.mean() < 0.56
    assert 0.19 < (flat & ~grey).mean() < 0.31 and 0.19 < whole.mean() < 0.31
    mean = pieces.numpy().mean(axis=-1)
    np.testing.assert_allclose(out[grey][..., 0], mean[grey], atol=1e-6)


def test_channels_that_are_moved_apart_bring_no_colour_back_into_a_guarded_puzzle():
    def seen(**guard):
        x, _ = jigsaw.views({"image": images(6)}, SEED, size=60, fill=0.8, shift=2, **guard)
        return (x.numpy() - MEAN) / STD

    grey = seen(grey=1.0)
    np.testing.assert_allclose(grey, grey.mean(axis=-1, keepdims=True).repeat(3, -1), atol=1e-4)
    # Standardised channels still lie in a plane where green-magenta was taken out before.
    colours = seen(grey=0.0, projection=1.0).reshape(54, -1, 3)
    assert np.linalg.svd(colours, compute_uv=False)[:, 2].max() < 1e-2


@pytest.mark.parametrize("size, tile", [(255, 64), (96, 24), (48, 12), (30, 8)])
def test_puzzles_of_any_size_show_the_same_picture_in_tiles_that_leave_gaps(size, tile):
    ramp = np.broadcast_to((np.arange(96) / 96)[:, None, None], [96, 96, 3])
    seen, plain = [], jigsaw.tiles

    def spy(crops, *arguments):
        seen.append(crops.numpy())
        return plain(crops, *arguments)

    jigsaw.tiles = spy
    try:
        x, _ = jigsaw.views({"image": tf.constant(ramp[None], tf.float32)}, SEED, size, shift=0)
    finally:
        jigsaw.tiles = plain
    assert x.shape == (1, 9, tile, tile, 3) and tile < size // 3
    height = np.ptp(seen[0]) * size / (size - 1)
    assert height == pytest.approx(255 / 256, abs=0.02), "not a part of it, nor a blown up one"
    with pytest.raises(BadInput, match="fill"):
        jigsaw.views({"image": tf.constant(ramp[None], tf.float32)}, SEED, size, fill=1.2)


def test_every_channel_of_every_tile_has_mean_zero_and_deviation_one():
    x, _ = jigsaw.views({"image": images(10)}, SEED, size=60, fill=0.8, shift=1)
    t = (x.numpy() - MEAN) / STD
    np.testing.assert_allclose(t.mean(axis=(2, 3)), 0, atol=1e-4)
    np.testing.assert_allclose(t.std(axis=(2, 3)), 1, atol=1e-3)
    flat = (jigsaw.standardised(tf.fill([1, 9, 4, 4, 3], 0.3)).numpy() - MEAN) / STD
    np.testing.assert_allclose(flat, 0, atol=1e-6)


def test_the_network_sees_each_tile_by_itself_up_to_fc6():
    model = jigsaw.Jigsaw(zoo_runs.tiny_image_encoder(), orders=24, tile_width=32, width=16)
    x = RANDOM.random([2, 9, 16, 16, 3]).astype("float32")
    other = x.copy()
    other[:, 3] = RANDOM.random([2, 16, 16, 3])
    moved = np.abs(model.towers(x).numpy() - model.towers(other).numpy()).max(axis=0)
    assert moved.shape == (9 * 32,)
    assert moved[3 * 32 : 4 * 32].max() > 1e-4
    assert moved[: 3 * 32].max() == 0 and moved[4 * 32 :].max() == 0
    assert np.abs(model(x).numpy() - model(other).numpy()).max() > 1e-4


@pytest.mark.parametrize("orders, chance", [(24, 3.1781), (100, 4.6052), (1000, 6.9078)])
def test_equal_logits_cost_the_logarithm_of_the_number_of_orders(orders, chance):
    model = jigsaw.Jigsaw(zoo_runs.tiny_image_encoder(), orders, tile_width=4, width=4)
    y = tf.constant(RANDOM.integers(0, orders, 5))
    loss = float(model.objective(None, y, tf.zeros([5, orders])))
    assert loss == pytest.approx(chance, abs=1e-4) and model.chance == pytest.approx(loss)


def test_two_by_two_tiles_in_all_orders_train():
    run = zoo_runs.tiny_run("image.jigsaw", epochs=1, grid=2, orders=24, size=48)
    assert run.dataset.element_spec[0].shape[1] == 4
    assert math.isfinite(run.fit(verbose=0).history["loss"][0])


def trained(pictures, held_out, seed=0):
    """Accuracy on held-out pictures, as they are and with all tiles copies of one; 24 orders."""
    keras.utils.set_random_seed(seed)
    tile = keras.Input([12, 12, 3])
    h = keras.layers.Conv2D(16, 3, 2, activation="relu")(tile)
    h = keras.layers.Flatten()(keras.layers.AveragePooling2D(2)(h))
    model = jigsaw.Jigsaw(keras.Model(tile, h), 24, tile_width=32, width=64, dropout=0.0)
    model.compile(keras.optimizers.Adam(3e-3))

    def data(source, steps, first):
        def batch(i):
            seed = tf.stack([first, tf.cast(i, tf.int32)])
            picked = tf.random.stateless_uniform([64], seed, 0, len(source), tf.int32)
            return jigsaw.views(
                {"image": tf.gather(source, picked)},
                seed,
                48,
                48 / 54,
                fill=0.75,
                orders=24,
                shift=1,
            )

        return tf.data.Dataset.range(steps).map(batch)

    model.fit(data(pictures, 400, 1), verbose=0)
    real = model.evaluate(data(held_out, 10, 2), verbose=0, return_dict=True)
    copies = data(held_out, 10, 2).map(lambda x, y: (tf.tile(x[:, :1], [1, 9, 1, 1, 1]), y))
    copied = model.evaluate(copies, verbose=0, return_dict=True)
    return real["accuracy"], copied["accuracy"]


def test_held_out_digits_are_put_in_order_and_nine_copies_of_one_tile_are_not():
    source = pipelines.load("digits", keys=("image",))
    everything = np.stack([e["image"] for e in source.as_numpy_iterator()])
    real, copied = trained(tf.constant(everything[:-300]), tf.constant(everything[-300:]))
    assert real > 3 / 24
    assert copied == pytest.approx(1 / 24, abs=0.03)


def test_a_square_crop_has_its_share_of_the_shorter_side_and_lies_anywhere():
    rows, columns = np.arange(40, dtype=np.float32), np.arange(60, dtype=np.float32)
    place = np.stack(np.broadcast_arrays(rows[:, None], columns[None], 0.0), axis=-1)
    pictures = tf.constant(np.tile(place, [200, 1, 1, 1]))
    crops = random_square_crop(pictures, 10, SEED, share=0.5).numpy()
    assert crops.shape == (200, 10, 10, 3)
    np.testing.assert_allclose(np.diff(crops[..., 0], axis=1), 2, atol=1e-3)
    np.testing.assert_allclose(np.diff(crops[..., 1], axis=2), 2, atol=1e-3)
    first = crops[:, 0, 0, :2]  # half a pixel in, of pixels two wide
    assert first.min() >= 0.49 and first[:, 0].max() <= 20.51 and first[:, 1].max() <= 40.51
    assert first[:, 0].max() > 19 and first[:, 1].max() > 38 and first.min() < 1.5
