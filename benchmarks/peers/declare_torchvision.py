"""Lets torchvision built for CUDA be imported under a CPU torch, by declaring its operators.

Import it before torchvision. Transforms, networks and losses work; the operators are never called.
"""

import torch

# One tensor in, one out: wrong for most of them and enough, as only the names are looked up.
SCHEMA = "(Tensor input) -> Tensor"
POOLS = ("roi_align", "roi_pool", "ps_roi_align", "ps_roi_pool", "deform_conv2d")
NAMES = ("nms", "qnms", "qroi_align", *POOLS, *(f"_{name}_backward" for name in POOLS))

library = torch.library.Library("torchvision", "DEF")
for name in NAMES:
    library.define(name + SCHEMA)
