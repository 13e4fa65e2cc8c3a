"""The report on training: what the method saw, its curves, the health of its features."""

import io
import re

import numpy as np

from tfssl.report import runs as reading
from tfssl.report.charts import escape, lines, number
from tfssl.report.parts import about, colour, column, data_uri, note, runs_legend, table

PROBE = re.compile(r".*(knn|probe|linear|top\d|R@\d|retrieval|svm)", re.IGNORECASE)
HEALTH = (
    (r".*(std|deviation)", "Standard deviation",
     "how far unit-length features spread; near 1 they are well spread, and a fall towards 0 is "
     "collapse: every input gets the same features"),
    (r".*rank(me)?$", "Effective rank",
     "how many directions the features really use; a small number means that most are idle"),
    (r".*align", "Alignment",
     "how far apart two views of one example lie; lower means that views agree"),
    (r".*uniform", "Uniformity",
     "how evenly examples fill the sphere; more negative is more even, zero is collapse"),
    (r".*chance", "Loss against chance",
     "the loss divided by that of blind guessing; while it stays at 1 nothing is learned"),
)  # fmt: skip
COST = ("epoch", "seconds", "examples_per_second", "learning_rate")
SHEET_WIDTH = 1400


def seen(found):
    """The sheets of what came in and which views and targets were made of it."""
    figures, shown = [], {}
    for r in found:
        if r.sheet is None:
            figures.append(note(about(r, found, "no sheet.png, so there is no picture of views.")))
            continue
        if r.sheet in shown.values():
            twin = next(name for name, sheet in shown.items() if sheet == r.sheet)
            figures.append(note(f"{r.name} saw the same as {twin}."))
            continue
        try:
            source, width, height = _shrunk(r.sheet)
        except (OSError, ValueError, SyntaxError):
            figures.append(note(about(r, found, "the picture sheet.png cannot be read.")))
            continue
        shown[r.name] = r.sheet
        alt = f"Rows of examples: input, views and targets for {r.run.get('method') or r.name}"
        words = "each row is an example: what came in, the views of it, and any targets."
        words = about(r, found, words)
        figures.append(
            f'<figure><img class="sheet" src="{source}" width="{width}" height="{height}" '
            f'alt="{escape(alt)}"><figcaption>{escape(words)}</figcaption></figure>'
        )
    return f'<div style="display:grid;gap:20px;margin-top:12px">{"".join(figures)}</div>'


def _shrunk(png):
    """(data URI, width, height) of a picture at most SHEET_WIDTH wide, in the smaller format."""
    from PIL import Image

    image = Image.open(io.BytesIO(png)).convert("RGB")
    if image.width > SHEET_WIDTH:
        height = round(image.height * SHEET_WIDTH / image.width)
        image = image.resize((SHEET_WIDTH, height), Image.Resampling.LANCZOS)
    return data_uri(image, quality=86), *image.size


def _is_health(key):
    return any(re.match(pattern, key, re.IGNORECASE) for pattern, _, _ in HEALTH)


def curves(found):
    """Loss and metrics over the epochs, a chart a log; a table where there is one epoch only."""
    keys = list(dict.fromkeys(key for r in found for key in reading.logs(r.history)))
    keys = [key for key in keys if key not in COST and not _is_health(key)]
    keys = [
        key
        for key in keys
        if not (key.endswith(("_low", "_high")) and key.rpartition("_")[0] in keys)
    ]
    keys = [key for key in keys if not (key.startswith("val_") and key[4:] in keys)]
    order = sorted(keys, key=lambda key: (key != "loss", bool(PROBE.match(key))))
    if not order:
        return note("There is no history.json with numbers, so there is nothing to draw.")
    if max(len(r.history) for r in found) == 1:
        ends = table(["log", *(r.name for r in found)], [
            [_log_name(key), *(_last(r, key) for r in found)] for key in order
        ])  # fmt: skip
        return ends + note(
            "There is one row only: one epoch, or a method that takes no gradient steps; so there "
            "is no curve."
        )
    figures = []
    for key in order:
        series, bands, held_out = [], [], False
        for i, r in enumerate(found):
            if any(key in row for row in r.history):
                name = r.name if len(found) > 1 else ""
                series.append((colour(i), name, *reading.curve(r.history, key)))
                bands += _band(r.history, key, colour(i))
            if any(f"val_{key}" in row for row in r.history):
                held_out = True
                name = f"{r.name}, held out" if len(found) > 1 else "held out"
                curve = reading.curve(r.history, f"val_{key}")
                series.append((f"{colour(i)} dashed", name, *curve))
        caption = _log_name(key) + (", dashed: on held-out data" if held_out else "")
        words = "the band is its 95\u00a0% interval" if bands else ""
        figures.append(_chart(series, caption, words, bands))
    alone = [r.name for r in found if len(r.history) <= 1]
    words = f"A single epoch, drawn as a dot: {', '.join(alone)}." if alone else ""
    return (
        note("Over the epochs, as training logged them." + (f" {words}" if words else ""))
        + runs_legend(found)
        + f'<div class="grid-of">{"".join(figures)}</div>'
    )


def _chart(series, caption, words="", bands=()):
    figure = lines(series, f"{caption} over epochs", bands=bands)
    ends = [ys[-1] for _, _, _, ys in series if ys]
    now = f", {number(ends[0])} at the end" if len(series) == 1 else ""
    words = f": {words}" if words else ""
    if not figure:
        return f"<figure><figcaption>{escape(caption)}: no finite value.</figcaption></figure>"
    return (
        f"<figure>{figure}<figcaption><strong>{escape(caption)}</strong>{escape(now)}"
        f"{escape(words)}</figcaption></figure>"
    )


def _band(history, key, style):
    """The interval around a curve, where every epoch that has one has both its ends."""
    rows = [row for row in history if f"{key}_low" in row and f"{key}_high" in row]
    xs, lows = reading.curve(rows, f"{key}_low")
    _, highs = reading.curve(rows, f"{key}_high")
    whole = len(xs) > 1 and np.isfinite([*lows, *highs]).all()
    return [(style, xs, lows, highs)] if whole else []


def _log_name(key):
    return re.sub(r"\bknn\b", "kNN", re.sub(r"top(\d)", r"top-\1", key.replace("_", " ")))


def _last(r, key):
    values = column(r, key)
    return escape(number(values[-1])) if values else "–"


def health(found):
    """Charts of the logs that tell a collapse, each with what its values mean."""
    figures, shown = [], set()
    keys = list(dict.fromkeys(key for r in found for key in reading.logs(r.history)))
    for pattern, name, words in HEALTH:
        for key in keys:
            if not re.match(pattern, key, re.IGNORECASE) or key in COST:
                continue
            series = [
                (colour(i), r.name if len(found) > 1 else "", *reading.curve(r.history, key))
                for i, r in enumerate(found)
                if any(key in row for row in r.history)
            ]
            shown.update(style for style, *_ in series)
            ours = key.startswith("health_") or _log_name(key).lower() in name.lower()
            caption = name if ours else f"{name} ({key})"
            figures.append(_chart(series, caption, words))
    if not figures:
        return note(
            "No health was logged: add the Health callback to see collapse before it costs a run."
        )
    return runs_legend(found, shown) + f'<div class="grid-of">{"".join(figures)}</div>'
