"""BiGAN: two swapped games, who is trained by which term, and an encoder that inverts."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import zoo_runs

from tfssl import zoo

bigan = zoo.get("image.bigan")
RANDOM = np.random.default_rng(0)


def model():
    return bigan.BiGAN(zoo_runs.tiny_image_encoder(), 16, 4, channels=(8, 16), hidden=16)


def batch(count=6):
    examples = {"image": tf.constant(RANDOM.integers(0, 256, [count, 20, 20, 3]), tf.uint8)}
    return bigan.views(examples, tf.constant([1, 2]), size=16, width=4)


def test_the_noise_is_uniform_and_everything_has_the_range_that_its_partner_has():
    x = batch(500)
    assert -1 <= x["noise"].numpy().min() < -0.99 and 0.99 < x["noise"].numpy().max() < 1
    assert np.std(x["noise"]) == pytest.approx(3**-0.5, abs=0.02)
    method = model()
    code, made = method.encoder(x["image"]), method.generator(x["noise"])
    assert code.shape == [500, 4] and made.shape == [500, 16, 16, 3]
    assert np.abs(code).max() <= 1 and np.abs(made).max() <= 1


def test_an_undecided_critic_costs_both_sides_two_ln_2():
    outputs = {"real": tf.zeros([5, 1]), "fake": tf.zeros([5, 1])}
    assert float(model().objective(None, None, outputs)) == pytest.approx(2 * np.log(2))
    assert float(model().critique(None, None, outputs)) == pytest.approx(2 * np.log(2))


def test_the_players_want_the_opposite_of_the_critic():
    real, fake = RANDOM.normal(size=[2, 5, 1])
    outputs = {"real": tf.constant(real), "fake": tf.constant(fake)}

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    critic = -np.log(sigmoid(real)).mean() - np.log(1 - sigmoid(fake)).mean()
    players = -np.log(1 - sigmoid(real)).mean() - np.log(sigmoid(fake)).mean()
    assert float(model().critique(None, None, outputs)) == pytest.approx(critic, rel=1e-5)
    assert float(model().objective(None, None, outputs)) == pytest.approx(players, rel=1e-5)


def test_each_term_trains_its_own_player_and_both_are_there():
    method, x = model(), batch()
    players = {"encoder": method.encoder, "generator": method.generator}

    def moved(term):
        with tf.GradientTape() as tape:
            loss = term(method(x, training=True))
        gradients = tape.gradient(loss, {n: m.trainable_variables for n, m in players.items()})
        flat = {n: [g for g in gs if g is not None] for n, gs in gradients.items()}
        return {n for n, gs in flat.items() if any(np.abs(g).max() > 0 for g in gs)}

    assert moved(lambda o: method.objective(None, None, o)) == {"encoder", "generator"}
    assert moved(lambda o: method.objective(None, None, {**o, "real": tf.zeros([6, 1])})) == {
        "generator"
    }


def test_one_step_moves_all_three_and_batch_norm_sees_the_two_kinds_apart():
    method, x = model(), batch()
    method.compile(keras.optimizers.SGD(0.1), keras.optimizers.SGD(0.1))
    parts = (method.encoder, method.generator, method.critic)
    before = [[w.numpy() for w in part.trainable_weights] for part in parts]
    apart = method(x, training=True)["real"].numpy()
    code = method.encoder(x["image"], training=True)
    alone = method.critic([2 * x["image"] - 1, code], training=True)
    np.testing.assert_allclose(apart, alone, atol=1e-5)
    method.train_on_batch(x)
    for part, old in zip(parts, before):
        assert all((w.numpy() != o).any() for w, o in zip(part.trainable_weights, old))


def test_the_rate_is_constant_for_half_the_steps_and_ends_at_a_hundredth():
    rate = bigan.LateDecay(2e-4, 400)
    rates = [float(rate(step)) for step in (0, 200, 300, 400)]
    np.testing.assert_allclose(rates, [2e-4, 2e-4, 2e-5, 2e-6], rtol=1e-4)


class Plane(bigan.BiGAN):
    """The same game over points of the plane instead of images."""

    def __init__(self):
        def hidden(width):
            return [keras.layers.Dense(width, "leaky_relu") for _ in range(2)]

        code = keras.Sequential([keras.Input([2]), *hidden(64), keras.layers.Dense(2, "tanh")])
        bigan.Adversarial.__init__(self, code)
        self.generator = keras.Sequential([keras.Input([2]), keras.layers.Dense(2)])
        x = pair = [keras.Input([2]), keras.Input([2])]
        for layer in (keras.layers.Concatenate(), *hidden(128), keras.layers.Dense(1)):
            x = layer(x)
        self.critic = keras.Model(pair, x)


def test_a_linear_generator_is_inverted_and_the_critic_looks_at_the_code():
    keras.utils.set_random_seed(0)
    random = np.random.default_rng(0)
    turn = np.array([[0.8, 0.3], [-0.2, 0.6]])

    def uniform(count):
        return random.uniform(-1, 1, [count, 2]).astype("float32")

    points = (uniform(25600) @ turn + 1).astype("float32") / 2  # as images, in [0, 1]
    data = tf.data.Dataset.from_tensor_slices({"image": points, "noise": uniform(25600)})
    method, noise = Plane(), uniform(1000)
    method.compile(keras.optimizers.Adam(3e-4, 0.5), keras.optimizers.Adam(3e-4, 0.5))

    def told():
        code = method.encoder(method.generator(noise)).numpy()
        return [np.corrcoef(code[:, i], noise[:, i])[0, 1] for i in (0, 1)]

    before = told()
    method.fit(data.batch(128), epochs=9, verbose=0)
    assert min(before) < 0.5 and min(told()) > 0.8, (before, told())
    held_out = tf.constant(uniform(1000) @ turn, tf.float32)
    code = method.encoder(held_out)
    own, anothers = method.critic([held_out, code]), method.critic([held_out, code[::-1]])
    # Its verdict hangs on the pair, and is no sum of a verdict on each; which pair it prefers
    # changes as the game goes on.
    jointly = own + own[::-1] - anothers - anothers[::-1]
    assert float(tf.reduce_mean(tf.abs(jointly))) > 1


def test_a_critic_tells_pairs_whose_parts_are_alike_by_what_they_have_together():
    keras.utils.set_random_seed(0)
    random = np.random.default_rng(0)
    judge = bigan.critic(8, 2, (8,), 32)
    real = np.arange(4096) % 2 == 0

    def pairs():
        """Pictures of one colour with its code where they are made, its opposite where real."""
        z = random.uniform(-1, 1, [4096, 2]).astype("float32")
        colours = np.pad(z, [[0, 0], [0, 1]])[:, None, None]
        return np.tile(colours, [1, 8, 8, 1]), np.where(real[:, None], -z, z)

    judge.compile(keras.optimizers.Adam(3e-3), keras.losses.BinaryCrossentropy(from_logits=True))
    judge.fit(pairs(), real, batch_size=128, epochs=5, verbose=0)
    pictures, codes = pairs()
    told = np.mean((judge([pictures, codes]).numpy()[:, 0] > 0) == real)
    shuffled = judge([pictures[real], codes[real][::-1]]).numpy() > 0
    assert told > 0.9 and 0.4 < shuffled.mean() < 0.6, (told, shuffled.mean())


@pytest.mark.slow
def test_codes_of_made_pictures_tell_the_noise_they_were_made_of():
    options = dict(size=16, channels=(32, 64), hidden=512, epochs=100)
    keras.utils.set_random_seed(0)
    run = bigan.recipe(**{**bigan.SMALL, **options})
    method, noise = run.model, RANDOM.uniform(-1, 1, [1024, 32]).astype("float32")

    def explained():
        code = method.encoder(method.generator(noise) / 2 + 0.5).numpy()
        return np.mean([np.corrcoef(code[:, i], noise[:, i])[0, 1] for i in range(32)])

    before = explained()
    run.fit(verbose=0)
    print(before, explained())
    assert abs(before) < 0.1 and explained() > before + 0.2
