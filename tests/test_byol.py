"""BYOL: the loss by its numbers, a target that follows after the step, and no collapse."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from zoo_runs import pair, tiny_dense_encoder

from tfssl import zoo

byol = zoo.get("image.byol")


def method(**options):
    keras.utils.set_random_seed(0)
    model = byol.BYOL(tiny_dense_encoder(), hidden=32, width=8, **options)
    model.compile(keras.optimizers.SGD(0.1))
    return model


def test_the_two_views_follow_different_laws():
    picture = {"image": tf.constant(np.full([64, 8, 8, 3], 30, np.uint8))}
    x = byol.views(picture, tf.constant([0, 1]), size=8, blur=(0, 0), solarisation=(0.0, 1.0))
    bright = byol.views(
        {"image": tf.constant(np.full([64, 8, 8, 3], 230, np.uint8))},
        tf.constant([0, 1]),
        size=8,
        blur=(0, 0),
        solarisation=(0.0, 1.0),
    )
    assert x.shape == (64, 2, 8, 8, 3)
    assert np.max(bright[:, 1]) < 0.5 < np.mean(bright[:, 0])  # solarised: light becomes dark


@pytest.mark.parametrize("target, each", [((1, 0), 0.8), ((6, 8), 0), ((-3, -4), 4), ((4, -3), 2)])
def test_the_loss_is_two_minus_two_cosines_for_either_view(target, each):
    p = tf.constant([[[3.0, 4.0]] * 2])
    z = tf.constant([[target] * 2], tf.float32)
    loss = method().objective(None, None, {"prediction": 7 * p, "target": z})
    assert float(loss) == pytest.approx(2 * each, abs=1e-6)


def test_swapping_the_views_leaves_the_loss_unchanged():
    model, x = method(), pair(32)
    losses = [model.objective(v, None, model(v)) for v in (x, x[:, ::-1])]
    assert float(losses[0]) == pytest.approx(float(losses[1]), rel=1e-5)


def test_no_gradient_reaches_the_target():
    model, x = method(), pair(32)
    with tf.GradientTape() as tape:
        loss = model.objective(x, None, model(x, training=True))
    gradients = tape.gradient(loss, [w.value for w in model.target.weights])
    assert gradients and all(g is None for g in gradients)
    assert all(w.trainable is False for w in model.target.weights)


def test_the_target_follows_the_weights_that_the_step_has_just_made():
    model = method(momentum=0.9, steps=10)
    online = model.encoder.trainable_variables + model.projector.trainable_variables
    target = [w for copy in model.target.copies for w in copy.weights if "moving" not in w.path]
    assert len(online) == len(target)  # and nothing for the predictor
    start = [np.array(w) for w in online]
    model.train_on_batch(pair(32))
    for w0, w1, followed in zip(start, online, target):
        np.testing.assert_allclose(followed, 0.9 * w0 + 0.1 * np.array(w1), atol=1e-6)
    before = [np.array(w) for w in target]
    model.train_on_batch(pair(32))
    tau = 1 - 0.1 * (np.cos(np.pi / 10) + 1) / 2
    for w0, w1, followed in zip(before, online, target):
        np.testing.assert_allclose(followed, tau * w0 + (1 - tau) * np.array(w1), atol=1e-6)


def spread(model, x):
    """Standard deviation of the unit projections, in units of 1 / sqrt(width)."""
    z = model.projector(model.encoder(x[:, 0], training=True), training=True)
    z = tf.math.l2_normalize(z, axis=1).numpy()
    return z.std(axis=0).mean() * np.sqrt(z.shape[1])


class Bare(byol.BYOL):
    """Without a predictor, and without batch norm's help: nothing prevents collapse."""

    def __init__(self, encoder):
        super().__init__(encoder, hidden=32, width=8, momentum=0.0)
        self.predictor = keras.Sequential([keras.Input([8]), keras.layers.Identity()])
        self.projector = keras.Sequential([keras.Input([16]), keras.layers.Dense(8)])
        self.target = byol.layers.Momentum(encoder, self.projector)


@pytest.mark.filterwarnings("ignore:Gradients do not exist")
def test_features_stay_apart_with_a_predictor_and_collapse_without():
    spreads, losses = [], []
    for make in (lambda: method(momentum=0.99), lambda: Bare(tiny_dense_encoder())):
        keras.utils.set_random_seed(0)
        model = make()
        model.compile(keras.optimizers.Adam(2e-3))
        data = tf.data.Dataset.from_tensor_slices(tf.stack([pair(64, s) for s in range(50)]))
        history = model.fit(data, epochs=10, verbose=0).history
        spreads.append(spread(model, pair(64, 99)))
        losses.append(history["loss"][-1])
    assert spreads[0] > 0.5
    assert spreads[1] < 0.3 < spreads[0] and losses[1] < 0.05
