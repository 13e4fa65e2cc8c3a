"""Measures encoders: one protocol a file, each f(encoder, train, test, ...) -> {name: number}."""

import functools
import importlib

# Functions first: a sub-module of the same name must not hide them.
from tfssl.evaluate.baselines import random, random_encoder, supervised
from tfssl.evaluate.detection import detection
from tfssl.evaluate.finetune import finetune
from tfssl.evaluate.knn import knn
from tfssl.evaluate.layers import layers
from tfssl.evaluate.layers_sgd import layers_sgd
from tfssl.evaluate.linear import linear, linear_sgd
from tfssl.evaluate.low_label import low_label
from tfssl.evaluate.retrieval import retrieval
from tfssl.evaluate.segmentation import segmentation
from tfssl.evaluate.svm import svm
from tfssl.evaluate.transfer import suite, transfer
from tfssl.evaluate.voc07 import voc07

finetune_1, finetune_10 = (functools.partial(finetune, labels=share) for share in (0.01, 0.1))

# What can be asked for by name; `random` is not here, as it runs the others on another encoder.
PROTOCOLS = {
    "knn": knn,
    "linear": linear,
    "linear_sgd": linear_sgd,
    "layers": layers,
    "layers_sgd": layers_sgd,
    "svm": svm,
    "low_label": low_label,
    "transfer": transfer,
    "finetune": finetune,
    "finetune_1": finetune_1,
    "finetune_10": finetune_10,
    "retrieval": retrieval,
    "supervised": supervised,
}
# Those whose examples hold more than one class: maps, boxes, several labels.
ANNOTATED = {"segmentation": segmentation, "detection": detection, "voc07": voc07}

__all__ = [
    "ANNOTATED",
    "PROTOCOLS",
    "detection",
    "finetune",
    "finetune_1",
    "finetune_10",
    "knn",
    "layers",
    "layers_sgd",
    "linear",
    "linear_sgd",
    "low_label",
    "random",
    "random_encoder",
    "retrieval",
    "segmentation",
    "suite",
    "supervised",
    "svm",
    "transfer",
    "voc07",
]


def __getattr__(name):
    """Sub-modules are reachable without being imported by name."""
    if name in ("bootstrap", "features", "metrics"):
        return importlib.import_module(f"tfssl.evaluate.{name}")
    raise AttributeError(f"module 'tfssl.evaluate' has no attribute {name!r}")
