"""Vision transformers (Dosovitskiy et al., ICLR 2021) in the form that MAE and DINO train."""

import keras
import numpy as np
from keras import ops

from tfssl.encoders.image import normalise
from tfssl.errors import BadInput

LARGEST_WITH_SMALL_PATCH = 96
TEMPERATURE = 10000.0  # of the positions' wavelengths, Vaswani et al. 2017, section 3.5


def positions(height, width, dim):
    """Fixed 2-D sin-cos positions (He et al., CVPR 2022, appendix A.1): float32 [N, dim].

    A quarter of `dim` each: sine and cosine of the column, sine and cosine of the row. Tokens run
    row by row. `dim` must be a multiple of 4.
    """
    quarter = dim // 4
    frequency = TEMPERATURE ** (-np.arange(quarter) / quarter)
    row, column = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    angles = [axis.reshape(-1, 1) * frequency for axis in (column, row)]  # 2 x [N, dim / 4]
    waves = [wave(angle) for angle in angles for wave in (np.sin, np.cos)]
    return np.concatenate(waves, axis=1).astype("float32")


@keras.saving.register_keras_serializable("tfssl")
class PatchEmbedding(keras.layers.Layer):
    """Images [B, H, W, C] -> one token a patch [B, N, dim], positions added, row by row."""

    def __init__(self, patch, dim, **kwargs):
        super().__init__(**kwargs)
        self.patch, self.dim = patch, dim

    def build(self, shape):
        # Glorot's law for the linear layer that this is. For a convolution it counts `dim` outputs
        # at every pixel, and patches would begin several times fainter than their positions.
        limit = (6 / (self.patch**2 * shape[-1] + self.dim)) ** 0.5
        self.project = keras.layers.Conv2D(
            self.dim,
            self.patch,
            self.patch,
            kernel_initializer=keras.initializers.RandomUniform(-limit, limit),
            dtype=self.dtype_policy,
            name="project",
        )
        self.project.build(shape)
        self.positions = positions(shape[1] // self.patch, shape[2] // self.patch, self.dim)

    def call(self, images):
        tokens = self.project(images)  # [B, H / patch, W / patch, dim]
        tokens = ops.reshape(tokens, (-1, *self.positions.shape))
        return tokens + ops.cast(self.positions, tokens.dtype)

    def get_config(self):
        return {**super().get_config(), "patch": self.patch, "dim": self.dim}


@keras.saving.register_keras_serializable("tfssl")
class ClassToken(keras.layers.Layer):
    """Puts one learnt token before the others: [B, N, D] -> [B, 1 + N, D]."""

    def build(self, shape):
        initial = keras.initializers.RandomNormal(stddev=0.02)
        self.token = self.add_weight(name="token", shape=(1, 1, shape[-1]), initializer=initial)

    def call(self, tokens):
        token = ops.cast(self.token, tokens.dtype)
        token = ops.broadcast_to(token, (ops.shape(tokens)[0], 1, tokens.shape[-1]))
        return ops.concatenate([token, tokens], axis=1)


@keras.saving.register_keras_serializable("tfssl")
def gelu(x):
    """x times the normal distribution function, in float32: in 16 bits CPUs take twice as long."""
    return ops.cast(keras.activations.gelu(ops.cast(x, "float32"), approximate=False), x.dtype)


@keras.saving.register_keras_serializable("tfssl")
class Block(keras.layers.Layer):
    """Pre-norm transformer block: attention and a two-layer perceptron, each added to its input.

    Tokens [B, N, dim] of any number -> the same shape. `hidden` is the perceptron's width.
    """

    def __init__(self, heads, hidden, **kwargs):
        super().__init__(**kwargs)
        self.heads, self.hidden = heads, hidden

    def build(self, shape):
        policy, dim = self.dtype_policy, shape[-1]
        self.norm_1 = keras.layers.LayerNormalization(epsilon=1e-6, dtype=policy, name="norm_1")
        self.attention = keras.layers.MultiHeadAttention(
            self.heads, dim // self.heads, dtype=policy, name="attention"
        )
        self.norm_2 = keras.layers.LayerNormalization(epsilon=1e-6, dtype=policy, name="norm_2")
        self.widen = keras.layers.Dense(self.hidden, gelu, dtype=policy, name="widen")
        self.narrow = keras.layers.Dense(dim, dtype=policy, name="narrow")
        self.norm_1.build(shape)
        self.attention.build(shape, shape)
        self.norm_2.build(shape)
        self.widen.build(shape)
        self.narrow.build((*shape[:-1], self.hidden))

    def call(self, tokens):
        x = self.norm_1(tokens)
        tokens = tokens + self.attention(x, x)
        return tokens + self.narrow(self.widen(self.norm_2(tokens)))

    def compute_output_shape(self, shape):
        return shape

    def get_config(self):
        return {**super().get_config(), "heads": self.heads, "hidden": self.hidden}


@keras.saving.register_keras_serializable("tfssl")
class MeanOfPatches(keras.layers.Layer):
    """The mean of all tokens but the class token: [B, 1 + N, D] -> [B, D]."""

    def call(self, tokens):
        return ops.mean(tokens[:, 1:], axis=1)


def _vit(name, size, patch, dim, depth, heads):
    patch = patch or (4 if size <= LARGEST_WITH_SMALL_PATCH else 16)
    if size % patch:
        raise BadInput(f"{name}: size {size} is not a multiple of the patch of {patch} pixels.")
    image = keras.Input((size, size, 3), name="image")
    x = normalise(image)
    x = PatchEmbedding(patch, dim, name="patch_embedding")(x)
    x = ClassToken(name="class_token")(x)
    for i in range(1, depth + 1):
        x = Block(heads, 4 * dim, name=f"block_{i}")(x)
    x = keras.layers.LayerNormalization(epsilon=1e-6, name="norm")(x)
    return keras.Model(image, MeanOfPatches(name="pool")(x), name=name)


def vit_mini(size=32, patch=None, dim=128, depth=4, heads=4):
    """A transformer for small images: [B, size, size, 3] in [0, 1] -> [B, 128], 0.8 M parameters.

    `patch`: side of a patch in pixels; without one 4 up to 96 px and 16 above. The features are
    the mean of the last patch tokens (not the class token). Taps block_1.. hold all tokens,
    [B, 1 + N, dim]. Raises BadInput where `patch` does not divide `size`.
    """
    return _vit("vit_mini", size, patch, dim, depth, heads)


def vit_tiny(size=224, patch=None):
    """ViT-Ti (Touvron et al., ICML 2021, table 1): width 192, 12 blocks, 3 heads; as `vit_mini`."""
    return _vit("vit_tiny", size, patch, 192, 12, 3)


def vit_small(size=224, patch=None):
    """ViT-S (Touvron et al., ICML 2021, table 1): width 384, 12 blocks, 6 heads; as `vit_mini`."""
    return _vit("vit_small", size, patch, 384, 12, 6)
