"""Teachers, queues, prototypes and folds: what they hold, and what a gradient does not reach."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfssl import layers
from tfssl.layers.convolution import Conv3D
from tfssl.layers.correlation import Correlation
from tfssl.layers.cosines import Cosines
from tfssl.layers.sobel import Sobel, with_sobel


def network(name="network"):
    inputs = keras.Input([3])
    x = keras.layers.BatchNormalization()(keras.layers.Dense(4)(inputs))
    return keras.Model(inputs, x, name=name)


def test_fold_puts_the_views_of_an_example_side_by_side_and_unfold_undoes_it():
    x = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    folded = layers.fold(tf.constant(x))
    np.testing.assert_array_equal(folded[1 * 3 + 2], x[1, 2])
    np.testing.assert_array_equal(layers.unfold(folded, 3), x)


def test_mlp_has_no_bias_before_batch_norm_and_a_linear_end():
    head = layers.mlp(5, [7, 3])
    assert head.output_shape == (None, 3)
    assert [tuple(w.shape) for w in head.trainable_variables] == [(5, 7), (7,), (7,), (7, 3), (3,)]
    plain = layers.mlp(5, [7, 3], normalise=False)
    assert [tuple(w.shape) for w in plain.trainable_variables] == [(5, 7), (7,), (7, 3), (3,)]


def test_a_teacher_starts_as_a_copy_and_follows_by_the_closed_form():
    model = network()
    teacher = layers.Momentum(model)
    x = tf.random.stateless_normal([6, 3], [0, 1])
    np.testing.assert_array_equal(teacher(x), model(x))
    kernel, copy = model.weights[0], teacher.copies[0].weights[0]
    kernel.assign(tf.ones_like(kernel))
    copy.assign(tf.zeros_like(copy))
    for _ in range(100):
        teacher.follow(0.99)
    np.testing.assert_allclose(copy, np.full([3, 4], 0.633968), rtol=1e-5)


def test_a_teacher_keeps_its_own_statistics_and_has_nothing_to_train():
    model = network()
    teacher = layers.Momentum(model)
    assert not teacher.trainable_variables
    assert len(teacher.variables) == len(model.variables)
    x = 5 + tf.random.stateless_normal([16, 3], [0, 1])
    before = [np.array(w) for w in model.non_trainable_variables]
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(teacher(x, training=True))
    assert all(g is None for g in tape.gradient(loss, model.weights + teacher.weights))
    for was, now in zip(before, model.non_trainable_variables):
        np.testing.assert_array_equal(was, now)
    moved = [np.array(w) for w in teacher.copies[0].non_trainable_variables[-2:]]
    assert np.abs(moved[0]).max() > 0.01
    teacher.follow(0.5)
    np.testing.assert_array_equal(moved[0], teacher.copies[0].non_trainable_variables[-2])


@pytest.mark.parametrize("step, expected", [(0, 0.996), (50, 0.998), (100, 1.0), (120, 1.0)])
def test_the_momentum_rises_from_its_base_to_one_by_half_a_cosine(step, expected):
    assert float(layers.cosine_momentum(0.996, step, 100)) == pytest.approx(expected, abs=1e-6)
    assert float(layers.cosine_momentum(0.996, step, np.inf)) == pytest.approx(0.996)


def test_the_queue_holds_the_last_keys_in_order_as_unit_vectors():
    queue = layers.Queue(8, 4)
    np.testing.assert_allclose(np.linalg.norm(queue(), axis=1), 1, rtol=1e-6)
    keys = np.random.default_rng(0).normal(size=[5, 2, 4])
    unit = keys / np.linalg.norm(keys, axis=-1, keepdims=True)
    for batch in keys[:4]:
        queue.enqueue(tf.constant(batch))
    np.testing.assert_allclose(queue(), unit[:4].reshape(8, 4), rtol=1e-5)
    queue.enqueue(tf.constant(keys[4]))
    np.testing.assert_allclose(queue()[:2], unit[4], rtol=1e-5)
    np.testing.assert_allclose(queue()[2:], unit[1:4].reshape(6, 4), rtol=1e-5)


def test_a_batch_that_does_not_divide_the_queue_wraps_around():
    queue = layers.Queue(5, 2)
    keys = np.stack([np.cos(np.arange(12.0)), np.sin(np.arange(12.0))], axis=1)
    for start in (0, 3):
        queue.enqueue(tf.constant(keys[start : start + 3]))
    np.testing.assert_allclose(queue(), keys[[5, 1, 2, 3, 4]], atol=1e-6)
    queue.enqueue(tf.constant(keys))  # more than it holds: the last ones stay
    np.testing.assert_allclose(np.roll(queue(), -1, axis=0), keys[7:], atol=1e-6)


def test_prototypes_give_cosines_and_stay_on_the_sphere():
    keras.utils.set_random_seed(0)
    prototypes = layers.Prototypes(7, 3)
    np.testing.assert_allclose(np.linalg.norm(prototypes.prototypes, axis=1), 1, rtol=1e-6)
    prototypes.prototypes.assign(3 * prototypes.prototypes + 1)
    prototypes.normalise()
    rows = np.array(prototypes.prototypes)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-6)
    z = np.random.default_rng(0).normal(size=[2, 4, 3])
    expected = z @ rows.T / np.linalg.norm(z, axis=-1, keepdims=True)
    np.testing.assert_allclose(prototypes(tf.constant(z)), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("length", [1e-9, 1e25])
def test_the_length_of_embeddings_does_not_matter(length):
    z = np.random.default_rng(0).normal(size=[4, 3])
    cosines, prototypes, queue = Cosines(5), layers.Prototypes(5, 3), layers.Queue(4, 3)
    for layer in (cosines, prototypes):
        usual = layer(tf.constant(z, tf.float32))
        np.testing.assert_allclose(layer(tf.constant(length * z, tf.float32)), usual, atol=1e-5)
    queue.enqueue(tf.constant(length * z, tf.float32))
    np.testing.assert_allclose(np.linalg.norm(queue(), axis=1), 1, rtol=1e-5)


def test_frozen_prototypes_get_a_gradient_of_zero_and_embeddings_keep_theirs():
    prototypes = layers.Prototypes(7, 3)
    z = tf.constant(np.random.default_rng(0).normal(size=[4, 3]), tf.float32)
    for frozen in (True, False):
        with tf.GradientTape() as tape:
            tape.watch(z)
            loss = tf.reduce_sum(prototypes(z, frozen=frozen) ** 2)
        to_prototypes, to_z = tape.gradient(loss, [prototypes.prototypes.value, z])
        assert (np.abs(to_prototypes).max() == 0) == frozen
        assert np.abs(to_z).max() > 0


@pytest.mark.parametrize("displacement, stride", [(2, 1), (3, 1), (4, 2), (5, 2)])
def test_correlation_is_the_mean_product_with_every_place_around(displacement, stride):
    random = np.random.default_rng(0)
    first, second = random.normal(size=(2, 2, 5, 7, 3)).astype("float32")
    steps = range(-(displacement // stride) * stride, displacement + 1, stride)
    expected = np.zeros([2, 5, 7, len(steps) ** 2])
    for y, x, (i, (down, right)) in itertools.product(
        range(5), range(7), enumerate(itertools.product(steps, steps))
    ):
        if 0 <= y + down < 5 and 0 <= x + right < 7:
            product = first[:, y, x] * second[:, y + down, x + right]
            expected[:, y, x, i] = product.mean(-1)
    layer = Correlation(displacement, stride)
    np.testing.assert_allclose(layer(first, second), expected, atol=1e-6)
    sides = [None, 5, 7, len(steps) ** 2]
    spec = layer.compute_output_spec(*[keras.KerasTensor((None, 5, 7, 3))] * 2)
    assert list(spec.shape) == sides


def test_a_map_that_moves_one_step_moves_its_correlations_peak_one_step():
    random = np.random.default_rng(0)
    first = random.normal(size=(1, 9, 9, 256)).astype("float32")
    first /= np.linalg.norm(first, axis=-1, keepdims=True)
    layer = Correlation(20, 2)
    peak = np.argmax(layer(first, np.roll(first, 2, axis=2)), axis=-1)
    assert (peak[:, :, :7] == 221).all()  # the middle one of 21 x 21 is 220
    ones = tf.constant([1.0, 2.0]) * tf.ones([1, 50, 50, 2])
    np.testing.assert_array_equal(layer(ones, ones)[0, 25, 25], np.full(441, 2.5))


def test_correlations_of_loud_maps_fit_into_sixteen_bits():
    loud = tf.fill([1, 5, 5, 256], 20.0)  # the sum of 256 squares of 20 is above 65,504
    found = Correlation(2, dtype="mixed_float16")(loud, loud)
    assert found.dtype == tf.float16
    np.testing.assert_allclose(found[0, 2, 2], 400.0, rtol=1e-2)


def test_copies_keep_what_their_layers_learnt_by_adapt():
    normalise = keras.layers.Normalization()
    images = np.random.default_rng(0).normal(0.7, 0.1, (8, 6, 6, 3)).astype("float32")
    normalise.adapt(images)
    inputs = keras.Input((6, 6, 3))
    model = keras.Model(inputs, keras.layers.Dense(4)(normalise(inputs)))
    np.testing.assert_allclose(layers.Momentum(model)(images), model(images), atol=1e-5)
    np.testing.assert_allclose(with_sobel(model)(images), model(Sobel()(images)), atol=1e-4)
    text = keras.Input((), dtype="string")
    words = keras.layers.TextVectorization(output_sequence_length=2)
    words.adapt(["red ball", "red cat"])
    model = keras.Model(text, keras.layers.Embedding(9, 2)(words(text)))
    asked = tf.constant(["red mouse", "cat"])
    np.testing.assert_array_equal(layers.Momentum(model)(asked), model(asked))


@pytest.mark.parametrize("strides", [1, (1, 2, 2), 2, (2, 1, 1)])
@pytest.mark.parametrize("frames", [1, 2, 3, 4])
@pytest.mark.parametrize("kernel", [3, (3, 1, 1), (5, 3, 3), (1, 3, 3)])
def test_clips_are_convolved_alike_in_sixteen_bits_however_short_they_are(kernel, frames, strides):
    random = np.random.default_rng(0)
    x = random.normal(size=[4, frames, 7, 8, 16]).astype("float32")
    found = []
    for policy in ("float32", "mixed_bfloat16"):
        inputs = keras.Input([None, None, 8, 16])
        layer = Conv3D(16, kernel, strides, padding="same", dtype=policy)
        model = keras.Model(inputs, layer(inputs))
        weights = np.random.default_rng(1).normal(size=layer.kernel.shape) / 12
        layer.kernel.assign(weights)
        with tf.GradientTape() as tape:
            y = tf.cast(model(x), tf.float32)
            loss = tf.reduce_sum(y * tf.reshape(tf.cos(tf.range(float(tf.size(y)))), y.shape))
        found.append((y, tape.gradient(loss, layer.kernel)))
    for exact, short in zip(*found):
        assert exact.shape == short.shape
        np.testing.assert_allclose(short, exact, atol=0.02 * np.abs(exact).max())
