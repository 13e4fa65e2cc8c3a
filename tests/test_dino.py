"""DINO: the loss by its numbers, who sees which crop, what the teacher is, and neither collapse."""

import cifar_learning
import keras
import numpy as np
import pytest
import tensorflow as tf

from tfssl import encoders, evaluate, zoo
from tfssl.encoders.resized import at_size
from tfssl.errors import BadInput
from tfssl.layers.cosines import Cosines
from tfssl.optimizers import AdamW

dino = zoo.get("image.dino")
K = 32


def tiny():
    image = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(16, 3, 2, activation="relu")(image)
    return keras.Model(image, keras.layers.GlobalAveragePooling2D()(x))


def method(kind=dino.DINO, **options):
    keras.utils.set_random_seed(0)
    model = kind(tiny(), **{"units": K, "widths": (32, 16), **options})
    model.compile(keras.optimizers.SGD(0.1))
    return model


def crops(count=16, seed=0, local=3):
    rng = np.random.default_rng(seed)
    colour = rng.uniform(size=[count, 1, 1, 1, 3])
    return {
        name: tf.constant(colour + 0.1 * rng.normal(size=[count, v, side, side, 3]), tf.float32)
        for name, v, side in (("global", 2, 8), ("local", local, 6))
    }


def loss(student, teacher, centre=None, **options):
    model = method(units=np.shape(student)[-1], **options)
    model.centre.assign(tf.zeros_like(model.centre) if centre is None else centre)
    outputs = {"student": tf.constant(student, tf.float32), "teacher": tf.constant(teacher)}
    return float(model.objective(None, None, tf.nest.map_structure(_float, outputs)))


def _float(x):
    return tf.cast(x, tf.float32)


def test_two_large_crops_of_different_laws_and_several_small_ones():
    images = {"image": tf.constant(np.full([32, 20, 20, 3], 230, np.uint8))}
    seed = tf.constant([1, 2])
    x = dino.views(images, seed, size=16, local_size=8, local_crops=4, blur=(0, 0, 0))
    assert x["global"].shape == (32, 2, 16, 16, 3) and x["local"].shape == (32, 4, 8, 8, 3)
    dark = np.mean(np.array(x["global"]).mean(axis=(2, 3, 4)) < 0.5, axis=0)
    assert dark[0] == 0 < dark[1] < 0.5  # only the second is ever solarised
    assert set(dino.views(images, seed, size=16, local_crops=0)) == {"global"}


def test_the_worked_values():
    same = np.tile([0.1, 0.0, 0.0], [4, 2, 1])
    p, q = [0.858981, 0.070509, 0.070509], [0.576117, 0.211942, 0.211942]
    np.testing.assert_allclose(tf.nn.softmax(same[0, 0] / 0.04), p, atol=1e-6)
    np.testing.assert_allclose(tf.nn.softmax(same[0, 0] / 0.1), q, atol=1e-6)
    assert loss(same, same) == pytest.approx(0.692464, rel=1e-5)
    # Centred on what it says, the teacher says nothing.
    uniform = -np.mean(np.log(q))
    assert loss(same, same, centre=[0.1, 0.0, 0.0]) == pytest.approx(uniform, rel=1e-5)


@pytest.mark.parametrize("k, expected", [(65536, 11.090355), (4096, 8.317766), (256, 5.545177)])
def test_equal_logits_cost_ln_k(k, expected):
    found = loss(np.zeros([2, 3, k]), np.zeros([2, 2, k]), widths=(4, 4))
    assert found == pytest.approx(expected, rel=2e-5)  # a sum of K float32


def test_ten_crops_make_eighteen_terms():
    rng = np.random.default_rng(0)
    student, teacher = rng.uniform(-1, 1, [5, 10, K]), rng.uniform(-1, 1, [5, 2, K])
    centre = rng.uniform(-1, 1, K).astype(np.float32)
    terms = []
    for i in range(2):
        target = tf.nn.softmax((teacher[:, i] - centre) / 0.04).numpy()
        for v in range(10):
            if v != i:
                log_p = tf.nn.log_softmax(student[:, v] / 0.1).numpy()
                terms.append(-(target * log_p).sum(axis=1).mean())
    assert len(terms) == 18
    assert loss(student, teacher, centre) == pytest.approx(np.mean(terms), rel=1e-5)


def test_the_teacher_sees_large_crops_alone_and_gets_no_gradient():
    model, x = method(), crops()
    other = {**x, "local": crops(seed=1)["local"]}
    with tf.GradientTape() as tape:
        outputs = model(x, training=True)
        value = model.objective(x, None, outputs)
    again = model(other, training=True)
    assert outputs["student"].shape == (16, 5, K) and outputs["teacher"].shape == (16, 2, K)
    np.testing.assert_array_equal(outputs["teacher"], again["teacher"])
    assert np.abs(outputs["student"][:, 2:] - again["student"][:, 2:]).max() > 1e-3
    np.testing.assert_allclose(outputs["teacher"], outputs["student"][:, :2], atol=1e-5)
    frozen = [w.value for w in (*model.teacher.weights, model.centre)]
    assert all(gradient is None for gradient in tape.gradient(value, frozen))


def test_the_teacher_follows_its_formula_and_is_what_is_published():
    model = method(momentum=0.9, steps=10)
    assert model.published["encoder"] is model.teacher.copies[0]
    student = [w for m in (model.encoder, model.head) for w in m.weights]
    teacher = [w for copy in model.teacher.copies for w in copy.weights]
    expected = [np.array(w) for w in teacher]
    for step in range(2):
        model.train_on_batch(crops(seed=step))
        m = 1 - 0.1 * (np.cos(np.pi * step / 10) + 1) / 2
        expected = [m * e + (1 - m) * np.array(w) for e, w in zip(expected, student)]
        for wanted, w in zip(expected, teacher):
            np.testing.assert_allclose(w, wanted, atol=1e-6)


def test_the_centre_is_a_running_mean_of_logits_that_absorbs_any_shift():
    model = method()
    said = np.random.default_rng(0).normal(size=[8, 2, K]) + np.arange(K)
    model._step.outputs = {"teacher": tf.fill([8, 2, K], 2.0)}
    model.after_step()
    np.testing.assert_allclose(model.centre, 0.2, rtol=1e-6)
    model._step.outputs = {"teacher": tf.constant(said, tf.float32)}
    for _ in range(200):
        model.after_step()
    np.testing.assert_allclose(model.centre, said.mean(axis=(0, 1)), atol=1e-4)
    assert model.centre.trainable is False


def test_a_shift_of_all_logits_is_forgotten_once_the_centre_has_it():
    rng = np.random.default_rng(0)
    student, said, shift = rng.normal(size=[8, 3, K]), rng.normal(size=[8, 2, K]), 3 * np.eye(K)[0]

    def settled(teacher):
        model = method()
        model._step.outputs = {"teacher": tf.constant(teacher, tf.float32)}
        for _ in range(200):
            model.after_step()
        return loss(student, teacher, model.centre)

    assert abs(loss(student, said + shift) - loss(student, said)) > 0.1
    assert settled(said + shift) == pytest.approx(settled(said), rel=1e-3)


def test_the_centre_moves_after_the_loss():
    model, x = method(), crops()
    teacher = np.array(model.teacher(dino.layers.fold(x["global"])))
    model.train_on_batch(x)
    np.testing.assert_allclose(model.centre, 0.1 * teacher.mean(axis=0), atol=1e-6)


def test_the_teachers_temperature_rises_by_steps():
    model = method(teacher_temperature=(0.04, 0.07), warm_steps=10)
    found = []
    for step in (0, 5, 10, 99):
        model.step.assign(step)
        found.append(float(model.temperature()))
    np.testing.assert_allclose(found, [0.04, 0.055, 0.07, 0.07], rtol=1e-5)


def test_the_last_layer_waits_and_its_gain_is_one():
    model = method(freeze_steps=2)
    model.compile(AdamW(0.01, 0.4, clip=3.0))
    last = model.head.layers[-1]
    assert isinstance(last, Cosines) and len(last.weights) == 1
    first = tf.math.l2_normalize(np.array(last.rows), axis=1)
    body = np.array(model.head.layers[0].kernel)
    for step in range(4):
        model.train_on_batch(crops(seed=step))
        now = tf.math.l2_normalize(np.array(last.rows), axis=1)
        assert (np.abs(now - first).max() < 1e-6) == (step < 2)
    assert np.abs(body - model.head.layers[0].kernel).max() > 1e-3
    scores = last(100 * tf.random.normal([50, 16]))
    assert np.abs(scores).max() <= 1 + 1e-5


def test_decay_follows_its_schedule_spares_biases_and_gradients_are_clipped():
    w, b = keras.Variable([[2.0, 0.0]]), keras.Variable([2.0], name="bias")
    schedule = dino.WarmupCosine(0.04, 2, end=0.4)
    optimizer = AdamW(0.1, schedule, clip=3.0)
    expected, first, second = np.array([2.0, 0.0]), np.zeros(2), np.zeros(2)
    for step, decay in enumerate((0.04, 0.22)):
        optimizer.apply([tf.constant([[30.0, 40.0]]), tf.constant([1.0])], [w, b])
        gradient = np.array([1.8, 2.4])  # of length 3
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        rate = 0.1 * np.sqrt(1 - 0.999 ** (step + 1)) / (1 - 0.9 ** (step + 1))
        expected = expected * (1 - 0.1 * decay) - rate * first / (np.sqrt(second) + 1e-7)
        np.testing.assert_allclose(np.array(w)[0], expected, rtol=1e-5)
    assert float(b[0]) == pytest.approx(1.8, rel=1e-4)


def test_a_transformer_takes_small_crops_with_all_its_weights():
    network = encoders.get("vit_mini", size=32)
    small = at_size(network, 16)
    assert {id(w) for w in small.weights} == {id(w) for w in network.weights}
    assert at_size(network, 32) is network and small(tf.zeros([2, 16, 16, 3])).shape[0] == 2
    fixed = keras.Sequential([keras.Input([8, 8, 3]), keras.layers.Flatten()])
    with pytest.raises(BadInput, match="local_crops=0"):
        at_size(fixed, 4)


class Uncentred(dino.DINO):
    """Sharpening alone."""

    def after_step(self):
        super().after_step()
        self.centre.assign(tf.zeros_like(self.centre))


def test_centring_and_sharpening_are_both_needed():
    batches = [crops(32, seed, local=2) for seed in range(20)]
    data = tf.nest.map_structure(lambda *b: tf.stack(b), *batches)
    data = tf.data.Dataset.from_tensor_slices(data)
    logs = []
    for kind, temperature in ((dino.DINO, 0.04), (Uncentred, 0.04), (dino.DINO, 1.0)):
        options = dict(teacher_temperature=(temperature, temperature), momentum=0.99)
        model = method(kind, **options)
        model.compile(keras.optimizers.Adam(3e-3))
        history = model.fit(data, epochs=8, verbose=0, shuffle=False).history
        logs.append((history["teacher_spread"][-1], history["teacher_entropy"][-1]))
    both, sharp, centred = logs
    assert both[0] > 0.5 and both[1] < 0.7 * both[0], logs
    assert sharp[0] < 0.5 * both[0], logs
    assert centred[1] > 0.95, logs


@pytest.mark.slow
def test_eight_passes_over_photographs_beat_the_untrained_network(shared):
    untrained, trained = cifar_learning.before_and_after(
        "image.dino", shared, epochs=8, protocol=evaluate.linear, encoder="conv4"
    )
    assert trained > untrained + 0.01
