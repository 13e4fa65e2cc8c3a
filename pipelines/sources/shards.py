"""Folders of TFDS-format shards, those that `ingest` wrote and those of anybody else."""

import json
import pathlib
import struct

import tensorflow as tf

from tfssl.pipelines.errors import BadInput
from tfssl.pipelines.sources import records, splits, tfds

MANIFEST = "tfssl.json"
# Every byte of sets up to this size is checked; of larger ones only where records begin and end.
CHECK_ALL = 2**30
HEADER, FOOTER = 12, 4

_checked = {}


def load(folder, split, keys=(), max_frames=None, max_broken=0.5):
    """One split of a folder of shards; examples as `sources.load` describes them.

    Raises:
        BadInput: naming the shard that is missing, cut short or damaged.
    """
    import tensorflow_datasets

    folder = pathlib.Path(folder)
    try:
        builder = tensorflow_datasets.builder_from_directory(folder)
        check(builder, folder)
    except BadInput:
        raise
    except Exception as error:
        raise BadInput(
            f"{folder} holds a dataset_info.json but cannot be opened as shards "
            f"({' '.join(str(error).split())[:200]}): make it anew with `tfssl ingest`."
        ) from None
    if not (folder / MANIFEST).is_file():
        return tfds.from_builder(builder, split, keys, str(folder))
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    own = splits.choose(manifest["splits"], split, str(folder))
    return ingested(builder, manifest, own, keys, max_frames, max_broken, folder)


def ingested(builder, manifest, split, keys, max_frames, max_broken, folder):
    """A split of what `ingest` wrote: {paths, mute} a split, kind and class names in `manifest`."""
    import tensorflow_datasets

    info = manifest["splits"][split]
    names, mute = info["paths"], set(info["mute"])
    sounds = len(mute) < len(names)
    chosen, broken = None, []
    if mute and "audio" in keys:
        chosen = [i for i in range(len(names)) if i not in mute]
        broken = [(names[i], "it has no sound") for i in sorted(mute)]
        records.refuse(broken, len(names), max_broken, folder)
    has = [key for key in builder.info.features if key not in NOT_EXAMPLE]
    if not sounds:
        has = [key for key in has if key not in ("audio", "sample_rate", "audio_start")]
    companions = records.COMPANIONS if set(keys) & {"frames", "audio"} else ()
    wanted = [key for key in has if not keys or key in (*keys, *companions, "label")]
    skip = {"frames": tensorflow_datasets.decode.SkipDecoding()} if "frames" in wanted else None
    stored = tfds.read(builder, split, wanted, skip)

    shapes = dict(manifest["shapes"])
    if "frames" in shapes:
        length = shapes["frames"][0]
        whole_clips = length is not None and (max_frames is None or length <= max_frames)
        shapes["frames"][0] = length if whole_clips else None
        shapes["frame_times"] = shapes["frames"][:1]
        shapes["audio"] = shapes["audio"] if whole_clips and not mute else [None]

    def example(index, stored):
        result = {"index": index, **stored}
        result.pop("audio_start", None)
        if "frames" in wanted:
            result["frames"] = tf.map_fn(
                lambda jpeg: tf.io.decode_jpeg(jpeg, 3, dct_method="INTEGER_ACCURATE"),
                stored["frames"][:max_frames],
                fn_output_signature=tf.TensorSpec([None, None, 3], tf.uint8),
            )
            result["frame_times"] = stored["frame_times"][:max_frames]
        if "audio" in wanted:
            result["audio"] = tf.cast(stored["audio"], tf.float32) / tfds.PCM
            if "frames" in wanted:
                seconds = result["frame_times"][-1] + 1 / stored["fps"]
                length = tf.round(seconds * tf.cast(stored["sample_rate"], tf.float32))
                length = tf.cast(length, tf.int32)
                sound = result["audio"][:length]
                result["audio"] = tf.pad(sound, [[0, length - tf.size(sound)]])
        for key in set(shapes) & set(result):
            result[key] = tf.ensure_shape(result[key], shapes[key])
        return result

    dataset = tfds.numbered(stored, len(names), chosen).map(
        example, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
    )
    dataset.paths = names if chosen is None else [names[i] for i in chosen]
    dataset.class_names = manifest["class_names"]
    dataset.broken, dataset.total = broken, len(names)
    return dataset


NOT_EXAMPLE = ("path", "audio_offset")


def check(builder, folder):
    """See that every shard is there, whole, and holds as many examples as it should."""
    shards = [
        (pathlib.Path(path), count)
        for info in builder.info.splits.values()
        for path, count in zip(info.filepaths, info.shard_lengths)
    ]
    for path, _ in shards:
        if not path.is_file():
            raise BadInput(f"{folder}: the shard {path.name} is missing: copy or ingest it again.")
    signature = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path, _ in shards]
    if _checked.get(str(folder)) == signature:
        return
    thorough = sum(size for _, size, _ in signature) <= CHECK_ALL
    for path, count in shards:
        try:
            found = whole(path) if thorough else walk(path)
        except (tf.errors.DataLossError, EOFError):
            raise BadInput(
                f"{folder}: the shard {path.name} is damaged or cut short: copy or ingest it again."
            ) from None
        if found != count:
            raise BadInput(
                f"{folder}: the shard {path.name} holds {found} examples where {count} are "
                "expected: copy or ingest it again."
            )
    _checked[str(folder)] = signature


def whole(path):
    """The number of records in a shard, all checksums compared."""
    return int(tf.data.TFRecordDataset(str(path)).reduce(0, lambda count, _: count + 1))


def walk(path):
    """The number of records in a shard by their lengths alone.

    Raises:
        EOFError: where the last one is cut short.
    """
    size, count, place = path.stat().st_size, 0, 0
    with open(path, "rb") as file:
        while place < size:
            file.seek(place)
            head = file.read(HEADER)
            if len(head) < HEADER:
                raise EOFError
            place += HEADER + struct.unpack("<Q", head[:8])[0] + FOOTER
            count += 1
    if place != size:
        raise EOFError
    return count
