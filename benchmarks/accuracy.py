"""What minutes of training on unlabelled JPEGs are worth, by the command line that users call.

The training images of FOLDER/train are copied, without their class folders, into one flat folder;
every method trains on that for the given minutes with its SMALL recipe, and is evaluated on FOLDER
(train/ and test/ with a folder a class) beside the same network untrained. Results go to
accuracy.json:

    python benchmarks/accuracy.py --data FOLDER
"""

import argparse
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
METHODS = ("image.simclr", "image.rotation", "image.mae")


def flattened(source, dest):
    """Every picture below `source` in one folder, named so that no class shows."""
    from tfssl.pipelines.sources.folders import ENDINGS

    pictures = (path for path in source.rglob("*") if path.suffix[1:].lower() in ENDINGS["image"])
    for number, path in enumerate(sorted(pictures)):
        shutil.copy(path, dest / f"{hash_of(path)}{number:06d}{path.suffix}")
    return dest


def hash_of(path):
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]


def measured(method, flat, folder, minutes, work):
    out, results = work / method, work / f"{method}.json"
    tfssl = [sys.executable, "-m", "tfssl"]
    train = [*tfssl, "pretrain", method, "--small", "--data", str(flat)]
    subprocess.run([*train, "--minutes", str(minutes), "--out", str(out)], check=True)
    evaluate = [*tfssl, "evaluate", str(out), "--data", str(folder), "--json", str(results)]
    protocols = ["--protocol", "knn", "--protocol", "linear", "--protocol", "random"]
    subprocess.run([*evaluate, *protocols], check=True)
    history = json.loads((out / "history.json").read_text())
    found = json.loads(results.read_text())
    return {
        "method": method,
        "epochs": len(history),
        "seconds": sum(row["seconds"] for row in history),
        "examples_per_second": sorted(row["examples_per_second"] for row in history)[
            len(history) // 2
        ],
        "results": found["results"],
        "random": found["random"],
    }


def kept(options):
    """The rows of earlier calls on the same data and minutes, of methods not asked for now."""
    if not options.out.exists():
        return []
    found = json.loads(options.out.read_text())
    same = (found["data"], found["minutes"]) == (options.data.name, options.minutes)
    return [row for row in found["runs"] if same and row["method"] not in options.methods]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, type=pathlib.Path)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "accuracy.json")
    options = parser.parse_args()
    runs = kept(options)
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        (work / "flat").mkdir()
        flat = flattened(options.data / "train", work / "flat")
        for method in options.methods:
            runs.append(measured(method, flat, options.data, options.minutes, work))
            found = {"data": options.data.name, "minutes": options.minutes, "runs": runs}
            options.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
