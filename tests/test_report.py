"""The sheet of views and the report: whole, self-contained, honest about what is missing."""

import html.parser
import json
import pathlib
import re
import shutil
import subprocess

import numpy as np
import pytest

from tfssl import report
from tfssl.errors import BadInput
from tfssl.report import charts, style

VOID = {"meta", "link", "img", "br", "wbr", "input", "hr"}
RNG = np.random.default_rng(0)


def images(count=6, size=32):
    return RNG.random((count, size, size, 3)).astype(np.float32)


class Strict(html.parser.HTMLParser):
    """Fails on anything unbalanced, on scripts, and on anything that would be fetched."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.open, self.ids, self.links, self.text, self.tags = [], [], [], [], []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append(tag)
        assert tag not in ("script", "iframe", "object", "embed"), tag
        assert not [name for name in attrs if name.startswith("on")], attrs
        for name in ("src", "href", "data", "action"):
            if name in attrs:
                assert attrs[name].startswith(("data:", "#")), attrs[name]
                if attrs[name].startswith("#"):
                    self.links.append(attrs[name][1:])
        if "id" in attrs:
            self.ids.append(attrs["id"])
        if tag == "img":
            assert attrs["alt"]
        if tag == "svg":
            assert attrs["role"] == "img" and attrs["aria-label"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, (tag, self.open[-3:])

    def handle_data(self, data):
        self.text.append(data)


def parsed(path):
    text = pathlib.Path(path).read_text("utf-8")
    parser = Strict()
    parser.feed(text)
    parser.close()
    assert not parser.open
    assert len(set(parser.ids)) == len(parser.ids)
    assert set(parser.links) <= set(parser.ids)
    assert not re.search(r"@import|url\((?!data:)", text)
    return parser, " ".join("".join(parser.text).split())


def spread(value, **settings):
    return {"top1": value, "top1_low": value - 0.01, "top1_high": value + 0.01, **settings}


def fabricate(folder, method="image.simclr", gain=1.0, labels=True):
    """A run directory as `pretrain`, `evaluate` and `gather` leave it."""
    folder.mkdir(parents=True)
    history = [
        {
            "epoch": e,
            "loss": 5.0 / (1 + gain * e),
            "val_loss": 5.1 / (1 + gain * e),
            **({f"knn_{k}": v + e / 50 for k, v in spread(0.3).items()} if e % 2 else {}),
            "health_std": 0.9,
            "health_rank": 20.0 + e,
            "health_alignment": 0.5,
            "health_uniformity": -2.0,
            "health_loss_to_chance": 0.7,
            "seconds": 10.0,
            "examples_per_second": 500.0,
        }
        for e in range(6)
    ]
    (folder / "history.json").write_text(json.dumps(history))
    run = {
        "method": method,
        "call": f"tfssl pretrain {method} --small --data digits --out runs/x",
        "arguments": {"encoder": "resnet9", "batch_size": 64},
        "versions": {"tensorflow": "2.20.0", "keras": "3.15.1"},
        "seed": 7,
        "host": {"cpu": "two cores"},
        "precision": "mixed_bfloat16",
        "strategy": "one",
        "modality": "image",
        "size": 32,
        "data": "digits",
        "finished": True,
    }
    (folder / "run.json").write_text(json.dumps(run))
    results = {
        "knn": spread(0.4 * gain, k=20, temperature=0.07),
        "retrieval": {"R@1": 0.3 * gain, "median_rank": 3.0 / gain},
        "layers": {"taps": 2, "c1_C": 0.1, "c2_C": 1.0, "c1_dimensions": 64}
        | {f"c1_{key}": value for key, value in spread(0.2).items()}
        | {f"c2_{key}": value for key, value in spread(0.3 * gain).items()},
    }
    evaluation = {
        "encoder": "runs/x",
        "data": "digits@test",
        "results": results,
        "random": {"knn": spread(0.342, k=20, temperature=0.07)},
        "supervised": spread(0.9, labels=1.0, epochs=30),
    }
    (folder / "evaluation.json").write_text(json.dumps(evaluation))
    report.sheet({"image": images()}, images()[:, None].repeat(2, 1), None, folder / "sheet.png")
    (folder / "encoder").mkdir()
    (folder / "encoder" / "saved_model.pb").write_bytes(b"")
    label = np.arange(40) % 4
    batch = {"image": (images(40, 16) * 255).astype(np.uint8)}
    batch |= {"label": label} if labels else {}
    features = np.eye(8, dtype=np.float32)[label] + 0.1 * RNG.random((40, 8)).astype(np.float32)
    report.gather(lambda x: features[: len(x)], [batch], folder, classes=["a", "b", "c", "<d>"])
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    return [
        fabricate(root / "one"),
        fabricate(root / "two", "image.rotation", 0.8, labels=False),
    ]


# The sheet

CLIPS = RNG.random((6, 12, 16, 16, 3)).astype(np.float32)
SOUND = np.sin(np.arange(8000) / 9).astype(np.float32)[None].repeat(6, 0)
TEXT = np.array([b"a red ball falls", "später <b>".encode(), b"", b"x" * 300, b"\xff\xfe", b"e"])
SEEN = {
    "views": (images()[:, None].repeat(4, 1), np.tile(np.arange(4), (6, 1))),
    "one image": (images(), None),
    "image targets": (images()[..., :1], 200 * images() - 100),
    "flow": (CLIPS[:, :2], RNG.normal(size=(6, 16, 16, 2)).astype(np.float32)),
    "multi-crop": ({"global": CLIPS[:, :2], "local": CLIPS[:, :4, :8, :8]}, None),
    "tiles": (CLIPS[:, :9], np.arange(6)),
    "clips": (CLIPS, RNG.random(6).astype(np.float32)),
    "views of clips": (np.stack([CLIPS, CLIPS], 1), None),
    "picture and sound": ({"image": images(), "audio": SOUND}, np.arange(6) % 2),
    "two sounds": (np.stack([SOUND, SOUND], 1), None),
    "spectrogram": (RNG.random((6, 98, 64)).astype(np.float32), None),
    "patches": (
        {"image": images(), "mask": RNG.random((6, 64)) < 0.7},
        images().reshape(6, 64, 48),
    ),
    "noise": ({"image": images(), "noise": RNG.random((6, 64))}, None),
    "text": (TEXT, TEXT),
    "ids": ({"centre": np.arange(6), "negatives": np.arange(90).reshape(6, 15)}, None),
    "sentences": (np.arange(60).reshape(6, 2, 5), None),
    "probabilities": (images(), RNG.dirichlet(np.ones(10), 6).astype(np.float32)),
    "masks": (images(), RNG.random((6, 32, 32)) < 0.5),
    "tasks": ({"a": images(), "b": {"x": images()}}, {"a": np.arange(6)}),
    "folded batch": (np.concatenate([images()] * 4), np.arange(24) % 4),
    "not finite": (np.full((6, 8, 8, 3), np.nan, np.float32), None),
    "cost volume": (RNG.random((6, 20, 5, 5, 7)).astype(np.float32), None),
    "pair of inputs": ((images(), SOUND), None),
}


@pytest.mark.parametrize("case", SEEN)
def test_the_sheet_draws_whatever_views_return(case, tmp_path):
    from PIL import Image

    x, y = SEEN[case]
    examples = {"image": (images() * 255).astype(np.uint8), "label": np.arange(6)}
    path = report.sheet(examples, x, y, tmp_path / "new" / "sheet.png", title=case)
    picture = np.asarray(Image.open(path))
    assert 200 < picture.shape[1] < 3000
    assert picture.std() > 5
    assert [file.name for file in path.parent.iterdir()] == ["sheet.png"]


def test_the_sheet_takes_tensors_and_ragged_ones(tmp_path):
    import tensorflow as tf

    x = {"ids": tf.ragged.constant([[1, 2], [3]]), "half": tf.ones([2, 8, 8, 3], tf.bfloat16)}
    examples = {"frames": tf.zeros([2, 5, 8, 8, 3], tf.uint8), "text": tf.constant(["a", "b"])}
    assert report.sheet(examples, x, None, tmp_path / "s.png").stat().st_size > 1000


def test_more_views_make_a_wider_sheet_and_more_examples_a_taller_one(tmp_path):
    from PIL import Image

    def size(views, rows):
        x = images()[:, None].repeat(views, 1)
        path = report.sheet({"image": images()}, x, None, tmp_path / "s.png", rows=rows)
        return Image.open(path).size

    assert size(4, 3)[0] > size(2, 3)[0]
    assert size(2, 5)[1] > size(2, 3)[1]


def test_a_sheet_of_nothing_or_to_nowhere_is_refused_and_leaves_nothing(tmp_path):
    with pytest.raises(BadInput, match="empty"):
        report.sheet({"image": images(0)}, images(0), None, tmp_path / "s.png")
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="cannot write"):
        report.sheet({"image": images()}, images(), None, tmp_path / "file" / "s.png")
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


# Gathering


def test_gathered_neighbours_are_the_most_similar_by_cosine(tmp_path):
    vectors = RNG.normal(size=(30, 5)).astype(np.float32)
    batches = [{"image": images(10, 8), "label": np.arange(10)} for _ in range(3)]
    parts = iter(np.split(vectors, 3))
    path = report.gather(lambda x: next(parts), batches, tmp_path, k=3, queries=4)
    with np.load(path) as stored:
        assert stored["thumbnails"].shape == (30, 64, 64, 3)
        assert stored["label"].shape == (30,)
        for query, near, similar in zip(
            *(stored[n] for n in ("queries", "neighbours", "similarities"))
        ):
            cosine = [
                np.dot(vectors[query], v) / np.linalg.norm(vectors[query]) / np.linalg.norm(v)
                for v in vectors
            ]
            cosine[query] = -2
            assert list(near) == sorted(range(30), key=lambda i: -cosine[i])[:3]
            np.testing.assert_allclose(similar, sorted(cosine)[::-1][:3], rtol=1e-5)


def test_gathering_scales_bytes_stops_at_the_limit_and_counts_parameters(tmp_path):
    import keras

    encoder = keras.Sequential([keras.Input([8, 8, 3]), keras.layers.GlobalAveragePooling2D()])
    batch = {"image": np.full([8, 8, 8, 3], 255, np.uint8)}
    with np.load(report.gather(encoder, [batch] * 9, tmp_path, limit=20)) as stored:
        np.testing.assert_allclose(stored["features"], np.ones([20, 3]))
        assert "label" not in stored.files


def test_what_is_gathered_of_class_folders_is_of_every_class(tmp_path):
    import tensorflow as tf

    from tfssl.pipelines import batching

    label = np.repeat(np.arange(4), 50)
    data = tf.data.Dataset.from_tensor_slices({"image": images(200, 8), "label": label})
    batches = batching.evaluation(data, 16)
    path = report.gather(lambda x: x[:, 0, 0], batches, tmp_path, limit=40)
    with np.load(path) as stored:
        assert np.bincount(stored["label"]).tolist() == [10, 10, 10, 10]


@pytest.mark.parametrize("modality", ["frames", "audio", "text", "ids", "spectrogram"])
def test_every_modality_gets_its_neighbours_on_the_page(modality, tmp_path):
    batch = {"frames": CLIPS, "audio": SOUND, "text": TEXT, "ids": np.arange(30).reshape(6, 5)}
    batch["spectrogram"] = SEEN["spectrogram"][0]
    features = RNG.normal(size=(6, 4)).astype(np.float32)
    batches = [{modality: batch[modality]}]
    report.gather(lambda x: features, batches, tmp_path / "run", key=modality)
    parser, text = parsed(report.build([tmp_path / "run"], tmp_path / "r.html"))
    written = {"text": "später <b>", "ids": "5 6 7 8 9"}
    assert written.get(modality, "") in text
    assert parser.tags.count("img") == (0 if modality in written else 36)
    assert "no labels" in text and "not finished" not in text


def test_an_encoder_of_something_else_is_told_which_keys_there_are(tmp_path):
    with pytest.raises(BadInput, match=r"audio.*only image"):
        report.gather(len, [{"image": images()}], tmp_path, key="audio")


# The page


def test_one_run_gives_a_whole_page_that_needs_nothing_else(runs, tmp_path):
    path = report.build([runs[0]], tmp_path / "r.html")
    parser, text = parsed(path)
    assert path.stat().st_size < 2_000_000
    assert path.read_text("utf-8").count('class="band s0"') == 1  # around the probe's curve
    assert text.count("90.0") == 2  # in the bar of kNN and in its row, nowhere else
    assert "c1_C" not in text and "knn top-1 low" not in text
    assert parser.tags.count("h1") == 1
    for part in (
        "kNN", "40.0 %", "34.2 %", "39.0 to 41.0 %", "k = 20", "temperature = 0.07", "supervised",
        "5.8 points above the random encoder", "median rank", "t-SNE", "perplexity",
        "90.0 %", "c2: top-1", "taps = 2", "Loss against chance", "Standard deviation",
            "Effective rank", "Alignment", "Uniformity", "500", "60 s",
        "mixed_bfloat16", "tensorflow 2.20.0", "--small --data digits", "tfssl.load(", "hub.load(",
        "<d>",
    ):  # fmt: skip
        assert part in text.replace("\u00a0", " "), part


def test_several_runs_stand_side_by_side_and_the_best_is_marked(runs, tmp_path):
    path = report.build(runs, tmp_path / "r.html")
    _, text = parsed(path)
    page = path.read_text("utf-8")
    assert "image.simclr against image.rotation" in text
    best = re.findall(r'class="best"[^>]*>([^<]+)<', page)
    assert [value.replace("\u00a0", " ") for value in best][:3] == ["40.0 %", "30.0 %", "3"]
    assert page.count('class="line s0"') >= 1 and page.count('class="line s1"') >= 1
    assert page.count("random encoder</th>") == 1  # the same baseline is told once


def test_a_share_of_a_rank_is_best_when_it_is_low(tmp_path):
    for name, rank in (("a", 7.0), ("b", 2.0)):
        (tmp_path / name).mkdir()
        result = {"results": {"retrieval": {"median_rank": rank}}}
        (tmp_path / name / "evaluation.json").write_text(json.dumps(result))
    path = report.build([tmp_path / "a", tmp_path / "b"], tmp_path / "r.html")
    assert re.findall(r'class="best"[^>]*>([^<]+)<', path.read_text("utf-8")) == ["2"]


def test_runs_measured_on_different_data_are_not_held_against_each_other(tmp_path):
    for name, data, top1 in (("a", "digits", 0.9), ("b", "world", 0.3)):
        (tmp_path / name).mkdir()
        found = {"data": data, "results": {"knn": {"top1": top1}}}
        found |= {"random": {"knn": {"top1": 0.5}}} if name == "a" else {}
        (tmp_path / name / "evaluation.json").write_text(json.dumps(found))
    path = report.build([tmp_path / "a", tmp_path / "b"], tmp_path / "r.html")
    text = parsed(path)[1]
    assert "40.0 points above" in text and "below the random" not in text
    assert 'class="best"' not in path.read_text("utf-8")
    assert "different data" in text and "b on world" in text


def test_precisions_and_deviations_are_results_and_lists_are_no_settings(tmp_path):
    detection = {"AP50_11point": 0.5, "AP": 0.25, "ap_by_class": [0.5], "iterations": 9}
    low = {"error": 0.08, "error_std": 0.01, "errors": [0.07, 0.09]}
    result = {"results": {"detection": detection, "low_label": low}}
    (tmp_path / "evaluation.json").write_text(json.dumps(result))
    text = parsed(report.build([tmp_path], tmp_path / "r.html"))[1].replace("\u00a0", " ")
    for part in ("50.0 %", "25.0 %", "8.0 %", "1.0 %", "iterations = 9"):
        assert part in text, part
    assert "0.07" not in text and "[0.5]" not in text


def test_a_suite_shows_its_mean_and_each_sets_own_metric(tmp_path):
    dtd = {**spread(0.7), "top5": 0.9, "metric": "top1", "lambda": 0.1}
    voc = {"mAP_11point": 0.6, "metric": "mAP_11point", "lambda": 10.0}
    suite = {"size": 224, "seed": 0, "dtd": 0.7, "voc2007": 0.6, "mean": 0.65}
    suite |= {"datasets": {"dtd": dtd, "voc2007": voc}, "missing": {"cars196": "not prepared"}}
    random = {"transfer": {**suite, "mean": 0.25}}
    found = {"results": {"transfer": suite}, "random": random}
    (tmp_path / "evaluation.json").write_text(json.dumps(found))
    text = parsed(report.build([tmp_path], tmp_path / "r.html"))[1].replace("\u00a0", " ")
    for part in (
        "transfer mean is 40.0 points above", "dtd70.0 %69.0 to 71.0 %", "voc200760.0 %",
        "size = 224, seed = 0",
    ):  # fmt: skip
        assert part in text, part
    assert "mean = " not in text and "dtd = " not in text and "datasets" not in text


def test_accuracies_of_any_name_are_results_and_no_settings(tmp_path):
    results = {"segmentation": {"mean_iou": 0.5, "pixel_accuracy": 0.8, "frozen": True}}
    results["linear"] = {"top1": 0.5, "C": 1.0, "validation_top1": 0.55}
    (tmp_path / "evaluation.json").write_text(json.dumps({"results": results}))
    text = parsed(report.build([tmp_path], tmp_path / "r.html"))[1].replace("\u00a0", " ")
    assert "pixel accuracy80.0 %" in text and "validation top-155.0 %" in text
    assert "accuracy = " not in text and "validation_top1 = " not in text


@pytest.mark.parametrize("draws", [{}, {"draws": 10}])
def test_a_page_says_what_its_intervals_are_over(draws, tmp_path):
    results = {"knn": spread(0.5), "low_label": {**spread(0.4), **draws}}
    (tmp_path / "evaluation.json").write_text(json.dumps({"results": results}))
    text = parsed(report.build([tmp_path], tmp_path / "r.html"))[1]
    assert "over test examples" in text and ("of low label over draws" in text) == bool(draws)


@pytest.mark.parametrize("uses", [[], ["label"]])
def test_a_page_says_of_labels_what_is_so(uses, tmp_path):
    run = fabricate(tmp_path / "run")
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**record, "uses": uses}))
    text = parsed(report.build([run], tmp_path / "r.html"))[1]
    for claim in ("training never saw", "was never told", "and only here"):
        assert (claim in text) == (not uses)


def test_what_is_missing_or_broken_costs_one_line_and_not_the_page(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "history.json").write_text('[{"epoch": 0, "spread": 0.9, "loss": NaN}]')
    (run / "run.json").write_text("{broken")
    (run / "evaluation.json").write_text("[1]")
    (run / "sheet.png").write_bytes(b"no picture")
    (run / "features.npz").write_bytes(b"PK\x03\x04")
    _, text = parsed(report.build(run, tmp_path / "r.html"))
    for part in (
        "run.json cannot be read", "evaluation.json is no object", "features.npz cannot be read",
        "one row only", "The picture sheet.png cannot be read", "No evaluation yet",
        "No features were gathered", "No encoder has been exported",
    ):  # fmt: skip
        assert part in text, part


HUGE = 10**400  # JSON has no largest number, floats do
SHOWN = {"features": RNG.normal(size=(9, 4)), "thumbnails": np.zeros([9, 8, 8, 3], np.uint8)}
SHOWN |= {"queries": np.arange(2), "neighbours": np.array([[1, 2], [0, 2]])}


@pytest.mark.parametrize(
    "name, content, lost",
    [
        ("history.json", json.dumps([{"loss": HUGE}]), "Loss and metrics: left out"),
        ("evaluation.json", json.dumps({"results": {"knn": {"top1": HUGE}}}), "Evaluation: left"),
        ("evaluation.json", "[" * 100_000, "evaluation.json cannot be read"),
        ("run.json", json.dumps({"uses": 5}), ""),
        ("features.npz", {"label": np.arange(5)}, "Nearest neighbours: left out"),
        ("features.npz", {"neighbours": np.full([2, 2], 50)}, "Nearest neighbours: left out"),
        ("features.npz", {"queries": np.array(3)}, "Nearest neighbours: left out"),
        ("features.npz", {"features": np.array([["a", "b"]] * 9)}, "Feature map: left out"),
    ],
)
def test_a_broken_piece_costs_its_section_and_the_rest_is_there(name, content, lost, tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"call": "tfssl pretrain image.simclr"}))
    (tmp_path / "evaluation.json").write_text(json.dumps({"results": {"knn": spread(0.5)}}))
    np.savez(tmp_path / "features.npz", **{**SHOWN, **(content if name == "features.npz" else {})})
    if name != "features.npz":
        (tmp_path / name).write_text(content)
    _, text = parsed(report.build([tmp_path], tmp_path / "r.html"))
    assert lost in text
    kept = {"run.json": "tfssl pretrain", "evaluation.json": "50.0", "features.npz": "PCA"}
    for piece, part in kept.items():
        assert part in text or piece == name, part


@pytest.mark.parametrize("end", ["", "_low", "_high"])
def test_a_layers_number_that_is_missing_costs_its_place_and_not_the_page(tmp_path, end):
    layer = {f"c{i}_top1{e}": 0.5 for i in (1, 2) for e in ("", "_low", "_high")}
    layer[f"c1_top1{end}"] = None  # what was not finite is null in the file
    (tmp_path / "evaluation.json").write_text(json.dumps({"results": {"layers": layer}}))
    assert "c2" in report.build(tmp_path, tmp_path / "r.html").read_text("utf-8")


def test_a_run_that_diverged_or_collapsed_still_gets_its_page(tmp_path):
    run = tmp_path / "run"
    rows = [{"epoch": e, "loss": [1.0, float("nan"), float("inf")][e]} for e in range(3)]
    run.mkdir()
    (run / "history.json").write_text(json.dumps(rows))
    report.gather(lambda x: np.ones([len(x), 4], np.float32), [{"image": images(40)}], run)
    parsed(report.build(run, tmp_path / "r.html"))
    report.gather(lambda x: np.full([len(x), 4], np.nan), [{"image": images(40)}], run)
    _, text = parsed(report.build(run, tmp_path / "r.html"))
    assert "not finite" in text


def test_names_and_captions_cannot_inject_anything(tmp_path):
    evil = '"><script>alert(1)<!--\u202e\ud800'
    run = tmp_path / "<img src=x onerror=alert(1)>"
    run.mkdir()
    (run / "history.json").write_text(json.dumps([{evil: 1.0, "epoch": e} for e in range(3)]))
    values = {"method": evil, "call": evil, "host": {evil: evil}, "arguments": {evil: evil}}
    (run / "run.json").write_text(json.dumps(values | {"versions": [evil], "data": evil}))
    result = {evil: {evil: 0.5, f"{evil}_low": 0.4, f"{evil}_high": 0.6, "k": evil}}
    (run / "evaluation.json").write_text(json.dumps({"results": result, "data": evil}))
    report.gather(
        lambda x: RNG.normal(size=(len(x), 4)),
        [{"image": images(), "label": np.zeros(6, int)}], run, classes=[evil.replace("\ud800", "")],
    )  # fmt: skip
    page = report.build([run, run], tmp_path / "r.html")
    parsed(page)
    assert "<script" not in page.read_text("utf-8")


def test_folders_that_hold_no_run_are_refused(tmp_path):
    with pytest.raises(BadInput, match="is no folder"):
        report.build([tmp_path / "nothing"], tmp_path / "r.html")
    with pytest.raises(BadInput, match="is no run directory"):
        report.build([tmp_path], tmp_path / "r.html")
    with pytest.raises(BadInput, match="at least one"):
        report.build([], tmp_path / "r.html")
    assert not list(tmp_path.iterdir())


def test_ticks_are_round_and_inside():
    for low, high in ((0, 1), (0.342, 0.466), (-3, 7000), (1e-9, 3e-9), (5, 5)):
        values = charts.ticks(low, high)
        assert 1 <= len(values) <= 6
        assert all(low - 1e-12 <= value <= high + 1e-12 for value in values)


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    parts = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return np.dot(parts, [0.2126, 0.7152, 0.0722])


def contrast(a, b):
    """WCAG 2.1, relative luminance."""
    a, b = sorted([luminance(a), luminance(b)])
    return (b + 0.05) / (a + 0.05)


@pytest.mark.parametrize("colours", [style.LIGHT, style.DARK], ids=["light", "dark"])
def test_text_and_marks_stand_out_from_their_ground(colours):
    for ground in ("paper", "card", "track"):
        for ink in ("ink", "muted", "link"):
            assert contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)
    for i in range(style.SERIES):
        assert contrast(colours[f"s{i}"], colours["card"]) >= 3, i
    assert contrast(colours["base"], colours["card"]) >= 3


# In a browser

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PROBE = """<script>
addEventListener("load", () => setTimeout(() => {
  const e = document.scrollingElement;
  const loaded = performance.getEntriesByType("resource").map(r => r.name.slice(0, 40));
  parent.postMessage({client: e.clientWidth, scroll: e.scrollWidth,
    broken: [...document.images].filter(i => !i.naturalWidth).length,
    loaded: loaded.filter(name => !name.startsWith("data:")),
    ground: getComputedStyle(document.body).backgroundColor}, "*");
}, 200));
</script>"""
FRAME = """<!DOCTYPE html><body style="margin:0"><pre id="out"></pre><script>
const out = document.getElementById("out");
addEventListener("message", e => out.textContent = JSON.stringify(e.data));
</script><iframe style="border:0;width:{width}px;height:900px" srcdoc="{page}"></iframe>"""


def chromium(tmp_path, *arguments):
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
        "--disable-background-networking", "--disable-component-update", "--no-first-run",
        "--disable-dev-shm-usage", "--enable-logging=stderr", f"--user-data-dir={tmp_path}/profile",
        *arguments,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stderr[-2000:]
    return done


def looked_at(page, tmp_path, width, scheme):
    """What the page measures of itself in a frame: windows have a least width, frames have none."""
    text = page.read_text("utf-8").replace("style-src", "script-src 'unsafe-inline'; style-src")
    text = text.replace("</body>", PROBE + "</body>")
    frame = tmp_path / "frame.html"
    frame.write_text(FRAME.format(width=width, page=html.escape(text)), "utf-8")
    done = chromium(
        tmp_path, f"--blink-settings=preferredColorScheme={scheme}", "--virtual-time-budget=5000",
        "--dump-dom", frame.as_uri(),
    )  # fmt: skip
    assert "CONSOLE" not in done.stderr, done.stderr[-2000:]
    return json.loads(html.unescape(re.search(r'<pre id="out">(.*?)</pre>', done.stdout)[1]))


@pytest.mark.skipif(not CHROMIUM, reason="there is no chromium here")
def test_a_browser_shows_the_page_on_a_phone_in_the_dark_and_fetches_nothing(runs, tmp_path):
    long = tmp_path / ("a_run_with_a_name_that_never_ends" * 4)
    shutil.copytree(runs[0], long)
    page = report.build([*runs, long], tmp_path / "r.html")
    dark = looked_at(page, tmp_path, 360, 0)
    assert dark["client"] == 360 and dark["scroll"] <= 360
    assert not dark["broken"] and not dark["loaded"]
    light = looked_at(page, tmp_path, 1200, 1)
    assert light["scroll"] <= light["client"] == 1200
    assert {dark["ground"], light["ground"]} == {
        "rgb({}, {}, {})".format(*(int(c["paper"][i : i + 2], 16) for i in (1, 3, 5)))
        for c in (style.DARK, style.LIGHT)
    }


@pytest.mark.skipif(not CHROMIUM, reason="there is no chromium here")
def test_a_screenshot_of_the_page_is_not_blank(runs, tmp_path):
    from PIL import Image

    page = report.build(runs[0], tmp_path / "r.html")
    shot = tmp_path / "shot.png"
    done = chromium(tmp_path, f"--screenshot={shot}", "--window-size=1200,2400", page.as_uri())
    assert "CONSOLE" not in done.stderr, done.stderr[-2000:]
    picture = np.asarray(Image.open(shot).convert("RGB"))
    assert len(np.unique(picture[::4, ::4].reshape(-1, 3), axis=0)) > 200
