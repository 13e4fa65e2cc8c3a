"""How many examples of `world` a second two cores make, and how hard its labels are untrained.

Images are 64 px; clips are 16 frames of 64 px with sound, both eyes and all ground truth, read
through tf.data as training reads them. kNN (k = 20, temperature 0.07) of pixels, of a colour
histogram and of untrained convolutions is the floor that a pretext must rise above; chance is 1/8.

    python benchmarks/world.py

writes world.json beside this file.
"""

import itertools
import json
import os
import pathlib
import platform
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf

from tfssl.pipelines.sources import world

HERE = pathlib.Path(__file__).resolve().parent
ROUNDS = 3
CASES = {
    "images 32 px": {"keys": ("image", "label"), "size": 32, "n": 640},
    "images 64 px": {"keys": ("image", "label"), "size": 64, "n": 640},
    "images 224 px": {"keys": ("image", "label"), "size": 224, "n": 64},
    "clips 64 px, everything": {"keys": None, "size": 64, "n": 48},
    "clips 64 px, frames and sound": {"keys": ("frames", "audio"), "size": 64, "n": 48},
}
TRAIN, TEST = 3000, 1000


def rate(keys, size, n):
    """Examples a second through tf.data, the median of a few passes: by the clock, and as two cores
    to themselves would make them, from the processor time (on a busy machine they differ)."""
    rates, alone = [], []
    for seed in range(ROUNDS):
        data = world.load(keys=keys, size=size, n=n, seed=seed).batch(16)
        start, busy = time.perf_counter(), time.process_time()
        for _ in data:
            pass
        rates.append(n / (time.perf_counter() - start))
        alone.append(2 * n / (time.process_time() - busy))
    return {
        "by_the_clock": round(statistics.median(rates), 1),
        "per_two_core_seconds": round(statistics.median(alone), 1),
    }


def knn(train, train_labels, test, test_labels, k=20, temperature=0.07):
    train, test = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (train, test))
    likeness = test @ train.T
    nearest = np.argpartition(-likeness, k, 1)[:, :k]
    weights = np.exp(np.take_along_axis(likeness, nearest, 1) / temperature)
    votes = [(weights * (train_labels[nearest] == c)).sum(1) for c in range(len(world.CLASSES))]
    return float((np.argmax(votes, 0) == test_labels).mean())


def pixels(images):
    return images.reshape(len(images), -1).astype(np.float32) / 255 - 0.5


def histogram(images):
    bins = (images // 64).astype(np.int64) @ np.array([16, 4, 1])
    return np.sqrt(np.stack([np.bincount(b.ravel(), minlength=64) for b in bins]))


def untrained(images):
    """Four strided 3 x 3 convolutions with random weights and rectifiers, averaged over place."""
    random = np.random.default_rng(0)
    widths = (3, 64, 128, 256, 512)
    kernels = [
        (random.standard_normal((3, 3, a, b)) * np.sqrt(2 / (9 * a))).astype(np.float32)
        for a, b in itertools.pairwise(widths)
    ]
    out = []
    for part in np.array_split(images, max(1, len(images) // 250)):
        x = tf.constant(part, tf.float32) / 255 - 0.5
        for layer, kernel in enumerate(kernels):
            x = tf.nn.relu(tf.nn.conv2d(x, kernel, 2 if layer else 1, "SAME"))
        out.append(tf.reduce_mean(x, [1, 2]).numpy())
    return np.concatenate(out)


def floor(size):
    first = world.SPLITS["test"][0]
    train = world.render(range(TRAIN), ("image", "label"), size=size)
    test = world.render(range(first, first + TEST), ("image", "label"), size=size)
    return {
        f.__name__: knn(f(train["image"]), train["label"], f(test["image"]), test["label"])
        for f in (pixels, histogram, untrained)
    }


def main():
    world.render(range(2))
    result = {
        "machine": {"cores": os.cpu_count(), "load": os.getloadavg()[0], "cpu": platform.machine()},
        "examples_per_second": {name: rate(**case) for name, case in CASES.items()},
        "knn_top1_untrained": {f"{size} px": floor(size) for size in (32, 64)},
    }
    text = json.dumps(result, indent=2)
    (HERE / "world.json").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
