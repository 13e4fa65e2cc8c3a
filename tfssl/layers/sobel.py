"""Edges in place of colours: the fixed first layer of networks that would else sort by colour."""

import keras
import tensorflow as tf

from tfssl import copies
from tfssl.encoders.image import MEAN
from tfssl.errors import BadInput


@keras.saving.register_keras_serializable("tfssl")
class Sobel(keras.layers.Layer):
    """Images [B, H, W, 3] in [0, 1] -> the two slopes of their grey, and an empty third channel.

    Grey is the mean of the channels. The slopes are shifted to the means that our encoders
    subtract, so that a flat picture is zero behind their `normalise`; the third channel is that
    everywhere. The picture is mirrored at its border (the released codes pad with zeros, which
    draws a frame). Nothing here is learnt.

    Source: Caron et al., Deep Clustering, ECCV 2018, section 3.3 and the released kernels;
    Bojanowski & Joulin, ICML 2017, section 3.4.
    """

    def call(self, images):
        grey = tf.reduce_mean(images, axis=-1)
        padded = tf.pad(grey, [[0, 0], [1, 1], [1, 1]], "SYMMETRIC")
        across = padded[:, :, :-2] - padded[:, :, 2:]  # 1 0 -1
        down = padded[:, :-2] - padded[:, 2:]
        slopes = [
            across[:, :-2] + 2 * across[:, 1:-1] + across[:, 2:],
            down[:, :, :-2] + 2 * down[:, :, 1:-1] + down[:, :, 2:],
            tf.zeros_like(grey),
        ]
        return tf.stack(slopes, axis=-1) + tf.constant(MEAN, grey.dtype)

    def compute_output_shape(self, shape):
        return shape


def with_sobel(encoder):
    """A new encoder: `Sobel`, then a copy of a functional encoder with its weights and taps.

    Raises:
        BadInput: if the encoder is no functional model of one image.
    """
    if not isinstance(getattr(encoder, "input", None), keras.KerasTensor):
        raise BadInput(
            f"{encoder.name} is no functional model of one image, so nothing can be put before its "
            "first layer: build it as keras.Model(image, features)."
        )
    image = keras.Input(encoder.input_shape[1:], name="image")
    copy = keras.models.clone_model(encoder, input_tensors=Sobel(name="sobel")(image))
    copies.with_weights(copy, encoder)
    last = copy.get_layer(encoder.output._keras_history.operation.name)
    # The first call of each copied layer is the one behind the Sobel layer.
    return keras.Model(image, last.output, name=f"sobel_{encoder.name}")
