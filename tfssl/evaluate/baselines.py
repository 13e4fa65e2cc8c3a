"""What any result must be held against: the same network untrained, and trained with labels."""

import keras

from tfssl import copies
from tfssl.errors import BadInput
from tfssl.evaluate.finetune import finetune, reproducible
from tfssl.evaluate.knn import knn
from tfssl.evaluate.linear import linear


def random_encoder(encoder, seed=0):
    """A Keras model of the same architecture with new weights from its initialisers.

    What layers learnt by `adapt` (input statistics, vocabularies) belongs to the architecture.

    Args:
        encoder: a Keras model (functional, sequential, or with a config it can be made from). What
            a SavedModel holds cannot be initialised again: build the architecture by name first.
        seed: same seed, same weights.

    Raises:
        BadInput: `encoder` is no Keras model, or one that cannot be built again.
    """
    if not isinstance(encoder, keras.Model):
        raise BadInput(
            "the random baseline needs the architecture as a Keras model, which a SavedModel does "
            "not hold: build it with tfssl.encoders.get(name, size=...) and give that"
        )
    try:
        with reproducible(seed):
            untrained = keras.models.clone_model(encoder)
    except (NotImplementedError, TypeError, ValueError) as error:
        raise BadInput(
            f"{type(encoder).__name__} cannot be built again from its config: give a functional "
            "model, or one with get_config and from_config"
        ) from error
    return copies.with_adapted(untrained, encoder)


def random(encoder, train, test, protocols=None, seed=0):
    """The protocols' results for the same architecture untrained.

    Args:
        encoder: a Keras model; only its architecture counts.
        train, test: labelled examples, in any form that `features.extract` reads.
        protocols: {name: f(encoder, train, test)}; None: kNN and the linear probe.
        seed: of the weights.

    Returns:
        {name: the protocol's result}.
    """
    untrained = random_encoder(encoder, seed)
    protocols = protocols or {"knn": knn, "linear": linear}
    return {name: protocol(untrained, train, test) for name, protocol in protocols.items()}


def supervised(encoder, train, test, labels=1.0, epochs=30, seed=0, **fitting):
    """The same architecture trained from scratch with labels, as `finetune` trains: every layer.

    Args:
        encoder: a Keras model; only its architecture counts.
        train, test: labelled examples, in any form that `features.extract` reads.
        labels: the share of the training labels that is used.
        epochs: the budget, in passes over that share.
        seed: of the weights and of all that `finetune` draws.
        **fitting: further keywords of `finetune`.

    Returns:
        as `finetune`.
    """
    untrained = random_encoder(encoder, seed)
    return finetune(untrained, train, test, labels=labels, epochs=epochs, seed=seed, **fitting)
