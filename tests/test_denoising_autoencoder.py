"""Denoising autoencoders: the optima that theory knows, corruptions, and no corruption after."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
import zoo_runs

from tfssl import encoders, zoo
from tfssl.errors import BadInput
from tfssl.layers.decoders import decoder
from tfssl.pipelines import batching, load

dae = zoo.get("image.denoising_autoencoder")
RANDOM = np.random.default_rng(0)
SEED = tf.constant([3, 4])


def linear_model(width, kind=dae.DenoisingAutoencoder, **options):
    """x -> W x, with the encoder for W and nothing for a decoder."""
    x = keras.Input([width])
    encoder = keras.Model(x, keras.layers.Dense(width, use_bias=False)(x))
    return kind(encoder, encoder, keras.layers.Activation("linear"), **options)


def learnt_map(vectors, corruption, level):
    """W after training on freshly corrupted `vectors` [N, d], and its error on corrupted ones."""

    def batch(step):
        seed = tf.stack([tf.cast(step, tf.int32), 5])
        some = tf.random.stateless_uniform([512], seed, 0, len(vectors), tf.int32)
        clean = tf.gather(tf.constant(vectors), some)
        image, corrupted = dae.corrupt(clean, tf.stack([7, seed[0]]), corruption, level)
        return {"image": image, "corrupted": corrupted}, clean

    keras.utils.set_random_seed(0)
    method = linear_model(vectors.shape[1])
    rate = keras.optimizers.schedules.CosineDecay(0.05, 400)
    method.compile(keras.optimizers.Adam(rate))
    method.fit(tf.data.Dataset.range(400).map(batch), verbose=0)
    image, _ = dae.corrupt(tf.constant(vectors), SEED, corruption, level)
    error = np.mean((method.encoder(image) - vectors) ** 2)
    return method.encoder.get_weights()[0], float(error)


def white(count, width):
    """Independent coordinates of exactly zero mean, unit variance and no correlation."""
    x = np.linalg.qr(RANDOM.normal(size=[count, width]))[0]
    x = np.linalg.qr(x - x.mean(axis=0))[0] * np.sqrt(count)
    return x.astype("float32")


def test_a_linear_one_shrinks_gaussian_noise_by_the_wiener_factor():
    w, error = learnt_map(white(20_000, 5), "gaussian", 0.5)
    np.testing.assert_allclose(w, 0.8 * np.eye(5), atol=0.03)
    assert error == pytest.approx(0.2, abs=0.005)


def test_masks_on_independent_coordinates_cannot_be_cured():
    w, error = learnt_map(white(20_000, 5), "masking", 0.25)
    np.testing.assert_allclose(w, np.eye(5), atol=0.03)
    assert error == pytest.approx(0.25, abs=0.01)


def test_of_coordinates_present_twice_what_one_lost_the_other_gives():
    x = white(20_000, 4)
    w, error = learnt_map(np.concatenate([x, x], axis=1), "masking", 0.25)
    np.testing.assert_allclose(w, np.tile(np.eye(4), [2, 2]) / 1.75, atol=0.03)
    assert error == pytest.approx(0.142857, abs=0.006)


def test_the_binary_one_sums_cross_entropies_whose_least_value_is_the_entropy():
    method = linear_model(784, dae.BinaryDenoisingAutoencoder)
    y = RANDOM.random([3, 784]).astype("float32")
    x = {"corrupted": tf.zeros([3, 784])}
    assert float(method.objective(x, y, tf.zeros([3, 784]))) == pytest.approx(543.43, abs=0.01)
    z = tf.constant(np.log(y / (1 - y)))  # sigmoid(z) = y
    with tf.GradientTape() as tape:
        tape.watch(z)
        loss = method.objective(x, y, z)
    entropy = -(y * np.log(y) + (1 - y) * np.log(1 - y)).sum(axis=1).mean()
    assert float(loss) == pytest.approx(entropy, rel=1e-4)
    np.testing.assert_allclose(tape.gradient(loss, z), 0, atol=1e-6)
    bits = np.round(y)
    assert float(method.objective(x, bits, 100 * (2 * bits - 1))) == pytest.approx(0, abs=1e-4)


def test_errors_weigh_alpha_where_it_was_corrupted_and_beta_where_it_was_kept():
    y, z = RANDOM.random([2, 4, 9]).astype("float32")
    corrupted = (RANDOM.random([4, 9]) < 0.4).astype("float32")
    x = {"corrupted": tf.constant(corrupted)}
    for alpha, beta in ((1.0, 1.0), (1.0, 0.0), (0.7, 0.2)):
        method = linear_model(9, emphasis=(alpha, beta))
        outputs = tf.constant(z)
        with tf.GradientTape() as tape:
            tape.watch(outputs)
            loss = method.objective(x, y, outputs)
        weights = alpha * corrupted + beta * (1 - corrupted)
        assert float(loss) == pytest.approx((weights * (z - y) ** 2).mean(), rel=1e-5)
        expected = weights * 2 * (z - y) / z.size
        np.testing.assert_allclose(tape.gradient(loss, outputs), expected, atol=1e-6)


def test_corruption_has_its_rate_and_is_drawn_anew():
    x = tf.constant(RANDOM.uniform(0.2, 0.8, [4, 100, 100, 3]), tf.float32)
    for kind, values in (("masking", [0]), ("salt_and_pepper", [0, 1])):
        changed, which = (v.numpy() for v in dae.corrupt(x, SEED, kind, 0.25))
        assert which.mean() == pytest.approx(0.25, abs=0.01)
        np.testing.assert_array_equal(which == 1, changed != x)
        np.testing.assert_array_equal(which, which[..., :1].repeat(3, axis=-1))
        assert set(np.unique(changed[which == 1])) == set(values)
        assert changed[which == 1].mean() == pytest.approx(np.mean(values), abs=0.02)
        other, _ = dae.corrupt(x, SEED + 1, kind, 0.25)
        assert (other.numpy() != changed).any()
    noisy, which = dae.corrupt(x, SEED, "gaussian", 0.3)
    noise = (noisy - x).numpy()
    assert which.numpy().min() == 1 and abs(noise.mean()) < 0.01
    assert noise.std() == pytest.approx(0.3, abs=0.01)
    with pytest.raises(BadInput, match="salt_and_pepper"):
        dae.corrupt(x, SEED, "salt", 0.1)


def test_blocks_go_as_one_even_where_the_side_is_no_multiple():
    x = tf.ones([8, 10, 10, 3])
    changed, which = dae.corrupt(x, SEED, "masking", 0.3, block=4)
    np.testing.assert_array_equal(changed, 1 - which)
    for row in (slice(0, 4), slice(4, 8), slice(8, 10)):
        block = which.numpy()[:, row, 4:8]
        assert (block == block[:, :1, :1, :1]).all()
    assert 0 < which.numpy().mean() < 1


def test_the_target_is_the_clean_crop_and_no_level_is_a_plain_autoencoder():
    pictures = {"image": tf.constant(RANDOM.integers(0, 256, [4, 20, 20, 3]), tf.uint8)}
    clean = None
    for kind in ("masking", "salt_and_pepper", "gaussian"):
        x, y = dae.views(pictures, SEED, size=16, corruption=kind, level=0.4)
        assert (x["image"] != y).numpy().mean() > 0.3
        np.testing.assert_array_equal(tf.where(x["corrupted"] == 0, x["image"], y), y)
        clean = y if clean is None else clean
        np.testing.assert_array_equal(y, clean)
        x, y = dae.views(pictures, SEED, size=16, corruption=kind, level=0.0)
        np.testing.assert_array_equal(x["image"], y)
        assert x["corrupted"].numpy().max() == 0


def test_what_is_published_corrupts_nothing():
    run = zoo_runs.tiny_run("image.denoising_autoencoder", epochs=1)
    picture = tf.constant(RANDOM.random([2, 32, 32, 3]), tf.float32)
    once, again = (run.model.published["encoder"](picture, training=False) for _ in range(2))
    np.testing.assert_array_equal(once, again)
    deepest = encoders.representation(run.model.encoder)(picture)["c2"]
    reconstruction = run.model({"image": picture})
    np.testing.assert_allclose(reconstruction, run.model.decoder(deepest), atol=1e-5)


def test_unseen_digits_lose_more_noise_than_copying_or_guessing_the_mean_would_leave():
    image = keras.Input([16, 16, 3])
    x = keras.layers.Dense(128, "relu")(keras.layers.Flatten()(image))
    encoder = keras.Model(image, keras.layers.Dense(64, name="code")(x))
    noise = {"corruption": "gaussian", "level": 0.5, "area": (1.0, 1.0)}
    method = dae.DenoisingAutoencoder(encoder, encoder, decoder((64,), 16, (16, 32)))
    method.compile(keras.optimizers.Adam(3e-3))
    view = functools.partial(dae.views, size=16, **noise)
    method.fit(batching.train(load("digits", keys=("image",)), view, 128), epochs=10, verbose=0)
    unseen = next(iter(load("digits@test", keys=("image",)).batch(200)))
    x, y = dae.views(unseen, SEED, size=16, **noise)
    error = np.mean((method(x) - y) ** 2)
    copying = np.mean((x["image"] - y) ** 2)
    guessing = np.var(y, axis=0).mean()
    print(error, copying, guessing)
    assert error < copying and error < 0.8 * guessing
