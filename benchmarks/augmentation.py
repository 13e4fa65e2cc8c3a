"""How many images a second two-view SimCLR augmentation makes, beside lightly's in the same run.

Images are decoded and in memory; both sides may use two cores. Ours goes through tf.data as
`batching.train` does it; lightly's SimCLRTransform runs in two worker processes. They take turns,
and medians and ratios are written to augmentation.json, of images a second by the clock and by the
processor time used, which says the same where other programs want the cores too:

    python benchmarks/augmentation.py --peer peers/bin/python

The peer's interpreter is a virtual environment with lightly, torch and torchvision. Without it
ours is measured alone.
"""

import argparse
import json
import os
import pathlib
import platform
import statistics
import subprocess
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf

from tfssl.pipelines.augment.image import contrastive_view

HERE = pathlib.Path(__file__).resolve().parent
# side: of the decoded image; strength of the colour jitter; SimCLR blurs at 224 px and not at 32.
CASES = {
    "32 px": {"side": 32, "size": 32, "blur": 0.0, "strength": 0.5, "batch": 256},
    "32 px with blur": {"side": 32, "size": 32, "blur": 0.5, "strength": 0.5, "batch": 256},
    "224 px": {"side": 256, "size": 224, "blur": 0.5, "strength": 1.0, "batch": 32},
}


def ours(side, size, blur, strength, batch):
    """An endless iterator over batches [batch, 2, size, size, 3]."""
    coarse = np.random.default_rng(0).integers(0, 256, [batch, 8, 8, 3])
    images = tf.image.resize(coarse, [side, side], "bicubic")
    images = tf.cast(tf.clip_by_value(images, 0, 255), tf.uint8)
    knobs = {
        "brightness": 0.8 * strength,
        "contrast": 0.8 * strength,
        "saturation": 0.8 * strength,
        "hue": 0.2 * strength,
        "blur": blur,
    }

    def views(number, images):
        seeds = tf.random.split(tf.stack([0, tf.cast(number, tf.int32)]), 2)
        both = [contrastive_view(images, size, seeds[k], **knobs) for k in range(2)]
        return tf.stack(both, axis=1)

    batches = tf.data.Dataset.from_tensors(images).repeat()
    batches = batches.enumerate().map(views, num_parallel_calls=tf.data.AUTOTUNE)
    return iter(batches.prefetch(2))


def measure(batches, batch, seconds):
    """Images a second over `seconds`, of the clock and of the processor."""
    for _ in range(4):  # what was prepared while nobody asked
        next(batches)
    count, start, used = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - start < seconds:
        next(batches)
        count += batch
    return count / (time.perf_counter() - start), count / (time.process_time() - used)


class Peer:
    """lightly in its own interpreter, measured on request."""

    def __init__(self, python):
        script = HERE / "peers" / "lightly_augmentation.py"
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        command = [python, script]
        self.process = subprocess.Popen(command, stderr=subprocess.DEVNULL, **pipes)
        while (line := self.process.stdout.readline()).strip() != "ready":
            if not line:
                raise SystemExit(f"{python} cannot run {script.name}: is lightly installed there?")

    def measure(self, case, seconds):
        print(json.dumps({**case, "seconds": seconds}), file=self.process.stdin, flush=True)
        return [float(rate) for rate in self.process.stdout.readline().split()]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--peer", default="peers/bin/python", help="interpreter that has lightly")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "augmentation.json")
    options = parser.parse_args()

    load = os.getloadavg()[0]
    cores = sorted(os.sched_getaffinity(0))[:2]
    os.sched_setaffinity(0, cores)
    peer = Peer(options.peer) if pathlib.Path(options.peer).exists() else None
    if peer is None:
        print(f"{options.peer} is not there: measuring ours alone")

    results = {}
    for name, case in CASES.items():
        rates = {"tfssl": [], "lightly": []}
        for _ in range(options.rounds):
            batches = ours(**case)  # a new one each time, so that none works while the peer does
            rates["tfssl"].append(measure(batches, case["batch"], options.seconds))
            del batches
            if peer:
                rates["lightly"].append(peer.measure(case, options.seconds))
        row = dict(case)
        for k, unit in enumerate(("per_second", "per_core_second")):
            values = {who: [rate[k] for rate in both] for who, both in rates.items() if both}
            row[unit] = {who: round(statistics.median(v), 1) for who, v in values.items()}
            row[f"{unit}_all"] = {who: [round(x, 1) for x in v] for who, v in values.items()}
            if peer:
                ratios = [a / b for a, b in zip(values["tfssl"], values["lightly"])]
                row[unit]["ratio"] = round(statistics.median(ratios), 2)
        results[name] = row
        print(name, row["per_second"], "per core second", row["per_core_second"], flush=True)

    report = {
        "what": "images a second, two SimCLR views each, decoded images in memory; medians",
        "cores": len(cores),
        "load_before": load,  # 0 is a machine of one's own
        "machine": platform.processor() or platform.machine(),
        "tensorflow": tf.__version__,
        "rounds": options.rounds,
        "seconds": options.seconds,
        "results": results,
    }
    options.out.write_text(json.dumps(report, indent=1) + "\n")
    if peer:
        peer.process.stdin.close()


if __name__ == "__main__":
    main()
