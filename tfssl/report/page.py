"""One self-contained HTML page about a run, or about several side by side."""

import pathlib
import re

from tfssl.errors import BadInput
from tfssl.files import written_whole
from tfssl.report import runs as reading
from tfssl.report.charts import escape, number, value_text
from tfssl.report.evaluation import evaluation
from tfssl.report.likeness import maps, neighbours
from tfssl.report.making import again, cost, load
from tfssl.report.parts import column, duration, metric_name, note, protocol_name, typical
from tfssl.report.style import CSS
from tfssl.report.training import curves, health, seen


def build(runs, path, title=""):
    """Writes one HTML page without any outside part about one run or about several.

    Args:
      runs: a run directory or a list of them. Read are `history.json`, `run.json`,
        `evaluation.json`, `sheet.png`, `features.npz` (see `gather`) and which encoders lie
        beside them; a piece that is missing or broken costs its section and one line says so.
      path: where the page goes; it is written whole or not at all.
      title: the page's heading; empty: the method's name, or what is compared.

    Returns:
      path, as a pathlib.Path.

    Raises:
      BadInput: a folder is none or holds no run, or `path` cannot be written.
    """
    found = reading.read(runs)
    text = page(found, title or _title(found))
    try:
        with written_whole(path) as aside:
            aside.write_text(text, "utf-8")
    except OSError as error:
        reason = error.strerror or error
        raise BadInput(f"cannot write {path}: {reason}; choose another path") from None
    return pathlib.Path(path)


def page(found, title):
    """The whole page as text."""
    sections = [
        ("seen", "What the method saw", seen),
        ("curves", "Loss and metrics", curves),
        ("health", "Health of the features", health),
        ("evaluation", "Evaluation", evaluation),
        ("map", "Feature map", maps),
        ("neighbours", "Nearest neighbours", neighbours),
        ("cost", "Cost", cost),
        ("again", "How it was made", again),
        ("load", "Using the encoder", load),
    ]
    links = "".join(f'<li><a href="#{key}">{head}</a></li>' for key, head, _ in sections)
    body = "".join(
        f'<section id="{key}" aria-labelledby="{key}-h"><h2 id="{key}-h">{head}</h2>'
        f"{_drawn(draw, found, head)}</section>\n"
        for key, head, draw in sections
    )
    overview = _drawn(_tiles, found, "The overview")
    faults = "".join(note(f"{r.name}: {fault}.") for r in found for fault in r.faults)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">"
        '<link rel="icon" href="data:,">'
        f"<title>{escape(title)}</title><style>{CSS}</style></head>\n<body>"
        f'<header><h1>{_breakable(title)}</h1><p class="lead">{_lead(found)}</p>{faults}'
        f'{overview}<nav aria-label="Sections"><ul>{links}</ul></nav></header>\n'
        f"<main>\n{body}</main>\n<footer><p>Written by tfssl. This page loads nothing from "
        "anywhere: it can be mailed, archived and printed as it is.</p></footer></body></html>\n"
    )


def _drawn(draw, found, what):
    """A part of the page, or a line that says why it is not there: files may hold anything."""
    try:
        return draw(found)
    except Exception as fault:
        reason = f"{type(fault).__name__}: {fault}"[:300]
        return note(f"{what}: left out, for a file holds what cannot be shown ({reason}).")


def _breakable(text):
    """Escaped text that may break after a dot, a slash or an underscore."""
    return re.sub(r"(?<=[./_])(?=\w)", "<wbr>", escape(text))


def _title(found):
    methods = list(dict.fromkeys(str(r.run.get("method") or r.name) for r in found))
    if len(found) == 1:
        return methods[0]
    return " against ".join(methods) if 1 < len(methods) <= 3 else f"{len(found)} runs compared"


def _lead(found):
    """What was trained on what, as far as run.json says."""
    parts = []
    for r in found:
        encoder = _argument(r, "encoder")
        data = r.run.get("data") or _argument(r, "data")
        size = r.run.get("size") or _argument(r, "size")
        words = [
            f"{escape(encoder)} trained" if encoder else "trained",
            f"on {escape(data)}" if data else "",
            f"at {escape(size)} px" if size else "",
            "(not finished yet)" if "finished" in r.run and not r.run["finished"] else "",
        ]
        if any((encoder, data, size, words[-1])):
            name = f"<strong>{escape(r.name)}</strong>: " if len(found) > 1 else ""
            parts.append(name + " ".join(word for word in words if word))
    return "; ".join(parts) + "." * bool(parts)


def _argument(r, key):
    arguments = r.run.get("arguments")
    value = arguments.get(key) if isinstance(arguments, dict) else None
    return value if isinstance(value, (str, int)) else None


def _tiles(found):
    """What is known of a single run at a glance."""
    if len(found) > 1:
        return ""
    r = found[0]
    tiles = []
    for protocol, result in reading.protocols(r.evaluation.get("results")).items():
        metric, score = next(iter(reading.scores(result).items()), (None, None))
        if metric is None or len(tiles) == 2:
            continue
        share = reading.is_share(metric, [score.value])
        below = f"{protocol_name(protocol)}, {metric_name(metric)}"
        random = reading.protocols(r.evaluation.get("random"))
        other = reading.scores(reading.baseline(random, protocol)).get(metric)
        if other:
            below += f"; random encoder {value_text(other.value, share)}"
        tiles.append((value_text(score.value, share), below))
    if loss := column(r, "loss"):
        below = f"loss at the end, from {number(loss[0])}" if len(loss) > 1 else "loss"
        tiles.append((number(loss[-1]), below))
    seconds = column(r, "seconds")
    if seconds:
        epochs = f"for {len(r.history)} epoch{'s' * (len(r.history) != 1)}"
        tiles.append((duration(sum(seconds)), epochs))
    speed = column(r, "examples_per_second")
    if speed:
        tiles.append((number(round(typical(speed))), "examples a second"))
    if not tiles:
        return ""
    cells = "".join(
        f'<div class="tile"><b>{escape(a)}</b><span>{escape(b)}</span></div>' for a, b in tiles
    )
    return f'<div class="tiles">{cells}</div>'
