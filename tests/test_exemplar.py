"""Exemplars, as classes and as triplets: targets, worked numbers, collapse, what is learnt."""

import colorsys
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
import zoo_runs

from tfssl import pipelines, zoo
from tfssl.objectives.contrastive import triplet
from tfssl.pipelines.augment.image import turned_crop
from tfssl.pipelines.sample import patches

exemplar = zoo.get("image.exemplar")
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


PLAIN = dict(extent=(1.0, 1.0), translation=0.0, scale=(1.0, 1.0), rotation=0.0, colour=0.0)


def pictures(count, side, seed=0):
    """Smooth random pictures, each unlike the others: uint8 [count, side, side, 3]."""
    coarse = np.random.default_rng(seed).uniform(0, 255, [count, 5, 5, 3])
    smooth = tf.image.resize(coarse, [side, side], "bicubic")
    return tf.cast(tf.clip_by_value(smooth, 0, 255), tf.uint8)


def test_the_target_is_the_number_of_the_seed_and_names_its_patch_for_ever():
    examples = {"image": pictures(6, 32), "index": tf.range(6, dtype=tf.int64)}
    x, y = exemplar.views(examples, SEED)
    np.testing.assert_array_equal(y, range(6))
    assert x.shape == (6, 32, 32, 3) and x.dtype == tf.float32
    _, several = exemplar.views(examples, SEED, positions=50)
    np.testing.assert_array_equal(several // 50, range(6))
    assert len(set((several % 50).numpy())) > 3
    number = tf.constant([3, 4], tf.int64)
    boxes = patches.seed_boxes(examples["image"][:2], number)
    # The same whatever else is in the batch and wherever it stands.
    turned = patches.seed_boxes(examples["image"][:2][::-1], number[::-1])
    np.testing.assert_array_equal(boxes, turned[::-1])
    same = tf.tile(examples["image"][:1], [40, 1, 1, 1])
    boxes = patches.seed_boxes(same, tf.range(40)).numpy()
    assert len(np.unique(boxes, axis=0)) > 30
    assert boxes[:, 2].min() >= 8 and boxes[:, 2].max() <= 16 and len(set(boxes[:, 2])) > 5
    assert boxes[:, :2].min() >= 0 and (boxes[:, :2] + boxes[:, 2:]).max() <= 32


def test_gradients_are_the_slow_mean_and_draw_the_seeds():
    x = RANDOM.integers(0, 256, [2, 12, 14, 3])
    starts = np.array([[[0, 0], [3, 5]], [[7, 9], [2, 2]]])
    energy = patches.gradient_energy(
        tf.constant(x, tf.uint8), tf.constant(starts, tf.int32), tf.constant([[[5]], [[4]]])
    )
    grey = np.pad(x.mean(axis=-1) / 255, [[0, 0], [0, 1], [0, 1]], mode="edge")
    squared = np.diff(grey, axis=1)[:, :, :-1] ** 2 + np.diff(grey, axis=2)[:, :-1] ** 2
    for b, side in ((0, 5), (1, 4)):
        for k, (r, c) in enumerate(starts[b]):
            expected = squared[b, r : r + side, c : c + side].mean()
            assert float(energy[b, k]) == pytest.approx(expected, rel=1e-4)
    half = np.zeros([300, 32, 32, 3], np.uint8)
    half[:, :, 20:] = RANDOM.integers(0, 256, [300, 32, 12, 3])
    boxes = patches.seed_boxes(tf.constant(half), tf.range(300), (0.25, 0.25)).numpy()
    # Of the places 3 in 5 are flat, and those at the edge of the texture have less of it.
    assert (boxes[:, 1] + 8 <= 19).mean() < 0.02
    flat = patches.seed_boxes(tf.zeros([200, 32, 32, 3], tf.uint8), tf.range(200)).numpy()
    assert np.ptp(flat[:, 0]) > 15, "where nothing is to be seen any place will do"


def test_a_turned_crop_is_the_picture_itself_a_quarter_turn_and_a_mirror_beyond_the_edge():
    x = pictures(2, 16)
    whole = tf.constant([[0.0, 0.0, 16.0, 16.0]] * 2)
    still = turned_crop(x, whole, tf.zeros([2]), 16)
    np.testing.assert_allclose(still, x.numpy() / 255, atol=1e-5)
    quarter = turned_crop(x, whole, tf.fill([2], math.pi / 2), 16)
    np.testing.assert_allclose(quarter, np.rot90(x.numpy() / 255, 1, axes=(1, 2)), atol=1e-3)
    part = turned_crop(x, tf.constant([[4.0, 6.0, 8.0, 8.0]] * 2), tf.zeros([2]), 8)
    np.testing.assert_allclose(part, x.numpy()[:, 4:12, 6:14] / 255, atol=1e-5)
    beyond = turned_crop(x, tf.constant([[-4.0, 0.0, 16.0, 16.0]] * 2), tf.zeros([2]), 16)
    np.testing.assert_allclose(beyond[:, :4], x.numpy()[:, 3::-1] / 255, atol=1e-5)


def test_a_turned_crop_of_a_large_photograph_does_not_alias():
    stripes = np.zeros([1, 96, 96, 3], np.float32)
    stripes[:, :, ::2] = 1
    small = turned_crop(tf.constant(stripes), tf.constant([[0.0, 0, 96, 96]]), tf.zeros([1]), 16)
    np.testing.assert_allclose(small, 0.5, atol=0.02)


def test_without_transformations_the_seed_comes_back_and_each_transformation_keeps_its_range():
    x = pictures(200, 32)
    examples = {"image": x, "index": tf.range(200, dtype=tf.int64)}
    plain, _ = exemplar.views(examples, SEED, **PLAIN)
    np.testing.assert_allclose(plain, x.numpy() / 255, atol=1e-4)
    # On a ramp the mean tells the shift, the slope along and across the scale and the turn.
    place = np.arange(96, dtype=np.float32)
    ramp = np.stack(np.broadcast_arrays(place[:, None], place[None], 0.0), -1) / 96
    ramps = {"image": tf.constant(np.tile(ramp, [300, 1, 1, 1])), "index": tf.range(300)}
    options = {"extent": (0.34, 0.34), "colour": 0.0}
    still, _ = exemplar.views(ramps, SEED, **{**PLAIN, **options})
    moved, _ = exemplar.views(ramps, SEED, **options)
    boxes = patches.seed_boxes(ramps["image"], tf.range(300), (0.34, 0.34)).numpy()
    # Mirrors at the edge would bend the ramp.
    inner = (boxes[:, :2].min(axis=1) > 20) & ((boxes[:, :2] + boxes[:, 2:]).max(axis=1) < 76)
    still, moved, side = still.numpy()[inner], moved.numpy()[inner], boxes[inner, 2:3]
    shift = (moved - still)[..., :2].mean(axis=(1, 2)) * 96 / side
    assert np.abs(shift).max() <= 0.2001 and np.abs(shift).max() > 0.17
    along = (moved[:, 31, 15, 0] - moved[:, 0, 15, 0]) / 31 * 96 * 32 / side[:, 0]
    across = (moved[:, 15, 31, 0] - moved[:, 15, 0, 0]) / 31 * 96 * 32 / side[:, 0]
    scale, angle = np.hypot(along, across), np.degrees(np.arctan2(across, along))
    assert 0.69 < scale.min() < 0.8 and 1.3 < scale.max() < 1.41
    assert 17 < np.abs(angle).max() < 20.1 and angle.min() < 0 < angle.max()


def test_colours_change_as_the_slow_formula_says():
    x = RANDOM.random([3, 4, 4, 3]).astype("float32")
    ours = exemplar.recolour(tf.constant(x), SEED).numpy()
    u = tf.random.stateless_uniform([3, 10, 1, 1], SEED, -1.0, 1.0).numpy()[:, :, 0, 0]
    axes = np.array(exemplar.COMPONENTS)
    np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=2e-3)
    for b in range(3):
        mean = x[b].mean(axis=(0, 1))
        parts = (x[b] - mean) @ axes.T * 2 ** u[b, :3]
        contrasted = np.clip(mean + parts @ axes, 0, 1)
        for r, c in np.ndindex(4, 4):
            h, s, v = colorsys.rgb_to_hsv(*contrasted[r, c])
            s = np.clip(1.4 ** u[b, 4] * s**4 ** u[b, 3] + 0.1 * u[b, 5], 0, 1)
            v = np.clip(1.4 ** u[b, 7] * v**4 ** u[b, 6] + 0.1 * u[b, 8], 0, 1)
            expected = colorsys.hsv_to_rgb((h + 0.1 * u[b, 9]) % 1, s, v)
            np.testing.assert_allclose(ours[b, r, c], expected, atol=2e-3)
    np.testing.assert_allclose(exemplar.recolour(tf.constant(x), SEED, 0.0), x, atol=2e-3)


@pytest.mark.parametrize("anywhere", [True, False])
def test_seeds_are_spread_over_the_source_and_numbered_from_zero(anywhere):
    source = pipelines.load("digits", keys=("image", "index"))
    total = int(source.cardinality())
    listed = np.stack([e["image"] for e in source.take(total).as_numpy_iterator()])
    source = source if anywhere else source.map(lambda example: example)
    assert hasattr(source, "gather") == anywhere
    chosen, count = exemplar.surrogate(source, 50, transformations=3)
    assert count == 50 and int(chosen.cardinality()) == 150
    every = total // 50
    for position, example in enumerate(chosen.as_numpy_iterator()):
        assert example["index"] == position % 50 and set(example) == {"image", "index"}
        np.testing.assert_array_equal(example["image"], listed[position % 50 * every])
    if anywhere:
        batch = chosen.gather(tf.constant([7, 57, 107], tf.int64))
        np.testing.assert_array_equal(batch["index"], [7, 7, 7])
        np.testing.assert_array_equal(batch["image"], [listed[7 * every]] * 3)
    few, count = exemplar.surrogate(source.take(20), 50, transformations=1)
    assert count == 20 and int(few.cardinality()) == 20


def test_fewer_images_than_seeds_give_several_patches_each():
    run = zoo_runs.tiny_run("image.exemplar", epochs=1, seeds=24)
    assert run.model.chance == pytest.approx(math.log(24))  # of eight images
    targets = np.concatenate([y for _, y in run.dataset])
    assert targets.min() >= 0 and targets.max() < 24 and len(set(targets)) > 18


@pytest.mark.parametrize("classes, chance", [(500, 6.2146), (8000, 8.9872)])
def test_equal_logits_cost_the_logarithm_of_the_number_of_seeds(classes, chance):
    model = exemplar.Exemplar(zoo_runs.tiny_image_encoder(), classes, width=4)
    y = tf.constant(RANDOM.integers(0, classes, 6))
    loss = float(model.objective(None, y, tf.zeros([6, classes])))
    assert loss == pytest.approx(chance, abs=1e-4) and model.chance == pytest.approx(loss)


def batches(source, steps, first, **options):
    """Batches of 64 of all the seeds [N, H, W, 3]."""

    def batch(i):
        seed = tf.stack([first, tf.cast(i, tf.int32)])
        at = tf.random.stateless_uniform([64], seed, 0, len(source), tf.int64)
        return exemplar.views({"image": tf.gather(source, at), "index": at}, seed, 16, **options)

    return tf.data.Dataset.range(steps).map(batch)


def small(classes):
    keras.utils.set_random_seed(0)
    image = keras.Input([None, None, 3])
    x = keras.layers.Conv2D(16, 3, 2, activation="relu")(image)
    x = keras.layers.Conv2D(32, 3, 2, activation="relu")(x)
    encoder = keras.Model(image, keras.layers.GlobalAveragePooling2D()(x))
    model = exemplar.Exemplar(encoder, classes, width=64, dropout=0.0)
    model.compile(keras.optimizers.Adam(5e-3))
    return model


def test_untransformed_seeds_are_learnt_by_heart():
    model = small(20)
    model.fit(batches(pictures(20, 24), 150, 1, **PLAIN), verbose=0)
    assert model.evaluate(batches(pictures(20, 24), 5, 2, **PLAIN), verbose=0)[0] < 0.1


def test_unseen_transformations_of_the_seeds_are_known_and_leave_features_alike():
    source, options = pictures(20, 24), {"extent": (0.7, 0.9)}

    def gap(model):
        views = [
            exemplar.views({"image": source, "index": tf.range(20)}, [9, i], 16, **options)[0]
            for i in range(2)
        ]
        z = np.concatenate([model.encoder(x).numpy() for x in views])
        z /= np.linalg.norm(z, axis=1, keepdims=True)
        cosine = z[:20] @ z[20:].T
        return np.diag(cosine).mean() - cosine[~np.eye(20, dtype=bool)].mean()

    model = small(20)
    before = gap(model)
    model.fit(batches(source, 160, 1, **options), verbose=0)
    held_out = model.evaluate(batches(source, 10, 2, **options), verbose=0, return_dict=True)
    assert held_out["accuracy"] > 0.25, "chance is 0.05"
    # About the mean of all features, random ones of such smooth pictures are as much alike.
    assert before < 0.03 and gap(model) > 0.06
