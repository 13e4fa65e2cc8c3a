"""Convolutions of clips whose gradient is right in bfloat16, too."""

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable("tfssl")
class Conv3D(keras.layers.Conv3D):
    """Keras' own; in bfloat16 the padding of "same" is laid around the clip before.

    On processors with 16-bit units the gradient of a kernel is garbage where "same" lets it reach
    across a whole clip, as one of three does with two frames (TensorFlow 2.20 with oneDNN).
    """

    def convolution_op(self, inputs, kernel):
        plain = self.data_format == "channels_last" and set(self.dilation_rate) == {1}
        if self.compute_dtype != "bfloat16" or self.padding != "same" or not plain:
            return super().convolution_op(inputs, kernel)
        sides = zip(inputs.shape[1:-1], tf.unstack(tf.shape(inputs))[1:-1])
        around = [
            self._around(dynamic if static is None else static, reach, stride)
            for (static, dynamic), reach, stride in zip(sides, self.kernel_size, self.strides)
        ]
        inputs = tf.pad(inputs, [(0, 0), *around, (0, 0)])
        return tf.nn.conv3d(inputs, kernel, [1, *self.strides, 1], "VALID")

    def _around(self, size, reach, stride):
        """How much "same" puts before and behind an axis of `size`."""
        steps = -(-size // stride) - 1
        total = steps * stride + reach - size
        total = max(total, 0) if isinstance(total, int) else tf.maximum(total, 0)
        return total // 2, total - total // 2
