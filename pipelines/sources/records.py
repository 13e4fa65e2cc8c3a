"""From a list of files to a dataset: read once, name what is broken, keep what fits in memory."""

import concurrent.futures
import os
import threading
import warnings
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfssl.pipelines.errors import BadInput
from tfssl.pipelines.sources import images
from tfssl.pipelines.sources.images import Unreadable

# Decoded sets up to this size stay in memory, so that epochs after the first cost nothing.
MEMORY = 2**30
LABEL_HELP = "put the files of each class into a folder with the class's name"


class Record(NamedTuple):
    """One example before it is read: where it lies and what is known without reading."""

    path: str  # relative to the source, with forward slashes; the name in every report
    files: dict  # kind ("image", "video", "audio") -> path on disk
    values: dict  # keys that need no file: label, text
    start: float | None = None  # seconds; the clip that is meant, of video and sound
    end: float | None = None


class Scan(NamedTuple):
    """What one look at every file found."""

    records: list  # the readable ones
    broken: list  # [(path, reason)]
    shapes: list  # per readable record: {key: shape}
    arrays: list | None  # per readable record: {key: array}; None where they would not fit
    plain: list  # per readable record: whether TensorFlow's own JPEG decoder serves


def read(record, wants):
    """Decode one record -> ({key: array}, whether TensorFlow's own decoder would serve)."""
    example, simple = {}, True
    if "image" in record.files:
        with open(record.files["image"], "rb") as file:
            image = images.opened(file.read())
        simple = images.plain(image)
        example["image"] = images.pixels(image)
    if "video" in record.files or "audio" in record.files:
        from tfssl.pipelines.sources import media

        example.update(media.read(record, wants))
    return example, simple


_latest = {}


def scan(records, wants, progress=None, memory=MEMORY):
    """Read every record in threads; the latest result is kept, as callers ask split by split.

    Args:
        records: list of `Record`.
        wants: what `media.read` needs to know.
        progress: called with (done, total) as files are read.
        memory: bytes of decoded arrays to keep.
    """
    signature = []
    for record in records:
        stats = []
        for path in record.files.values():
            try:
                stat = os.stat(path)
                stats.append((path, stat.st_size, stat.st_mtime_ns))
            except OSError:
                stats.append((path, -1, -1))
        signature.append((record.path, tuple(stats), record.start, record.end))
    signature = (tuple(signature), wants, memory)
    if _latest.get("signature") != signature:
        _latest.clear()
        _latest.update(scan=_scan(records, wants, progress, memory), signature=signature)
    found = _latest["scan"]
    # Labels and texts may differ between two tables of the same files.
    values = {record.path: record.values for record in records}
    return found._replace(records=[r._replace(values=values[r.path]) for r in found.records])


def _scan(records, wants, progress, memory):
    room = [memory]
    lock = threading.Lock()

    def look(record):
        try:
            example, simple = read(record, wants)
        except Unreadable as error:
            return str(error)
        except Exception as error:
            return images.reason(error)
        shapes = {key: np.shape(value) for key, value in example.items()}
        with lock:
            room[0] -= sum(np.asarray(value).nbytes for value in example.values())
            full = room[0] < 0
        return shapes, None if full else example, simple

    good, broken, shapes, arrays, plain = [], [], [], [], []
    with (
        warnings.catch_warnings(),
        concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool,
    ):
        warnings.simplefilter("ignore")
        for done, (record, found) in enumerate(zip(records, pool.map(look, records)), 1):
            if isinstance(found, str):
                broken.append((record.path, found))
            else:
                good.append(record)
                shapes.append(found[0])
                arrays.append(found[1])
                plain.append(found[2])
                if room[0] < 0:
                    arrays = [None] * len(arrays)
            if progress:
                progress(done, len(records))
    return Scan(good, broken, shapes, arrays if room[0] >= 0 else None, plain)


def broken_report(broken, total):
    """The lines that `ingest` and `pretrain` both print: every broken file, then their count."""
    lines = [f"broken: {shown(path)}: {reason}" for path, reason in broken]
    if broken:
        lines.append(f"{len(broken)} of {total} files are broken and were skipped.")
    return "\n".join(lines)


def shown(path):
    """A path that can be printed even where its name is no valid Unicode."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def refuse(broken, total, max_broken, what):
    """Raise BadInput where more than the share `max_broken` is broken, or everything is."""
    if broken and (len(broken) > max_broken * total or len(broken) == total):
        path, reason = broken[0]
        hint = (
            f"more than --max-broken {max_broken:g} allows: look at the files, or raise it."
            if len(broken) < total
            else "nothing is left to read: look at the files."
        )
        raise BadInput(
            f"{what}: {len(broken)} of {total} files are broken "
            f"(such as {shown(path)[-120:]}: {reason[:80]}), {hint}"
        )


def dataset(found, chosen, wants, keys=()):
    """The examples `chosen` (positions in `found.records`) as a tf.data.Dataset, in order.

    `index` is the position in that order. Keys that every chosen record shares are present.
    """
    rows = [found.records[i] for i in chosen]
    columns = {"index": np.arange(len(rows), dtype=np.int64)}
    for key in shared_keys([row.values for row in rows]):
        columns[key] = np.array([row.values[key] for row in rows])
    shapes = [found.shapes[i] for i in chosen]
    contents = [key for key in shared_keys(shapes) if not keys or key in keys]
    if found.arrays is not None:
        return held(columns, {k: [found.arrays[i][k] for i in chosen] for k in contents})
    plain = [found.plain[i] for i in chosen]
    return streamed(columns, rows, shapes, contents, plain, wants)


def shared_keys(rows):
    """The keys that all of these dicts have, in the first one's order."""
    return [key for key in rows[0] if all(key in row for row in rows)]


def held(columns, arrays):
    """Everything in memory: equal shapes as one tensor, unequal ones cut from one flat tensor."""
    flat, columns = {}, dict(columns)
    for key, values in arrays.items():
        if len({np.shape(value) for value in values}) == 1:
            columns[key] = np.stack(values)
        else:
            sizes = np.array([value.size for value in values], np.int64)
            flat[key] = tf.constant(np.concatenate([value.ravel() for value in values]))
            columns[f"{key}/start"] = np.cumsum(sizes) - sizes
            columns[f"{key}/shape"] = np.array([value.shape for value in values], np.int64)
    statics = {key: static([v.shape for v in arrays[key]]) for key in flat}

    def cut(example):
        example = dict(example)
        for key, everything in flat.items():
            start, shape = example.pop(f"{key}/start"), example.pop(f"{key}/shape")
            size = tf.reduce_prod(shape)
            value = tf.reshape(everything[start : start + size], shape)
            example[key] = tf.ensure_shape(value, statics[key])
        return example

    result = tf.data.Dataset.from_tensor_slices(columns)
    if flat:
        result = result.map(cut, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return result


def streamed(columns, rows, shapes, contents, plain, wants):
    """Nothing in memory: each example is read and decoded when it is its turn, in parallel."""
    statics = {key: static([row[key] for row in shapes]) for key in contents}
    only_image = contents == ["image"] and set(rows[0].files) == {"image"}
    kinds = {"image": tf.uint8, "frames": tf.uint8}
    kinds["sample_rate"] = tf.int32

    def by_python(index):
        example, _ = read(rows[int(index)], wants)
        return [example[key] for key in contents]

    def anyhow(index):
        dtypes = [kinds.get(key, tf.float32) for key in contents]
        return tf.numpy_function(by_python, [index], dtypes)

    def by_tensorflow(path):
        # The slow exact transform, as Pillow's: the two roads must not look different.
        return [tf.io.decode_jpeg(tf.io.read_file(path), 3, dct_method="INTEGER_ACCURATE")]

    columns = dict(columns)
    if only_image:
        columns["/plain"] = np.array(plain)
        columns["/path"] = np.array([os.fsencode(row.files["image"]) for row in rows])

    def decode(example):
        example = dict(example)
        if only_image:
            simple, path = example.pop("/plain"), example.pop("/path")
            values = tf.cond(simple, lambda: by_tensorflow(path), lambda: anyhow(example["index"]))
        else:
            values = anyhow(example["index"])
        for key, value in zip(contents, values):
            example[key] = tf.ensure_shape(value, statics[key])
        return example

    result = tf.data.Dataset.from_tensor_slices(columns)
    return result.map(decode, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)


def static(shapes):
    """The shape that all of `shapes` share, None where they differ."""
    return [sizes[0] if len(set(sizes)) == 1 else None for sizes in zip(*shapes)]
