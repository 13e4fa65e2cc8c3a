"""Pictures with maps of classes, boxes or several labels, in the forms in which such sets are kept.

`segmented` gives `image` and `segmentation` int32 [H, W], 255 where nothing counts; `boxed` gives
`image`, `boxes` float32 [n, 4] (ymin, xmin, ymax, xmax in 0..1), `object_label` int64 [n] (-1: not
to be found) and `difficult` bool [n]; `tagged` gives `image`, `labels` and `labels_no_difficult`,
int64 [k] each. All have `index`, known length, and the attributes of `sources.load`: pictures that
cannot be read are left out and listed in `broken`, of the `total` of this split.
"""

import contextlib
import json
import math
import os
import pathlib

import numpy as np
import tensorflow as tf

from tfssl.pipelines import sources
from tfssl.pipelines.datasets import like
from tfssl.pipelines.errors import BadInput
from tfssl.pipelines.sources import images, pairs, records, splits

VOID = 255
# SegNet's CamVid, the set whose labels lie in trainannot/ beside train/: this class is void.
CAMVID_VOID = 11
MAPS = ("segmentation", "segmentation_mask", "segmentation_label", "annotation", "label_map")
# Pictures without any object, one after the other, that tell a split without its truth.
EMPTY = 100
# Folders that hold maps of classes beside images/.
BESIDE = ("semantic", "segmentation", "masks", "labels", "annotations", "SegmentationClass")
PICTURES = (".jpg", ".jpeg", ".png")


def segmented(spec, split="train"):
    """Pictures with a class for every pixel.

    Args:
        spec: `world`; `tfds:NAME` with a map of classes; a folder with `train/` and `trainannot/`
            (SegNet's form of CamVid), with `JPEGImages/`, `SegmentationClass/` and
            `ImageSets/Segmentation/` (VOC), or with `images/` and `semantic/` (or `masks/`, ..).
        split: as `pipelines.load` has it; a name of its own in `spec` (`@test`) goes before.

    Raises:
        BadInput: a source in none of these forms, or with more broken files than
            `sources.accepting` allows.
    """
    name, split = own_split(spec, split)
    if name == "world" or name.startswith("world:"):
        return sources.load(name, split, keys=("image", "masks", "object_label", "index"))
    if name.startswith("tfds:"):
        has = prepared(name).info.features
        key = next((key for key in MAPS if key in has), None)
        if key is None:
            raise BadInput(
                f"{name} has no map of classes ({', '.join(MAPS)}); TFDS keeps VOC without its "
                "maps: give the VOCdevkit's folder, such as VOC2012."
            )
        data = sources.load(name, split)
        return like(
            data,
            data.map(lambda e: {"image": e["image"], "segmentation": e[key], "index": e["index"]}),
        )
    folder = folder_of(name)
    rows, void = maps_of(folder, split)

    def read(truth):
        from PIL import Image

        with Image.open(truth) as opened:  # a palette's indices are the classes
            classes = np.array(opened).astype(np.int32)
        classes = classes[..., 0] if classes.ndim == 3 else classes
        return {"segmentation": np.where(classes == void, VOID, classes)}

    return reading(rows, read, {"segmentation": (tf.int32, 2)}, folder, files=2)


def boxed(spec, split="train", trainval=True):
    """Pictures with boxes around their objects.

    Args:
        spec: `world`; `tfds:NAME` with `objects`, such as tfds:voc/2007 or tfds:coco/2017; a
            VOCdevkit's folder (`JPEGImages/`, `Annotations/`, `ImageSets/Main/`); a folder with
            COCO's `annotations/instances_*.json`; a folder with a table `boxes.csv` (file, class,
            xmin, ymin, xmax, ymax in pixels, width, height) or `boxes_yolo.csv` (file, class, cx,
            cy, w, h in 0..1); or such a table or .json itself.
        split: as in `segmented`.
        trainval: VOC's `train` is its trainval, as every table has it, where there is a test split
            with its truth; False: its train alone, for what is measured on `val`.

    Raises:
        BadInput: a source in none of these forms, annotations that cannot be read, or more broken
            pictures than `sources.accepting` allows.
    """
    name, split = own_split(spec, split)
    if name == "world" or name.startswith("world:"):
        return sources.load(
            name, split, keys=("image", "boxes", "object_label", "identity", "index")
        )
    if name.startswith("tfds:"):
        return boxed_tfds(name, split, trainval)
    path = folder_of(name)
    rows, names = rows_of(path, split, trainval)

    def read(boxes, labels, difficult):
        return {
            "boxes": np.array(boxes, np.float32).reshape(-1, 4),
            "object_label": np.array(labels, np.int64),
            "difficult": np.array(difficult, bool),
        }

    kinds = {
        "boxes": (tf.float32, 2),
        "object_label": (tf.int64, 1),
        "difficult": (tf.bool, 1),
    }
    data = reading(rows, read, kinds, path)
    data.class_names = names
    return data


def tagged(spec, split="train", trainval=True):
    """Pictures with the classes of all their objects, and of those that are not difficult.

    Args:
        spec: tfds:voc/2007 and the like, or any source of `boxed`.
        split, trainval: as in `boxed`.
    """
    data = boxed(spec, split, trainval)
    if "identity" in data.element_spec:  # in world an object may not be seen

        def seen(example):
            label = tf.where(example["identity"] > 0, example["object_label"], -1)
            return {**example, "object_label": label}

        data = like(data, data.map(seen))

    def tags(example):
        labels = example["object_label"]
        difficult = example.get("difficult", tf.zeros_like(labels, tf.bool))
        real = labels >= 0
        return {
            "image": example["image"],
            "index": example["index"],
            "labels": tf.unique(labels[real])[0],
            "labels_no_difficult": tf.unique(labels[real & ~difficult])[0],
        }

    return like(data, data.map(tags))


def own_split(spec, split):
    name, own = sources.parse(str(spec))
    return name, own if name != str(spec) else split


def folder_of(name):
    if name == "digits":
        raise BadInput(
            "digits has one label a picture: no maps of classes, boxes or several labels."
        )
    path = pathlib.Path(name).expanduser()
    if not path.exists():
        raise BadInput(sources.missing(name))
    return path


def pixels(path):
    try:
        return images.decode(pathlib.Path(path).read_bytes())
    except (OSError, images.Unreadable) as fault:
        raise BadInput(f"{path} cannot be read as a picture ({fault}).") from None


def reading(rows, read, kinds, source, files=1):
    """A dataset of the picture of every row and of `read(*what follows in it)`, in order.

    Args:
        rows: [(picture, ...)] with paths.
        read: function that gives a dict.
        kinds: {key: (dtype, rank)} of that dict.
        source: the folder or file that the rows are of.
        files: how many of a row's first entries are files that must be readable.
    """
    held, broken = looked_at(rows, source, files)
    records.refuse(list(broken.values()), len(rows), sources.accepted(), source)
    good = [i for i in range(len(rows)) if i not in broken]
    kinds = {"image": (tf.uint8, 3), **kinds}

    def example(index):
        def by_python(position):
            row = good[int(position)]
            picture, *others = rows[row]
            image = held[row] if row in held else pixels(picture)
            found = {"image": image, **read(*others)}
            return [found[key] for key in kinds]

        values = tf.numpy_function(by_python, [index], [kind for kind, _ in kinds.values()])
        for value, (key, (_, rank)) in zip(values, kinds.items()):
            last = {"image": [3], "boxes": [4]}.get(key, [])
            value.set_shape([None] * (rank - len(last)) + last)
        return {**dict(zip(kinds, values)), "index": index}

    data = tf.data.Dataset.range(len(good)).map(
        example, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
    )
    data.paths, data.total = [str(rows[i][0]) for i in good], len(rows)
    data.broken, data.class_names = sorted(broken.values()), []
    return data


def looked_at(rows, source, files):
    """({row: its picture} where they fit in memory, {row: (path, reason) of its broken file})."""
    folder = source if source.is_dir() else source.parent
    broken, held = {}, {}
    for column in reversed(range(files)):  # pictures last: they are what is held
        paths = [str(row[column]) for row in rows]
        names = [os.path.relpath(path, folder).replace(os.sep, "/") for path in paths]
        of = [records.Record(name, {"image": path}, {}) for name, path in zip(names, paths)]
        found = records.scan(of, ())
        reasons = dict(found.broken)
        for row, name in enumerate(names):
            if name in reasons:
                broken.setdefault(row, (name, reasons[name]))
        held = {row: look["image"] for row, look in zip(found.good, found.arrays or ())}
    return held, broken


def maps_of(folder, split):
    """([(picture, map)], the class that is void) of a folder of segmentation."""
    lists = folder / "ImageSets" / "Segmentation"
    if lists.is_dir():
        has = listed(lists, ("train", "val", "test"), folder / "SegmentationClass", ".png")
        rows = [
            (folder / "JPEGImages" / f"{n}.jpg", folder / "SegmentationClass" / f"{n}.png")
            for n in has[splits.choose(set(has), split, folder)]
        ]
        return some(rows, folder, split), VOID
    annotated = [path for path in folder.glob("*annot") if path.is_dir()]
    if annotated:
        has = {path.name.removesuffix("annot") for path in annotated}
        own = splits.choose(has, split, folder)
        return paired(folder / own, folder / f"{own}annot", folder, split), CAMVID_VOID
    for pictures in ("images", "JPEGImages"):
        for beside in BESIDE:
            if (folder / pictures).is_dir() and (folder / beside).is_dir():
                return in_splits(folder, pictures, beside, split), VOID
    raise BadInput(
        f"{folder} holds no maps of classes: give train/ with trainannot/, images/ with semantic/, "
        "or a VOCdevkit's folder with SegmentationClass/."
    )


def listed(lists, known, truths, ending):
    """{split: its names} of a VOCdevkit's lists, without a test split that has no truth.

    VOC2012's test maps and boxes were never published; some of its pictures have the .xml of
    another task.
    """
    has = {}
    for file in lists.glob("*.txt"):
        if file.stem in known:
            try:
                has[file.stem] = file.read_text(encoding="utf-8").split()
            except UnicodeDecodeError:
                raise BadInput(f"{file} is no list of names: it is not UTF-8 text.") from None
    there = [(truths / f"{name}{ending}").is_file() for name in has.get("test", ())]
    if 2 * sum(there) <= len(there):
        has.pop("test", None)
    return has


def in_splits(folder, pictures, beside, split):
    """Pairs of images/ and masks/, each with train2017/, val2017/ or such below, or flat."""
    below = sorted(path.name for path in (folder / beside).iterdir() if path.is_dir())
    known = {name.rstrip("0123456789"): name for name in below}
    if known:
        own = known[splits.choose(set(known), split, folder)]
        return paired(folder / pictures / own, folder / beside / own, folder, split)
    rows = paired(folder / pictures, folder / beside, folder, split)
    return [rows[i] for i in splits.cut([path.name for path, _ in rows], split, folder)]


def paired(pictures, maps, folder, split):
    named = {path.stem: path for path in pictures.iterdir() if path.suffix.lower() in PICTURES}
    rows = [(named[path.stem], path) for path in sorted(maps.glob("*.png")) if path.stem in named]
    return some(rows, folder, split)


def some(rows, folder, split):
    if not rows:
        raise BadInput(f"{folder} has no picture with a map of the same name in its {split} split.")
    return rows


def prepared(name):
    """The TFDS builder of `tfds:NAME`, where it lies on this disk."""
    from tfssl.pipelines.sources import tfds

    root = pathlib.Path(os.environ.get("TFDS_DATA_DIR", tfds.HOME)).expanduser()
    return tfds.library().builder_from_directory(tfds.find(root, name.removeprefix("tfds:")))


def boxed_tfds(name, split, trainval=True):
    """A prepared TFDS set with `objects` [{bbox, label, is_difficult, is_crowd}]."""
    from tfssl.pipelines.sources import tfds

    builder = prepared(name)
    objects = dict(builder.info.features.items()).get("objects")
    inner = getattr(objects, "feature", {})
    if "bbox" not in inner or "label" not in inner:
        raise BadInput(f"{name} has no objects with bbox and label, which detection needs.")
    has = {key for key, info in builder.info.splits.items() if info.num_examples}
    if "test" in has and split in ("train", "test") and not any_object(builder, "test"):
        has.remove("test")
    if trainval and split == "train" and "test" in has and name.startswith("tfds:voc"):
        own = [key for key in ("train", "validation") if key in has]
    else:
        own = [splits.choose(has, split, name)]
    count = sum(builder.info.splits[key].num_examples for key in own)
    stored = [tfds.read(builder, key, ["image", "objects"]) for key in own]
    data = stored[0] if len(stored) == 1 else stored[0].concatenate(stored[1])

    def ours(index, example):
        objects = example["objects"]
        labels = tf.cast(objects["label"], tf.int64)
        difficult = tf.zeros_like(labels, tf.bool)
        for key in ("is_difficult", "is_crowd"):
            difficult |= objects.get(key, tf.zeros_like(difficult))
        return {
            "index": index,
            "image": tfds.three_channels(example["image"]),
            "boxes": objects["bbox"],
            "object_label": labels,
            "difficult": difficult,
        }

    data = tfds.numbered(data, count).map(ours, num_parallel_calls=tf.data.AUTOTUNE)
    data.class_names = list(getattr(inner["label"], "names", []))
    data.paths, data.broken, data.total = [f"{name}/{i}" for i in range(count)], [], count
    return data


def any_object(builder, split):
    """Whether a split has its truth: TFDS keeps that of VOC2012's and COCO's test as no objects."""
    from tfssl.pipelines.sources import tfds

    kept = tfds.read(builder, split, ["objects"]).take(EMPTY)
    return any(len(example["objects"]["label"]) for example in kept)


def rows_of(path, split, trainval=True):
    """([(picture, boxes, labels, difficult)], class names) of a folder or file of boxes."""
    if path.is_file():
        found = {".csv": table, ".json": coco}.get(path.suffix.lower())
        if found is None:
            raise BadInput(f"{path} is no .csv of boxes and no .json of COCO's form.")
        rows, names = found(path, path.parent)
        return by_folder(rows, split, path), names
    if (path / "Annotations").is_dir():
        return voc(path, split, trainval)
    files = sorted((path / "annotations").glob("instances_*.json"))
    if files:
        has = {file.stem.removeprefix("instances_").rstrip("0123456789"): file for file in files}
        return coco(has[splits.choose(set(has), split, path)], path)
    tables = sorted(path.glob("boxes*.csv"))
    if tables:
        rows, names = table(tables[0], path)
        return by_folder(rows, split, path), names
    raise BadInput(
        f"{path} holds no boxes: give a VOCdevkit's folder, one with COCO's "
        "annotations/instances_*.json, or one with boxes.csv."
    )


def by_folder(rows, split, what):
    """Rows of the split that their pictures' folder names, or of a cut by hash."""
    folders = {row[0].parent.name for row in rows}
    known = {name.rstrip("0123456789"): name for name in folders}
    if {splits.SAME.get(name, name) for name in known} >= {"train"} and len(known) > 1:
        own = known[splits.choose(set(known), split, what)]
        return [row for row in rows if row[0].parent.name == own]
    return [rows[i] for i in splits.cut([row[0].name for row in rows], split, what)]


@contextlib.contextmanager
def entry(where):
    """Tells in a sentence what in an entry of annotations is not as it must be."""
    try:
        yield
    except BadInput:
        raise
    except KeyError as fault:
        raise BadInput(f"{where} has no {fault.args[0]!r}.") from None
    except (AttributeError, TypeError, ValueError) as fault:
        raise BadInput(f"{where} cannot be understood ({images.reason(fault)}).") from None


def number(value, where):
    """A finite number, however it is written."""
    try:
        found = float(value)
    except (TypeError, ValueError):
        found = math.nan
    if not math.isfinite(found):
        raise BadInput(f"{where}: {str(value)[:80]!r} is no number.")
    return found


def scaled(x1, y1, x2, y2, width, height, where):
    """A box in pixels -> (ymin, xmin, ymax, xmax) in 0..1 of its picture."""
    if min(width, height) <= 0:
        raise BadInput(f"{where}: its picture cannot be {width:g} x {height:g} pixels.")
    return y1 / height, x1 / width, y2 / height, x2 / width


def table(path, folder):
    """A .csv with a row an object."""
    lines = pairs.table(path)
    columns = set(lines[0][1])
    corners, centres = ("xmin", "ymin", "xmax", "ymax", "width", "height"), ("cx", "cy", "w", "h")
    if not {"file", "class"} <= columns or not (set(corners) <= columns or set(centres) <= columns):
        raise BadInput(
            f"{path} needs the columns file, class and xmin, ymin, xmax, ymax, width, height (in "
            "pixels) or cx, cy, w, h (in 0..1)."
        )
    names = sorted({pairs.cell(path, at, line, "class") for at, line in lines})
    of_class = {name: i for i, name in enumerate(names)}
    rows = {}
    for at, line in lines:
        name = pairs.cell(path, at, line, "file")
        places = [place / name for place in (folder, folder.parent)]
        found = next((place for place in places if place.is_file()), places[0])
        values = [
            number(line[key], f"{path}, row {at}, column {key!r}")
            for key in (corners if set(corners) <= columns else centres)
        ]
        if len(values) == len(corners):
            box = scaled(*values, f"{path}, row {at}")
        else:
            x, y, w, h = values
            box = (y - h / 2, x - w / 2, y + h / 2, x + w / 2)
        _, boxes, labels, difficult = rows.setdefault(found, (found, [], [], []))
        boxes.append(np.clip(box, 0, 1))
        labels.append(of_class[line["class"]])
        difficult.append(False)
    return [rows[key] for key in sorted(rows)], names


def _by_name(folder):
    """{name: paths} of the pictures below a folder."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in PICTURES:
            found.setdefault(path.name, []).append(path)
    return found


def coco(path, folder):
    """COCO's instances; crowds count as difficult. Classes are numbered by their ids' order."""
    try:
        held = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as fault:
        raise BadInput(f"{path} is no JSON ({images.reason(fault)}).") from None
    lists = ("images", "annotations", "categories")
    if not isinstance(held, dict) or not all(isinstance(held.get(key), list) for key in lists):
        raise BadInput(f"{path} is not of COCO's form: images, annotations and categories.")
    with entry(f"{path}, an entry of categories"):
        categories = sorted((one["id"], str(one["name"])) for one in held["categories"])
        of_class = {key: i for i, (key, _) in enumerate(categories)}
    own = path.stem.removeprefix("instances_")
    near = [folder / below for below in ("", own, "images", f"images/{own}")]
    rows, places = {}, None
    for i, one in enumerate(held["images"]):
        where = f"{path}, images[{i}]"
        with entry(where):
            name = one["file_name"]
            tried = [below / name for below in near]
            found = next((place for place in tried if place.is_file()), None)
            if found is None:  # as where they lie in another folder than it says
                places = _by_name(folder) if places is None else places
                found, *others = places.get(tried[0].name, tried[:1])
                if others:
                    raise BadInput(f"{where}: no {tried[0]}, but {found} and others: which one?")
            size = [number(one[key], f"{where}, {key!r}") for key in ("width", "height")]
            rows[one["id"]] = (found, [], [], [], *size)
    for i, one in enumerate(held["annotations"]):
        where = f"{path}, annotations[{i}]"
        with entry(where):
            for key, known, what in (
                ("image_id", rows, "image"),
                ("category_id", of_class, "category"),
            ):
                if one[key] not in known:
                    raise BadInput(f"{where}: there is no {what} of its {key} {one[key]!r:.80}.")
            _, boxes, labels, difficult, width, height = rows[one["image_id"]]
            x, y, w, h = (number(value, f"{where}, 'bbox'") for value in one["bbox"])
            boxes.append(np.clip(scaled(x, y, x + w, y + h, width, height, where), 0, 1))
            labels.append(of_class[one["category_id"]])
            difficult.append(bool(one.get("iscrowd", 0)))
    return [row[:4] for row in rows.values()], [name for _, name in categories]


def voc(folder, split, trainval=True):
    """A VOCdevkit's year. Boxes count pixels from 1, both ends inside."""
    notes = folder / "Annotations"
    lists = folder / "ImageSets" / "Main"
    # Classes are numbered over all splits, so that no two of them differ.
    trees = {file.stem: tree_of(file) for file in sorted(notes.glob("*.xml"))}
    has = listed(lists, ("train", "val", "trainval", "test"), notes, ".xml")
    if has:
        # What one measures on must not be in it, so not where `val` serves as the test split.
        whole = trainval and split == "train" and {"trainval", "test"} <= set(has)
        own = "trainval" if whole else splits.choose(set(has), split, folder)
        names = has[own]
        for name in names:
            if name not in trees:
                raise BadInput(f"{lists / own}.txt names {name}, but there is no {name}.xml.")
    else:
        every = sorted(trees)
        names = [every[i] for i in splits.cut(every, split, folder)]
    classes = sorted(
        {
            text(found, "name", notes / f"{name}.xml")
            for name, tree in trees.items()
            for found in tree.iter("object")
        }
    )
    rows = []
    for name in names:
        tree, file = trees[name], notes / f"{name}.xml"
        size = [number(text(tree, f"size/{key}", file), file) for key in ("width", "height")]
        row = (folder / "JPEGImages" / f"{name}.jpg", [], [], [])
        for found in tree.iter("object"):
            x1, y1, x2, y2 = (
                number(text(found, f"bndbox/{key}", file), file)
                for key in ("xmin", "ymin", "xmax", "ymax")
            )
            row[1].append(scaled(x1 - 1, y1 - 1, x2, y2, *size, file))
            row[2].append(classes.index(found.findtext("name")))
            row[3].append(found.findtext("difficult", "0") == "1")
        rows.append(row)
    return rows, classes


def tree_of(file):
    """The root of an .xml."""
    from xml.etree import ElementTree

    try:
        return ElementTree.parse(file).getroot()
    except (ElementTree.ParseError, LookupError, ValueError) as fault:
        raise BadInput(f"{file} is no XML ({images.reason(fault)}).") from None


def text(element, key, file):
    """What stands in an element below another."""
    found = element.findtext(key)
    if found is None:
        raise BadInput(f"{file}: an <{element.tag}> has no <{key.replace('/', '><')}>.")
    return found
