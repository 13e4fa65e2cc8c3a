"""Networks that turn images, clips, sound or text into features: built by name, or anybody's."""

import difflib
import importlib
import inspect
import math
import re

import keras

from tfssl.errors import BadInput

_HOME = {
    "alexnet": "image",
    "conv4": "image",
    "resnet9": "image",
    "resnet18": "image",
    "resnet50": "image",
    "vit_mini": "vit",
    "vit_tiny": "vit",
    "vit_small": "vit",
    "cnn3d": "video",
    "r2plus1d18": "video",
    "audio_cnn": "audio",
    "text_bag": "text",
    "flownet_c": "dense",
    "flownet_s": "dense",
}
NAMES = tuple(_HOME)
_TAP = re.compile(r"(c|block_)\d+")
_NO_TAPS = (
    keras.layers.InputLayer,
    keras.layers.ZeroPadding1D,
    keras.layers.ZeroPadding2D,
    keras.layers.ZeroPadding3D,
)
_PROBE = 64  # any size will do that survives five halvings


def get(encoder, size=32, **options):
    """A new encoder by name, or anybody's `keras.Model`.

    `size` is the side of the images or frames in pixels (encoders of sound and text ignore it);
    `options` are the keywords of the encoder's own function. A model that returns features [B, D]
    passes through as it is (a built Sequential as the functional model of its layers); one that
    returns a map, a sequence or a dict of them (a backbone of keras.applications or keras-hub)
    gets a pooling layer behind it and shares its weights.
    Raises BadInput for a name, an option or an output that is of no use.
    """
    if isinstance(encoder, keras.layers.Layer):
        if options:
            raise BadInput(f"A model takes no options, but {', '.join(options)} was given.")
        return _pooled(encoder)
    if encoder not in NAMES:
        near = difflib.get_close_matches(str(encoder), NAMES, n=1, cutoff=0.4)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise BadInput(f"No encoder is called {encoder!r}.{hint} There are: {', '.join(NAMES)}.")
    build = getattr(importlib.import_module(f"tfssl.encoders.{_HOME[encoder]}"), encoder)
    known = inspect.signature(build).parameters
    for option in options:
        if option not in known:
            near = difflib.get_close_matches(option, known, n=1, cutoff=0.4)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            takes = ", ".join(known)
            raise BadInput(f"Encoder {encoder!r} has no option {option!r}.{hint} It takes {takes}.")
    if "size" in known:
        options["size"] = size
    return build(**options)


def kind(name):
    """What the encoder called `name` takes: image, video, audio, text, or dense (two frames)."""
    return {"vit": "image"}.get(_HOME[name], _HOME[name])


def tap_names(encoder):
    """Names of what `representation` returns, from input to output.

    Our own encoders name their taps (c1.., block_1..). Of a foreign functional model, the last
    layer at each resolution is taken, or every block where the resolution never changes. A
    SavedModel answers with the names of its `representation` signature. Else empty.
    """
    if hasattr(encoder, "signatures"):
        if "representation" not in encoder.signatures:  # somebody else's
            return []
        names = encoder.signatures["representation"].structured_outputs
        return sorted(names, key=lambda name: [int(n) for n in re.findall(r"\d+", name)] + [name])
    encoder = _functional(encoder)
    if not _is_functional(encoder):
        return []
    named = [layer.name for layer in encoder.layers if _TAP.fullmatch(layer.name)]
    return named or _foreign_taps(encoder)


def representation(encoder):
    """A callable batch -> {tap: features} in inference mode, of a Keras model or a SavedModel."""
    if hasattr(encoder, "signatures"):
        signature = encoder.signatures["representation"]

        def from_signature(batch):
            return signature(**batch) if isinstance(batch, dict) else signature(inputs=batch)

        return from_signature
    encoder = _functional(encoder)
    if not _is_functional(encoder):
        raise BadInput(
            f"{encoder.name} is no functional model, so its layers cannot be tapped: build it as "
            "keras.Model(inputs, outputs)."
        )
    taps = keras.Model(encoder.input, taps_of(encoder))
    return lambda batch: taps(batch, training=False)


def taps_of(encoder):
    """The symbolic outputs of a functional model's taps: {name: KerasTensor}."""
    return {name: encoder.get_layer(name).output for name in tap_names(encoder)}


def sample_rate(encoder):
    """Hz of the waveforms that an encoder of sound takes, by its front end; None if none says."""
    rates = (getattr(layer, "sample_rate", None) for layer in encoder._flatten_layers())
    return next((rate for rate in rates if rate), None)


def _functional(model):
    """A built `keras.Sequential` as the functional model of its layers; others as they are.

    Once it was called, a Sequential's `input` and `output` are that call's and not its layers'.
    """
    if isinstance(model, keras.Sequential) and _is_functional(model):
        return keras.Model(model.inputs[0], model.outputs[0], name=model.name)
    return model


def _is_functional(encoder):
    return isinstance(encoder, keras.Model) and getattr(encoder, "inputs", None) is not None


def _pooled(model):
    """The model itself where it returns [B, D], else with global pooling behind it."""
    model = _functional(model)
    if not _is_functional(model) or getattr(model, "keeps_map", False):
        return model
    out = model.output
    if isinstance(out, dict):
        known = ("pooled_output", "sequence_output", *list(out)[::-1])
        out = out[next(name for name in known if name in out)]
    elif isinstance(out, (list, tuple)):
        out = out[-1]
    if len(out.shape) == 2 and out is model.output:
        return model
    pools = {
        3: keras.layers.GlobalAveragePooling1D,
        4: keras.layers.GlobalAveragePooling2D,
        5: keras.layers.GlobalAveragePooling3D,
    }
    if len(out.shape) in pools:
        out = pools[len(out.shape)](name="pool")(out)
    elif len(out.shape) != 2:
        raise BadInput(f"{model.name} returns {tuple(out.shape)}; an encoder must return [B, D].")
    return keras.Model(model.input, out, name=model.name)


def _foreign_taps(model):
    """The last layer at each resolution below the input's, or the blocks of a transformer."""
    layers = {}
    for layer in model.layers:
        if isinstance(layer, _NO_TAPS) or len(layer._inbound_nodes) != 1:
            continue
        if isinstance(layer.output, keras.KerasTensor) and len(layer.output.shape) > 2:
            layers[layer.name] = layer
    if not layers:
        return []
    probe = keras.Model(model.input, {name: layer.output for name, layer in layers.items()})
    inputs = keras.tree.map_structure(_with_sizes, model.input)
    shapes = {name: spec.shape for name, spec in probe.compute_output_spec(inputs).items()}
    last = {}  # resolution: the last layer that has it
    for name, shape in shapes.items():
        last.pop(shape[1:-1], None)
        last[shape[1:-1]] = name
    for spec in keras.tree.flatten(inputs):
        last.pop(tuple(spec.shape[1:-1]), None)
    stages = []  # from output to input: what is smaller than its successor is a side branch
    for resolution, name in reversed(last.items()):
        if not stages or math.prod(resolution) > math.prod(shapes[stages[0]][1:-1]):
            stages.insert(0, name)
    if len(stages) > 1:
        return stages
    composite = [name for name, layer in layers.items() if len(layer._flatten_layers()) > 1]
    kinds = [type(layers[name]) for name in composite]
    return [n for n, kind in zip(composite, kinds) if kinds.count(kind) > 1] or stages


def _with_sizes(tensor):
    shape = [2 if i == 0 else size or _PROBE for i, size in enumerate(tensor.shape)]
    return keras.KerasTensor(shape, dtype=tensor.dtype)


def unfreeze(network):
    """Every layer trains, however deep inside; weights that never train (statistics) stay so."""
    # One by one: setting a flag that is True already reaches no layer inside.
    for layer in network._flatten_layers():
        layer.trainable = True
