"""Optimisers against their papers' loops, in NumPy."""

import keras
import numpy as np
import pytest

from tfssl.optimizers import SGD


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


def test_it_comes_back_from_its_configuration():
    again = SGD.from_config(SGD(0.3, momentum=0.8, weight_decay=1e-3).get_config())
    assert (float(again.learning_rate), again.momentum, again.decay) == (
        pytest.approx(0.3),
        0.8,
        1e-3,
    )
