"""The optimisers and schedules of papers that Keras lacks."""

import math

import keras
import tensorflow as tf
from keras import ops

from tfssl.objectives import replicas


@keras.saving.register_keras_serializable("tfssl")
class LARS(keras.optimizers.Optimizer):
    """Layer-wise adaptive rate scaling: every layer's step in proportion to its weights' norm.

    For weights w with gradient g: g <- g + weight_decay w; g <- g eta |w| / |g| (where both norms
    are positive); v <- momentum v + learning_rate g; w <- w - v. Biases and the scales of
    normalisation (weights called `bias` or of fewer than two dimensions) get neither decay nor
    adaptation, as in SimCLR and BYOL; their learning rate is `bias_rate` times that of the others.

    You, Gitman, Ginsburg, Large Batch Training of Convolutional Networks, 2017, algorithm 1; the
    form with the learning rate inside the momentum is SimCLR's.
    """

    def __init__(
        self,
        learning_rate=1.0,
        momentum=0.9,
        weight_decay=0.0,
        eta=0.001,
        nesterov=False,
        bias_rate=1.0,
        name="lars",
        **kwargs,
    ):
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        self.momentum = momentum
        self.decay = weight_decay  # `weight_decay` is Keras' own, decoupled decay
        self.eta = eta
        self.nesterov = nesterov
        self.bias_rate = bias_rate

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        self._velocities = [
            self.add_variable_from_reference(variable, name="velocity") for variable in variables
        ]

    def update_step(self, gradient, variable, learning_rate):
        learning_rate = ops.cast(learning_rate, variable.dtype)
        gradient = ops.cast(gradient, variable.dtype)
        index = self._get_variable_index(variable)
        velocity = self._velocities[index]
        if _is_kernel(self._trainable_variables[index]):
            gradient = gradient + self.decay * variable
            weight_norm, gradient_norm = (
                ops.sqrt(ops.sum(ops.square(v))) for v in (variable, gradient)
            )
            ratio = self.eta * weight_norm / ops.maximum(gradient_norm, 1e-30)
            usable = ops.logical_and(weight_norm > 0, gradient_norm > 0)
            gradient = gradient * ops.where(usable, ratio, 1.0)
        else:
            gradient = gradient * self.bias_rate
        step = self.momentum * velocity + learning_rate * gradient
        self.assign(velocity, step)
        if self.nesterov:
            step = self.momentum * step + learning_rate * gradient
        self.assign_sub(variable, step)

    def get_config(self):
        return super().get_config() | {
            "momentum": self.momentum,
            "weight_decay": self.decay,
            "eta": self.eta,
            "nesterov": self.nesterov,
            "bias_rate": self.bias_rate,
        }


@keras.saving.register_keras_serializable("tfssl")
class SGD(keras.optimizers.SGD):
    """SGD with momentum whose weight decay is part of the gradient, as in Caffe and Torch.

    g <- g + weight_decay w; v <- momentum v - learning_rate g; w <- w + v, for every weight, biases
    and scales included. Keras' own decay does not pass through the momentum, which gathers what
    passes: tenfold at 0.9.
    """

    def __init__(self, learning_rate=0.01, momentum=0.9, weight_decay=0.0, name="sgd", **kwargs):
        super().__init__(learning_rate, momentum, name=name, **kwargs)
        self.decay = weight_decay  # `weight_decay` is Keras' own

    def update_step(self, gradient, variable, learning_rate):
        gradient = ops.cast(gradient, variable.dtype) + self.decay * variable
        super().update_step(gradient, variable, learning_rate)

    def get_config(self):
        return super().get_config() | {"weight_decay": self.decay}


@keras.saving.register_keras_serializable("tfssl")
class AdamW(keras.optimizers.Adam):
    """AdamW whose decay may follow a schedule and spares biases and scales of normalisation.

    Loshchilov, Hutter, Decoupled Weight Decay Regularization, ICLR 2019, algorithm 2; without decay
    of biases and of weights of fewer than two dimensions, as vision transformers are trained.

    Args:
        learning_rate: a number or a schedule.
        decay: the same; it is multiplied by the learning rate.
        clip: most that the norm of one weight's gradient (of all replicas) may be.
    """

    def __init__(self, learning_rate=1e-3, decay=0.0, clip=math.inf, name="adamw", **kwargs):
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        self.decay, self.clip = decay, clip

    def update_step(self, gradient, variable, learning_rate):
        norm = ops.sqrt(ops.sum(ops.square(gradient)))
        gradient = gradient * ops.minimum(1.0, self.clip / ops.maximum(norm, 1e-30))
        if _is_kernel(self._trainable_variables[self._get_variable_index(variable)]):
            decay = self.decay(self.iterations) if callable(self.decay) else self.decay
            self.assign_sub(variable, variable * learning_rate * decay)
        super().update_step(gradient, variable, learning_rate)

    def get_config(self):
        decay = self.decay
        decay = keras.saving.serialize_keras_object(decay) if callable(decay) else decay
        return super().get_config() | {"decay": decay, "clip": self.clip}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        # Keras brings back a schedule of the learning rate, and knows of no other.
        if isinstance(config.get("decay"), dict):
            decay = keras.saving.deserialize_keras_object(config["decay"], custom_objects)
            config = config | {"decay": decay}
        return super().from_config(config, custom_objects=custom_objects)


@keras.saving.register_keras_serializable("tfssl")
class LossScaleOptimizer(keras.optimizers.LossScaleOptimizer):
    """Keras' own, but a step is skipped where the gradients of any replica overflow.

    Keras asks the first replica alone, and before gradients are summed.
    """

    def check_finite(self, grads):
        return replicas.everywhere(super().check_finite(grads))


@keras.saving.register_keras_serializable("tfssl")
class WarmupCosine(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up from 0 to `peak`, then half a cosine down to `end`.

    Loshchilov, Hutter, SGDR, ICLR 2017, eq. 5, without restarts; warm-up as in Goyal et al. 2017.

    Args:
        peak: highest learning rate.
        steps: steps in all, warm-up included.
        warmup: steps of warm-up.
        end: learning rate from step number `steps` on; the last one of a run, number `steps - 1`,
            is still a little higher.
    """

    def __init__(self, peak, steps, warmup=0, end=0.0):
        self.peak, self.steps, self.warmup, self.end = peak, steps, warmup, end

    def __call__(self, step):
        step = tf.cast(step, tf.float32)
        share = (step - self.warmup) / max(1.0, float(self.steps - self.warmup))
        cosine = 0.5 * (1.0 + tf.cos(math.pi * tf.clip_by_value(share, 0.0, 1.0)))
        rising = self.peak * step / max(1.0, float(self.warmup))
        return tf.where(step < self.warmup, rising, self.end + (self.peak - self.end) * cosine)

    def get_config(self):
        return {"peak": self.peak, "steps": self.steps, "warmup": self.warmup, "end": self.end}


def skipping_together(optimizer, scaled=False):
    """The optimiser as it is; but one that scales the loss as our `LossScaleOptimizer`.

    Args:
        scaled: whether it is to scale the loss even if it does not yet.
    """
    if isinstance(optimizer, LossScaleOptimizer):
        return optimizer
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        settings = optimizer.initial_scale, optimizer.dynamic_growth_steps, optimizer.name
        return LossScaleOptimizer(optimizer.inner_optimizer, *settings)
    return LossScaleOptimizer(optimizer) if scaled else optimizer


def _is_kernel(variable):
    """Whether it is neither a bias (attention's have two dimensions) nor a normalisation's."""
    return len(variable.shape) > 1 and variable.name != "bias"


def falling(peak, steps, at, factor=0.1):
    """`peak`, times `factor` once more from each of the shares `at` of all `steps` on.

    Args:
        at: rising numbers between 0 and 1.
    """
    return keras.optimizers.schedules.PiecewiseConstantDecay(
        [round(steps * share) for share in at], [peak * factor**i for i in range(len(at) + 1)]
    )


def warmup_cosine(peak, steps, epochs, warmup_epochs=0, end=0.0):
    """`WarmupCosine` over `epochs` (also a fraction) of `steps` each.

    The warm-up takes `warmup_epochs`, or a tenth of a run that is too short for as many.
    """
    total = round(steps * epochs)
    return WarmupCosine(peak, total, min(steps * warmup_epochs, total // 10), end)
