"""Our ResNets keep their features in Model Garden, and boxes are scored as VOC and COCO do."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.command_line import call
from tfssl import encoders
from tfssl.errors import BadInput
from tfssl.evaluate.detection import counted, detection, overlap, score, voc_ap
from tfssl.evaluate.model_garden import backbone
from tfssl.pipelines import errors, sources
from tfssl.pipelines.sources import annotated


def lived(name, size):
    """An encoder whose norms are far from where they began."""
    keras.utils.set_random_seed(0)
    encoder, generator = encoders.get(name, size=size), np.random.default_rng(0)
    for layer in encoder.layers:
        if hasattr(layer, "moving_mean"):
            width = layer.gamma.shape
            layer.moving_mean.assign(generator.normal(0, 0.1, width))
            layer.moving_variance.assign(generator.uniform(0.8, 3, width))
            layer.gamma.assign(generator.uniform(0.2, 0.5, width))
            layer.beta.assign(generator.normal(0, 0.1, width))
    return encoder


@pytest.mark.parametrize(
    "name, size, first",
    [("resnet18", 32, 0), ("resnet18", 224, 2), ("resnet50", 224, 2), ("resnet50", 32, 0)],
)
def test_features_in_model_garden_equal_ours_at_every_stage(name, size, first):
    from official.vision.ops import preprocess_ops

    encoder = lived(name, size)
    images = np.random.default_rng(1).random((2, 64, 64, 3)).astype(np.float32)
    ours = encoders.representation(encoder)(images)
    trunk = backbone(encoder, 64)
    theirs = trunk(preprocess_ops.normalize_image(images), training=True)  # its norms are frozen
    assert sorted(theirs) == [str(first + i) for i in range(4)] == sorted(trunk.output_specs)
    for stage in range(4):
        found, expected = theirs[str(first + stage)].numpy(), ours[f"c{stage + 2}"].numpy()
        assert found.shape == expected.shape and 64 // found.shape[1] == 2 ** (first + stage)
        assert np.abs(expected).max() > 0.1
        np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("name", ["resnet9", "alexnet", "vit_mini"])
def test_an_encoder_that_model_garden_does_not_know_is_refused(name):
    with pytest.raises(BadInput, match="one of our ResNets"):
        backbone(encoders.get(name, size=32))


def picture(boxes, labels, difficult=None, scores=None, size=(100, 100)):
    found = {"boxes": np.array(boxes, float).reshape(-1, 4), "labels": np.array(labels, int)}
    if scores is not None:
        return {**found, "scores": np.array(scores, float)}
    hard = np.zeros(len(labels), bool) if difficult is None else np.array(difficult, bool)
    return {**found, "difficult": hard, "size": size}


FAR = [[0, 0, 10, 10], [20, 20, 30, 30], [40, 40, 50, 50], [60, 60, 70, 70]]
NOWHERE = [85, 85, 99, 99]


def test_the_worked_detections_have_both_averages():
    """Hits 1, 0, 1, 0, 0, 1 with four objects."""
    boxes = [FAR[0], NOWHERE, FAR[1], NOWHERE, NOWHERE, FAR[2]]
    found = [picture(boxes, [0] * 6, scores=[0.9, 0.8, 0.7, 0.6, 0.5, 0.4])]
    truth = [picture(FAR, [0] * 4)]
    assert voc_ap(found, truth, 0, "area") == pytest.approx(0.541667, abs=1e-6)
    assert voc_ap(found, truth, 0, "11point") == pytest.approx(0.545455, abs=1e-6)


def test_a_second_detection_of_one_object_is_a_mistake():
    truth = [picture(FAR[:1], [0])]
    once = [picture([NOWHERE, FAR[0]], [0, 0], scores=[0.1, 0.9])]
    twice = [picture([FAR[0], FAR[0]], [0, 0], scores=[0.8, 0.9])]
    wrong_first = [picture([NOWHERE, FAR[0]], [0, 0], scores=[0.9, 0.8])]
    assert voc_ap(once, truth, 0, "area") == voc_ap(twice, truth, 0, "area") == 1
    assert voc_ap(wrong_first, truth, 0, "area") == 0.5
    second = [picture(FAR[:2], [0, 0])]
    assert voc_ap(
        [picture([FAR[0], FAR[0], FAR[1]], [0] * 3, scores=[3, 2, 1])], second, 0, "area"
    ) == pytest.approx((1 + 2 / 3) / 2)


def test_difficult_objects_count_neither_way():
    truth = [picture(FAR[:2], [0, 0], difficult=[True, False])]
    both = [picture(FAR[:2], [0, 0], scores=[0.9, 0.8])]
    only = [picture(FAR[1:2], [0], scores=[0.8])]
    assert score(both, truth, 1) == score(only, truth, 1)
    assert score(both, truth, 1)["AP50_area"] == pytest.approx(1)
    assert score(both, truth, 1)["AP"] == pytest.approx(1)


def test_overlap_is_counted_in_continuous_coordinates():
    assert overlap(np.array([0, 0, 10, 10.0]), np.array([[0, 5, 10, 15.0]]))[0] == pytest.approx(
        1 / 3
    )


def test_perfect_detections_score_one_and_shifted_ones_less_the_stricter_the_measure():
    truth = [picture(FAR, [0, 1, 0, 1]), picture(FAR[:2], [1, 0])]
    perfect = [picture(t["boxes"], t["labels"], scores=np.ones(len(t["labels"]))) for t in truth]
    assert all(
        score(perfect, truth, 2)[k] == pytest.approx(1)
        for k in ("AP", "AP50", "AP75", "AP50_area", "AP50_11point")
    )
    shifted = [{**part, "boxes": part["boxes"] + [0, 0, 0, 3.4]} for part in perfect]  # IoU 0.746
    found = score(shifted, truth, 2)
    assert found["AP50"] == pytest.approx(1) and found["AP75"] == 0
    assert found["AP"] == pytest.approx(0.5)  # right at 0.5, 0.55, .., 0.7: five of ten
    assert score([picture([], [], scores=[])] * 2, truth, 2)["AP50"] == 0


def test_classes_that_do_not_occur_are_left_out_of_the_mean():
    truth = [picture(FAR[:1], [0])]
    found = score([picture(FAR[:1], [0], scores=[1])], truth, 3)
    assert found["AP50_area"] == 1 and found["ap_by_class"] == [1, None, None]


def squares(count, size=64, seed=0):
    """Pictures with one bright square each, as examples of `boxed`."""
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 60, (count, size, size, 3)).astype(np.uint8)
    boxes = np.zeros((count, 2, 4), np.float32)
    for i in range(count):
        y, x = generator.integers(4, size - 30, 2)
        images[i, y : y + 24, x : x + 24] = [250, 220, 30]
        boxes[i, 0] = np.array([y, x, y + 24, x + 24]) / size
    labels = np.tile([0, -1], [count, 1])
    return tf.data.Dataset.from_tensor_slices(
        {"image": images, "boxes": boxes, "object_label": labels.astype(np.int64)}
    )


def test_a_class_that_only_the_test_shows_counts():
    train, test = ([{"object_label": np.array(labels)}] for labels in ([0, -1], [0, 2]))
    assert counted(train, test) == 3 and counted(train, test, classes=5) == 5
    with pytest.raises(BadInput, match="class 2"):
        counted(train, test, classes=2)
    with pytest.raises(BadInput, match="no object"):
        counted([{"object_label": np.zeros(0, int)}], test)
    found = [{**picture([[0, 0, 10, 10]], [0]), "scores": np.ones(1)}]
    truth = [picture([[0, 0, 10, 10], [20, 20, 40, 40]], [0, 2])]
    assert score(found, truth, 3)["AP50_area"] == 0.5


def test_a_detector_whose_loss_is_no_number_is_refused():
    import types

    import tf_keras

    from tfssl.evaluate.detection import _fit

    model = tf_keras.Sequential([tf_keras.layers.Dense(1)])
    task = types.SimpleNamespace(
        build_losses=lambda outputs, labels: (tf.reduce_mean(outputs - labels),)
    )
    for value in (1.0, np.nan):
        batches = tf.data.Dataset.from_tensors((tf.fill([2, 3], value), tf.zeros([2, 1]))).repeat()
        if np.isfinite(value):
            assert len(_fit(model, task, batches, 3, 0.1, 0.0)) == 3
            continue
        with pytest.raises(BadInput, match="loss became NaN"):
            _fit(model, task, batches, 3, 0.1, 0.0)


def test_data_without_boxes_are_refused_in_a_sentence():
    rows = tf.data.Dataset.from_tensor_slices({"image": np.zeros((2, 8, 8, 3), np.uint8)})
    with pytest.raises(BadInput, match="boxes"):
        detection(encoders.get("resnet18"), rows, rows)
    with pytest.raises(errors.BadInput, match="digits has one label"):
        annotated.boxed("digits")


@pytest.mark.slow
def test_the_command_detects_in_world(tmp_path, monkeypatch):
    import functools

    import tfssl
    from tfssl import evaluate

    few = dict(size=64, iterations=2, batch_size=2, width=16, convolutions=1)
    monkeypatch.setitem(evaluate.ANNOTATED, "detection", functools.partial(detection, **few))
    tfssl.export(encoders.get("resnet18", size=224), tmp_path / "encoder")
    words = ("--protocol", "detection", "--json", tmp_path / "r.json", "--quiet")
    done = call("evaluate", tmp_path / "encoder", "--data", "world:size=64,n=4", *words)
    assert done.code == 0, done.err
    result = json.loads((tmp_path / "r.json").read_text())["results"]["detection"]
    assert {"AP", "AP50", "AP75", "AP50_11point", "AP50_area"} <= set(result)
    assert result["test_examples"] == 4 and np.isfinite(result["loss"]) and "AP50" in done.out


@pytest.mark.slow
def test_squares_are_found_after_a_minute():
    encoder = encoders.get("resnet18", size=224)
    settings = dict(size=64, iterations=120, batch_size=8, width=32, convolutions=1)
    result = detection(encoder, squares(64), squares(16, seed=1), **settings)
    assert result["AP50"] > 0.5 and result["AP50_area"] > 0.5


def saved(path, array):
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


IMAGE = np.zeros((20, 40, 3), np.uint8)
BOX = [0.25, 0.1, 0.75, 0.6]  # y 5..15 of 20, x 4..24 of 40


def as_voc(folder):
    for name in ("000001", "000002"):
        saved(folder / "JPEGImages" / f"{name}.jpg", IMAGE)
        (folder / "Annotations").mkdir(exist_ok=True)
        objects = "".join(
            f"<object><name>{kind}</name><difficult>{hard}</difficult><bndbox><xmin>5</xmin>"
            f"<ymin>6</ymin><xmax>24</xmax><ymax>15</ymax></bndbox></object>"
            for kind, hard in (("dog", 0), ("cat", 1))
        )
        size = "<size><width>40</width><height>20</height></size>"
        (folder / "Annotations" / f"{name}.xml").write_text(f"<a>{size}{objects}</a>")
    lists = folder / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "trainval.txt").write_text("000001\n")
    (lists / "test.txt").write_text("000002\n")


def as_coco(folder):
    for split, name in (("train2017", "1.jpg"), ("val2017", "2.jpg")):
        saved(folder / split / name, IMAGE)
        entry = {"image_id": 7, "bbox": [4, 5, 20, 10]}
        held = {
            "images": [{"id": 7, "file_name": name, "width": 40, "height": 20}],
            "annotations": [
                {**entry, "category_id": 18, "iscrowd": 0},
                {**entry, "category_id": 17, "iscrowd": 1},
            ],
            "categories": [{"id": 18, "name": "dog"}, {"id": 17, "name": "cat"}],
        }
        (folder / "annotations").mkdir(exist_ok=True)
        (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(held))


def test_pictures_of_one_name_are_told_apart_by_their_folders(tmp_path):
    as_coco(tmp_path)
    (tmp_path / "val2017" / "2.jpg").unlink()
    saved(tmp_path / "val2017" / "1.jpg", 255 - IMAGE)
    held = tmp_path / "annotations" / "instances_val2017.json"
    held.write_text(held.read_text().replace("2.jpg", "1.jpg"))
    for split, brightness in (("train", IMAGE.mean()), ("test", (255 - IMAGE).mean())):
        (example,) = list(annotated.boxed(str(tmp_path), split))
        assert abs(example["image"].numpy().mean() - brightness) < 3
    for split in ("train2017", "val2017"):
        (tmp_path / split).rename(tmp_path / f"pictures-{split}")
    with pytest.raises(ValueError, match=r"images\[0\]: no .*1\.jpg, but .* which one"):
        annotated.boxed(str(tmp_path), "train")


def as_table(folder):
    lines = ["file,width,height,class,xmin,ymin,xmax,ymax"]
    for split, name in (("train2017", "1.jpg"), ("val2017", "2.jpg")):
        saved(folder / "images" / split / name, IMAGE)
        for kind in ("dog", "cat"):
            lines.append(f"images/{split}/{name},40,20,{kind},4,5,24,15")
    (folder / "boxes.csv").write_text("\n".join(lines))


def as_yolo(folder):
    as_table(folder)
    (folder / "boxes.csv").unlink()
    lines = ["file,width,height,class_id,class,cx,cy,w,h"]
    for name in ("train2017/1.jpg", "val2017/2.jpg"):
        for kind in ("dog", "cat"):
            lines.append(f"images/{name},40,20,9,{kind},0.35,0.5,0.5,0.5")
    (folder / "boxes_yolo.csv").write_text("\n".join(lines))


@pytest.mark.parametrize("form", [as_voc, as_coco, as_table, as_yolo])
def test_boxes_of_every_form_are_the_same(form, tmp_path):
    form(tmp_path)
    for split in ("train", "test"):
        data = annotated.boxed(str(tmp_path), split)
        (example,) = list(data)
        np.testing.assert_allclose(example["boxes"], [BOX, BOX], atol=1e-6)
        assert data.class_names == ["cat", "dog"]
        np.testing.assert_array_equal(example["object_label"], [1, 0])
        assert example["image"].shape == IMAGE.shape
        hard = form in (as_voc, as_coco)
        np.testing.assert_array_equal(example["difficult"], [False, hard])
        (tags,) = list(annotated.tagged(str(tmp_path), split))
        assert sorted(tags["labels"].numpy()) == [0, 1]
        assert sorted(tags["labels_no_difficult"].numpy()) == ([1] if hard else [0, 1])


@pytest.fixture
def voc(tmp_path, monkeypatch):
    """tfds:voc as TFDS leaves it on the disk, of a few made pictures; 2012's test has no truth."""
    import tensorflow_datasets as tfds

    names = ["aeroplane", "bicycle", "bird"]

    class Voc(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("5.0.0")
        BUILDER_CONFIGS = tuple(tfds.core.BuilderConfig(name=year) for year in ("2007", "2012"))
        pkg_dir_path = tmp_path

        def _info(self):
            kind = tfds.features.ClassLabel(names=names)
            inside = {"label": kind, "bbox": tfds.features.BBoxFeature(), "is_difficult": np.bool_}
            features = {
                "image": tfds.features.Image(),
                "image/filename": tfds.features.Text(),
                "objects": tfds.features.Sequence(inside),
                "labels": tfds.features.Sequence(kind),
                "labels_no_difficult": tfds.features.Sequence(kind),
            }
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _split_generators(self, _):
            return {
                "train": self._generate_examples(6),
                "validation": self._generate_examples(6),
                "test": self._generate_examples(5, self.builder_config.name == "2007"),
            }

        def _generate_examples(self, count, told=True):
            for i in range(count):
                objects = [
                    {"label": i % 3, "bbox": tfds.features.BBox(*BOX), "is_difficult": False},
                    {
                        "label": 2,
                        "bbox": tfds.features.BBox(0.0, 0.0, 0.5, 0.5),
                        "is_difficult": True,
                    },
                ]
                yield (
                    i,
                    {
                        "image": np.full((30 + i, 40, 3), 20 * i, np.uint8),
                        "image/filename": f"{i}.jpg",
                        "objects": objects if told else [],
                        "labels": sorted({i % 3, 2}) if told else [],
                        "labels_no_difficult": [i % 3] if told else [],
                    },
                )

    for year in ("2007", "2012"):
        Voc(data_dir=tmp_path, config=year).download_and_prepare()
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))


def test_a_prepared_voc_gives_boxes_and_its_train_is_trainval(voc):
    train, test = annotated.boxed("tfds:voc/2007"), annotated.boxed("tfds:voc/2007@test")
    assert (int(train.cardinality()), int(test.cardinality())) == (12, 5)
    assert int(annotated.boxed("tfds:voc/2007", "train", trainval=False).cardinality()) == 6
    assert train.class_names == ["aeroplane", "bicycle", "bird"]
    assert [int(e["index"]) for e in train] == list(range(12))
    first = next(iter(test))
    np.testing.assert_allclose(first["boxes"][0], BOX)
    np.testing.assert_array_equal(first["difficult"], [False, True])
    for tags in annotated.tagged("tfds:voc/2007", "test"):
        number = int(tags["image"][0, 0, 0]) // 20
        assert sorted(tags["labels"].numpy()) == sorted({number % 3, 2})
        assert tags["labels_no_difficult"].numpy().tolist() == [number % 3]
    with pytest.raises(errors.BadInput, match="TFDS keeps VOC without its maps"):
        annotated.segmented("tfds:voc/2007")


def test_a_prepared_voc_without_a_test_trains_on_train_and_is_measured_on_val(voc):
    def size(year, split, measured):
        spec = f"tfds:voc/{year}"
        return int(annotated.tagged(spec, split, trainval=measured == "test").cardinality())

    assert (size(2007, "train", "test"), size(2007, "test", "test")) == (12, 5)
    assert (size(2007, "train", "val"), size(2007, "val", "val")) == (6, 6)
    assert (size(2012, "train", "test"), size(2012, "test", "test")) == (6, 6)
    assert all(len(e["labels"]) for e in annotated.tagged("tfds:voc/2012", "test"))


def test_the_shared_sets_of_boxes_read(shared):
    folder = shared / "data" / "detection_small"
    for name, classes in (("raccoon", 1), ("kangaroo", 1), ("coco", 75)):
        parts = [annotated.boxed(folder / name, split) for split in ("train", "test")]
        assert all(int(part.cardinality()) > 0 for part in parts)
        assert len(parts[0].class_names) == classes
        for example in parts[1].take(3):
            boxes = example["boxes"].numpy()
            assert (boxes[:, :2] < boxes[:, 2:]).all() and boxes.min() >= 0 and boxes.max() <= 1
            assert example["image"].shape[-1] == 3


def as_devkit(folder, *lists):
    """Six pictures of a VOCdevkit in lists of names; those whose number is above 5 have no .xml."""
    as_voc(folder)
    note = (folder / "Annotations" / "000001.xml").read_text()
    for file in (folder / "ImageSets" / "Main").iterdir():
        file.unlink()
    for i in range(1, 7):
        saved(folder / "JPEGImages" / f"{i:06d}.jpg", IMAGE)
        if i < 6:
            (folder / "Annotations" / f"{i:06d}.xml").write_text(note)
    names = {"train": (1, 2), "val": (3,), "trainval": (1, 2, 3), "test": (4, 5), "untold": (5, 6)}
    for split in lists:
        text = "".join(f"{i:06d}\n" for i in names[split])
        (folder / "ImageSets" / "Main" / f"{split.replace('untold', 'test')}.txt").write_text(text)


VAL = ("train", "val", "trainval")


@pytest.mark.parametrize(
    "lists, measured, sizes",
    [
        (VAL, "test", (2, 1)),
        (VAL, "val", (2, 1)),
        ((*VAL, "untold"), "test", (2, 1)),
        ((*VAL, "test"), "test", (3, 2)),
        ((*VAL, "test"), "val", (2, 1)),
    ],
)
@pytest.mark.parametrize("form", [annotated.boxed, annotated.tagged])
def test_no_picture_is_both_trained_and_tested_on(form, lists, measured, sizes, tmp_path):
    as_devkit(tmp_path, *lists)
    parts = [form(tmp_path, part, trainval=measured == "test") for part in ("train", measured)]
    assert not set(parts[0].paths) & set(parts[1].paths)
    assert tuple(len(list(part)) for part in parts) == sizes


def test_damaged_pictures_are_skipped_listed_and_counted(tmp_path):
    as_devkit(tmp_path, *VAL)
    picture = tmp_path / "JPEGImages" / "000001.jpg"
    picture.write_bytes(picture.read_bytes()[:200])
    for form in (annotated.boxed, annotated.tagged):
        data = form(tmp_path, "train")
        assert [int(example["index"]) for example in data] == [0]
        assert [path for path, _ in data.broken] == ["JPEGImages/000001.jpg"] and data.total == 2
        assert [path[-10:] for path in data.paths] == ["000002.jpg"]
    few = pytest.raises(errors.BadInput, match=r"1 of 2 files are broken .*000001.jpg")
    with sources.accepting(0.4), few:
        annotated.boxed(tmp_path, "train")
    (tmp_path / "JPEGImages" / "000002.jpg").unlink()
    none = pytest.raises(errors.BadInput, match="nothing is left to read")
    with sources.accepting(1.0), none:
        annotated.boxed(tmp_path, "train")


def replaced(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


COCO, VOC, TABLE = "annotations/instances_train2017.json", "Annotations/000001.xml", "boxes.csv"


@pytest.mark.parametrize(
    "form, name, old, new, told",
    [
        (as_table, TABLE, "dog,4", "dog,four", "row 2, column 'xmin': 'four' is no number"),
        (as_table, TABLE, "dog,4", "dog,nan", "row 2, column 'xmin': 'nan'"),
        (as_table, TABLE, "40,20,cat", "0,20,cat", "row 3: .*0 x 20 pixels"),
        (as_table, TABLE, ",24,15", ",24", "row 2, column 'ymax'"),
        (as_table, TABLE, "40,20,cat", "40,20,", "row 3, column 'class' is empty"),
        (as_yolo, "boxes_yolo.csv", "0.35", "x", "row 2, column 'cx'"),
        (as_coco, COCO, "{", "", "no JSON"),
        (as_coco, COCO, "{", '[{"images":', "no JSON"),
        (as_coco, COCO, '"images": [', '"images": 3, "x": [', "not of COCO's form"),
        (as_coco, COCO, '"width": 40, ', "", r"images\[0\].* has no 'width'"),
        (as_coco, COCO, '"image_id": 7', '"image_id": 8', r"annotations\[0\].*no image .* 8"),
        (as_coco, COCO, '"category_id": 17', '"category_id": 1', r"annotations\[1\].*category"),
        (as_coco, COCO, "[4, 5, 20, 10]", "[4, 5, 20]", r"annotations\[0\] cannot be understood"),
        (as_coco, COCO, "[4, 5, 20, 10]", '["a", 5, 20, 10]', r"annotations\[0\], 'bbox': 'a'"),
        (as_coco, COCO, '"id": 18, ', "", "categories has no 'id'"),
        (as_voc, VOC, "</a>", "", "no XML"),
        (as_voc, VOC, "<width>40</width>", "", "has no <size><width>"),
        (as_voc, VOC, "<xmin>5", "<xmin>five", "'five' is no number"),
        (as_voc, VOC, "<name>cat</name>", "", "has no <name>"),
        (as_voc, "ImageSets/Main/trainval.txt", "1", "1\n000009", "names 000009"),
    ],
)
def test_a_fault_in_annotations_is_told_with_its_file(form, name, old, new, told, tmp_path):
    form(tmp_path)
    replaced(tmp_path / name, old, new)
    with pytest.raises(errors.BadInput, match=f"{name.rpartition('/')[2]}.*{told}"):
        annotated.boxed(tmp_path, "train")


@pytest.mark.parametrize(
    "encoder", [("text_bag", {"dim": 8}), ("audio_cnn", {"width": 4}), ("cnn3d", {"width": 4})]
)
def test_detection_with_an_encoder_of_another_kind_is_refused(encoder):
    name, settings = encoder
    with pytest.raises(BadInput, match="detection needs an encoder of pictures"):
        detection(encoders.get(name, **settings), squares(2), squares(2))
