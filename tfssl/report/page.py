"""One self-contained HTML page about a run, or about several side by side."""

import base64
import io
import json
import math
import re
import shlex

import numpy as np

from tfssl.errors import BadInput
from tfssl.files import written_whole
from tfssl.report import runs as reading
from tfssl.report.charts import bars, escape, lines, number, scatter, spread_text, value_text
from tfssl.report.style import CSS, SERIES

COST = ("epoch", "seconds", "examples_per_second", "learning_rate")
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
MOST_POINTS = 700  # t-SNE of these takes three seconds
FEWEST_FOR_TSNE = 30  # fewer points have no neighbourhoods to keep
MOST_CLASSES = 2 * SERIES
MOST_QUERIES = 6
SHEET_WIDTH = 1400
INPUTS = {
    "image": "images float32 [B, H, W, 3] in [0, 1]",
    "video": "clips float32 [B, T, H, W, 3] in [0, 1]",
    "audio": "waveforms float32 [B, N] in [-1, 1], 16 kHz",
    "text": "strings [B]",
    "geometry": "pairs of frames float32 [B, 2, H, W, 3] in [0, 1]",
}


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
    return reading.pathlib.Path(path)


def page(found, title):
    """The whole page as text."""
    sections = [
        ("seen", "What the method saw", _seen(found)),
        ("curves", "Loss and metrics", _curves(found)),
        ("health", "Health of the features", _health(found)),
        ("evaluation", "Evaluation", _evaluation(found)),
        ("map", "Feature map", _maps(found)),
        ("neighbours", "Nearest neighbours", _neighbours(found)),
        ("cost", "Cost", _cost(found)),
        ("again", "How it was made", _again(found)),
        ("load", "Using the encoder", _load(found)),
    ]
    links = "".join(f'<li><a href="#{key}">{head}</a></li>' for key, head, _ in sections)
    body = "".join(
        f'<section id="{key}" aria-labelledby="{key}-h"><h2 id="{key}-h">{head}</h2>{text}'
        "</section>\n"
        for key, head, text in sections
    )
    faults = "".join(_note(f"{r.name}: {fault}.") for r in found for fault in r.faults)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">"
        '<link rel="icon" href="data:,">'
        f"<title>{escape(title)}</title><style>{CSS}</style></head>\n<body>"
        f'<header><h1>{_breakable(title)}</h1><p class="lead">{_lead(found)}</p>{faults}'
        f'{_tiles(found)}<nav aria-label="Sections"><ul>{links}</ul></nav></header>\n'
        f"<main>\n{body}</main>\n<footer><p>Written by tfssl. This page loads nothing from "
        "anywhere: it can be mailed, archived and printed as it is.</p></footer></body></html>\n"
    )


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


def _note(text):
    return f'<p class="note">{escape(text)}</p>'


def _legend(entries):
    """`entries`: (style class, name); a second round of colours is drawn as squares."""
    items = "".join(
        f'<li><span class="key {style}{" square" if _is_square(style) else ""}"></span>'
        f"{escape(name)}</li>"
        for style, name in entries
    )
    return f'<ul class="legend">{items}</ul>'


def _is_square(style):
    return style[1:].isdigit() and int(style[1:]) >= SERIES


def _runs_legend(found, shown=None):
    """The runs' colours, where there are several; `shown`: the styles that occur."""
    entries = [(_style(i), r.name) for i, r in enumerate(found)]
    entries = [entry for entry in entries if shown is None or entry[0] in shown]
    return _legend(entries) if len(found) > 1 else ""


def _style(i):
    return f"s{i % (2 * SERIES)}"


def _of(r, found, text):
    """A sentence about a run, with its name where there are several."""
    return f"{r.name}: {text}" if len(found) > 1 else text[0].upper() + text[1:]


# What is known at a glance


def _tiles(found):
    if len(found) > 1:
        return ""
    r = found[0]
    tiles = []
    for protocol, result in reading.protocols(r.evaluation.get("results")).items():
        metric, score = next(iter(reading.scores(result).items()), (None, None))
        if metric is None or len(tiles) == 2:
            continue
        share = reading.is_share(metric, [score.value])
        below = f"{_protocol_name(protocol)}, {_metric_name(metric)}"
        random = reading.protocols(r.evaluation.get("random"))
        other = reading.scores(reading.baseline(random, protocol)).get(metric)
        if other:
            below += f"; random encoder {value_text(other.value, share)}"
        tiles.append((value_text(score.value, share), below))
    if loss := _column(r, "loss"):
        below = f"loss at the end, from {number(loss[0])}" if len(loss) > 1 else "loss"
        tiles.append((number(loss[-1]), below))
    seconds = _column(r, "seconds")
    if seconds:
        epochs = f"for {len(r.history)} epoch{'s' * (len(r.history) != 1)}"
        tiles.append((_duration(sum(seconds)), epochs))
    speed = _column(r, "examples_per_second")
    if speed:
        tiles.append((number(round(_typical(speed))), "examples a second"))
    if not tiles:
        return ""
    cells = "".join(
        f'<div class="tile"><b>{escape(a)}</b><span>{escape(b)}</span></div>' for a, b in tiles
    )
    return f'<div class="tiles">{cells}</div>'


def _column(r, key):
    return [value for value in reading.curve(r.history, key)[1] if math.isfinite(value)]


def _typical(speed):
    """The median; a first epoch also traces and compiles, so it only counts where it is alone."""
    return float(np.median(speed[1:] or speed))


def _duration(seconds):
    if seconds < 90:
        return f"{seconds:.3g} s"
    if seconds < 5400:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h"


# What the method saw


def _seen(found):
    figures, shown = [], {}
    for r in found:
        if r.sheet is None:
            figures.append(_note(_of(r, found, "no sheet.png, so there is no picture of views.")))
            continue
        if r.sheet in shown.values():
            twin = next(name for name, sheet in shown.items() if sheet == r.sheet)
            figures.append(_note(f"{r.name} saw the same as {twin}."))
            continue
        try:
            source, width, height = _shrunk(r.sheet)
        except (OSError, ValueError, SyntaxError):
            figures.append(_note(_of(r, found, "the picture sheet.png cannot be read.")))
            continue
        shown[r.name] = r.sheet
        alt = f"Rows of examples: input, views and targets for {r.run.get('method') or r.name}"
        words = "each row is an example: what came in, the views of it, and any targets."
        words = _of(r, found, words)
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
    return _data_uri(image, quality=86), *image.size


def _data_uri(image, quality=88):
    """Lossless where that is small, WebP where it is not."""
    best = None
    for kind, options in (("PNG", {"optimize": True}), ("WEBP", {"quality": quality})):
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        best = min(best or (math.inf,), (len(buffer.getvalue()), kind.lower(), buffer.getvalue()))
        if best[0] < 2000:
            break
    return f"data:image/{best[1]};base64,{base64.b64encode(best[2]).decode()}"


# Curves


def _is_health(key):
    return any(re.match(pattern, key, re.IGNORECASE) for pattern, _, _ in HEALTH)


def _curves(found):
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
        return _note("There is no history.json with numbers, so there is nothing to draw.")
    if max(len(r.history) for r in found) == 1:
        table = _table(["log", *(r.name for r in found)], [
            [_log_name(key), *(_last(r, key) for r in found)] for key in order
        ])  # fmt: skip
        return table + _note(
            "There is one row only: one epoch, or a method that takes no gradient steps; so there "
            "is no curve."
        )
    figures = []
    for key in order:
        series, bands, held_out = [], [], False
        for i, r in enumerate(found):
            if any(key in row for row in r.history):
                name = r.name if len(found) > 1 else ""
                series.append((_style(i), name, *reading.curve(r.history, key)))
                bands += _band(r.history, key, _style(i))
            if any(f"val_{key}" in row for row in r.history):
                held_out = True
                name = f"{r.name}, held out" if len(found) > 1 else "held out"
                curve = reading.curve(r.history, f"val_{key}")
                series.append((f"{_style(i)} dashed", name, *curve))
        caption = _log_name(key) + (", dashed: on held-out data" if held_out else "")
        words = "the band is its 95\u00a0% interval" if bands else ""
        figures.append(_chart(series, caption, words, bands))
    alone = [r.name for r in found if len(r.history) <= 1]
    words = f"A single epoch, drawn as a dot: {', '.join(alone)}." if alone else ""
    return (
        _note("Over the epochs, as training logged them." + (f" {words}" if words else ""))
        + _runs_legend(found)
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
    values = _column(r, key)
    return escape(number(values[-1])) if values else "–"


# Health


def _health(found):
    figures, shown = [], set()
    keys = list(dict.fromkeys(key for r in found for key in reading.logs(r.history)))
    for pattern, name, words in HEALTH:
        for key in keys:
            if not re.match(pattern, key, re.IGNORECASE) or key in COST:
                continue
            series = [
                (_style(i), r.name if len(found) > 1 else "", *reading.curve(r.history, key))
                for i, r in enumerate(found)
                if any(key in row for row in r.history)
            ]
            shown.update(style for style, *_ in series)
            ours = key.startswith("health_") or _log_name(key).lower() in name.lower()
            caption = name if ours else f"{name} ({key})"
            figures.append(_chart(series, caption, words))
    if not figures:
        return _note(
            "No health was logged: add the Health callback to see collapse before it costs a run."
        )
    return _runs_legend(found, shown) + f'<div class="grid-of">{"".join(figures)}</div>'


# Evaluation


def _entries(found):
    """(name, style, {protocol: object}, run or None) of every encoder that was evaluated."""
    entries = []
    for i, r in enumerate(found):
        results = reading.protocols(r.evaluation.get("results"))
        if results:
            name = r.name if len(found) > 1 else str(r.run.get("method") or r.name)
            entries.append((name, _style(i), results, True))
    for kind, label in (("random", "random encoder"), ("supervised", "supervised")):
        seen = []
        for r in found:
            results = reading.protocols(r.evaluation.get(kind))
            if results and results not in [other for _, other in seen]:
                seen.append((r.name, results))
        for name, results in seen:
            entries.append(
                (f"{label} ({name})" if len(seen) > 1 else label, "base", results, False)
            )
    return entries


def _evaluation(found):
    entries = _entries(found)
    without = [r.name for r in found if not reading.protocols(r.evaluation.get("results"))]
    if not any(ours for *_, ours in entries):
        return _note("No evaluation yet: `tfssl evaluate RUN --data D --protocol knn` makes one.")
    protocols = list(dict.fromkeys(p for _, _, results, _ in entries for p in results if p))
    several = sum(ours for *_, ours in entries) > 1
    figures, rows = [], []
    for protocol in protocols:
        each = [
            (n, s, reading.scores(reading.baseline(res, protocol)), ours)
            for n, s, res, ours in entries
        ]
        # a reference that was measured once stands beside what others measured, it adds nothing
        own = [reading.scores(results.get(protocol, {})) for _, _, results, _ in entries]
        metrics = list(dict.fromkeys(metric for scores in own for metric in scores))
        figures += _bars_of(protocol, metrics, each)
        for metric in metrics:
            values = [scores[metric].value for _, _, scores, _ in each if metric in scores]
            share = reading.is_share(metric, values)
            ours = [s[metric].value for _, _, s, o in each if o and metric in s]
            ours = [value for value in ours if math.isfinite(value)]
            best = (min if reading.lower_is_better(metric) else max)(ours, default=None)
            row = [escape(_protocol_name(protocol)), escape(_metric_name(metric))]
            for _, _, scores, is_ours in each:
                score = scores.get(metric)
                mark = len(set(ours)) > 1 and is_ours and score is not None and score.value == best
                row.append(_score_cell(score, share, mark))
            row.append(escape(_settings_text(entries, protocol)))
            rows.append(row)
    data = list(dict.fromkeys(str(r.evaluation["data"]) for r in found if r.evaluation.get("data")))
    words = f"Labels of {', '.join(data)} were used here and only here. " if data else ""
    words += "Whiskers and small print: the 95\u00a0% bootstrap interval over test examples."
    head = ["protocol", "metric", *(name for name, *_ in entries), "settings"]
    caption = "The best of the runs carries a star." if several else "All numbers."
    verdicts = "".join(_verdicts(entries))
    notes = f'<ul class="verdicts">{verdicts}</ul>' if verdicts else ""
    notes += _note(f"Not evaluated: {', '.join(without)}.") if without else ""
    if not any(not ours for *_, ours in entries):
        notes += _note(
            "There is no random-encoder baseline beside these numbers: add `--protocol random` to "
            "see what the architecture gives untrained."
        )
    return (
        notes
        + f'<div class="grid-of">{"".join(figures)}</div>'
        + _table(head, rows, caption)
        + _note(words)
    )


def _bars_of(protocol, metrics, each):
    """A profile over the parts (layers) of a protocol, or bars of its first metric."""
    parts = [metric for metric in metrics if ": " in metric]
    name = _protocol_name(protocol)
    figures = []
    plain = next((metric for metric in metrics if ": " not in metric), None)
    if plain is not None:
        shown = [(n, s, scores[plain]) for n, s, scores, _ in each if plain in scores]
        share = reading.is_share(plain, [score.value for *_, score in shown])
        chart = bars([(s, n, *score) for n, s, score in shown], f"{name} {plain}", share)
        lower = ", lower is better" if reading.lower_is_better(plain) else ""
        figures.append(
            f"<figure>{chart}<figcaption><strong>{escape(name)}</strong>, "
            f"{escape(_metric_name(plain) + lower)}</figcaption></figure>"
        )
    elif parts:
        last = parts[0].rpartition(": ")[2]
        parts = [metric for metric in parts if metric.rpartition(": ")[2] == last]
        series = [
            (s if o else "base dashed", n, list(range(len(parts))),
             [scores[m].value if m in scores else math.nan for m in parts])
            for n, s, scores, o in each if any(m in scores for m in parts)
        ]  # fmt: skip
        chart = lines(series, f"{name} {last}", [part.rpartition(": ")[0] for part in parts])
        figures.append(
            f"<figure>{chart}<figcaption><strong>{escape(name)}</strong>, "
            f"{escape(_metric_name(last))} over the parts; dashed: baselines</figcaption></figure>"
        )
    return figures


def _score_cell(score, share, best):
    if score is None:
        return "–"
    text = escape(value_text(score.value, share))
    if best:
        text = f'<span class="best" title="best of the runs">{text}</span>'
    if score.low is not None:
        text += f"<small>{escape(spread_text(score.low, score.high, share))}</small>"
    return text


def _verdicts(entries):
    """One plain sentence a protocol: how far from the random encoder, and whether that is sure."""
    random = [entry[:3] for entry in entries if not entry[3] and entry[0].startswith("random")]
    if len(random) != 1:
        return
    for name, _, results, ours in entries:
        if not ours:
            continue
        for protocol, result in results.items():
            metric, score = next(iter(reading.scores(result).items()), ("", None))
            if not metric or ": " in metric:  # layers have their own chart
                continue
            other = reading.scores(reading.baseline(random[0][2], protocol)).get(metric)
            if other is None or not reading.is_share(metric, [score.value, other.value]):
                continue
            gain = 100 * (score.value - other.value)
            if reading.lower_is_better(metric):
                continue
            side = "above" if gain >= 0 else "below"
            text = (
                f"<strong>{escape(name)}</strong>: {escape(_protocol_name(protocol))} "
                f"{escape(_metric_name(metric))} is {abs(gain):.1f} points {side} "
                "the random encoder"
            )
            if score.low is not None and other.low is not None:
                apart = score.low > other.high or score.high < other.low
                text += (
                    "; the intervals do not overlap"
                    if apart
                    else "; the intervals overlap, so this may be chance"
                )
            yield f"<li>{text}.</li>"


def _settings_text(entries, protocol):
    found = {}
    for _, _, results, _ in entries:
        for key, value in reading.settings(results.get(protocol, {})).items():
            texts = found.setdefault(key, [])
            text = number(value) if isinstance(value, float) else str(value)
            if text not in texts:
                texts.append(text)
    return ", ".join(f"{key} = {' / '.join(texts)}" for key, texts in found.items()) or "–"


def _protocol_name(protocol):
    return {"knn": "kNN", "linear": "linear probe", "svm": "linear SVM"}.get(
        protocol, protocol.replace("_", " ")
    )


def _metric_name(metric):
    return re.sub(r"\btop(\d)$", r"top-\1", metric).replace("_", " ")


def _cell(content):
    long = len(content) > 30 and "<" not in content
    return f'<td class="{"t" if long else "n"}">{content}</td>'


def _table(head, rows, caption=""):
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


# Feature map


def _maps(found):
    figures, styles = [], {}
    for r in found:
        features = r.arrays.get("features")
        if features is None or features.ndim != 2 or len(features) < 2:
            figures.append(_note(_of(r, found, "no features were gathered, so there is no map.")))
            continue
        if not np.isfinite(features).all():
            figures.append(_note(_of(r, found, "some features are not finite: no map.")))
            continue
        figures.append(_map(r, found, styles))
    legend = ""
    if styles and len(styles) <= MOST_CLASSES:
        legend = _legend([(style, name) for name, style in styles.items()])
    elif styles:
        legend = _note(f"{len(styles)} classes: colours repeat, so there is no legend.")
    return legend + f'<div class="grid-of maps">{"".join(figures)}</div>'


def _map(r, found, styles):
    features = r.arrays["features"]
    chosen = np.arange(len(features))
    if len(features) > MOST_POINTS:
        chosen = np.unique(np.linspace(0, len(features) - 1, MOST_POINTS).astype(int))
    points, how = _flat(features[chosen])
    label = r.arrays.get("label")
    words = f"map by {how} of {len(chosen)} examples, features of unit length"
    if label is not None and label.shape == (len(features),):
        names, groups = _class_names(r), []
        for value in np.unique(label):
            name = names.get(value, str(value))
            styles.setdefault(name, _style(len(styles)))
            groups.append((styles[name], label[chosen] == value))
        words += ", coloured by labels that training never saw"
    else:
        groups = [("s0", np.ones(len(chosen), bool))]
        words += "; there are no labels to colour it by"
    chart = scatter(points, groups, f"Features, {words}")
    return (
        f'<figure><div class="map">{chart}</div><figcaption>'
        f"{escape(_of(r, found, words))}.</figcaption></figure>"
    )


def _class_names(r):
    return {i: str(name) for i, name in enumerate(r.arrays.get("classes", ()))}


def _flat(features):
    """(points [N, 2], how): t-SNE where there are neighbourhoods to keep, PCA otherwise."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits  # scikit-learn brings it

    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    spread = float(unit.std(0).max())
    parts = min(50, *unit.shape)
    if len(unit) < FEWEST_FOR_TSNE or parts < 2 or spread < 1e-6:
        flat = unit - unit.mean(0)
        if parts >= 2 and spread >= 1e-6:
            flat = PCA(2, random_state=0).fit_transform(unit)
        flat = np.pad(flat, [(0, 0), (0, max(0, 2 - flat.shape[1]))])[:, :2]
        return flat, "PCA"
    reduced = PCA(parts, random_state=0).fit_transform(unit)  # the usual first step, for speed
    perplexity = min(30.0, (len(unit) - 1) / 3)
    start = reduced[:, :2] / max(float(reduced[:, 0].std()), 1e-12) * 1e-4
    tsne = TSNE(2, perplexity=perplexity, init=start, learning_rate="auto", random_state=0)
    with threadpool_limits(1):  # on a busy machine two threads wait for each other ten times longer
        return tsne.fit_transform(reduced), f"t-SNE (perplexity {number(perplexity)})"


# Nearest neighbours


def _neighbours(found):
    figures = []
    for r in found:
        arrays = r.arrays
        shown = {"thumbnails", "texts"} & set(arrays)
        if not {"queries", "neighbours"} <= set(arrays) or not shown:
            figures.append(_note(_of(r, found, "no neighbours were gathered.")))
            continue
        head = f"<h3>{escape(r.name)}</h3>" if len(found) > 1 else ""
        rows = "".join(
            _neighbour_row(arrays, q, row, head_of)
            for head_of, (q, row) in enumerate(
                list(zip(arrays["queries"], arrays["neighbours"]))[:MOST_QUERIES]
            )
        )
        figures.append(f"<div>{head}{rows}{_agreement(arrays)}</div>")
    words = (
        "First in each row an example (framed), then those whose features are most like its own; "
        "the number is their cosine similarity."
    )
    if any("label" in r.arrays for r in found):
        words += " A tick: the same class, which the encoder was never told."
    wide = ' style="grid-template-columns:1fr"' if len(found) == 1 else (
        ' style="grid-template-columns:repeat(auto-fill,minmax(min(440px,100%),1fr))"'
    )  # fmt: skip
    words = _note(words) if any("neighbours" in r.arrays for r in found) else ""
    return words + f'<div class="grid-of"{wide}>{"".join(figures)}</div>'


def _neighbour_row(arrays, query, neighbours, row):
    similarities = arrays.get("similarities")
    label = arrays.get("label")
    names = {i: str(name) for i, name in enumerate(arrays.get("classes", ()))}
    # features in a narrow cone are all alike in two digits
    digits = 4 if similarities is not None and np.min(similarities) > 0.98 else 2

    def class_of(i):
        return names.get(label[i], str(label[i])) if label is not None else ""

    def words(rank, i):
        text = (
            f"{similarities[row][rank]:.{digits}f}" if similarities is not None else f"{rank + 1}."
        )
        if label is not None:
            text += " ✓" if label[i] == label[query] else " ✗"
        return text

    if "texts" in arrays:
        items = "".join(
            f"<li>{escape(arrays['texts'][i])} <small>{words(rank, i)}</small></li>"
            for rank, i in enumerate(neighbours)
        )
        return (
            f"<p><strong>{escape(arrays['texts'][query])}</strong></p>"
            f'<ol class="quotes">{items}</ol>'
        )
    of_class = f" of class {class_of(query)}" if label is not None else ""
    items = [_thumbnail(arrays, query, f"Query{of_class}", class_of(query) or "query", "query")]
    for rank, i in enumerate(neighbours):
        of_class = f" of class {class_of(i)}" if label is not None else ""
        items.append(_thumbnail(arrays, i, f"Neighbour {rank + 1}{of_class}", words(rank, i)))
    return f'<ul class="near" style="--columns:{len(items)}">{"".join(items)}</ul>'


def _thumbnail(arrays, i, alt, words, style=""):
    from PIL import Image

    source = _data_uri(Image.fromarray(np.asarray(arrays["thumbnails"][i], np.uint8)))
    style = f' class="{style}"' if style else ""
    return f'<li{style}><img src="{source}" alt="{escape(alt)}">{escape(words)}</li>'


def _agreement(arrays):
    """How often the very nearest example has the same label, over all that were gathered."""
    label, features = arrays.get("label"), arrays.get("features")
    if label is None or features is None or not np.isfinite(features).all():
        return ""
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    similarity = unit @ unit.T
    np.fill_diagonal(similarity, -np.inf)
    share = float(np.mean(label[similarity.argmax(1)] == label))
    counts = np.unique(label, return_counts=True)[1]
    chance = float(np.sum(counts * (counts - 1)) / max(len(label) * (len(label) - 1), 1))
    return _note(
        f"Over all {len(label)} gathered examples the nearest one has the same class in "
        f"{100 * share:.0f}\u00a0% of cases ({100 * chance:.0f}\u00a0% would be chance)."
    )


# Cost, call and use


def _cost(found):
    rows = []

    def row(name, value):
        cells = [value(r) for r in found]
        if any(cells):
            rows.append([escape(name), *(escape(cell) if cell else "–" for cell in cells)])

    def seconds(r):
        return _duration(sum(spent)) if (spent := _column(r, "seconds")) else ""

    def speed(r):
        per_second = _column(r, "examples_per_second")
        return number(round(_typical(per_second), 1)) if per_second else ""

    def parameters(r):
        count = r.arrays.get("parameters", r.run.get("parameters"))
        return f"{int(count):,}" if count is not None and np.ndim(count) == 0 else ""

    row("training time", seconds)
    row("epochs", lambda r: str(len(r.history)) if r.history else "")
    row("examples a second (median)", speed)
    row("parameters of the encoder", parameters)
    row("feature dimensions", lambda r: (
        str(r.arrays["features"].shape[-1]) if "features" in r.arrays else ""))  # fmt: skip
    for key in ("precision", "strategy", "host"):
        row(key, lambda r, key=key: _plain(r.run.get(key)))
    if not rows:
        return _note("Neither history.json nor run.json says what it cost.")
    return _table(["", *(r.name for r in found)], rows)


def _plain(value):
    if value is None or value == "":
        return ""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(part)}" for key, part in value.items())
    if isinstance(value, list):
        return ", ".join(map(_plain, value)) or "none"
    return str(value)


def _again(found):
    parts = []
    for r in found:
        head = f"<h3>{escape(r.name)}</h3>" if len(found) > 1 else ""
        if not r.run:
            parts.append(head + _note("There is no run.json, so the exact call is not known."))
            continue
        call = r.run.get("call")
        call = shlex.join(map(str, call)) if isinstance(call, list) else call
        text = f"<pre><code>{escape(call)}</code></pre>" if call else ""
        versions = _plain(r.run.get("versions"))
        facts = [("versions", versions), ("seed", _plain(r.run.get("seed")))]
        arguments = r.run.get("arguments")
        if isinstance(arguments, dict):
            told = ", ".join(f"{k} = {json.dumps(v, default=str)}" for k, v in arguments.items())
            facts.append(("arguments", told))
        text += "".join(
            f"<p><strong>{name}</strong> {escape(value)}</p>" for name, value in facts if value
        )
        parts.append(f"<div>{head}{text}</div>")
    return "".join(parts)


def _load(found):
    parts = []
    for r in found:
        head = f"<h3>{escape(r.name)}</h3>" if len(found) > 1 else ""
        encoders = sorted(file.parent for file in r.path.glob("*/saved_model.pb"))
        if not encoders:
            parts.append(head + _note("No encoder has been exported into this run directory."))
            continue
        # the primary one is called `encoder`; towers beside it follow
        encoders.sort(key=lambda folder: folder.name != "encoder")
        inputs = INPUTS.get(r.run.get("modality"), "a batch of what it was trained on")
        code = ["import tfssl", ""]
        for folder in encoders:
            code.append(f"{_identifier(folder.name)} = tfssl.load({str(folder)!r})")
        code += [f"features = {_identifier(encoders[0].name)}(batch)  # {inputs} -> [B, D]"]
        code += ["", "# or, without tfssl", "import tensorflow_hub as hub", ""]
        code += [f"encoder = hub.load({str(encoders[0])!r})"]
        parts.append(f"<div>{head}<pre><code>{escape(chr(10).join(code))}</code></pre></div>")
    return "".join(parts)


def _identifier(name):
    return re.sub(r"\W", "_", name)
