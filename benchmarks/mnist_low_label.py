"""MNIST with 100 labels: what a few CPU minutes on the unlabelled digits are worth.

SimCLR on views that digits allow (turned, sheared, scaled, shifted and bent, never mirrored), then
a linear classifier on frozen features of ten labels a digit, ten draws; beside it the same network
untrained, and the pixels themselves. Results go to mnist_low_label.json:

    python benchmarks/mnist_low_label.py --data FOLDER/mnist.npz
"""

import argparse
import json
import pathlib
import time

import keras
import numpy as np
import tensorflow as tf

from tfssl import encoders, evaluate, pipelines
from tfssl.objectives.geometry import warp
from tfssl.pipelines import batching
from tfssl.zoo.image.simclr import SimCLR

HERE = pathlib.Path(__file__).resolve().parent
# Error with 100 labels and simulated transformations, as the lectures quote it.
MARK = 0.087


def views(examples, seed, turn=0.4, shear=0.3, scale=0.3, shift=0.12, bend=1.0):
    """Two views of every digit on axis 1, float32 [B, 2, H, W, 3].

    Each is one warp: turned by at most `turn` (radians), sheared, scaled in both directions by
    1 +- `scale`, moved by a share `shift` of the side, and bent by a smooth field of `bend` pixels.
    """
    images = tf.cast(examples["image"], tf.float32) / 255
    flows = [
        _flow(images, s, turn, shear, scale, shift, bend)
        for s in tf.unstack(tf.random.split(seed, 2))
    ]
    return tf.stack([warp(images, flow) for flow in flows], axis=1)


def _flow(images, seed, turn, shear, scale, shift, bend):
    count, side = tf.shape(images)[0], images.shape[1]
    first, second = tf.unstack(tf.random.split(seed, 2))
    draw = tf.random.stateless_uniform([count, 6, 1, 1], first, -1.0, 1.0)
    angle, slant = turn * draw[:, 0], shear * draw[:, 1]
    wide, high = tf.exp(scale * draw[:, 2]), tf.exp(scale * draw[:, 3])
    centred = tf.range(side, dtype=tf.float32) - (side - 1) / 2
    y, x = centred[None, :, None], centred[None, None, :]
    to_x = wide * (tf.cos(angle) * x - tf.sin(angle) * y + slant * y) + shift * side * draw[:, 4]
    to_y = high * (tf.sin(angle) * x + tf.cos(angle) * y) + shift * side * draw[:, 5]
    coarse = tf.random.stateless_normal([count, 5, 5, 2], second)
    bent = bend * tf.image.resize(coarse, [side, side], "bicubic")
    return tf.stack([to_x - x, to_y - y], axis=-1) + bent


def pretrained(data, name, epochs, batch_size, seed):
    """An encoder that has seen the digits of the training split, never their labels."""
    keras.utils.set_random_seed(seed)
    encoder = encoders.get(name, size=32)
    dataset = batching.train(
        pipelines.load(data, "train", keys=("image",)), views, batch_size, seed
    )
    model = SimCLR(encoder, temperature=0.2)
    rate = keras.optimizers.schedules.CosineDecay(2e-3, round(epochs * dataset.steps))
    model.compile(keras.optimizers.Adam(rate), jit_compile=False)
    model.fit(dataset, epochs=epochs, verbose=2)
    return encoder


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="mnist.npz, as keras.datasets keeps it")
    parser.add_argument("--encoder", default="conv4")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "mnist_low_label.json")
    options = parser.parse_args()
    started, processor = time.perf_counter(), time.process_time()
    encoder = pretrained(
        options.data, options.encoder, options.epochs, options.batch_size, options.seed
    )
    seconds = time.perf_counter() - started, time.process_time() - processor
    parts = [
        batching.evaluation(pipelines.load(options.data, split), 512) for split in ("train", "test")
    ]
    measured = {
        "simclr": encoder,
        "random": evaluate.random_encoder(encoder, options.seed),
        "pixels": lambda x: tf.reshape(x[..., 0], [-1, np.prod(x.shape[1:3])]),
    }
    results = {
        name: evaluate.low_label(network, *parts, draws=options.draws, seed=options.seed)
        for name, network in measured.items()
    }
    found = {
        "data": pathlib.Path(options.data).name,
        "mark": MARK,
        "encoder": options.encoder,
        "epochs": options.epochs,
        "batch_size": options.batch_size,
        "seed": options.seed,
        "seconds": round(seconds[0], 1),
        "processor_seconds": round(seconds[1], 1),
        "results": results,
    }
    options.out.write_text(json.dumps(found, indent=1) + "\n")
    for name, result in results.items():
        print(f"{name:8} error {result['error_mean']:.3%} +- {result['error_std']:.3%}")


if __name__ == "__main__":
    main()
