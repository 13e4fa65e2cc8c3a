"""From a list of files to a dataset: read once, name what is broken, keep what fits in memory."""

import collections
import concurrent.futures
import os
import re
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
# What comes along with a content that was asked for.
COMPANIONS = ("fps", "frame_times", "sample_rate")
CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class Record(NamedTuple):
    """One example before it is read: where it lies and what is known without reading."""

    path: str  # relative to the source, with forward slashes; the name in every report
    files: dict  # kind ("image", "video", "audio") -> path on disk
    values: dict  # keys that need no file: label, text
    start: float | None = None  # seconds; the clip that is meant, of video and sound
    end: float | None = None


class Scan(NamedTuple):
    """What one look at every file found; the lists below run along `good`."""

    good: list  # positions of the readable records
    broken: list  # [(path, reason)], a file once
    total: int  # how many files (or clips of them) were looked at
    shapes: list  # {key: shape}
    arrays: list | None  # {key: array}; None where they would not fit
    plain: list  # whether TensorFlow's own JPEG decoder serves


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


_latest = None, None  # (signature, looks)


def scan(records, wants, progress=None, memory=MEMORY):
    """Read every file in threads; the latest result is kept, as callers ask split by split.

    Args:
        records: list of `Record`.
        wants: what `media.read` needs to know.
        progress: called with (done, total) as files are read.
        memory: bytes of decoded arrays to keep.
    """
    clips = {}  # several captions may share one picture: it is read once
    for position, record in enumerate(records):
        clips.setdefault((*record.files.items(), record.start, record.end), []).append(position)
    first = [records[positions[0]] for positions in clips.values()]
    needs = wants if any(set(record.files) - {"image"} for record in first) else None
    signature = ([(record.files, stats(record), record[3:]) for record in first], needs, memory)
    global _latest
    known, looks = _latest  # at once: another thread may be reading too
    if known != signature:
        looks = look_at(first, wants, progress, memory)
        _latest = signature, looks
    broken = [(record.path, look) for record, look in zip(first, looks) if isinstance(look, str)]
    readable = [
        (position, look)
        for look, positions in zip(looks, clips.values())
        if not isinstance(look, str)
        for position in positions
    ]
    good, seen = (
        [position for position, _ in sorted(readable, key=lambda pair: pair[0])],
        dict(readable),
    )
    shapes, arrays, plain = zip(*(seen[position] for position in good)) if good else ((), (), ())
    fits = all(array is not None for array in arrays)
    return Scan(good, broken, len(first), shapes, arrays if fits else None, plain)


def stats(record):
    """What tells that a record's files have changed."""
    found = []
    for path in record.files.values():
        try:
            stat = os.stat(path)
            found.append((stat.st_size, stat.st_mtime_ns))
        except OSError:
            found.append(None)
    return found


def look_at(records, wants, progress, memory):
    """For each record the reason why it is broken, or (shapes, arrays or None, plain)."""
    room, lock = [memory], threading.Lock()

    def look(record):
        try:
            for path in record.files.values():
                images.regular(path)
            # Once memory is full, so many pictures are to come that their two ends must do.
            seen = (
                images.glance(record.files["image"])
                if room[0] < 0 and set(record.files) == {"image"}
                else None
            )
            if seen:
                return {"image": seen[0]}, None, seen[1]
            example, simple = read(record, wants)
        except Unreadable as error:
            return str(error)
        except Exception as error:
            return images.reason(error)
        example = {key: np.asarray(value) for key, value in example.items()}
        with lock:
            room[0] -= sum(value.nbytes for value in example.values())
        shapes = {key: value.shape for key, value in example.items()}
        return shapes, example if room[0] >= 0 else None, simple

    looks = []
    with (
        warnings.catch_warnings(),
        concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool,
    ):
        # Pillow warns of large images and odd headers; here they are refused or read.
        warnings.simplefilter("ignore")
        for found in pool.map(look, records):
            looks.append(found)
            if progress:
                progress(len(looks), len(records))
            if room[0] < 0 and memory:
                memory = 0
                looks = [x if isinstance(x, str) else (x[0], None, x[2]) for x in looks]
    return looks


def broken_report(broken, total):
    """The lines that `ingest` and `pretrain` both print: every broken file, then their count."""
    lines = [f"broken: {in_one_line(path)}: {reason}" for path, reason in broken]
    if broken:
        lines.append(f"{len(broken)} of {total} files are broken and were skipped.")
    return "\n".join(lines)


def shown(path):
    """A path that can be printed even where its name is no valid Unicode."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def in_one_line(path):
    """A path as `shown`, with escapes for what would break a line or steer a terminal."""
    return CONTROLS.sub(lambda found: repr(found[0])[1:-1], shown(path))


def refuse(broken, total, max_broken, what):
    """Raise BadInput where more than the share `max_broken` is broken, or everything is."""
    if broken and (len(broken) > max_broken * total or len(broken) == total):
        common = collections.Counter(reason for _, reason in broken).most_common(1)[0][0]
        path, reason = next(pair for pair in broken if pair[1] == common)
        hint = (
            f"more than --max-broken {max_broken:g} allows: look at the files, or raise it."
            if len(broken) < total
            else "nothing is left to read: look at the files."
        )
        raise BadInput(
            f"{what}: {len(broken)} of {total} files are broken "
            f"(such as {in_one_line(path)[-120:]}: {reason[:80]}), {hint}"
        )


def dataset(found, records, chosen, wants):
    """The examples `chosen` (positions in `found.good`) as a tf.data.Dataset, in order.

    `index` is the position in that order. Keys that all records share are present; and
    `audio` where any video has it, with zeros for the others, unless `wants` names the keys.
    """
    keys, sample_rate = wants[0], wants[-1]
    rows = [records[found.good[i]] for i in chosen]
    columns = {"index": np.arange(len(rows), dtype=np.int64)}
    for key in shared_keys([row.values for row in rows]):
        values = [row.values[key] for row in rows]
        if isinstance(values[0], str):
            # As bytes: NumPy would give every text the room of the longest.
            columns[key] = np.array([text.encode() for text in values], object)
        else:
            columns[key] = np.array(values)
    # What files hold is settled over all splits, so that no two of them differ.
    shapes = [found.shapes[i] for i in chosen]
    contents = shared_keys(found.shapes)
    sounds = any("audio" in shape for shape in found.shapes)
    if not keys and sounds and "frames" in contents and "audio" not in contents:
        contents += ["audio", "sample_rate"]
        shapes = [{"audio": (None,), "sample_rate": (), **shape} for shape in shapes]
    contents = [key for key in contents if not keys or key in (*keys, *COMPANIONS)]
    if found.arrays is None:
        plain = [found.plain[i] for i in chosen]
        return streamed(columns, rows, shapes, contents, plain, wants)
    arrays = [found.arrays[i] for i in chosen]
    if "audio" in contents:
        from tfssl.pipelines.sources import media

        arrays = [a if "audio" in a else {**a, **media.silence(a, sample_rate)} for a in arrays]
    return held(columns, {key: [row[key] for row in arrays] for key in contents})


def shared_keys(rows):
    """The keys that all of these dicts have, in the first one's order."""
    return [key for key in rows[0] if all(key in row for row in rows)]


def held(columns, arrays):
    """Everything in memory: equal shapes as one tensor, unequal ones cut from one flat tensor."""
    flat, columns = {}, dict(columns)
    for key, values in arrays.items():
        unique = {id(value): value for value in values}
        if len({np.shape(value) for value in values}) == 1 and len(unique) == len(values):
            columns[key] = np.stack(values)
            continue
        starts, start = {}, 0
        for name, value in unique.items():
            starts[name] = start
            start += np.size(value)
        flat[key] = tf.constant(np.concatenate([np.ravel(value) for value in unique.values()]))
        columns[f"{key}/start"] = np.array([starts[id(value)] for value in values], np.int64)
        shapes = [np.shape(value) for value in values]
        columns[f"{key}/shape"] = np.array(shapes, np.int64).reshape(len(values), -1)
    statics = {key: static([np.shape(value) for value in arrays[key]]) for key in flat}

    def cut(example):
        example = dict(example)
        for key, everything in flat.items():
            start, shape = example.pop(f"{key}/start"), example.pop(f"{key}/shape")
            size = tf.reduce_prod(shape)
            value = tf.reshape(everything[start : start + size], shape)
            example[key] = tf.ensure_shape(value, statics[key])
        return example

    return anywhere(columns, cut if flat else None)


def anywhere(columns, finish=None):
    """A dataset over columns [N, ...], in order, that can be read at any positions too.

    Args:
        columns: {key: array}.
        finish: turns the dict of one row into an example.

    Returns:
        A dataset with an attribute `gather`: int64 positions [B] -> the batch of their examples.
        Examples whose shapes differ can only be had one by one (B = 1).
    """
    columns = {key: tf.constant(values) for key, values in columns.items()}
    result = tf.data.Dataset.from_tensor_slices(columns)
    if finish:
        result = result.map(finish, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    specs = result.element_spec
    uniform = all(spec.shape.is_fully_defined() for spec in specs.values())

    def gather(positions):
        rows = {key: tf.gather(values, positions) for key, values in columns.items()}
        if finish is None:
            return rows
        if uniform:
            return tf.map_fn(finish, rows, fn_output_signature=specs)
        example = finish({key: tf.squeeze(value, 0) for key, value in rows.items()})
        return {key: value[None] for key, value in example.items()}

    result.gather = gather
    return result


def streamed(columns, rows, shapes, contents, plain, wants):
    """Nothing in memory: each example is read and decoded when it is its turn, in parallel."""
    statics = {key: static([row[key] for row in shapes]) for key in contents}
    only_image = contents == ["image"] and set(rows[0].files) == {"image"}
    kinds = {"image": tf.uint8, "frames": tf.uint8, "sample_rate": tf.int64}

    def by_python(index):
        example, _ = read(rows[int(index)], wants)
        if "audio" in contents and "audio" not in example:
            from tfssl.pipelines.sources import media

            example.update(media.silence(example, wants[-1]))
        return [np.asarray(example[key]) for key in contents]

    def anyhow(index):
        dtypes = [kinds.get(key, tf.float32) for key in contents]
        return tf.numpy_function(by_python, [index], dtypes)

    def by_tensorflow(path):
        # The slow exact transform, as Pillow's: the two roads must not look different.
        # What glance() lets pass is not to end a run of days.
        data = tf.io.read_file(path)
        how = {"dct_method": "INTEGER_ACCURATE", "try_recover_truncated": True}
        return [tf.io.decode_jpeg(data, 3, **how)]

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

    return anywhere(columns, decode)


def static(shapes):
    """The shape that all of `shapes` share, None where they differ."""
    return [sizes[0] if len(set(sizes)) == 1 else None for sizes in zip(*shapes)]
