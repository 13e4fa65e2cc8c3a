"""A pass over the data between epochs, for methods that cluster what they have learned so far."""

import inspect

import keras
import numpy as np

from tfssl.callbacks.probe import encoder_of, undisturbed
from tfssl.errors import BadInput
from tfssl.evaluate import features


class EmbedEachEpoch(keras.callbacks.Callback):
    """Before an epoch, embeds every training example and calls `model.reassign(features)`.

    Features are float32 [N, D], computed in inference mode; row i belongs to the example whose
    `index` is i. They depend on the weights and the data alone, and whether an epoch begins with a
    pass depends on its number alone, so a resumed run makes the same assignments.

    Args:
        examples: the training set: a dataset of example dicts, finite, in any order.
        every: epochs between passes; the first one is before epoch 0.
        batch_size: of the pass.
        key, size: how inputs are read, as in `tfssl.evaluate.features.extract`.
        of: which network embeds, one of the names in the model's `published` or an attribute of it;
            by default the encoder.

    Raises:
        BadInput: indices that are not 0..N-1, when a pass begins. A `reassign` with a second
            argument gets them (int64 [N], ascending) instead, whatever they are.
    """

    def __init__(self, examples, every=1, batch_size=256, key="", size=0, of=""):
        super().__init__()
        self.examples, self.every, self.of = examples, every, of
        self.reading = dict(batch_size=batch_size, key=key, size=size)

    def on_epoch_begin(self, epoch, logs=None):
        if epoch % self.every:
            return
        with undisturbed():
            embedded = features.extract(
                encoder_of(self.model, self.of), self.examples, **self.reading
            )
        vectors, index = embedded.features, embedded.index
        if index is None:
            index = np.arange(len(vectors))
        order = np.argsort(index, kind="stable")
        vectors, index = vectors[order], index[order]
        if len(inspect.signature(self.model.reassign).parameters) > 1:
            self.model.reassign(vectors, index)
            return
        if not np.array_equal(index, np.arange(len(index))):
            raise BadInput(
                f"clustering keeps one class per index, so it needs the indices 0 to "
                f"{len(index) - 1}, each once; these run from {index[0]} to {index[-1]}: number "
                "the examples of the training split from 0"
            )
        self.model.reassign(vectors)
