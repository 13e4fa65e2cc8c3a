"""The published artefact: every consumer, every precision, in processes that never saw our code."""

import hashlib
import json
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfssl
from tfssl import encoders, savedmodel
from tfssl.errors import BadInput
from tfssl.layers.normalisation import BatchNormalization

ROOT = pathlib.Path(__file__).resolve().parents[1]
VARIANTS = ("float32", "mixed_bfloat16", "mixed_float16", "two_replicas")

MAKE = """
import sys
import keras, numpy as np, tensorflow as tf
import tfssl
from tfssl import encoders
from tests.test_savedmodel import small

variant, folder = sys.argv[1:]
strategy = tf.distribute.get_strategy()
if variant == "two_replicas":
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
else:
    keras.config.set_dtype_policy(variant)
keras.utils.set_random_seed(1)
with strategy.scope():
    encoder = small()
    model = keras.Sequential([encoder, keras.layers.Dense(2, dtype="float32")])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.01), loss, jit_compile=False)
random = np.random.default_rng(0)
x, y = random.uniform(size=(16, 16, 16, 3)).astype("float32"), np.arange(16) % 2
model.fit(x, y, batch_size=8, epochs=2, verbose=0)
tfssl.export(encoder, folder, card={"precision": variant})
golden = np.load(folder + "/golden.npz")
live = encoder(golden["inputs"], training=False)
tolerance = 1e-5 if variant in ("float32", "two_replicas") else 0.05
scale = np.abs(golden["features"]).max()
np.testing.assert_allclose(tf.cast(live, "float32"), golden["features"], atol=tolerance * scale)
"""

CONSUME = """
import os, re, sys
import numpy as np

def step_by_hand(encoder, x, y):
    import tensorflow as tf
    variables, losses = list(encoder.trainable_variables), []
    for _ in range(4):
        with tf.GradientTape() as tape:
            features = encoder(x, training=True)
            loss = tf.reduce_mean((tf.reduce_mean(features, 1) - tf.cast(y, tf.float32)) ** 2)
        gradients = tape.gradient(loss, variables)
        assert all(g is not None for g in gradients)
        for variable, gradient in zip(variables, gradients):
            variable.assign_sub(0.05 * gradient)
        losses.append(float(loss))
    return losses

def fit(keras, encoder, x, y):
    model = keras.Sequential([keras.Input(x.shape[1:]), encoder, keras.layers.Dense(2)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.05), loss, jit_compile=False)
    return model.fit(x, y, batch_size=len(x), epochs=4, verbose=0).history["loss"]

consumer, *folders = sys.argv[1:]
for folder in folders:
    os.chdir(folder)
    blocks = dict(re.findall("### (.+?)\\n\\n```python\\n(.*?)```", open("card.md").read(), re.S))
    scope = {}
    exec(blocks[consumer], scope)
    golden, encoder = scope["golden"], scope["encoder"]
    np.testing.assert_allclose(scope["features"], golden["features"], rtol=1e-5, atol=1e-5)
    for name, tap in scope.get("taps", {}).items():
        np.testing.assert_allclose(tap, golden[name], rtol=1e-5, atol=1e-5)
    random = np.random.default_rng(1)
    x, y = random.uniform(size=(8, 16, 16, 3)).astype("float32"), np.arange(8) % 2
    x[y == 1] *= 0.5
    statistics = [v for v in encoder.variables if "moving" in v.name]
    learnt = [v for v in encoder.trainable_variables if "moving" not in v.name]
    before = [np.array(v) for v in (*learnt, *statistics)]
    assert len(statistics) == 4 and len(learnt) == 6, (statistics, learnt)
    if "this package: verified" in consumer:
        assert len(encoder.trainable_variables) == 6
    if not consumer.startswith("TensorFlow"):
        if "tf_keras" in consumer:
            import tf_keras as keras
        else:
            import keras
        losses = fit(keras, encoder, x, y)
    else:
        losses = step_by_hand(encoder, x, y)
    assert losses[-1] < losses[0], losses
    after = [np.array(v) for v in (*learnt, *statistics)]
    assert all((a != b).any() for a, b in zip(after, before)), "some variables did not move"
"""


def small():
    """Two convolutions with our batch norm: quick to export, with all that makes export hard."""
    image = keras.Input((None, None, 3), name="image")
    x = image
    for i in (1, 2):
        x = keras.layers.Conv2D(8, 3, 2, padding="same", use_bias=False)(x)
        x = BatchNormalization()(x)
        x = keras.layers.ReLU(negative_slope=0.1, name=f"c{i}")(x)
    return keras.Model(image, keras.layers.GlobalAveragePooling2D(name="pool")(x))


def run(code, *arguments):
    """Starts a fresh Python that finds the checkout and no accelerator."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-W", "ignore", "-c", code, *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, env=environment, **pipes)


def finish(process):
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0, out[-3000:]


@pytest.fixture(scope="module")
def artefacts(tmp_path_factory):
    """One exported encoder a way of training, each trained and written by its own process."""
    folder = tmp_path_factory.mktemp("artefacts")
    for pair in (VARIANTS[:2], VARIANTS[2:]):
        for process in [run(MAKE, variant, folder / variant) for variant in pair]:
            finish(process)
    return [folder / variant for variant in VARIANTS]


@pytest.mark.parametrize("consumer", savedmodel.LOADING)
def test_the_cards_loading_lines_give_the_golden_features_and_fine_tune(artefacts, consumer):
    finish(run(CONSUME, consumer, *artefacts))


@pytest.fixture
def exported(tmp_path):
    return tfssl.export(small(), tmp_path / "encoder", card={"licence": "Apache-2.0"})


def test_the_serving_signature_takes_inputs_and_returns_features(exported):
    loaded = tf.saved_model.load(str(exported))
    signature = loaded.signatures["serving_default"]
    assert list(signature.structured_input_signature[1]) == ["inputs"]
    assert signature.structured_input_signature[1]["inputs"].shape.as_list() == [None] * 3 + [3]
    golden = np.load(exported / "golden.npz")
    features = signature(inputs=tf.constant(golden["inputs"]))["features"]
    np.testing.assert_allclose(features, golden["features"], atol=1e-6)
    serve = loaded.serve(tf.zeros((5, 9, 7, 3)))
    assert serve.shape == (5, 8) and serve.dtype == tf.float32
    assert loaded.serve_train(inputs=tf.zeros((5, 9, 7, 3))).shape == (5, 8)


def test_the_representation_signature_returns_every_tap(exported):
    golden = np.load(exported / "golden.npz")
    assert set(golden) == {"inputs", "features", "c1", "c2"}
    for loaded in (tf.saved_model.load(str(exported)), tfssl.load(exported)):
        assert encoders.tap_names(loaded) == ["c1", "c2"]
        for name, tap in encoders.representation(loaded)(tf.constant(golden["inputs"])).items():
            np.testing.assert_allclose(tap, golden[name], atol=1e-6)


def test_the_keras_file_loads_without_our_classes(exported):
    golden = np.load(exported / "golden.npz")
    model = keras.models.load_model(exported / "encoder.keras")
    np.testing.assert_allclose(model(golden["inputs"]), golden["features"], atol=1e-6)
    kinds = {type(layer) for layer in model.layers}
    assert keras.layers.BatchNormalization in kinds and BatchNormalization not in kinds


@pytest.mark.parametrize("damage", ["changed", "missing", "no manifest", "added", "unlisted"])
def test_a_damaged_artefact_is_refused_by_name(exported, damage):
    victim = next((exported / "variables").glob("*.data*"))
    if damage == "changed":
        data = bytearray(victim.read_bytes())
        data[len(data) // 2] ^= 1
        victim.write_bytes(data)
    elif damage == "missing":
        victim.unlink()
    elif damage == "added":
        victim = victim.with_name("variables.data-00001-of-00002")
        victim.write_bytes(b"more")
    elif damage == "unlisted":
        victim = exported / "saved_model.pb"
        manifest = exported / "manifest.json"
        manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"files": {}}))
    else:
        victim = exported / "manifest.json"
        victim.unlink()
    with pytest.raises(BadInput, match=victim.name):
        tfssl.load(exported)


def test_notes_beside_an_artefact_do_no_harm(exported):
    (exported / "notes.txt").write_text("mine")
    (exported / "variables" / ".DS_Store").write_text("a desktop's")
    tfssl.load(exported)


def test_anybodys_saved_model_is_a_layer_too(tmp_path):
    class Theirs(tf.Module):
        def __init__(self):
            super().__init__()
            self.w = tf.Variable(tf.ones([3, 2]))

        @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32)])
        def embed(self, pixels):
            return {"code": pixels @ self.w}

    theirs = Theirs()
    tf.saved_model.save(theirs, str(tmp_path / "theirs"), signatures=theirs.embed)
    loaded = tfssl.load(tmp_path / "theirs")
    x = tf.constant([[1.0, 2.0, 3.0]])
    with tf.GradientTape() as tape:
        code = loaded(x)
    np.testing.assert_allclose(code, [[6.0, 6.0]])
    assert len(loaded.trainable_variables) == 1
    (gradient,) = tape.gradient(code, [loaded.trainable_variables[0].value])
    np.testing.assert_allclose(gradient, [[1, 1], [2, 2], [3, 3]])
    assert encoders.tap_names(loaded) == []
    tf.saved_model.save(tf.Module(), str(tmp_path / "empty"))
    with pytest.raises(BadInput, match="serving_default"):
        tfssl.load(tmp_path / "empty")


def test_what_was_frozen_is_published_to_be_fine_tuned(tmp_path):
    encoder = small()
    next(layer for layer in encoder.layers if layer.weights).trainable = False
    count = len(small().trainable_variables)
    assert len(encoder.trainable_variables) < count
    tfssl.export(encoder, tmp_path / "x")
    assert len(tfssl.load(tmp_path / "x").trainable_variables) == count
    assert len(tfssl.load(tmp_path / "x" / "encoder.keras").trainable_variables) == count
    assert not tfssl.load(tmp_path / "x" / "encoder.keras", trainable=False).trainable_variables


def test_an_address_that_nobody_answers_is_named():
    with pytest.raises(BadInput, match=r"127\.0\.0\.1:9/x cannot be fetched"):
        tfssl.load("http://127.0.0.1:9/x")


def test_the_manifest_names_every_other_file(exported):
    files = json.loads((exported / "manifest.json").read_text())["files"]
    there = {f.relative_to(exported).as_posix() for f in exported.rglob("*") if f.is_file()}
    assert set(files) == there - {"manifest.json"}
    for name, digest in files.items():
        assert hashlib.sha256((exported / name).read_bytes()).hexdigest() == digest


def test_a_foreign_folder_is_not_touched(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    for path in (tmp_path, tmp_path / "thesis.txt"):
        with pytest.raises(BadInput, match="not replaced"):
            tfssl.export(small(), path)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
    assert [f.name for f in tmp_path.iterdir()] == ["thesis.txt"]


def test_exporting_again_replaces_and_a_failure_keeps_the_old(exported, monkeypatch):
    before = (exported / "manifest.json").read_text()
    tfssl.export(small(), exported)
    after = (exported / "manifest.json").read_text()
    assert before != after

    def fail(*_, **__):
        raise RuntimeError("disk full")

    monkeypatch.setattr(savedmodel, "_card", fail)
    with pytest.raises(RuntimeError, match="disk full"):
        tfssl.export(small(), exported)
    assert (exported / "manifest.json").read_text() == after
    savedmodel.verify(exported)
    assert [f.name for f in exported.parent.iterdir()] == [exported.name]


def test_a_loaded_encoder_can_be_frozen_and_lives_in_any_keras_model(exported):
    frozen = tfssl.load(f"file://{exported}", trainable=False)
    x = np.random.default_rng(0).uniform(size=(4, 16, 16, 3)).astype("float32")
    before = [np.array(v) for v in frozen.weights]
    image = keras.Input((16, 16, 3))
    model = keras.Model(image, keras.layers.Dense(1)(frozen(image)))
    model.compile("sgd", "mse")
    model.fit(x, np.ones(4), epochs=2, verbose=0)
    assert len(model.trainable_variables) == 2
    assert all((np.array(v) == b).all() for v, b in zip(frozen.weights, before))


def test_text_goes_in_as_strings_after_a_round_trip(tmp_path):
    encoder = encoders.get("text_bag", vocabulary=["red", "ball"], dim=4)
    path = tfssl.export(encoder, tmp_path / "text")
    words = tf.constant(["Red ball!", "nothing known", ""])
    for loaded in (tfssl.load(path), tf.saved_model.load(str(path))):
        np.testing.assert_allclose(loaded(words), encoder(words), atol=1e-6)


def test_two_inputs_are_called_by_name(tmp_path):
    image, sound = keras.Input((8,), name="image"), keras.Input((4,), name="audio")
    features = keras.layers.Dense(3, name="c1")(keras.layers.Concatenate()([image, sound]))
    encoder = keras.Model({"image": image, "audio": sound}, features)
    path = tfssl.export(encoder, tmp_path / "two")
    golden = np.load(path / "golden.npz")
    named = {name: tf.constant(golden[name]) for name in ("image", "audio")}
    loaded = tf.saved_model.load(str(path))
    for features in (
        loaded.serve(**named),
        loaded.serve_train(**named),
        loaded(named),
        loaded.signatures["serving_default"](**named)["features"],
        loaded.signatures["representation"](**named)["c1"],
        tfssl.load(path)(named),
    ):
        np.testing.assert_allclose(features, golden["features"], atol=1e-6)


def test_the_cards_front_matter_is_yaml_of_what_was_given(tmp_path):
    yaml = pytest.importorskip("yaml")
    fields = ("task", "paper", "data", "call", "seed", "results", "licence", "own")
    given = {field: {"top1": 0.5, "note": f"ü: --- # {field}"} for field in fields}
    path = tfssl.export(small(), tmp_path / "encoder", card=given)
    read = yaml.safe_load((path / "card.md").read_text("utf-8").split("\n---\n")[0])
    assert {field: read[field] for field in fields} == given
    assert savedmodel.read_card(path) == read
    assert read["features"] == 8 and read["versions"]["keras"] == keras.__version__


@pytest.mark.filterwarnings("ignore:.*Lambda.*")
def test_a_sequential_model_with_a_lambda_is_exported_with_its_taps(tmp_path):
    layers = [
        keras.layers.Lambda(lambda x, by: x * by, arguments={"by": 2.0}),
        keras.layers.Conv2D(3, 3, 2, name="c1", dtype="mixed_bfloat16"),
        keras.layers.GlobalAveragePooling2D(),
    ]
    model = keras.Sequential(layers)
    x = np.random.default_rng(0).random((4, 9, 9, 3), np.float32)
    expected = model(x[:1])  # builds it for batches of one, which must not be what is exported
    keras.Sequential([keras.Input((9, 9, 3)), model])  # another call of it
    loaded = tfssl.load(tfssl.export(model, tmp_path / "e"))
    np.testing.assert_allclose(loaded(x)[:1], expected, atol=0.02)
    assert list(loaded.signatures["representation"](inputs=tf.constant(x))) == ["c1"]
    with pytest.raises(BadInput, match="Lambda"):
        tfssl.load(tmp_path / "e" / "encoder.keras")


def test_a_layer_without_a_config_is_refused_by_name(tmp_path):
    class Scaled(keras.layers.Layer):
        def __init__(self, factor):
            super().__init__()
            self.factor = factor

        def call(self, x):
            return x * self.factor

    inputs = keras.Input((4,))
    with pytest.raises(BadInput, match="Scaled"):
        tfssl.export(keras.Model(inputs, Scaled(2.0)(inputs)), tmp_path / "e")


def test_a_subclassed_model_is_refused_with_what_to_do(tmp_path):
    class Mine(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(BadInput, match=r"keras.Model\(inputs, "):
        tfssl.export(Mine(), tmp_path / "mine")


def test_keras_opens_our_layers_in_a_process_that_has_used_none(tmp_path):
    """With Keras imported last, and nothing of ours touched but the import."""
    built = [encoders.get(name, size=8) for name in ("vit_mini", "text_bag", "audio_cnn", "cnn3d")]
    for encoder in built:
        encoder.save(tmp_path / f"{encoder.name}.keras")
    code = (
        "import importlib.util, sys, tfssl; assert importlib.util.find_spec('keras'); import keras"
    )
    code += "; [keras.models.load_model(path) for path in sys.argv[1:]]"
    words = [sys.executable, "-c", code, *map(str, tmp_path.glob("*.keras"))]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT)
    assert len(words) == 7 and done.returncode == 0, done.stderr[-1000:]


def test_every_class_of_ours_that_keras_may_meet_is_named_to_it():
    import importlib
    import pkgutil

    from tfssl import known, layers

    for room in (encoders, layers):
        for module in pkgutil.iter_modules(room.__path__, f"{room.__name__}."):
            importlib.import_module(module.name)
    named = {f"tfssl>{name}": module for module, name in known._classes()}
    for key, found in keras.saving.get_custom_objects().items():
        if isinstance(found, type) and found.__module__.startswith(("tfssl.enc", "tfssl.lay")):
            assert named[key] == found.__module__


def test_what_gives_maps_gives_them_when_exported_again(tmp_path):
    from tfssl.encoders.dense import FlowModel

    image = keras.Input((None, None, 3))
    encoder = FlowModel(image, keras.layers.Conv2D(2, 3, padding="same", name="c1")(image))
    tfssl.export(encoder, tmp_path / "once")
    tfssl.export(tfssl.load(tmp_path / "once" / savedmodel.KERAS), tmp_path / "twice")
    once, twice = (
        np.load(tmp_path / name / "golden.npz")["features"] for name in ("once", "twice")
    )
    np.testing.assert_array_equal(once, twice)


def test_a_keras_file_is_loaded_as_the_model_it_holds(tmp_path):
    model, path = small(), tmp_path / "small.keras"
    model.save(path)
    x = tf.random.uniform([2, 16, 16, 3])
    np.testing.assert_allclose(tfssl.load(path)(x), model(x), atol=1e-6)
    assert not tfssl.load(path, trainable=False).trainable_weights
    with pytest.raises(BadInput, match=r"gone\.keras"):
        tfssl.load(tmp_path / "gone.keras")


def adapted(policy="float32"):
    keras.config.set_dtype_policy(policy)
    try:
        normalise = keras.layers.Normalization()
        normalise.adapt(np.random.default_rng(0).normal(0.7, 0.1, (64, 9, 9, 3)))
        image = keras.Input((9, 9, 3))
        x = keras.layers.Conv2D(4, 3, name="c1")(normalise(image))
        return keras.Model(image, keras.layers.GlobalAveragePooling2D()(x))
    finally:
        keras.config.set_dtype_policy("float32")


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_adapted_statistics_are_published(policy, tmp_path):
    model = adapted(policy)
    path = tfssl.export(model, tmp_path / "e")
    golden = np.load(path / "golden.npz")
    expected = tf.cast(model(golden["inputs"]), "float32")
    tolerance = 0.05 if "16" in policy else 1e-4
    for loaded in (tfssl.load(path), tfssl.load(path / savedmodel.KERAS)):
        found = loaded(golden["inputs"])
        np.testing.assert_allclose(found, golden["features"], atol=1e-5)
        np.testing.assert_allclose(found, expected, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_a_layer_that_hides_what_it_learnt_is_refused_and_not_published_wrong(policy, tmp_path):
    class Hiding(keras.layers.Layer):
        shift = 0.0

        def call(self, x):
            return x + keras.ops.cast(self.shift, x.dtype)

    inputs, layer = keras.Input((4,)), Hiding(dtype=policy)
    model = keras.Model(inputs, layer(inputs))
    tfssl.export(model, tmp_path / "e")
    layer.shift = 3.0
    with pytest.raises(BadInput, match="other features than itself"):
        tfssl.export(model, tmp_path / "e")


def test_an_adapted_vocabulary_is_published(tmp_path):
    for mode in ("int", "tf_idf"):
        length = {"output_sequence_length": 4} if mode == "int" else {}
        words = keras.layers.TextVectorization(output_mode=mode, **length)
        words.adapt(["a red ball", "the red cat"])
        text = keras.Input((), dtype="string")
        x = words(text)
        if mode == "int":
            x = keras.layers.GlobalAveragePooling1D()(keras.layers.Embedding(10, 4)(x))
        model, asked = keras.Model(text, x), tf.constant(["red cat", "ball", "mouse"])
        path = tfssl.export(model, tmp_path / mode)
        for loaded in (tfssl.load(path), tfssl.load(path / savedmodel.KERAS)):
            np.testing.assert_allclose(loaded(asked), model(asked), atol=1e-6)


def test_a_model_of_sixteen_bits_throughout_is_published_in_float32(tmp_path):
    keras.config.set_floatx("float16")
    try:
        inputs = keras.Input((8,))
        model = keras.Model(inputs, keras.layers.Dense(4)(inputs))
    finally:
        keras.config.set_floatx("float32")
    path = tfssl.export(model, tmp_path / "e")
    assert savedmodel.read_card(path)["inputs"]["inputs"].startswith("float32")
    assert tfssl.load(path)(np.ones((2, 8), "float32")).dtype == "float32"


def test_a_models_own_bytes_are_published_as_the_unit_range_that_the_card_promises(tmp_path):
    image = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(4, 3, 2, name="c1")(keras.layers.Rescaling(1 / 255)(image))
    x = keras.layers.BatchNormalization()(x)
    model = keras.Model(image, keras.layers.GlobalAveragePooling2D()(x))
    path = tfssl.export(model, tmp_path / "e")
    golden = np.load(path / "golden.npz")
    assert golden["inputs"].shape == (3, 64, 64, 3) and golden["inputs"].max() <= 1
    np.testing.assert_allclose(golden["features"], model(255 * golden["inputs"]), atol=1e-5)
    loaded = tf.saved_model.load(str(path))
    live = keras.models.clone_model(model)
    live.set_weights(model.get_weights())
    live(255 * golden["inputs"], training=True)
    loaded(golden["inputs"], training=True)  # moves its statistics once, whatever has taps
    moved = [v.numpy() for v in loaded.variables if "moving" in v.name]
    for found, expected in zip(moved, live.non_trainable_variables, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_network_without_padding_gets_a_golden_batch_that_it_can_take(tmp_path):
    image = keras.Input((None, None, 3))
    model = keras.Model(
        image, keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(2, 75)(image))
    )
    golden = np.load(tfssl.export(model, tmp_path / "e") / "golden.npz")
    assert golden["inputs"].shape == (3, 96, 96, 3)


def test_taps_with_and_without_a_number_come_in_one_order(tmp_path):
    x = image = keras.Input((16, 16, 3))
    for name in ("activation", "activation_2", "activation_10"):
        x = keras.layers.Conv2D(2, 3, 2, padding="same", name=name)(x)
    model = keras.Model(image, keras.layers.GlobalAveragePooling2D()(x))
    loaded = tfssl.load(tfssl.export(model, tmp_path / "e"))
    assert encoders.tap_names(loaded) == ["activation", "activation_2", "activation_10"]


def test_a_folder_is_found_by_its_uri(tmp_path):
    inputs = keras.Input((2,))
    path = tfssl.export(keras.Model(inputs, keras.layers.Dense(2)(inputs)), tmp_path / "ä b")
    assert "%20" in path.as_uri()
    assert tfssl.load(path.as_uri())(np.ones((1, 2), "float32")).shape == (1, 2)
