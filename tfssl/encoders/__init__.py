"""Networks that turn images, clips, sound or text into features: built by name, or anybody's."""

import difflib
import importlib
import inspect
import math
import re

import keras
import numpy as np

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
BYTES = 255.0
"""The largest value of a pixel in a byte."""
_TAP = re.compile(r"(c|block_)\d+")
_NO_TAPS = (
    keras.layers.InputLayer,
    keras.layers.ZeroPadding1D,
    keras.layers.ZeroPadding2D,
    keras.layers.ZeroPadding3D,
)
# Any size will do that survives five halvings; convolutions without padding need the larger one.
_SIDES = (64, 96)
_SMALL_SCALE, _LARGE_STATISTIC = 0.1, 10  # of a first layer: what it takes is no [0, 1]


def get(encoder, size=32, **options):
    """A new encoder by name, or anybody's `keras.Model`.

    `size` is the side of the images or frames in pixels (encoders of sound and text ignore it);
    `options` are the keywords of the encoder's own function. A model that returns features [B, D]
    passes through as it is (a built Sequential as the functional model of its layers); one that
    returns a map, a sequence or a dict of them (a backbone of keras.applications or keras-hub)
    gets a pooling layer behind it and shares its weights. One that shows by its first layer that it
    takes 0..255 (MobileNetV3, EfficientNet and ConvNeXt of keras.applications do) gets a
    multiplication by 255 in front, so that it takes [0, 1] as all others do. A wrapper around one
    other model becomes one model of the layers of both, in which these are found.
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
    network = build(**options)
    if kind(encoder) == "image":
        try:
            network.compute_output_shape((1, size, size, 3))
        except ValueError:
            raise BadInput(
                f"Of the {size} px that it would be given here {encoder} leaves nothing: "
                "give larger pictures, or another encoder."
            ) from None
    return network


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
        return sorted(names, key=lambda name: ([int(n) for n in re.findall(r"\d+", name)], name))
    encoder = _functional(encoder)
    if not _is_functional(encoder):
        return []
    named = [layer.name for layer in encoder.layers if _TAP.fullmatch(layer.name)]
    return named or _foreign_taps(encoder)


def representation(encoder):
    """A callable batch -> {tap: features} in inference mode, of a Keras model or a SavedModel.

    Images and frames go in in [0, 1], as with `get`.
    """
    if hasattr(encoder, "signatures"):
        signature = encoder.signatures["representation"]

        def from_signature(batch):
            return signature(**batch) if isinstance(batch, dict) else signature(inputs=batch)

        return from_signature
    encoder = of_unit_range(encoder)
    if not _is_functional(encoder):
        raise BadInput(
            f"{encoder.name} is no functional model, so its layers cannot be tapped: build it as "
            "keras.Model(inputs, outputs)."
        )
    taps = keras.Model(encoder.input, taps_of(encoder))
    return lambda batch: taps(batch, training=False)


def taps_of(encoder):
    """The symbolic outputs of a functional model's taps: {name: KerasTensor}."""
    return outputs_of(_functional(encoder), tap_names(encoder))


def outputs_of(model, names):
    """The symbolic outputs of some layers within this model, which may share them with others."""
    calls = _calls(model)
    return {name: calls[name][0][0] for name in names}


def takes_bytes(model):
    """Whether the first layer of a functional model shows that it takes pixels of 0..255."""
    if isinstance(model, keras.Sequential):
        model = _functional(model)
    if not _is_functional(model) or not isinstance(model.input, keras.KerasTensor):
        return False
    pixels = model.input
    if len(pixels.shape) not in (4, 5) or "float" not in pixels.dtype:
        return False
    readers = (n for n in _nodes(model) if any(x is pixels for x in n.input_tensors))
    first = [node.operation for node in readers]
    layer = first[0] if len(first) == 1 else None
    if isinstance(layer, keras.Model):
        return takes_bytes(layer)
    if isinstance(layer, keras.layers.Rescaling):
        return bool(np.max(np.abs(layer.scale)) < _SMALL_SCALE)
    if isinstance(layer, keras.layers.Normalization) and not layer.invert:
        found = [keras.ops.convert_to_numpy(value) for value in (layer.mean, layer.variance)]
        return bool(np.max(np.abs(found)) > _LARGE_STATISTIC)
    return False


def of_unit_range(model):
    """The model itself, or one that shares its layers and takes [0, 1] where it takes 0..255."""
    model = _functional(model)
    if not takes_bytes(model):
        return model
    image = keras.Input(model.input.shape[1:], dtype=model.input.dtype, name=model.input.name)
    pixels = keras.layers.Rescaling(BYTES, name="to_bytes")(image)
    return _functional(keras.Model(image, model(pixels), name=model.name))


def side_for(model):
    """A side in pixels, small, at which a functional model can be run where it leaves it free.

    Raises BadInput where not even 96 is enough.
    """
    for side in _SIDES:
        try:
            model.compute_output_spec(with_sizes(model.input, side))
        except ValueError:  # nothing is left of a map
            continue
        return side
    raise BadInput(
        f"{model.name} cannot be run on images of {' or '.join(map(str, _SIDES))} pixels: build it "
        "with the input size that it is meant for."
    )


def with_sizes(inputs, side):
    """A batch of two of a model's inputs, with `side` for each axis that they leave free."""

    def filled(tensor):
        shape = [2, *(size or side for size in tensor.shape[1:])]
        return keras.KerasTensor(shape, dtype=tensor.dtype)

    return keras.tree.map_structure(filled, inputs)


def sample_rate(encoder):
    """Hz of the waveforms that an encoder of sound takes, by its front end; None if none says."""
    rates = (getattr(layer, "sample_rate", None) for layer in encoder._flatten_layers())
    return next((rate for rate in rates if rate), None)


def _functional(model):
    """A Sequential, or a wrapper around one other model, as the functional model of all layers.

    Others stay as they are. Once it was called, a Sequential's `input` and `output` are that call's
    and not its layers'.
    """
    if not _is_functional(model):
        return model
    if isinstance(model, keras.Sequential):
        model = keras.Model(model.inputs[0], model.outputs[0], name=model.name)
    inside = [layer for layer in model.layers if isinstance(layer, keras.Model)]
    if len(inside) != 1 or any(_TAP.fullmatch(layer.name) for layer in model.layers):
        return model
    inner, (call, *more) = inside[0], [n for n in _nodes(model) if n.operation is inside[0]]
    body = _functional(inner)
    own = isinstance(inner, keras.Sequential) or type(inner).call is type(model).call
    outer = {layer.name for layer in model.layers if layer is not inner}
    names = {layer.name for layer in body.layers if not isinstance(layer, keras.layers.InputLayer)}
    # A mode or mask that the call was given would be lost, and an input that it does not read.
    given = any(value is not None for value in call.arguments.kwargs.values())
    given = given or len(call.input_tensors) != len(inner.inputs or ())
    if not own or more or given or outer & names:
        return model

    def opened(layer, *args, **kwargs):
        return body._run_through_graph(args[0]) if layer is inner else layer(*args, **kwargs)

    outputs = model._run_through_graph(model.input, call_fn=opened)
    return keras.Model(model.input, outputs, name=model.name)


def _nodes(model):
    """The calls that a functional model is made of, from input to output."""
    depths = sorted(model._nodes_by_depth, reverse=True)
    return [node for depth in depths for node in model._nodes_by_depth[depth]]


def _calls(model):
    """{layer's name: [the outputs of a call within this model, ...]}, in the model's order."""
    calls = {layer.name: [] for layer in model.layers}
    for node in _nodes(model):
        if node.operation.name in calls:
            calls[node.operation.name].append(node.outputs)
    return calls


def _is_functional(encoder):
    return isinstance(encoder, keras.Model) and getattr(encoder, "inputs", None) is not None


def _pooled(model):
    """The model itself where it returns [B, D], else with global pooling behind it."""
    if not _is_functional(model) or getattr(model, "keeps_map", False):
        return model
    model = of_unit_range(model)
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
    layers, calls = {}, _calls(model)
    for layer in model.layers:
        if isinstance(layer, _NO_TAPS) or len(calls[layer.name]) != 1:
            continue
        (outputs,) = calls[layer.name]
        if len(outputs) == 1 and len(outputs[0].shape) > 2:
            layers[layer.name] = layer
    if not layers:
        return []
    probe = keras.Model(model.input, outputs_of(model, layers))
    try:
        inputs = with_sizes(model.input, side_for(probe))
    except BadInput:
        return []
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


def unfreeze(network):
    """Every layer trains, however deep inside; weights that never train (statistics) stay so."""
    # One by one: setting a flag that is True already reaches no layer inside.
    for layer in network._flatten_layers():
        layer.trainable = True
