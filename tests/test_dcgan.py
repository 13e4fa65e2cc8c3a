"""DCGAN: the released architecture to the last weight, the game, and features of every map."""

import itertools

import cifar_learning
import keras
import numpy as np
import pytest
import tensorflow as tf
import zoo_runs

from tfssl import evaluate, zoo
from tfssl.errors import BadInput
from tfssl.layers.generator import generator, unnoticed
from tfssl.objectives import adversarial

dcgan = zoo.get("image.dcgan")
RANDOM = np.random.default_rng(0)


def learnt(model):
    return sum(int(np.prod(w.shape)) for w in model.trainable_weights)


def model(encoder=None):
    encoder = encoder or dcgan.trunk(16, (8, 16), 4)
    return dcgan.DCGAN(encoder, 16, 4, channels=(8, 16), kernel=4)


def batch(count=6):
    examples = {"image": tf.constant(RANDOM.integers(0, 256, [count, 20, 24, 3]), tf.uint8)}
    return dcgan.views(examples, tf.constant([1, 2]), size=16, width=4)


def test_both_networks_have_the_released_number_of_weights():
    method = dcgan.DCGAN(dcgan.trunk())
    assert learnt(method.generator) == 18_885_760
    assert learnt(method.critic) == 17_232_768


def test_no_batch_norm_touches_what_is_made_or_the_picture_that_comes_in():
    def after(layer):
        return [node.operation for node in layer._outbound_nodes]

    method = model()
    kinds = [type(layer) for layer in method.generator.layers[-2:]]
    assert kinds == [keras.layers.Conv2DTranspose, keras.layers.Activation]
    first, *others = [x for x in method.encoder.layers if isinstance(x, keras.layers.Conv2D)]
    assert isinstance(after(first)[0], keras.layers.LeakyReLU)
    assert all(isinstance(after(x)[0], keras.layers.BatchNormalization) for x in others)
    assert not any("pooling" in layer.name for layer in method.critic.layers)


def test_the_first_weights_are_small_and_the_scales_begin_around_one():
    made = generator(32, 100, (32, 64, 128), 5)
    for weight in made.trainable_weights:
        value = weight.numpy()
        mean = {"kernel": 0, "gamma": 1, "beta": 0}[weight.name]
        assert value.mean() == pytest.approx(mean, abs=0.01)
        spread = 0 if weight.name == "beta" else 0.02
        assert value.std() == pytest.approx(spread, rel=0.3)
    kernels = [w.numpy().ravel()[:9] for w in made.trainable_weights if w.name == "kernel"]
    assert all((a != b).any() for a, b in itertools.pairwise(kernels))


def test_noise_is_uniform_and_pictures_stay_in_range():
    x = batch(500)
    assert -1 <= x["noise"].numpy().min() < -0.99 and 0.99 < x["noise"].numpy().max() < 1
    assert np.std(x["noise"]) == pytest.approx(3**-0.5, abs=0.02)
    assert x["image"].shape == [500, 16, 16, 3]
    made = model().generator(100 * x["noise"], training=True).numpy()
    assert made.shape == (500, 16, 16, 3) and np.abs(made).max() <= 1


def test_without_a_crop_the_middle_of_the_picture_is_left_as_it_is():
    image = RANDOM.integers(0, 256, [2, 32, 32, 3]).astype("uint8")
    x = dcgan.views({"image": tf.constant(image)}, tf.constant([1, 2]), size=32)
    np.testing.assert_allclose(x["image"], image / 255, atol=1e-3)


def test_an_undecided_discriminator_costs_ln_4_and_the_generator_ln_2():
    outputs = {"real": tf.zeros([5, 1]), "fake": tf.zeros([5, 1])}
    assert float(model().critique(None, None, outputs)) == pytest.approx(1.386294, abs=1e-6)
    assert float(model().objective(None, None, outputs)) == pytest.approx(0.693147, abs=1e-6)


def test_the_losses_are_their_equations_in_value_and_gradient():
    real, fake = (tf.Variable(RANDOM.normal(size=[5, 1]), dtype=tf.float32) for _ in range(2))

    def sigmoid(x):
        return 1 / (1 + np.exp(-x.numpy()))

    with tf.GradientTape(persistent=True) as tape:
        critic = adversarial.discriminator(real, fake)
        player = adversarial.generator(fake)
    expected = -np.log(sigmoid(real)).mean() - np.log(1 - sigmoid(fake)).mean()
    assert float(critic) == pytest.approx(expected, rel=1e-5)
    assert float(player) == pytest.approx(-np.log(sigmoid(fake)).mean(), rel=1e-5)
    np.testing.assert_allclose(tape.gradient(critic, real), (sigmoid(real) - 1) / 5, atol=1e-6)
    np.testing.assert_allclose(tape.gradient(critic, fake), sigmoid(fake) / 5, atol=1e-6)
    # It does not saturate where the discriminator is sure.
    np.testing.assert_allclose(tape.gradient(player, fake), (sigmoid(fake) - 1) / 5, atol=1e-6)


def test_features_are_all_maps_on_a_grid_of_four():
    encoder = dcgan.trunk(32, (128, 256, 512))
    assert encoder.output_shape == (None, 14_336)
    assert dcgan.trunk().output_shape == (None, 16 * (128 + 256 + 512 + 1024))
    image = RANDOM.random([2, 32, 32, 3]).astype("float32")
    first = keras.Model(encoder.input, encoder.get_layer("c1").output)(image).numpy()  # 16 x 16
    pooled = first.reshape(2, 4, 4, 4, 4, 128).max(axis=(2, 4)).reshape(2, -1)
    np.testing.assert_allclose(encoder(image)[:, : 16 * 128], pooled, rtol=1e-5)


def test_a_step_of_either_player_leaves_the_other_alone():
    for rates, moved in (((0.1, 0.0), "generator"), ((0.0, 0.1), "critic")):
        method, x = model(), batch()
        method.compile(*(keras.optimizers.SGD(rate) for rate in rates), run_eagerly=True)
        before = {n: [w.numpy() for w in getattr(method, n).trainable_weights] for n in PLAYERS}
        method.train_on_batch(x)
        for name, old in before.items():
            new = [w.numpy() for w in getattr(method, name).trainable_weights]
            changed = [(a != b).any() for a, b in zip(new, old)]
            assert all(changed) if name == moved else not any(changed)


PLAYERS = ("generator", "critic")


def test_batch_norm_sees_the_two_kinds_apart_and_keeps_the_statistics_of_the_real():
    method, x = model(), batch()
    alone = keras.models.clone_model(method.critic)
    alone.set_weights(method.critic.get_weights())
    outputs = method(x, training=True)
    np.testing.assert_allclose(outputs["real"], alone(x["image"], training=True), atol=1e-6)
    for ours, theirs in zip(method.critic.non_trainable_weights, alone.non_trainable_weights):
        np.testing.assert_allclose(ours, theirs, atol=1e-7)
    assert (method.critic.non_trainable_weights[0].numpy() != 0).any()
    made = method.generator(x["noise"], training=True) / 2 + 0.5
    expected = alone(made, training=True)
    np.testing.assert_allclose(unnoticed(method.critic, made, True), expected, atol=1e-6)


def test_any_encoder_can_be_the_discriminator():
    method = model(zoo_runs.tiny_image_encoder())
    assert method(batch())["real"].shape == [6, 1]


def smoothness(made, width):
    """Mean squared steps between pictures of 20 points on a line through the noise."""
    ends = RANDOM.uniform(-1, 1, [2, width])
    shares = np.linspace(0, 1, 21)[:, None]
    line = ((1 - shares) * ends[0] + shares * ends[1]).astype("float32")
    pictures = made(line, training=False).numpy()
    return ((pictures[1:] - pictures[:-1]) ** 2).mean(axis=(1, 2, 3))


@pytest.mark.slow
def test_noise_moves_smoothly_after_training():
    keras.utils.set_random_seed(0)
    run = dcgan.recipe(**dcgan.SMALL)
    run.fit(verbose=0)
    steps = smoothness(run.model.generator, 64)
    print(steps.min(), steps.max())
    assert steps.min() > 0 and steps.max() < 0.1


@pytest.mark.slow
def test_a_pass_over_photographs_makes_a_better_discriminator_than_an_untrained_one(shared):
    untrained, trained = cifar_learning.before_and_after(
        "image.dcgan", shared, epochs=1, protocol=evaluate.linear, tap="c3"
    )
    assert trained > untrained + 0.01


@pytest.mark.parametrize("name", ["dcgan", "bigan", "self_gan", "spot_artifacts"])
def test_a_size_that_cannot_be_halved_is_refused(name):
    module = zoo.get(f"image.{name}")
    with pytest.raises(BadInput, match=r"size 30 cannot be halved 3 times.*24 or 32"):
        module.recipe(**{**module.SMALL, "size": 30})
