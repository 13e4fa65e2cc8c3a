"""SS-GAN: rotations beside the game, who learns them from which pictures, and spectral norms."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import zoo_runs

from tfssl import zoo
from tfssl.layers.spectral import SpectralConv2D, SpectralDense
from tfssl.objectives import adversarial
from tfssl.pipelines.augment.image import rotate90

self_gan = zoo.get("image.self_gan")
RANDOM = np.random.default_rng(0)


def model(rotated=8, **weights):
    encoder = self_gan.trunk(16, (8, 16))
    return self_gan.SelfGAN(encoder, 16, 4, channels=(8, 16), rotated=rotated, **weights)


def batch(count=6):
    examples = {"image": tf.constant(RANDOM.integers(0, 256, [count, 20, 20, 3]), tf.uint8)}
    return self_gan.views(examples, tf.constant([1, 2]), size=16, width=4)


def guesses(count=6, rotated=8):
    return {
        "real": tf.Variable(RANDOM.normal(size=[count, 1]), dtype=tf.float32),
        "fake": tf.Variable(RANDOM.normal(size=[count, 1]), dtype=tf.float32),
        "real_turns": tf.Variable(RANDOM.normal(size=[rotated, 4]), dtype=tf.float32),
        "fake_turns": tf.Variable(RANDOM.normal(size=[rotated, 4]), dtype=tf.float32),
    }


def softmax_cost(logits):
    labels = np.repeat(np.arange(4), len(logits) // 4)
    rows = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(logits)), labels]
    return rows.mean()


def test_the_noise_is_normal():
    noise = batch(2000)["noise"].numpy()
    assert noise.mean() == pytest.approx(0, abs=0.05) and noise.std() == pytest.approx(1, abs=0.05)


def test_undecided_heads_cost_what_the_card_says():
    outputs = {k: tf.zeros([8, 4 if "turns" in k else 1]) for k in guesses()}
    assert float(model().critique(None, None, outputs)) == pytest.approx(2.772589, abs=1e-5)
    assert float(model().objective(None, None, outputs)) == pytest.approx(0.970406, abs=1e-5)


def test_both_losses_are_their_equations_in_value_and_gradient():
    outputs, method = guesses(), model()
    real, fake, real_turns, fake_turns = (v.numpy() for v in outputs.values())
    with tf.GradientTape(persistent=True) as tape:
        critic = method.critique(None, None, keras.tree.map_structure(tf.identity, outputs))
        player = method.objective(None, None, keras.tree.map_structure(tf.identity, outputs))
    plain = np.log1p(np.exp(-real)).mean() + np.log1p(np.exp(fake)).mean()
    assert float(critic) == pytest.approx(plain + softmax_cost(real_turns), rel=1e-5)
    expected = np.log1p(np.exp(-fake)).mean() + 0.2 * softmax_cost(fake_turns)
    assert float(player) == pytest.approx(expected, rel=1e-5)
    # Made pictures teach the discriminator no rotation, and real ones the generator nothing.
    assert tape.gradient(critic, outputs["fake_turns"]) is None
    assert tape.gradient(player, outputs["real_turns"]) is None
    assert tape.gradient(player, outputs["real"]) is None
    share = np.exp(real_turns) / np.exp(real_turns).sum(axis=1, keepdims=True)
    share[np.arange(8), np.repeat(np.arange(4), 2)] -= 1
    np.testing.assert_allclose(tape.gradient(critic, outputs["real_turns"]), share / 8, atol=1e-6)


def test_without_rotation_it_is_the_plain_game_to_the_bit():
    outputs = keras.tree.map_structure(tf.identity, guesses())
    method = model(alpha=0.0, beta=0.0)
    real, fake = outputs["real"], outputs["fake"]
    assert float(method.critique(None, None, outputs)) == float(
        adversarial.discriminator(real, fake)
    )
    assert float(method.objective(None, None, outputs)) == float(adversarial.generator(fake))


def test_the_tail_of_the_batch_is_turned_in_blocks_and_labels_undo_it():
    np.testing.assert_array_equal(self_gan.turns_of(8), [0, 0, 1, 1, 2, 2, 3, 3])
    images = tf.constant(RANDOM.random([6, 8, 8, 3]), tf.float32)
    turned = tf.concat([images[-2:], self_gan.turned(images, 2)], axis=0)
    back = rotate90(turned, -self_gan.turns_of(8))
    for block in np.split(back.numpy(), 4):
        np.testing.assert_array_equal(block, images[-2:])
    assert (turned[2:4].numpy() != turned[:2].numpy()).any()


def test_the_game_never_sees_a_rotated_picture_and_the_heads_get_the_right_ones():
    method, x = model(), batch()
    outputs = method(x)
    shapes = {name: tuple(value.shape) for name, value in outputs.items()}
    assert shapes == {"real": (6, 1), "fake": (6, 1), "real_turns": (8, 4), "fake_turns": (8, 4)}
    made = method.generator(x["noise"], training=False) / 2 + 0.5
    for kind, images in (("real", x["image"]), ("fake", made)):
        logits, _ = method.critic(images)
        np.testing.assert_allclose(outputs[kind], logits, atol=1e-5)
        blocks = tf.concat([rotate90(images[-2:], k) for k in range(4)], axis=0)
        np.testing.assert_allclose(outputs[f"{kind}_turns"], method.critic(blocks)[1], atol=1e-5)


def test_a_step_of_either_player_leaves_the_other_alone():
    for rates, moved in (((0.1, 0.0), "generator"), ((0.0, 0.1), "critic")):
        method, x = model(), batch()
        method.compile(*(keras.optimizers.SGD(rate) for rate in rates), run_eagerly=True)
        before = {
            n: [w.numpy() for w in getattr(method, n).trainable_weights]
            for n in ("generator", "critic")
        }
        method.train_on_batch(x)
        for name, old in before.items():
            new = [w.numpy() for w in getattr(method, name).trainable_weights]
            changed = [(a != b).any() for a, b in zip(new, old)]
            assert all(changed) if name == moved else not any(changed)


def test_a_small_batch_is_turned_whole_and_any_encoder_serves():
    method = self_gan.SelfGAN(zoo_runs.tiny_image_encoder(), 16, 4, (8, 16), rotated=64)
    assert method(batch(3))["real_turns"].shape == [12, 4]


@pytest.mark.parametrize("kind", ["convolution", "linear"])
def test_spectral_layers_have_norm_one_and_a_gradient_through_it(kind):
    if kind == "linear":
        layer, x = SpectralDense(5, use_bias=False), tf.constant(RANDOM.normal(size=[64, 7]))
    else:
        layer = SpectralConv2D(5, 3, padding="same", use_bias=False)
        x = tf.constant(RANDOM.normal(size=[4, 6, 6, 7]))
    x = tf.cast(x, tf.float32)
    layer.build(x.shape)
    for _ in range(60):
        layer(x, training=True)
    kernel = layer.kernel.numpy()
    norm = np.linalg.norm(kernel.reshape(-1, 5), ord=2)
    plain = tf.matmul(x, kernel) if kind == "linear" else tf.nn.conv2d(x, kernel, 1, "SAME")
    np.testing.assert_allclose(layer(x), plain / norm, rtol=1e-3, atol=1e-4)
    before = layer.direction.numpy()
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(x, training=False) ** 2)
    np.testing.assert_array_equal(layer.direction, before)
    # The scale of the kernel does not matter, so the gradient has no part along it.
    slope = tape.gradient(loss, layer.kernel.value).numpy()
    assert abs((slope * kernel).sum()) < 1e-3 * np.linalg.norm(slope) * np.linalg.norm(kernel)
    assert np.linalg.norm(slope) > 0


def test_the_spectral_layers_survive_a_copy():
    encoder = self_gan.trunk(16, (8, 16))
    assert sum(isinstance(layer, SpectralConv2D) for layer in encoder.layers) == 2
    assert not any(isinstance(layer, keras.layers.BatchNormalization) for layer in encoder.layers)
    copy = keras.models.clone_model(encoder)
    copy.set_weights(encoder.get_weights())
    image = RANDOM.random([2, 16, 16, 3]).astype("float32")
    np.testing.assert_array_equal(copy(image), encoder(image))


@pytest.mark.slow
def test_rotation_alone_is_learnt_by_the_discriminator():
    keras.utils.set_random_seed(0)
    run = self_gan.recipe(**{**self_gan.SMALL, "alpha": 0.0, "beta": 100.0, "epochs": 8})
    run.fit(verbose=0)
    from tfssl import pipelines

    images = np.stack([e["image"] for e in pipelines.load("digits@test").as_numpy_iterator()])
    examples = {"image": tf.constant(images)}
    x = self_gan.views(examples, tf.constant([5, 6]), size=32)["image"]
    turns = np.argmax(run.model.critic(tf.concat([x, self_gan.turned(x, len(x))], 0))[1], axis=1)
    right = (turns == np.repeat(np.arange(4), len(x))).mean()
    print(right)
    assert right > 0.5
