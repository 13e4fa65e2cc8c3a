"""What two pretexts gain by the cues they are known to be cheated with, by the command that users
call: relative position by a lens, rotation by resized rows and by a border.

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

HERE = pathlib.Path(__file__).resolve().parent
AUDITS = {
    "image.relative_position": "--cue aberration --encoder conv4 --steps 150 --batch-size 64 "
    "--examples 1000 --seeds 2",
    # One training a kind: the intervals are then those of the held-out batches alone.
    "image.rotation": "--cue resize --cue border --seeds 1 --steps 60 --batch-size 32 "
    "--examples 600",
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
                    rows.append(row(found["method"], cue, role))
    return rows


def row(method, cue, role):
    fix = role.removeprefix("with, ")
    base = f"without, {fix}" if role != fix else "without"
    name = {"with": cue["cue"], "removed": f"... {cue['remedy']}"}.get(role, f"... guard `{fix}`")
    change = cue["pretext"][role]["difference"]
    interval = f"{100 * change['low']:+.1f}, {100 * change['high']:+.1f}"

    def percent(part, role):
        return f"{100 * cue[part][role]['value']:.1f}" if role in cue[part] else ""

    cells = (
        f"`{method}`" if role == "with" else "",
        name,
        percent("pretext", base),
        percent("pretext", role),
        f"{100 * change['value']:+.1f} [{interval}]",
        percent("alone", base),
        percent("alone", role),
        percent("probe", base),
        percent("probe", role),
        seen(cue, role),
    )
    return "| " + " | ".join(cells) + " |"


def seen(cue, role):
    if role == "with":
        return cue["verdict"]
    return "the cue still shows" if cue["alone"][role]["gained"] else "takes it out"


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
