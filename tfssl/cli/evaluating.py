"""`tfssl evaluate`, `embed` and `export`: what an encoder is worth, and what it gives."""

import contextlib
import pathlib
from typing import Annotated

import typer

from tfssl.cli.artefact import Artefact, batches_of, keep_neighbours, refresh_report
from tfssl.cli.console import note, say, working
from tfssl.cli.options import Data, MaxBroken, Quiet, Seed, Size, choice, load
from tfssl.cli.training import tell_broken, unfinished
from tfssl.errors import BadInput
from tfssl.files import refuse_unwritable, written_whole

ON_FEATURES = ("knn", "linear", "linear_sgd", "svm", "retrieval", "low_label", "transfer")
ON_CLASSES = (*ON_FEATURES, "layers", "layers_sgd", "finetune", "finetune_10")
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
    # What can be refused is, before hours of measuring.
    annotated = {
        name: _annotated(name, source, parts, max_broken, quiet)
        for name in names
        if name in ANNOTATED
    }
    if "detection" in names or set(BASELINES) & set(protocol):
        artefact.keras()
    train = test = None
    if on_classes or "supervised" in protocol:
        train, test = (
            _evaluated(source, split, artefact, size, max_broken, quiet) for split in parts
        )

    settings = {"size": size or artefact.size or None, "seed": seed}

    def measure(model, who, results):
        with _about(encoder, data):
            for name, result in _measure(model, on_classes, train, test, seed, who, quiet):
                results[name] = {**settings, **result}
            if of_suite:
                with _told(f"transfer of {who}", quiet):
                    suite = _measure_suite(model, artefact, source, size, seed)
                results["transfer"] = {**settings, **suite}
            for name, data_of_parts in annotated.items():
                # A detector is built anew around the weights: a SavedModel is no help.
                rebuilt = artefact.keras() if name == "detection" and who == THIS else model
                with _told(f"{name} of {who}", quiet):
                    # VOC's SVMs take pictures as the encoder was trained; the others their own.
                    sized = (size or artefact.size) if name == "voc07" else size
                    sized = {"size": sized} if sized else {}
                    result = protocols.ANNOTATED[name](rebuilt, *data_of_parts, seed=seed, **sized)
                results[name] = {**settings, **result}

    found = {"encoder": str(encoder), "data": data, "results": {}}
    try:
        measure(artefact.load(), THIS, found["results"])
        if "random" in protocol:
            measure(artefact.untrained(seed), "a random encoder", found.setdefault("random", {}))
        if "supervised" in protocol:
            with _told("the same network trained with labels", quiet), _about(encoder, data):
                trained = protocols.supervised(artefact.untrained(seed), train, test, seed=seed)
            found["supervised"] = {"supervised": {**settings, **trained}}
    finally:  # what was measured before a refusal is not lost
        if any(found.get(who) for who in ("results", *BASELINES)):
            _hand_over(found, json_, artefact, test)


@contextlib.contextmanager
def _told(what, quiet):
    """Says what is being measured, and moves a bar while it is."""
    note(f"{what} ...", quiet)
    with working(what, quiet):
        yield


def _hand_over(found, json_, artefact, test):
    """Prints the results, and writes them where they were asked for and into the run's folder."""
    from tfssl import rundir

    table = _table(found)
    print(table or "None of the data sets of the transfer suite is on this disk.")
    if json_ is not None:
        rundir.write_json(json_, found)
    if artefact.run is not None:
        try:
            _keep(artefact.run / "evaluation.json", found)
        except OSError as fault:  # as where it lies on a disk that is only read
            say(f"{artefact.run} does not keep the results ({fault.strerror.lower()}).")
            return
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
    """Writes results beside what earlier calls have measured on the same data, for the report.

    The transfer suite has data of its own, so it stands beside anything. A baseline of another size
    or seed than its protocol's result goes.
    """
    from tfssl import rundir

    try:
        earlier = rundir.read_json(path)
    except BadInput:  # none yet, or damaged: what is new stands alone
        earlier = {}
    earlier = earlier if isinstance(earlier, dict) else {}
    kept = {who: _there(found[who]) for who in ("results", *BASELINES) if who in found}
    if not any(kept.values()):
        return
    data = found["data"] or earlier.get("data", "")
    if earlier.get("data") == data:
        for who in ("results", *BASELINES):
            both = {**earlier.get(who, {}), **kept.get(who, {})}
            kept = {**kept, who: both} if both else kept
    for who in BASELINES:
        alike = {
            name: result
            for name, result in kept.get(who, {}).items()
            if _settings(result) == _settings(kept["results"].get(name, result))
        }
        kept = {**kept, who: alike} if alike else {k: v for k, v in kept.items() if k != who}
    rundir.write_json(path, {"encoder": found["encoder"], "data": data, **kept})


def _settings(result):
    return result.get("size"), result.get("seed")


def _there(results):
    """Results without those of a suite of which nothing is on this disk."""
    return {name: result for name, result in results.items() if result.get("mean", 0) is not None}


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
    """Yields (protocol, its result), each told as it begins; features are computed once for all."""
    from tfssl import evaluate as protocols
    from tfssl.evaluate.features import extract

    features = None
    for name in names:
        data = train, test
        with _told(f"{name} of {who}", quiet):
            if name in ON_FEATURES:
                features = features or [extract(encoder, part) for part in data]
                data = features
            result = protocols.PROTOCOLS[name](encoder, *data, seed=seed)
        if name == "low_label" and result["labels"] < result["per_class"] * result["classes"]:
            say(
                f"low_label: some classes have fewer than {result['per_class']} training examples, "
                "so its draws share them, and its interval is too narrow."
            )
        yield name, result


def _annotated(name, source, splits, max_broken, quiet):
    """Pictures that carry more than one class, as a protocol reads them: of each split."""
    from tfssl.pipelines import sources
    from tfssl.pipelines.sources import annotated

    read = getattr(annotated, ANNOTATED[name])
    # VOC's trainval holds `val`: what is measured on that learns from train alone.
    whole = {} if name == "segmentation" else {"trainval": splits[1] == "test"}
    with sources.accepting(max_broken), working("looking at the pictures", quiet):
        parts = [read(source, split, **whole) for split in splits]
    for part in parts:
        tell_broken(part)
    return parts


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
    ds = load(source, "all", max_broken, quiet, (artefact.key,), **artefact.reading(size))
    tell_broken(ds)
    with _about(encoder, source), working("computing features", quiet):
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
    quiet: Quiet = False,
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
    if evaluation.exists() and name == "encoder":  # which is the one that `evaluate` measures
        card["results"] = rundir.read_json(evaluation)
    with working("exporting", quiet):
        savedmodel.export(encoder, dest, card=card)
    print(dest)


def _evaluated(spec, split, artefact, size, max_broken, quiet):
    """Labelled batches of one split, as the encoder takes them."""
    ds = load(spec, split, max_broken, quiet, (artefact.key, "label"), **artefact.reading(size))
    if split == "train":
        tell_broken(ds)
    return batches_of(ds, artefact, size)


def _table(found):
    """The results as aligned text, a row a protocol and encoder; "" if nothing was measured."""
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
    if len(rows) == 1:
        return ""
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    return "\n".join("  ".join(f"{c:{w}}" for c, w in zip(row, widths)).rstrip() for row in rows)
