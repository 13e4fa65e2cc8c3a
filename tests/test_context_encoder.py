"""Inpainting: holes and their ring, both losses by the card's numbers, and what is learnt."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import zoo_runs

from tfssl import zoo
from tfssl.errors import BadInput
from tfssl.pipelines import load

context_encoder = zoo.get("image.context_encoder")
random_regions = zoo.get("image.context_encoder_random")
RANDOM = np.random.default_rng(0)
SEED = tf.constant([3, 4])
FILL = np.array(context_encoder.FILL, "float32")


def pictures(count=4, side=40):
    return {"image": tf.constant(RANDOM.integers(0, 256, [count, side, side, 3]), tf.uint8)}


def model(kind=context_encoder.ContextEncoder, **options):
    return kind(zoo_runs.tiny_image_encoder(), **{"size": 16, "channels": (8, 16), **options})


def test_the_hole_is_exactly_the_fill_and_smaller_than_what_is_painted_by_the_overlap():
    np.testing.assert_allclose(2 * FILL - 1, [-0.0824, -0.1843, -0.0353], atol=1e-4)
    for overlap, hidden in ((0, 4096), (4, 3136), (7, 2500)):
        x = context_encoder.views(pictures(2, 200), SEED, size=128, overlap=overlap)
        hole = np.all(x["image"] == FILL, axis=-1)
        assert (hole.sum(axis=(1, 2)) == hidden).all()
        edge = 32 + overlap
        assert hole[:, edge : 128 - edge, edge : 128 - edge].all()
        ring = x["image"][:, 32:96, 32:96].numpy()
        seen = ~hole[:, 32:96, 32:96]
        np.testing.assert_array_equal(x["target"].numpy()[seen], ring[seen])
        assert x["target"].shape == (2, 64, 64, 3)


def test_an_undecided_critic_and_an_error_of_a_half_cost_what_the_card_says():
    method = model(paint=8, overlap=0)
    x = {"target": tf.fill([3, 8, 8, 3], 0.5)}
    undecided = {"real": tf.zeros([3, 1]), "fake": tf.zeros([3, 1])}
    outputs = {"painting": tf.fill([3, 8, 8, 3], 0.5), **undecided}
    assert float(method.objective(x, None, outputs)) == pytest.approx(0.250443, abs=1e-6)
    assert float(method.critique(x, None, outputs)) == pytest.approx(1.3863, abs=1e-4)


def test_the_losses_are_the_papers_and_the_ring_has_ten_times_the_gradient():
    method = model(paint=8, overlap=2)
    painting, target = RANDOM.uniform(-1, 1, [2, 2, 8, 8, 3]).astype("float32")
    real, fake = RANDOM.normal(size=[2, 2, 1])
    x = {"target": tf.constant((target + 1) / 2)}
    outputs = {"painting": tf.constant(painting), "real": real, "fake": tf.constant(fake)}
    with tf.GradientTape() as tape:
        tape.watch(outputs["painting"])
        loss = method.objective(x, None, outputs)
    weights = np.full([8, 8, 1], 10.0)
    weights[2:6, 2:6] = 1
    error = (weights * (painting - target) ** 2).mean()

    def softplus(v):
        return np.log(1 + np.exp(v)).mean()

    assert float(loss) == pytest.approx(0.999 * error + 0.001 * softplus(-fake), rel=1e-5)
    expected = 0.999 * weights * 2 * (painting - target) / painting.size
    np.testing.assert_allclose(tape.gradient(loss, outputs["painting"]), expected, atol=1e-6)
    critic = softplus(-real) + softplus(fake)
    assert float(method.critique(x, None, outputs)) == pytest.approx(critic, rel=1e-5)


def test_each_channel_crosses_the_image_by_a_matrix_of_its_own():
    layer = context_encoder.ChannelwiseDense((6, 6, 256), 6)
    assert layer.count_params() == 331_776 == 256 * 36**2
    maps = RANDOM.normal(size=[2, 6, 6, 256]).astype("float32")
    before = layer(maps).numpy()
    maps[..., 7] += RANDOM.normal(size=[2, 6, 6])
    changed = (layer(maps).numpy() != before).any(axis=(0, 1, 2))
    assert changed.nonzero()[0].tolist() == [7]
    kernel = layer.get_weights()[0]
    expected = maps[1, :, :, 7].reshape(-1) @ kernel[7]
    np.testing.assert_allclose(layer(maps)[1, ..., 7].numpy().reshape(-1), expected, atol=1e-4)


def test_the_critic_sees_nothing_around_the_hole_and_each_side_trains_its_own_weights():
    method = model(paint=8, overlap=1)
    x = context_encoder.views(pictures(), SEED, size=16, overlap=1)
    assert method.critic.input_shape == (None, 8, 8, 3)
    method.compile(keras.optimizers.SGD(0.1), keras.optimizers.SGD(0.1))
    parts = (method.trunk, method.across, method.decoder, method.critic)
    before = [[w.numpy() for w in part.trainable_weights] for part in parts]
    with tf.GradientTape() as tape:
        loss = method.objective(x, None, method(x, training=True))
    assert all(g is not None for g in tape.gradient(loss, method.player_variables))
    method.train_on_batch(x)
    for part, old in zip(parts, before):
        assert all((w.numpy() != o).any() for w, o in zip(part.trainable_weights, old))
    ours = {id(v) for v in method.player_variables}
    assert not any(id(v) in ours for v in method.critic.trainable_variables)


@pytest.mark.parametrize("size", [32, 128])
def test_random_regions_hide_a_quarter_and_blocks_no_more(size):
    hidden = random_regions.regions(8, size, SEED).numpy()
    share = hidden.mean(axis=(1, 2, 3))
    np.testing.assert_allclose(share, 0.25, atol=1.5 / size**2)
    edges = (hidden[:, 1:] != hidden[:, :-1]).mean()
    assert edges < 0.8 * (128 / size) * 0.06, "blots, not grain"
    assert (hidden[0] != hidden[1]).any()
    covered = random_regions.blocks(64, size, SEED).numpy()
    share = covered.mean(axis=(1, 2, 3))
    assert (share > 0).all() and (share <= 0.25).all() and share.std() > 0.01


def test_only_what_random_holes_hid_is_compared():
    x = random_regions.views(pictures(), SEED, size=16)
    holes = x["hidden"].numpy()[..., 0] == 1
    assert (x["image"].numpy()[holes] == FILL).all()
    np.testing.assert_array_equal(x["image"].numpy()[~holes], x["target"].numpy()[~holes])
    method = model(random_regions.ContextEncoderRandom)
    painting = tf.constant(RANDOM.uniform(-1, 1, [4, 16, 16, 3]), tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(painting)
        error = method.painting_error(x, painting)
    difference = painting - (2 * x["target"] - 1)
    expected = np.where(holes[..., None], difference, 0)
    assert float(error) == pytest.approx((expected**2).sum() / (3 * holes.sum()), rel=1e-5)
    gradient = tape.gradient(error, painting)
    np.testing.assert_allclose(gradient, 2 * expected / (3 * holes.sum()), atol=1e-6)
    true, painted = method.shown(x, painting)
    np.testing.assert_allclose(painted.numpy()[~holes], true.numpy()[~holes], atol=1e-6)
    np.testing.assert_allclose(painted.numpy()[holes], painting.numpy()[holes], atol=1e-6)
    with pytest.raises(BadInput, match="regions and blocks"):
        random_regions.views(pictures(), SEED, size=16, pattern="stars")


def test_sizes_and_encoders_that_cannot_serve_are_refused():
    tiny = zoo_runs.tiny_image_encoder()
    small = {**context_encoder.SMALL, "data": load("digits"), "encoder": tiny}
    with pytest.raises(BadInput, match="multiple of 4"):
        context_encoder.recipe(**{**small, "size": 30})
    with pytest.raises(BadInput, match="halved"):
        context_encoder.recipe(**{**small, "size": 36, "channels": (8, 16, 32)})
    with pytest.raises(BadInput, match="maps"):
        image = keras.Input([16, 16, 3])
        code = keras.layers.Dense(4)(keras.layers.Flatten()(image))
        context_encoder.ContextEncoder(keras.Model(image, code), 16, 8, 1)


def errors(frozen):
    """Squared error of painting unseen worlds, and of the mean colour of the hole's border."""
    keras.utils.set_random_seed(0)
    small = {**context_encoder.SMALL, "encoder": "conv4", "data": "world:n=2000,size=32"}
    run = context_encoder.recipe(**{**small, "epochs": 30, "channels": (32, 64)})
    run.model.encoder.trainable = not frozen
    run.model.compile(keras.optimizers.Adam(2e-3, 0.5), keras.optimizers.Adam(2e-4, 0.5))
    run.fit(verbose=0)
    unseen = next(iter(load("world:n=300,size=32@test", keys=("image",)).batch(300)))
    x = context_encoder.views(unseen, SEED, size=32, overlap=1, area=(0.5, 1.0))
    hole = slice(1, -1)
    true = x["target"][:, hole, hole]
    painted = (run.model.paint(x["image"])[:, hole, hole] + 1) / 2
    ring = tf.concat(
        [
            x["image"][:, 8, 8:24],
            x["image"][:, 23, 8:24],
            x["image"][:, 8:24, 8],
            x["image"][:, 8:24, 23],
        ],
        1,
    )
    border = tf.reduce_mean(ring, axis=1)[:, None, None]
    return float(np.mean((painted - true) ** 2)), float(np.mean((border - true) ** 2))


@pytest.mark.slow
def test_unseen_holes_are_painted_better_than_by_their_border_and_by_untrained_features():
    (learnt, border), (untrained, _) = errors(frozen=False), errors(frozen=True)
    print(learnt, untrained, border)
    assert learnt < border and learnt < untrained


def gratings(count):
    """Stripes across the hole: direction and phase are seen around it."""
    y, x = np.mgrid[:16, :16] / 16
    angle, phase = RANDOM.uniform(0, 2 * np.pi, [2, count, 1, 1])
    wave = np.sin(2 * np.pi * (np.cos(angle) * x + np.sin(angle) * y) + phase)
    return {"image": tf.constant((0.5 + 0.4 * wave)[..., None].repeat(3, -1), tf.float32)}


def test_stripes_are_continued_through_the_hole():
    keras.utils.set_random_seed(0)
    still = {"size": 16, "overlap": 1, "area": (1.0, 1.0)}
    method = model(paint=8, overlap=1)
    method.compile(keras.optimizers.Adam(1e-2, 0.5), keras.optimizers.Adam(1e-3, 0.5))
    method.fit(
        context_encoder.views(gratings(512), SEED, **still), batch_size=64, epochs=12, verbose=0
    )
    x = context_encoder.views(gratings(128), SEED, **still)
    # With the batch's own statistics: moving ones lag behind in so few steps.
    painted = method.paint(x["image"], training=True)
    error = np.mean((painted - (2 * x["target"] - 1))[:, 1:-1, 1:-1] ** 2)
    middle = 2 * x["target"].numpy() - 1
    rim = np.concatenate([middle[:, 0], middle[:, -1], middle[:, :, 0], middle[:, :, -1]], axis=1)
    border = np.mean((rim.mean(axis=1)[:, None, None] - middle)[:, 1:-1, 1:-1] ** 2)
    print(error, border)
    assert error < 0.5 * border
