"""Convolutional encoders of single images: ResNets by depth, and AlexNet."""

import keras

from tfssl.layers.convolution import Conv3D
from tfssl.layers.normalisation import BatchNormalization

MEAN = (0.485, 0.456, 0.406)
"""Mean of ImageNet's training images per channel (RGB in [0, 1])."""
STD = (0.229, 0.224, 0.225)
"""Standard deviation of ImageNet's training images per channel (RGB in [0, 1])."""
LARGEST_WITH_SMALL_STEM = 64


def normalise(x):
    """Images or frames in [0, 1] -> about zero mean and unit variance, by ImageNet's constants."""
    variance = tuple(value**2 for value in STD)
    return keras.layers.Normalization(mean=MEAN, variance=variance, name="normalise")(x)


def convolve(x, filters, kernel, name, strides=1):
    """Convolution of images, or in 3-D of clips, without bias, and its batch normalisation."""
    layer = keras.layers.Conv2D if len(x.shape) == 4 else Conv3D
    x = layer(
        filters,
        kernel,
        strides,
        padding="same",
        use_bias=False,
        kernel_initializer="he_normal",
        name=f"{name}_conv",
    )(x)
    return BatchNormalization(name=f"{name}_norm")(x)


def relu(x, name):
    """A ReLU under the name of a tap, or of what it follows."""
    return keras.layers.ReLU(name=name)(x)


def _basic(x, filters, strides, name, out):
    shortcut = x
    if strides > 1 or x.shape[-1] != filters:
        shortcut = convolve(x, filters, 1, f"{name}_shortcut", strides)
    x = relu(convolve(x, filters, 3, f"{name}_1", strides), f"{name}_1_relu")
    x = convolve(x, filters, 3, f"{name}_2")
    return relu(keras.layers.Add(name=f"{name}_add")([x, shortcut]), out)


def _bottleneck(x, filters, strides, name, out):
    """The stride sits in the 3 x 3 convolution, as in every code since 2016, not in the paper."""
    shortcut = x
    if strides > 1 or x.shape[-1] != 4 * filters:
        shortcut = convolve(x, 4 * filters, 1, f"{name}_shortcut", strides)
    x = relu(convolve(x, filters, 1, f"{name}_1"), f"{name}_1_relu")
    x = relu(convolve(x, filters, 3, f"{name}_2", strides), f"{name}_2_relu")
    x = convolve(x, 4 * filters, 1, f"{name}_3")
    return relu(keras.layers.Add(name=f"{name}_add")([x, shortcut]), out)


def _resnet(name, block, blocks, size):
    image = keras.Input((None, None, 3), name="image")
    x = normalise(image)
    if size <= LARGEST_WITH_SMALL_STEM:
        x = relu(convolve(x, 64, 3, "stem"), "c1")
    else:
        x = relu(convolve(x, 64, 7, "stem", 2), "c1")
        x = keras.layers.MaxPooling2D(3, 2, padding="same", name="stem_pool")(x)
    for stage, repeats in enumerate(blocks, start=2):
        for i in range(1, repeats + 1):
            label = f"stage_{stage}_block_{i}"
            strides = 2 if stage > 2 and i == 1 else 1
            out = f"c{stage}" if i == repeats else f"{label}_relu"
            x = block(x, 64 * 2 ** (stage - 2), strides, label, out)
    pooled = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(image, pooled, name=name)


def resnet18(size=32):
    """ResNet-18 (He et al., CVPR 2016, table 1): images [B, H, W, 3] in [0, 1] -> [B, 512].

    `size`, the side of the images in pixels, chooses the stem: one 3 x 3 convolution up to 64 px
    (section 4.2, for CIFAR; 11.17 M parameters), above it 7 x 7 with stride 2 and max pooling.
    Any height and width may be fed to either. Taps: c1 the stem before pooling, c2..c5 the stages.
    """
    return _resnet("resnet18", _basic, (2, 2, 2, 2), size)


def resnet50(size=224):
    """ResNet-50 (He et al., CVPR 2016, table 1): images [B, H, W, 3] in [0, 1] -> [B, 2048].

    Stem by `size` and taps as `resnet18`.
    """
    return _resnet("resnet50", _bottleneck, (3, 4, 6, 3), size)


def conv4():
    """Four strided convolutions: images [B, H, W, 3] in [0, 1] -> [B, 256], 0.39 M parameters.

    For 32 to 64 px and a minute: some ten times as quick as `resnet9`, and not as good. Taps:
    c1..c4, each half the side of the one before, of 32, 64, 128 and 256 channels.
    """
    image = keras.Input((None, None, 3), name="image")
    x = normalise(image)
    for stage, filters in enumerate((32, 64, 128, 256), 1):
        x = relu(convolve(x, filters, 3, f"stage_{stage}", 2), f"c{stage}")
    pooled = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(image, pooled, name="conv4")


def resnet9(size=32):
    """A small ResNet of eight convolutions: images [B, H, W, 3] in [0, 1] -> [B, 256].

    The layout that won DAWNBench's CIFAR-10 training on one GPU (Page 2018, "How to train your
    ResNet"), at half its width: 1.6 M parameters. Above a `size` of 64 px the stem has a stride
    of 4. Taps: c1 the stem, c2 (a residual stage), c3, c4, c5 (a residual over c4).
    """
    image = keras.Input((None, None, 3), name="image")
    x = normalise(image)
    x = relu(convolve(x, 32, 3, "stem", 1 if size <= LARGEST_WITH_SMALL_STEM else 4), "c1")

    def down(x, filters, name, out):
        x = convolve(x, filters, 3, name)
        return relu(keras.layers.MaxPooling2D(2, name=f"{name}_pool")(x), out)

    x = down(x, 64, "stage_2", "stage_2_relu")
    x = _residual(x, "stage_2_residual", "c2")
    x = down(x, 128, "stage_3", "c3")
    x = down(x, 256, "stage_4", "c4")
    x = _residual(x, "stage_5_residual", "c5")
    pooled = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(image, pooled, name="resnet9")


def _residual(x, name, out):
    """x + f(x) where f ends in a ReLU and nothing follows the sum."""
    y = relu(convolve(x, x.shape[-1], 3, f"{name}_1"), f"{name}_1_relu")
    y = relu(convolve(y, x.shape[-1], 3, f"{name}_2"), f"{name}_2_relu")
    return keras.layers.Add(name=out)([x, y])


def alexnet(size=224):
    """AlexNet with batch norm: images [B, H, W, 3] in [0, 1] -> [B, 256], the convolutions alone.

    Krizhevsky et al. (NeurIPS 2012) without groups and local response normalisation, as every
    self-supervised paper since 2018 trains it. 3.7 M parameters above 64 px; up to there the first
    convolution is 5 x 5 with stride 1 in place of 11 x 11 with stride 4. Any height and width
    from 16 px may be fed. Taps: c1..c5, the maps after each convolution's ReLU, before its pooling.
    """
    image = keras.Input((None, None, 3), name="image")
    kernel, strides = (5, 1) if size <= LARGEST_WITH_SMALL_STEM else (11, 4)
    shapes = ((96, kernel, strides), (256, 5, 1), (384, 3, 1), (384, 3, 1), (256, 3, 1))
    x = normalise(image)
    for i, (filters, kernel, strides) in enumerate(shapes, start=1):
        x = relu(convolve(x, filters, kernel, f"stage_{i}", strides), f"c{i}")
        if i in (1, 2):
            x = keras.layers.MaxPooling2D(3, 2, padding="same", name=f"stage_{i}_pool")(x)
    pooled = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(image, pooled, name="alexnet")
