"""Small parts of HTML, and words and numbers, that the sections of the report share."""

import base64
import io
import math
import re

import numpy as np

from tfssl.report import runs as reading
from tfssl.report.charts import escape
from tfssl.report.style import SERIES


def note(text):
    """A small paragraph of plain text."""
    return f'<p class="note">{escape(text)}</p>'


def legend(entries):
    """`entries`: (style class, name); a second round of colours is drawn as squares."""
    items = "".join(
        f'<li><span class="key {style}{" square" if _is_square(style) else ""}"></span>'
        f"{escape(name)}</li>"
        for style, name in entries
    )
    return f'<ul class="legend">{items}</ul>'


def _is_square(style):
    return style[1:].isdigit() and int(style[1:]) >= SERIES


def runs_legend(found, shown=None):
    """The runs' colours, where there are several; `shown`: the styles that occur."""
    entries = [(colour(i), r.name) for i, r in enumerate(found)]
    entries = [entry for entry in entries if shown is None or entry[0] in shown]
    return legend(entries) if len(found) > 1 else ""


def colour(i):
    """The style class of run, or class of examples, number `i`; they repeat after 2 SERIES."""
    return f"s{i % (2 * SERIES)}"


def about(r, found, text):
    """A sentence about a run, with its name where there are several."""
    return f"{r.name}: {text}" if len(found) > 1 else text[0].upper() + text[1:]


def table(head, rows, caption=""):
    """A table that scrolls inside itself; cells are HTML, the head is text."""
    caption = f"<caption>{escape(caption)}</caption>" if caption else ""
    label = escape(f"Table of {', '.join(head)}")
    cells = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    body = "".join(
        f'<tr><th scope="row">{row[0]}</th>' + "".join(map(_cell, row[1:]))
        + "</tr>"
        for row in rows
    )  # fmt: skip
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{label}"><table>{caption}'
        f"<thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _cell(content):
    long = len(content) > 30 and "<" not in content
    return f'<td class="{"t" if long else "n"}">{content}</td>'


def data_uri(image, quality=88):
    """Lossless where that is small, WebP where it is not."""
    best = None
    for kind, options in (("PNG", {"optimize": True}), ("WEBP", {"quality": quality})):
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        best = min(best or (math.inf,), (len(buffer.getvalue()), kind.lower(), buffer.getvalue()))
        if best[0] < 2000:
            break
    return f"data:image/{best[1]};base64,{base64.b64encode(best[2]).decode()}"


def column(r, key):
    """The finite values of a log, in the order of the epochs."""
    return [value for value in reading.curve(r.history, key)[1] if math.isfinite(value)]


def typical(speed):
    """The median; a first epoch also traces and compiles, so it only counts where it is alone."""
    return float(np.median(speed[1:] or speed))


def duration(seconds):
    """Seconds, minutes or hours, whichever reads best."""
    if seconds < 90:
        return f"{seconds:.3g} s"
    if seconds < 5400:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h"


def protocol_name(protocol):
    """An evaluation protocol's name as people write it."""
    return {"knn": "kNN", "linear": "linear probe", "svm": "linear SVM"}.get(
        protocol, protocol.replace("_", " ")
    )


def metric_name(metric):
    """A metric's name as people write it."""
    return re.sub(r"\btop(\d)$", r"top-\1", metric.replace("_", " "))
