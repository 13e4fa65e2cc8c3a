"""The networks that stand on an encoder while it trains, and are thrown away after."""

import keras

from tfssl.layers.normalisation import BatchNormalization


def mlp(inputs, widths, normalise=True, normalise_last=False, bias_last=True, name="projector"):
    """A built multi-layer perceptron: Dense, batch norm, ReLU, ..., Dense.

    Args:
        inputs: width of what comes in.
        widths: width of each Dense layer; the last one is linear.
        normalise: batch norm after every hidden layer.
        normalise_last: batch norm after the last layer, without scale and shift.
        bias_last: whether the last layer has a bias; before batch norm it never has.
        name: the model's name.

    Returns:
        `keras.Sequential`, [B, inputs] -> [B, widths[-1]].
    """
    layers = [keras.Input([inputs])]
    for width in widths[:-1]:
        layers.append(keras.layers.Dense(width, use_bias=not normalise))
        if normalise:
            layers.append(BatchNormalization(synchronized=True))
        layers.append(keras.layers.ReLU())
    layers.append(keras.layers.Dense(widths[-1], use_bias=bias_last and not normalise_last))
    if normalise_last:
        # The epsilon of the codes that end so; with Keras' own, 1e-3, an untrained network's
        # outputs, which vary little, would stay well below the variance of 1 that this is for.
        last = BatchNormalization(epsilon=1e-5, synchronized=True, center=False, scale=False)
        layers.append(last)
    return keras.Sequential(layers, name=name)


def linear(inputs, outputs, name="classifier"):
    """A built linear layer [B, inputs] -> [B, outputs], as most pretext classifiers are."""
    return mlp(inputs, [outputs], name=name)
