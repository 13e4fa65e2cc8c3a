"""A run's folder: what was called, what came of each epoch, and who may write there."""

import contextlib
import datetime
import json
import os
import pathlib
import platform
import shutil
import time

import keras

from tfssl.errors import BadInput
from tfssl.files import refuse_unwritable, written_whole

LEFTOVERS = (
    *(".run-*.json", ".history-*.json", ".evaluation-*.json", "checkpoints/.epoch-*.npz"),
    *(".sheet-*.png", ".report-*.html", ".features-*.npz", ".encoder-*", ".*_encoder-*"),
)
VERSIONED = ("tensorflow", "keras", "numpy", "tensorflow-datasets", "tensorflow-io")


def read_json(path):
    """A JSON file's content; BadInput where it is missing or not JSON."""
    path = pathlib.Path(path)
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise BadInput(f"There is no {path.name} in {path.parent}: is it a run's folder?") from None
    except (OSError, ValueError) as fault:
        raise BadInput(f"{path} cannot be read: {fault}.") from None


def write_json(path, content):
    """Writes JSON whole or not at all; numbers that are not finite become null."""
    with written_whole(path) as aside:
        aside.write_text(json.dumps(_finite(content), indent=1) + "\n")


def claim(directory, call):
    """Reopens a run's folder for `call`, or sees that a new one can be made there.

    Nothing is written.

    Returns:
        The content of run.json: of the earlier start of the same call, or what is to be written.

    Raises:
        BadInput: if the folder holds something else, or cannot be written.
    """
    directory = pathlib.Path(directory)
    record = directory / "run.json"
    if record.exists():
        run = read_json(record)
        if not isinstance(run, dict):
            raise BadInput(f"{record} is damaged: it is no run's record; give another folder.")
        for key, value in json.loads(json.dumps(call)).items():
            if run.get(key) != value:
                raise BadInput(_difference(directory, key, run.get(key), value))
        return run
    if directory.exists() and (not directory.is_dir() or any(_of_others(directory))):
        raise BadInput(
            f"--out {directory}: this is not a run of tfssl and not empty; give another folder."
        )
    refuse_unwritable(directory, f"--out {directory}")
    return {**call, "versions": versions(), "host": host(), "started": now(), "finished": None}


@contextlib.contextmanager
def alone(directory):
    """Holds a claimed folder for one process, and removes what killed ones have left in it.

    Raises:
        BadInput: another process trains there. Where the system knows no locks it is not noticed.
    """
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    here = os.open(directory, os.O_RDONLY)
    try:
        _lock(here, directory)
        _tidy(directory)
        yield
    finally:
        os.close(here)


def _lock(here, directory):
    try:
        import fcntl

        fcntl.flock(here, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise BadInput(
            f"--out {directory}: another process is training there; wait for it, or give another "
            "folder."
        ) from None
    except (ImportError, OSError):
        pass


def _of_others(directory):
    """What lies in a folder, but for what a process of ours left that was killed at once."""
    return (path for path in directory.iterdir() if not path.match(".run-*.json"))


def _tidy(directory):
    """Removes what killed processes left: everything of ours is written aside, under a dot."""
    for pattern in LEFTOVERS:
        for path in directory.glob(pattern):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def abandon(directory):
    """Removes what a run has made in its folder, unless it has finished an epoch."""
    directory = pathlib.Path(directory)
    if any(directory.glob("checkpoints/*.npz")):
        return
    _tidy(directory)
    for name in ("run.json", "sheet.png", "history.json"):
        (directory / name).unlink(missing_ok=True)
    for name in ("logs", "checkpoints"):
        shutil.rmtree(directory / name, ignore_errors=True)
    with contextlib.suppress(OSError):  # it is not there, or somebody else has put something in
        directory.rmdir()


def _difference(directory, key, before, after):
    if isinstance(before, dict) and isinstance(after, dict):
        for name in {**before, **after}:
            if before.get(name) != after.get(name):
                key, before, after = name, before.get(name), after.get(name)
                break
    return (
        f"--out {directory} holds a run with {key}={before!r}, this call says {after!r}: "
        "repeat that call to resume it, or give another folder."
    )[:600]


class Journal(keras.callbacks.Callback):
    """Keeps history.json: one object an epoch, rewritten whole after each.

    Args:
        path: of the file; epochs that it holds already keep their values.
        examples: examples an epoch.
    """

    def __init__(self, path, examples):
        super().__init__()
        self.path = pathlib.Path(path)
        self.examples = examples
        self.rows = read_json(path) if self.path.exists() else []
        if not (isinstance(self.rows, list) and all("epoch" in row for row in self.rows)):
            raise BadInput(f"{path} is damaged: it is no list of epochs; move it away.")

    def on_epoch_begin(self, epoch, logs=None):
        self.rows = [row for row in self.rows if row["epoch"] < epoch + 1]
        self.start = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        seconds = time.perf_counter() - self.start
        row = {"epoch": epoch + 1}
        row |= {name: float(value) for name, value in (logs or {}).items()}
        row |= {"seconds": seconds, "examples_per_second": self.examples / seconds}
        self.rows.append(row)
        write_json(self.path, self.rows)


class Deadline(keras.callbacks.Callback):
    """Stops after the epoch in which a time is up; `stopped` is then the number of epochs."""

    def __init__(self, seconds):
        super().__init__()
        self.stopped = None
        self.end = time.perf_counter() + seconds

    def on_epoch_end(self, epoch, logs=None):
        if time.perf_counter() > self.end:
            self.model.stop_training = True
            self.stopped = epoch + 1


def versions():
    """Of what a result depends on."""
    import importlib.metadata

    import tfssl

    found = {"tfssl": tfssl.__version__, "python": platform.python_version()}
    for name in VERSIONED:
        found[name] = importlib.metadata.version(name)
    return found


def host():
    """What the run ran on, without its name."""
    import tensorflow as tf

    accelerators = [
        tf.config.experimental.get_device_details(device).get("device_name", device.device_type)
        for device in tf.config.list_physical_devices()
        if device.device_type != "CPU"
    ]
    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "accelerators": accelerators,
    }


def now():
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def _finite(content):
    if isinstance(content, dict):
        return {str(key): _finite(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_finite(value) for value in content]
    if hasattr(content, "item"):
        content = content.item()
    if isinstance(content, float) and content not in (float("inf"), -float("inf")):
        return content if content == content else None
    if isinstance(content, float):
        return None
    return content
