"""Our ResNets as Model Garden's backbones (official.vision, tf_keras), with equal features.

Model Garden's detectors are built of tf_keras models, which cannot hold a Keras 3 encoder; its
ResNet has the same layers as ours, so that the weights can be copied.
"""

import re

import numpy as np

from tfssl.errors import BadInput

# Repeats of the four stages, and whether their blocks are bottlenecks: Model Garden's number.
DEPTHS = {
    ((2, 2, 2, 2), False): 18,
    ((3, 4, 6, 3), False): 34,
    ((3, 4, 6, 3), True): 50,
    ((3, 4, 23, 3), True): 101,
    ((3, 8, 36, 3), True): 152,
}
_BLOCK = re.compile(r"stage_(\d)_block_(\d+)_1_conv")


def backbone(encoder, size=None):
    """A Model Garden ResNet with the weights of one of our ResNets.

    Args:
        encoder: a Keras model as `tfssl.encoders.get("resnet18")` or `("resnet50")` builds it, with
            either stem, or one of the other depths of the paper built alike.
        size: side, or (height, width), of its inputs; None: any.

    Returns:
        A `tf_keras.Model` from images [B, H, W, 3] that are normalised already by ImageNet's mean
        and deviation (`official.vision.ops.preprocess_ops.normalize_image`) to {level: map}, where
        a map of level l is 2^l times smaller than the picture. Stages c2..c5 are levels 2 to 5
        behind the large stem, and 0 to 3 behind the small one of pictures up to 64 px. It has
        `output_specs`, as Model Garden's decoders want. All batch norms are frozen: they keep the
        encoder's statistics, as is usual in detection, whose batches are small.

    Raises:
        BadInput: another kind of encoder.
    """
    import tensorflow as tf
    import tf_keras
    from official.vision.modeling.backbones import resnet

    blocks, depth = _blocks(encoder)
    stem = encoder.get_layer("stem_conv")
    small = tuple(stem.kernel_size) == (3, 3)
    kind = _small_stem(resnet.ResNet) if small else resnet.ResNet
    height, width = (size, size) if size is None or isinstance(size, int) else size
    norm = encoder.get_layer("stem_norm")
    model = kind(
        depth,
        tf_keras.layers.InputSpec(shape=[None, height, width, 3]),
        norm_momentum=norm.momentum,
        norm_epsilon=norm.epsilon,
        bn_trainable=False,
    )
    layers = [layer for layer in model.layers if layer.weights]
    _copy(stem, layers[0])
    _copy(norm, layers[1])
    for name, block in zip(blocks, layers[2:], strict=True):
        parts = (1, 2, 3) if hasattr(block, "_conv3") else (1, 2)
        for part in parts:
            _copy(encoder.get_layer(f"{name}_{part}_conv"), getattr(block, f"_conv{part}"))
            _copy(encoder.get_layer(f"{name}_{part}_norm"), getattr(block, f"_norm{part}"))
        if not hasattr(block, "_shortcut"):
            continue
        if _has(encoder, f"{name}_shortcut_conv"):
            _copy(encoder.get_layer(f"{name}_shortcut_conv"), block._shortcut)
            _copy(encoder.get_layer(f"{name}_shortcut_norm"), block._norm0)
        else:
            _pass(block._shortcut, block._norm0)
    down = 2 if small else 0
    maps = {str(int(level) - down): output for level, output in model.output.items()}
    result = tf_keras.Model(model.inputs, maps, name=f"resnet{depth}")
    result.output_specs = {level: tf.TensorShape(x.shape) for level, x in maps.items()}
    return result


def _has(encoder, name):
    return any(layer.name == name for layer in encoder.layers)


def _blocks(encoder):
    """(the blocks' names from input to output, Model Garden's number for the network)."""
    names = [layer.name for layer in getattr(encoder, "layers", ())]
    found = sorted(tuple(map(int, m.groups())) for m in map(_BLOCK.fullmatch, names) if m)
    repeats = tuple(sum(stage == s for stage, _ in found) for s in (2, 3, 4, 5))
    bottleneck = "stage_2_block_1_3_conv" in names
    if (repeats, bottleneck) not in DEPTHS:
        raise BadInput(
            f"detection needs one of our ResNets of the paper's depths (resnet18, resnet50), whose "
            f"weights Model Garden's backbone can take; {getattr(encoder, 'name', encoder)} is none"
        )
    return [f"stage_{s}_block_{i}" for s, i in found], DEPTHS[repeats, bottleneck]


def _copy(ours, theirs):
    """Weights of a convolution without bias, or of a batch norm."""
    if hasattr(ours, "kernel"):
        theirs.set_weights([ours.kernel.numpy()])
        return
    names = ("gamma", "beta", "moving_mean", "moving_variance")
    theirs.set_weights([getattr(ours, name).numpy() for name in names])


def _pass(convolution, norm):
    """Model Garden projects the first shortcut of every stage; where ours does not, let it pass."""
    channels = convolution.kernel.shape[-1]
    convolution.set_weights([np.eye(channels, dtype=np.float32)[None, None]])
    ones, zeros = np.ones(channels, np.float32), np.zeros(channels, np.float32)
    # With epsilon the variance is one.
    norm.set_weights([ones, zeros, zeros, ones - norm.epsilon])


def _small_stem(kind):
    """Model Garden's ResNet with one 3 x 3 convolution and no pooling in front."""
    import tf_keras

    class SmallStem(kind):
        def _stem(self, inputs):
            x = tf_keras.layers.Conv2D(64, 3, padding="same", use_bias=False)(inputs)
            x = tf_keras.layers.BatchNormalization(
                momentum=self._norm_momentum, epsilon=self._norm_epsilon, trainable=False
            )(x)
            return tf_keras.layers.ReLU()(x)

    return SmallStem
