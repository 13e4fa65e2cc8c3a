"""What a method is to Keras: an encoder, an objective, and what follows a step."""

import math
import threading
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from tfssl.objectives import replicas
from tfssl.optimizers import skipping_together


class Method(keras.Model):
    """A self-supervised method: `call` makes outputs of views, `objective` a number of outputs.

    Everything that has weights is built in the constructor, so that a run can be restored before
    its first step. `fit` is Keras' own: this class only divides the loss by the number of replicas
    (Keras does that for its own losses alone), keeps the objective in float32, and calls
    `after_step` once the weights have moved.

    Args:
        encoder: the `keras.Model` that will be published: a batch of inputs -> features [B, D].
    """

    def __init__(self, encoder, **kwargs):
        # The layers cast for themselves; targets inside `x` keep the precision they came with.
        super().__init__(autocast=False, **kwargs)
        self.encoder = encoder
        self._step = threading.local()  # replicas trace in threads of their own
        self.built = True

    @property
    def step_outputs(self):
        """This replica's outputs of the step that is being taken, float32, for `after_step`."""
        return self._step.outputs

    def objective(self, x, y, outputs):
        """The loss: a scalar, the mean over the local batch; `outputs` arrive as float32."""
        raise NotImplementedError

    def after_step(self):
        """Moves what no gradient moves (teachers, queues, centres); `step_outputs` are at hand."""

    @property
    def published(self):
        """What is exported, by name; the first is the encoder that evaluation asks for."""
        return {"encoder": self.encoder}

    def shown(self, x, y):
        """Views and targets of a batch as a picture of the method is to draw them: as they are."""
        return x, y

    def compile(self, optimizer="rmsprop", **kwargs):
        """Keras' `compile`; in float16 all replicas skip a step in which one overflows."""
        super().compile(optimizer=optimizer, **kwargs)
        self.optimizer = skipping_together(self.optimizer)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        replicas.refuse_unequal(x, training)
        outputs = self._step.outputs = keras.tree.map_structure(_float32, y_pred)
        loss = self.objective(x, y, outputs)
        loss += sum(_float32(penalty) for penalty in self.losses)
        return loss / replicas.count()

    def make_train_function(self, force=False):
        """Keras' own; but a step that made slots while it is traced would be traced twice."""
        if self.optimizer is not None and not self.optimizer.built:
            with self.distribute_strategy.scope():
                self.optimizer.build(self.trainable_variables)
        return super().make_train_function(force)

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        """Nothing: all is built. Keras would take a batch, and the mean of it over the replicas."""

    def train_step(self, data):
        logs = super().train_step(data)
        self.after_step()
        return replicas.reducible(logs)

    def test_step(self, data):
        return replicas.reducible(super().test_step(data))


class Adversarial(Method):
    """Two players with an optimiser each: the encoder's side, and a critic against it.

    A subclass sets `self.critic` (a built layer) and defines `critique`, the critic's loss, beside
    `objective`, the other side's. Both are taken of one forward pass and both sides move at once;
    several critic steps or penalties override `train_step`, with `descend` at hand.
    """

    def critique(self, x, y, outputs):
        """The critic's loss: a scalar, the mean over the local batch."""
        raise NotImplementedError

    def compile(self, optimizer="adam", critic_optimizer="adam", **kwargs):
        """Keras' `compile` with a second optimiser, for the critic's weights alone."""
        super().compile(optimizer=optimizer, **kwargs)
        scaled = isinstance(self.optimizer, keras.optimizers.LossScaleOptimizer)
        self.critic_optimizer = skipping_together(keras.optimizers.get(critic_optimizer), scaled)
        self.critic_loss = keras.metrics.Mean(name="critic_loss")
        # Now: when training begins, the one optimiser would be built for all variables.
        with self.distribute_strategy.scope():
            self.optimizer.build(self.player_variables)
            self.critic_optimizer.build(self.critic.trainable_variables)

    @property
    def player_variables(self):
        """The trainable variables that are not the critic's."""
        theirs = {id(v) for v in self.critic.trainable_variables}
        return [v for v in self.trainable_variables if id(v) not in theirs]

    def train_step(self, data):
        with tf.GradientTape(persistent=True) as tape:
            loss, critic_loss = self._played(data, training=True)
            scaled = self.optimizer.scale_loss(loss)
            scaled_critic = self.critic_optimizer.scale_loss(critic_loss)
        self.descend(tape, scaled, self.player_variables, self.optimizer)
        self.descend(tape, scaled_critic, self.critic.trainable_variables, self.critic_optimizer)
        self.after_step()
        return replicas.reducible(self.get_metrics_result())

    def test_step(self, data):
        self._played(data, training=False)
        return replicas.reducible(self.get_metrics_result())

    def descend(self, tape, loss, variables, optimizer):
        """One step of `optimizer` on `variables`, down the (scaled) loss that `tape` saw."""
        optimizer.apply(tape.gradient(loss, variables), variables)

    def _played(self, data, training):
        """Both losses of one forward pass, a replica's share; noted undivided, by examples."""
        x, y, _ = keras.utils.unpack_x_y_sample_weight(data)
        loss = self.compute_loss(x, y, self(x, training=training), training=training)
        critic_loss = self.critique(x, y, self.step_outputs) / replicas.count()
        for mean, value in ((self._loss_tracker, loss), (self.critic_loss, critic_loss)):
            mean.update_state(value * replicas.count(), sample_weight=replicas.share(x))
        return loss, critic_loss


class MultiTask(Method):
    """Several methods on one encoder: `x` and `y` are dicts keyed by task, the loss a weighted sum.

    Args:
        tasks: dict of name -> `Method`, all holding the same encoder, none of them `Adversarial`.
        weights: dict of name -> float; a task that it does not name weighs 1.
    """

    def __init__(self, tasks, weights=None, **kwargs):
        super().__init__(next(iter(tasks.values())).encoder, **kwargs)
        if any(task.encoder is not self.encoder for task in tasks.values()):
            raise ValueError("All tasks of a MultiTask must hold the same encoder object.")
        if any(isinstance(task, Adversarial) for task in tasks.values()):
            raise ValueError("No task may be Adversarial: a critic needs an optimiser of its own.")
        self.tasks = dict(tasks)
        self.task_weights = {name: float((weights or {}).get(name, 1.0)) for name in tasks}
        self.task_losses = {name: keras.metrics.Mean(name=f"{name}_loss") for name in tasks}

    def call(self, x, training=False):
        return {name: task(x[name], training=training) for name, task in self.tasks.items()}

    def objective(self, x, y, outputs):
        total = 0.0
        for name, task in self.tasks.items():
            task._step.outputs = outputs[name]
            loss = task.objective(x[name], y[name] if y else None, outputs[name])
            self.task_losses[name].update_state(loss, sample_weight=replicas.share(x[name]))
            total += self.task_weights[name] * loss
        return total

    def after_step(self):
        for task in self.tasks.values():
            task.after_step()

    @property
    def metrics(self):
        """Keras leaves out the metrics of nested models; ours are listed again."""
        nested = [metric for task in self.tasks.values() for metric in task._metrics]
        return list({id(metric): metric for metric in [*super().metrics, *nested]}.values())


class Run(NamedTuple):
    """A method ready to train: `run.fit()` is `model.fit(dataset, epochs=..., callbacks=...)`."""

    model: keras.Model
    dataset: tf.data.Dataset
    epochs: float = 1
    callbacks: Any = ()

    def fit(self, callbacks=(), **kwargs):
        """Keras' `fit`; what is given here is added to, or stands before, the run's own."""
        kwargs = {"epochs": math.ceil(self.epochs), "shuffle": False, **kwargs}
        return self.model.fit(self.dataset, callbacks=[*self.callbacks, *callbacks], **kwargs)


def _float32(tensor):
    return tf.cast(tensor, tf.float32) if tf.as_dtype(tensor.dtype).is_floating else tensor
