"""Split-brain: halves that share nothing, what each is asked, and what neither can know."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import zoo_runs

import tfssl
from tfssl import encoders, zoo
from tfssl.encoders.maps import halved
from tfssl.errors import BadInput
from tfssl.layers.lab import Lab
from tfssl.pipelines import load
from tfssl.pipelines.augment.image import rgb_to_lab

split_brain = zoo.get("image.split_brain")
regression = zoo.get("image.split_brain_regression")
with_depth = zoo.get("image.split_brain_depth")
RANDOM = np.random.default_rng(0)
SEED = tf.constant([3, 4])


def model(grid=20, levels=20, **options):
    centres = split_brain.bins(grid)
    encoder = zoo_runs.tiny_image_encoder()
    return split_brain.SplitBrain(
        encoder, centres, levels, sigma=10.0, width=16, stride=4, **options
    )


def batch(count=4, side=16):
    pictures = {"image": tf.constant(RANDOM.integers(0, 256, [count, 20, 20, 3]), tf.uint8)}
    return split_brain.views(pictures, SEED, size=side, area=(0.5, 1.0), stride=4)


def everything(method, name, x, training):
    """Every activation of one half, and its prediction."""
    taps = method.halves[name](x[name], training=training)
    prediction = method(x, training=training)[name]
    return [np.asarray(a) for a in (*taps.values(), prediction)]


def test_each_half_is_asked_every_fourth_pixel_of_the_other_ones_channels():
    x, y = batch()
    assert np.array_equal(y["lightness"], x["colour"][:, ::4, ::4])
    assert np.array_equal(y["colour"], x["lightness"][:, ::4, ::4])


def test_each_half_is_bit_for_bit_blind_to_the_other_ones_channels():
    method, (x, _) = model(), batch()
    for name, other in method.other.items():
        changed = {name: x[name], other: x[other] + RANDOM.uniform(-1, 1, x[other].shape)}
        for training in (False, True):
            weights = method.get_weights()
            before = everything(method, name, x, training)
            method.set_weights(weights)  # the moving statistics of batch norm
            after = everything(method, name, changed, training)
            method.set_weights(weights)
            assert all(np.array_equal(a, b) for a, b in zip(before, after))
        assert (method(x)[other] != method(changed)[other]).numpy().any()


def test_neither_loss_moves_a_weight_of_the_other_half():
    method, (x, y) = model(), batch()
    for name, wanted in method.other.items():
        parts = {
            key: method.halves[key].trainable_variables + method.heads[key].trainable_variables
            for key in method.halves
        }
        with tf.GradientTape() as tape:
            loss = method.cost(wanted, y[name], method(x, training=True)[name])
        gradients = tape.gradient(loss, parts)
        assert all(g is None for g in gradients[wanted]), "not even connected"
        assert all(np.abs(g).max() > 0 for g in gradients[name])


def test_uniform_heads_cost_the_logarithms_of_both_numbers_of_bins():
    centres = RANDOM.uniform(-100, 100, [313, 2]).astype("float32")
    method = split_brain.SplitBrain(zoo_runs.tiny_image_encoder(), centres, 100, stride=4)
    _, y = batch()
    uniform = {"lightness": tf.zeros([4, 4, 4, 313]), "colour": tf.zeros([4, 4, 4, 100])}
    assert float(method.objective(None, y, uniform)) == pytest.approx(10.3514, abs=1e-4)
    assert method.chance == pytest.approx(5.7462 + 4.6052, abs=1e-4)


def soft_target(ab, centres, neighbours, sigma):
    squared = ((centres - ab) ** 2).sum(axis=-1)
    nearest = np.argsort(squared)[:neighbours]
    target = np.zeros(len(centres))
    target[nearest] = np.exp(-squared[nearest] / (2 * sigma**2))
    return target / target.sum()


def test_the_objective_is_both_cross_entropies_unbalanced():
    method, (x, y) = model(), batch(2)
    q = len(method.centres)
    outputs = {
        "lightness": tf.constant(RANDOM.normal(size=[2, 4, 4, q]), tf.float32),
        "colour": tf.constant(RANDOM.normal(size=[2, 4, 4, 20]), tf.float32),
    }
    with tf.GradientTape() as tape:
        tape.watch(outputs)
        loss = method.objective(x, y, outputs)
    gradients = tape.gradient(loss, outputs)
    total, places = 0.0, 2 * 4 * 4
    for place in np.ndindex(2, 4, 4):
        ab, level = 110 * y["lightness"].numpy()[place], 20 * y["colour"].numpy()[place][0]
        targets = {
            "lightness": soft_target(ab, method.centres.numpy(), 5, 10.0),
            "colour": np.eye(20)[min(int(level), 19)],
        }
        for name, target in targets.items():
            logits = outputs[name].numpy()[place].astype(np.float64)
            share = np.exp(logits - logits.max())
            share /= share.sum()
            total -= (target * np.log(share)).sum() / places
            expected = (share - target) / places
            np.testing.assert_allclose(gradients[name].numpy()[place], expected, atol=1e-6)
    assert float(loss) == pytest.approx(total, rel=1e-5)


def test_the_regression_is_the_squared_error_of_standardised_channels():
    method = regression.SplitBrainRegression(zoo_runs.tiny_image_encoder(), 16, 4)
    x, y = batch(3)
    outputs = method(x)
    assert outputs["lightness"].shape == (3, 4, 4, 2) and outputs["colour"].shape == (3, 4, 4, 1)
    colour = ((outputs["lightness"] - y["lightness"] / 0.12) ** 2).numpy().mean()
    lightness = ((outputs["colour"] - (y["colour"] - 0.5) / 0.25) ** 2).numpy().mean()
    loss = float(method.objective(x, y, outputs))
    assert loss == pytest.approx(colour + lightness, rel=1e-5)


def test_a_split_convolution_has_half_the_weights_of_the_full_one():
    whole = encoders.get("alexnet", size=180)
    halves = [
        halved(whole, [0.0] * channels, [1.0] * channels, f"x{channels}") for channels in (1, 2)
    ]
    for layer in whole.layers:
        if hasattr(layer, "filters"):
            pair = [half.get_layer(layer.name) for half in halves]
            assert sum(half.kernel.shape[-1] for half in pair) == layer.filters
            size = layer.kernel_size[0] ** 2 * layer.kernel.shape[2] * layer.filters
            assert sum(np.prod(half.kernel.shape) for half in pair) == size // 2


def test_the_encoder_takes_rgb_and_its_taps_are_those_of_both_halves():
    method = model()
    pictures = tf.constant(RANDOM.random([3, 12, 20, 3]), tf.float32)
    lab = rgb_to_lab(pictures)
    given = Lab()(pictures)
    np.testing.assert_allclose(given["lightness"], lab[..., :1] / 100, atol=1e-4)
    np.testing.assert_allclose(given["colour"], lab[..., 1:] / 110, atol=1e-4)
    taps = encoders.representation(method.encoder)(pictures)
    assert list(taps) == ["c1", "c2"]
    parts = {name: half(given[name]) for name, half in method.halves.items()}
    for tap, value in taps.items():
        both = tf.concat([parts["lightness"][tap], parts["colour"][tap]], axis=-1)
        np.testing.assert_allclose(value, both, atol=1e-5)
    both = tf.concat([parts["lightness"]["features"], parts["colour"]["features"]], axis=-1)
    np.testing.assert_allclose(method.encoder(pictures), both, atol=1e-5)


def test_any_network_of_convolutions_is_split_and_no_other():
    foreign = keras.applications.MobileNetV2(
        weights=None, include_top=False, input_shape=(32, 32, 3)
    )
    method = regression.SplitBrainRegression(encoders.get(foreign), 8, 4)
    assert method.encoder(tf.zeros([1, 32, 32, 3])).shape == (1, 1280)
    with pytest.raises(BadInput, match="maps"):
        regression.SplitBrainRegression(encoders.get("vit_mini"), 8, 4)


def pairs(count, shuffled=False):
    """Lightness in four grey bands; colour follows it, or somebody else's."""
    light = RANDOM.integers(0, 4, [count, 4, 4, 1]).repeat(4, 1).repeat(4, 2) / 4 + 0.125
    colour = np.concatenate([light - 0.5, 0.5 - light], axis=-1)
    colour += RANDOM.normal(0, 0.05, colour.shape)
    colour = colour[RANDOM.permutation(count)] if shuffled else colour
    x = {"lightness": light.astype("float32"), "colour": colour.astype("float32")}
    return x, regression.asked(x, 4)


def test_colour_that_follows_lightness_is_learnt_and_somebody_elses_is_not():
    for shuffled in (False, True):
        keras.utils.set_random_seed(0)
        method = regression.SplitBrainRegression(zoo_runs.tiny_image_encoder(), 16, 4)
        method.compile(keras.optimizers.Adam(1e-2), jit_compile=False)
        x, y = pairs(512, shuffled)
        method.fit(x, y, batch_size=64, epochs=12, verbose=0)
        x, y = pairs(64, shuffled)
        wanted = y["lightness"] / 0.12
        error = np.mean((method.predict(x, verbose=0)["lightness"] - wanted) ** 2)
        of_the_mean = np.var(wanted, axis=(0, 1, 2)).mean()
        assert (error < 0.5 * of_the_mean) != shuffled
        assert not shuffled or error > 0.95 * of_the_mean


def test_depth_is_cropped_with_its_image_and_asked_for_by_name():
    assert with_depth.views.uses == ("depth",)
    depth = np.tile(np.linspace(1, 8, 32, dtype="float32"), [3, 32, 1])
    picture = np.tile((255 * (depth[..., None] - 1) / 7).round(), [1, 1, 1, 3]).astype("uint8")
    x, y = with_depth.views(
        {"image": picture, "depth": depth}, SEED, size=16, area=(0.5, 1.0), stride=4
    )
    assert x["image"].shape == (3, 16, 16, 3) and y["image"].shape == (3, 4, 4, 1)
    seen = np.exp(x["depth"][..., 0])
    np.testing.assert_allclose(seen, 1 + 7 * x["image"][..., 0].numpy(), atol=0.05)
    depth[:, :, 16:] = 0.0  # which a sensor could not measure
    x, y = with_depth.views({"image": picture, "depth": depth}, SEED, 16, (1.0, 1.0), 4)
    assert np.exp(x["depth"]).min() > 0.9 and (x["depth"].numpy() == np.float32(1.7)).any()
    method = zoo_runs.tiny_run("image.split_brain_depth").model
    there = y["image"].numpy() > with_depth.UNKNOWN + 1e-3
    assert 0.2 < there.mean() < 0.8
    prediction = RANDOM.normal(size=y["image"].shape).astype("float32")
    error = (prediction - (y["image"] - 1.7) / 0.5) ** 2
    expected = error.numpy()[there].mean()
    assert float(method.cost("depth", y["image"], prediction)) == pytest.approx(expected, rel=1e-5)
    with pytest.raises(ValueError, match="depth"):
        with_depth.recipe(**{**with_depth.SMALL, "data": load("digits")})


def test_an_encoder_of_images_and_one_of_depth_are_published_apart():
    published = zoo_runs.tiny_run("image.split_brain_depth").model.published
    assert list(published) == ["encoder", "depth_encoder"]
    assert published["encoder"](tf.zeros([1, 32, 32, 3])).shape == (1, 8)
    assert published["depth_encoder"](tf.zeros([1, 32, 32, 1])).shape == (1, 8)
    assert encoders.tap_names(published["encoder"]) == ["c1", "c2"]


@pytest.mark.slow
def test_depth_of_unseen_worlds_is_seen_in_their_images():
    small = {**with_depth.SMALL, "encoder": "conv4", "data": "world:n=1000,size=32", "epochs": 20}
    run = with_depth.recipe(**small)
    run.fit(verbose=0)
    unseen = next(iter(load("world:n=200,size=32@test", keys=("image", "depth")).batch(200)))
    x, y = with_depth.views(unseen, SEED, size=32, area=(1.0, 1.0), stride=4)
    wanted = (y["image"] - 1.7) / 0.5
    error = np.mean((run.model.predict(x, verbose=0)["image"] - wanted) ** 2)
    print(error, np.var(wanted))
    assert error < 0.7 * np.var(wanted)


@pytest.mark.parametrize("name", ["image.split_brain", "image.split_brain_regression"])
def test_taps_survive_the_way_out_and_back(name, tmp_path):
    encoder = zoo_runs.tiny_run(name).model.encoder
    tfssl.export(encoder, tmp_path / "encoder")
    loaded = tfssl.load(tmp_path / "encoder")
    assert encoders.tap_names(loaded) == ["c1", "c2"]
    pictures = tf.constant(RANDOM.random([2, 16, 16, 3]), tf.float32)
    live = encoders.representation(encoder)(pictures)
    for tap, value in encoders.representation(loaded)(pictures).items():
        np.testing.assert_allclose(value, live[tap], atol=1e-5)
