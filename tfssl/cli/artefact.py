"""An encoder on disk, as the commands are given it: in a run's folder, exported, or anybody's."""

import json

from tfssl.cli.console import say
from tfssl.errors import BadInput

# Examples at a time; clips and sounds are large.
BATCH = {"image": 256, "text": 256, "frames": 8, "audio": 16}


class Artefact:
    """What the evaluating commands are given: a run's folder, an export of ours, any SavedModel."""

    def __init__(self, path, name="encoder"):
        from tfssl import savedmodel

        self.run = path if (path / "run.json").exists() else None
        self.folder = path / name if self.run else path
        if not (self.folder / "saved_model.pb").exists():
            raise BadInput(_why_none(path, name))
        self.ours = savedmodel.is_ours(self.folder)
        if self.ours:
            savedmodel.verify(self.folder)
        front = self.card()
        self.sample_rate = front.get("sample_rate")
        self.key, self.frames, size = _takes(self.folder, front)
        self.size = front.get("size") or size

    def card(self):
        """The front matter of the model card; {} for a SavedModel of others."""
        from tfssl import savedmodel

        return savedmodel.read_card(self.folder) if self.ours else {}

    def load(self):
        from tfssl import savedmodel

        if self.ours:
            return savedmodel.load(self.folder)
        return savedmodel.foreign(self.folder)

    def keras(self):
        """The encoder as a Keras model, which knows its architecture."""
        from tfssl import savedmodel

        path = self.folder / savedmodel.KERAS
        if not path.exists():
            raise BadInput(
                f"{self.folder} does not say how it is built (no {path.name}), which the baselines "
                "need: give a run's folder or an encoder that tfssl exported."
            )
        return savedmodel.load(path)

    def reading(self, size=None):
        """How its examples are loaded: keywords of `options.load`."""
        return {"sample_rate": self.sample_rate, "size": size or self.size}

    def untrained(self, seed):
        from tfssl.evaluate.baselines import random_encoder

        return random_encoder(self.keras(), seed)


def _why_none(path, name):
    """Why there is no encoder to be had of a path, and what to do."""
    if not (path / "run.json").exists():
        there = "holds no SavedModel" if path.is_dir() else "is no folder"
        return f"{path} {there}: give a run's folder, or a SavedModel's."
    has = sorted(found.parent.name for found in path.glob("*/saved_model.pb"))
    if has:
        return f"{path} has no {name}; it published {', '.join(has)}."
    return (
        f"{path} has not trained to its end yet: repeat its `tfssl pretrain`, or take what it has "
        "learned so far with `tfssl export`."
    )


def _takes(folder, front):
    """(key of an example, frames a clip or None, side or 0) of an encoder, by its first input.

    None and 0 stand for any, the 0 for pictures that are not square too.
    """
    import tensorflow as tf

    from tfssl import savedmodel

    if front and len(front["inputs"]) > 1:
        raise BadInput(
            f"{str(folder)[-200:]} takes {', '.join(front['inputs'])[:150]}; what can be measured "
            "here takes one input: wrap it in an encoder that does."
        )
    if front:
        kind, shape = next(iter(front["inputs"].values())).split(" ", 1)
        shape = json.loads(shape.replace("None", "null"))
        text = kind == "string"
    else:
        signatures = savedmodel.foreign(folder).signatures
        inputs = signatures["serving_default"].structured_input_signature[1].values()
        spec = next(iter(inputs), tf.TensorSpec([], tf.float32))
        text, shape = spec.dtype == tf.string, spec.shape
        shape = shape.as_list() if shape.rank is not None else ()
        pixels = shape[-1:] if len(shape) in (4, 5) else []
        if (
            len(inputs) != 1
            or not (text or spec.dtype.is_floating)
            or any(size is not None for size in shape[:1])
            or any(channels not in (None, 3) for channels in pixels)
        ):
            wants = ", ".join(f"{i.name} {i.dtype.name} {i.shape}" for i in inputs) or "nothing"
            raise BadInput(
                f"{str(folder)[-200:]} takes {wants[:150]}; what can be measured here takes one "
                "tensor, whose first axis is a batch of any size: images float [B, H, W, 3], clips "
                "[B, T, H, W, 3], sounds [B, N] or strings [B]: wrap it in one that does."
            )
    key = "text" if text else {2: "audio", 4: "image", 5: "frames"}.get(len(shape), "image")
    frames = shape[1] if key == "frames" else None
    height, width = shape[-3:-1] if key in ("image", "frames") and len(shape) > 3 else (None, None)
    return key, frames, height if height and height == width else 0


def batches_of(ds, artefact, size):
    """Examples as the encoder takes them: of clips that are too long for it their middle frames.

    Those that are too short stand still at their end.
    """
    from tfssl.pipelines import batching
    from tfssl.pipelines.datasets import changed

    keys = [
        key for key in (artefact.key, "label", "index", "sample_rate") if key in ds.element_spec
    ]

    def select(examples):
        chosen = {key: examples[key] for key in keys}
        if artefact.frames:
            chosen["frames"] = middle(chosen["frames"], artefact.frames)
        return chosen

    size = (size or artefact.size or None) if artefact.key in ("image", "frames") else None
    return batching.evaluation(changed(ds, select), BATCH[artefact.key], size)


def middle(frames, count):
    """The `count` frames in the middle of clips [B, T, ...], the last one repeated if T is less."""
    import tensorflow as tf

    length = tf.shape(frames)[1]
    at = tf.maximum((length - count) // 2, 0) + tf.range(count)
    return tf.gather(frames, tf.minimum(at, length - 1), axis=1)


def keep_neighbours(artefact, batches):
    """What the report shows of the features of some examples; nothing is lost for want of it."""
    from tfssl import report

    classes = getattr(batches, "class_names", ())
    try:
        report.gather(artefact.load(), batches, artefact.run, artefact.key, classes=classes)
    except Exception as fault:
        say(f"The report goes without nearest neighbours: {_first_line(fault)}")


def refresh_report(folder):
    """The run's own page; a run is not lost because its page cannot be drawn."""
    from tfssl import report

    try:
        report.build([folder], folder / "report.html")
    except Exception as fault:
        say(f"The report could not be written: {_first_line(fault)}")


def _first_line(fault):
    return (str(fault).splitlines() or [type(fault).__name__])[0][:300]
