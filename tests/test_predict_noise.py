"""Noise as targets: the swap inside a batch, targets that never move, one each for ever."""

import itertools

import cifar_learning
import keras
import numpy as np
import pytest
import tensorflow as tf
import zoo_runs

from tfssl import zoo

predict_noise = zoo.get("image.predict_noise")
RANDOM = np.random.default_rng(0)


def model(examples=64, width=8, **options):
    method = predict_noise.NAT(zoo_runs.tiny_image_encoder(), examples, width, **options)
    method.compile(keras.optimizers.SGD(0.5))
    return method


def unit(shape):
    x = RANDOM.normal(size=shape).astype("float32")
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def loss(method, z, target):
    outputs = {"z": tf.constant(z), "target": tf.constant(target)}
    return float(method.objective(None, None, outputs))


def test_two_swapped_targets_cost_four_before_the_assignment_and_nothing_after():
    method = model(examples=2, width=2)
    method.targets.assign(np.eye(2))
    method.assignment.assign([1, 0])
    z = np.eye(2, dtype="float32")
    before = method.assignment.numpy()
    assert 2 * loss(method, z, before) == pytest.approx(4)  # the card's sum over the batch
    after = method.swapped(tf.constant(z), tf.constant(before), tf.range(2))
    np.testing.assert_array_equal(after, [0, 1])
    np.testing.assert_array_equal(method.assignment, [0, 1])
    assert loss(method, z, after.numpy()) == 0


def test_the_loss_and_its_gradient_are_those_of_the_squared_distance():
    method = model()
    z, target = tf.Variable(unit([5, 8])), np.array([3, 1, 4, 0, 5])
    with tf.GradientTape() as tape:
        value = method.objective(None, None, {"z": z, "target": tf.constant(target)})
    difference = z.numpy() - method.targets.numpy()[target]
    assert float(value) == pytest.approx((difference**2).sum() / 5, rel=1e-5)
    np.testing.assert_allclose(tape.gradient(value, z), 2 * difference / 5, atol=1e-6)


def test_random_unit_vectors_cost_two_and_no_permutation_beats_the_chosen_one():
    method = model(examples=2000)
    targets = method.targets.numpy()
    np.testing.assert_allclose(np.linalg.norm(targets, axis=1), 1, atol=1e-6)
    assert loss(method, unit([2000, 8]), np.arange(2000)) == pytest.approx(2, abs=0.05)
    z, rows = unit([32, 8]), np.arange(32)
    best = loss(method, z, method.swapped(tf.constant(z), tf.range(32), tf.range(32)).numpy())
    others = [loss(method, z, RANDOM.permutation(32)) for _ in range(100)]
    assert best <= min(loss(method, z, rows), *others)


def test_training_keeps_targets_edges_and_a_permutation_and_moves_the_table_in_its_epochs_only():
    method = model(permute=2, steps=4)
    x = {
        "image": RANDOM.random([64, 16, 16, 3]).astype("float32"),
        "index": RANDOM.permutation(64),
    }
    targets, tables = method.targets.numpy(), [method.assignment.numpy()]
    edges = method.encoder.get_layer("sobel")(x["image"])
    for _ in range(4):
        method.fit(x, batch_size=16, epochs=1, verbose=0)
        tables.append(method.assignment.numpy())
    np.testing.assert_array_equal(method.targets, targets)
    np.testing.assert_array_equal(method.encoder.get_layer("sobel")(x["image"]), edges)
    for table in tables:
        np.testing.assert_array_equal(np.sort(table), np.arange(64))
    moved = [bool((a != b).any()) for a, b in itertools.pairwise(tables)]
    assert moved == [True, False, True, False]
    z = method(x)["z"]
    np.testing.assert_allclose(np.linalg.norm(z, axis=1), 1, atol=1e-6)


@pytest.mark.slow
def test_ten_passes_over_photographs_beat_the_untrained_network(shared):
    untrained, trained = cifar_learning.before_and_after(
        "image.predict_noise", shared, epochs=10, encoder="conv4"
    )
    assert trained > untrained + 0.01


@pytest.mark.slow
def test_without_swapping_noise_is_learnt_by_heart_and_neighbours_are_no_better_for_it():
    from tfssl import evaluate, pipelines

    data = [pipelines.load("digits", split=split) for split in ("train", "test")]
    losses, found = {}, {}
    for swapping in (True, False):
        keras.utils.set_random_seed(0)
        run = predict_noise.recipe(**{**predict_noise.SMALL, "encoder": "conv4"})
        if not swapping:
            run.model.swapped = lambda z, target, index: target
        losses[swapping] = run.fit(verbose=0).history["loss"]
        found[swapping] = evaluate.knn(run.model.encoder, *data)["top1"]
    print(losses, found)
    assert losses[False][-1] < losses[False][0] - 0.05
    assert losses[True][-1] < losses[False][-1]
    assert found[True] > found[False]
