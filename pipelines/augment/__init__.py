"""Batched, seeded augmentation: pure tensor functions that draw once for each example."""

import functools
import logging
import warnings


@functools.cache
def tensorflow_io():
    """The tensorflow_io module, for its pure-TensorFlow functions only.

    Its compiled operators belong to another TensorFlow and importing it says so at length; nothing
    here calls them, so that one complaint is silenced here and nowhere else.
    """
    logger = logging.getLogger("tensorflow")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import tensorflow_io
    finally:
        logger.setLevel(level)
    return tensorflow_io
