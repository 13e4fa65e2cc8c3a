"""Vision transformers on images of another size than they were built for, for multi-crop."""

import math

import keras
import numpy as np
import tensorflow as tf

from tfssl.errors import BadInput


class SmallGrid(keras.layers.Layer):
    """A ViT's patch embedding for images of another size: its weights, positions interpolated."""

    def __init__(self, embedding, size):
        super().__init__(name=embedding.name, dtype=embedding.dtype_policy)
        self.project, rows = embedding.project, size // embedding.patch
        side = math.isqrt(len(embedding.positions))
        grid = np.reshape(embedding.positions, [side, side, -1])
        grid = tf.image.resize(grid, [rows, rows], "bicubic").numpy()
        self.positions = grid.reshape(rows * rows, -1)

    def call(self, images):
        tokens = self.project(images)
        tokens = keras.ops.reshape(tokens, (-1, *self.positions.shape))
        return tokens + keras.ops.cast(self.positions, tokens.dtype)


def at_size(encoder, size):
    """The encoder, or for a ViT of another size one that shares all its weights."""
    if encoder.input_shape[1] in (None, size):
        return encoder
    if "patch_embedding" not in {layer.name for layer in encoder.layers}:
        raise BadInput(
            f"This encoder takes images of {encoder.input_shape[1]} px alone and small crops have "
            f"{size}: set local_crops=0, or take a convolutional network or a ViT of ours."
        )

    def shared(layer):
        return SmallGrid(layer, size) if layer.name == "patch_embedding" else layer

    image = keras.Input((size, size, 3))
    return keras.models.clone_model(encoder, input_tensors=image, clone_function=shared)
