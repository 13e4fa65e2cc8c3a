"""Training in two stages: one network whole, before another is trained on top of it."""

import keras
import tensorflow as tf

from tfssl.callbacks.probe import undisturbed


class TrainFirst(keras.callbacks.Callback):
    """Before the first epoch, trains one part of the model by a `fit` of its own.

    The model has an integer weight `ready`, 0 at first: a run that is resumed brings the trained
    part along and does not train it again. A run stopped in this stage begins it anew.

    Args:
        part: name of the model's attribute that holds it, a compiled `keras.Model`.
        dataset: of views, as `batching.train` gives it.
        steps: how many batches of it.
    """

    def __init__(self, part, dataset, steps):
        super().__init__()
        self.part, self.dataset, self.steps = part, dataset, steps

    def on_epoch_begin(self, epoch, logs=None):
        if int(tf.convert_to_tensor(self.model.ready)) or not self.steps:
            return
        verbose = (self.params or {}).get("verbose", 0)
        with undisturbed():
            getattr(self.model, self.part).fit(
                self.dataset.endless(), steps_per_epoch=self.steps, shuffle=False, verbose=verbose
            )
        self.model.ready.assign(1)
