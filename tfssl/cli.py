"""The front door: what `tfssl COMMAND` does."""

import contextlib
import json
import math
import os
import pathlib
import signal
import sys
from typing import Annotated

import typer

from tfssl.errors import BadInput

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

app = typer.Typer(
    help="Self-supervised learning on TensorFlow and Keras 3.",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Data = Annotated[
    str,
    typer.Option(
        help="digits, world, tfds:NAME, a folder, shards, .csv or .jsonl; @train, @test or @val."
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress bars.")]
MaxBroken = Annotated[
    float, typer.Option(min=0.0, max=1.0, help="Share of broken files that is still accepted.")
]
PROTOCOLS = ("knn", "linear", "linear_sgd", "layers", "svm", "finetune", "retrieval")
BASELINES = ("random", "supervised")


def main():
    """Runs a command; says what the caller did wrong in a sentence, and exits with 2."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        code = app(standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        _say("Interrupted. The same command continues after the last finished epoch.")
        code = 130
    except Exception as fault:
        if not _is_callers(fault):
            raise  # Python prints the traceback and exits with 1
        text = fault.format_message() if hasattr(fault, "format_message") else str(fault)
        _say(" ".join(text.split())[:600])
        code = 2
    sys.exit(code if isinstance(code, int) else 0)


def _is_callers(fault):
    """Whether the caller can mend it: our own BadInput of either side, or a wrong command line."""
    bad = isinstance(fault, BadInput) or type(fault).__name__ == "BadInput"
    return bad or hasattr(fault, "format_message")


def _interrupt(number, frame):
    raise KeyboardInterrupt


def _say(text):
    print(text, file=sys.stderr, flush=True)


@app.command("list")
def list_methods(as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False):
    """Every method."""
    from tfssl import zoo

    cards = [zoo.card(name) for name in zoo.names()]
    if as_json:
        print(json.dumps(cards, indent=1))
        return
    width = max(len(card["id"]) for card in cards)
    for card in cards:
        print(f"{card['id']:{width}}  {card['year']}  {card['summary']}")


@app.command()
def show(
    method: str,
    out: Annotated[pathlib.Path, typer.Option(help="The picture, a .png file.")],
    data: Data = "",
    size: Annotated[int | None, typer.Option(min=8, help="Side of the views in pixels.")] = None,
    seed: int = 0,
):
    """A picture of what a method sees: inputs, views, targets."""
    from tfssl import zoo

    module = zoo.get(method)
    if out.suffix.lower() != ".png":
        raise BadInput(f"--out {out}: the picture is a PNG; give a name that ends in .png.")
    arguments = _arguments(module, method, True, {"data": data, "size": size, "seed": seed}, [])
    _sheet(_build(module, arguments), method, out)
    print(out)


@app.command()
def pretrain(
    method: str,
    out: Annotated[pathlib.Path, typer.Option(help="The run's folder; the same call resumes it.")],
    data: Data = "",
    small: Annotated[
        bool, typer.Option("--small", help="The method's SMALL recipe: minutes on two cores.")
    ] = False,
    encoder: Annotated[str, typer.Option(help="An encoder's name.")] = "",
    size: Annotated[int | None, typer.Option(min=8, help="Side of the views in pixels.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1)] = None,
    epochs: Annotated[int | None, typer.Option(min=1)] = None,
    steps_per_epoch: Annotated[int | None, typer.Option(min=1)] = None,
    minutes: Annotated[
        float | None, typer.Option(min=0.05, help="Train as many epochs as fit into this time.")
    ] = None,
    precision: Annotated[
        str, typer.Option(help="auto, float32, mixed_bfloat16 or mixed_float16.")
    ] = "auto",
    strategy: Annotated[str, typer.Option(help="auto, one, mirrored or multiworker.")] = "auto",
    seed: int = 0,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A recipe keyword.")
    ] = None,
    max_broken: MaxBroken = 0.5,
    quiet: Quiet = False,
):
    """Trains an encoder on unlabelled data; the same command again resumes, exactly."""
    from tfssl import rundir, zoo

    module = zoo.get(method)
    given = {
        "encoder": encoder,
        "data": data,
        "size": size,
        "batch_size": batch_size,
        "epochs": epochs,
        "seed": seed,
    }
    arguments = _arguments(module, method, small, given, set_ or [])
    call = {
        "method": method,
        "call": "tfssl " + " ".join(map(_quoted, sys.argv[1:])),
        "arguments": arguments,
        "steps_per_epoch": steps_per_epoch,
        "minutes": minutes,
        "precision": _precision(precision),
        "strategy": _choice("strategy", strategy, ("auto", "one", "mirrored", "multiworker")),
        "seed": seed,
        "modality": zoo.card(method)["modality"],
        "size": arguments.get("size"),
        "data": arguments["data"],
    }
    _broken(_load(arguments["data"], "train", max_broken, quiet), quiet)
    record = rundir.claim(out, {key: value for key, value in call.items() if key != "call"})
    record.setdefault("call", call["call"])
    _train(module, record, out, quiet)


def _train(module, record, out, quiet):
    """Trains what run.json records, from wherever the checkpoints stand, and publishes it."""
    import keras

    from tfssl import callbacks, rundir

    if record["finished"]:
        _note(f"{out} is finished already; its encoder is {out / 'encoder'}.", quiet)
        return
    keras.config.set_dtype_policy(record["precision"])
    arguments = record["arguments"]
    with _strategy(record["strategy"]).scope():
        if "plan" not in record:
            record["plan"] = _plan(module, record, quiet)
            rundir.write_json(out / "run.json", record)
        plan = record["plan"]
        epochs, steps = plan["epochs"], plan["steps_per_epoch"]
        run = _build(module, arguments, epochs=epochs * steps / plan["steps_per_pass"])
    resume = callbacks.Resume(out / "checkpoints")
    begun = resume.epoch
    if begun:
        _note(f"Resuming after epoch {begun} of {epochs}.", quiet)
    if not (out / "sheet.png").exists():
        _sheet(run, record["method"], out / "sheet.png")
    watching = [
        keras.callbacks.TensorBoard(out / "logs", write_graph=False),
        callbacks.Health(run.dataset),
        rundir.Journal(out / "history.json", examples=steps * plan["batch_size"]),
        resume,
    ]
    if record["minutes"]:
        watching.append(rundir.Deadline(1.25 * 60 * record["minutes"]))
    run._replace(dataset=run.dataset.endless(begun * steps)).fit(
        callbacks=watching, epochs=epochs, steps_per_epoch=steps, verbose=_verbosity(quiet)
    )
    _publish(run, record, out)
    record["finished"] = rundir.now()
    rundir.write_json(out / "run.json", record)
    _refresh_report(out)
    _note(f"Encoder: {out / 'encoder'}   Report: {out / 'report.html'}", quiet)


def _plan(module, record, quiet):
    """How many epochs of how many steps: as asked, or as many as the minutes hold."""
    import keras

    start = _clock()
    run = _build(module, record["arguments"])
    each = run.dataset.steps
    batch_size = record["arguments"].get("batch_size") or _default(module, "batch_size")
    epochs, steps = math.ceil(run.epochs), record["steps_per_epoch"] or each
    if record["minutes"]:
        _note("Measuring the speed, to plan the epochs...", quiet)
        stopwatch = _Stopwatch(seconds=max(3.0, 2.4 * record["minutes"]))  # 4 % of the time
        endless = run._replace(dataset=run.dataset.endless())
        endless.fit(callbacks=[stopwatch.callback()], epochs=1, steps_per_epoch=10**6, verbose=0)
        # The run that follows is traced once more.
        left = 60 * record["minutes"] - (_clock() - start) - stopwatch.first
        total = max(1, int(left / stopwatch.each))
        if record["arguments"].get("epochs"):
            total = min(total, record["arguments"]["epochs"] * steps)
        epochs = max(1, round(total / steps))
        steps = max(1, total // epochs)
        _note(f"{stopwatch.each * 1e3:.0f} ms a step: {epochs} epochs of {steps} steps.", quiet)
        keras.backend.clear_session()
    return {
        "epochs": epochs,
        "steps_per_epoch": steps,
        "steps_per_pass": each,
        "batch_size": batch_size,
    }


class _Stopwatch:
    """Times steps for `seconds`: the first, which traces, and the mean of the rest."""

    def __init__(self, seconds):
        self.seconds = seconds
        self.begun, self.times = _clock(), []

    def callback(self):
        import keras

        def after(batch, logs):
            self.times.append(_clock())
            late = self.times[-1] - self.times[0] > self.seconds and len(self.times) > 3
            callback.model.stop_training = late

        callback = keras.callbacks.LambdaCallback(on_train_batch_end=after)
        return callback

    @property
    def first(self):
        return self.times[0] - self.begun

    @property
    def each(self):
        return (self.times[-1] - self.times[1]) / (len(self.times) - 2)


@app.command()
def evaluate(
    encoder: Annotated[pathlib.Path, typer.Argument(help="A run's folder or a SavedModel.")],
    data: Data,
    protocol: Annotated[
        list[str], typer.Option(help=f"Any number of {', '.join((*PROTOCOLS, *BASELINES))}.")
    ],
    json_: Annotated[
        pathlib.Path | None, typer.Option("--json", help="Write the results here.")
    ] = None,
    size: Annotated[int | None, typer.Option(min=8, help="Side of the inputs in pixels.")] = None,
    seed: int = 0,
    max_broken: MaxBroken = 0.5,
    quiet: Quiet = False,
):
    """Measures an encoder on labelled data, by the field's protocols."""
    from tfssl import rundir

    for name in protocol:
        _choice("protocol", name, (*PROTOCOLS, *BASELINES))
    artefact = _Artefact(encoder)
    names = [name for name in protocol if name in PROTOCOLS]
    if not names and "random" in protocol:
        raise BadInput("--protocol random repeats other protocols untrained: name at least one.")
    train, test = (
        _evaluated(data, split, artefact, size, max_broken, quiet) for split in ("train", "test")
    )
    found = {"encoder": str(encoder), "data": data}
    found["results"] = _measure(artefact.load(), names, train, test, seed, "this encoder", quiet)
    if "random" in protocol:
        untrained = artefact.untrained(seed)
        found["random"] = _measure(untrained, names, train, test, seed, "a random encoder", quiet)
    if "supervised" in protocol:
        _note("the same network trained with labels ...", quiet)
        supervised = _protocol("supervised")(artefact.untrained(seed), train, test, seed=seed)
        found["supervised"] = {"supervised": supervised}
    print(_table(found))
    if json_ is not None:
        rundir.write_json(json_, found)
    if artefact.run is not None:
        rundir.write_json(artefact.run / "evaluation.json", found)
        _neighbours(artefact, test)
        _refresh_report(artefact.run)


def _measure(encoder, names, train, test, seed, who, quiet):
    """{protocol: its result}, each told as it begins."""
    results = {}
    for name in names:
        _note(f"{name} of {who} ...", quiet)
        results[name] = _protocol(name)(encoder, train, test, seed=seed)
    return results


def _protocol(name):
    from tfssl import evaluate as protocols

    return getattr(protocols, name)


@app.command()
def embed(
    encoder: Annotated[pathlib.Path, typer.Argument(help="A run's folder or a SavedModel.")],
    source: Annotated[str, typer.Argument(help="As --data elsewhere; without @split all of it.")],
    out: Annotated[pathlib.Path, typer.Option(help="The result, a .npz file.")],
    size: Annotated[int | None, typer.Option(min=8, help="Side of the inputs in pixels.")] = None,
    max_broken: MaxBroken = 0.5,
    quiet: Quiet = False,
):
    """Features, paths and indices of a folder or dataset, as arrays of one length."""
    import numpy as np

    from tfssl.evaluate.features import extract
    from tfssl.files import written_whole

    if out.suffix != ".npz":
        raise BadInput(
            f"--out {out}: the result is a NumPy archive; give a name that ends in .npz."
        )
    artefact = _Artefact(encoder)
    model = artefact.load()
    parts = {"features": [], "paths": [], "index": [], "split": []}
    for split in _splits(source):
        try:
            ds = _load(source, split, max_broken, quiet, keys=(artefact.key,))
        except Exception as fault:
            if split == "train" or not _is_callers(fault):
                raise
            continue  # a source need not have a test split
        _broken(ds, quiet)
        batches = _batches(ds, artefact, size)
        found = extract(model, batches, key=artefact.key)
        parts["features"].append(found.features)
        parts["paths"] += list(ds.paths) or [f"{source}@{split}/{i}" for i in found.index]
        parts["index"].append(found.index)
        parts["split"] += [split] * len(found.features)
    arrays = {
        "features": np.concatenate(parts["features"]),
        "paths": np.array(parts["paths"]),
        "index": np.concatenate(parts["index"]),
        "split": np.array(parts["split"]),
    }
    with written_whole(out) as aside, open(aside, "wb") as file:
        np.savez(file, **arrays)
    _note(f"{out}: {arrays['features'].shape[0]} x {arrays['features'].shape[1]} features.", quiet)


@app.command()
def export(
    run: Annotated[pathlib.Path, typer.Argument(help="A run's folder, finished or not.")],
    dest: Annotated[pathlib.Path, typer.Argument(help="The SavedModel's folder.")],
    name: Annotated[str, typer.Option(help="Which of the run's published encoders.")] = "encoder",
):
    """Publishes a run's encoder: SavedModel, model card, golden features, manifest."""
    from tfssl import savedmodel

    artefact = _Artefact(run, name)
    if artefact.run is None:
        raise BadInput(f"{run} is no run's folder: give what `tfssl pretrain --out` wrote.")
    card = artefact.card()
    evaluation = artefact.run / "evaluation.json"
    if evaluation.exists():
        card["results"] = json.loads(evaluation.read_text())
    savedmodel.export(artefact.keras(), dest, card=card)
    print(dest)


@app.command()
def report(
    runs: Annotated[list[pathlib.Path], typer.Argument(help="Run folders; several are compared.")],
    out: Annotated[pathlib.Path, typer.Option(help="The page, an .html file.")] = pathlib.Path(
        "report.html"
    ),
):
    """One self-contained HTML page about a run, or comparing several."""
    from tfssl import report as pages

    print(pages.build(runs, out))


@app.command()
def ingest(
    source: pathlib.Path,
    dest: pathlib.Path,
    max_broken: MaxBroken = 0.5,
    quiet: Quiet = False,
):
    """Decodes a folder of images, videos or sounds once, into shards; resumable."""
    from tfssl.pipelines import ingest as ingesting

    with _progress("reading", quiet) as progress:
        done = ingesting.ingest(source, dest, max_broken=max_broken, progress=progress)
    print(done)


@app.command()
def demo(
    out: Annotated[pathlib.Path, typer.Option(help="Receives the report and the encoder.")] = (
        pathlib.Path("tfssl-demo")
    ),
    quiet: Quiet = False,
):
    """The main job on embedded data, offline, in under three minutes on two cores."""
    raise NotImplementedError


class _Artefact:
    """What the evaluating commands are given: a run's folder, an export of ours, any SavedModel."""

    def __init__(self, path, name="encoder"):
        from tfssl import savedmodel

        self.run = path if (path / "run.json").exists() else None
        self.folder = path / name if self.run else path
        if not (self.folder / "saved_model.pb").exists():
            there = "has not trained to its end yet" if self.run else "is neither"
            raise BadInput(f"{path} {there}: give a finished run's folder, or a SavedModel.")
        self.ours = (self.folder / savedmodel.CARD).exists()
        front = self.card()
        self.size = front.get("size") or 0
        self.key = _input_key(self.folder, front)

    def card(self):
        """The front matter of the model card; {} for a SavedModel of others."""
        from tfssl import savedmodel

        return savedmodel.read_card(self.folder) if self.ours else {}

    def load(self):
        import tensorflow as tf

        from tfssl import savedmodel

        if self.ours:
            return savedmodel.load(self.folder)
        return tf.saved_model.load(str(self.folder))

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


def _input_key(folder, front):
    """Which key of an example an encoder reads, by the rank and type of its first input."""
    import tensorflow as tf

    if front:
        kind, shape = next(iter(front["inputs"].values())).split(" ", 1)
        rank = shape.count(",") + 1
        return "text" if kind == "string" else {2: "audio", 4: "image", 5: "frames"}[rank]
    signature = tf.saved_model.load(str(folder)).signatures["serving_default"]
    spec = next(iter(signature.structured_input_signature[1].values()))
    if spec.dtype == tf.string:
        return "text"
    return {2: "audio", 4: "image", 5: "frames"}.get(spec.shape.rank, "image")


def _arguments(module, method, small, given, pairs):
    """The recipe's keywords for a call: its SMALL, the options, and every --set."""
    import inspect

    from tfssl.pipelines import sources

    known = inspect.signature(module.recipe).parameters
    arguments = dict(module.SMALL) if small else {}
    for key, value in given.items():
        if value in ("", None):
            continue
        if key not in known:
            if key == "seed":
                continue
            raise BadInput(f"--{key.replace('_', '-')}: {method} has no {key.replace('_', ' ')}.")
        arguments[key] = value
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals:
            raise BadInput(f"--set {pair}: write it as key=value.")
        if key not in known:
            raise BadInput(f"--set {key}: {method} has no such key;{_near(key, known)}")
        arguments[key] = _typed(key, text, known[key].default)
    if "data" in known and not (isinstance(arguments.get("data"), str) and arguments["data"]):
        default = known["data"].default
        if not given.get("data") and not small and str(default).startswith("tfds:"):
            raise BadInput(f"--data is missing: a folder, digits, world or tfds:NAME ({default}).")
        arguments["data"] = default
    encoder = arguments.get("encoder")
    if isinstance(encoder, str):
        from tfssl import encoders

        if encoder not in encoders.NAMES:
            raise BadInput(
                f"--encoder {encoder}: there is no such one;{_near(encoder, encoders.NAMES)}"
            )
    sources.parse(arguments["data"])
    return arguments


def _typed(key, text, default):
    """A --set value in the type of the recipe's default."""
    try:
        if isinstance(default, bool):
            return {"true": True, "false": False}[text.lower()]
        if isinstance(default, int):
            return int(text)
        if isinstance(default, float):
            number = float(text)
            if not math.isfinite(number):
                raise ValueError
            return number
        if isinstance(default, (tuple, list)):
            return [_typed(key, part, default[0]) for part in text.split(",")]
    except (KeyError, ValueError):
        raise BadInput(
            f"--set {key}={text}: {key} is a {type(default).__name__}, for example {default}."
        ) from None
    return text


def _near(name, known):
    import difflib

    near = difflib.get_close_matches(name, list(known), 1, 0.4)
    return f" did you mean {near[0]}?" if near else f" there are {', '.join(known)}."


def _choice(option, value, known):
    if value not in known:
        raise BadInput(f"--{option} {value}: there is no such one;{_near(value, known)}")
    return value


def _precision(name):
    """A Keras dtype policy; "auto" is 16 bits where the hardware multiplies them natively."""
    _choice("precision", name, ("auto", "float32", "mixed_bfloat16", "mixed_float16"))
    if name != "auto":
        return name
    import tensorflow as tf

    accelerators = tf.config.list_physical_devices("GPU")
    if accelerators:
        details = tf.config.experimental.get_device_details(accelerators[0])
        ampere = details.get("compute_capability", (0, 0)) >= (8, 0)
        return "mixed_bfloat16" if ampere else "mixed_float16"
    with contextlib.suppress(OSError):
        flags = pathlib.Path("/proc/cpuinfo").read_text()
        if "avx512_bf16" in flags or "amx_bf16" in flags:
            return "mixed_bfloat16"
    return "float32"


def _strategy(name):
    import tensorflow as tf

    several = len(tf.config.list_logical_devices("GPU")) > 1
    if name == "mirrored" or (name == "auto" and several):
        return tf.distribute.MirroredStrategy()
    if name == "multiworker":
        return tf.distribute.MultiWorkerMirroredStrategy()
    return tf.distribute.get_strategy()


def _build(module, arguments, epochs=None):
    """The recipe's run with its random state set; `epochs` may be a fraction of passes."""
    import inspect

    import keras

    if epochs is not None and "epochs" in inspect.signature(module.recipe).parameters:
        arguments = {**arguments, "epochs": int(epochs) if epochs == int(epochs) else epochs}
    keras.utils.set_random_seed(arguments.get("seed", 0))
    return module.recipe(**arguments)


def _default(module, key):
    import inspect

    return inspect.signature(module.recipe).parameters[key].default


def _splits(spec):
    """The splits that a spec without one stands for when all of it is meant."""
    from tfssl.pipelines import sources

    name, split = sources.parse(spec)
    return (split,) if name != spec else ("train", "test")


def _load(spec, split, max_broken, quiet, keys=None):
    """`pipelines.load`, with a progress bar while files are looked at."""
    from tfssl import pipelines
    from tfssl.pipelines import sources

    name, own = sources.parse(spec)
    with _progress("looking at the files", quiet) as progress:
        return pipelines.load(
            spec,
            split if name == spec else own,
            keys,
            max_broken=max_broken,
            progress=progress,
        )


def _broken(ds, quiet):
    """Names what could not be read, and counts it in one line."""
    from tfssl.pipelines import sources

    if ds.broken:
        _say(sources.broken_report(ds.broken, ds.total))


def _evaluated(spec, split, artefact, size, max_broken, quiet):
    """Labelled batches of one split, as the encoder takes them."""
    ds = _load(spec, split, max_broken, quiet, keys=(artefact.key, "label"))
    if split == "train":
        _broken(ds, quiet)
    batches = _batches(ds, artefact, size)
    batches.class_names = ds.class_names
    return batches


def _batches(ds, artefact, size):
    from tfssl.pipelines import batching

    keys = [
        key for key in (artefact.key, "label", "index", "sample_rate") if key in ds.element_spec
    ]
    size = (size or artefact.size or None) if artefact.key in ("image", "frames") else None
    return batching.evaluation(ds.map(lambda example: {k: example[k] for k in keys}), 256, size)


def _sheet(run, title, path):
    """The picture of a few examples before and after the method's views."""
    from tfssl import report

    examples, views = run.dataset.preview(6)
    x, y = views if isinstance(views, tuple) else (views, None)
    report.sheet(examples, x, y, path, title=title)


def _publish(run, record, out):
    """Exports every encoder that the method publishes, and what the report shows of the first."""
    from tfssl import savedmodel, zoo

    about = zoo.card(record["method"])
    card = {
        "title": f"{record['method']}: {record['arguments'].get('encoder', 'encoder')}",
        "task": about["summary"],
        "paper": f"{about['authors']}: {about['title']}, {about['venue']} {about['year']}",
        "url": about["url"],
        "data": record["data"],
        "call": record["call"],
        "seed": record["seed"],
        "precision": record["precision"],
        "modality": record["modality"],
        "size": record["size"],
        "licence": "the code Apache-2.0; the weights under the terms of the data they are made of",
    }
    history = out / "history.json"
    if history.exists():
        card["results"] = json.loads(history.read_text())[-1]
    for name, encoder in run.model.published.items():
        savedmodel.export(encoder, out / name, card=card)
    artefact = _Artefact(out)
    with contextlib.suppress(BadInput):  # fewer than two examples have no neighbours
        ds = _load(record["data"], "train", 1.0, True, keys=(artefact.key,))
        _neighbours(artefact, _batches(ds.take(1000), artefact, 0))


def _neighbours(artefact, batches):
    """What the report shows of the features of some examples."""
    from tfssl import report

    classes = getattr(batches, "class_names", ())
    report.gather(artefact.load(), batches, artefact.run, artefact.key, classes=classes)


def _refresh_report(folder):
    """The run's own page; a run is not lost because its page cannot be drawn."""
    from tfssl import report

    try:
        report.build([folder], folder / "report.html")
    except Exception as fault:
        _say(f"The report could not be written: {fault}")


def _table(found):
    """The results as aligned text, a row a protocol and encoder."""
    rows = [("protocol", "encoder", "result", "95 %", "settings")]
    for title in ("results", *BASELINES):
        who = "this one" if title == "results" else title
        for name, result in found.get(title, {}).items():
            numbers = {k: v for k, v in result.items() if isinstance(v, float)}
            main = next((k for k in ("top1", "R@1", "best_top1") if k in numbers), None)
            main = main or next(iter(numbers))
            low, high = (numbers.get(f"{main}_{end}") for end in ("low", "high"))
            interval = f"{100 * low:.1f}-{100 * high:.1f}" if low is not None else ""
            settings = [
                f"{k}={result[k]}" for k in ("k", "temperature", "C", "labels") if k in result
            ]
            value = f"{main} {100 * numbers[main]:.1f} %"
            rows.append((name, who, value, interval, " ".join(settings)))
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    return "\n".join("  ".join(f"{c:{w}}" for c, w in zip(row, widths)).rstrip() for row in rows)


@contextlib.contextmanager
def _progress(task, quiet):
    """A bar on a terminal's stderr, shown from the third second on; yields f(done, total)."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    begun, known = _clock(), {}
    with Progress(console=console, transient=True, disable=quiet or not console.is_terminal) as bar:

        def step(done, total):
            if _clock() - begun > 2 and "task" not in known:
                known["task"] = bar.add_task(task)
            if "task" in known:
                bar.update(known["task"], completed=done, total=total)

        yield step


def _note(text, quiet):
    if not quiet:
        print(text, flush=True)


def _verbosity(quiet):
    """Keras' progress: a bar on a terminal, a line an epoch elsewhere."""
    return 0 if quiet else 1 if sys.stdout.isatty() else 2


def _clock():
    import time

    return time.perf_counter()


def _quoted(word):
    import shlex

    return shlex.quote(word)


if __name__ == "__main__":
    main()
