"""The data side: sources, augmentation, sampling and batching, with TensorFlow alone."""

import importlib

from tfssl.pipelines.errors import BadInput
from tfssl.pipelines.sources import load

_MODULES = ("augment", "batching", "fake", "ingest", "sample", "sources")
__all__ = ["BadInput", "load", *_MODULES]


def __getattr__(name):
    """Sub-modules are reachable without being imported by name."""
    if name in _MODULES:
        return importlib.import_module(f"tfssl.pipelines.{name}")
    raise AttributeError(f"module 'tfssl.pipelines' has no attribute {name!r}")
