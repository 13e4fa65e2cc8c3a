"""The picture of an audit: each cue with and without, on the data, alone, and downstream."""

from tfssl.files import written_whole
from tfssl.report.style import LIGHT

WITHOUT, WITH, FIXED = LIGHT["base"], LIGHT["s1"], LIGHT["s0"]


def picture(found, path):
    """Writes what `tfssl audit` found as a PNG: a row a cue and one for each fix, three panels.

    Args:
        found: the content of audit.json.
        path: the picture's file; written whole or not at all.
    """
    from matplotlib.figure import Figure

    rows = [row for cue in found["cues"] for row in _rows(cue)]
    panels = ["pretext", "alone", *(["probe"] if found["probe"] else [])]
    titles = {
        "pretext": f"pretext {found['metric']} on the data",
        "alone": f"pretext {found['metric']} by the cue alone",
        "probe": "downstream: linear probe (dotted: untrained)",
    }
    figure = Figure(figsize=(3.2 + 3.4 * len(panels), 1.7 + 0.34 * len(rows)), dpi=120)
    figure.patch.set_facecolor("white")
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axis, panel in zip(axes, panels):
        share = found["metric"] == "accuracy" or panel == "probe"
        for y, (_, base, role, colour, cue) in enumerate(rows):
            _dumbbell(axis, y, cue[panel], base, role, colour, 100 if share else 1)
        if share:
            axis.set_xlim(left=0)
        if panel == "probe":
            untrained = 100 * found["probe"]["untrained"]["value"]
            axis.axvline(untrained, color=LIGHT["base"], linewidth=1, linestyle=":")
        axis.set_title(titles[panel], fontsize=10, color=LIGHT["ink"])
        axis.set_xlabel("%" if share else "loss (lower: solved better)", fontsize=9)
        axis.grid(axis="x", color=LIGHT["line"], linewidth=0.8)
        axis.tick_params(labelsize=9, length=0, colors=LIGHT["muted"])
        for spine in axis.spines.values():
            spine.set_visible(False)
    axes[0].set_yticks(range(len(rows)), [name for name, *_ in rows])
    axes[0].set_ylim(len(rows) - 0.4, -0.6)
    for label, row in zip(axes[0].get_yticklabels(), rows):
        label.set_color(LIGHT["ink"] if row[3] == WITH else LIGHT["muted"])
    dots = [
        axes[0].plot([], [], "o", markersize=7, color=colour, markerfacecolor=face, label=text)[0]
        for colour, face, text in (
            (WITHOUT, "white", "without the cue"),
            (WITH, WITH, "with the cue"),
            (FIXED, FIXED, "with the cue and a fix"),
        )
    ]
    figure.legend(handles=dots, loc="lower center", ncols=3, frameon=False, fontsize=9)
    figure.suptitle(
        f"{found['method']} on {found['data']}: {found['seeds']} seeds of {found['steps']} steps; "
        "lines are 95 % intervals",
        fontsize=10,
        color=LIGHT["muted"],
    )
    figure.tight_layout(rect=(0, 0.5 / figure.get_figheight(), 1, 1))
    with written_whole(path) as aside, open(aside, "wb") as file:
        figure.savefig(file, format="png")


def _rows(cue):
    """(label, role without, role with, colour, the cue's findings), the cue first, then fixes."""
    yield cue["cue"], "without", "with", WITH, cue
    for role in cue["pretext"]:
        if role == "removed":
            yield cue["remedy"], "without", role, FIXED, cue
        elif role.startswith("with, "):
            yield role.removeprefix("with, "), f"without, {role[6:]}", role, FIXED, cue


def _dumbbell(axis, y, found, base, role, colour, scale):
    """The value without the cue as a ring, with it as a dot, their intervals as lines."""
    if base in found and role in found:
        ends = [scale * found[base]["value"], scale * found[role]["value"]]
        axis.plot(ends, [y, y], color=colour, linewidth=1, alpha=0.5, zorder=1)
    for name, shade, face in ((base, WITHOUT, "white"), (role, colour, colour)):
        if name in found:
            value = found[name]
            span = [scale * value["low"], scale * value["high"]]
            axis.plot(span, [y, y], color=shade, linewidth=3, alpha=0.3, zorder=2)
            axis.plot(
                scale * value["value"], y, "o", color=shade, markerfacecolor=face, markersize=7,
                zorder=3,
            )  # fmt: skip
