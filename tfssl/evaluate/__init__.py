"""Measures encoders: one protocol a file, each f(encoder, train, test, ...) -> {name: number}."""

import importlib

# Functions first: a sub-module of the same name must not hide them.
from tfssl.evaluate.knn import knn
from tfssl.evaluate.linear import linear

__all__ = ["knn", "linear"]


def __getattr__(name):
    """Sub-modules are reachable without being imported by name."""
    if name in ("bootstrap", "features", "metrics"):
        return importlib.import_module(f"tfssl.evaluate.{name}")
    raise AttributeError(f"module 'tfssl.evaluate' has no attribute {name!r}")
