"""One artefact of a trained encoder that every consumer of SavedModels can call and fine-tune."""

import hashlib
import inspect
import json
import pathlib
import platform
import re
import shutil
import tempfile
import urllib.request

import keras
import numpy as np
import tensorflow as tf

from tfssl import copies, encoders
from tfssl.errors import BadInput
from tfssl.files import UMASK

FORMAT = "tfssl encoder"
MANIFEST, CARD, GOLDEN, KERAS = "manifest.json", "card.md", "golden.npz", "encoder.keras"
# How far a copy's features may lie from the original's, as a share of their length.
APART, APART_IN_16_BITS = 1e-3, 0.25
GOLDEN_BATCH, GOLDEN_FRAMES, GOLDEN_SAMPLES = 3, 8, 16000

# Consumer: what to import, and how to load.
LOADING = {
    "TensorFlow Hub": ("import tensorflow_hub as hub", 'encoder = hub.load(".")'),
    "TensorFlow": (
        "import tensorflow as tf",
        """\
encoder = tf.saved_model.load(".")
taps = encoder.signatures["representation"](**{tensors})""",
    ),
    "tf_keras (Keras 2), to be fine-tuned": (
        "import tensorflow_hub as hub",
        'encoder = hub.KerasLayer(".", trainable=True)',
    ),
    "Keras 3 without this package, to be fine-tuned": (
        "import keras",
        """\
encoder = keras.layers.TFSMLayer(
    ".", call_endpoint="serve", call_training_endpoint="serve_train", dtype="float32"
)""",
    ),
    "Keras 3 with this package: verified, and moving statistics are not trained": (
        "import tfssl",
        'encoder = tfssl.load(".", trainable=True)',
    ),
}


def export(encoder, path, card=None, inputs=None):
    """Writes the encoder as a SavedModel folder that any consumer can call and fine-tune.

    encoder: a functional `keras.Model` that returns features [B, D], of any precision and trained
        under any strategy. What is written is its copy in float32 with plain batch norm, which
        takes images in [0, 1] even if the model itself takes 0..255 (see `encoders.get`).
    card: what the model card's front matter shall say, {key: JSON value}: task, paper, data, call,
        seed, results, licence, ...; versions and shapes are added.
    inputs: the golden batch, an array or {input name: array}; without it random numbers.

    The folder holds the SavedModel (`__call__(x, training)`, `serve`, `serve_train`, signatures
    `serving_default` -> {"features"} and `representation` -> {tap: tensor}), `encoder.keras`,
    `card.md`, `golden.npz` (inputs, features and taps) and `manifest.json` (sha256 of each file).
    It appears whole or not at all; an earlier artefact at `path` is replaced. Returns the path.
    Raises BadInput where `path` holds anything else or cannot be written, for a model that is not
    functional, and for one whose copy gives other features than itself.
    """
    path = pathlib.Path(path).absolute()
    _refuse_foreign(path)
    source = _with_taps(encoder)
    model = _in_float32(source)
    inputs = _golden_inputs(model) if inputs is None else inputs
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = pathlib.Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}-"))
    except OSError as error:
        raise BadInput(f"Cannot write to {path.parent}: {error.strerror}.") from error
    try:
        new = aside / "new"
        root, signatures = _artefact(model)
        tf.saved_model.save(root, str(new), signatures=signatures)
        _write(new, model, source, _kind(encoder), card or {}, inputs)
        _put(new, path, aside / "old")
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return path


def load(path, trainable=True):
    """The encoder of an exported folder or URL as a Keras 3 layer: x -> features [B, D] float32.

    Batch norm's moving statistics are not among its trainable weights. `.signatures` holds
    `serving_default` and `representation`. A URL is fetched through TensorFlow Hub, once. A .keras
    file gives the Keras model itself, which knows how it is built. Anybody else's SavedModel is
    called through its `serving_default`, whose only output is given as it is. Raises BadInput where
    there is no SavedModel, or where a file of ours is missing or differs from the manifest.
    """
    if not str(path).endswith(".keras"):
        return LoadedEncoder(path, trainable=trainable)
    if not pathlib.Path(path).is_file():
        raise BadInput(f"{path}: there is no such file; give an exported folder or its {KERAS}.")
    try:
        model = keras.models.load_model(path, compile=False)
    except (OSError, ValueError, TypeError) as error:  # Keras reads no Lambda, no unknown class
        reason = " ".join(str(error).split())[:200]
        raise BadInput(f"{path} cannot be opened by Keras ({reason}).") from error
    model.trainable = False
    if trainable:
        encoders.unfreeze(model)
    return model


@keras.saving.register_keras_serializable("tfssl")
class LoadedEncoder(keras.layers.Layer):
    """An exported encoder inside Keras 3: called, trained and saved with the model around it."""

    def __init__(self, path, trainable=True, name=None, **kwargs):
        kwargs["dtype"] = "float32"
        super().__init__(trainable=trainable, name=name, **kwargs)
        self.source = str(path)
        folder = _local(self.source)
        self.ours = is_ours(folder) or not (folder / "saved_model.pb").exists()
        if self.ours:
            verify(folder)
            self.loaded = known = tf.saved_model.load(str(folder))
        else:
            self.loaded = foreign(folder)
            known = self.loaded.signatures["serving_default"]
        self.signatures = self.loaded.signatures
        learnt = {id(variable) for variable in known.trainable_variables}
        for variable in known.variables:
            known = keras.Variable(
                initializer=variable,
                shape=variable.shape,
                dtype=variable.dtype,
                trainable=id(variable) in learnt,
                name=variable.name.split(":")[0].replace("/", "_"),
            )
            self._track_variable(known)
        self.built = True

    def call(self, inputs, training=False):
        if not self.ours:
            return served(self.signatures["serving_default"], inputs)
        # A layer that is not to be trained keeps its moving statistics too, as batch norm does.
        return self.loaded(inputs, training=bool(training) and self.trainable)

    def get_config(self):
        return {**super().get_config(), "path": self.source}


def foreign(folder):
    """Anybody's SavedModel with a `serving_default`; one that has none is the caller's to mend."""
    try:
        loaded = tf.saved_model.load(str(folder))
    except (OSError, ValueError, tf.errors.OpError) as fault:
        reason = str(fault).splitlines()[0][:200]
        raise BadInput(f"{folder} cannot be loaded as a SavedModel ({reason}).") from None
    if "serving_default" not in loaded.signatures:
        raise BadInput(
            f"{folder} has no signature serving_default, so nothing says what it takes: save it "
            "with one, or with tfssl.export."
        )
    return loaded


def served(signature, inputs):
    """A signature of keywords called with a tensor, or a dict of them by name.

    Floats come in the precision that the signature declares, 16 bits or 64.
    """
    declared = signature.structured_input_signature[1]
    if not isinstance(inputs, dict):
        if len(declared) != 1:
            raise BadInput(f"this encoder takes {', '.join(declared)}: give a dict of them")
        inputs = {name: inputs for name in declared}
    inputs = {name: tf.convert_to_tensor(value) for name, value in inputs.items()}
    for name, value in inputs.items():
        wanted = declared[name].dtype if name in declared else value.dtype
        if value.dtype.is_floating and wanted.is_floating:
            inputs[name] = tf.cast(value, wanted)
    outputs = signature(**inputs)
    return next(iter(outputs.values())) if len(outputs) == 1 else outputs


def read_card(folder):
    """The front matter of an exported encoder's card: {key: value}."""
    text = (pathlib.Path(folder) / CARD).read_text(encoding="utf-8")
    lines = text.removeprefix("---\n").split("\n---\n", 1)[0].splitlines()
    return {key: json.loads(value) for key, value in (line.split(": ", 1) for line in lines)}


def verify(folder):
    """Compares every file of an exported folder with its manifest; BadInput names what differs."""
    folder = pathlib.Path(folder)
    if not _is_artefact(folder):
        raise BadInput(f"{folder} is no exported encoder: there is no {MANIFEST} of ours in it.")
    files = json.loads((folder / MANIFEST).read_text()).get("files")
    files = files if isinstance(files, dict) else {}
    for name in ("saved_model.pb", *_read_by_tensorflow(folder)):
        if name not in files:
            raise BadInput(
                f"{folder / name} is not in {MANIFEST}, so nothing says that it was exported: "
                "fetch or export the encoder again."
            )
    for name, expected in files.items():
        if not (folder / name).is_file():
            raise BadInput(f"{folder / name} is missing: fetch or export the encoder again.")
        if _sha256(folder / name) != expected:
            raise BadInput(
                f"{folder / name} is not what was exported (its sha256 differs): fetch or export "
                "the encoder again."
            )


def _read_by_tensorflow(folder):
    """Files that loading reads; notes and a desktop's hidden files beside them do no harm."""
    found = [*folder.glob("saved_model.*"), *folder.glob("variables/*"), *folder.glob("assets/*")]
    shown = (file for file in found if not file.name.startswith("."))
    return sorted(file.relative_to(folder).as_posix() for file in shown)


def _local(path):
    if "://" not in path:
        return pathlib.Path(path)
    if path.startswith("file://"):
        return pathlib.Path(urllib.request.url2pathname(path.removeprefix("file://")))
    import tensorflow_hub as hub

    try:
        return pathlib.Path(hub.resolve(path))
    except Exception as fault:  # of urllib, of tarfile, of the file system
        reason = (str(fault).splitlines() or [type(fault).__name__])[0][:200]
        raise BadInput(f"{path} cannot be fetched: {reason}.") from None


def is_ours(folder):
    """Whether a folder is an export, damaged or not."""
    return any((folder / name).exists() for name in (CARD, MANIFEST))


def _is_artefact(folder):
    try:
        return json.loads((folder / MANIFEST).read_text())["format"] == FORMAT
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _refuse_foreign(path):
    if path.is_dir() and (_is_artefact(path) or not any(path.iterdir())):
        return
    if path.exists() or path.is_symlink():
        raise BadInput(
            f"{path} exists and is not an exported encoder, so it is not replaced: name another "
            "folder or move it away."
        )


def _with_taps(encoder):
    """The encoder as a functional model whose outputs are {"features": .., tap: ..}."""
    if not isinstance(encoder, keras.Model) or getattr(encoder, "inputs", None) is None:
        raise BadInput(
            f"{type(encoder).__name__} is no functional keras.Model, so it cannot be rebuilt for "
            "export: wrap it as keras.Model(inputs, encoder(inputs))."
        )
    encoder = encoders.get(encoder)
    outputs = {**encoders.taps_of(encoder), "features": encoder.output}
    return keras.Model(encoder.input, outputs, name=encoder.name)


def _in_float32(source):
    """A copy in float32 with plain batch norm."""
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")
    try:
        inputs = keras.tree.map_structure(_float32_input, source.input)
        copy = keras.models.clone_model(source, inputs, _plain_layer, recursive=True)
    finally:
        keras.config.set_dtype_policy(policy)
    copies.assign(copy.variables, source.variables)
    copies.with_adapted(copy, source)
    encoders.unfreeze(copy)
    return copy


def _float32_input(tensor):
    return keras.Input(
        batch_shape=tensor.shape, dtype=_in_float32_config(tensor.dtype), name=tensor.name
    )


def _plain_layer(layer):
    if isinstance(layer, keras.layers.Lambda):
        # Its function is here, live; out of a configuration Keras refuses to read one.
        return keras.layers.Lambda(
            layer.function,
            arguments=layer.arguments,
            name=layer.name,
            trainable=layer.trainable,
            dtype="float32",
        )
    kind = type(layer)
    try:
        config = _in_float32_config(layer.get_config())
        if isinstance(layer, keras.layers.BatchNormalization):
            kind, config["synchronized"] = keras.layers.BatchNormalization, False
        return kind.from_config(config)
    except (NotImplementedError, TypeError) as error:
        raise BadInput(
            f"Layer {layer.name} of class {kind.__name__} cannot be rebuilt for export: give the "
            "class a get_config that returns what its __init__ takes, **kwargs of Layer included."
        ) from error


def _in_float32_config(config):
    """The same configuration with every 16-bit type or policy replaced, at any depth."""
    if isinstance(config, dict):
        return {key: _in_float32_config(value) for key, value in config.items()}
    if isinstance(config, (list, tuple)):
        return type(config)(_in_float32_config(value) for value in config)
    if isinstance(config, str) and config in _SHORT:
        return "float32"
    return config


_SHORT = ("float16", "bfloat16", "mixed_float16", "mixed_bfloat16")


def _specs(model):
    """{argument: TensorSpec}; the only argument of a model with one input is `inputs`."""
    tensors = keras.tree.flatten(model.input)
    if len(tensors) == 1:
        names = ["inputs"]
    elif isinstance(model.input, dict):
        names = [name for name, _ in sorted(model.input.items())]  # the order of flatten
    else:
        names = [tensor.name for tensor in tensors]
    names = [re.sub(r"\W", "_", name) for name in names]
    # A Sequential that was built by its first call has that batch's size in its input.
    return {
        name: tf.TensorSpec(
            [None, *tensor.shape[1:]], keras.backend.standardize_dtype(tensor.dtype), name
        )
        for name, tensor in zip(names, tensors)
    }


def _artefact(model):
    """The object to save and its signatures: `model` seen as plain TensorFlow functions."""
    specs = _specs(model)

    def run(values, training):
        packed = keras.tree.pack_sequence_as(model.input, list(values))
        return model(packed, training=training)

    def named(function):
        """A tf.function whose arguments are the inputs' names; Keras and Serving call by them."""
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        parameters = [inspect.Parameter(name, kind) for name in specs]
        function.__signature__ = inspect.Signature(parameters)
        return tf.function(function, input_signature=list(specs.values()), autograph=False)

    def call(inputs, training=False):
        values = [inputs[name] for name in specs] if len(specs) > 1 else [inputs]
        return run(values, training)["features"]

    taps = [name for name in model.output if name != "features"] or ["features"]

    def tapped(*values):
        outputs = run(values, False)
        return {name: outputs[name] for name in taps}

    root = tf.__internal__.tracking.AutoTrackable()
    one = next(iter(specs.values()))
    argument = specs if len(specs) > 1 else tf.TensorSpec(one.shape, one.dtype, "inputs")
    root.__call__ = tf.function(call, autograph=False)
    for training in (False, True):
        root.__call__.get_concrete_function(argument, training=training)
    root.serve = named(lambda *values: run(values, False)["features"])
    root.serve_train = named(lambda *values: run(values, True)["features"])
    root.variables = [variable.value for variable in model.variables]
    root.trainable_variables = [variable.value for variable in model.trainable_variables]
    root.regularization_losses = []
    root.tables = _tables(model)
    default = named(lambda *values: {"features": run(values, False)["features"]})
    return root, {"serving_default": default, "representation": named(tapped)}


def _tables(model):
    """Look-up tables that layers hold: Keras' layers do not tell TensorFlow of them."""
    return [
        value
        for layer in model._flatten_layers()
        for value in vars(layer).values()
        if isinstance(value, tf.lookup.StaticHashTable)
    ]


def _golden_inputs(model):
    """A batch of random inputs of the model's own shapes and types, the same at every call."""
    random = np.random.default_rng(0)
    batch, side = {}, None
    for name, spec in _specs(model).items():
        free = {3: (GOLDEN_FRAMES,), 4: (), 5: (GOLDEN_FRAMES,)}.get(len(spec.shape), ())
        if len(spec.shape) > 2 and None in spec.shape[1:]:
            side = side or encoders.side_for(model)
        sides = {2: (GOLDEN_SAMPLES,)}.get(len(spec.shape), (*free, side, side))
        shape = [GOLDEN_BATCH]
        for size, chosen in zip(spec.shape[1:], (*sides, None)):
            shape.append(chosen if size is None else size)
        if spec.dtype == tf.string:
            words = np.array(["a red ball falls", "two cats, asleep", "it rolls"])
            batch[name] = np.resize(words, shape)
        elif spec.dtype.is_integer or spec.dtype.is_bool:
            batch[name] = random.integers(0, 2, shape).astype(spec.dtype.as_numpy_dtype)
        else:
            batch[name] = random.uniform(0, 1, shape).astype("float32")
    return batch["inputs"] if list(batch) == ["inputs"] else batch


def _kind(encoder):
    """The class to save as: what keeps its maps shall do so when it is exported once more."""
    return type(encoder) if getattr(encoder, "keeps_map", False) else keras.Model


def _write(folder, model, source, kind, card, inputs):
    """Everything beside the SavedModel; the manifest last, over all the rest."""
    specs = _specs(model)
    named = inputs if isinstance(inputs, dict) else {"inputs": inputs}
    if set(named) != set(specs):
        raise BadInput(f"inputs must hold {', '.join(specs)}, not {', '.join(map(str, named))}.")
    named = {name: np.asarray(named[name]) for name in specs}
    tensors = [tf.cast(v, s.dtype) for v, s in zip(named.values(), specs.values())]
    packed = keras.tree.pack_sequence_as(model.input, tensors)
    outputs = {name: np.asarray(value) for name, value in model(packed, training=False).items()}
    _refuse_other_features(outputs["features"], source(packed, training=False)["features"], source)
    np.savez_compressed(folder / GOLDEN, **named, **outputs)
    features = kind(model.input, model.output["features"], name=model.name)
    features.save(folder / KERAS)
    (folder / CARD).write_text(_card(model, card, specs), encoding="utf-8")
    names = sorted(f.relative_to(folder).as_posix() for f in folder.rglob("*") if f.is_file())
    files = {name: _sha256(folder / name) for name in names}
    text = json.dumps({"format": FORMAT, "files": files}, indent=1)
    (folder / MANIFEST).write_text(text + "\n")


def _refuse_other_features(features, original, source):
    """Raises BadInput where a copy's features are not those of its source, but for rounding."""
    original = keras.ops.convert_to_numpy(keras.ops.cast(original, "float32"))
    known = np.isfinite(original)  # sixteen bits may not hold what the copy does
    features, original = features[known], original[known]
    short = any(layer.compute_dtype in _SHORT for layer in source._flatten_layers())
    most = (APART_IN_16_BITS if short else APART) * np.linalg.norm(original)
    if not np.linalg.norm(features - original) <= most + 1e-6:
        raise BadInput(
            f"The copy of {source.name} for export gives other features than itself, so a layer of "
            "its own must hold numbers that are neither weights nor in its get_config: put them in "
            "one of these."
        )


def _card(model, card, specs):
    """Markdown with a YAML front matter, whose values are JSON (and so YAML)."""
    from tfssl import __version__

    taps = {k: [*v.shape[1:]] for k, v in model.output.items() if k != "features"}
    front = {
        **{key: None for key in _EXPECTED},
        "encoder": model.name,
        "inputs": {name: f"{spec.dtype.name} {[*spec.shape]}" for name, spec in specs.items()},
        "sample_rate": encoders.sample_rate(model),
        "features": model.output["features"].shape[-1],
        "taps": taps,
        "parameters": sum(int(np.prod(w.shape)) for w in model.trainable_weights),
        "versions": {
            "tfssl": __version__,
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
            "python": platform.python_version(),
        },
        **card,
    }
    if front["licence"] is None:
        front["licence"] = "not stated"
    lines = [
        f"{key}: {json.dumps(value, ensure_ascii=False, default=str)}"
        for key, value in front.items()
        if value is not None
    ]
    blocks = [_block(consumer, *code, list(specs)) for consumer, code in LOADING.items()]
    title = f"# {front.get('title') or model.name}"
    return "\n".join(["---", *lines, "---", "", title, "", _USE, *blocks])


def _block(consumer, imports, code, names):
    """One consumer's lines, which run as they stand inside the exported folder."""
    values = {name: f'golden["{name}"]' for name in names}
    inputs, call = values[names[0]], "features = encoder(inputs)"
    if len(names) > 1:
        inputs = "{" + ", ".join(f'"{name}": {value}' for name, value in values.items()) + "}"
        if "TFSMLayer" in code:
            call = f'features = encoder(inputs.pop("{names[0]}"), **inputs)'
    tensors = "{" + ", ".join(f'"{n}": tf.constant({v})' for n, v in values.items()) + "}"
    code = code.replace("{tensors}", tensors)
    lines = f'golden = np.load("golden.npz")\ninputs = {inputs}\n{code}\n{call}'
    return f"### {consumer}\n\n```python\nimport numpy as np\n{imports}\n\n{lines}\n```\n"


_EXPECTED = ("task", "paper", "data", "call", "seed", "results", "licence")
_USE = """\
A pretrained encoder: normalisation and front end are inside, so it takes what the front matter
lists under `inputs` (images and frames in [0, 1], waveforms in [-1, 1] at `sample_rate` Hz) and
returns features [batch, D]. `golden.npz` holds a batch with the features and taps it must give.

## Loading

Run from this folder, or put its path or URL in the place of `"."`.
"""


def _put(new, path, old):
    """Renames `new` to `path`; what was there goes to `old`, and comes back if that fails."""
    new.chmod(0o777 & ~UMASK)
    replaced = path.exists()
    if replaced:
        path.rename(old)
    try:
        new.rename(path)
    except BaseException:
        if replaced:
            old.rename(path)
        raise


def _sha256(file):
    digest = hashlib.sha256()
    with open(file, "rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()
