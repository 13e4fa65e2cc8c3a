"""The page on the image methods says what its results hold, and leaves out nothing."""

import importlib.util
import json
import pathlib

import pytest

from tfssl import zoo

BENCHMARKS = pathlib.Path(__file__).resolve().parents[1] / "benchmarks"


def module(name):
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


image_zoo_page = module("image_zoo_page")


def row(method, linear, encoder="resnet9", asked="", taps=(0.4, 0.5, 0.3)):
    probe = {"top1": linear, "top1_low": linear - 0.02, "top1_high": linear + 0.02}
    by_layer = {f"c{i}_top1": value for i, value in enumerate(taps, 1)}
    results = {"knn": {"top1": linear - 0.1}, "linear": probe, "layers": by_layer}
    return {"method": method, "encoder": encoder, "asked": asked, "results": results}


def found(**linears):
    rows = [row(f"image.{name}", value) for name, value in linears.items()]
    rows.append(row("random", 0.4, taps=(0.4, 0.45, 0.3)))
    return {"rows": rows, "data": "pictures", "processor_minutes": 2, "cores": 2}


def verdicts(results):
    return [so for _, so, _ in image_zoo_page.findings(image_zoo_page.Results(results))]


def test_findings_follow_the_figures():
    good = dict(
        multi_task=0.6, relative_position=0.45, colorization=0.44, exemplar_triplet=0.5,
        rotation=0.55, split_brain=0.5, split_brain_regression=0.45,
    )  # fmt: skip
    assert verdicts(found(**good))[:3] == [True, True, True]
    assert verdicts(found(**good))[4] is True
    bad = {**good, "multi_task": 0.52, "rotation": 0.41, "split_brain": 0.4}
    assert verdicts(found(**bad))[1] is True, "each alone is behind"
    assert verdicts(found(**{**bad, "multi_task": 0.45}))[1] is False
    assert verdicts(found(**bad))[2] is False and verdicts(found(**bad))[4] is False


def test_an_order_of_layers_that_untrained_networks_have_too_is_no_finding():
    rows = found(simclr=0.5)
    assert verdicts(rows)[0] is True
    rows["rows"][-1] = row("random", 0.4, taps=(0.4, 0.5, 0.2))
    assert verdicts(rows)[0] is False
    assert "(c1 40.0, c2 50.0, c3 20.0)" in image_zoo_page.page(rows, {})


def test_a_deeper_trunk_is_judged_by_its_order():
    rows = found(simclr=0.5, rotation=0.45)
    rows["rows"].append(row("image.simclr", 0.4, "conv4", "conv4"))
    rows["rows"].append(row("image.rotation", 0.5, "conv4", "conv4"))
    assert verdicts(rows)[3] is False
    rows["rows"][-1] = row("image.rotation", 0.42, "conv4", "conv4")
    assert verdicts(rows)[3] is True


def test_what_lies_within_the_intervals_may_be_chance():
    for regression, chance in ((0.45, False), (0.47, True), (0.53, True), (0.55, False)):
        held = image_zoo_page.Results(found(split_brain=0.5, split_brain_regression=regression))
        assert ("may be chance" in image_zoo_page.findings(held)[4][2]) == chance


def test_what_was_not_measured_is_open():
    assert verdicts(found(rotation=0.5))[1:3] == [None, None]


def test_the_page_names_failures_and_what_fell_below_its_untrained_network():
    rows = found(simclr=0.5, dcgan=0.3)
    rows["rows"].append({"method": "image.vicreg", "asked": "", "failure": "it burst"})
    page = image_zoo_page.page(rows, {"image.dcgan": "noise is easier."})
    assert "`image.vicreg`: it burst" in page
    assert "`image.dcgan` (-10.0 points): noise is easier." in page
    assert "| `image.simclr` | resnet9 |" in page and "| c2 50.0 | 30.0 |" in page
    assert "1 of the five best" in page


def results():
    path = BENCHMARKS / "image_zoo.json"
    if not path.exists():
        pytest.skip("not measured in this checkout")
    return json.loads(path.read_text())


def test_the_page_is_what_its_results_make_of_it():
    held = results()
    causes = json.loads((BENCHMARKS / "image_zoo_causes.json").read_text())
    page = (BENCHMARKS / "image_zoo.md").read_text()
    assert page == image_zoo_page.page(held, causes), "run image_zoo.py --page"


def test_every_image_method_is_on_the_page():
    measured = {row["method"] for row in results()["rows"] if not row["asked"]}
    assert {name for name in zoo.names() if name.startswith("image.")} <= measured


def test_what_fell_below_its_untrained_network_has_a_cause():
    held = image_zoo_page.Results(results())
    causes = json.loads((BENCHMARKS / "image_zoo_causes.json").read_text())
    below = {row["method"] for row in held.small if (held.gain(row) or 0) < 0}
    assert below <= set(causes)


def test_a_flat_folder_has_every_picture_and_no_class(tmp_path):
    for name in ("cat/1.jpg", "dog/1.JPG", "dog/2.png", "notes.txt"):
        path = tmp_path / "train" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (tmp_path / "flat").mkdir()
    flat = module("accuracy").flattened(tmp_path / "train", tmp_path / "flat")
    found = {path.read_text(): path.name for path in flat.iterdir()}
    assert set(found) == {"cat/1.jpg", "dog/1.JPG", "dog/2.png"}
    assert not any("cat" in name or "dog" in name for name in found.values())
