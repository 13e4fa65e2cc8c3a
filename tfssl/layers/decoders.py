"""From features back to pixels: heads on maps, and decoders that double their side."""

import keras
import tensorflow as tf

from tfssl.errors import BadInput
from tfssl.layers.normalisation import BatchNormalization


class PixelHead(keras.layers.Layer):
    """Maps [B, h, w, C] -> a prediction at every place of another grid [B, H, W, outputs].

    One convolution, batch norm, ReLU, bilinear resizing, and a linear layer at each place.

    Args:
        inputs: C.
        width: of the convolution.
        outputs: values a place.
        kernel: of the convolution.
    """

    def __init__(self, inputs, width, outputs, kernel=3, **kwargs):
        super().__init__(**kwargs)
        self.body = keras.Sequential(
            [
                keras.Input([None, None, inputs]),
                keras.layers.Conv2D(width, kernel, padding="same", use_bias=False),
                BatchNormalization(),
                keras.layers.ReLU(),
            ],
            name="body",
        )
        self.predict = keras.layers.Dense(outputs, name="predict")
        self.predict.build([None, None, None, width])
        self.built = True

    def call(self, maps, sides, training=False):
        """`sides`: H and W."""
        return self.predict(tf.image.resize(self.body(maps, training=training), sides))


def coarsest_side(size, halvings):
    """Side of the maps that become images of `size` px when it is doubled `halvings` times.

    Raises:
        BadInput: if `size` cannot be halved that often.
    """
    step = 2**halvings
    if size < step or size % step:
        near = max(1, size // step) * step
        raise BadInput(
            f"size {size} cannot be halved {halvings} times: choose a multiple of {step} px, such "
            f"as {near} or {near + step}, or fewer channels."
        )
    return size // step


def decoder(inputs, size, channels, outputs=3, name="decoder"):
    """Up-convolutions (DCGAN): features [B, D] or maps [B, s, s, C] -> [B, size, size, outputs].

    Features become maps of s = size / 2 ** len(channels) px by a linear layer, maps of s px pass
    through a 1 x 1 convolution; then batch norm, ReLU and a 4 x 4 up-convolution of stride 2, as
    often as there are `channels`. The result is linear: a method adds its tanh or sigmoid.

    Args:
        inputs: (D,) or (s, s, C), the shape of an example.
        size: side of the result in pixels.
        channels: of the maps from the finest to the coarsest.

    Raises:
        BadInput: if `size` cannot be halved that often, or maps have another side.
    """
    side = coarsest_side(size, len(channels))
    if len(inputs) == 3 and inputs[0] != side:
        raise BadInput(f"the decoder begins at {side} px, its maps have {inputs[0]}.")
    x = features = keras.Input(inputs)
    if len(inputs) == 3:
        x = keras.layers.Conv2D(channels[-1], 1, use_bias=False)(x)
    else:
        x = keras.layers.Dense(side * side * channels[-1], use_bias=False)(x)
        x = keras.layers.Reshape([side, side, channels[-1]])(x)
    for filters in [*channels[-2::-1], None]:
        x = keras.layers.ReLU()(BatchNormalization()(x))
        last = filters is None
        x = keras.layers.Conv2DTranspose(filters or outputs, 4, 2, "same", use_bias=last)(x)
    return keras.Model(features, x, name=name)
