"""Charts as inline SVG: colours are CSS classes of the page, so that they follow light and dark."""

import html
import math
import unicodedata

import numpy as np

WIDTH = 360  # of every chart: letters stay readable on a phone of that width


def escape(text):
    """Text made safe for HTML, attributes included, and for UTF-8: odd bytes of names become �."""
    return html.escape("".join("�" if _odd(c) else c for c in str(text)))


def _odd(c):
    """Controls, lone surrogates (file names that are no UTF-8), and what turns text around."""
    turning = "\u202a" <= c <= "\u202e" or "\u2066" <= c <= "\u2069"
    return turning or (unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\t")


def number(value):
    """A float in at most four digits, as one would write it."""
    if value is None or not np.isfinite(value):
        return "not a number"
    value = float(value)
    if value and (abs(value) < 1e-3 or abs(value) >= 1e6):
        return f"{value:.2e}"
    if float(value).is_integer():
        return f"{value:,.0f}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def ticks(low, high, count=4):
    """About `count` round numbers within [low, high]."""
    if high <= low:
        return [low]
    raw = (high - low) / count
    power = 10 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    values = [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]
    return [0.0 if abs(v) < step * 1e-9 else v for v in values]


def _svg(height, label, body):
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(label)}">'
        f"{''.join(body)}</svg>"
    )


def lines(series, label, names=None, bands=(), height=200):
    """A line chart.

    Args:
      series: list of (style class, name, xs, ys); a NaN interrupts the line.
      label: what the chart shows, for those who cannot see it; the last values are added.
      bands: list of (style class, xs, lows, highs), all finite, drawn beneath.
      names: the names of x = 0, 1, ... where x is not a number.
    """
    left, right, top, bottom = 46, 14, 12, 26
    points = [(x, y) for _, _, xs, ys in series for x, y in zip(xs, ys) if np.isfinite(y)]
    if not points:
        return ""
    x_low, x_high = min(p[0] for p in points), max(p[0] for p in points)
    reach = [p[1] for p in points] + [y for _, _, *ends in bands for end in ends for y in end]
    low, high = min(reach), max(reach)
    pad = (high - low) * 0.08 or abs(high) * 0.1 or 1.0
    low, high = (max(0.0, low - pad) if low >= 0 else low - pad), high + pad
    span = (x_high - x_low) or 1

    def place(x, y):
        across = left + (WIDTH - left - right) * ((x - x_low) / span if x_high > x_low else 0.5)
        return across, top + (height - top - bottom) * (high - y) / (high - low)

    body = []
    for value in ticks(low, high):
        y = place(x_low, value)[1]
        body.append(f'<path class="grid" d="M{left} {y:.1f}H{WIDTH - right}"/>')
        body.append(
            f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{number(value)}</text>'
        )
    marks = range(len(names)) if names else sorted({int(v) for v in ticks(x_low, x_high, 5)})
    for value in marks:
        if names and len(names) > 8 and value % math.ceil(len(names) / 8):
            continue
        text = escape(names[value]) if names else value
        x = place(value, low)[0]
        anchor = "middle" if x < WIDTH - 30 else "end"
        x = min(x, WIDTH - 4) if anchor == "end" else x
        body.append(f'<text x="{x:.1f}" y="{height - 6}" text-anchor="{anchor}">{text}</text>')
    for style, xs, lows, highs in bands:
        around = [*zip(xs, highs), *reversed(list(zip(xs, lows)))]
        outline = "L".join("{:.1f} {:.1f}".format(*place(x, y)) for x, y in around)
        body.append(f'<path class="band {style}" d="M{outline}Z"/>')
    last = []
    for style, name, xs, ys in series:
        path, pen = [], "M"
        for x, y in zip(xs, ys):
            if not np.isfinite(y):
                pen = "M"
                continue
            path.append("{}{:.1f} {:.1f}".format(pen, *place(x, y)))
            pen = "L"
        shown = [(x, y) for x, y in zip(xs, ys) if np.isfinite(y)]
        if not shown:
            continue
        title = f"{name}: {number(shown[-1][1])}" if name else number(shown[-1][1])
        last.append(title)
        body.append(f'<path class="line {style}" d="{"".join(path)}"/>')
        dots = shown if len(shown) <= 40 else shown[-1:]
        for x, y in dots:
            cx, cy = place(x, y)
            tip = escape(f"{name + ', ' if name else ''}{names[x] if names else x}: {number(y)}")
            body.append(
                f'<circle class="dot {style}" cx="{cx:.1f}" cy="{cy:.1f}" r="2.6">'
                f"<title>{tip}</title></circle>"
            )
    return _svg(height, f"{label}. At the end: {'; '.join(last)}", body)


def bars(entries, label, share=True):
    """Horizontal bars from zero, each under its own label, with whiskers where they are known.

    Args:
      entries: list of (style class, name, value, low or None, high or None).
      share: values are shares, written in percent.
    """
    row, thick = 40, 12
    finite = [v for _, _, value, low, high in entries for v in (value, low, high) if v is not None]
    finite = [v for v in finite if np.isfinite(v)] or [1.0]
    top = max(max(finite), 1e-9)
    if share:
        top = min(1.0, math.ceil(top * 10 + 0.3) / 10)
    unit = (WIDTH - 8) / (top * (1 if share else 1.05))
    body, spoken = [], []
    for i, (style, name, value, low, high) in enumerate(entries):
        y = i * row
        text = value_text(value, share)
        spread = f" ({spread_text(low, high, share)})" if low is not None else ""
        spoken.append(f"{name} {text}{spread}")
        body.append(f'<text class="name" x="0" y="{y + 13}">{escape(_shortened(name))}</text>')
        body.append(f'<text class="value" x="{WIDTH}" y="{y + 13}" text-anchor="end">{text}</text>')
        length = max(0.0, float(np.nan_to_num(value))) * unit
        body.append(f'<rect class="track" x="0" y="{y + 19}" width="{WIDTH}" height="{thick}"/>')
        body.append(
            f'<rect class="bar {style}" x="0" y="{y + 19}" width="{length:.1f}" height="{thick}"/>'
        )
        if low is not None and high is not None:
            a, b, m = low * unit, high * unit, y + 19 + thick / 2
            ends = f"M{a:.1f} {m - 4}v8M{b:.1f} {m - 4}v8"
            body.append(f'<path class="whisker" d="M{a:.1f} {m}H{b:.1f}{ends}"/>')
    return _svg(row * len(entries), f"{label}: {'; '.join(spoken)}", body)


def _shortened(name, most=38):
    return name if len(name) <= most else f"{name[: most // 2 - 1]}…{name[-most // 2 :]}"


def value_text(value, share):
    """46.6 % of a share, 4 digits of anything else."""
    if share and value is not None and np.isfinite(value):
        return f"{100 * value:.1f}\u00a0%"
    return number(value)


def spread_text(low, high, share):
    """The interval in the same unit: 44.1 to 48.9 %."""
    if share:
        return f"{100 * low:.1f} to {100 * high:.1f}\u00a0%"
    return f"{number(low)} to {number(high)}"


def scatter(points, groups, label, height=300):
    """A map of points [N, 2]; `groups` is a list of (style class, mask [N]).

    A group is one path of zero-length strokes: a tenth of the bytes of as many circles.
    """
    pad = 10
    low, high = points.min(0), points.max(0)
    span = np.maximum(high - low, 1e-9)
    placed = pad + (points - low) / span * (np.array([WIDTH, height]) - 2 * pad)
    body = []
    for style, mask in groups:
        path = "".join(f"M{x:.1f} {y:.1f}h0" for x, y in placed[mask])
        body.append(f'<path class="points {style}" d="{path}"/>')
    return _svg(height, label, body)
