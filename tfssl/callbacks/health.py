"""Is the encoder learning, or has it collapsed? A few numbers an epoch, and a plain warning."""

import math
import warnings

import keras
import numpy as np
import tensorflow as tf

from tfssl.callbacks.probe import due, encoder_of, undisturbed
from tfssl.errors import BadInput
from tfssl.evaluate import features, inputs
from tfssl.layers.kmeans import unit_rows

# Deviation (of unit features, times the root of D) below which all inputs look alike: cosine
# similarities of 0.9999 and more. Untrained networks with pooled outputs lie at 0.03 and above.
NEARLY_CONSTANT = 0.01
# RankMe below which one direction holds everything there is.
ONE_DIRECTION = 1.2
# Share of the chance loss above which nothing has been learned, and epochs before that is said.
AT_CHANCE = 0.98
PATIENCE = 3


class HealthWarning(UserWarning):
    """Training runs, but not as it should."""


class Health(keras.callbacks.Callback):
    """Watches the features of a fixed batch and the loss; warns once of each fault it finds.

    Adds to the logs, after every `every` epochs and after the last one (that was planned, or in
    which training was stopped):

    - `health_std`: deviation of the unit-length features, mean over dimensions times sqrt(D); near
      1 for well spread features, 0 for constant ones (Chen & He, CVPR 2021, section 4.1);
    - `health_rank`: effective rank, exp of the entropy of the normalised singular values of the
      features, between 1 and min(N, D) (RankMe, Garrido et al., ICML 2023, equation 1);
    - `health_uniformity`: log mean exp(-2 d^2) over pairs of different examples, unit features;
      0 if all are equal, lower is more uniform (Wang & Isola, ICML 2020, equation 2, t = 2);
    - `health_alignment`, with pairs of views only: mean d^2 between two views of one example, unit
      features (same, equation 1, alpha = 2);
    - `health_loss_to_chance`, where the loss of a method that has learned nothing is known; what
      decay of the weights adds to a loss is taken off first.

    It warns (`HealthWarning`, one sentence with what to try) of nearly constant features, of
    features along a single direction, of NaN features, of a loss that stays at chance, and of one
    that is exactly 0 in the first epoch. It stops training as soon as the loss is NaN or infinite.
    `messages` keeps what was said.

    Args:
        data: what is looked at. A batch of inputs [N, ...] as the encoder takes them (uint8 becomes
            [0, 1]); or pairs of views [N, 2, ...] (of more, the first two are used); or a dict of
            an example batch; or a dataset of any of these, or of (x, y), such as the one that is
            trained on.
        every: epochs between looks.
        examples: the most that are looked at.
        chance: the loss of blind guessing; by default the model's attribute `chance`, if it has
            one. 0 means unknown.
        of: which encoder, one of the names in the model's `published`; by default the first.
    """

    def __init__(self, data, every=1, examples=256, chance=0.0, of=""):
        super().__init__()
        self.data, self.every, self.examples, self.chance, self.of = (
            data,
            every,
            examples,
            chance,
            of,
        )
        self.messages = []
        self._said = set()
        self._views = ()

    def on_train_begin(self, logs=None):
        self._epoch = 0
        if not self._views:
            encoder = encoder_of(self.model, self.of)
            self._views = _views(self.data, encoder, self.examples)

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        self._check_loss(logs, f"epoch {self._epoch + 1}, batch {batch + 1}")

    def on_epoch_end(self, epoch, logs=None):
        logs = {} if logs is None else logs
        self._check_loss(logs, f"epoch {epoch + 1}")
        if "nan loss" in self._said:
            return  # Features of weights that are not numbers would only add to the noise.
        self._check_nothing(epoch, logs)
        chance = self.chance or float(getattr(self.model, "chance", 0.0) or 0.0)
        if chance and "loss" in logs:
            loss = float(np.mean(logs["loss"])) - _decay(self.model)
            self._check_chance(loss, chance, epoch, logs)
        if not due(self, epoch):
            return
        with undisturbed():
            self._look(logs)

    def _look(self, logs):
        call = features.inference(encoder_of(self.model, self.of))
        vectors = [np.asarray(call(view)["features"]) for view in self._views]
        if not all(np.isfinite(v).all() for v in vectors):
            self._say(
                "nan features",
                "The encoder gives NaN or infinite features: lower the learning rate, clip the "
                "gradients (optimiser's clipnorm), or train in float32.",
            )
            return
        measured = measure(*vectors)
        logs.update({f"health_{name}": value for name, value in measured.items()})
        if measured["std"] < NEARLY_CONSTANT:
            self._say(
                "constant",
                f"The features are nearly constant (std {measured['std']:.2g}, healthy is above "
                f"{NEARLY_CONSTANT:g}): the encoder has collapsed; lower the learning rate, use a "
                "larger batch or stronger augmentation, and see that targets carry no gradient.",
            )
        elif vectors[0].shape[1] > 2 and measured["rank"] < ONE_DIRECTION:
            self._say(
                "rank",
                f"The features lie along one direction (effective rank {measured['rank']:.2f} of "
                f"{vectors[0].shape[1]}): lower the learning rate, or give the objective's "
                "variance or negatives more weight.",
            )

    def _check_loss(self, logs, when):
        for name, loss in (logs or {}).items():
            if not name.endswith("loss") or np.isfinite(np.asarray(loss)).all():
                continue
            self.model.stop_training = True
            self._say(
                "nan loss",
                f"The {name.replace('_', ' ')} is {np.asarray(loss).ravel()[0]} ({when}), so "
                "training stops: lower the learning rate, train in float32, or look for NaN in the "
                "inputs.",
            )

    def _check_nothing(self, epoch, logs):
        for name, loss in logs.items():
            if epoch == 0 and name.endswith("loss") and not np.any(loss):
                self._say(
                    f"no {name}",
                    f"The {name.replace('_', ' ')} is exactly 0 in the whole first epoch: these "
                    "data ask nothing of the method (one example has no other in its batch, grey "
                    "pictures have no colours to guess, still clips no motion); take others, or "
                    "larger batches.",
                )

    def _check_chance(self, loss, chance, epoch, logs):
        logs["health_loss_to_chance"] = loss / chance
        if epoch + 1 >= PATIENCE and math.isfinite(loss) and loss > AT_CHANCE * chance:
            self._say(
                "chance",
                f"After {epoch + 1} epochs the loss ({loss:.3g}) is still that of guessing "
                f"({chance:.3g}): change the learning rate by a factor of 3 to 10, train longer, "
                "or check with `tfssl show` that the task can be solved from what is seen.",
            )

    def _say(self, kind, sentence):
        if kind not in self._said:
            self._said.add(kind)
            self.messages.append(sentence)
            warnings.warn(sentence, HealthWarning, stacklevel=3)


def measure(x, other=None):
    """`std`, `rank`, `uniformity` of features [N, D]; `alignment` with second views [N, D]."""
    x = np.asarray(x, np.float64)
    singular = np.linalg.svd(x, compute_uv=False)
    share = singular / max(singular.sum(), np.finfo(np.float64).tiny)
    share = share[share > 0]
    unit = _unit(x)
    result = {
        "std": float(unit.std(axis=0).mean() * math.sqrt(x.shape[1])),
        "rank": float(np.exp(-(share * np.log(share)).sum())),
    }
    if len(x) > 1:
        squared = np.maximum(2 - 2 * unit @ unit.T, 0)[np.triu_indices(len(x), 1)]
        result["uniformity"] = float(np.log(np.exp(-2 * squared).mean()))
    if other is not None:
        result["alignment"] = float(((unit - _unit(other)) ** 2).sum(axis=1).mean())
    return result


def _decay(model):
    """What the regularisers of a model's weights add to its loss as they stand."""
    held = [v for v in model.trainable_variables if getattr(v, "regularizer", None) is not None]
    return float(sum(v.regularizer(v) for v in held))


def _unit(x):
    return unit_rows(np.asarray(x, np.float64))


def _views(data, encoder, most):
    """(batch,) or (batch of first views, batch of second views), as the encoder takes them."""
    preview = getattr(data, "preview", None)
    if isinstance(data, tf.data.Dataset):
        data = _first(data, most)
    declared = inputs.input_specs(encoder)
    if isinstance(data, dict) and len(declared) > 1 and all(name in data for name in declared):
        return ({n: features.scaled(tf.convert_to_tensor(data[n][:most])) for n in declared},)
    shape, dtype = next(iter(declared.values()), ((), tf.float32))
    rank = len(shape)
    if isinstance(data, dict):
        ranks = {name: len(np.shape(value)) for name, value in data.items()}
        text = {name: tf.as_dtype(value.dtype) == tf.string for name, value in data.items()}
        fitting = list(data)
        if rank:
            fitting = [n for n in fitting if ranks[n] in (rank, rank + 1)]
            fitting = [n for n in fitting if text[n] == (dtype == tf.string)]
            # Pictures in parts, as lightness and colour, are no inputs of an encoder of pictures.
            fitting = [n for n in fitting if rank < 3 or np.shape(data[n])[-1] in (shape[-1], None)]
        preferred = [name for name in inputs.RANKS if name in fitting] or fitting
        if not preferred and preview:
            # The views are no inputs of the encoder, as with words that are numbers already.
            return _views(preview(most)[0], encoder, most)
        if not preferred:
            raise BadInput(
                f"nothing in the batch fits the encoder's {rank} input axes; it has: "
                f"{', '.join(f'{name} with {r}' for name, r in ranks.items())}; give Health the "
                "inputs themselves"
            )
        data = data[preferred[0]]
    data = features.scaled(tf.convert_to_tensor(data[:most]))
    if rank and data.shape.rank == rank + 1:
        return (data[:, 0], data[:, 1]) if data.shape[1] > 1 else (data[:, 0],)
    return (data,)


def _first(data, most):
    """The first `most` elements' inputs, joined where they are small batches."""
    # A training set counts its passes: a separate reading must not move that count.
    data = data.endless() if hasattr(data, "endless") else data
    parts, count = [], 0
    for element in data:
        x = element[0] if isinstance(element, tuple) else element
        parts.append(x)
        count += tf.nest.flatten(x)[0].shape[0]
        if count >= most:
            break
    if not parts:
        raise BadInput("Health was given an empty data set: give it a batch of inputs")
    return tf.nest.map_structure(lambda *a: tf.concat(a, axis=0), *parts)
