"""Folders, shards and tables on disk: told apart, split, read and checked."""

from tfssl.pipelines.errors import BadInput
from tfssl.pipelines.sources import folders, records, splits

GIVES = {"image": {"image"}, "video": {"frames", "audio"}, "audio": {"audio"}}
KINDS = {"image": "images", "video": "videos", "audio": "sounds"}
NEEDS = {"image": "images", "frames": "videos", "audio": "sounds or videos", "text": "texts"}


def load(path, split, keys, max_broken, short_side, max_frames, sample_rate, progress):
    """One split of whatever lies at `path`; arguments as `sources.load`."""
    if (path / "dataset_info.json").is_file():
        from tfssl.pipelines.sources import shards

        return shards.load(path, split, keys, max_frames, max_broken)
    if path.suffix.lower() == ".npz" and path.is_file():
        from tfssl.pipelines.sources import npz

        return npz.load(path, split)
    if path.is_dir():
        rows, of_split, strays, class_names = folders.records(path)
    elif path.suffix.lower() in (".csv", ".jsonl", ".txt"):
        from tfssl.pipelines.sources import pairs

        rows, of_split, strays, class_names = pairs.records(path)
    else:
        raise BadInput(
            f"{path} is a single file; give a folder of images, videos or sounds, "
            "or a .csv, .jsonl or .txt file."
        )
    refuse_other_kinds(rows, keys, path)
    wants = (keys, short_side, max_frames, sample_rate)
    found = records.scan(rows, wants, progress)
    broken = sorted([*found.broken, *strays])
    total = found.total + len(strays)
    records.refuse(broken, total, max_broken, path)
    chosen = pick(found.good, rows, of_split, split, path)
    result = records.dataset(found, rows, chosen, wants)
    result.paths = [rows[found.good[i]].path for i in chosen]
    labels = [rows[found.good[i]].values.get("label") for i in chosen]
    result.broken, result.total = broken, total
    result.class_names = [] if None in labels else class_names
    if result.class_names and (not keys or "label" in keys):
        result.labels = labels
    return result


def refuse_other_kinds(rows, keys, path):
    """Raise BadInput, before anything is read, where files of this kind cannot give the keys."""
    kinds = list(rows[0].files)
    gives = set(rows[0].values).union(*(GIVES[kind] for kind in kinds))
    for key in keys:
        if key in ("image", "frames", "audio", "text") and key not in gives:
            holds = " and ".join(KINDS[kind] for kind in kinds) or "texts"
            raise BadInput(
                f"{path} holds {holds}, and {key!r} is needed here: give a source of {NEEDS[key]}."
            )


def pick(good, rows, of_split, split, path):
    """Positions in `good` (itself positions in `rows`) of what belongs to `split`."""
    if of_split is None or split == splits.ALL:
        inside = set(splits.cut([row.path for row in rows], split, path))
    else:
        own = splits.choose(set(of_split), split, path)
        inside = {i for i, its in enumerate(of_split) if its == own}
    chosen = [i for i, position in enumerate(good) if position in inside]
    if not chosen:
        raise BadInput(
            f"{path} has no example in its split {split!r} ({len(good)} in all can be read): "
            "add files, or give training and test data as train/ and test/ folders."
        )
    return chosen
