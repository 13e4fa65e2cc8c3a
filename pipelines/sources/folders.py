"""A folder of images, videos or sounds, with class folders or flat, as it lies on the disk."""

import json
import os
import pathlib

from tfssl.pipelines.errors import BadInput
from tfssl.pipelines.sources import images, splits
from tfssl.pipelines.sources.records import Record

ENDINGS = {
    "image": images.ENDINGS,
    "video": ("mp4", "m4v", "mpg", "mpeg", "avi", "mov", "mkv", "webm"),
    "audio": ("wav", "ogg", "oga", "opus", "mp3", "flac", "m4a", "aac", "aif", "aiff"),
}
KIND = {ending: kind for kind, endings in ENDINGS.items() for ending in endings}
NAME = {"image": "an image", "video": "a video", "audio": "a sound"}


def walk(folder):
    """All media files below a folder, and the folders below it that cannot be opened.

    Returns:
        Relative paths (forward slashes) of the files, in order, and [(path, reason)].

    Names that begin with a dot are left out, and the folders of runs, whose pictures are of other
    pictures; links are followed, but not in circles.
    """
    found, seen, closed = [], set(), []
    for here, folders, files in os.walk(folder, onerror=closed.append, followlinks=True):
        real = os.path.realpath(here)
        if real in seen or (seen and is_run(here)):
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(n for n in folders if not n.startswith(".") and n != "__MACOSX")
        prefix = os.path.relpath(here, folder).replace(os.sep, "/")
        for name in files:
            if not name.startswith(".") and kind_of(name):
                found.append(name if prefix == "." else f"{prefix}/{name}")
    why = "a folder that cannot be opened: "
    closed = [(os.path.relpath(e.filename, folder), why + images.reason(e)) for e in closed]
    return sorted(found), sorted((path.replace(os.sep, "/"), reason) for path, reason in closed)


def is_run(folder):
    """Whether `tfssl pretrain` made a folder."""
    try:
        with open(os.path.join(folder, "run.json"), encoding="utf-8") as file:
            record = json.load(file)
    except (OSError, ValueError):
        return False
    return isinstance(record, dict) and {"method", "arguments"} <= set(record)


def kind_of(name):
    """`image`, `video` or `audio` by a name's ending, else None."""
    return KIND.get(name.rpartition(".")[2].lower()) if "." in name else None


def own_splits(folder):
    """{split: folder's name} where a folder holds train/ and test/ (or val/), else {}."""
    try:
        names = os.listdir(folder)
    except OSError as error:
        raise BadInput(f"{folder} cannot be opened: {images.reason(error)}.") from None
    # Not DirEntry.is_dir, which raises at a link that leads to itself.
    names = sorted(name for name in names if os.path.isdir(folder / name))
    known = {}
    for name in names:
        split = splits.SAME.get(name.lower(), name.lower())
        if split in splits.SPLITS:
            known.setdefault(split, name)
    return known if "train" in known and len(known) > 1 else {}


def records(folder):
    """Everything in a folder -> (records, split of each or None, strays, class names).

    Strays are [(path, reason)]: folders that cannot be opened, and files of another kind than most.
    A file of another kind that shares its name with one of the main kind (`dog.wav` beside
    `dog.mp4`) is taken to belong to it and left out silently. `label` is the first folder on the
    way that not all files share, so class folders may lie deeper; names are numbered in
    alphabetical order over all splits. A split with files in no folder has no labels.

    Raises:
        BadInput: where the folder holds no media file, or cannot be opened.
    """
    folder = pathlib.Path(folder)
    own = own_splits(folder)
    roots = {own[split]: split for split in own} or {"": None}
    found, strays = [], []
    for root, split in roots.items():
        files, closed = walk(folder / root)
        found += [(f"{root}/{path}" if root else path, path, split) for path in files]
        if closed and closed[0][0] == ".":
            raise BadInput(f"{folder / root} is {closed[0][1]}.")
        strays += [(f"{root}/{path}" if root else path, why) for path, why in closed]
    if not found and strays:
        path, why = strays[0]
        raise BadInput(f"{folder} holds no file that can be read; {path} is {why}.")
    if not found:
        raise BadInput(
            f"{folder} holds no file that can be read; the endings understood are "
            + "; ".join(" ".join(endings) for endings in ENDINGS.values())
            + "."
        )
    kind = main_kind([path for path, _, _ in found])
    stems = {stem(path) for path, _, _ in found if kind_of(path) == kind}
    rows, of_split, below = [], [], []
    for path, inner, split in sorted(found):
        if kind_of(path) == kind:
            rows.append(Record(path, {kind: str(folder / path)}, {}))
            of_split.append(split)
            below.append(inner)
        elif stem(path) not in stems:
            strays.append((path, f"{NAME[kind_of(path)]} among files of another kind"))
    flat = {split for split, inner in zip(of_split, below) if "/" not in inner}
    labelled = [i for i, split in enumerate(of_split) if split not in flat]
    names = classes([below[i] for i in labelled])
    class_names = sorted(set(names))
    number = {name: i for i, name in enumerate(class_names)}
    for i, name in zip(labelled, names):
        rows[i] = rows[i]._replace(values={"label": number[name]})
    return rows, of_split if own else None, strays, class_names


def stem(path):
    """A file's bare name, without folders and ending."""
    return path.rpartition("/")[2].rpartition(".")[0]


def main_kind(paths):
    """The kind most files have; of equally many, videos before images before sounds."""
    counts = {kind: 0 for kind in ("video", "image", "audio")}
    for path in paths:
        counts[kind_of(path)] += 1
    return max(counts, key=counts.get)


def classes(paths):
    """The class of each file by its folder, or [] where the folders tell no classes apart."""
    parts = [path.split("/") for path in paths]
    depth = 0
    while parts and all(len(p) > depth + 1 for p in parts) and len({p[depth] for p in parts}) == 1:
        depth += 1
    if all(len(p) > depth + 1 for p in parts):
        return [p[depth] for p in parts]
    return []
