"""The data side: sources, augmentation, sampling and batching, with TensorFlow alone."""

from tfssl.pipelines.errors import BadInput
from tfssl.pipelines.sources import load

__all__ = ["BadInput", "load"]
