"""Training signals as pure functions: float32 tensors in, a scalar mean over the batch out."""

import importlib
import pathlib

__all__ = sorted(path.stem for path in pathlib.Path(__file__).parent.glob("[a-z]*.py"))


def __getattr__(name):
    """Modules are reachable without being imported by name."""
    if name in __all__:
        return importlib.import_module(f"tfssl.objectives.{name}")
    raise AttributeError(f"module 'tfssl.objectives' has no attribute {name!r}")
