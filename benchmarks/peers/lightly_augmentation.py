"""Two-view augmentation by lightly's SimCLRTransform with two worker processes, on request.

Reads one JSON object a line from stdin (side, size, blur, strength, batch, seconds) and answers
each with one line: images a second and images a second of processor time, two views each.
"""

import json
import os
import sys
import time

import declare_torchvision  # noqa: F401  before torchvision
import numpy as np
import torch
from lightly.transforms import SimCLRTransform
from PIL import Image

WORKERS = 2


class Pictures(torch.utils.data.Dataset):
    """Decoded images in memory, over and over."""

    def __init__(self, side, transform):
        coarse = np.random.default_rng(0).integers(0, 256, [64, 8, 8, 3], dtype=np.uint8)
        self.images = [Image.fromarray(c).resize((side, side), Image.BICUBIC) for c in coarse]
        self.transform = transform

    def __len__(self):
        return 1 << 24

    def __getitem__(self, index):
        return self.transform(self.images[index % len(self.images)])


def processor_seconds(processes):
    """Processor time that the processes have used so far (Linux)."""
    ticks = 0
    for process in processes:
        with open(f"/proc/{process}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])  # user and system
    return ticks / os.sysconf("SC_CLK_TCK")


def measure(side, size, blur, strength, batch, seconds):
    """Images a second over `seconds`, of the clock and of the processor."""
    transform = SimCLRTransform(
        input_size=size, cj_strength=strength, gaussian_blur=blur, normalize=None
    )
    data = torch.utils.data.DataLoader(
        Pictures(side, transform), batch_size=batch, num_workers=WORKERS, drop_last=True
    )
    batches = iter(data)
    for _ in range(3 * WORKERS):  # what they had prepared before anybody asked
        next(batches)
    processes = [os.getpid(), *(worker.pid for worker in batches._workers)]
    count, start, used = 0, time.perf_counter(), processor_seconds(processes)
    while time.perf_counter() - start < seconds:
        count += len(next(batches)[0])
    spent = processor_seconds(processes) - used
    return count / (time.perf_counter() - start), count / spent


def main():
    torch.set_num_threads(1)
    print("ready", flush=True)
    for line in sys.stdin:
        print(*measure(**json.loads(line)), flush=True)


if __name__ == "__main__":
    main()
