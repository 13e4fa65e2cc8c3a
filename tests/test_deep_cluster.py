"""DeepCluster: whitening, clusters without gaps, fair weights, a head that forgets."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
import zoo_runs
from sklearn.metrics import normalized_mutual_info_score as nmi

from tfssl import zoo
from tfssl.layers.kmeans import kmeans, unit_rows, whiten
from tfssl.layers.sobel import Sobel, with_sobel

deep_cluster = zoo.get("image.deep_cluster")
RANDOM = np.random.default_rng(0)


def model(examples=100, clusters=10, **options):
    options = {"widths": (16,), "dropout": 0.0, "dimensions": 8, **options}
    return deep_cluster.DeepCluster(
        zoo_runs.tiny_image_encoder(), examples, clusters=clusters, **options
    )


def test_slopes_are_the_two_kernels_of_the_mean_of_the_channels_and_flat_is_zero():
    images = RANDOM.random([2, 7, 6, 3]).astype("float32")
    maps = Sobel()(images).numpy() - [0.485, 0.456, 0.406]
    grey = images.mean(axis=-1)
    kernels = (
        np.array([[1, 0, -1], [2, 0, -2], [1, 0, -1]]),
        np.array([[1, 2, 1], [0] * 3, [-1, -2, -1]]),
    )
    for channel, kernel in enumerate(kernels):
        for i in range(1, 6):
            for j in range(1, 5):
                window = grey[:, i - 1 : i + 2, j - 1 : j + 2]
                expected = (window * kernel).sum(axis=(1, 2))
                np.testing.assert_allclose(maps[:, i, j, channel], expected, atol=1e-5)
    np.testing.assert_allclose(maps[..., 2], 0, atol=1e-6)
    flat = Sobel()(np.full([1, 5, 5, 3], 0.7, "float32")).numpy()
    np.testing.assert_allclose(flat, np.broadcast_to([0.485, 0.456, 0.406], flat.shape), atol=1e-6)


def test_the_encoder_behind_sobel_keeps_its_weights_and_taps_and_sees_no_colour():
    from tfssl import encoders

    encoder = zoo_runs.tiny_image_encoder()
    edges = with_sobel(encoder)
    assert encoders.tap_names(edges) == ["c1", "c2"]
    images = RANDOM.random([2, 16, 16, 3]).astype("float32")
    expected = encoder(Sobel()(images), training=False)
    np.testing.assert_array_equal(edges(images, training=False), expected)
    np.testing.assert_allclose(edges(images[..., ::-1]), edges(images), atol=1e-5)


def test_features_that_are_all_the_same_can_be_clustered_still():
    white = whiten(np.full((6, 4), 100.3, np.float32), 3)
    assert white.tolist() == [[0.0]] * 6
    assert sorted(set(kmeans(unit_rows(white), 3)[1])) == [0, 1, 2]


def test_whitened_features_have_unit_covariance_and_then_unit_rows():
    features = RANDOM.normal(size=[500, 12]) @ RANDOM.normal(size=[12, 20])
    white = whiten(features, 10)
    np.testing.assert_allclose(np.cov(white.T), np.eye(10), atol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(unit_rows(white), axis=1), 1, atol=1e-6)
    assert whiten(features, 20).shape == (500, 12), "directions without variance are left out"


def test_five_far_apart_gaussians_are_found_and_the_seed_decides():
    label = np.repeat(np.arange(5), 40)
    points = 30 * np.eye(5)[label] + RANDOM.normal(size=[200, 5])
    for seed in range(5):
        assert nmi(label, kmeans(points, 5, seed=seed)[1]) == pytest.approx(1)
    np.testing.assert_array_equal(kmeans(points, 9, seed=4)[1], kmeans(points, 9, seed=4)[1])
    assert (kmeans(points, 9, seed=4)[1] != kmeans(points, 9, seed=5)[1]).any()


def test_no_cluster_is_empty_even_with_fewer_distinct_points_than_clusters():
    points = np.repeat(RANDOM.normal(size=[6, 3]), 10, axis=0)
    _, assigned = kmeans(points, 20)
    assert (np.bincount(assigned, minlength=20) > 0).all()


def test_every_cluster_weighs_the_same_however_large():
    method = model(clusters=3)
    assigned = np.repeat([0, 1, 2], [98, 1, 1]).astype("int32")
    method.assignment.assign(assigned)
    method.sizes.assign(np.bincount(assigned).astype("float32"))
    logits = tf.constant(RANDOM.normal(size=[100, 3]).astype("float32"))
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = method.objective({"index": tf.range(100)}, None, logits)
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    costs = -np.log(shares[np.arange(100), assigned])
    expected = np.mean([costs[assigned == k].mean() for k in range(3)])
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    weight = (100 / 3 / np.array([98, 1, 1]))[assigned]
    gradient = (shares - np.eye(3)[assigned]) * weight[:, None] / 100
    np.testing.assert_allclose(tape.gradient(loss, logits), gradient, atol=1e-6)


def test_reassigning_makes_a_new_head_with_an_empty_optimiser_and_leaves_the_trunk():
    method = model(examples=300, clusters=100)
    method.compile(keras.optimizers.SGD(0.1, momentum=0.9))
    images = RANDOM.random([300, 16, 16, 3]).astype("float32")
    x = {"image": images, "index": np.arange(300)}
    features = RANDOM.normal(size=[300, 16])
    method.reassign(features)
    method.fit(x, batch_size=100, epochs=1, verbose=0)
    trunk = [w.numpy() for w in method.embedder.weights]
    slots = {v.name: v.numpy() for v in method.optimizer.variables}
    head = method.classifier.kernel.numpy()
    method.reassign(features)
    assert zoo_runs.same([w.numpy() for w in method.embedder.weights], trunk)
    assert not np.array_equal(method.classifier.kernel, head)
    assert 0.009 < np.std(method.classifier.kernel) < 0.011
    emptied = {v.name for v in method.optimizer.variables if (v.numpy() != slots[v.name]).any()}
    assert emptied == {name for name in slots if "classifier" in name}
    assert all((v.numpy() == 0).all() for v in method.optimizer.variables if v.name in emptied)
    loss = method.evaluate(x, batch_size=300, verbose=0, return_dict=True)["loss"]
    assert loss == pytest.approx(np.log(100), rel=0.02)


@pytest.mark.slow
def test_clusters_settle_and_say_more_of_the_digits_than_those_of_an_untrained_network():
    from tfssl import pipelines

    keras.utils.set_random_seed(0)
    run = deep_cluster.recipe(**{**deep_cluster.SMALL, "epochs": 12})
    labels = np.array([int(e["label"]) for e in pipelines.load("digits").as_numpy_iterator()])
    seen = []
    note = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda *_: seen.append(run.model.assignment.numpy())
    )
    run.fit(callbacks=[note], verbose=0)
    agreement = [nmi(a, b) for a, b in itertools.pairwise(seen)]
    truth = [nmi(labels, assigned) for assigned in seen]
    print(agreement, truth)
    assert np.mean(agreement[-3:]) > np.mean(agreement[:3])
    assert np.mean(truth[-3:]) > truth[0] + 0.02, "the first are an untrained network's"
