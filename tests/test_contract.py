"""What every method of the zoo promises, whatever it is."""

import inspect
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
import zoo_runs

import tfssl
from tfssl import zoo
from tfssl.callbacks import Health, Resume
from tfssl.method import Method, Run

NAMES = zoo.names()
# One method after the other, so that what one test has traced of it serves the next.
every_method = pytest.mark.parametrize("name", NAMES, scope="module")
SEED = tf.constant([3, 4], tf.int32)
CONSTANT = ("image.cluster_embedding", "image.joint_cluster")  # images as they are, at every seed


@pytest.fixture(autouse=True, scope="module")
def graphs_as_they_are():
    """To rewrite a graph for speed takes longer than the two steps that are taken of it here."""
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    yield
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": False})


def flat(views):
    return [t for t in tf.nest.flatten(views) if t is not None]


@every_method
def test_the_docstring_holds_a_whole_card(name):
    card = zoo.card(name)
    assert card["id"] == name and card["modality"] == name.split(".")[0]
    assert all(card[key] for key in ("title", "authors", "venue", "family", "summary"))
    assert 1980 < card["year"] < 2030 and card["url"].startswith("https://")
    assert card["summary"].endswith(".")


@every_method
def test_a_module_has_its_four_parts(name):
    module = zoo.get(name)
    parameters = inspect.signature(module.recipe).parameters
    assert all(p.default is not inspect.Parameter.empty for p in parameters.values())
    assert {"data", "batch_size", "epochs"} <= set(parameters)
    assert set(module.SMALL) <= set(parameters)
    assert str(module.SMALL["data"]).split(":")[0] in ("digits", "world")
    classes = [
        value
        for value in vars(module).values()
        if inspect.isclass(value)
        and issubclass(value, Method)
        and value.__module__ == module.__name__
    ]
    assert len(classes) >= 1
    assert list(inspect.signature(module.views).parameters)[:2] == ["examples", "seed"]


@every_method
def test_views_follow_the_seed_and_nothing_else(name):
    views = zoo.get(name).views
    batch = tfssl.pipelines.fake.examples(zoo.card(name)["modality"], batch=2)
    once, again = flat(views(batch, SEED)), flat(views(batch, SEED))
    graph = tf.function(views, autograph=False)
    in_a_graph, otherwise = flat(graph(batch, SEED)), flat(graph(batch, SEED + 1))
    assert len(once) == len(again) == len(in_a_graph) > 0
    for a, b, c in zip(once, again, in_a_graph):
        np.testing.assert_array_equal(a, b)
        if a.dtype.is_floating:
            assert np.isfinite(a).all()
            np.testing.assert_allclose(a, c, atol=1e-4)
        else:
            np.testing.assert_array_equal(a, c)
        assert a.shape[0] == 2, "views keep the batch in front"
        assert a.dtype != tf.uint8, "bytes never leave the views"
    drawn = any((a != b).numpy().any() for a, b in zip(in_a_graph, otherwise))
    assert drawn == (name not in CONSTANT)


@every_method
@pytest.mark.parametrize(
    "policy", ["mixed_bfloat16", pytest.param("mixed_float16", marks=pytest.mark.slow)]
)
def test_it_trains_in_sixteen_bits(name, policy):
    keras.config.set_dtype_policy(policy)
    run = zoo_runs.tiny_run(name, epochs=1, stream=zoo_runs.kept)
    run.model.run_eagerly = policy == "mixed_bfloat16"  # to trace its graph takes longer
    history = run.fit(verbose=0, callbacks=[Health(run.dataset)]).history
    assert "health_std" in history, "what it trains on shows nothing of its encoder"
    assert all(math.isfinite(value) for values in history.values() for value in values)


def test_annotation_is_all_that_a_method_may_not_see():
    keys = "action baseline boxes colour depth disparity flow identity impact_frames impact_objects"
    keys += " impacts intrinsics label masks material object_label pose visible"
    assert sorted(zoo_runs.ANNOTATION) == keys.split()


# Three graphs of each method take minutes to trace: step by step here, as graphs among the slow
# tests and, for a few methods, in test_resume.
@every_method
@pytest.mark.parametrize("eagerly", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_labels_change_nothing_and_a_resumed_run_ends_the_same(name, eagerly, tmp_path):
    def tiny_run(batch):
        run = zoo_runs.tiny_run(name, batch, stream=zoo_runs.traced_once)
        run.model.run_eagerly = eagerly
        return run

    batch = zoo_runs.examples(name)
    uses = getattr(zoo.get(name).views, "uses", ())
    permuted = {
        key: value[::-1] if key in zoo_runs.ANNOTATION and key not in uses else value
        for key, value in batch.items()
    }
    straight = tiny_run(batch)
    assert isinstance(straight, Run) and isinstance(straight.model, Method)
    straight.fit(verbose=0, callbacks=[Resume(tmp_path / "a")])
    final = zoo_runs.weights(straight.model)

    blind = tiny_run(permuted)
    # Stopped after its first epoch, and continued as a new process would.
    blind.fit(verbose=0, epochs=1, callbacks=[Resume(tmp_path / "b")])
    resume = Resume(tmp_path / "b")
    assert resume.epoch == 1
    continued = tiny_run(permuted)
    data = continued.dataset.endless(resume.epoch * continued.dataset.steps)
    continued._replace(dataset=data).fit(
        verbose=0, steps_per_epoch=continued.dataset.steps, callbacks=[resume]
    )
    assert zoo_runs.same(zoo_runs.weights(continued.model), final)


@every_method
def test_what_it_publishes_survives_the_way_out_and_back(name, tmp_path):
    run = zoo_runs.tiny_run(name, epochs=1, stream=zoo_runs.kept)
    for title, encoder in run.model.published.items():
        tfssl.export(encoder, tmp_path / title)
        golden = np.load(tmp_path / title / "golden.npz")
        inputs = {key: golden[key] for key in golden.files if key == "inputs"}
        loaded = tfssl.load(tmp_path / title)
        if inputs:
            features = np.asarray(loaded(tf.constant(inputs["inputs"])))
            np.testing.assert_allclose(features, golden["features"], atol=1e-4, rtol=1e-4)
            live = np.asarray(encoder(tf.constant(inputs["inputs"]), training=False))
            np.testing.assert_allclose(features, live, atol=1e-4, rtol=1e-4)


@every_method
def test_two_replicas_equal_one(name, two_replicas):
    batch = zoo_runs.examples(name)

    def trained(eagerly):
        one_group = zoo_runs.ONE_GROUP.get(name, {})
        run = zoo_runs.tiny_run(name, batch, stream=zoo_runs.kept, **one_group)
        if run.model.optimizer is None:
            pytest.skip("it has no optimiser")
        before = zoo_runs.weights(run.model)
        # Plain gradient descent, so that gradients show as they are: Adam would hide their scale.
        players = {"critic_optimizer": keras.optimizers.SGD(0.1)}
        players = players if isinstance(run.model, tfssl.Adversarial) else {}
        run.model.compile(keras.optimizers.SGD(0.1), run_eagerly=eagerly, **players)
        history = run._replace(dataset=run.dataset.endless()).fit(
            verbose=0, steps_per_epoch=1, epochs=1
        )
        return before, zoo_runs.weights(run.model), history.history["loss"][0]

    start, one, loss = trained(eagerly=True)
    with two_replicas.scope():
        start_of_two, two, loss_of_two = trained(eagerly=False)
    assert zoo_runs.same(start, start_of_two)
    np.testing.assert_allclose(loss_of_two, loss, rtol=1e-4)
    for before, a, b in zip(start, one, two):
        moved = np.abs(a - before).max() if a.size and a.dtype.kind == "f" else 0
        np.testing.assert_allclose(b, a, atol=1e-5 + 1e-2 * moved)


def test_a_step_is_traced_once(monkeypatch):
    run, traced = zoo_runs.tiny_run("image.rotation"), []
    objective = run.model.objective
    monkeypatch.setattr(run.model, "objective", lambda *a: traced.append(1) or objective(*a))
    run.fit(verbose=0)
    assert len(traced) == 1


@pytest.mark.slow
@every_method
def test_it_trains_compiled(name):
    run = zoo_runs.tiny_run(name, epochs=1, stream=zoo_runs.kept)
    if run.model.optimizer is None:
        pytest.skip("it has no optimiser")
    run.model.jit_compile = True
    history = run.fit(verbose=0).history
    assert math.isfinite(history["loss"][0])
