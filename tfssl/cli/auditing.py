"""`tfssl audit`: whether a pretext can be solved by a trivial cue."""

import functools
import pathlib
from typing import Annotated

import typer

from tfssl.cli import laboratory
from tfssl.cli.console import note, progress
from tfssl.cli.options import Data, MaxBroken, Quiet, Seed, Size, arguments_of, load
from tfssl.cli.training import tell_broken
from tfssl.errors import BadInput
from tfssl.files import refuse_unwritable, written_whole


def audit(
    method: str,
    data: Data,
    out: Annotated[
        pathlib.Path, typer.Option(help="Folder of audit.json, audit.txt and audit.png.")
    ] = pathlib.Path("tfssl-audit"),
    cue: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME[=STRENGTH]", help="A cue; any number. Default: all that apply."),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Of each training.")] = 100,
    minutes: Annotated[
        float | None, typer.Option(min=0.1, max=1e6, help="For everything, instead of --steps.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, max=100, help="Trainings of each kind.")] = 2,
    examples: Annotated[int, typer.Option(min=8, help="The most to train on.")] = 2000,
    encoder: Annotated[str, typer.Option(help="An encoder's name.")] = "",
    size: Size = None,
    batch_size: Annotated[int | None, typer.Option(min=2)] = None,
    seed: Seed = 0,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A recipe keyword.")
    ] = None,
    json_: Annotated[
        pathlib.Path | None, typer.Option("--json", help="Write the results here too.")
    ] = None,
    max_broken: MaxBroken = 0.5,
    quiet: Quiet = False,
):
    """Measures whether a pretext is solved by a trivial cue: trained with it and without it."""
    import tensorflow as tf

    from tfssl import rundir, zoo
    from tfssl.pipelines import sources
    from tfssl.report.audit import picture

    tf.get_logger().setLevel("ERROR")  # a training an arm: each one's graphs are its own, it warns
    module = zoo.get(method)
    room = zoo.card(method)["modality"]
    cues = laboratory.chosen(method, room, module, cue or [])
    if sources.parse(data)[0] != data:
        raise BadInput(
            f"--data {data}: give it without @split; an audit trains on one and asks another."
        )
    asked, (data, cues) = data, laboratory.clean(data, cues, cue or [])
    if asked != data:
        note(f"{asked} is taken as {data}: the audit puts its cues in by itself.", quiet)
    given = {"encoder": encoder, "data": data, "size": size, "seed": seed}
    arguments = arguments_of(module, method, True, {**given, "batch_size": batch_size}, set_ or [])
    if out.exists() and not out.is_dir():
        raise BadInput(f"--out {out}: this is a file; give a folder's name.")
    refuse_unwritable(out, f"--out {out}")
    if json_ is not None and json_.is_dir():  # not after all the training
        raise BadInput(f"--json {json_}: this is a folder; give a file's name.")
    if json_ is not None:
        refuse_unwritable(json_.parent, f"--json {json_}")
    out.mkdir(parents=True, exist_ok=True)
    with progress("reading the data", quiet) as step:
        read = functools.partial(
            load,
            data,
            max_broken=max_broken,
            quiet=quiet,
            sample_rate=arguments.get("sample_rate"),
            size=arguments.get("size"),
        )
        bench = laboratory.Bench(
            module, room, arguments, lambda part, keys: read(part, keys=keys), examples, cues, step
        )
        tell_broken(bench.source)
    if not bench.labelled:
        note(f"{data} has no labels of several classes: no downstream probe.", quiet)
    arms = laboratory.arms(bench, cues)
    if minutes:
        steps = laboratory.steps_within(minutes, bench, arms, seeds)
        note(f"{len(arms)} kinds of training, {steps} steps each.", quiet)
    with progress(f"{len(cues)} cues", quiet) as step:
        measured = laboratory.measured(bench, arms, steps, range(seed, seed + seeds), step)
    found = {
        "method": method,
        "data": asked,
        "steps": steps,
        "seeds": seeds,
        "train_examples": bench.count,
        "held_out_examples": bench.held_out_count,
        "asked": bench.asked,  # the split on which the pretext was measured
        "arguments": {key: str(value) for key, value in arguments.items()},
        **laboratory.findings(bench, cues, measured),
    }
    rundir.write_json(out / "audit.json", found)
    if json_ is not None:
        rundir.write_json(json_, found)
    picture(found, out / "audit.png")
    table = laboratory.table(found)
    with written_whole(out / "audit.txt") as aside:
        aside.write_text(table + "\n", encoding="utf-8")
    print(table)
    note(f"{out / 'audit.png'}   {out / 'audit.json'}", quiet)
