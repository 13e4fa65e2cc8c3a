"""Every method: one file each, one room a modality; the files are the registry."""

import difflib
import importlib
import pkgutil

ROOMS = ("image", "video", "geometry", "audio", "text", "audio_visual", "video_text")


def names():
    """The ids of all methods, as `"image.simclr"`, in alphabetical order."""
    found = []
    for room in ROOMS:
        package = importlib.import_module(f"{__name__}.{room}")
        found += [f"{room}.{file.name}" for file in pkgutil.iter_modules(package.__path__)]
    return sorted(name for name in found if not name.split(".")[1].startswith("_"))


def get(name):
    """The module of one method, by id; raises `ValueError` that suggests the nearest id."""
    known = names()
    if name not in known:
        near = difflib.get_close_matches(name, known, 1, 0.4)
        short = [k for k in known if k.split(".")[1] == name]
        hint = f"did you mean {(short or near)[0]}?" if short or near else "see `tfssl list`."
        raise ValueError(f"There is no method {name!r}; {hint}")
    return importlib.import_module(f"{__name__}.{name}")
