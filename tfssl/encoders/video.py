"""Encoders of clips: convolutions over time and space together, or one after the other."""

import keras
import tensorflow as tf

from tfssl.encoders.image import LARGEST_WITH_SMALL_STEM, convolve, normalise, relu


@keras.saving.register_keras_serializable("tfssl")
class FoldFrames(keras.layers.Layer):
    """Clips [B, T, H, W, C] -> frames [B T, H, W, C], for a network of single images."""

    def call(self, clips):
        shape = tf.shape(clips)
        return tf.reshape(clips, tf.concat([[shape[0] * shape[1]], shape[2:]], 0))

    def compute_output_spec(self, clips):
        return keras.KerasTensor((None, *clips.shape[2:]), dtype=self.compute_dtype)


@keras.saving.register_keras_serializable("tfssl")
class UnfoldFrames(keras.layers.Layer):
    """[maps [B T, h, w, c], the clips they are of [B, T, ...]] -> maps [B, T, h, w, c]."""

    def call(self, inputs):
        maps, clips = inputs
        shape = tf.concat([tf.shape(clips)[:2], tf.shape(maps)[1:]], 0)
        return tf.ensure_shape(tf.reshape(maps, shape), [None, clips.shape[1], *maps.shape[1:]])

    def compute_output_spec(self, inputs):
        maps, clips = inputs
        return keras.KerasTensor((*clips.shape[:2], *maps.shape[1:]), dtype=self.compute_dtype)


def cnn3d(width=32):
    """A small 3-D network: clips [B, T, H, W, 3] in [0, 1], any length and size -> [B, 8 * width].

    C3D's pattern (Tran et al., ICCV 2015) with batch normalisation: 3 x 3 x 3 convolutions, the
    first pooled in space only. 1.6 M parameters at the default `width` of the first layer. Taps
    c1..c5, before their pooling.
    """
    # TensorFlow has no 3-D max pooling of float16 on a CPU.
    short = keras.config.dtype_policy().compute_dtype == "float16"
    clip = keras.Input((None, None, None, 3), name="frames")
    x = normalise(clip)
    for i, factor in enumerate((1, 2, 4, 4, 8), start=1):
        x = relu(convolve(x, factor * width, 3, f"stage_{i}"), f"c{i}")
        if i < 4:
            pool = (1, 2, 2) if i == 1 else 2
            x = keras.layers.MaxPooling3D(
                pool, padding="same", dtype="float32" if short else None, name=f"stage_{i}_pool"
            )(x)
    pooled = keras.layers.GlobalAveragePooling3D(name="pool")(x)
    return keras.Model(clip, pooled, name="cnn3d")


def _factorised(x, filters, name, strides=1):
    """3 x 3 in space, ReLU, 3 in time: as many parameters as one 3 x 3 x 3 (section 3.5)."""
    inside = 27 * x.shape[-1] * filters // (9 * x.shape[-1] + 3 * filters)
    x = convolve(x, inside, (1, 3, 3), f"{name}_space", (1, strides, strides))
    x = relu(x, f"{name}_space_relu")
    return convolve(x, filters, (3, 1, 1), f"{name}_time", (strides, 1, 1))


def r2plus1d18(size=112):
    """R(2+1)D-18 (Tran et al., CVPR 2018, table 1): clips [B, T, H, W, 3] in [0, 1] -> [B, 512].

    33.2 M parameters. `size`, the side of the frames in pixels, chooses the stem: stride 2 in
    space above 64 px, as in the paper, and none up to there. Any length, height and width may be
    fed. Taps: c1 the stem, c2..c5 the stages.
    """
    clip = keras.Input((None, None, None, 3), name="frames")
    x = normalise(clip)
    strides = 1 if size <= LARGEST_WITH_SMALL_STEM else 2
    x = convolve(x, 45, (1, 7, 7), "stem_space", (1, strides, strides))
    x = relu(convolve(relu(x, "stem_space_relu"), 64, (3, 1, 1), "stem_time"), "c1")
    for stage in range(2, 6):
        for block in (1, 2):
            label, filters = f"stage_{stage}_block_{block}", 64 * 2 ** (stage - 2)
            strides = 2 if stage > 2 and block == 1 else 1
            shortcut = x
            if x.shape[-1] != filters:
                shortcut = convolve(x, filters, 1, f"{label}_shortcut", strides)
            y = relu(_factorised(x, filters, f"{label}_1", strides), f"{label}_1_relu")
            y = _factorised(y, filters, f"{label}_2")
            y = keras.layers.Add(name=f"{label}_add")([y, shortcut])
            x = relu(y, f"c{stage}" if block == 2 else f"{label}_relu")
    pooled = keras.layers.GlobalAveragePooling3D(name="pool")(x)
    return keras.Model(clip, pooled, name="r2plus1d18")
