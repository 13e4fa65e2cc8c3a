"""Folders of TFDS-format shards, those that `ingest` wrote and those of anybody else."""

import itertools
import json
import pathlib
import struct

import numpy as np
import tensorflow as tf

from tfssl.pipelines.errors import BadInput
from tfssl.pipelines.sources import records, splits, tfds

MANIFEST, BROKEN = "tfssl.json", "broken.jsonl"
# Every byte of sets up to this size is checked; of larger ones only where records begin and end.
CHECK_ALL = 2**30
HEADER, FOOTER = 12, 4
NOT_EXAMPLE = ("path", "audio_offset", "audio_start")

_checked = {}


def load(folder, split, keys=(), max_frames=None, max_broken=0.5):
    """One split of a folder of shards; examples as `sources.load` describes them.

    Raises:
        BadInput: naming the shard that is missing, cut short or damaged.
    """
    folder = pathlib.Path(folder)
    try:
        builder = tfds.library().builder_from_directory(folder)
        places = check(builder, folder)
    except BadInput:
        raise
    except Exception as error:
        raise BadInput(
            f"{folder} holds a dataset_info.json but cannot be opened as shards "
            f"({' '.join(str(error).split())[:200]}): make it anew with `tfssl ingest`."
        ) from None
    if not (folder / MANIFEST).is_file():
        return tfds.from_builder(builder, split, keys, str(folder))
    manifest = notes(folder)
    if split == splits.ALL:
        parts = list(manifest["splits"])
    else:
        parts = [splits.choose(manifest["splits"], split, str(folder))]
    return ingested(builder, manifest, places, parts, keys, max_frames, max_broken, folder)


def ingested(builder, manifest, places, parts, keys, max_frames, max_broken, folder):
    """Splits of what `ingest` wrote, as one; `places` [(file, offset, length)] of each's records.

    They are read by position, not from beginning to end, so that a whole shuffle costs nothing:
    shards are in the order of paths, class by class.
    """
    infos = [manifest["splits"][part] for part in parts]
    places = [place for part in parts for place in places[part]]
    names = [path for info in infos for path in info["paths"]]
    starts = itertools.accumulate((len(info["paths"]) for info in infos), initial=0)
    mute = {start + i for start, info in zip(starts, infos) for i in info["mute"]}
    sounds = len(mute) < len(names)
    # What `ingest` could not read is told again, though nothing of it is here.
    chosen, broken = list(range(len(names))), manifest["broken"]
    if mute and "audio" in keys:
        chosen = [i for i in chosen if i not in mute]
        without = [(names[i], "it has no sound") for i in sorted(mute)]
        records.refuse(without, len(names), max_broken, folder)
        broken = sorted([*broken, *without])
    has = [key for key in builder.info.features if key not in NOT_EXAMPLE]
    if not sounds:
        has = [key for key in has if key not in ("audio", "sample_rate")]
    companions = records.COMPANIONS if set(keys) & {"frames", "audio"} else ()
    wanted = [key for key in has if not keys or key in (*keys, *companions, "label")]
    wanted = wanted or has  # of which the caller says that it is not what is asked for
    as_bytes = tfds.library().decode.SkipDecoding()
    skip = {key: as_bytes for key in ("frames", "image") if key in wanted}
    stored_features = {key: builder.info.features[key] for key in wanted}
    features = tfds.library().features.FeaturesDict(stored_features)

    shapes = dict(manifest["shapes"])
    if "frames" in shapes:
        length = shapes["frames"][0]
        whole_clips = length is not None and (max_frames is None or length <= max_frames)
        shapes["frames"][0] = length if whole_clips else None
        shapes["frame_times"] = shapes["frames"][:1]
        shapes["audio"] = shapes["audio"] if whole_clips and not mute else [None]

    def record(position):
        path, offset, length = places[int(position)]
        with open(path, "rb") as file:
            file.seek(offset)
            return file.read(length)

    def example(row):
        data = tf.numpy_function(record, [row["/position"]], tf.string)
        stored = features.deserialize_example(tf.ensure_shape(data, []), decoders=skip or None)
        result = {"index": row["index"], **stored}
        if "image" in wanted:
            result["image"] = tf.cond(
                tf.io.is_jpeg(stored["image"]),
                lambda: exactly(stored["image"]),
                lambda: tf.io.decode_png(stored["image"], 3),
            )
        if "frames" in wanted:
            result["frames"] = tf.map_fn(
                exactly,
                stored["frames"][:max_frames],
                fn_output_signature=tf.TensorSpec([None, None, 3], tf.uint8),
            )
            result["frame_times"] = stored["frame_times"][:max_frames]
        if "audio" in wanted:
            result["audio"] = tf.cast(stored["audio"], tf.float32) / tfds.PCM
            if "frames" in wanted:
                # In the 64 bits of `media.duration`, or the two may differ by a sample.
                times, fps, rate = (
                    tf.cast(value, tf.float64)
                    for value in (result["frame_times"], stored["fps"], stored["sample_rate"])
                )
                length = tf.cast(tf.round((times[-1] + 1 / fps) * rate), tf.int32)
                sound = result["audio"][:length]
                result["audio"] = tf.pad(sound, [[0, length - tf.size(sound)]])
        for key in set(shapes) & set(result):
            result[key] = tf.ensure_shape(result[key], shapes[key])
        return result

    index = np.arange(len(chosen), dtype=np.int64)
    dataset = records.anywhere({"index": index, "/position": np.array(chosen)}, example)
    dataset.paths = [names[i] for i in chosen]
    dataset.class_names = manifest["class_names"]
    dataset.broken, dataset.total = broken, manifest["total"]
    return dataset


def exactly(jpeg):
    """A JPEG's pixels [H, W, 3] as Pillow gives them: folder and shards must not look different."""
    return tf.io.decode_jpeg(jpeg, 3, dct_method="INTEGER_ACCURATE")


def notes(folder):
    """What `ingest` wrote down: its manifest and `broken` [(path, reason)]; BadInput if damaged."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        lines = (folder / BROKEN).read_text(encoding="utf-8").splitlines()
        broken = [(entry["path"], entry["reason"]) for entry in map(json.loads, lines)]
        needed = {key: manifest[key] for key in ("splits", "class_names", "shapes", "total")}
    except (OSError, ValueError, KeyError, TypeError):
        raise BadInput(
            f"{folder}: its {MANIFEST} or {BROKEN} is damaged or missing: copy or ingest it again."
        ) from None
    return {**needed, "broken": broken}


def check(builder, folder):
    """See that every shard is there and whole -> {split: [(file, offset, length) a record]}."""
    shards = [
        (split, pathlib.Path(path), count)
        for split, info in builder.info.splits.items()
        for path, count in zip(info.filepaths, info.shard_lengths)
    ]
    for _, path, _ in shards:
        if not path.is_file():
            raise BadInput(f"{folder}: the shard {path.name} is missing: copy or ingest it again.")
    stats = [path.stat() for _, path, _ in shards]
    signature = [(stat.st_size, stat.st_mtime_ns) for stat in stats]
    if _checked.get(str(folder), (None,))[0] == signature:
        return _checked[str(folder)][1]
    thorough = sum(stat.st_size for stat in stats) <= CHECK_ALL
    places = {split: [] for split, _, _ in shards}
    for split, path, count in shards:
        if ".tfrecord" not in path.name:
            continue
        try:
            found = walk(path)
            if thorough:
                tf.data.TFRecordDataset(str(path)).reduce(0, lambda seen, _: seen + 1)
        except (tf.errors.DataLossError, EOFError):
            raise BadInput(
                f"{folder}: the shard {path.name} is damaged or cut short: copy or ingest it again."
            ) from None
        if len(found) != count:
            raise BadInput(
                f"{folder}: the shard {path.name} is incomplete: it holds {len(found)} examples "
                f"where {count} are expected: copy or ingest it again."
            )
        places[split] += found
    _checked[str(folder)] = signature, places
    return places


def walk(path):
    """Where each record of a shard lies: (file, offset, length), by the lengths alone.

    Raises:
        EOFError: where the last one is cut short.
    """
    size, place, found = path.stat().st_size, 0, []
    with open(path, "rb") as file:
        while place < size:
            file.seek(place)
            head = file.read(HEADER)
            if len(head) < HEADER:
                raise EOFError
            length = struct.unpack("<Q", head[:8])[0]
            found.append((str(path), place + HEADER, length))
            place += HEADER + length + FOOTER
    if place != size:
        raise EOFError
    return found
