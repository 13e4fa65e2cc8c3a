"""Decode a folder of media once, into shards that TensorFlow Datasets and `load` can open."""

import concurrent.futures
import io
import json
import os
import pathlib
import shutil
import threading
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfssl.pipelines.errors import BadInput
from tfssl.pipelines.sources import folders, images, media, records, shards, splits
from tfssl.pipelines.sources import tfds as sources_tfds
from tfssl.pipelines.sources.images import Unreadable

# A part is what a killed run may lose, and what one thread works on: this much of the source.
PART_BYTES = 32 * 2**20
PARTS = 8
PCM = 2**15
TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
WORK = ".unfinished"


class Report(NamedTuple):
    """What `ingest` did."""

    dest: pathlib.Path
    written: dict  # {split: number of examples}
    broken: list  # [(path, reason)]
    total: int  # files looked at

    def __str__(self):
        return records.broken_report(self.broken, self.total)


def ingest(
    source,
    dest,
    *,
    short_side=128,
    max_frames=None,
    sample_rate=16000,
    quality=95,
    max_broken=0.5,
    workers=None,
    progress=None,
):
    """Turn a folder (or a table) of images, videos or sounds into a folder of shards.

    One file becomes one example: videos as JPEG `frames` with `frame_times` (seconds after frame
    0) and `fps`; their sound, and sounds alone, as 16-bit PCM `audio` with `sample_rate` and
    `audio_start`, the time of its first sample after frame 0: always 0, since sound is cut or
    padded to start with frame 0 (`audio_offset` tells where the file had it). Images keep their
    own JPEG bytes where those are plain, else become PNG. `label` comes from class folders,
    `path` from the source. Splits are the source's own or the 90/10 cut by hash.

    Files are worked on in parallel; parts that are finished stay in `dest` + ".unfinished", so
    that the same call continues a killed one. `dest` appears, whole, at the very end. Broken
    files are listed in its broken.jsonl.

    Args:
        source: a folder, or a .csv or .jsonl table.
        dest: the folder to make; it must not exist, or be an earlier result of the same call.
        short_side: pixels to which videos are scaled down; None keeps their size.
        max_frames: of each video; None takes all.
        sample_rate: Hz.
        quality: of the JPEG frames, 1..100.
        max_broken: the share of broken files from which the source is refused.
        workers: threads; None: one a processor.
        progress: called with (done, total) files.

    Returns:
        A `Report`; its text is the lines that tell of broken files.

    Raises:
        BadInput: with one sentence that says what to do.
    """
    source, dest = pathlib.Path(source).expanduser(), pathlib.Path(dest).expanduser()
    rows, of_split, strays, class_names = listed(source)
    options = [short_side, max_frames, sample_rate, quality]
    plan = planned(source, rows, of_split, class_names, options)
    stop_if_foreign(dest, plan)
    if dest.exists():
        return finished(dest)
    work = dest.with_name(dest.name + WORK)
    started(work, plan)
    features = described(rows, class_names)
    results = run(work, rows, plan, features, options, workers, progress)
    broken = sorted([*(tuple(b) for result in results for b in result["broken"]), *strays])
    total = len(rows) + len(strays)
    try:
        records.refuse(broken, total, max_broken, source)
        if not any(result["paths"] for result in results):
            raise BadInput(f"{source} holds no file that can be read: nothing was written.")
    except BadInput:
        shutil.rmtree(work)
        raise
    assemble(work, dest, plan, features, results, broken, total, class_names)
    return finished(dest)


def listed(source):
    """Records, splits, strays and class names of a source, as `load` finds them."""
    from tfssl.pipelines.sources import EMBEDDED, missing

    if not source.exists():
        if str(source).partition(":")[0] in (*EMBEDDED, "tfds"):
            raise BadInput(f"{source} is no folder of files: it needs no ingest, use it as --data.")
        raise BadInput(missing(str(source), embedded=()))
    if source.is_dir():
        if (source / "dataset_info.json").is_file():
            raise BadInput(f"{source} holds shards already: use it as --data.")
        return folders.records(source)
    if source.suffix.lower() in (".csv", ".jsonl"):
        from tfssl.pipelines.sources import pairs

        return pairs.records(source)
    raise BadInput(f"{source} is a single file; give a folder, or a .csv or .jsonl table.")


def planned(source, rows, of_split, class_names, options):
    """Which file goes into which part: fixed before any work, so that it can be continued."""
    if of_split is None:
        paths = [row.path for row in rows]
        test = set(splits.cut(paths, "test"))
        of_split = ["test" if i in test else "train" for i in range(len(rows))]
    parts = []
    for split in [name for name in splits.SPLITS if name in of_split]:
        mine = [i for i, its in enumerate(of_split) if its == split]
        sizes = [size(rows[i]) for i in mine]
        room = min(PART_BYTES, sum(sizes) // min(PARTS, len(mine)) + 1)
        filled = 0
        for i, one in zip(mine, sizes):
            if not parts or parts[-1]["split"] != split or filled + one > room:
                parts.append({"split": split, "rows": []})
                filled = 0
            parts[-1]["rows"].append(i)
            filled += one
    files = [[row.path, records.stats(row), row.values, row.start, row.end] for row in rows]
    plan = {"source": str(source.resolve()), "options": options, "classes": class_names}
    return json.loads(json.dumps({**plan, "files": files, "parts": parts}))


def size(row):
    """Bytes of a record's files; 0 where they are not there."""
    return sum(stat[0] for stat in records.stats(row) if stat)


def stop_if_foreign(dest, plan):
    """Refuse to touch a `dest` that this call has not made."""
    if not dest.parent.is_dir():
        dest.parent.mkdir(parents=True, exist_ok=True)
    if dest.exists():
        try:
            made_of = json.loads((dest / shards.MANIFEST).read_text(encoding="utf-8"))["plan"]
        except (OSError, ValueError, KeyError):
            raise BadInput(
                f"{dest} exists and holds something else: give a folder that does not exist yet."
            ) from None
        if made_of != plan:
            raise BadInput(
                f"{dest} was made from other files or with other options: remove it, or give a "
                "folder that does not exist yet."
            )
    if not os.access(dest.parent, os.W_OK):
        raise BadInput(f"{dest.parent} cannot be written to: choose another place for {dest.name}.")


def started(work, plan):
    """The folder of finished parts: an earlier one continues where its plan is the same."""
    try:
        before = json.loads((work / "plan.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        before = None
    if before != plan:
        shutil.rmtree(work, ignore_errors=True)
        try:
            work.mkdir(parents=True)
        except OSError as fault:
            name = work.name.removesuffix(WORK)
            raise BadInput(
                f"{work.with_name(name)} cannot be written: {fault.strerror.lower()}."
            ) from None
        write_json(work / "plan.json", plan)


def described(rows, class_names):
    """The TFDS features of what these records become."""
    tfds = sources_tfds.library()
    kinds = set(rows[0].files)
    features = {"path": tfds.features.Text()}
    if "image" in kinds:
        features["image"] = tfds.features.Image(shape=(None, None, 3), encoding_format=None)
    if "video" in kinds:
        shape = (None, None, None, 3)
        features["frames"] = tfds.features.Video(shape=shape, encoding_format="jpeg")
        features["frame_times"] = tfds.features.Tensor(shape=(None,), dtype=np.float32)
        features["fps"] = tfds.features.Scalar(np.float32)
    if kinds & {"video", "audio"}:
        # Bytes, not the default list of integers, which takes several times the room.
        features["audio"] = tfds.features.Tensor(shape=(None,), dtype=np.int16, encoding="bytes")
        features["sample_rate"] = tfds.features.Scalar(np.int64)
        features["audio_start"] = tfds.features.Scalar(np.float32)
        features["audio_offset"] = tfds.features.Scalar(np.float32)
    for key in records.shared_keys([row.values for row in rows]):
        if key != "label":
            features[key] = tfds.features.Text()
        elif class_names:
            features[key] = tfds.features.ClassLabel(names=printable(class_names))
        else:
            features[key] = tfds.features.Scalar(np.int64)
    return tfds.features.FeaturesDict(features)


def printable(names):
    """Class names that TFDS can write down: those that are no valid Unicode changed, all unlike."""
    result = []
    for name in map(records.shown, names):
        result.append(name if name not in result else f"{name} ({len(result)})")
    return result


def run(work, rows, plan, features, options, workers, progress):
    """Work on all parts that are not finished; the results of all, in order."""
    done, lock, stopped = [0], threading.Lock(), threading.Event()

    def tell(count):
        if stopped.is_set():
            raise concurrent.futures.CancelledError
        with lock:
            done[0] += count
            if progress:
                progress(done[0], len(rows))

    def part(number):
        report = work / f"part-{number:05}.json"
        if report.is_file():
            tell(len(plan["parts"][number]["rows"]))
        else:
            mine = [rows[i] for i in plan["parts"][number]["rows"]]
            write_json(report, write_part(work, number, mine, features, options, tell))
        return json.loads(report.read_text(encoding="utf-8"))

    pool = concurrent.futures.ThreadPoolExecutor(workers or os.cpu_count())
    try:
        return list(pool.map(part, range(len(plan["parts"]))))
    finally:
        stopped.set()  # Ctrl-C is not to wait for the end of every part
        pool.shutdown(cancel_futures=True)


def write_part(work, number, rows, features, options, tell):
    """Decode the files of one part into one shard; returns its report."""
    from tensorflow_datasets.core import example_serializer

    serializer = example_serializer.ExampleSerializer(features.get_serialized_info())
    target = work / f"part-{number:05}.tfrecord"
    aside = target.with_suffix(".tmp")
    report = {"paths": [], "mute": [], "broken": [], "bytes": 0, "shapes": {}}
    with tf.io.TFRecordWriter(str(aside)) as writer:
        for row in rows:
            try:
                example, shapes = encoded(row, features, options)
                data = serializer.serialize_example(features.encode_example(example))
            except Unreadable as error:
                report["broken"].append((row.path, str(error)))
            except Exception as error:
                report["broken"].append((row.path, images.reason(error)))
            else:
                if "audio" in features and not len(example["audio"]):
                    report["mute"].append(len(report["paths"]))
                writer.write(data)
                report["bytes"] += len(data)
                report["shapes"] = merged(report["shapes"], shapes)
                report["paths"].append(row.path)
            tell(1)
    os.replace(aside, target)
    return report


def encoded(row, features, options):
    """One record as TFDS' `encode_example` takes it, and the shapes of what it will decode to."""
    shapes = {}
    short_side, max_frames, sample_rate, quality = options
    example = {"path": records.shown(row.path), **row.values}
    for path in row.files.values():
        images.regular(path)
    if "image" in row.files:
        data = pathlib.Path(row.files["image"]).read_bytes()
        image = images.opened(data)
        keep = images.plain(image)
        pixels = images.pixels(image)  # also where the bytes are kept: truncated files must show
        example["image"] = io.BytesIO(data if keep else compressed(pixels, "PNG"))
        shapes["image"] = pixels.shape
    if "video" in row.files:
        sizes = set()

        def jpeg(pixels):
            sizes.add(pixels.shape)
            if len(sizes) > 1:
                raise Unreadable("the size of its frames changes")
            return compressed(pixels, "JPEG", quality=quality)

        clip = media.video(
            row.files["video"],
            audio="audio" not in row.files,
            short_side=short_side,
            max_frames=max_frames,
            sample_rate=sample_rate,
            start=row.start or 0.0,
            end=row.end,
            each=jpeg,
        )
        shapes["frames"] = (len(clip["frames"]), *sizes.pop())
        clip["frames"] = [io.BytesIO(jpeg) for jpeg in clip["frames"]]
        example.update(clip)
    if "audio" in row.files:
        start, seconds = example.get("begins", row.start or 0.0), media.duration(example)
        until = row.end if seconds is None else start + seconds
        samples = media.sound(row.files["audio"], sample_rate, start, until)
        if seconds is not None:
            samples = media.fitted(samples, round(seconds * sample_rate))
        example["audio"] = samples
    if "audio" in features:
        samples = example.get("audio", np.zeros([0], np.float32))
        example["audio"] = np.clip(np.rint(samples * PCM), -PCM, PCM - 1).astype(np.int16)
        example["sample_rate"] = np.int64(sample_rate)
        example["audio_start"] = np.float32(0)
        example.setdefault("audio_offset", np.float32(0))
        shapes["audio"] = samples.shape
    return {key: example[key] for key in features}, shapes


def merged(some, others):
    """Two {key: shape} as one, None where they differ; an empty one changes nothing."""
    if not some or not others:
        return some or {key: list(shape) for key, shape in others.items()}
    return {key: records.static([some[key], others[key]]) for key in some}


def compressed(pixels, kind, **options):
    """uint8 [H, W, 3] as the bytes of a JPEG or PNG file."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def assemble(work, dest, plan, features, results, broken, total, class_names):
    """Name the shards, write what TFDS wants to know, and put all in place by one rename."""
    tfds = sources_tfds.library()
    ready = work / "ready"
    shutil.rmtree(ready, ignore_errors=True)
    ready.mkdir()
    infos, manifest = [], {}
    for split in dict.fromkeys(part["split"] for part in plan["parts"]):
        mine = [
            (number, result)
            for number, (part, result) in enumerate(zip(plan["parts"], results))
            if part["split"] == split and result["paths"]
        ]
        if not mine:
            continue
        name = tfds.core.ShardedFileTemplate(
            template=TEMPLATE,
            data_dir=str(ready),
            dataset_name="media",
            split=split,
            filetype_suffix="tfrecord",
        )
        manifest[split] = {"paths": [], "mute": []}
        for shard, (number, result) in enumerate(mine):
            final = f"media-{split}.tfrecord-{shard:05}-of-{len(mine):05}"
            place(work / f"part-{number:05}.tfrecord", ready / final)
            begin = len(manifest[split]["paths"])
            manifest[split]["paths"] += result["paths"]
            manifest[split]["mute"] += [begin + i for i in result["mute"]]
        infos.append(
            tfds.core.SplitInfo(
                name=split,
                shard_lengths=[len(result["paths"]) for _, result in mine],
                num_bytes=sum(result["bytes"] for _, result in mine),
                filename_template=name,
            )
        )
    tfds.folder_dataset.write_metadata(
        data_dir=str(ready),
        features=features,
        split_infos=infos,
        filename_template=TEMPLATE,
        description=f"{total - len(broken)} files, decoded once.",
        check_data=False,
    )
    lines = [json.dumps({"path": records.shown(path), "reason": why}) for path, why in broken]
    (ready / shards.BROKEN).write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    shapes = {}
    for result in results:
        shapes = merged(shapes, result["shapes"])
    about = {"splits": manifest, "class_names": class_names, "total": total, "plan": plan}
    about["shapes"] = shapes
    write_json(ready / shards.MANIFEST, about)
    os.rename(ready, dest)
    shutil.rmtree(work)


def finished(dest):
    """The report of a `dest` that is complete."""
    about = shards.notes(dest)
    written = {split: len(info["paths"]) for split, info in about["splits"].items()}
    return Report(dest, written, about["broken"], about["total"])


def place(source, target):
    """A second name for a file, or a copy where the disk knows no second names."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def write_json(path, value):
    """Write aside and rename, so that a file that is there is whole."""
    aside = path.with_suffix(".tmp.json")
    aside.write_text(json.dumps(value), encoding="utf-8")
    os.replace(aside, path)
