"""What pretexts gain by the cues they are known to be cheated with, by the command that users call.

Results go to audit.json, the pictures to pictures/, a table in Markdown to the terminal:

    python benchmarks/audit.py [METHOD ...]    measures (minutes) and prints
    python benchmarks/audit.py --print         prints what was measured
"""

import argparse
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

from tfssl.cli import laboratory

HERE = pathlib.Path(__file__).resolve().parent
# Where each kind is trained once, the intervals are those of the held-out batches alone.
AUDITS = {
    "image.relative_position": "--cue aberration --cue gap --encoder conv4 --steps 150 "
    "--batch-size 64 --examples 1000 --seeds 2",
    "image.rotation": "--cue resize --cue border --cue watermark --cue jpeg --encoder conv4 "
    "--seeds 1 --steps 60 --batch-size 32 --examples 600",
    "image.jigsaw": "--cue gap --cue aberration --encoder conv4 --set grid=2 --set orders=24 "
    "--seeds 1 --steps 150 --batch-size 64 --examples 1000",
    "image.simclr": "--cue colour --encoder conv4 --seeds 1 --steps 100 --batch-size 64 "
    "--examples 1000",
    "audio_visual.ave_net": "--cue sound_offset --seeds 2 --steps 150 --examples 400",
    "video.tcc": "--cue zoom --cue tilt --cue black_frame --encoder conv4 --seeds 1 --steps 60 "
    "--examples 120 --batch-size 4",
}


def measured(method, data, work):
    out = work / method
    call = ["audit", method, "--data", data, *AUDITS[method].split()]
    subprocess.run([sys.executable, "-m", "tfssl", *call, "--out", str(out)], check=True)
    (HERE / "pictures").mkdir(exist_ok=True)
    shutil.copy(out / "audit.png", HERE / "pictures" / f"audit_{method.split('.')[1]}.png")
    return {"call": " ".join(["tfssl", *call]), **json.loads((out / "audit.json").read_text())}


def lines(audits):
    """The table in Markdown: a row a cue and one for each fix."""
    head = "| pretext | cue | without | with | gain [95 %] | alone: without | with "
    rows = [head + "| probe: without | with | seen |", "|" + "---|" * 10]
    for found in audits:
        for cue in found["cues"]:
            for role, entry in cue["pretext"].items():
                if "difference" in entry:
                    rows.append(row(found["method"], found["metric"], cue, role))
    return rows


def row(method, metric, cue, role):
    fix = role.removeprefix("with, ")
    base = f"without, {fix}" if role != fix else "without"
    name = {"with": cue["cue"], "removed": f"... {cue['remedy']}"}.get(role, f"... guard `{fix}`")
    change = cue["pretext"][role]["difference"]
    scale, digits = (100, 1) if metric == "accuracy" else (1, 3)
    gain, low, high = (f"{scale * change[key]:+.{digits}f}" for key in ("value", "low", "high"))

    def pretext(part, role):
        return f"{scale * cue[part][role]['value']:.{digits}f}" if role in cue[part] else ""

    def probe(role):
        return f"{100 * cue['probe'][role]['value']:.1f}" if role in cue["probe"] else ""

    cells = (
        f"`{method}`" if role == "with" else "",
        name,
        pretext("pretext", base),
        pretext("pretext", role),
        f"{gain} [{low}, {high}]",
        pretext("alone", base),
        pretext("alone", role),
        probe(base),
        probe(role),
        seen(cue, role),
    )
    return "| " + " | ".join(cells) + " |"


def seen(cue, role):
    if role == "with":
        return cue["verdict"]
    return laboratory.fixed(cue["alone"], role)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("methods", nargs="*", help="measure these alone and keep the others")
    parser.add_argument("--data", default="world")
    parser.add_argument("--print", action="store_true", help="measure nothing")
    options = parser.parse_args()
    file = HERE / "audit.json"
    found = {one["method"]: one for one in json.loads(file.read_text())} if file.exists() else {}
    if not options.print:
        with tempfile.TemporaryDirectory() as work:
            for method in options.methods or AUDITS:
                found[method] = measured(method, options.data, pathlib.Path(work))
                rows = [found[name] for name in AUDITS if name in found]
                file.write_text(json.dumps(rows, indent=1) + "\n")
    print("\n".join(lines([found[name] for name in AUDITS if name in found])))


if __name__ == "__main__":
    main()
