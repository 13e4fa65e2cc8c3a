"""Rotation: the four turns, what the loss can and cannot reach, and a pretext that is learnt."""

import cifar_learning
import keras
import numpy as np
import pytest
import tensorflow as tf

from tfssl import evaluate, zoo
from tfssl.pipelines.augment.image import rotate90

rotation = zoo.get("image.rotation")


def tiny():
    image = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(16, 3, 2, activation="relu")(image)
    x = keras.layers.Conv2D(16, 3, 2, activation="relu")(x)
    return keras.Model(image, keras.layers.GlobalAveragePooling2D()(x))


def images(count, side=16):
    return np.random.default_rng(0).integers(0, 256, [count, side, side, 3]).astype(np.uint8)


def test_class_k_is_k_quarter_turns_counter_clockwise_of_the_same_crop():
    x, y = rotation.views({"image": tf.constant(images(3))}, tf.constant([1, 2]), size=8)
    assert x.shape == (3, 4, 8, 8, 3) and x.dtype == tf.float32
    np.testing.assert_array_equal(y, [[0, 1, 2, 3]] * 3)
    for turns in range(4):
        expected = np.rot90(x[:, 0].numpy(), turns, axes=(1, 2))
        np.testing.assert_array_equal(x[:, turns], expected)
    for again in range(4):
        np.testing.assert_array_equal(rotate90(x[:, 3], again), x[:, (3 + again) % 4])


def test_the_cards_two_by_two_image_turns_as_written():
    image = tf.constant([[1, 2], [3, 4]])[None, :, :, None]
    turned = [rotate90(image, k)[0, :, :, 0].numpy().tolist() for k in range(4)]
    assert turned == [[[1, 2], [3, 4]], [[2, 4], [1, 3]], [[4, 3], [2, 1]], [[3, 1], [4, 2]]]


def test_equal_logits_cost_ln_4():
    model = rotation.Rotation(tiny())
    loss = model.objective(None, tf.tile(tf.range(4)[None], [5, 1]), tf.zeros([5, 4, 4]))
    assert float(loss) == pytest.approx(1.3862944) == model.chance


def trained(pictures, steps, area=(0.5, 1.0)):
    """Loss and accuracy after `steps` steps on crops of `pictures` [B, H, W, 3]."""
    keras.utils.set_random_seed(0)
    model = rotation.Rotation(tiny())
    model.compile(keras.optimizers.Adam(1e-2))
    data = tf.data.Dataset.counter().take(steps)
    data = data.map(
        lambda i: rotation.views(
            {"image": pictures}, tf.stack([0, tf.cast(i, tf.int32)]), size=16, area=area
        )
    )
    model.fit(data.take(steps - 10), verbose=0)
    return model.evaluate(data.skip(steps - 10), verbose=0, return_dict=True)


def rosettes():
    """Noise [8, 16, 16, 3] that every quarter turn leaves as it is."""
    turns = [np.rot90(images(8).astype(int), k, axes=(1, 2)) for k in range(4)]
    return np.sum(turns, axis=0) // 4


@pytest.mark.parametrize("pictures, area", [("grey", (0.5, 1.0)), ("rosettes", (1.0, 1.0))])
def test_pictures_that_look_alike_at_every_turn_never_beat_chance(pictures, area):
    """One grey each, wherever it is cut; textures as a whole, which any second filter betrays."""
    grey = np.ones([8, 16, 16, 3]) * np.arange(0, 256, 36)[:, None, None, None]
    pictures = grey if pictures == "grey" else rosettes()
    logs = trained(tf.constant(pictures, tf.uint8), 60, area)
    assert logs["loss"] >= 1.38629
    assert logs["accuracy"] == pytest.approx(0.25)


def test_sky_over_ground_is_turned_upright_within_a_hundred_steps():
    ramp = np.linspace(255, 0, 16)[None, :, None, None]
    pictures = np.clip(ramp + images(8) * 0.2 - 25, 0, 255)
    logs = trained(tf.constant(pictures, tf.uint8), 100)
    assert logs["accuracy"] > 0.95


def test_the_small_recipe_builds_and_its_rate_falls_thrice():
    run = rotation.recipe(**{**rotation.SMALL, "epochs": 1, "learning_rate": 0.1})
    rate, steps = run.model.optimizer._learning_rate, run.dataset.steps
    rates = [float(rate(round(steps * share))) for share in (0.0, 0.6, 0.8, 0.97)]
    np.testing.assert_allclose(rates, [0.1, 0.02, 0.004, 0.0008], rtol=1e-5)


@pytest.mark.slow
def test_five_passes_over_photographs_beat_the_untrained_network_under_a_linear_probe(shared):
    untrained, trained = cifar_learning.before_and_after(
        "image.rotation", shared, epochs=5, protocol=evaluate.linear
    )
    assert trained > untrained + 0.02
