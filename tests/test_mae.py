"""MAE: patches and masks by their numbers, what the encoder sees, and pictures that are filled."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfssl import zoo
from tfssl.encoders.vit import vit_mini
from tfssl.objectives.reconstruction import masked_mse

mae = zoo.get("image.mae")


def method(size=16, **options):
    keras.utils.set_random_seed(0)
    encoder = vit_mini(size, dim=32, depth=2, heads=2)
    return mae.MAE(encoder, **{"width": 32, "depth": 1, "heads": 2, **options})


def batch(count=4, size=16, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "image": tf.constant(rng.uniform(size=[count, size, size, 3]), tf.float32),
        "noise": tf.constant(rng.uniform(size=[count, (size // 4) ** 2]), tf.float32),
    }


def test_patches_are_cut_row_by_row_and_put_back_exactly():
    image = tf.reshape(tf.range(16.0), [1, 4, 4, 1])
    patches = mae.patchify(image, 2)
    expected = [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]
    np.testing.assert_array_equal(patches[0], expected)
    np.testing.assert_array_equal(mae.unpatchify(patches, 2, 2), image)
    errors = [
        float(masked_mse(tf.zeros_like(patches), patches, tf.one_hot([i], 4))) for i in range(4)
    ]
    np.testing.assert_allclose(errors, [10.5, 24.5, 114.5, 160.5])
    mask = tf.constant([[1.0, 0, 0, 1]])
    assert float(masked_mse(tf.zeros_like(patches), patches, mask)) == pytest.approx(85.5)
    wide = tf.random.stateless_uniform([2, 8, 12, 3], [0, 1])
    np.testing.assert_array_equal(mae.unpatchify(mae.patchify(wide, 4), 4, 2), wide)
    np.testing.assert_array_equal(mae.patchify(wide, 4)[0, 4], tf.reshape(wide[0, 4:8, 4:8], [-1]))


def test_targets_have_unit_variance_and_flat_patches_none():
    for size, expected in ((16, 0.979167), (224, 0.998698)):  # patches of 48 and of 768 values
        model, x = method(size), batch(2, size)
        target = model.target(x["image"])
        np.testing.assert_allclose(tf.reduce_mean(target**2, -1), expected, rtol=1e-4)
        zero = masked_mse(tf.zeros_like(target), target, tf.ones(target.shape[:2]))
        assert float(zero) == pytest.approx(expected, rel=1e-4)
        grey = tf.ones([1, size, size, 3]) * 0.5 * mae.STD + mae.MEAN
        np.testing.assert_allclose(model.target(grey), 0, atol=1e-2)


def test_views_draw_a_new_mask_for_every_sample_and_call():
    images = {"image": tf.constant(np.zeros([3, 20, 20, 3], np.uint8))}
    one = mae.views(images, tf.constant([0, 1]), size=16, patch=4)
    two = mae.views(images, tf.constant([0, 2]), size=16, patch=4)
    again = mae.views(images, tf.constant([0, 1]), size=16, patch=4)
    assert one["image"].shape == (3, 16, 16, 3) and one["noise"].shape == (3, 16)
    orders = np.argsort(np.concatenate([one["noise"], two["noise"]]), axis=1)
    assert len(np.unique(orders, axis=0)) == 6
    np.testing.assert_array_equal(one["noise"], again["noise"])


def test_a_picture_of_the_method_shows_what_is_left_of_the_image():
    model, x = method(), batch()
    views, target = model.shown(x, None)
    grey = (views["visible"].numpy() == 0.5).all(-1)
    assert target is None and grey.mean() == 0.75
    np.testing.assert_array_equal(views["visible"][~grey], x["image"][~grey])


def test_147_of_196_patches_are_hidden_and_the_encoder_sees_50_tokens_and_alone_all_197():
    keras.utils.set_random_seed(0)
    model = mae.MAE(vit_mini(224, dim=32, depth=1, heads=2), width=32, depth=1, heads=2)
    lengths = []
    model.blocks[0].call = _spy(model.blocks[0].call, lengths)
    x = batch(2, 224)
    x["noise"] = tf.random.stateless_uniform([2, 196], [0, 1])
    outputs = model(x)
    np.testing.assert_array_equal(tf.reduce_sum(outputs["hidden"], 1), [147, 147])
    assert outputs["patches"].shape == (2, 196, 768) and lengths == [50]
    hidden = tf.argsort(tf.argsort(x["noise"], axis=1), axis=1) >= 49
    np.testing.assert_array_equal(outputs["hidden"], tf.cast(hidden, tf.float32))
    model.published["encoder"](x["image"])
    assert lengths == [50, 197]


def _spy(call, lengths):
    def spied(tokens, *args, **kwargs):
        lengths.append(tokens.shape[1])
        return call(tokens, *args, **kwargs)

    return spied


def test_hidden_pixels_never_reach_the_encoder():
    model, x = method(), batch()
    keep = tf.argsort(x["noise"], axis=1)[:, : model.visible]
    outputs = model(x)
    patches = mae.patchify(x["image"], 4)
    other = tf.random.stateless_uniform(patches.shape, [1, 2])
    changed = tf.where(outputs["hidden"][..., None] > 0, other, patches)
    changed = mae.unpatchify(changed, 4, 4)
    assert np.abs(changed - x["image"]).max() > 0.1
    np.testing.assert_array_equal(model.encode(x["image"], keep), model.encode(changed, keep))
    after = model({**x, "image": changed})
    np.testing.assert_array_equal(outputs["patches"], after["patches"])


def test_with_all_patches_in_order_the_tokens_are_those_of_the_whole_encoder():
    model, x = method(), batch()
    keep = tf.tile(tf.range(16)[None], [4, 1])
    pooled = tf.reduce_mean(model.encode(x["image"], keep)[:, 1:], axis=1)
    np.testing.assert_allclose(pooled, model.encoder(x["image"]), atol=1e-5)


def test_visible_patches_cost_nothing():
    model, x = method(), batch()
    outputs = model(x)
    patches = tf.Variable(outputs["patches"])
    with tf.GradientTape() as tape:
        loss = model.objective(x, None, {**outputs, "patches": patches})
    gradient = np.abs(tape.gradient(loss, patches)).max(axis=-1)
    np.testing.assert_array_equal(gradient > 0, outputs["hidden"] == 1)


def test_a_patch_returns_to_the_place_it_was_taken_from():
    """The decoder's input, read back through its position-free tokens."""
    model, x = method(), batch()
    decoder = model.decoder
    decoder.blocks, decoder.positions = [], np.zeros_like(decoder.positions)
    decoder.norm = decoder.predict = lambda tokens: tokens
    order = tf.argsort(x["noise"], axis=1)
    tokens = model.encode(x["image"], order[:, : model.visible])
    decoded = decoder(tokens, tf.argsort(order, axis=1))
    visible = tf.gather(decoded, order[:, : model.visible], batch_dims=1)
    np.testing.assert_allclose(visible, decoder.embed(tokens)[:, 1:], atol=1e-6)
    hidden = tf.gather(decoded, order[:, model.visible :], batch_dims=1)
    np.testing.assert_allclose(hidden, tf.zeros_like(hidden) + decoder.mask_token, atol=1e-6)


def test_biases_and_norms_do_not_decay():
    run = mae.recipe(**{**mae.SMALL, "epochs": 1, "batch_size": 16})
    optimizer = run.model.optimizer
    decayed = {v.name for v in run.model.trainable_variables if optimizer._use_weight_decay(v)}
    assert "kernel" in decayed and not decayed & {"bias", "gamma", "beta"}


def waves(count, seed):
    """Pictures of one sine wave each, at random angle and phase: hidden parts can be told."""
    rng = np.random.default_rng(seed)
    row, column = np.mgrid[0:16, 0:16]
    angle, phase = rng.uniform(0, np.pi, [2, count, 1, 1])
    wave = 0.5 + 0.4 * np.sin(0.5 * (row * np.cos(angle) + column * np.sin(angle)) + 2 * phase)
    return tf.constant(np.repeat(wave[..., None], 3, axis=-1), tf.float32)


def test_held_out_pictures_are_filled_better_than_by_the_mean():
    model = method()
    model.compile(keras.optimizers.Adam(3e-3))
    noise = np.random.default_rng(0).uniform(size=[3200, 16])
    data = tf.data.Dataset.from_tensor_slices({"image": waves(3200, 0), "noise": noise}).batch(64)
    data = data.map(lambda x: {**x, "noise": tf.cast(x["noise"], tf.float32)})
    model.fit(data, epochs=4, verbose=0, shuffle=False)
    held_out = {"image": waves(64, 1), "noise": tf.constant(noise[:64], tf.float32)}
    # Whatever one colour a patch is filled with, it costs at least 47 / 48.
    assert float(model.objective(held_out, None, model(held_out))) < 0.93
