"""Where examples come from: one front door, `load`, for everything that `--data` understands."""

import contextlib
import contextvars
import difflib
import os
import pathlib
from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from tfssl.pipelines.datasets import like, untuned
from tfssl.pipelines.errors import BadInput
from tfssl.pipelines.sources import splits
from tfssl.pipelines.sources.records import broken_report
from tfssl.pipelines.sources.resample import at_rate

__all__ = ["accepting", "broken_report", "load", "require"]

EMBEDDED = ("digits", "world")
DEFAULT_RATE = 16000  # Hz, of sound in files
LONGEST = 600  # characters of a message


class _Reading(NamedTuple):
    max_broken: float = 0.5
    progress: Callable | None = None
    told: Callable | None = None


_reading = contextvars.ContextVar("reading", default=None)


@contextlib.contextmanager
def accepting(max_broken=None, progress=None, told=None):
    """What `load` goes by inside, for callers such as recipes that leave it open.

    Args:
        max_broken, progress: as `load` has them.
        told: called with every source that is loaded.
    """
    given = {"max_broken": max_broken, "progress": progress, "told": told}
    given = {key: value for key, value in given.items() if value is not None}
    token = _reading.set(_inside()._replace(**given))
    try:
        yield
    finally:
        _reading.reset(token)


def accepted():
    """The share of broken files up to which a source is taken here."""
    return _inside().max_broken


def _inside():
    return _reading.get() or _Reading()


def load(
    spec,
    split=None,
    keys=None,
    *,
    max_broken=None,
    short_side=128,
    max_frames=300,
    sample_rate=None,
    progress=None,
):
    """A source of examples as an ordered, finite, unbatched tf.data.Dataset of dicts.

    Args:
        spec: `digits`, `world`, `world:key=value,...`, `tfds:NAME[/CONFIG]`, a folder of images,
            videos or sounds, a folder of shards, or a .csv, .jsonl or .txt file; each may end in
            `@train`, `@test`, `@val` or `@all`. A tf.data.Dataset is returned as it is.
        split: `train`, `test`, `val`, or `all` for every split (of a folder: in the order of
            paths). Without a split anywhere it is `train`, so that nobody trains on what `test`
            will hold. A source's own splits are used; otherwise examples are cut 90/10 by the
            hash of their path.
        keys: the keys that the caller needs; sources produce no other content than these.
            None: all they have.
        max_broken: the share of broken files from which a source is refused; None: a half, or what
            `accepting` says around the call.
        short_side: videos are scaled down to this short side, in pixels; never up.
        max_frames: longer videos are cut to this number of frames, and their sound with them.
        sample_rate: Hz to which all sound is resampled; channels are averaged. None: 16,000 for
            files, and what shards, TFDS and `world` were made with.
        progress: called with (done, total) while files are looked at.

    Returns:
        A dataset of example dicts: `image` uint8 [H, W, 3]; `frames` uint8 [T, H, W, 3] with
        `fps` float32 and `frame_times` float32 [T] in seconds; `audio` float32 [N] in [-1, 1]
        with `sample_rate` int64, beginning with frame 0; `text` string; `label` int64; `index`
        int64, the position in this split's order. It carries four attributes: `broken`
        [(path, reason)] and `total` (of the whole source, see `broken_report`), `paths` (a name
        an example, in order) and `class_names` ([] where there are no labels). Sources that can
        read anywhere have a fifth, `gather(positions)`: the batch of examples at int64 [B]; where
        shapes differ between examples B is 1.

    Raises:
        BadInput: with one sentence that says what to do.
    """
    if isinstance(spec, tf.data.Dataset):
        return spec
    inside = _inside()
    options = {
        "max_broken": inside.max_broken if max_broken is None else max_broken,
        "short_side": short_side,
        "max_frames": max_frames,
        "sample_rate": sample_rate or DEFAULT_RATE,
        "progress": progress or inside.progress,
    }
    try:
        keys = tuple(keys) if keys else ()
        if sample_rate is not None and "audio" in keys:  # what it is now must be known
            keys = tuple(dict.fromkeys((*keys, "sample_rate")))
        source = found(os.fspath(spec), split, keys, options)
        source = plainly(source if sample_rate is None else at_rate(source, sample_rate))
    except BadInput as error:
        if len(str(error)) > LONGEST:
            raise BadInput(str(error)[: LONGEST - 3] + "...") from None
        raise
    if inside.told:
        inside.told(source)
    return source


def found(spec, split, keys, options):
    """The dataset that `load` describes."""
    name, split = parse(spec, split)
    if not name:  # as a path it would be the current folder
        raise BadInput(
            f"--data {spec!r} names nothing: give a folder, a .csv or .jsonl file, digits, world "
            "or tfds:NAME."
        )
    if name == "digits":
        from tfssl.pipelines.sources import digits

        dataset = digits.load(split)
    elif name == "world" or name.startswith("world:"):
        from tfssl.pipelines.sources import world

        parts = splits.SPLITS if split == splits.ALL else [split]
        dataset = joined([world.load(part, keys=keys or None, **knobs(name)) for part in parts])
        dataset.class_names = list(world.CLASSES)
    elif name.startswith("tfds:"):
        from tfssl.pipelines.sources import tfds

        dataset = tfds.load(name.removeprefix("tfds:"), split, keys)
    else:
        path = pathlib.Path(name).expanduser()
        if not path.exists():
            raise BadInput(missing(name))
        from tfssl.pipelines.sources import files

        dataset = files.load(path, split, keys, **options)
    for key in keys:
        require(dataset, key, spec)
    return dataset


def plainly(source):
    """The source untuned, with all its attributes, those that it has none of empty."""
    dataset = untuned(source)
    dataset.broken, dataset.paths, dataset.class_names = [], [], []
    dataset.total = len(getattr(source, "paths", []))
    like(source, dataset)
    if hasattr(source, "gather"):
        dataset.gather = source.gather
    return dataset


def joined(parts):
    """Datasets one after the other as one, with their attributes; a single one as it is."""
    if len(parts) == 1:
        return parts[0]
    dataset = parts[0]
    for part in parts[1:]:
        dataset = dataset.concatenate(part)
    if "index" in dataset.element_spec:
        dataset = dataset.enumerate().map(lambda index, example: {**example, "index": index})
    for attribute in ("broken", "paths"):
        lists = [getattr(part, attribute, []) for part in parts]
        setattr(dataset, attribute, [entry for entries in lists for entry in entries])
    dataset.total = sum(getattr(part, "total", 0) for part in parts)
    dataset.class_names = getattr(parts[0], "class_names", [])
    return dataset


def parse(spec, split=None):
    """`D@split` and a caller's split -> (D, split); `train` where neither says anything.

    Raises:
        BadInput: for an unknown split, or two that contradict each other.
    """
    known = (*splits.SPLITS, splits.ALL)
    if split is not None and split not in known:
        raise BadInput(f"there is no split {split!r}: use train, test, val or all.")
    name, at, suffix = spec.rpartition("@")
    if not at or os.path.exists(os.path.expanduser(spec)):
        return spec, split or "train"
    suffix = splits.SAME.get(suffix, suffix)
    if suffix not in known:
        if "/" in suffix or os.sep in suffix:
            return spec, split or "train"
        near = difflib.get_close_matches(suffix, known, 1)
        hint = f"did you mean {name}@{near[0]}?" if near else "use @train, @test or @val."
        raise BadInput(f"{spec}: there is no split {suffix!r}: {hint}")
    if split is not None and split != suffix:
        raise BadInput(
            f"{spec} asks for the split {suffix!r} where {split!r} is needed: "
            f"give {name} without a split."
        )
    return name, suffix


def knobs(name):
    """`world:key=value,...` -> {key: value}, values as int, float, bool or string."""
    found = {}
    for part in filter(None, name.partition(":")[2].split(",")):
        key, equals, value = part.partition("=")
        if not equals or not key.isidentifier():
            raise BadInput(f"{name}: {part!r} is no knob; write world:key=value,key=value.")
        found[key] = value_of(value)
    return found


def value_of(text):
    """A knob's text as bool, int, float, or itself."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def missing(name, embedded=EMBEDDED):
    """The message for a path that is not there, with the nearest name that is.

    `embedded` names the sources that would do without a path, of --data; () where none would.
    """
    path = pathlib.Path(name).expanduser()
    around = list(embedded)
    if path.parent.is_dir():
        around += [str(path.parent / entry) for entry in os.listdir(path.parent)]
    near = difflib.get_close_matches(str(path), around, 1) or difflib.get_close_matches(
        name, embedded, 1
    )
    hint = f"did you mean {near[0][-200:]}? Give" if near else "give"
    option, others = ("--data ", ", digits, world or tfds:NAME") if embedded else ("", "")
    return (
        f"{option}{name[-200:]}: there is no such file or folder; {hint} "
        f"a folder, a .csv or .jsonl file{others}."
    )


def require(dataset, key, what="this source"):
    """Raise BadInput where a dataset's examples have no `key`, saying how to come by it."""
    if key in dataset.element_spec:
        return
    has = ", ".join(sorted(dataset.element_spec))
    if key == "label":
        paths = getattr(dataset, "paths", [])
        depth = [path.count("/") for path in paths]
        loose = [path for path, folders in zip(paths, depth) if folders == min(depth)]
        beside = ""
        if 0 < len(loose) < len(paths):
            beside = f", all of them ({loose[0][-100:]} lies beside the folders)"
        raise BadInput(
            f"{what} has no labels, and they are needed here: put the files of each class into "
            f"a folder with the class's name{beside}, or name them in a csv's column `label`."
        )
    raise BadInput(f"{what} has no {key!r}, which is needed here; its examples hold {has}.")
