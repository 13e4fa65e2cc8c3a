"""Tiny runs of any method, for the contract: fake examples, two batches, small networks."""

import contextlib
import functools
import itertools
from unittest import mock

import keras
import numpy as np
import tensorflow as tf

from tfssl import encoders, zoo
from tfssl.pipelines import batching, fake

EXAMPLES, BATCH = 8, 4
# Statistics in groups of the batch cannot be the same on half a batch of four. What is trained
# first is left out: over its many steps rounding grows beyond the tolerance of one step.
ONE_GROUP = {
    "image.moco": {"groups": 1},
    "image.spot_artifacts": {"autoencoder_steps": 0},
    "image.boosting": {"pretext_epochs": 0},
    "image.cluster_embedding": {"pretext_epochs": 0},
}
# Tracing takes most of a tiny run: networks of fewer layers show the same.
SMALLER = {
    "image.mae": {"depth": 1},
    "geometry.unflow": {"weights": (1.0,), "radii": (1,)},
}
ANNOTATION = fake.examples("video").keys() - batching.UNLABELLED


def examples(name):
    """Fake examples of the method's modality: dict of arrays [EXAMPLES, ...]."""
    batch = fake.examples(zoo.card(name)["modality"], batch=EXAMPLES)
    return {key: np.asarray(value) for key, value in batch.items()}


def dataset(batch):
    return tf.data.Dataset.from_tensor_slices(batch)


def tiny_image_encoder():
    """A few convolutions with batch norm and taps: enough for whatever asks for features [B, D]."""
    from tfssl.layers.normalisation import BatchNormalization

    x = inputs = keras.Input([None, None, 3])
    for i, width in enumerate((8, 16), 1):
        x = keras.layers.Conv2D(width, 3, 2, "same", use_bias=False)(x)
        x = BatchNormalization(synchronized=True)(x)
        x = keras.layers.ReLU(name=f"c{i}")(x)
    return keras.Model(inputs, keras.layers.GlobalAveragePooling2D(name="pool")(x))


def tiny_dense_encoder():
    """For pictures of 8 px, where every place may count for itself: [B, 8, 8, 3] -> [B, 16]."""
    image = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(16, 3, 2, activation="relu")(image)
    return keras.Model(image, keras.layers.Dense(16)(keras.layers.Flatten()(x)))


def pair(count=64, seed=0, noise=0.1, brightness=0.0):
    """Two noisy copies of random pictures: float32 [count, 2, 8, 8, 3].

    With a `brightness` each picture is dark or bright as a whole, by up to as much.
    """
    rng = np.random.default_rng(seed)
    picture = rng.uniform(size=[count, 1, 8, 8, 3])
    if brightness:
        picture += rng.uniform(-brightness, brightness, size=[count, 1, 1, 1, 1])
    return tf.constant(picture + noise * rng.normal(size=[count, 2, 8, 8, 3]), tf.float32)


def tiny_run(name, batch=None, epochs=2, stream=contextlib.nullcontext, **overrides):
    """The method's SMALL on fake examples; image methods of any encoder get a tiny one.

    `stream` is `traced_once` or `kept` where views are not what is tested: to trace them and to
    open a stream of them takes longer than to train on them.
    """
    module = zoo.get(name)
    keras.utils.set_random_seed(0)
    batch = examples(name) if batch is None else batch
    arguments = {**module.SMALL, "data": dataset(batch), "batch_size": BATCH, "epochs": epochs}
    if str(arguments.get("encoder", "")).startswith(("resnet", "conv")):
        arguments["encoder"] = tiny_image_encoder()
    if arguments.get("encoder") == "vit_mini":
        arguments["encoder"] = encoders.get("vit_mini", depth=1)
    arguments |= SMALLER.get(name, {})
    with stream(name):
        return module.recipe(**{**arguments, **overrides})


@contextlib.contextmanager
def traced_once(name):
    """A recipe called in here takes its method's views as a graph that the process has already."""
    module = zoo.get(name)
    with mock.patch.object(module, "views", _graph(module.views)):
        yield


@contextlib.contextmanager
def kept(name):
    """A recipe called in here gets the batches of the process' first one, from memory."""
    calls = itertools.count()
    train = batching.train

    def stream(ds, views, batch_size, seed=0):
        key = name, next(calls), batch_size
        if key not in _kept:
            made = train(ds, views, batch_size, seed)
            _kept[key] = made.preview, tf.nest.map_structure(lambda *t: tf.concat(t, 0), *made)
        preview, examples = _kept[key]
        batches = tf.data.Dataset.from_tensor_slices(examples).batch(batch_size, True)
        batches.steps = len(batches)
        batches.endless = lambda start_step=0: batches.repeat().skip(start_step)
        batches.preview = preview
        return batches

    with traced_once(name), mock.patch.object(batching, "train", stream):
        yield


_kept = {}


@functools.cache
def _graph(views):
    graph = tf.function(views, autograph=False)
    graph.uses = getattr(views, "uses", ())
    return graph


def weights(model):
    """Every number that a run leaves behind, but for metrics."""
    skip = {id(v) for metric in model.metrics for v in metric.variables}
    return [np.asarray(v) for v in model.variables if id(v) not in skip]


def same(ours, theirs):
    return len(ours) == len(theirs) and all(np.array_equal(a, b) for a, b in zip(ours, theirs))
