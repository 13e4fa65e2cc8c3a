"""`tfssl show` and `tfssl pretrain`: from a call to a trained, published encoder."""

import contextlib
import inspect
import math
import pathlib
import shlex
import sys
from typing import Annotated

import typer

from tfssl.cli.artefact import Artefact, batches_of, keep_neighbours, middle, refresh_report
from tfssl.cli.console import clock, note, progress, say, verbosity, working
from tfssl.cli.options import (
    Data,
    MaxBroken,
    Quiet,
    Seed,
    Size,
    arguments_of,
    choice,
    load,
    policy,
    strategy_of,
)
from tfssl.errors import BadInput
from tfssl.files import refuse_unwritable


def show(
    method: str,
    out: Annotated[pathlib.Path, typer.Option(help="The picture, a .png file.")],
    data: Data = None,
    size: Size = None,
    seed: Seed = 0,
    quiet: Quiet = False,
):
    """A picture of what a method sees: inputs, views, targets."""
    from tfssl import zoo
    from tfssl.pipelines import sources

    module = zoo.get(method)
    if out.suffix.lower() != ".png":
        raise BadInput(f"--out {out}: the picture is a PNG; give a name that ends in .png.")
    arguments = arguments_of(module, method, True, {"data": data, "size": size, "seed": seed}, [])
    if arguments.get("batch_size"):  # a picture of six needs no full batch
        ds = load(arguments["data"], "train", 1.0, True)
        arguments["batch_size"] = max(1, min(arguments["batch_size"], int(ds.cardinality())))
    refuse_unwritable(out.parent, f"--out {out}")
    with sources.accepting(1.0), working("drawing", quiet):
        draw_sheet(build(module, arguments), method, out)
    print(out)


def pretrain(
    method: str,
    out: Annotated[pathlib.Path, typer.Option(help="The run's folder; the same call resumes it.")],
    data: Data = None,
    small: Annotated[
        bool, typer.Option("--small", help="The method's SMALL recipe: minutes on two cores.")
    ] = False,
    encoder: Annotated[str, typer.Option(help="An encoder's name.")] = "",
    size: Size = None,
    batch_size: Annotated[int | None, typer.Option(min=1)] = None,
    epochs: Annotated[int | None, typer.Option(min=1)] = None,
    steps_per_epoch: Annotated[int | None, typer.Option(min=1)] = None,
    minutes: Annotated[
        float | None,
        typer.Option(min=0.05, max=1e6, help="Train as many epochs as fit into this time."),
    ] = None,
    precision: Annotated[
        str, typer.Option(help="auto, float32, mixed_bfloat16 or mixed_float16.")
    ] = "auto",
    strategy: Annotated[str, typer.Option(help="auto, one, mirrored or multiworker.")] = "auto",
    seed: Seed = 0,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A recipe keyword.")
    ] = None,
    max_broken: MaxBroken = 0.5,
    quiet: Quiet = False,
):
    """Trains an encoder on unlabelled data; the same command again resumes, exactly."""
    from tfssl import rundir, zoo
    from tfssl.pipelines import sources

    module = zoo.get(method)
    given = {
        "encoder": encoder,
        "data": data,
        "size": size,
        "batch_size": batch_size,
        "epochs": epochs,
        "seed": seed,
    }
    arguments = arguments_of(module, method, small, given, set_ or [])
    call = {
        "method": method,
        "call": "tfssl " + " ".join(map(shlex.quote, sys.argv[1:])),
        "arguments": arguments,
        "steps_per_epoch": steps_per_epoch,
        "minutes": minutes,
        "precision": policy(precision),
        "strategy": choice("strategy", strategy, ("auto", "one", "mirrored", "multiworker")),
        "seed": seed,
        "modality": zoo.card(method)["modality"],
        "size": _side(module, arguments),
        "data": arguments["data"],
    }
    fresh = not (out / "run.json").exists()
    record = rundir.claim(out, {key: value for key, value in call.items() if key != "call"})
    record.setdefault("call", call["call"])
    record.setdefault("uses", list(getattr(module.views, "uses", ())))  # annotation, by its keys
    # SMALL's epochs are for those who give no time.
    asked = epochs is not None or any(word.startswith("epochs=") for word in set_ or ())
    most = arguments["epochs"] if asked else math.inf
    several = strategy == "multiworker"  # who share the folder; the first of them writes
    with (
        contextlib.nullcontext() if several else rundir.alone(out),
        sources.accepting(max_broken, told=teller()),  # recipes load their data themselves
    ):
        try:
            _train(module, record, out, quiet, most)
        except Exception:
            if fresh and not several:  # a corrected call is to find its folder free
                rundir.abandon(out)
            raise


def _train(module, record, out, quiet, most=math.inf):
    """Trains what run.json records, from wherever the checkpoints stand, and publishes it.

    `most` epochs where `minutes` would hold more.
    """
    import keras

    from tfssl import callbacks, rundir

    if record["finished"] and (out / "encoder").exists():
        _mend(module, record, out)
        note(f"{out} is finished already; its encoder is {out / 'encoder'}.", quiet)
        return
    keras.config.set_dtype_policy(record["precision"])
    with strategy_of(record["strategy"]).scope():
        run = None
        if "plan" not in record:
            record["plan"], run = _plan(module, record, quiet, most)
            rundir.write_json(out / "run.json", record)
        run = run or _planned(module, record, quiet)
    plan = record["plan"]
    if run.dataset.steps != plan["steps_per_pass"]:
        raise BadInput(
            f"{out} was begun on data of {plan['steps_per_pass']} batches, and --data "
            f"{record['data']} has {run.dataset.steps} now: give the same data, or another --out."
        )
    epochs, steps = record.get("stopped") or plan["epochs"], plan["steps_per_epoch"]
    resume = callbacks.Resume(out / "checkpoints")
    begun = resume.epoch
    if begun:
        note(f"Resuming after epoch {begun} of {epochs}.", quiet)
    if not (out / "sheet.png").exists():
        draw_sheet(run, record["method"], out / "sheet.png")
    watching = [
        callbacks.Health(run.dataset),
        keras.callbacks.TensorBoard(out / "logs", write_graph=False),
        rundir.Journal(out / "history.json", examples=steps * plan["batch_size"]),
        resume,
        deadline := rundir.Deadline(1.25 * 60 * (record["minutes"] or math.inf)),
    ]
    history = run._replace(dataset=run.dataset.endless(begun * steps)).fit(
        callbacks=watching, epochs=epochs, steps_per_epoch=steps, verbose=verbosity(quiet)
    )
    if not math.isfinite(history.history.get("loss", [0.0])[-1]):
        raise BadInput(
            f"{out}: the loss is no number any more, so no encoder is published: train with a "
            "lower --set learning_rate=..., or --precision float32, in another folder."
        )
    if deadline.stopped:  # a repeated call publishes what there is, and trains no further
        record["stopped"] = deadline.stopped
        rundir.write_json(out / "run.json", record)
    with working("publishing", quiet):
        _publish(run, record, out)
        record["finished"] = rundir.now()
        rundir.write_json(out / "run.json", record)
        _show_neighbours(record, out)
        refresh_report(out)
    note(f"Encoder: {out / 'encoder'}   Report: {out / 'report.html'}", quiet)


def _mend(module, record, out):
    """Makes anew what is gone of a finished run's folder and can be made; says what cannot."""
    from tfssl.report.features import FILE

    gone = [name for name in ("sheet.png", FILE, "report.html") if not (out / name).exists()]
    if not (out / "history.json").exists():
        say(f"{out / 'history.json'} is gone: nothing else tells of the epochs.")
    if "sheet.png" in gone:
        draw_sheet(_planned(module, record), record["method"], out / "sheet.png")
    if FILE in gone:
        _show_neighbours(record, out)
    if gone:
        refresh_report(out)


def _planned(module, record, quiet=True):
    """The recipe's run for all planned epochs, wherever it stands."""
    plan = record["plan"]
    passes = plan["epochs"] * plan["steps_per_epoch"] / plan["steps_per_pass"]
    return build(module, record["arguments"], passes, quiet)


def unfinished(out, name):
    """(encoder, card) of a run that has not come to its end, from its newest checkpoint."""
    import keras

    from tfssl import callbacks, rundir, zoo
    from tfssl.pipelines import sources

    record = rundir.read_json(out / "run.json")
    resume = callbacks.Resume(out / "checkpoints")
    if not resume.epoch or "plan" not in record:
        raise BadInput(f"{out} has not finished an epoch yet: repeat its `tfssl pretrain` first.")
    keras.config.set_dtype_policy(record["precision"])
    with sources.accepting(1.0):  # as its `pretrain` has
        run = _planned(zoo.get(record["method"]), record)
    resume.set_model(run.model)
    resume.on_train_begin()
    published = run.model.published
    if name not in published:
        raise BadInput(f"--name {name}: this run publishes {', '.join(published)}.")
    return published[name], _card(record, out, name)


def _plan(module, record, quiet, most):
    """(plan, run): how many epochs of how many steps, as asked or as many as the minutes hold.

    The run is the one that the plan asks for, or None where it must be built for other epochs.
    """
    start = clock()
    run = build(module, record["arguments"], quiet=quiet)
    each = run.dataset.steps
    batch_size = record["arguments"].get("batch_size") or _default(module, "batch_size")
    epochs, steps = math.ceil(run.epochs), record["steps_per_epoch"] or each
    as_planned = run if epochs == run.epochs and steps == each else None
    if record["minutes"] and run.model.optimizer is not None:  # without one there is one look
        as_planned = None
        note("Measuring the speed, to plan the epochs...", quiet)
        stopwatch = _Stopwatch(max(3.0, 2.4 * record["minutes"]), each)  # 4 % of the time
        endless = run._replace(dataset=run.dataset.endless())
        endless.fit(callbacks=[stopwatch.callback()], epochs=1, steps_per_epoch=10**6, verbose=0)
        # The run that follows is traced once more.
        left = 60 * record["minutes"] - (clock() - start) - stopwatch.first
        total = min(max(1, int(left / stopwatch.each)), most * steps)
        epochs = max(1, round(total / steps))
        steps = max(1, total // epochs)
        note(f"{stopwatch.each * 1e3:.0f} ms a step: {epochs} epochs of {steps} steps.", quiet)
    plan = {
        "epochs": epochs,
        "steps_per_epoch": steps,
        "steps_per_pass": each,
        "batch_size": batch_size,
    }
    return plan, as_planned


class _Stopwatch:
    """Times steps for `seconds`: the first, which traces, and the mean of the later half.

    Many sources read or render in the first pass and remember, so a whole pass of `steps` is waited
    for, unless that takes three times as long.
    """

    def __init__(self, seconds, steps):
        self.seconds, self.steps = seconds, steps
        self.begun, self.times = clock(), []

    def callback(self):
        import keras

        def after(batch, logs):
            self.times.append(clock())
            taken, count = self.times[-1] - self.times[0], len(self.times)
            remembered = count > 1.5 * self.steps or taken > 3 * self.seconds
            callback.model.stop_training = taken > self.seconds and count > 3 and remembered

        callback = keras.callbacks.LambdaCallback(on_train_batch_end=after)
        return callback

    @property
    def first(self):
        return self.times[0] - self.begun

    @property
    def each(self):
        later = self.times[len(self.times) // 2 :]
        return (later[-1] - later[0]) / (len(later) - 1)


def build(module, arguments, epochs=None, quiet=True):
    """The recipe's run with its random state set; `epochs` may be a fraction of passes."""
    import keras

    from tfssl.pipelines import sources

    if epochs is not None and "epochs" in inspect.signature(module.recipe).parameters:
        arguments = {**arguments, "epochs": int(epochs) if epochs == int(epochs) else epochs}
    keras.utils.set_random_seed(arguments.get("seed", 0))
    with progress("looking at the files", quiet) as step, sources.accepting(progress=step):
        run = module.recipe(**arguments)
    _refuse_unequal(run.dataset)
    return run


def _refuse_unequal(dataset):
    """Refuses batches of which the devices that train together would get unequal shares."""
    import tensorflow as tf

    from tfssl.objectives import replicas

    size, count = tf.nest.flatten(dataset.element_spec)[0].shape[0], replicas.count()
    if size is not None and size % count:
        raise BadInput(
            f"--batch-size {size}: {count} devices share each batch equally, so give a multiple of "
            f"{count}, or --strategy one."
        )


def _default(module, key):
    return inspect.signature(module.recipe).parameters[key].default


def _side(module, arguments):
    """Pixels of the pictures that a run trains on; None where they are no squares, or not there."""
    known = inspect.signature(module.recipe).parameters
    side = arguments.get("size", known["size"].default if "size" in known else None)
    return side if isinstance(side, int) else None


def tell_broken(ds):
    """Names what could not be read, and counts it in one line."""
    from tfssl.pipelines import sources

    if ds.broken:
        say(sources.broken_report(ds.broken, ds.total))


def teller():
    """`tell_broken` for sources that are loaded more than once: what was told is not repeated."""
    told = []

    def tell(ds):
        if ds.broken and ds.broken not in told:
            told.append(ds.broken)
            tell_broken(ds)

    return tell


def draw_sheet(run, title, path):
    """The picture of a few examples before and after the method's views."""
    from tfssl import report

    examples, views = run.dataset.preview(6)
    x, y = views if isinstance(views, tuple) else (views, None)
    x, y = run.model.shown(x, y)
    report.sheet(examples, x, y, path, title=title)


def _publish(run, record, out):
    """Exports every encoder that the method publishes."""
    from tfssl import savedmodel

    for name, encoder in run.model.published.items():
        savedmodel.export(encoder, out / name, card=_card(record, out, name))


def _show_neighbours(record, out):
    """Keeps what the report shows of the first published encoder's features."""
    artefact = Artefact(out)
    ds = _shown(record["data"], artefact.key, artefact.reading())
    if ds is not None and int(ds.cardinality()) > 1:  # one example has no neighbours
        keep_neighbours(artefact, batches_of(ds, artefact, 0))


def _shown(data, key, reading):
    """The training examples, of clips for an encoder of pictures their middle frames, or None."""
    from tfssl.pipelines import errors
    from tfssl.pipelines.datasets import changed

    for other in (key, "frames") if key == "image" else (key,):
        try:
            ds = load(data, "train", 1.0, True, (other,), **reading)
        except errors.BadInput:
            continue
        if other == key:
            return ds
        return changed(ds, lambda clips: {"image": middle(clips["frames"], 1)[:, 0]})
    return None


def _card(record, out, name):
    """What the model card says of a run's encoder of this name."""
    from tfssl import rundir, zoo

    about = zoo.card(record["method"])
    named = record["arguments"].get("encoder") or name if name == "encoder" else name
    card = {
        "title": f"{record['method']}: {named}",
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
        card["results"] = rundir.read_json(history)[-1]
    return card
