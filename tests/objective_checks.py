"""Holds an objective to a slow float64 transcription: value, gradients, compilation."""

import numpy as np
import tensorflow as tf


def draw(*shape, seed=0):
    """Repeatable normal numbers, float32 values in a float64 array."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32).astype(np.float64)


def gradients(objective, *inputs):
    """Gradient of the objective for each input; zeros where none arrives."""
    variables = [tf.Variable(x, dtype=tf.float32) for x in inputs]
    with tf.GradientTape() as tape:
        value = objective(*variables)
    return tape.gradient(value, variables, unconnected_gradients="zero")


def differences(reference, inputs, which, step=1e-5):
    """Central differences of the reference with respect to inputs[which]."""
    inputs = [np.array(x, np.float64) for x in inputs]
    moved = inputs[which]
    slope = np.zeros_like(moved)
    for place in np.ndindex(moved.shape):
        before = moved[place]
        moved[place] = before + step
        above = reference(*inputs)
        moved[place] = before - step
        slope[place] = (above - reference(*inputs)) / (2 * step)
        moved[place] = before
    return slope


def holds(objective, reference, *inputs, frozen=(), tolerance=1e-5):
    """The objective equals the reference in value and gradient, also compiled with unknown batch.

    frozen: positions of inputs that must receive no gradient.
    """
    found = objective(*[tf.constant(x, tf.float32) for x in inputs])
    assert found.dtype == tf.float32 and found.shape == ()
    expected = reference(*inputs)
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)

    for which, slope in enumerate(gradients(objective, *inputs)):
        if which in frozen:
            assert not np.any(slope), f"input {which} is a target and received a gradient"
        else:
            numeric = differences(reference, inputs, which)
            np.testing.assert_allclose(slope, numeric, rtol=1e-3, atol=20 * tolerance)

    signature = [tf.TensorSpec([None, *np.shape(x)[1:]], tf.float32) for x in inputs]
    compiled = tf.function(objective, input_signature=signature, jit_compile=True)
    again = compiled(*[tf.constant(x, tf.float32) for x in inputs])
    np.testing.assert_allclose(again, expected, rtol=tolerance, atol=tolerance)
