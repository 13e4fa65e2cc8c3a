"""Layers whose weights have spectral norm 1, so that a critic cannot rise faster than its input.

Miyato et al., Spectral Normalization for Generative Adversarial Networks, ICLR 2018, section 2.1:
one power iteration a training step, and the gradient passes through the norm.
"""

import keras
import tensorflow as tf


def _direction(layer):
    """State: about the first right-singular vector of the kernel, seen as [inputs, outputs]."""
    return layer.add_weight(
        name="direction",
        shape=[layer.kernel.shape[-1]],
        dtype="float32",
        initializer=keras.initializers.RandomNormal(),
        trainable=False,
        autocast=False,
        # It follows from the weights alone, which are the same everywhere.
        aggregation="only_first_replica",
    )


def _kernel(layer, training):
    """The layer's kernel over its spectral norm; in training the estimate improves by a step."""
    kernel = tf.cast(tf.convert_to_tensor(layer.kernel), tf.float32)
    matrix = tf.reshape(kernel, [-1, kernel.shape[-1]])  # [I, O]
    right = tf.math.l2_normalize(tf.convert_to_tensor(layer.direction))[:, None]
    left = tf.math.l2_normalize(tf.matmul(tf.stop_gradient(matrix), right))  # [I, 1]
    if training:
        right = tf.matmul(tf.stop_gradient(matrix), left, transpose_a=True)
        right = tf.math.l2_normalize(right)  # [O, 1]
        layer.direction.assign(right[:, 0])
    norm = tf.reduce_sum(left * tf.matmul(matrix, right))
    return tf.cast(kernel / norm, layer.compute_dtype)


@keras.saving.register_keras_serializable("tfssl")
class SpectralConv2D(keras.layers.Conv2D):
    """Keras' convolution with its kernel, [height width inputs, outputs], over its norm."""

    def build(self, input_shape):
        super().build(input_shape)
        self.direction = _direction(self)

    def call(self, inputs, training=False):
        y = self.convolution_op(inputs, _kernel(self, training))
        return tf.nn.bias_add(y, self.bias) if self.use_bias else y


@keras.saving.register_keras_serializable("tfssl")
class SpectralDense(keras.layers.Dense):
    """Keras' linear layer (on [B, D]) with its kernel over its norm."""

    def build(self, input_shape):
        super().build(input_shape)
        self.direction = _direction(self)

    def call(self, inputs, training=False):
        y = tf.matmul(inputs, _kernel(self, training))
        return tf.nn.bias_add(y, self.bias) if self.use_bias else y
