"""What the command line says, and how: notes, progress, plain words for the caller's mistakes."""

import contextlib
import errno
import os
import sys
import time

LONGEST_NAME = 300
NO_ROOM = os.strerror(errno.ENOSPC)


def note(text, quiet):
    if not quiet:
        print(text, flush=True)


def say(text):
    print(text, file=sys.stderr, flush=True)


def callers_fault(fault):
    """What to tell the caller who can mend a fault, in a sentence; "" for a fault of ours."""
    if type(fault).__name__ == "NoArgsIsHelpError":
        text = "No command was given: `tfssl --help` lists them; `tfssl demo` shows what they do."
    elif NO_ROOM in str(fault):  # of Python or of TensorFlow
        text = f"{NO_ROOM}: make some, then repeat the call; a run resumes where it stopped."
    elif hasattr(fault, "format_message"):  # a wrong command line
        text = fault.format_message()
    elif type(fault).__name__ == "BadInput":  # of the learning side or of the data side
        text = str(fault)
    elif " BadInput: " in str(fault):  # TensorFlow tells it so where a graph was being made
        text = str(fault).rpartition(" BadInput: ")[2]
    elif isinstance(fault, OSError) and fault.filename and fault.strerror:
        # Of two names the second is the caller's: what is renamed was written aside.
        name = str(fault.filename2 or fault.filename)[-LONGEST_NAME:]
        text = f"{name}: {fault.strerror.lower()}; choose another path."
    else:
        return ""
    return " ".join(text.split())[:600]


@contextlib.contextmanager
def progress(task, quiet):
    """A bar on a terminal's stderr, shown from the third second on; yields f(done, total)."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    begun, known = clock(), {}
    with Progress(console=console, transient=True, disable=quiet or not console.is_terminal) as bar:

        def step(done, total):
            if clock() - begun > 2 and "task" not in known:
                known["task"] = bar.add_task(task)
            if "task" in known:
                bar.update(known["task"], completed=done, total=total)

        yield step


@contextlib.contextmanager
def working(task, quiet):
    """A bar that moves on a terminal's stderr while something of unknown length is done."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
    hidden = quiet or not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=hidden) as bar:
        bar.add_task(task, total=None)
        yield


def verbosity(quiet):
    """Keras' progress: a bar on a terminal, a line an epoch elsewhere."""
    return 0 if quiet else 1 if sys.stdout.isatty() else 2


def clock():
    return time.perf_counter()
