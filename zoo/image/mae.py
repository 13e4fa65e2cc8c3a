"""Fill in three quarters of an image from the patches that are left.

Paper: Masked Autoencoders Are Scalable Vision Learners
Authors: Kaiming He, Xinlei Chen, Saining Xie, Yanghao Li, Piotr Dollár, Ross Girshick
Venue: CVPR 2022
URL: https://arxiv.org/abs/2111.06377
Family: pretext-generative
"""

import functools

import keras
import tensorflow as tf

from tfssl import encoders
from tfssl.encoders.image import MEAN, STD
from tfssl.encoders.vit import Block, positions
from tfssl.errors import BadInput
from tfssl.method import Method, Run
from tfssl.objectives.reconstruction import masked_mse, normalise_patches
from tfssl.optimizers import warmup_cosine
from tfssl.pipelines import batching, load
from tfssl.pipelines.augment.image import random_resized_crop


def views(examples, seed, size=224, patch=16, area=(0.2, 1.0)):
    """One crop, and the noise that will choose its visible patches.

    Returns "image" float32 [B, size, size, 3] and "noise" float32 [B, N] in [0, 1), N patches of
    side `patch`. Only crop and flip (section 4.1, "data augmentation"); bilinear, there bicubic.
    """
    seeds = tf.random.split(seed, 2)
    image = random_resized_crop(examples["image"], size, seeds[0], area=area)
    noise = tf.random.stateless_uniform([tf.shape(image)[0], (size // patch) ** 2], seeds[1])
    return {"image": image, "noise": noise}


def patchify(images, patch):
    """[B, H, W, C] -> [B, N, patch patch C]: patches row by row; in one: row, column, channel."""
    _, height, width, channels = images.shape
    rows, columns = height // patch, width // patch
    x = tf.reshape(images, [-1, rows, patch, columns, patch, channels])
    return tf.reshape(
        tf.transpose(x, [0, 1, 3, 2, 4, 5]), [-1, rows * columns, patch**2 * channels]
    )


def unpatchify(patches, patch, rows):
    """The inverse of `patchify`, for an image of `rows` rows of patches."""
    columns = patches.shape[1] // rows
    x = tf.reshape(patches, [-1, rows, columns, patch, patch, patches.shape[2] // patch**2])
    x = tf.transpose(x, [0, 1, 3, 2, 4, 5])
    return tf.reshape(x, [-1, rows * patch, columns * patch, x.shape[-1]])


class Decoder(keras.layers.Layer):
    """Visible tokens [B, 1 + M, D] and their places -> the values of all N patches [B, N, values].

    Args:
        inputs: D.
        rows: rows and columns of patches; N = rows^2.
        values: of a patch.
    """

    def __init__(self, inputs, rows, values, width=512, depth=8, heads=16, **kwargs):
        super().__init__(**kwargs)
        self.embed, self.predict = keras.layers.Dense(width), keras.layers.Dense(values)
        self.blocks = [Block(heads, 4 * width) for _ in range(depth)]
        self.norm = keras.layers.LayerNormalization(epsilon=1e-6)
        self.positions = positions(rows, rows, width)
        self.mask_token = self.add_weight(
            name="mask_token",
            shape=[1, 1, width],
            initializer=keras.initializers.RandomNormal(stddev=0.02),
        )
        self.embed.build([None, None, inputs])
        for layer in (*self.blocks, self.norm, self.predict):
            layer.build([None, None, width])
        self.built = True

    def call(self, tokens, restore):
        """`restore` int32 [B, N]: where in (visible, hidden) each patch of the image stands."""
        x = self.embed(tokens)
        shape = tf.shape(x)
        hidden = tf.shape(restore)[1] - (shape[1] - 1)
        mask_token = tf.cast(tf.convert_to_tensor(self.mask_token), x.dtype)
        masks = tf.broadcast_to(mask_token, [shape[0], hidden, shape[2]])
        patches = tf.gather(tf.concat([x[:, 1:], masks], axis=1), restore, batch_dims=1)
        patches += tf.cast(self.positions, x.dtype)
        x = tf.concat([x[:, :1], patches], axis=1)  # the class token has no position
        for block in self.blocks:
            x = block(x)
        return self.predict(self.norm(x))[:, 1:]


class MAE(Method):
    """The encoder's own blocks on the visible patches only, and a light decoder for the pixels.

    `encoder` is a vision transformer with the layers of `tfssl.encoders.vit`.

    Args:
        ratio: share of the patches that is hidden.
        width, depth, heads: the decoder's.
    """

    chance = 1.0  # patches of unit variance, predicted by their mean

    def __init__(self, encoder, ratio=0.75, width=512, depth=8, heads=16):
        super().__init__(encoder)
        layer = encoder.get_layer
        self.patch = layer("patch_embedding").patch
        count = len(layer("patch_embedding").positions)  # N
        self.visible = int(count * (1 - ratio))
        self.blocks = [b for b in encoder.layers if b.name.startswith("block_")]
        inputs, rows = encoder.output_shape[-1], round(count**0.5)
        self.decoder = Decoder(inputs, rows, 3 * self.patch**2, width, depth, heads, name="decoder")

    def call(self, x, training=False):
        order = tf.argsort(x["noise"], axis=1)  # [B, N], the visible ones first
        restore = tf.argsort(order, axis=1)
        tokens = self.encode(x["image"], order[:, : self.visible], training)
        hidden = tf.cast(restore >= self.visible, tf.float32)
        return {"patches": self.decoder(tokens, restore), "hidden": hidden}

    def shown(self, x, y):
        """The picture, and what is left of it."""
        rank = tf.argsort(tf.argsort(x["noise"], axis=1), axis=1)
        seen = tf.cast(rank < self.visible, tf.float32)[..., None]
        left = patchify(x["image"], self.patch) * seen + 0.5 * (1 - seen)
        rows = x["image"].shape[1] // self.patch
        return {"image": x["image"], "visible": unpatchify(left, self.patch, rows)}, y

    def encode(self, images, keep, training=False):
        """Tokens [B, 1 + M, D]: of the class, and of the patches `keep` [B, M] alone."""
        layer = self.encoder.get_layer
        tokens = layer("patch_embedding")(layer("normalise")(images))  # with their positions
        tokens = layer("class_token")(tf.gather(tokens, keep, batch_dims=1))
        for block in self.blocks:
            tokens = block(tokens, training=training)
        return layer("norm")(tokens)

    def target(self, images):
        """Each patch [B, N, values] of the normalised image, standardised by itself."""
        return normalise_patches(patchify((images - MEAN) / STD, self.patch))

    def objective(self, x, y, outputs):
        return masked_mse(outputs["patches"], self.target(x["image"]), outputs["hidden"])


def recipe(
    encoder="vit_small",
    data="tfds:imagenet2012",
    size=224,
    batch_size=4096,
    epochs=800,
    learning_rate=2.4e-3,  # 1.5e-4 x batch / 256
    warmup_epochs=40,
    weight_decay=0.05,
    ratio=0.75,
    width=512,
    depth=8,
    heads=16,
    area=(0.2, 1.0),
    seed=0,
):
    """The paper's ImageNet run (appendix A.1, table 8), whose encoders are larger: ViT-B, L, H."""
    encoder = encoders.get(encoder, size=size)
    if not any(layer.name == "patch_embedding" for layer in encoder.layers):
        raise BadInput(
            f"mae needs a transformer, which can leave patches out, and {encoder.name} is none: "
            "take vit_mini, vit_tiny or vit_small."
        )
    if width % 4 or width % heads:
        raise BadInput(f"mae: width={width} must be a multiple of 4 and of heads={heads}.")
    patch = encoder.get_layer("patch_embedding").patch
    view = functools.partial(views, size=size, patch=patch, area=area)
    dataset = batching.train(load(data, keys=("image",)), view, batch_size, seed)
    model = MAE(encoder, ratio, width, depth, heads)
    rate = warmup_cosine(learning_rate, dataset.steps, epochs, warmup_epochs)
    optimizer = keras.optimizers.AdamW(rate, weight_decay, beta_1=0.9, beta_2=0.95)
    # No decay of biases and of the scales of layer norms (the released code).
    small = [v for v in model.trainable_variables if len(v.shape) < 2 or v.name == "bias"]
    optimizer.exclude_from_weight_decay(var_list=small)
    model.compile(optimizer)
    return Run(model, dataset, epochs)


SMALL = dict(
    encoder="vit_mini",
    data="digits",
    size=32,
    batch_size=64,  # more steps in the same minutes
    epochs=30,
    learning_rate=2e-3,
    width=96,
    depth=2,
    heads=4,
    area=(0.3, 1.0),
)
