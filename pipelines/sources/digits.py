"""Real handwritten digits that need no download: scikit-learn's copy of the UCI test set."""

import functools

import numpy as np
import tensorflow as tf

from tfssl.pipelines.sources import records, splits

SIDE = 32
INK = 16  # the set's grey values count inked pixels of a 4x4 block: 0..16


@functools.cache
def arrays():
    """The whole set: images uint8 [1797, 32, 32, 3], labels int64 [1797].

    The originals are 8x8; they are brought to 32x32 by bilinear interpolation, white on black.
    Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI, 1998.
    """
    from sklearn.datasets import load_digits

    raw = load_digits()
    grey = raw.images[..., None].astype(np.float32) * (255 / INK)
    grey = tf.image.resize(grey, [SIDE, SIDE], method="bilinear").numpy()
    images = np.repeat(np.clip(np.rint(grey), 0, 255).astype(np.uint8), 3, axis=-1)
    return images, raw.target.astype(np.int64)


def load(split):
    """One split of the digits: `train` or `test`, cut 90/10 by hash of each digit's number."""
    images, labels = arrays()
    chosen = splits.cut([f"digits/{i}" for i in range(len(labels))], split)
    dataset = records.anywhere(
        {
            "image": images[chosen],
            "label": labels[chosen],
            "index": np.arange(len(chosen), dtype=np.int64),
        }
    )
    dataset.paths = [f"digits/{i}" for i in chosen]
    dataset.class_names = [str(i) for i in range(10)]
    return dataset
