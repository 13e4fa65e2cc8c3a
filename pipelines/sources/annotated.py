"""Pictures with maps of classes, boxes or several labels, in the forms in which such sets are kept.

`segmented` gives `image` and `segmentation` int32 [H, W], 255 where nothing counts; `boxed` gives
`image`, `boxes` float32 [n, 4] (ymin, xmin, ymax, xmax in 0..1), `object_label` int64 [n] (-1: not
to be found) and `difficult` bool [n]; `tagged` gives `image`, `labels` and `labels_no_difficult`,
int64 [k] each. All have `index`, known length, and the attribute `class_names`.
"""

import csv
import json
import os
import pathlib

import numpy as np
import tensorflow as tf

from tfssl.pipelines import sources
from tfssl.pipelines.errors import BadInput
from tfssl.pipelines.sources import images, splits

VOID = 255
# SegNet's CamVid, the set whose labels lie in trainannot/ beside train/: this class is void.
CAMVID_VOID = 11
MAPS = ("segmentation", "segmentation_mask", "segmentation_label", "annotation", "label_map")
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
        BadInput: a source in none of these forms.
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
    pairs, void = maps_of(folder_of(name), split)

    def read(picture, truth):
        from PIL import Image

        with Image.open(truth) as opened:  # a palette's indices are the classes
            classes = np.array(opened).astype(np.int32)
        classes = classes[..., 0] if classes.ndim == 3 else classes
        return {"image": pixels(picture), "segmentation": np.where(classes == void, VOID, classes)}

    return reading(pairs, read, {"image": (tf.uint8, 3), "segmentation": (tf.int32, 2)})


def boxed(spec, split="train", trainval=True):
    """Pictures with boxes around their objects.

    Args:
        spec: `world`; `tfds:NAME` with `objects`, such as tfds:voc/2007 or tfds:coco/2017; a
            VOCdevkit's folder (`JPEGImages/`, `Annotations/`, `ImageSets/Main/`); a folder with
            COCO's `annotations/instances_*.json`; a folder with a table `boxes.csv` (file, class,
            xmin, ymin, xmax, ymax in pixels, width, height) or `boxes_yolo.csv` (file, class, cx,
            cy, w, h in 0..1); or such a table or .json itself.
        split: as in `segmented`.
        trainval: VOC's `train` is its trainval, as every table has it; False: its train alone.

    Raises:
        BadInput: a source in none of these forms.
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

    def read(picture, boxes, labels, difficult):
        return {
            "image": pixels(picture),
            "boxes": np.array(boxes, np.float32).reshape(-1, 4),
            "object_label": np.array(labels, np.int64),
            "difficult": np.array(difficult, bool),
        }

    kinds = {
        "image": (tf.uint8, 3),
        "boxes": (tf.float32, 2),
        "object_label": (tf.int64, 1),
        "difficult": (tf.bool, 1),
    }
    data = reading(rows, read, kinds)
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


def like(data, mapped):
    """The mapped dataset with the attributes of the one it was made of."""
    for attribute in ("class_names", "paths", "broken", "total"):
        setattr(mapped, attribute, getattr(data, attribute, []))
    return mapped


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


def reading(rows, read, kinds):
    """A dataset of `read(*row)` for every row, in order; kinds: {key: (dtype, rank)}."""

    def example(index):
        def by_python(position):
            found = read(*rows[int(position)])
            return [found[key] for key in kinds]

        values = tf.numpy_function(by_python, [index], [kind for kind, _ in kinds.values()])
        for value, (key, (_, rank)) in zip(values, kinds.items()):
            last = {"image": [3], "boxes": [4]}.get(key, [])
            value.set_shape([None] * (rank - len(last)) + last)
        return {**dict(zip(kinds, values)), "index": index}

    data = tf.data.Dataset.range(len(rows)).map(
        example, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
    )
    data.paths, data.broken, data.total = [str(row[0]) for row in rows], [], len(rows)
    data.class_names = []
    return data


def maps_of(folder, split):
    """([(picture, map)], the class that is void) of a folder of segmentation."""
    lists = folder / "ImageSets" / "Segmentation"
    if lists.is_dir():
        # What nobody has the truth of cannot be tested on: VOC's test maps were never published.
        has = {path.stem: path.stem for path in lists.glob("*.txt")}
        own = splits.choose(
            {name for name in has if name in ("train", "val", "test")}, split, folder
        )
        names = (lists / f"{own}.txt").read_text().split()
        pairs = [
            (folder / "JPEGImages" / f"{n}.jpg", folder / "SegmentationClass" / f"{n}.png")
            for n in names
        ]
        return checked(pairs, folder, split), VOID
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


def in_splits(folder, pictures, beside, split):
    """Pairs of images/ and masks/, each with train2017/, val2017/ or such below, or flat."""
    below = sorted(path.name for path in (folder / beside).iterdir() if path.is_dir())
    known = {name.rstrip("0123456789"): name for name in below}
    if known:
        own = known[splits.choose(set(known), split, folder)]
        return paired(folder / pictures / own, folder / beside / own, folder, split)
    pairs = paired(folder / pictures, folder / beside, folder, split)
    return [pairs[i] for i in splits.cut([path.name for path, _ in pairs], split, folder)]


def paired(pictures, maps, folder, split):
    named = {path.stem: path for path in pictures.iterdir() if path.suffix.lower() in PICTURES}
    pairs = [(named[path.stem], path) for path in sorted(maps.glob("*.png")) if path.stem in named]
    return checked(pairs, folder, split)


def checked(pairs, folder, split):
    if not pairs:
        raise BadInput(f"{folder} has no picture with a map of the same name in its {split} split.")
    for path in pairs[0]:
        if not path.is_file():
            raise BadInput(f"{folder}: {path.name} is named in its lists, but is not there.")
    return pairs


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
    if trainval and split == "train" and name.startswith("tfds:voc"):
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


def table(path, folder):
    """A .csv with a row an object."""
    with open(path, newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    columns = set(lines[0]) if lines else set()
    corners, centres = {"xmin", "ymin", "xmax", "ymax", "width", "height"}, {"cx", "cy", "w", "h"}
    if not {"file", "class"} <= columns or not (corners <= columns or centres <= columns):
        raise BadInput(
            f"{path} needs the columns file, class and xmin, ymin, xmax, ymax, width, height (in "
            "pixels) or cx, cy, w, h (in 0..1)."
        )
    names = sorted({line["class"] for line in lines})
    number = {name: i for i, name in enumerate(names)}
    rows = {}
    for line in lines:
        found = next(
            (
                place / line["file"]
                for place in (folder, folder.parent)
                if (place / line["file"]).is_file()
            ),
            None,
        )
        if found is None:
            raise BadInput(f"{path} names {line['file']}, which is not there.")
        if corners <= columns:
            width, height = float(line["width"]), float(line["height"])
            x1, y1, x2, y2 = (float(line[key]) for key in ("xmin", "ymin", "xmax", "ymax"))
            box = (y1 / height, x1 / width, y2 / height, x2 / width)
        else:
            x, y, w, h = (float(line[key]) for key in ("cx", "cy", "w", "h"))
            box = (y - h / 2, x - w / 2, y + h / 2, x + w / 2)
        _, boxes, labels, difficult = rows.setdefault(found, (found, [], [], []))
        boxes.append(np.clip(box, 0, 1))
        labels.append(number[line["class"]])
        difficult.append(False)
    return [rows[key] for key in sorted(rows)], names


def coco(path, folder):
    """COCO's instances; crowds count as difficult. Classes are numbered by their ids' order."""
    held = json.loads(path.read_text(encoding="utf-8"))
    if not {"images", "annotations", "categories"} <= set(held):
        raise BadInput(f"{path} is not of COCO's form: images, annotations and categories.")
    categories = sorted(held["categories"], key=lambda entry: entry["id"])
    number = {entry["id"]: i for i, entry in enumerate(categories)}
    places = {file.name: file for file in folder.rglob("*") if file.suffix.lower() in PICTURES}
    rows = {}
    for entry in held["images"]:
        name = pathlib.PurePath(entry["file_name"]).name
        if name not in places:
            raise BadInput(f"{path} names {entry['file_name']}, which is not below {folder}.")
        rows[entry["id"]] = (places[name], [], [], [], entry["width"], entry["height"])
    for entry in held["annotations"]:
        _, boxes, labels, difficult, width, height = rows[entry["image_id"]]
        x, y, w, h = entry["bbox"]
        box = (y / height, x / width, (y + h) / height, (x + w) / width)
        boxes.append(np.clip(box, 0, 1))
        labels.append(number[entry["category_id"]])
        difficult.append(bool(entry.get("iscrowd", 0)))
    return [row[:4] for row in rows.values()], [entry["name"] for entry in categories]


def voc(folder, split, trainval=True):
    """A VOCdevkit's year; `train` is trainval. Boxes count pixels from 1, both ends inside."""
    from xml.etree import ElementTree

    lists = folder / "ImageSets" / "Main"
    has = {file.stem for file in lists.glob("*.txt")} & {"train", "val", "trainval", "test"}
    if has:
        own = "trainval" if trainval and split == "train" and "trainval" in has else None
        own = own or splits.choose(has, split, folder)
        names = (lists / f"{own}.txt").read_text().split()
    else:
        every = sorted(file.stem for file in (folder / "Annotations").glob("*.xml"))
        names = [every[i] for i in splits.cut(every, split, folder)]
    # Classes are numbered over all splits, so that no two of them differ.
    trees = {
        file.stem: ElementTree.parse(file).getroot()
        for file in sorted((folder / "Annotations").glob("*.xml"))
    }
    classes = sorted(
        {found.findtext("name") for tree in trees.values() for found in tree.iter("object")}
    )
    rows = []
    for name in names:
        tree = trees[name]
        width, height = (float(tree.findtext(f"size/{key}")) for key in ("width", "height"))
        row = (folder / "JPEGImages" / f"{name}.jpg", [], [], [])
        for found in tree.iter("object"):
            x1, y1, x2, y2 = (
                float(found.findtext(f"bndbox/{key}")) for key in ("xmin", "ymin", "xmax", "ymax")
            )
            row[1].append(((y1 - 1) / height, (x1 - 1) / width, y2 / height, x2 / width))
            row[2].append(classes.index(found.findtext("name")))
            row[3].append(found.findtext("difficult", "0") == "1")
        rows.append(row)
    return rows, classes
