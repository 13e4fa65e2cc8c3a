"""The report on evaluation: verdicts, bars and one table of every number."""

import math

from tfssl.report import runs as reading
from tfssl.report.charts import bars, escape, lines, number, spread_text, value_text
from tfssl.report.parts import colour, metric_name, note, protocol_name, table


def evaluation(found):
    """Scores of every protocol beside those of the random and the supervised encoder."""
    entries = _entries(found)
    without = [r.name for r in found if not reading.protocols(r.evaluation.get("results"))]
    if not any(ours for *_, ours in entries):
        return note("No evaluation yet: `tfssl evaluate RUN --data D --protocol knn` makes one.")
    protocols = list(dict.fromkeys(p for _, _, results, _ in entries for p in results if p))
    several = sum(ours for *_, ours in entries) > 1
    alike = len(_data(found)) < 2
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
            row = [escape(protocol_name(protocol)), escape(metric_name(metric))]
            for _, _, scores, is_ours in each:
                score = scores.get(metric)
                mark = alike and len(set(ours)) > 1 and is_ours
                mark = mark and score is not None and score.value == best
                row.append(_score_cell(score, share, mark))
            row.append(escape(_settings_text(entries, protocol)))
            rows.append(row)
    data = _data(found)
    alone = "" if any(map(reading.saw_labels, found)) else " and only here"
    words = f"Labels of {', '.join(data)} were used here{alone}. " if data else ""
    words += "Whiskers and small print: the 95\u00a0% bootstrap interval over test examples"
    drawn = [p for p in protocols if any("draws" in res.get(p, {}) for _, _, res, _ in entries)]
    words += f", of {' and '.join(map(protocol_name, drawn))} over draws." if drawn else "."
    head = ["protocol", "metric", *(name for name, *_ in entries), "settings"]
    caption = "Lists of numbers are in evaluation.json."
    if several:
        caption = "The best of the runs carries a star."
    if several and not alike:
        caption = "The runs were measured on different data, so none carries a star."
    verdicts = "".join(_verdicts(found))
    notes = f'<ul class="verdicts">{verdicts}</ul>' if verdicts else ""
    notes += note(f"Not evaluated: {', '.join(without)}.") if without else ""
    if not any(not ours for *_, ours in entries):
        notes += note(
            "There is no random-encoder baseline beside these numbers: add `--protocol random` to "
            "see what the architecture gives untrained."
        )
    return (
        notes
        + f'<div class="grid-of">{"".join(figures)}</div>'
        + table(head, rows, caption)
        + note(words)
    )


def _data(found):
    """What the runs were evaluated on, each once."""
    return list(dict.fromkeys(str(r.evaluation["data"]) for r in found if r.evaluation.get("data")))


def _entries(found):
    """(name, style, {protocol: object}, run or None) of every encoder that was evaluated."""
    entries = []
    for i, r in enumerate(found):
        results = reading.protocols(r.evaluation.get("results"))
        if results:
            name = r.name if len(found) > 1 else str(r.run.get("method") or r.name)
            name += f" on {r.evaluation['data']}" if len(_data(found)) > 1 else ""
            entries.append((name, colour(i), results, True))
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


def _bars_of(protocol, metrics, each):
    """A profile over the parts (layers) of a protocol, or bars of its first metric."""
    parts = [metric for metric in metrics if ": " in metric]
    name = protocol_name(protocol)
    figures = []
    plain = next((metric for metric in metrics if ": " not in metric), None)
    if plain is not None:
        shown = [(n, s, scores[plain]) for n, s, scores, _ in each if plain in scores]
        share = reading.is_share(plain, [score.value for *_, score in shown])
        chart = bars([(s, n, *score) for n, s, score in shown], f"{name} {plain}", share)
        lower = ", lower is better" if reading.lower_is_better(plain) else ""
        figures.append(
            f"<figure>{chart}<figcaption><strong>{escape(name)}</strong>, "
            f"{escape(metric_name(plain) + lower)}</figcaption></figure>"
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
            f"{escape(metric_name(last))} over the parts; dashed: baselines</figcaption></figure>"
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


def _verdicts(found):
    """One plain sentence a protocol: how far from the random encoder, and whether that is sure.

    Each run is held against its own baseline: another's may be of other data or another network.
    """
    for r in found:
        random = reading.protocols(r.evaluation.get("random"))
        name = r.name if len(found) > 1 else str(r.run.get("method") or r.name)
        for protocol, result in reading.protocols(r.evaluation.get("results")).items():
            metric, score = next(iter(reading.scores(result).items()), ("", None))
            if not metric or ": " in metric:  # layers have their own chart
                continue
            other = reading.scores(reading.baseline(random, protocol)).get(metric)
            if other is None or not reading.is_share(metric, [score.value, other.value]):
                continue
            gain = 100 * (score.value - other.value)
            if reading.lower_is_better(metric):
                continue
            side = "above" if gain >= 0 else "below"
            text = (
                f"<strong>{escape(name)}</strong>: {escape(protocol_name(protocol))} "
                f"{escape(metric_name(metric))} is {abs(gain):.1f} points {side} "
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
