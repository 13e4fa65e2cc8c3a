"""Residual networks that begin as if they had no branches, as large-batch recipes ask for."""

import keras

from tfssl import encoders


def get(encoder, size):
    """`encoders.get`; a network built here by its name starts with branches that add nothing."""
    network = encoders.get(encoder, size=size)
    if isinstance(encoder, str):
        silence(network)
    return network


def silence(network):
    """Sets to 0 the gain of the batch norm that ends each residual branch; returns these layers.

    Goyal et al., Accurate, Large Minibatch SGD, 2017, section 5.1. Branches that end in a ReLU
    (`resnet9`) are left alone: a ReLU that gives only zeros would never learn.
    """
    last = [
        source
        for join in network.layers
        if isinstance(join, keras.layers.Add)
        for source in (tensor._keras_history.operation for tensor in join.input)
        if isinstance(source, keras.layers.BatchNormalization) and "shortcut" not in source.name
    ]
    for layer in last:
        layer.gamma.assign(keras.ops.zeros_like(layer.gamma))
    return last
