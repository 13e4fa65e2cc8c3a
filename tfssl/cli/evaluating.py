"""`tfssl evaluate`, `embed` and `export`: what an encoder is worth, and what it gives."""

import contextlib
import pathlib
from typing import Annotated

import typer

from tfssl.cli.artefact import Artefact, batches_of, keep_neighbours, refresh_report
from tfssl.cli.console import note
from tfssl.cli.options import Data, MaxBroken, Quiet, Seed, Size, choice, load
from tfssl.cli.training import tell_broken, unfinished
from tfssl.errors import BadInput
from tfssl.files import refuse_unwritable, written_whole

ON_FEATURES = ("knn", "linear", "svm", "retrieval", "low_label", "transfer")
ON_CLASSES = (*ON_FEATURES, "linear_sgd", "layers", "layers_sgd", "finetune", "finetune_10")
ON_CLASSES = (*ON_CLASSES, "finetune_1")
# Protocols whose examples hold more than one class, and how such sources are read.
ANNOTATED = {"segmentation": "segmented", "detection": "boxed", "voc07": "tagged"}
PROTOCOLS = (*ON_CLASSES, *ANNOTATED)
BASELINES = ("random", "supervised")
THIS = "this encoder"
# The number of each protocol that the table shows.
MAIN = ("top1", "R@1", "mean_iou", "AP50_11point", "mAP", "mean")


def evaluate(
    encoder: Annotated[pathlib.Path, typer.Argument(help="A run's folder or a SavedModel.")],
    protocol: Annotated[
        list[str], typer.Option(help=f"Any number of {', '.join((*PROTOCOLS, *BASELINES))}.")
    ],
    data: Data = "",
    json_: Annotated[
        pathlib.Path | None, typer.Option("--json", help="Write the results here.")
    ] = None,
    size: Size = None,
    seed: Seed = 0,
    max_broken: MaxBroken = 0.5,
    quiet: Quiet = False,
):
    """Measures an encoder on labelled data, by the field's protocols.

    `--protocol transfer` without --data runs over the twelve data sets of the transfer suite; with
    one of these it takes the suite's metric and validation split.
    """
    from tfssl import evaluate as protocols
    from tfssl import rundir
    from tfssl.evaluate.transfer import in_suite

    for name in protocol:
        choice("protocol", name, (*PROTOCOLS, *BASELINES))
    names = [name for name in protocol if name in PROTOCOLS]
    if not names and "random" in protocol:
        raise BadInput("--protocol random repeats other protocols untrained: name at least one.")
    if not data and (names != ["transfer"] or "supervised" in protocol):
        raise BadInput(
            "--data is missing: a folder, digits, world or tfds:NAME; only --protocol transfer "
            "does without, and measures the data sets of the transfer suite that are on this disk."
        )
    source, parts = _parts(data)
    if json_ is not None and json_.is_dir():  # not after hours of measuring
        raise BadInput(f"--json {json_}: this is a folder; give a file's name.")
    if json_ is not None:
        refuse_unwritable(json_.parent, f"--json {json_}")
    artefact = Artefact(encoder)
    of_suite = "transfer" in names and parts[1] == "test" and in_suite(source)
    on_classes = [name for name in names if name in ON_CLASSES and data]
    on_classes = [name for name in on_classes if not (of_suite and name == "transfer")]
    train = test = None
    if on_classes or "supervised" in protocol:
        train, test = (
            _evaluated(source, split, artefact, size, max_broken, quiet) for split in parts
        )

    def measured(model, who):
        with _about(encoder, data):
            return each(model, who)

    def each(model, who):
        results = _measure(model, on_classes, train, test, seed, who, quiet) if on_classes else {}
        if of_suite:
            note(f"transfer of {who} ...", quiet)
            results["transfer"] = _measure_suite(model, artefact, source, size, seed)
        for name in names:
            if name in ANNOTATED:
                note(f"{name} of {who} ...", quiet)
                # A detector is built anew around the weights, for which a SavedModel is no help.
                rebuilt = artefact.keras() if name == "detection" and who == THIS else model
                results[name] = _measure_annotated(rebuilt, name, source, parts, size, seed)
        return {name: results[name] for name in names}

    found = {"encoder": str(encoder), "data": data}
    found["results"] = measured(artefact.load(), THIS)
    if "random" in protocol:
        found["random"] = measured(artefact.untrained(seed), "a random encoder")
    if "supervised" in protocol:
        note("the same network trained with labels ...", quiet)
        with _about(encoder, data):
            supervised = protocols.supervised(artefact.untrained(seed), train, test, seed=seed)
        found["supervised"] = {"supervised": supervised}
    print(_table(found))
    if json_ is not None:
        rundir.write_json(json_, found)
    if artefact.run is not None:
        _keep(artefact.run / "evaluation.json", found)
        if test is not None:
            keep_neighbours(artefact, test)
        refresh_report(artefact.run)


@contextlib.contextmanager
def _about(encoder, data):
    """Names what was given in a refusal of the protocols, which see arrays that have no name."""
    try:
        yield
    except BadInput as fault:
        told = str(fault)
        if str(encoder) in told or (data and data in told):
            raise
        given = f"{str(encoder)[-120:]} on --data {data[-120:]}" if data else str(encoder)[-240:]
        raise BadInput(f"{given}: {told}") from None


def _keep(path, found):
    """Writes results beside what earlier calls have measured on the same data, for the report."""
    from tfssl import rundir

    try:
        earlier = rundir.read_json(path)
    except BadInput:  # none yet, or damaged: what is new stands alone
        earlier = {}
    if isinstance(earlier, dict) and earlier.get("data") == found["data"]:
        for who in ("results", *BASELINES):
            both = {**earlier.get(who, {}), **found.get(who, {})}
            found = {**found, who: both} if both else found
    rundir.write_json(path, found)


def _parts(data):
    """(source, (split to learn from, split to be measured on)) of --data, `@val` or `@test` given.

    A probe that is measured on what it has learned from says nothing.
    """
    from tfssl.pipelines import sources

    source, split = sources.parse(data)
    if source == data:
        return source, ("train", "test")
    if split in ("train", "all"):
        raise BadInput(
            f"--data {data}: protocols learn from a source's train split and are measured on "
            f"another: give {source}, or {source}@test or @val."
        )
    return source, ("train", split)


def _measure(encoder, names, train, test, seed, who, quiet):
    """{protocol: its result}, each told as it begins; features are computed once for all."""
    from tfssl import evaluate as protocols
    from tfssl.evaluate.features import extract

    features, results = None, {}
    for name in names:
        note(f"{name} of {who} ...", quiet)
        data = train, test
        if name in ON_FEATURES:
            features = features or [extract(encoder, part) for part in data]
            data = features
        results[name] = protocols.PROTOCOLS[name](encoder, *data, seed=seed)
    return results


def _measure_annotated(encoder, name, source, splits, size, seed):
    """A protocol on pictures that carry more than one class."""
    from tfssl import evaluate as protocols
    from tfssl.pipelines.sources import annotated

    parts = [getattr(annotated, ANNOTATED[name])(source, split) for split in splits]
    sized = {"size": size} if size else {}
    return protocols.ANNOTATED[name](encoder, *parts, seed=seed, **sized)


def _measure_suite(encoder, artefact, source, size, seed):
    """The transfer suite over what TFDS has on this disk, and why the rest is missing.

    Of a `source` that is one of its data sets the result of that one.
    """
    from tfssl import evaluate as protocols
    from tfssl import pipelines
    from tfssl.evaluate.transfer import in_suite
    from tfssl.pipelines.sources import annotated

    def found(entry, split):
        if entry.metric == "mAP_11point":
            return annotated.tagged(entry.data, split, trainval=False)
        return pipelines.load(entry.data, split, keys=("image", "label"))

    names = in_suite(source)
    sized = size or artefact.size or 224
    result = protocols.suite(encoder, found, size=sized, seed=seed, names=names)
    if source and result["missing"]:
        raise BadInput(f"--data {source}: {result['missing'][names[0]]}")
    for name, why in result["missing"].items():
        print(f"not measured: {name}: {why}")
    return result["datasets"][names[0]] if source else result


def embed(
    encoder: Annotated[pathlib.Path, typer.Argument(help="A run's folder or a SavedModel.")],
    source: Annotated[str, typer.Argument(help="As --data elsewhere; without @split all of it.")],
    out: Annotated[pathlib.Path, typer.Option(help="The result, a .npz file.")],
    size: Size = None,
    max_broken: MaxBroken = 0.5,
    quiet: Quiet = False,
):
    """Features, paths and indices of a folder or dataset, as arrays of one length."""
    import numpy as np

    from tfssl.evaluate.features import extract

    if out.suffix != ".npz":
        raise BadInput(
            f"--out {out}: the result is a NumPy archive; give a name that ends in .npz."
        )
    refuse_unwritable(out.parent, f"--out {out}")
    artefact = Artefact(encoder)
    model = artefact.load()
    ds = load(source, "all", max_broken, quiet, (artefact.key,), artefact.sample_rate)
    tell_broken(ds, quiet)
    with _about(encoder, source):
        found = extract(model, batches_of(ds, artefact, size), key=artefact.key)
    arrays = {
        "features": found.features,
        "paths": np.array(list(ds.paths) or [f"{source}/{i}" for i in found.index]),
        "index": found.index,
    }
    with written_whole(out) as aside, open(aside, "wb") as file:
        np.savez(file, **arrays)
    note(f"{out}: {arrays['features'].shape[0]} x {arrays['features'].shape[1]} features.", quiet)


def export(
    run: Annotated[pathlib.Path, typer.Argument(help="A run's folder, finished or not.")],
    dest: Annotated[pathlib.Path, typer.Argument(help="The SavedModel's folder.")],
    name: Annotated[str, typer.Option(help="Which of the run's published encoders.")] = "encoder",
):
    """Publishes a run's encoder: SavedModel, model card, golden features, manifest."""
    from tfssl import rundir, savedmodel

    if not (run / "run.json").exists():
        raise BadInput(f"{run} is no run's folder: give what `tfssl pretrain --out` wrote.")
    if (run / name / "saved_model.pb").exists() or (run / "encoder").exists():
        artefact = Artefact(run, name)
        encoder, card = artefact.keras(), artefact.card()
    else:
        encoder, card = unfinished(run, name)
    evaluation = run / "evaluation.json"
    if evaluation.exists():
        card["results"] = rundir.read_json(evaluation)
    savedmodel.export(encoder, dest, card=card)
    print(dest)


def _evaluated(spec, split, artefact, size, max_broken, quiet):
    """Labelled batches of one split, as the encoder takes them."""
    ds = load(spec, split, max_broken, quiet, (artefact.key, "label"), artefact.sample_rate)
    if split == "train":
        tell_broken(ds, quiet)
    batches = batches_of(ds, artefact, size)
    batches.class_names = ds.class_names
    return batches


def _table(found):
    """The results as aligned text, a row a protocol and encoder."""
    rows = [("protocol", "encoder", "result", "95 %", "settings")]
    for title in ("results", *BASELINES):
        who = "this one" if title == "results" else title
        for name, result in found.get(title, {}).items():
            main = result.get("metric") or next((k for k in MAIN if k in result), None)
            if main is None:  # a result a tap
                taps = [k for k in result if k.endswith("_top1")]
                main = max(taps, key=result.get)
            if result[main] is None:
                continue  # nothing of the suite is there
            low, high = result.get(f"{main}_low"), result.get(f"{main}_high")
            interval = f"{100 * low:.1f}-{100 * high:.1f}" if low is not None else ""
            settings = [
                f"{k}={result[k]}" for k in ("k", "temperature", "C", "labels") if k in result
            ]
            value = f"{main} {100 * result[main]:.1f} %"
            rows.append((name, who, value, interval, " ".join(settings)))
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    return "\n".join("  ".join(f"{c:{w}}" for c, w in zip(row, widths)).rstrip() for row in rows)
