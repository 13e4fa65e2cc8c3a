"""The report on how a run came about and is used: cost, the exact call, loading the encoder."""

import json
import re
import shlex

import numpy as np

from tfssl.report.charts import escape, number
from tfssl.report.parts import column, duration, note, table, typical

INPUTS = {
    "image": "images float32 [B, H, W, 3] in [0, 1]",
    "video": "clips float32 [B, T, H, W, 3] in [0, 1]",
    "audio": "waveforms float32 [B, N] in [-1, 1], 16 kHz",
    "text": "strings [B]",
    "geometry": "pairs of frames float32 [B, 2, H, W, 3] in [0, 1]",
}


def cost(found):
    """A table of time, epochs, speed, sizes and machine."""
    rows = []

    def row(name, value):
        cells = [value(r) for r in found]
        if any(cells):
            rows.append([escape(name), *(escape(cell) if cell else "–" for cell in cells)])

    def seconds(r):
        return duration(sum(spent)) if (spent := column(r, "seconds")) else ""

    def speed(r):
        per_second = column(r, "examples_per_second")
        return number(round(typical(per_second), 1)) if per_second else ""

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
        return note("Neither history.json nor run.json says what it cost.")
    return table(["", *(r.name for r in found)], rows)


def _plain(value):
    if value is None or value == "":
        return ""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(part)}" for key, part in value.items())
    if isinstance(value, list):
        return ", ".join(map(_plain, value)) or "none"
    return str(value)


def again(found):
    """The exact call, versions, seed and arguments of each run."""
    parts = []
    for r in found:
        head = f"<h3>{escape(r.name)}</h3>" if len(found) > 1 else ""
        if not r.run:
            parts.append(head + note("There is no run.json, so the exact call is not known."))
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


def load(found):
    """Code that loads the exported encoders."""
    parts = []
    for r in found:
        head = f"<h3>{escape(r.name)}</h3>" if len(found) > 1 else ""
        encoders = sorted(file.parent for file in r.path.glob("*/saved_model.pb"))
        if not encoders:
            parts.append(head + note("No encoder has been exported into this run directory."))
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
