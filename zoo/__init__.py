"""Every method: one file each, one room a modality; the files are the registry."""

import ast
import difflib
import importlib
import pathlib
import pkgutil

from tfssl.errors import BadInput

ROOMS = ("image", "video", "geometry", "audio", "text", "audio_visual", "video_text")


def names():
    """The ids of all methods, as `"image.simclr"`, in alphabetical order."""
    found = []
    for room in ROOMS:
        package = importlib.import_module(f"{__name__}.{room}")
        found += [f"{room}.{file.name}" for file in pkgutil.iter_modules(package.__path__)]
    return sorted(name for name in found if not name.split(".")[1].startswith("_"))


def get(name):
    """The module of one method, by id; raises `BadInput`, which suggests the nearest id."""
    return importlib.import_module(".".join((__name__, *_locate(name))))


def card(name):
    """What is known of a method without importing it: the fields of its module's docstring.

    Returns:
        dict with `id`, `title` (of the paper), `authors`, `year` (int), `venue`, `url`, `modality`,
        `family` and `summary` (what it does, in one sentence).
    """
    room, file = _locate(name)
    package = importlib.import_module(f"{__name__}.{room}")
    source = pathlib.Path(package.__path__[0], f"{file}.py").read_text(encoding="utf-8")
    lines = ast.get_docstring(ast.parse(source)).splitlines()
    fields = dict(line.split(": ", 1) for line in lines if ": " in line)
    venue, _, year = fields["Venue"].rpartition(" ")
    return {
        "id": name,
        "title": fields["Paper"],
        "authors": fields["Authors"],
        "year": int(year),
        "venue": venue,
        "url": fields["URL"],
        "modality": room,
        "family": fields["Family"],
        "summary": lines[0],
    }


def _locate(name):
    """(room, file) of an id that exists."""
    known = names()
    if name not in known:
        short = [id for id in known if id.split(".")[1] == name]
        near = short or difflib.get_close_matches(str(name), known, 1, 0.4)
        hint = f"did you mean {near[0]}?" if near else "`tfssl list` names them all."
        raise BadInput(f"There is no method {name!r}: {hint}")
    return name.split(".")
