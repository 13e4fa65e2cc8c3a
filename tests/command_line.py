"""The command line as tests call it: inside this process, where TensorFlow is loaded already."""

import contextlib
import io
import os
import pathlib
import signal
import subprocess
import sys
import warnings
from typing import NamedTuple
from unittest import mock

ROOT = pathlib.Path(__file__).resolve().parents[1]
# A run that takes seconds: 8 px, 16 images a step, two steps an epoch.
TINY = ("--small", "--data", "digits", "--size", "8", "--batch-size", "16", "--precision")
TINY = (*TINY, "float32", "--epochs", "2", "--steps-per-epoch", "2", "--quiet")


class Called(NamedTuple):
    code: int
    out: str
    err: str


def call(*words):
    """Runs `tfssl words...` in this process, leaving its signals and warnings as they were."""
    from tfssl import cli
    from tfssl.report import likeness

    out, err = io.StringIO(), io.StringIO()
    before = sys.argv, warnings.showwarning, list(warnings.filters), signal.getsignal(15)
    sys.argv = ["tfssl", *map(str, words)]
    try:
        # A map of a few points: t-SNE of the usual 700 takes as long as a short training.
        few = mock.patch.object(likeness, "MOST_POINTS", 40)
        with few, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            cli.main()
        code = 0
    except SystemExit as end:
        code = end.code or 0
    finally:
        sys.argv, warnings.showwarning, warnings.filters[:] = before[:3]
        signal.signal(signal.SIGTERM, before[3])
    return Called(code, out.getvalue(), err.getvalue())


def start(*words, **more):
    """`python -m tfssl words...` as a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **more.pop("env", {})}
    return subprocess.Popen(
        [sys.executable, "-m", "tfssl", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        **more,
    )


def refused(*words, naming=(), listing=False):
    """The sentence with which a call is refused: code 2, short, no traceback, names its cause.

    With `listing`, broken files may be listed before it.
    """
    done = call(*words)
    assert done.code == 2, done
    text = done.err.strip()
    if listing:
        text = text.splitlines()[-1]
    assert text and len(text) <= 600 and "Traceback" not in text, text
    assert "\n" not in text, text
    for name in naming if isinstance(naming, (list, tuple)) else [naming]:
        assert str(name) in text, (name, text)
    return text
