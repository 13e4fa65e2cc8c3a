"""What image_zoo.json says: a table, a picture, and the literature's findings as they fall."""

import itertools
import json

# Tasks of the multi-task row and the rows of each alone.
ALONE = (
    "image.relative_position",
    "image.colorization",
    "image.exemplar_triplet",
    "image.rotation",
)
ABOVE = 0.08  # of the linear probe over the untrained network, asked of the best


def linear(row):
    return row["results"]["linear"]["top1"]


class Results:
    """The rows by kind, and the untrained network that each is held against."""

    def __init__(self, found):
        self.found, rows = found, found["rows"]
        self.failed = [row for row in rows if "failure" in row]
        good = [row for row in rows if "failure" not in row]
        self.random = {row["encoder"]: row for row in good if row["method"] == "random"}
        self.supervised = [row for row in good if row["method"] == "supervised"]
        methods = [row for row in good if row["method"].startswith("image.")]
        # With the encoder that all share, and with another.
        self.small = sorted((r for r in methods if not r["asked"]), key=linear, reverse=True)
        self.others = [row for row in methods if row["asked"]]

    def untrained(self, row):
        if "untrained" in row:
            return {"results": row["untrained"]}
        return self.random.get(row["encoder"])

    def gain(self, row):
        """Of the linear probe over the untrained network; None where there is none to build."""
        untrained = self.untrained(row)
        return None if untrained is None else linear(row) - linear(untrained)

    def of(self, method, encoder=None):
        """The row of a method, with the shared encoder or the one named; None if it has none."""
        for row in self.small + self.others:
            if row["method"] == method and (encoder is None or row["encoder"] == encoder):
                return row
        return None


def taps(row):
    """[(tap, top-1)] in the network's order."""
    found = row["results"].get("layers") or {}
    return [(k.removesuffix("_top1"), v) for k, v in found.items() if k.endswith("_top1")]


def percent(share):
    return "" if share is None else f"{100 * share:.1f}"


def table(results):
    lines = [
        "| method | encoder | images/s | kNN | linear (95 %) | untrained | gain | best layer "
        "| last layer |",
        "|" + "---|" * 9,
    ]
    for row in [*results.supervised, *results.small, *results.others]:
        found, untrained = row["results"], results.untrained(row)
        low, high = (found["linear"].get(f"top1_{end}") for end in ("low", "high"))
        by_layer = taps(row)
        best = max(by_layer, key=lambda pair: pair[1], default=("", None))
        speed = row.get("images_per_processor_second")
        lines.append(
            f"| `{row['method']}` | {row['encoder']} | {f'{speed:.0f}' if speed else ''} "
            f"| {percent(found['knn']['top1']) if 'knn' in found else ''} "
            f"| {percent(linear(row))} ({percent(low)}-{percent(high)}) "
            f"| {percent(linear(untrained)) if untrained else ''} | {percent(results.gain(row))} "
            f"| {best[0]} {percent(best[1])} | {percent(by_layer[-1][1]) if by_layer else ''} |"
        )
    return lines


def findings(results):
    """[(what the literature says, whether it is so here, the figures)]: none is left out."""
    return [f(results) for f in (middle, combined, rotation_first, deeper, classes)]


def middle(results):
    """By what training adds to each layer: an untrained network's first is its best, too."""
    said = "Middle layers transfer better than the last."
    inner = [row for row in results.small if len(taps(row)) > 2]
    better = [row for row in inner if max(v for _, v in taps(row)[:-1]) > taps(row)[-1][1]]
    added = {row["method"]: layer_gains(results, row) for row in inner}
    added = {method: gains for method, gains in added.items() if gains}
    most = [max(gains, key=gains.get) for gains in added.values()]
    last = [list(gains)[-1] for gains in added.values()]
    between = [list(gains)[1:-1] for gains in added.values()]
    in_the_middle = sum(tap in taps_between for tap, taps_between in zip(most, between))
    figures = (
        f"{len(better)} of {len(inner)} methods have an earlier layer above the last, but so have "
        f"untrained networks ({untrained_taps(results)}). Training adds most to a layer in the "
        f"middle for {in_the_middle} of {len(added)}, to the last for "
        f"{sum(tap == end for tap, end in zip(most, last))}, to the first for the others."
    )
    return said, in_the_middle > len(added) / 2, figures


def layer_gains(results, row):
    """{tap: top-1 over that of the same layer untrained}; {} where there is no such row."""
    untrained = results.untrained(row)
    before = dict(taps(untrained)) if untrained else {}
    return {tap: value - before[tap] for tap, value in taps(row) if tap in before}


def untrained_taps(results):
    """The layers of the network that all share, untrained: `c1 52.6, c2 ...`."""
    shared = next((row for row in results.small if row["encoder"] in results.random), None)
    row = results.random.get(shared["encoder"]) if shared else None
    return ", ".join(f"{tap} {percent(value)}" for tap, value in taps(row)) if row else "no row"


def doubt(*pairs):
    """A sentence where the intervals of two rows that decide overlap; "" where they do not."""
    probes = [[row["results"]["linear"] for row in pair] for pair in pairs]
    overlap = (min(p["top1_high"] for p in pair) >= max(p["top1_low"] for p in pair)
               for pair in probes)  # fmt: skip
    return " The intervals overlap: it may be chance." if any(overlap) else ""


def combined(results):
    said = "Combining pretexts beats each alone."
    both = results.of("image.multi_task")
    alone = [row for row in map(results.of, ALONE) if row]
    if not both or not alone:
        return said, None, "Not measured."
    figures = f"multi_task {percent(linear(both))}; " + ", ".join(
        f"{row['method'].split('.')[1]} {percent(linear(row))} ({row['encoder']})" for row in alone
    )
    same = [row for row in alone if row["encoder"] == both["encoder"]]
    figures += "." + doubt((both, max(same, key=linear))) if same else "."
    return said, all(linear(both) > linear(row) for row in same), figures


def rotation_first(results):
    said = "Rotation is ahead of relative position and colour."
    names = ("image.rotation", "image.relative_position", "image.colorization")
    rows = [row for row in map(results.of, names) if row]
    if len(rows) < len(names):
        return said, None, "Not measured."
    gains = [results.gain(row) for row in rows]
    figures = ", ".join(
        f"{row['method'].split('.')[1]} {percent(gain)} over its untrained {row['encoder']}"
        for row, gain in zip(rows, gains)
    )
    second = rows[1:][gains[1:].index(max(gains[1:]))]
    return said, gains[0] > max(gains[1:]), figures + " points." + doubt((rows[0], second))


def deeper(results):
    said = "A deeper trunk helps."
    parts, holds, pairs = [], [], []
    for method in ("image.simclr", "image.rotation"):
        rows = [results.of(method, name) for name in ("conv4", "resnet9", "resnet18")]
        rows = [row for row in rows if row]
        values = [linear(row) for row in rows]
        holds.append(len(values) > 1 and values == sorted(values))
        pairs += itertools.pairwise(rows)
        parts.append(
            f"{method.split('.')[1]}: "
            + ", ".join(
                f"{row['encoder']} {percent(linear(row))}{over(results, row)}" for row in rows
            )
        )
    figures = "; ".join(parts) + " (equal processor time, so the deeper see fewer images)."
    return said, all(holds), figures + doubt(*pairs)


def over(results, row):
    """What training added, in brackets."""
    gain = results.gain(row)
    return "" if gain is None else f" ({100 * gain:+.1f} over untrained)"


def classes(results):
    said = "Classification beats regression in split-brain."
    rows = [results.of(f"image.{name}") for name in ("split_brain", "split_brain_regression")]
    if None in rows:
        return said, None, "Not measured."
    figures = f"Classes {percent(linear(rows[0]))}, regression {percent(linear(rows[1]))}."
    return said, linear(rows[0]) > linear(rows[1]), figures + doubt(rows)


def page(found, causes):
    results = Results(found)
    below = [row for row in results.small if (results.gain(row) or 0) < 0]
    best = results.small[:5]
    above = sum((results.gain(row) or 0) >= ABOVE for row in best)
    minutes = found["processor_minutes"]
    lines = [
        "# The image methods, side by side",
        "",
        f"`python benchmarks/image_zoo.py --data {found['data']}`: every method with its `SMALL` "
        f"recipe, and one network where it takes any, for {minutes:g} processor minutes. Top-1 in "
        "percent; the interval is a bootstrap over the test images; `untrained` is the linear "
        "probe of the same network before training; images a second are of processor time.",
        "",
        "![linear probe of every method](pictures/image_zoo.png)",
        "",
        *table(results),
        "",
        f"{above} of the five best are {100 * ABOVE:.0f} points or more above their untrained "
        "network.",
        "",
        "## What the literature says, and what is seen here",
        "",
    ]
    words = {True: "holds", False: "does not hold", None: "open"}
    lines += [f"- {said} **It {words[so]}**: {figures}" for said, so, figures in findings(results)]
    if below:
        lines += ["", "## Below their untrained network", ""]
        lines += [
            f"- `{row['method']}` ({percent(results.gain(row))} points): "
            f"{causes.get(row['method'], 'no cause is known.')}"
            for row in below
        ]
    if results.failed:
        lines += ["", "## Without a row", ""]
        names = (f"{row['method']} {row['asked']}".strip() for row in results.failed)
        lines += [f"- `{name}`: {row['failure']}" for name, row in zip(names, results.failed)]
    return "\n".join(lines) + "\n"


def picture(found, path):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    results = Results(found)
    rows = results.small[::-1]
    figure, axes = pyplot.subplots(figsize=(7.5, 0.24 * len(rows) + 1.2), layout="constrained")
    values = [100 * linear(row) for row in rows]
    probes = [row["results"]["linear"] for row in rows]
    ends = [
        [100 * abs(probe[f"top1_{end}"] - probe["top1"]) for probe in probes]
        for end in ("low", "high")
    ]
    names = [f"{row['method'].split('.')[1]}  ({row['encoder']})" for row in rows]
    axes.barh(names, values, xerr=ends, color="#4c78a8", error_kw={"lw": 0.8}, height=0.7)
    floor = [results.untrained(row) for row in rows]
    axes.scatter(
        [100 * linear(row) if row else float("nan") for row in floor],
        names, marker="|", s=80, color="#e45756", zorder=3, label="the same network untrained",
    )  # fmt: skip
    for row in results.supervised:
        axes.axvline(100 * linear(row), color="#72b7b2", lw=1.2, label="trained with labels")
    axes.set_xlabel("linear probe, top-1 in percent")
    axes.tick_params(axis="y", labelsize=7)
    axes.set_xlim(left=min(30, min(values) - 2))
    axes.legend(fontsize=7, loc="lower right")
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def write(found, here):
    """image_zoo.md and its picture; image_zoo_causes.json says why a method failed to learn."""
    notes = here / "image_zoo_causes.json"
    causes = json.loads(notes.read_text()) if notes.exists() else {}
    (here / "image_zoo.md").write_text(page(found, causes))
    picture(found, here / "pictures" / "image_zoo.png")
