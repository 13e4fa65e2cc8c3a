"""An encoder on disk, as the commands are given it: in a run's folder, exported, or anybody's."""

from tfssl.cli.console import say
from tfssl.errors import BadInput


class Artefact:
    """What the evaluating commands are given: a run's folder, an export of ours, any SavedModel."""

    def __init__(self, path, name="encoder"):
        from tfssl import savedmodel

        self.run = path if (path / "run.json").exists() else None
        self.folder = path / name if self.run else path
        if not (self.folder / "saved_model.pb").exists():
            raise BadInput(_why_none(path, name))
        self.ours = any((self.folder / f).exists() for f in (savedmodel.CARD, savedmodel.MANIFEST))
        if self.ours:
            savedmodel.verify(self.folder)
        front = self.card()
        self.size = front.get("size") or 0
        self.key = _input_key(self.folder, front)

    def card(self):
        """The front matter of the model card; {} for a SavedModel of others."""
        from tfssl import savedmodel

        return savedmodel.read_card(self.folder) if self.ours else {}

    def load(self):
        from tfssl import savedmodel

        if self.ours:
            return savedmodel.load(self.folder)
        return _foreign(self.folder)

    def keras(self):
        """The encoder as a Keras model, which knows its architecture."""
        import keras

        from tfssl import savedmodel

        path = self.folder / savedmodel.KERAS
        if not path.exists():
            raise BadInput(
                f"{self.folder} does not say how it is built (no {path.name}), which the baselines "
                "need: give a run's folder or an encoder that tfssl exported."
            )
        return keras.models.load_model(path)

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


def _foreign(folder):
    """Anybody's SavedModel; one that cannot be read is the caller's to mend."""
    import tensorflow as tf

    try:
        return tf.saved_model.load(str(folder))
    except (OSError, ValueError, tf.errors.OpError) as fault:
        reason = str(fault).splitlines()[0][:200]
        raise BadInput(f"{folder} cannot be loaded as a SavedModel ({reason}).") from None


def _input_key(folder, front):
    """Which key of an example an encoder reads, by the rank and type of its first input."""
    import tensorflow as tf

    if front:
        kind, shape = next(iter(front["inputs"].values())).split(" ", 1)
        rank = shape.count(",") + 1
        return "text" if kind == "string" else {2: "audio", 4: "image", 5: "frames"}[rank]
    signatures = _foreign(folder).signatures
    if "serving_default" not in signatures:
        raise BadInput(
            f"{folder} has no signature serving_default, so nothing says what it takes: save it "
            "with one, or with tfssl.export."
        )
    signature = signatures["serving_default"]
    spec = next(iter(signature.structured_input_signature[1].values()))
    if spec.dtype == tf.string:
        return "text"
    return {2: "audio", 4: "image", 5: "frames"}.get(spec.shape.rank, "image")


def batches_of(ds, artefact, size):
    from tfssl.pipelines import batching

    keys = [
        key for key in (artefact.key, "label", "index", "sample_rate") if key in ds.element_spec
    ]
    size = (size or artefact.size or None) if artefact.key in ("image", "frames") else None
    return batching.evaluation(ds.map(lambda example: {k: example[k] for k in keys}), 256, size)


def keep_neighbours(artefact, batches):
    """What the report shows of the features of some examples."""
    from tfssl import report

    classes = getattr(batches, "class_names", ())
    report.gather(artefact.load(), batches, artefact.run, artefact.key, classes=classes)


def refresh_report(folder):
    """The run's own page; a run is not lost because its page cannot be drawn."""
    from tfssl import report

    try:
        report.build([folder], folder / "report.html")
    except Exception as fault:
        say(f"The report could not be written: {fault}")
