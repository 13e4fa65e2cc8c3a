"""TensorFlow Datasets that lie prepared on this disk, with their keys turned into ours."""

import difflib
import functools
import os
import pathlib

import numpy as np
import tensorflow as tf

from tfssl.pipelines.errors import BadInput
from tfssl.pipelines.sources import splits

HOME = "~/tensorflow_datasets"
TEXTS = ("text", "caption", "sentence", "document", "title")
PCM = 2.0**15
# TFDS' sounds carry no scale: those that are integers hold 16 bits.
DEFAULT_RATE = 16000
DEFAULT_FPS = 25.0


@functools.cache
def library():
    """The module tensorflow_datasets, imported late and kept from telling us of its old names."""
    import logging

    import tensorflow_datasets

    def ours(record):
        told = record.getMessage()
        return ".dtype` is deprecated" not in told and "calling map_fn_v2" not in told

    logging.getLogger("absl").addFilter(ours)
    logging.getLogger("tensorflow").addFilter(ours)
    return tensorflow_datasets


def load(name, split, keys=None):
    """`NAME`, `NAME/CONFIG` or `NAME:VERSION` of TensorFlow Datasets, as prepared on disk.

    Looked for under the environment's TFDS_DATA_DIR, else in the user's tensorflow_datasets
    folder; nothing is ever downloaded. Where the set has no test split its training split (or its
    largest, where none is called so) is cut 90/10 by the hash of each example's number.

    Raises:
        BadInput: where it is not there.
    """
    tfds = library()
    root = pathlib.Path(os.environ.get("TFDS_DATA_DIR", HOME)).expanduser()
    builder = tfds.builder_from_directory(find(root, name))
    return from_builder(builder, split, keys, f"tfds:{name}")


def find(root, name):
    """The folder below `root` that holds a prepared set: name[/config][/version]."""
    base, _, version = name.partition(":")
    here = root / base
    inside = bool(base) and not base.startswith("/") and ".." not in base.split("/")
    found = sorted(path.parent for path in here.glob("**/dataset_info.json")) if inside else []
    if version:
        found = [path for path in found if path.name == version]
    configs = sorted({path.parent for path in found})
    if not found:
        raise BadInput(missing(root, name, base.partition("/")[0]))
    if len(configs) > 1:
        names = ", ".join(f"tfds:{base}/{path.name}" for path in configs[:8])
        raise BadInput(f"tfds:{name} is prepared in several configurations: choose {names}.")
    return max(found, key=lambda path: [part.zfill(6) for part in path.name.split(".")])


def missing(root, name, base):
    """The message for a set that is not prepared, or that TFDS has never heard of."""
    prepared = [path.name for path in root.iterdir() if path.is_dir()] if root.is_dir() else []
    known = library().list_builders(with_community_datasets=False)
    near = difflib.get_close_matches(base, prepared, 1) or difflib.get_close_matches(base, known, 1)
    hint = f" Did you mean tfds:{near[0]}?" if near and near[0] != base else ""
    if base in known:
        hint += (
            f' Prepare it once with `python -c "import tensorflow_datasets as tfds; '
            f"tfds.load('{name}')\"`, or set TFDS_DATA_DIR to the folder that holds it."
        )
    elif not hint:
        hint = " TensorFlow Datasets has none of that name: set TFDS_DATA_DIR if it is your own."
    return f"tfds:{name} is not prepared in {root}.{hint}"


def from_builder(builder, split, keys, what):
    """One split of a TFDS builder as our examples, in the order they are stored."""
    has = {name: info.num_examples for name, info in builder.info.splits.items()}
    has = {name: count for name, count in has.items() if count}
    if not has:
        raise BadInput(f"{what} holds no examples.")
    if split == splits.ALL:
        from tfssl.pipelines.sources import joined

        order = sorted(has, key=lambda name: (name != "train", name))
        return joined([one_split(builder, name, None, keys, what) for name in order])
    known = {splits.SAME.get(name, name) for name in has}
    others = [name for name in has if name not in (*splits.SPLITS, *splits.SAME)]
    own = "train" if "train" in has else max(others, key=has.get, default=None)
    if not known & {"test", "val"}:
        names = [f"{own}/{i}" for i in range(has[own])]
        return one_split(builder, own, splits.cut(names, split, what), keys, what)
    if split != "train" or own is None:
        own = splits.choose(has, split, what)
    return one_split(builder, own, None, keys, what)


def one_split(builder, own, chosen, keys, what):
    """The examples at the positions `chosen` (None: all) of a split as the builder names it."""
    count = builder.info.splits[own].num_examples
    names = [f"{own}/{i}" for i in range(count)]
    roles = mapping(builder.info)
    wanted = [k for k, (role, _) in roles.items() if not keys or role in keys]
    stored = read(builder, own, wanted or list(roles))
    convert = {key: role for key, role in roles.items() if key in (wanted or roles)}
    result = numbered(stored, count, chosen).map(
        lambda index, example: {"index": index, **converted(example, convert)},
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )
    result.paths = names if chosen is None else [names[i] for i in chosen]
    labels = [key for key, (role, _) in roles.items() if role == "label"]
    result.class_names = (
        list(getattr(builder.info.features[labels[0]], "names", [])) if labels else []
    )
    result.broken, result.total = [], len(result.paths)
    return result


def read(builder, split, wanted):
    """A split in stored order, one shard after the other, with the `wanted` features only."""
    tfds = library()
    part = set(wanted) != set(builder.info.features)
    return builder.as_dataset(
        split=split,
        shuffle_files=False,
        read_config=tfds.ReadConfig(interleave_cycle_length=1, add_tfds_id=False),
        decoders=tfds.decode.PartialDecoding(dict.fromkeys(wanted, True)) if part else None,
    )


def numbered(stored, count, chosen=None):
    """(index, example) of a stored dataset of `count`; of the positions `chosen` alone if given."""
    if chosen is not None:
        inside = np.zeros([count], bool)
        inside[chosen] = True
        inside = tf.constant(inside)
        stored = stored.enumerate().filter(lambda i, _: inside[i]).map(lambda _, example: example)
        count = len(chosen)
    return stored.apply(tf.data.experimental.assert_cardinality(count)).enumerate()


def mapping(info):
    """{feature: (our key, what `converted` needs to know)} for every top-level feature."""
    tfds = library()
    features = dict(info.features.items())
    first, last = (info.supervised_keys or (None, None))[:2]
    kinds = {
        "frames": (tfds.features.Video, ("video", "frames", first)),
        "audio": (tfds.features.Audio, ("audio", first)),
        "image": (tfds.features.Image, ("image", first)),
        "text": (tfds.features.Text, (*TEXTS, first)),
        "label": (tfds.features.ClassLabel, ("label", last)),
    }
    roles, taken = {}, set()
    for role, (kind, preferred) in kinds.items():
        fits = [key for key, f in features.items() if isinstance(f, kind) and key not in roles]
        best = [key for key in preferred if key in fits]
        if role in ("image", "frames", "audio", "label") and len(fits) == 1:
            best = best or fits
        if best:
            rate = getattr(features[best[0]], "sample_rate", None) or DEFAULT_RATE
            roles[best[0]] = (role, rate)
            taken.add(role)
    for key, feature in features.items():
        if key in roles:
            continue
        inner = getattr(feature, "feature", None)  # what a sequence is made of
        if isinstance(inner, tfds.features.FeaturesDict) and "bbox" in inner:
            roles[key] = ("boxes", None)
        elif isinstance(feature, tfds.features.BBoxFeature):
            roles[key] = ("boxes", "one")
        elif key not in taken and key not in ("index", "image", "frames", "audio", "text"):
            roles[key] = (key, "as it is")
    return roles


def converted(example, roles):
    """A TFDS example with our keys, types and ranges."""
    result = {}
    for key, (role, extra) in roles.items():
        value = example[key]
        if role in ("image", "frames") and extra != "as it is":
            result[role] = three_channels(value)
            if role == "frames":
                result.setdefault("fps", tf.constant(DEFAULT_FPS))
        elif role == "audio" and extra != "as it is":
            if value.dtype.is_integer:
                value = tf.cast(value, tf.float32) / PCM
            value = tf.cast(value, tf.float32)
            if value.shape.rank == 2:
                value = tf.reduce_mean(value, axis=-1)
            result["audio"] = tf.clip_by_value(value, -1.0, 1.0)
            result.setdefault("sample_rate", tf.constant(extra, tf.int64))
        elif role == "boxes" and extra != "as it is":
            result["boxes"] = value[None] if extra == "one" else value["bbox"]
        elif role == "label":
            result["label"] = tf.cast(value, tf.int64) if value.dtype.is_integer else value
        else:
            result[role] = value
    for key in ("fps", "sample_rate"):
        if key in example:
            result[key] = tf.cast(example[key], tf.float32 if key == "fps" else tf.int64)
    return result


def three_channels(value):
    """Pictures of one, two, three or four channels and any integer type -> uint8 [..., 3]."""
    if value.dtype == tf.uint16:
        value = tf.cast(value // 257, tf.uint8)
    elif value.dtype.is_floating:
        value = tf.image.convert_image_dtype(value, tf.uint8, saturate=True)
    channels = value.shape[-1]
    if channels in (1, 2):
        return tf.repeat(value[..., :1], 3, axis=-1)
    return value[..., :3]
