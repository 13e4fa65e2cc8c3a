"""Pictures from noise, and the strided convolutions that tell them from photographs."""

import keras
import tensorflow as tf

from tfssl.layers.decoders import coarsest_side
from tfssl.layers.normalisation import BatchNormalization
from tfssl.layers.spectral import SpectralConv2D

STDDEV = 0.02  # of all first weights (Radford et al., ICLR 2016, section 4)


def normal():
    """Each layer needs its own: an initialiser gives the same numbers again."""
    return keras.initializers.RandomNormal(stddev=STDDEV)


def scaled():
    """Batch normalisation whose scales begin around 1, as in the released code of DCGAN."""
    return BatchNormalization(gamma_initializer=keras.initializers.RandomNormal(1.0, STDDEV))


def doubled(x, filters, kernel):
    """Maps of twice the side, by a transposed convolution."""
    return keras.layers.Conv2DTranspose(
        filters, kernel, 2, "same", use_bias=False, kernel_initializer=normal()
    )(x)


def generator(size, width, channels, kernel=4):
    """z [B, width] -> images [B, size, size, 3] in [-1, 1]: transposed convolutions, no pooling.

    Args:
        size: a multiple of 2 ** len(channels), by which the first map is smaller.
        width: of the noise.
        channels: of the maps from the finest to the coarsest; one doubling follows each.
        kernel: side of the kernels; one that two does not divide draws chequers.

    Batch norm everywhere but on the output. Source: Radford et al. 2016, section 3 and figure 1.
    Raises BadInput for any other `size`.
    """
    side = coarsest_side(size, len(channels))
    z = keras.Input([width])
    x = keras.layers.Dense(side * side * channels[-1], use_bias=False, kernel_initializer=normal())(
        z
    )
    x = keras.layers.ReLU()(scaled()(x))
    x = keras.layers.Reshape([side, side, channels[-1]])(x)
    for filters in channels[-2::-1]:
        x = keras.layers.ReLU()(scaled()(doubled(x, filters, kernel)))
    x = doubled(x, 3, kernel)
    return keras.Model(z, keras.layers.Activation("tanh")(x), name="generator")


def strided(x, channels, kernel=4, spectral=False):
    """Maps of half the side each, without pooling: convolution, batch norm, leaky ReLU (0.2).

    No batch norm on the first, which sees the image; with `spectral` norm (Miyato et al. 2018)
    none at all. The ReLUs are called c1, c2, ... .
    Source: Radford et al. 2016, section 3.
    """
    layer = SpectralConv2D if spectral else keras.layers.Conv2D
    for i, filters in enumerate(channels, 1):
        x = layer(filters, kernel, 2, "same", use_bias=False, kernel_initializer=normal())(x)
        x = scaled()(x) if i > 1 and not spectral else x
        x = keras.layers.LeakyReLU(0.2, name=f"c{i}")(x)
    return x


def unnoticed(model, x, training):
    """`model(x)`, after which its moving statistics are what they were before.

    A critic has batch statistics of its own for real and for made pictures; what it keeps for the
    time after training shall be those of the real ones alone.
    """
    state = [(weight, tf.identity(weight)) for weight in model.non_trainable_weights]
    y = model(x, training=training)
    for weight, before in state if training else ():
        weight.assign(before)
    return y
