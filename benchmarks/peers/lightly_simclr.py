"""lightly's SimCLR example on a folder of class folders: images a second, augmentation and step.

Reads one JSON object a line from stdin (folder, encoder, batch, seconds, tuned) and answers each
with one line of JSON. `tuned` is what a careful user adds by hand on a CPU: channels-last and
bfloat16 autocast. As written it is neither.
"""

import contextlib
import json
import pathlib
import sys
import time

import declare_torchvision  # noqa: F401  before torchvision
import numpy as np
import torch
from lightly.loss import NTXentLoss
from lightly.models.modules import SimCLRProjectionHead
from lightly.transforms import SimCLRTransform
from PIL import Image
from torch import nn
from torchvision.models import resnet18

WARM_UP, WORKERS = 3, 2


class Folder(torch.utils.data.Dataset):
    """Decoded images in memory, each as two views of lightly's transform without blur."""

    def __init__(self, folder):
        paths = sorted(pathlib.Path(folder).rglob("*.jpg"))
        self.images = [Image.fromarray(np.asarray(Image.open(p).convert("RGB"))) for p in paths]
        self.transform = SimCLRTransform(input_size=32, gaussian_blur=0.0)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.transform(self.images[index])


def backbone():
    """ResNet-18 with the stem for 32 px: 3x3 convolution, no pooling."""
    network = resnet18()
    network.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
    network.maxpool = nn.Identity()
    network.fc = nn.Identity()
    return network


def measure(folder, batch, seconds, tuned):
    layout = torch.channels_last if tuned else torch.contiguous_format
    network = backbone().to(memory_format=layout)
    head = SimCLRProjectionHead(512, 512, 128)
    weights = [*network.parameters(), *head.parameters()]
    optimizer = torch.optim.SGD(weights, lr=0.06, momentum=0.9, weight_decay=5e-4)
    criterion = NTXentLoss(temperature=0.5)
    loader = torch.utils.data.DataLoader(
        Folder(folder), batch, shuffle=True, drop_last=True, num_workers=WORKERS
    )
    steps, start = 0, None
    while True:
        for a, b in loader:
            half = torch.autocast("cpu", torch.bfloat16) if tuned else contextlib.nullcontext()
            with half:
                z = head(network(torch.cat([a, b]).to(memory_format=layout)).flatten(1))
            loss = criterion(*z.float().chunk(2))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            steps += 1
            if steps == WARM_UP:
                start = time.perf_counter()
            elif start and time.perf_counter() - start > seconds:
                return (steps - WARM_UP) * batch / (time.perf_counter() - start)


for line in sys.stdin:
    print(json.dumps(measure(**json.loads(line))), flush=True)
