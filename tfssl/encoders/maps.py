"""Encoders seen as maps: their trunk up to the deepest one, and halves of them for two inputs."""

import keras

from tfssl import encoders
from tfssl.errors import BadInput


def trunk(encoder, method):
    """The encoder up to its last tap: a `keras.Model`, images -> maps [B, h, w, C].

    It shares the encoder's layers. `method` is the name that speaks in BadInput, which is raised
    for an encoder without taps or whose last tap is no map (a transformer's tokens, say).
    """
    taps = list(encoders.taps_of(encoder).values())
    if not taps or len(taps[-1].shape) != 4:
        raise BadInput(f"{method} needs an encoder of maps; {encoder.name} ends in none.")
    return keras.Model(encoder.input, taps[-1])


def halved(encoder, mean, variance, name):
    """A new network of the encoder's plan with half the channels in every layer, for other inputs.

    Two of them side by side have the widths of `encoder`, and each layer the weights of a grouped
    convolution with two groups: half of the full one's. Nothing is taken but the plan; the weights
    are new.

    Args:
        encoder: a functional `keras.Model` of convolutions with any input normalisation.
        mean, variance: of each input channel, by which inputs are normalised in place of whatever
            the encoder did; their length is the number of input channels.
        name: of the network and of its input.

    Returns:
        `keras.Model`, [B, H, W, channels] -> dict of every tap by name, then "features" [B, D / 2].

    Raises:
        BadInput: if the encoder has no convolutions or cannot be built so.
    """
    taps, parts = encoders.taps_of(encoder), list(encoder._flatten_layers())
    if not taps or not any(hasattr(layer, "filters") for layer in parts):
        raise BadInput(f"{encoder.name} has no convolutions whose channels could be halved.")

    def half(layer):
        config = layer.get_config()
        if isinstance(layer, keras.layers.Normalization):
            config = {"mean": mean, "variance": variance, "name": layer.name}
        if isinstance(layer, keras.layers.Rescaling):
            config |= {"scale": 1.0, "offset": 0.0}
        for width in ("filters", "units"):
            if width in config:
                config[width] = max(1, config[width] // 2)
        return type(layer).from_config(config)

    source = keras.Model(encoder.input, {**taps, "features": encoder.output})
    x = image = keras.Input([*encoder.input_shape[1:-1], len(mean)], name=name)
    if not any(isinstance(layer, keras.layers.Normalization) for layer in parts):
        x = keras.layers.Normalization(mean=mean, variance=variance, name="normalise")(image)
    try:
        copy = keras.models.clone_model(source, x, half, recursive=True)
    except (ValueError, TypeError) as error:
        raise BadInput(f"{encoder.name} cannot be built with half its channels: {error}") from error
    # By layer, as tensors of the copy begin at x and not at the image.
    made = {key: t._keras_history.operation.name for key, t in source.output.items()}
    outputs = {key: copy.get_layer(layer).output for key, layer in made.items()}
    return keras.Model(image, outputs, name=name)


def side_by_side(halves, split, name):
    """One encoder of networks that share nothing: every tap, and the features, concatenated.

    Args:
        halves: dict of name -> network as `halved` gives it, all of one plan.
        split: layer, images [B, H, W, 3] -> dict of name -> that network's input.
        name: of the encoder.

    Returns:
        `keras.Model`, images -> features [B, D], with the halves' taps under their own names.
    """
    some = next(iter(halves.values()))
    image = keras.Input([*some.input_shape[1:-1], 3], name="image")
    parts = split(image)
    outputs = [half(parts[name]) for name, half in halves.items()]
    joined = {
        tap: keras.layers.Concatenate(name=tap)([out[tap] for out in outputs])
        for tap in some.output
    }
    features = joined.pop("features")
    kept = Features(name="pool")([features, *joined.values()])
    return keras.Model(image, kept, name=name)


@keras.saving.register_keras_serializable("tfssl")
class Features(keras.layers.Layer):
    """The first of its inputs; the others, taps that lead nowhere, only stay in the graph by it."""

    def call(self, tensors):
        return tensors[0]

    def compute_output_shape(self, shapes):
        return shapes[0]
