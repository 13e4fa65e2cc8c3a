"""One .npz file of arrays, in the layout of keras.datasets: x_train, y_train, x_test, y_test."""

import zipfile
import zlib

import numpy as np

from tfssl.pipelines.errors import BadInput
from tfssl.pipelines.sources import records, splits

PARTS = ("train", "test", "val")


def load(path, split):
    """One split of a file with `x_train` [N, H, W] or [N, H, W, C] uint8, and `y_train` [N].

    Grey pictures get three equal channels. `x_test` (and `x_val`) are the test split; a file with
    `x_train` alone is cut 90/10 by the hash of each example's number.

    Raises:
        BadInput: no such arrays, or arrays that are no pictures.
    """
    try:
        with np.load(path, allow_pickle=False) as held:
            arrays = {name: held[name] for name in held.files if name[:2] in ("x_", "y_")}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as fault:
        raise BadInput(f"{path} cannot be read as a NumPy archive ({str(fault)[:120]}).") from None
    # Of length 0, or no arrays at all but numbers, they are as good as missing.
    has = [part for part in PARTS if f"x_{part}" in arrays and arrays[f"x_{part}"].shape[:1] > (0,)]
    if "train" not in has:
        raise BadInput(
            f"{path} needs x_train (and y_train, x_test, y_test), as keras.datasets has."
        )
    if split == splits.ALL:
        wanted = [(part, None) for part in has]
    elif len(has) > 1:
        wanted = [(splits.choose(set(has), split, path), None)]
    else:
        names = [f"train/{i}" for i in range(len(arrays["x_train"]))]
        wanted = [("train", splits.cut(names, split, path))]
    parts = [columns(arrays, part, chosen, path) for part, chosen in wanted]
    if len({part["image"].shape[1:] for part in parts}) > 1:
        raise BadInput(f"{path}: its splits hold pictures of several sizes: ask for one, @train.")
    shared = records.shared_keys(parts)
    joined = {key: np.concatenate([part[key] for part in parts]) for key in shared}
    paths = joined.pop("path").tolist()
    dataset = records.anywhere({**joined, "index": np.arange(len(paths), dtype=np.int64)})
    dataset.paths = paths
    dataset.class_names = splits.numbers(arrays["y_train"]) if "y_train" in arrays else []
    return dataset


def columns(arrays, part, chosen, path):
    """{"image", "label", "path"} of one part, at the positions `chosen` (None: all)."""
    x, y = arrays[f"x_{part}"], arrays.get(f"y_{part}")
    if x.dtype != np.uint8 or x.ndim not in (3, 4) or (x.ndim == 4 and x.shape[-1] not in (1, 3)):
        raise BadInput(
            f"{path}: x_{part} must be pictures, uint8 [N, H, W] or [N, H, W, 1 or 3], not "
            f"{x.dtype} {list(x.shape)}."
        )
    if y is not None and (y.shape not in ((len(x),), (len(x), 1)) or y.dtype.kind not in "iu"):
        raise BadInput(f"{path}: y_{part} must be {len(x)} integers, one for each picture.")
    chosen = np.arange(len(x)) if chosen is None else np.array(chosen)
    x = x[chosen]
    x = x[..., None] if x.ndim == 3 else x
    found = {"image": np.repeat(x, 3, axis=-1) if x.shape[-1] == 1 else x}
    if y is not None:
        found["label"] = np.ravel(y)[chosen].astype(np.int64)
    return {**found, "path": np.array([f"{part}/{i}" for i in chosen])}
