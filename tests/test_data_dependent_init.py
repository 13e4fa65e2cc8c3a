"""Data-dependent initialisation: the card's hand case, unit channels, equal rates, no optimiser."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import zoo_runs

from tfssl import zoo
from tfssl.errors import BadInput
from tfssl.layers.filters import directions

module = zoo.get("image.data_dependent_init")
RANDOM = np.random.default_rng(0)


def pictures(count=64, side=32):
    coarse = RANDOM.random([count, side // 8, side // 8, 3])
    images = coarse.repeat(8, axis=1).repeat(8, axis=2) + 0.1 * RANDOM.random([1, side, side, 3])
    return np.clip(images, 0, 1).astype("float32")


def method(filters="elwise", **options):
    return module.DataDependentInit(module.plain_cnn((8, 16, 24), 32), filters, **options)


def chain(*layers, shape=(1,)):
    x = image = keras.Input(shape)
    for layer in layers:
        x = layer(x)
    return keras.Model(image, x)


def test_the_hand_case():
    layer = keras.layers.Dense(1)
    init = module.DataDependentInit(chain(layer), beta=0.0)
    init.within(layer, np.array([[3.0]], "float32"), tf.constant([[0.0], [2.0]]), RANDOM)
    assert layer.kernel.numpy().item() == pytest.approx(1)
    assert layer.bias.numpy().item() == pytest.approx(-1)
    np.testing.assert_allclose(layer(tf.constant([[0.0], [2.0]])), [[-1], [1]], atol=1e-6)


@pytest.mark.parametrize("filters", module.FILTERS)
def test_every_channel_of_every_layer_has_mean_beta_and_deviation_one(filters):
    init, images = method(filters), pictures()
    init.between = lambda images: {}
    init.initialise(images)
    for layer in init.learnt:
        y = keras.Model(init.encoder.input, layer.output)(images)
        mean, variance = tf.nn.moments(y, [0, 1, 2])
        np.testing.assert_allclose(mean, np.full(mean.shape, 0.1), atol=1e-3)
        np.testing.assert_allclose(variance, np.ones(mean.shape), atol=2e-3)


def test_all_layers_end_with_one_rate_and_the_output_keeps_its_scale():
    init, images = method(), pictures()
    before = {}
    between = init.between

    def noted(images):
        before["std"] = np.std(init.encoder(images))
        return between(images)

    init.between = noted
    logs = init.initialise(images)
    rates = init.rates(images)
    assert logs["ratio_before"] > 1.2 and logs["ratio"] < 1.05
    assert rates.max() / rates.min() < 1.05
    assert np.std(init.encoder(images)) == pytest.approx(before["std"], rel=1e-3)


def test_one_sweep_makes_the_rates_of_a_deep_perceptron_equal():
    """By other draws they lay 12.08 apart as normal weights leave them, 3.33 before the sweep."""
    keras.utils.set_random_seed(0)
    plans = [(width, "relu") for width in (96, 256, 384, 384, 128)] + [(10, None)]
    dense = [
        keras.layers.Dense(*plan, kernel_initializer=keras.initializers.RandomNormal())
        for plan in plans
    ]
    init = module.DataDependentInit(chain(*dense, shape=(48,)), "elwise")
    x = tf.constant(np.random.default_rng(0).normal(size=[256, 48]), tf.float32)
    between, init.between = init.between, lambda images: {}
    untouched = init.rates(x)
    assert untouched.max() / untouched.min() > 8
    init.initialise(x)
    before = init.rates(x)
    init.rescale(np.sqrt(before / np.exp(np.log(before).mean())))
    after = init.rates(x)
    assert 2 < before.max() / before.min() < 5
    assert after.max() / after.min() < 1.05
    assert np.std(init.encoder(x)) == pytest.approx(1, abs=0.05)
    assert between(x)["ratio"] < 1.05


def test_rescaling_that_multiplies_to_one_leaves_the_outputs():
    init, images = method(), pictures(4)
    init.initialise(images)
    features = init.encoder(images).numpy()
    init.rescale(np.array([2.0, 0.5, 1.0]))
    np.testing.assert_allclose(init.encoder(images), features, rtol=1e-5, atol=1e-6)


def test_clustered_filters_are_no_isotropic_noise():
    images = pictures()

    def kurtosis(filters):
        init = method(filters)
        init.initialise(images)
        y = keras.Model(init.encoder.input, init.learnt[0].output)(images).numpy() - 0.1
        return np.mean(y**4) / np.mean(y**2) ** 2

    assert kurtosis("kmeans") > kurtosis("elwise")


def test_filters_made_of_patches_are_what_their_names_say():
    """Of two values, the second ten times as large, a quarter turn away from the axes' order."""
    x = tf.constant(RANDOM.normal(size=[5000, 2]) * [1, 10], tf.float32)
    layer = keras.layers.Dense(2)
    layer.build([None, 2])
    made = {kind: directions(layer, x, kind, np.random.default_rng(0)) for kind in module.FILTERS}
    np.testing.assert_allclose(np.abs(made["pca"]), [[0, 1], [1, 0]], atol=0.02)
    deviations = x.numpy().std(axis=0)
    zca = made["zca"][:, np.argsort(-np.abs(made["zca"][0]))]  # its rows are drawn
    np.testing.assert_allclose(zca, np.diag(1 / deviations), atol=0.01)
    whole = (x - x.numpy().mean(axis=0)) / deviations
    whole /= np.linalg.norm(whole, axis=1, keepdims=True)
    for column in made["rand"].T:
        assert np.abs(whole - column * deviations).max(axis=1).min() < 0.03, "one of the patches"


def test_holes_in_the_kernels_are_seen():
    images, wide = pictures(), keras.layers.Conv2D(6, 3, dilation_rate=2, dtype="float32")
    init = module.DataDependentInit(chain(wide, shape=(32, 32, 3)), "kmeans")
    init.between = lambda images: {}
    init.initialise(images)
    mean, variance = tf.nn.moments(init.encoder(images), [0, 1, 2])
    np.testing.assert_allclose(mean, np.full(6, 0.1), atol=1e-3)
    np.testing.assert_allclose(variance, np.ones(6), atol=2e-3)


def test_fifty_steps_from_it_get_further_than_from_gaussian_weights():
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.repeat(np.kron(digits.images / 16, np.ones([2, 2]))[..., None], 3, -1)
    images = images.astype("float32")

    def loss_after(make):
        encoder = module.plain_cnn((8, 16, 24, 24), 32)
        make(encoder)
        keras.utils.set_random_seed(0)
        network = keras.Sequential([encoder, keras.layers.Dense(10)])
        cost = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        network.compile(keras.optimizers.SGD(0.02, momentum=0.9), cost)
        data = tf.data.Dataset.from_tensor_slices((images, digits.target)).batch(64).repeat()
        network.fit(data, steps_per_epoch=50, verbose=0)
        return network.evaluate(images, digits.target, verbose=0)

    def gaussian(encoder):
        for layer in encoder.layers:
            if isinstance(layer, keras.layers.Conv2D):
                layer.kernel.assign(RANDOM.normal(0, 0.01, layer.kernel.shape))

    def set_by_data(encoder):
        module.DataDependentInit(encoder, "kmeans", depth=2).initialise(images[:160])

    assert loss_after(set_by_data) < loss_after(gaussian) - 0.2


def test_it_fits_once_writes_a_row_and_does_it_again_bit_for_bit(tmp_path):
    from tfssl.callbacks import Resume

    def run():
        return zoo_runs.tiny_run("image.data_dependent_init", epochs=5)

    one, two = run(), run()
    history = one.fit(verbose=0).history
    assert set(history) == {"ratio", "ratio_before"} and len(history["ratio"]) == 1
    two.fit(verbose=0, callbacks=[Resume(tmp_path)])
    assert zoo_runs.same(zoo_runs.weights(one.model), zoo_runs.weights(two.model))
    three = run()
    assert three.fit(verbose=0, callbacks=[Resume(tmp_path)]).history == {}, "nothing is left to do"
    assert zoo_runs.same(zoo_runs.weights(one.model), zoo_runs.weights(three.model))


def test_a_dead_channel_is_drawn_again():
    layer = keras.layers.Dense(2)
    init = module.DataDependentInit(chain(layer, shape=(3,)))
    x = tf.constant(RANDOM.normal(size=[50, 3]), tf.float32)
    kernel = np.array([[0, 1], [0, 1], [0, 1]], "float32")
    y = init.within(layer, kernel, x, np.random.default_rng(0))
    np.testing.assert_allclose(np.std(y, axis=0), 1, atol=1e-4)


def test_batch_norm_shortcuts_and_unknown_filters_are_refused_in_a_sentence():
    with pytest.raises(BadInput, match="BatchNormalization"):
        module.DataDependentInit(zoo_runs.tiny_image_encoder())
    image = keras.Input([4])
    both = keras.layers.Add()([keras.layers.Dense(4)(image), image])
    with pytest.raises(BadInput, match="Add"):
        module.DataDependentInit(keras.Model(image, both))
    for bent in (keras.layers.Dense(4, "sigmoid"), keras.layers.Activation("tanh")):
        with pytest.raises(BadInput, match=bent.name):
            module.DataDependentInit(chain(bent, shape=(4,)))
    with pytest.raises(BadInput, match="kmeans"):
        method("fourier")
