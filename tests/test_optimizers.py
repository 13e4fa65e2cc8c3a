"""Optimisers and schedules against NumPy loops over steps, and all of it through a config."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfssl.optimizers import (
    LARS,
    SGD,
    AdamW,
    LossScaleOptimizer,
    WarmupCosine,
    falling,
    warmup_cosine,
)


def schedule(step, peak, steps, warmup, end):
    if step < warmup:
        return peak * step / warmup
    share = min(1, (step - warmup) / (steps - warmup))
    return end + (peak - end) * (1 + math.cos(math.pi * share)) / 2


@pytest.mark.parametrize("nesterov", [False, True])
def test_lars_is_its_equations_over_steps(nesterov):
    random = np.random.default_rng(0)
    # the third is of norm 0, which no ratio can move; the last, of a head of attention each row
    weights = [random.normal(size=(3, 2)), random.normal(size=2), np.zeros((2, 2))]
    weights.append(random.normal(size=(2, 2)))
    names = ("kernel", "gamma", "kernel", "bias")
    variables = [keras.Variable(w.astype("float32"), name=n) for w, n in zip(weights, names)]
    optimizer = LARS(
        WarmupCosine(0.5, 6, 2, 0.01),
        momentum=0.8,
        weight_decay=0.1,
        eta=0.02,
        nesterov=nesterov,
        bias_rate=0.5,
    )
    velocities = [np.zeros_like(w) for w in weights]
    for step in range(8):
        gradients = [random.normal(size=w.shape) for w in weights]
        optimizer.apply([tf.constant(g, tf.float32) for g in gradients], variables)
        rate = schedule(step, 0.5, 6, 2, 0.01)
        for i, gradient in enumerate(gradients):
            if names[i] == "kernel":
                gradient = gradient + 0.1 * weights[i]
                norm = np.linalg.norm(weights[i])
                if norm > 0:
                    gradient = gradient * 0.02 * norm / np.linalg.norm(gradient)
            else:
                gradient = 0.5 * gradient
            velocities[i] = 0.8 * velocities[i] + rate * gradient
            ahead = 0.8 * velocities[i] + rate * gradient
            weights[i] = weights[i] - (ahead if nesterov else velocities[i])
        for found, expected in zip(variables, weights):
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("nesterov", [False, True])
def test_decay_passes_through_the_momentum(nesterov):
    variable = keras.Variable(w := np.array([[2.0, -1.0]], "float32"))
    optimizer = SGD(0.1, momentum=0.9, weight_decay=0.5, nesterov=nesterov)
    v = np.zeros_like(w)
    for gradient in ([[1.0, 0.0]], [[0.5, -2.0]], [[0.0, 0.0]]):
        optimizer.apply([keras.ops.convert_to_tensor(gradient)], [variable])
        g = np.array(gradient) + 0.5 * w
        v = 0.9 * v - 0.1 * g
        w = w + (0.9 * v - 0.1 * g if nesterov else v)
    np.testing.assert_allclose(variable.numpy(), w, rtol=1e-5)


def test_the_schedule_rises_in_a_line_and_falls_by_half_a_cosine():
    found = WarmupCosine(2.0, 20, 5, 0.5)
    for step in (0, 1, 4, 5, 6, 12, 19, 20, 100):
        assert float(found(step)) == pytest.approx(schedule(step, 2.0, 20, 5, 0.5), abs=1e-6)
    whole, short = warmup_cosine(1.0, 7, 100, 10), warmup_cosine(1.0, 7, 10, 10)
    assert (whole.steps, whole.warmup) == (700, 70)
    assert (short.steps, short.warmup) == (70, 7)


@pytest.mark.parametrize(
    "optimizer",
    [
        LARS(WarmupCosine(0.5, 6, 2), eta=0.02),
        AdamW(0.1, WarmupCosine(0.04, 6, end=0.4), clip=3.0),
        SGD(0.3, momentum=0.8, weight_decay=0.1),
        LossScaleOptimizer(SGD(0.3, momentum=0.8), initial_scale=4.0),
    ],
)
def test_an_optimiser_survives_its_config(optimizer):
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert type(again) is type(optimizer)
    found, expected = [keras.Variable(np.ones([2, 2], "float32")) for _ in range(2)]
    for _ in range(3):
        again.apply([tf.constant([[1.0, 2], [3, 4]])], [found])
        optimizer.apply([tf.constant([[1.0, 2], [3, 4]])], [expected])
    np.testing.assert_array_equal(found, expected)
    assert np.abs(np.array(found) - 1).max() > 1e-3


def test_a_rate_falls_by_its_factor_at_each_share_of_the_steps():
    rate = falling(0.1, 40, at=(0.25, 0.5), factor=0.2)
    found = [float(rate(step)) for step in (0, 10, 11, 20, 21, 100)]
    np.testing.assert_allclose(found, [0.1, 0.1, 0.02, 0.02, 0.004, 0.004], rtol=1e-6)


@pytest.mark.parametrize(
    "make",
    [
        lambda: LARS(0.5, weight_decay=0.1, eta=0.02),
        lambda: AdamW(0.1, 0.4, clip=0.5),
        lambda: SGD(0.3, momentum=0.8, weight_decay=0.1),
    ],
)
def test_two_replicas_step_as_one(make, two_replicas):
    """By the sum of their gradients, from which norms are taken: those of a part would differ."""
    start = {"kernel": [[1.0, 2.0], [3.0, 4.0]], "bias": [0.5, -0.5]}
    parts = {"kernel": [[[1.0, 0.0], [2.0, 1.0]], [[-3.0, 1.0], [0.5, 0.0]]]}
    parts["bias"] = [[1.0, 2.0], [0.0, -1.0]]

    def variables():
        return [keras.Variable(np.array(v, "float32"), name=k) for k, v in start.items()]

    one, alone = variables(), make()
    for _ in range(2):
        alone.apply([tf.reduce_sum(tf.constant(p), axis=0) for p in parts.values()], one)
    with two_replicas.scope():
        both, together = variables(), make()
        together.build(both)

    @tf.function
    def step():
        def replica():
            me = tf.distribute.get_replica_context().replica_id_in_sync_group
            together.apply([tf.gather(tf.constant(p), me) for p in parts.values()], both)

        two_replicas.run(replica)

    for _ in range(2):
        step()
    for a, b in zip(one, both):
        np.testing.assert_allclose(a, b, rtol=1e-5)
