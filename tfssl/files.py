"""Files written whole or not at all."""

import contextlib
import os
import pathlib
import tempfile

from tfssl.errors import BadInput

UMASK = os.umask(0)  # which can only be read by setting it
os.umask(UMASK)


@contextlib.contextmanager
def written_whole(path):
    """Yields a path aside to write to; on success it is flushed and renamed to `path`.

    On any failure, or if the process dies, `path` is as it was before.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, aside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    os.close(handle)
    try:
        yield pathlib.Path(aside)
        with open(aside, "rb") as file:
            os.fsync(file.fileno())
        os.chmod(aside, 0o666 & ~UMASK)
        os.replace(aside, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.remove(aside)
        raise


def refuse_unwritable(folder, asked):
    """Refuses a folder that cannot be made or written to, by trying; nothing of it stays.

    Raises:
        BadInput: that names what was `asked` for, such as "--out runs/x".
    """
    folder = pathlib.Path(folder)
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as fault:
        raise BadInput(f"{asked} cannot be written: {fault.strerror.lower()}.") from None
    finally:
        for path in made:
            with contextlib.suppress(OSError):
                path.rmdir()
