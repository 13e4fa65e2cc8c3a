"""The rules of the house: who may know whom, how large a file grows, what import costs."""

import ast
import pathlib
import subprocess
import sys

import pytest

TOP = pathlib.Path(__file__).resolve().parents[1]
SOURCES = [p for room in ("tfssl", "pipelines", "zoo") for p in sorted((TOP / room).rglob("*.py"))]


def imports(path):
    """Every module that a file imports, at any depth of its code."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def within(path, room):
    return room in path.relative_to(TOP).parts[:1]


def is_front_door(path):
    return path.relative_to(TOP).parts[:2] in (("tfssl", "cli.py"), ("tfssl", "cli"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(TOP)))
def test_arrows_point_one_way(path):
    known = set(imports(path))
    if within(path, "tfssl") and not is_front_door(path):
        assert not any(k.startswith(("tfssl.zoo", "tfssl.pipelines")) for k in known)
    if not is_front_door(path) and path.name != "__main__.py":
        assert not any(k == "tfssl.cli" or k.startswith("tfssl.cli.") for k in known)
    if within(path, "pipelines"):
        assert not any(k == "keras" or k.startswith("keras.") for k in known)
        ours = {k for k in known if k.startswith("tfssl") and not k.startswith("tfssl.pipelines")}
        assert not ours - {"tfssl"}
    assert not any(k == "tf.keras" for k in known)


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(TOP)))
def test_files_stay_readable_in_one_sitting(path):
    lines = len(path.read_text().splitlines())
    most = 200 if within(path, "zoo") or path.name == "method.py" else 600
    assert lines <= most, f"{lines} lines"


def test_tf_keras_is_never_reached_through_tensorflow():
    for path in SOURCES:
        assert "tf.keras" not in path.read_text(), path


def test_import_costs_less_than_half_a_second_beside_keras():
    code = (
        "import time, sys, keras; before = set(sys.modules); start = time.perf_counter(); "
        "import tfssl; print(time.perf_counter() - start); "
        "print(sorted(m for m in set(sys.modules) - before if not m.startswith('tfssl')))"
    )
    lines = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=TOP
    ).stdout.splitlines()
    assert float(lines[0]) < 0.5
    assert lines[1] == "[]"


def test_modules_are_reachable_without_being_imported_by_name():
    code = "import tfssl; tfssl.pipelines.fake.examples('text', batch=2); tfssl.pipelines.batching"
    code += "; tfssl.objectives.contrastive.nt_xent; tfssl.evaluate.finetune_10"
    done = subprocess.run([sys.executable, "-c", code], cwd=TOP, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-1000:]


def test_no_data_and_nothing_large_is_tracked():
    tracked = subprocess.run(
        ["git", "ls-files", "-z"], cwd=TOP, capture_output=True, text=True
    ).stdout.split("\0")
    if not any(tracked):
        pytest.skip("not a git checkout")
    for name in filter(None, tracked):
        assert (TOP / name).stat().st_size <= 5_000_000, name


def test_the_readme_is_what_its_sources_make_of_it():
    check = [sys.executable, str(TOP / "benchmarks" / "readme.py"), "--check"]
    assert subprocess.run(check, cwd=TOP).returncode == 0, "run python benchmarks/readme.py"
