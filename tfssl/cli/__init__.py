"""The front door: what `tfssl COMMAND` does."""

import json
import os
import pathlib
import signal
import sys
import warnings
from typing import Annotated

import typer

# Before TensorFlow is imported, or it is too late. It would use oneDNN's kernels only where there
# are 16-bit units; elsewhere they make a step of a small network 1.5 times as quick.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from tfssl.cli import auditing, demonstration, evaluating, training
from tfssl.cli.console import callers_fault, note, progress, say, working
from tfssl.cli.options import MaxBroken, Quiet
from tfssl.errors import BadInput
from tfssl.files import refuse_unwritable

INTERRUPTED, NOBODY_READS = 130, 141  # as of processes that SIGINT and SIGPIPE end

app = typer.Typer(
    help="Self-supervised learning on TensorFlow and Keras 3.",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for command in (
    training.show,
    training.pretrain,
    evaluating.evaluate,
    evaluating.embed,
    evaluating.export,
    auditing.audit,
    demonstration.demo,
):
    app.command()(command)


def main():
    """Runs a command; says what the caller did wrong in a sentence, and exits with 2."""
    signal.signal(signal.SIGTERM, _interrupt)
    for stream in (sys.stdout, sys.stderr):  # names of files are not to fail for want of a letter
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    warnings.showwarning = lambda message, *rest, **more: say(str(message))
    warnings.filterwarnings("ignore", module="keras|tensorflow|tensorboard|google")
    try:
        code = app(standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except SystemExit:  # what typer makes of a pipe that was closed, as by `| head`
        code = NOBODY_READS
    except Exception as fault:
        text = callers_fault(fault)
        if not text:
            raise  # Python prints the traceback and exits with 1
        say(text)
        code = 2
    if code == INTERRUPTED:  # typer makes this code of Ctrl-C itself
        say("Interrupted; a run that was training continues after its last finished epoch.")
    sys.exit(code if isinstance(code, int) else 0)


def _interrupt(number, frame):
    raise KeyboardInterrupt


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
def report(
    runs: Annotated[list[pathlib.Path], typer.Argument(help="Run folders; several are compared.")],
    out: Annotated[pathlib.Path, typer.Option(help="The page, an .html file.")] = pathlib.Path(
        "report.html"
    ),
    quiet: Quiet = False,
):
    """One self-contained HTML page about a run, or comparing several."""
    from tfssl import report as pages

    if out.suffix.lower() not in (".html", ".htm"):
        raise BadInput(f"--out {out}: the page is HTML; give a name that ends in .html.")
    refuse_unwritable(out.parent, f"--out {out}")
    with working("drawing", quiet):
        page = pages.build(runs, out)
    print(page)


@app.command()
def ingest(
    source: pathlib.Path,
    dest: pathlib.Path,
    short_side: Annotated[
        int, typer.Option(min=8, max=4096, help="Pixels to which videos are scaled down.")
    ] = 128,
    max_frames: Annotated[
        int | None, typer.Option(min=1, help="Of each video, from its beginning; all by default.")
    ] = None,
    sample_rate: Annotated[
        int, typer.Option(min=1000, max=384_000, help="Of the sound, in Hz.")
    ] = 16000,
    max_broken: MaxBroken = 0.5,
    quiet: Quiet = False,
):
    """Decodes a folder of images, videos or sounds once, into shards; resumable."""
    from tfssl.pipelines import ingest as ingesting

    with progress("reading", quiet) as step:
        done = ingesting.ingest(
            source,
            dest,
            short_side=short_side,
            max_frames=max_frames,
            sample_rate=sample_rate,
            max_broken=max_broken,
            progress=step,
        )
    if done.broken:
        say(done)
    note(f"{done.dest}: {sum(done.written.values())} examples.", quiet)
