"""DEC: Student's Q, the sharpened P, their gradient, and codes that settle."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import zoo_runs
from scipy.optimize import linear_sum_assignment

from tfssl import zoo

dec = zoo.get("image.cluster_embedding")
RANDOM = np.random.default_rng(0)


def slow_q(z, centres):
    q = 1 / (1 + ((z[:, None] - centres) ** 2).sum(axis=-1))
    return q / q.sum(axis=1, keepdims=True)


def matched(truth, assigned):
    """Share of examples whose cluster is that of their class, by the best matching."""
    counts = np.zeros([max(truth.max(), assigned.max()) + 1] * 2)
    np.add.at(counts, (truth, assigned), 1)
    rows, columns = linear_sum_assignment(-counts)
    return counts[rows, columns].sum() / len(truth)


def tiny(**options):
    options = {"clusters": 3, "widths": (8,), "width": 2, "tolerance": 1e-3, **options}
    return dec.DEC(zoo_runs.tiny_image_encoder(), 16, 60, **options)


def test_q_p_and_their_divergence_are_the_worked_ones():
    z, centres = np.array([[0.0], [1], [3]]), np.array([[0.0], [3]])
    q = np.exp(dec.log_similarity(z, centres))
    expected = [[0.909091, 0.090909], [0.714286, 0.285714], [0.090909, 0.909091]]
    np.testing.assert_allclose(q, expected, atol=1e-6)
    np.testing.assert_allclose(q.sum(axis=0), [1.714286, 1.285714], atol=1e-6)
    p = dec.sharpened(q)
    expected = [[0.986842, 0.013158], [0.824176, 0.175824], [0.007444, 0.992556]]
    np.testing.assert_allclose(p, expected, atol=1e-6)
    cost = dec.divergence(p, tf.constant(z), tf.constant(centres))
    assert float(tf.reduce_sum(cost)) == pytest.approx(0.156685, abs=1e-5)
    assert float(tf.reduce_mean(cost)) == pytest.approx(0.052228, abs=1e-5)


def test_rows_sum_to_one_and_the_divergence_is_never_below_zero():
    z, centres = RANDOM.normal(size=[50, 4]), RANDOM.normal(size=[6, 4])
    q = np.exp(dec.log_similarity(z, centres))
    np.testing.assert_allclose(q, slow_q(z, centres), atol=1e-6)
    p = dec.sharpened(q)
    np.testing.assert_allclose(q.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-6)
    assert (dec.divergence(p, z, centres).numpy() >= -1e-6).all()
    # The same where a row has all its mass in one place or is proportional to the frequencies.
    fixed = np.array([[1.0, 0, 0], [0, 1, 0], [0.25, 0.5, 0.25], [0, 1, 0], [0, 0, 1.0]])
    frequencies = fixed.sum(axis=0)
    assert np.allclose(fixed[2] / frequencies, fixed[2][0] / frequencies[0])
    np.testing.assert_allclose(dec.sharpened(fixed), fixed, atol=1e-6)
    mixed = np.array([[0.5, 0.5], [0.9, 0.1]])
    assert np.abs(dec.sharpened(mixed) - mixed).min() > 1e-3


def test_the_gradient_is_the_papers():
    """Equations 4 and 5 at one degree of freedom; none passes through P."""
    z, centres = RANDOM.normal(size=[7, 3]), RANDOM.normal(size=[4, 3])
    q = slow_q(z, centres)
    p = dec.sharpened(q)
    z_, centres_ = (tf.constant(value, tf.float32) for value in (z, centres))
    with tf.GradientTape() as tape:
        tape.watch([z_, centres_])
        loss = tf.reduce_sum(dec.divergence(p, z_, centres_))
    by_z, by_centres = tape.gradient(loss, [z_, centres_])
    difference = z[:, None] - centres
    force = 2 * ((p - q) / (1 + (difference**2).sum(axis=-1)))[..., None] * difference
    np.testing.assert_allclose(by_z, force.sum(axis=1), atol=1e-5)
    np.testing.assert_allclose(by_centres, -force.sum(axis=0), atol=1e-5)


def test_only_the_code_and_the_centres_move_once_the_autoencoder_is_trained():
    model = tiny()
    model.compile(keras.optimizers.SGD(0.1))
    images = RANDOM.random([60, 16, 16, 3]).astype("float32")
    x = {"image": images, "index": np.arange(60)}
    codes = model.code.predict(images, verbose=0)
    model.reassign(codes)
    decoder = [w.numpy() for w in model.autoencoder.decoder.weights]
    centres = model.centres.numpy()
    target = model.target.numpy()
    model.fit(x, batch_size=20, verbose=0)
    assert zoo_runs.same(decoder, [w.numpy() for w in model.autoencoder.decoder.weights])
    assert np.abs(model.centres - centres).max() > 0
    np.testing.assert_array_equal(model.target, target)  # held until the next pass
    np.testing.assert_allclose(target, dec.sharpened(slow_q(codes, centres)), atol=1e-5)


def test_the_first_pass_takes_k_means_and_a_quiet_one_ends_the_run():
    model = tiny()
    model.stop_training = False  # as `fit` begins
    label = np.repeat([0, 1, 2], 20)
    codes = np.array([[0, 0], [9, 0], [0, 9]])[label] + RANDOM.normal(size=[60, 2])
    model.reassign(codes)
    assert matched(label, model.assignment.numpy()) == 1
    means = np.array([codes[model.assignment.numpy() == k].mean(axis=0) for k in range(3)])
    np.testing.assert_allclose(model.centres, means, atol=1e-4)
    assert not model.stop_training
    model.reassign(codes[::-1])
    assert not model.stop_training
    model.reassign(codes[::-1])
    assert model.stop_training


def test_both_networks_are_published_and_the_mlp_has_its_layers_as_taps():
    from tfssl import encoders

    run = zoo_runs.tiny_run("image.cluster_embedding", epochs=1)
    assert list(run.model.published) == ["encoder", "code"]
    assert encoders.tap_names(run.model.encoder) == ["c1", "c2"]
    images = np.zeros([2, 28, 28, 3], "float32")
    assert run.model.published["code"](images).shape == (2, 10)


@pytest.mark.slow
def test_digits_fall_into_their_classes_at_least_as_well_as_by_k_means_of_the_same_codes():
    keras.utils.set_random_seed(0)
    from tfssl import pipelines

    run = dec.recipe(**dec.SMALL)
    labels = np.array([int(e["label"]) for e in pipelines.load("digits").as_numpy_iterator()])
    accuracy, entropy = [], []

    def note(epoch, logs):
        accuracy.append(matched(labels, run.model.assignment.numpy()))
        images = np.stack([e["image"] for e in pipelines.load("digits").as_numpy_iterator()])
        small = tf.image.resize(images / 255.0, [28, 28], antialias=True)
        q = slow_q(run.model.code.predict(small, verbose=0), run.model.centres.numpy())
        entropy.append(-(q * np.log(q + 1e-12)).sum(axis=1).mean())

    run.fit(callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=note)], verbose=0)
    print(accuracy, entropy)
    assert accuracy[-1] >= accuracy[0] > 0.4  # the first are those of k-means
    quarters = [np.mean(part) for part in np.array_split(entropy, 4)]
    assert (np.diff(quarters) < 0).all(), quarters  # from epoch to epoch it may rise a little
