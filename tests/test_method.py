"""Methods under Keras' `fit`: several replicas and workers, XLA, 16 bits, and tasks together."""

import json
import os
import socket
import subprocess
import sys
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
import zoo_runs
from command_line import ROOT

import tfssl
from tfssl import encoders, zoo
from tfssl.objectives import replicas
from tfssl.optimizers import LossScaleOptimizer
from tfssl.pipelines import batching

RANDOM = np.random.default_rng(0)
WORKER = """
from tfssl.cli.options import strategy_of

strategy = strategy_of("multiworker")
import test_method

with strategy.scope():
    print(test_method.losses_of_pairs())
"""


class Pull(tfssl.Method):
    """Pulls all features towards 1."""

    def call(self, x, training=False):
        return self.encoder(x, training=training)

    def objective(self, x, y, outputs):
        return tf.reduce_mean(tf.square(outputs - 1))


class Game(tfssl.Adversarial):
    def __init__(self, encoder):
        super().__init__(encoder)
        self.critic = keras.Sequential([keras.Input([4]), keras.layers.Dense(1)])

    def call(self, x, training=False):
        return self.critic(self.encoder(x, training=training))

    def objective(self, x, y, outputs):
        return tf.reduce_mean(tf.square(outputs - 1))

    def critique(self, x, y, outputs):
        return tf.reduce_mean(tf.square(outputs + 1))


def dense(width=4):
    keras.utils.set_random_seed(0)
    x = keras.Input([8])
    return keras.Model(x, keras.layers.Dense(width)(x))


def compiled(method=Pull, rate=0.1):
    model = method(dense())
    model.compile(keras.optimizers.SGD(rate))
    return model


def batches(examples, size):
    x = np.random.default_rng(0).normal(size=[examples, 8]).astype("float32")
    return tf.data.Dataset.from_tensor_slices(x).batch(size)


def losses_of_pairs():
    """Of three epochs on batches of (x, y)."""
    pairs = batches(8, 4).map(lambda x: (x, x[:, 0]))
    return compiled().fit(pairs, epochs=3, verbose=0).history["loss"]


@pytest.mark.parametrize("count", [1, 2])
def test_workers_begin_by_the_command_lines_strategy_and_train_as_one(count):
    sockets = [socket.create_server(("localhost", 0)) for _ in range(count)]
    addresses = [f"localhost:{s.getsockname()[1]}" for s in sockets]
    for s in sockets:
        s.close()
    processes = []
    for index in range(count):
        task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        paths = f"{ROOT}{os.pathsep}{ROOT / 'tests'}"
        environment = {**os.environ, "TF_CONFIG": json.dumps(task), "PYTHONPATH": paths}
        command = [sys.executable, "-c", WORKER]
        pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        processes.append(subprocess.Popen(command, env=environment, **pipes))
    expected = losses_of_pairs()
    try:
        for process in processes:
            out, err = process.communicate(timeout=300)
            assert process.returncode == 0, err[-2000:]
            np.testing.assert_allclose(json.loads(out.splitlines()[-1]), expected, rtol=1e-4)
    finally:  # a worker whose fellow has failed would wait for it
        for process in processes:
            process.kill()


def test_texts_train_on_two_replicas(two_replicas):
    with two_replicas.scope():
        model = Pull(encoders.get("text_bag", vocabulary=["a", "b"], dim=4))
        model.compile("sgd")
    texts = tf.data.Dataset.from_tensor_slices(["a b", "c d", "b", "a"]).batch(2)
    assert np.isfinite(model.fit(texts, verbose=0).history["loss"][0])


def test_two_replicas_begin_with_the_first_pass_over_the_data(two_replicas):
    class Noting(Pull):
        def __init__(self, encoder):
            super().__init__(encoder)
            state = dict(trainable=False, aggregation="only_first_replica", name="seen")
            self.seen = self.add_weight([16], "zeros", "int64", **state)

        def call(self, x, training=False):
            return {"z": self.encoder(x["image"], training=training), "index": x["index"]}

        def objective(self, x, y, outputs):
            return super().objective(x, y, outputs["z"])

        def after_step(self):
            index = replicas.gather(self.step_outputs["index"])
            self.seen.assign(tf.concat([tf.convert_to_tensor(self.seen)[4:], index], axis=0))

    def views(examples, seed):
        flat = tf.reshape(tf.cast(examples["image"], tf.float32) / 255, [-1, 8])
        return {"image": flat, "index": examples["index"]}

    def seen():
        model = compiled(Noting)
        pictures = RANDOM.integers(0, 255, [8, 2, 2, 2], dtype=np.uint8)
        examples = {"image": pictures, "index": np.arange(8)}
        data = batching.train(tf.data.Dataset.from_tensor_slices(examples), views, 4)
        model.fit(data, epochs=2, verbose=0)
        return model.seen.numpy()

    one = seen()
    assert sorted(one[:8]) == sorted(one[8:]) == list(range(8))
    with two_replicas.scope():
        np.testing.assert_array_equal(seen(), one)


@pytest.mark.parametrize("method", [Pull, Game])
def test_unequal_shares_are_refused_in_training_and_weighted_in_evaluation(method, two_replicas):
    alone = compiled(method).evaluate(batches(5, 5), verbose=0)
    with two_replicas.scope():
        model = compiled(method)
    np.testing.assert_allclose(model.evaluate(batches(5, 5), verbose=0), alone, rtol=1e-5)
    with pytest.raises(tf.errors.InvalidArgumentError, match="do not share this batch equally"):
        model.fit(batches(5, 5), verbose=0)
    with pytest.raises(tf.errors.InvalidArgumentError, match="do not share this batch equally"):
        model.evaluate(batches(1, 1), verbose=0)


@pytest.mark.parametrize("method", [Pull, Game])
@pytest.mark.parametrize("rows", [[0, 1], [2, 3]], ids=["first", "second"])
def test_what_overflows_on_one_replica_is_skipped_by_both(rows, method, two_replicas):
    keras.config.set_dtype_policy("mixed_float16")
    x = np.ones([4, 8], "float32")
    x[rows] *= 3000
    with two_replicas.scope():
        model = compiled(method, rate=1e-6)
    before = model.encoder.get_weights()
    model.fit(tf.data.Dataset.from_tensors(x).unbatch().batch(4), verbose=0)
    for a, b in zip(before, model.encoder.get_weights()):
        np.testing.assert_array_equal(a, b)
    assert float(tf.convert_to_tensor(model.optimizer.dynamic_scale)) == 2**14


def test_optimisers_that_scale_the_loss_already_are_not_wrapped_again():
    keras.config.set_dtype_policy("mixed_float16")

    def scaling(scale):
        return keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1), scale)

    model = Game(dense())
    model.compile(scaling(8.0), scaling(4.0))
    for optimizer, scale in ((model.optimizer, 8.0), (model.critic_optimizer, 4.0)):
        assert isinstance(optimizer, LossScaleOptimizer) and optimizer.initial_scale == scale
        assert isinstance(optimizer.inner_optimizer, keras.optimizers.SGD)
    before = model.critic.get_weights()
    model.fit(batches(4, 4), verbose=0)
    assert np.abs(model.critic.get_weights()[0] - before[0]).max() > 0


def test_xla_is_for_accelerators_but_for_no_strings_and_no_replicas(two_replicas, monkeypatch):
    assert not compiled().jit_compile
    device = tf.config.PhysicalDevice("/physical_device:GPU:0", "GPU")
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: [device])
    assert compiled().jit_compile
    text = Pull(encoders.get("text_bag", buckets=50, dim=4))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        text.compile("sgd")
    assert not text.jit_compile
    with two_replicas.scope():
        assert not compiled().jit_compile


def test_the_loss_of_a_task_is_a_mean_over_examples():
    model = tfssl.MultiTask({"pull": Pull(dense())})
    model.compile(keras.optimizers.SGD(0.0))
    logs = model.fit(batches(6, 4).map(lambda x: {"pull": x}), verbose=0).history
    assert logs["pull_loss"][0] == pytest.approx(logs["loss"][0], rel=1e-6)


def byol_task():
    method = zoo.get("image.byol").BYOL(zoo_runs.tiny_dense_encoder(), 32, 8, 0.9, steps=10)
    return method, zoo_runs.pair(8)


def noise_task():
    method = zoo.get("image.predict_noise").NAT(zoo_runs.tiny_image_encoder(), 8, 4)
    return method, {"image": RANDOM.random([8, 16, 16, 3], "float32"), "index": np.arange(8)}


@pytest.mark.parametrize("task", [byol_task, noise_task])
def test_a_method_that_counts_its_steps_trains_as_a_task(task):
    method, x = task()
    model = tfssl.MultiTask({"task": method})
    model.compile(keras.optimizers.SGD(0.1))
    data = tf.data.Dataset.from_tensors({"task": x}).repeat(2)
    assert np.isfinite(model.fit(data, verbose=0).history["task_loss"][0])
    assert int(tf.convert_to_tensor(method.step)) == 2


def test_a_game_is_no_task():
    with pytest.raises(ValueError, match="No task may be Adversarial"):
        tfssl.MultiTask({"game": Game(dense())})
