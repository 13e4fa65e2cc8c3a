"""Several tasks on one encoder: who is moved by which loss, inputs of one kind, fair weights."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import zoo_runs

from tfssl import zoo
from tfssl.errors import BadInput
from tfssl.pipelines.augment.image import lab_to_rgb, rgb_to_lab

multi_task = zoo.get("image.multi_task")
RANDOM = np.random.default_rng(0)
SEED = tf.constant([3, 4])


def run(**options):
    return zoo_runs.tiny_run("image.multi_task", epochs=1, **options)


def gradients(model, x, y, names):
    weights = model.trainable_variables
    with tf.GradientTape() as tape:
        outputs = model(x)
        loss = sum(model.tasks[n].objective(x[n], y[n], outputs[n]) for n in names)
    zeros = tf.UnconnectedGradients.ZERO
    return [
        g.numpy()
        for g in tape.gradient(loss, [w.value for w in weights], unconnected_gradients=zeros)
    ]


def test_a_task_moves_the_trunk_and_its_own_head_alone_and_trunk_gradients_add():
    both = run(tasks=("rotation", "relative_position"))
    model = both.model
    x, y = next(iter(both.dataset))
    one = gradients(model, x, y, ["rotation"])
    two = gradients(model, x, y, ["relative_position"])
    together = gradients(model, x, y, ["rotation", "relative_position"])
    trunk = {id(w) for w in model.encoder.trainable_variables}
    for weight, a, b, c in zip(model.trainable_variables, one, two, together):
        np.testing.assert_allclose(c, a + b, atol=1e-5)
        if id(weight) not in trunk:
            assert (np.abs(a).max() == 0) != (np.abs(b).max() == 0)
    shared = [a for w, a in zip(model.trainable_variables, one) if id(w) in trunk]
    assert max(np.abs(a).max() for a in shared) > 0


def test_every_task_sees_lightness_alone():
    images = RANDOM.uniform(0.3, 0.6, [2, 64, 64, 3]).astype("float32")
    lab = rgb_to_lab(tf.constant(images)).numpy()
    recoloured = lab_to_rgb(tf.constant(lab * [1, 0.5, -0.5], tf.float32))
    x, _ = multi_task.views({"image": tf.constant(images)}, SEED, size=64)
    other, _ = multi_task.views({"image": recoloured}, SEED, size=64)
    assert set(x) == set(multi_task.TASKS)
    for name in set(x):
        np.testing.assert_allclose(x[name][..., 0], x[name][..., 1], atol=1e-6)
        np.testing.assert_allclose(x[name][..., 0], x[name][..., 2], atol=1e-6)
        # Colours are cropped before their lightness is taken in one task, after it in the others.
        np.testing.assert_allclose(other[name], x[name], atol=0.03)


def test_each_task_that_knows_nothing_weighs_one():
    model = run(tasks=multi_task.TASKS).model
    for name, task in model.tasks.items():
        assert model.task_weights[name] * task.chance == pytest.approx(1)
    assert model.chance == 3
    assert np.exp(model.tasks["relative_position"].chance) == pytest.approx(8)


def test_any_tasks_train_by_name_on_the_one_encoder_that_is_published():
    trained = run(tasks=["rotation", "colorization"])
    history = trained.fit(verbose=0).history
    assert {"rotation_loss", "colorization_loss", "loss"} <= set(history)
    assert list(trained.model.published) == ["encoder"]
    only = run(tasks="rotation")
    assert list(only.model.tasks) == ["rotation"]
    with pytest.raises(BadInput, match="jigsaw"):
        run(tasks=("jigsaw",))


@pytest.mark.slow
def test_both_tasks_get_better_than_guessing():
    keras.utils.set_random_seed(0)
    small = {**multi_task.SMALL, "data": "world:n=1500", "epochs": 4, "size": 32}
    history = multi_task.recipe(**{**small, "tasks": ("rotation", "colorization")}).fit(verbose=0)
    losses = {name: values[-1] for name, values in history.history.items()}
    print(history.history)
    assert losses["rotation_loss"] < np.log(4)
    assert losses["colorization_loss"] < np.log(len(zoo.get("image.colorization").bins(20)))
