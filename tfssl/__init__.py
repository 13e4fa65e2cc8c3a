"""A self-supervised learning zoo for TensorFlow and Keras 3."""

import importlib
import pathlib

__version__ = "0.1.0"

# Installed, `zoo` and `pipelines` lie inside this package; in a bare clone they stand beside it.
if not (pathlib.Path(__file__).parent / "zoo").is_dir():
    __path__.append(str(pathlib.Path(__file__).parent.parent))

importlib.import_module("tfssl.known").tell_keras()

_HOME = {
    "Method": "method",
    "Adversarial": "method",
    "MultiTask": "method",
    "Run": "method",
    "export": "savedmodel",
    "load": "savedmodel",
}
_MODULES = (
    "callbacks",
    "encoders",
    "evaluate",
    "layers",
    "objectives",
    "optimizers",
    "pipelines",
    "report",
    "zoo",
)
__all__ = [*_HOME, *_MODULES]


def __getattr__(name):
    """Names are imported when first used, so that `import tfssl` costs next to nothing."""
    if name in _HOME:
        value = getattr(importlib.import_module(f"tfssl.{_HOME[name]}"), name)
        globals()[name] = value
        return value
    if name in _MODULES:
        return importlib.import_module(f"tfssl.{name}")
    raise AttributeError(f"module 'tfssl' has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *__all__})
