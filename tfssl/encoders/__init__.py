"""Networks that turn images, clips, sound or text into features: built by name, or anybody's."""

import difflib
import importlib
import inspect
import re

import keras

from tfssl.errors import BadInput

_HOME = {
    "alexnet": "image",
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
    "flownet_s": "dense",
}
NAMES = tuple(_HOME)
_TAP = re.compile(r"(c|conv|block_|stage_)\d+")


def get(encoder, size=32, **options):
    """A new encoder by name, or the given `keras.Model` as it is.

    `size` is the side of the images or frames in pixels (encoders of sound and text ignore it);
    `options` are the keywords of the encoder's own function. Raises BadInput for a name or an
    option that does not exist.
    """
    if isinstance(encoder, keras.Model):
        return encoder
    if encoder not in _HOME:
        near = difflib.get_close_matches(str(encoder), NAMES, n=1, cutoff=0.4)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise BadInput(f"No encoder is called {encoder!r}.{hint} There are: {', '.join(NAMES)}.")
    build = getattr(importlib.import_module(f"tfssl.encoders.{_HOME[encoder]}"), encoder)
    known = inspect.signature(build).parameters
    for option in options:
        if option not in known:
            takes = ", ".join(known) or "no options"
            raise BadInput(f"Encoder {encoder!r} has no option {option!r}; it takes {takes}.")
    if "size" in known:
        options["size"] = size
    return build(**options)


def tap_names(encoder):
    """Names of the layers whose outputs `representation` returns, from input to output."""
    return [layer.name for layer in encoder.layers if _TAP.fullmatch(layer.name)]


def representation(encoder):
    """A callable batch -> {tap: features}."""
    names = tap_names(encoder)
    taps = keras.Model(encoder.input, {name: encoder.get_layer(name).output for name in names})
    return lambda batch, training=False: taps(batch, training=training)
