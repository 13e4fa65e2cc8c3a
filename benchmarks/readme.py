"""Rewrites the generated parts of README.md: the table of methods, and every measured number.

    python benchmarks/readme.py           writes
    python benchmarks/readme.py --check   exits with 1 if the page is behind its sources

A part stands between two comment lines, `<!-- NAME -->` and `<!-- end NAME -->`. Methods come from
the zoo, numbers from the result files beside this script.
"""

import argparse
import itertools
import json
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
README = HERE.parent / "README.md"


def methods():
    from tfssl import zoo

    rows = ["| method | what it does | paper | family |", "|---|---|---|---|"]
    for card in map(zoo.card, zoo.names()):
        first = card["authors"].split(",")[0].split(" ")[-1]
        paper = f"[{first} et al., {card['venue']} {card['year']}]({card['url']})"
        rows.append(f"| `{card['id']}` | {card['summary']} | {paper} | {card['family']} |")
    return rows


def encoders():
    from tfssl import zoo

    found = read("accuracy.json")
    rows = [
        "| method | encoder | epochs | seconds | images/s | kNN | random | linear | random |",
        "|" + "---|" * 9,
    ]
    for run in found["runs"]:
        knn, linear = (
            f"{percent(run['results'][p]['top1'])} | {percent(run['random'][p]['top1'])}"
            for p in ("knn", "linear")
        )
        rows.append(
            f"| `{run['method']}` | {zoo.get(run['method']).SMALL['encoder']} | {run['epochs']} "
            f"| {run['seconds']:.0f} | {run['examples_per_second']:.0f} | {knn} | {linear} |"
        )
    first = found["runs"][0]["results"]["knn"]
    return [
        *rows,
        "",
        f"`--small --minutes {found['minutes']:g}`; random: the same encoder untrained. Top-1 in "
        f"percent; kNN with k = {first['k']} and temperature {first['temperature']}; "
        f"{first['test_examples']} test images: `python benchmarks/accuracy.py --data FOLDER`.",
    ]


def augmentation():
    found = read("augmentation.json")
    rows = [
        "| two views an image | tfssl | lightly, two workers | ratio | ratio per core-second |",
        "|---|---|---|---|---|",
    ]
    for name, case in found["results"].items():
        rate, cores = case["per_second"], case["per_core_second"]
        rows.append(
            f"| {name} | {rate['tfssl']:,.0f} | {rate['lightly']:,.0f} | {rate['ratio']:.1f} "
            f"| {cores['ratio']:.1f} |"
        )
    return [
        *rows,
        "",
        f"Images per second on {found['cores']} cores, images already decoded and in memory. "
        f"Medians of {found['rounds']} alternating rounds; the ratio is the median of the rounds' "
        f"ratios, which vary by up to a factor of {max(map(spread, found['results'].values())):.1f}"
        f". The load before was {found['load_before']:.1f}; the ratio per second of processor time "
        "says the same where other programs want the cores too: "
        "`python benchmarks/augmentation.py --peer PYTHON`.",
    ]


def spread(case):
    """The largest of the rounds' ratios over the smallest."""
    rounds = case["per_second_all"]
    ratios = [ours / theirs for ours, theirs in zip(rounds["tfssl"], rounds["lightly"])]
    return max(ratios) / min(ratios)


def training():
    found = read("simclr_speed.json")
    rows = ["| SimCLR, augmentation and step, 32 px, batch 128 | images/s |", "|---|---|"]
    rows += [f"| {name} | {rate:.0f} |" for name, rate in found["medians"].items()]
    ratio = found["step_of_method_to_by_hand"]
    apart = {name: max(all_) / min(all_) for name, all_ in found["rounds"].items()}
    widest = max(apart, key=apart.get)
    lowest, *_, highest = sorted(found["rounds"][widest])
    return [
        *rows,
        "",
        f"A step of `Method` takes {ratio:.3f} times that of a `train_step` written by hand. "
        f"Medians of {len(next(iter(found['rounds'].values())))} alternating rounds on "
        f"{found['cores']} cores; the rounds of {widest} lie farthest apart ({lowest:.0f} to "
        f"{highest:.0f}): `python benchmarks/simclr_speed.py --data FOLDER --peer PYTHON`.",
    ]


def shortcuts():
    import audit

    found = read("audit.json")
    budgets = ", ".join(map(budget, found))
    return [
        *audit.lines(found),
        "",
        "Accuracy of the pretext in percent, where it has one, else its loss, on up to "
        f"{max(one['held_out_examples'] for one in found)} examples held out: {budgets}. Alone: on "
        "textures without content. Probe: linear, on the data as they are. "
        "`python benchmarks/audit.py`.",
    ]


def budget(audited):
    """What each training of an audit was, and its probe before any."""
    arguments, seeds, call = audited["arguments"], audited["seeds"], audited["call"].split()
    network = f" with {arguments['encoder']}" if arguments.get("encoder") else ""
    changed = [word for before, word in itertools.pairwise(call) if before == "--set"]
    changed = f", {', '.join(changed)}" if changed else ""
    untrained = percent(audited["probe"]["untrained"]["value"])
    return (
        f"`{audited['method']}` {audited['steps']} steps of {arguments['batch_size']}{network}"
        f"{changed}, {seeds} seed{'s' * (seeds > 1)} (untrained probe {untrained})"
    )


def read(name):
    return json.loads((HERE / name).read_text())


def percent(share):
    return f"{100 * share:.1f}"


PARTS = (methods, encoders, augmentation, training, shortcuts)


def rewritten(page):
    """The page with every generated part made anew."""
    for part in PARTS:
        begin, end = f"<!-- {part.__name__} -->\n", f"<!-- end {part.__name__} -->"
        if begin in page:
            before, rest = page.split(begin)
            try:
                lines = part()
            except FileNotFoundError as missing:
                lines = [f"Not measured yet: there is no {pathlib.Path(missing.filename).name}."]
            page = before + begin + "\n".join(lines) + "\n" + end + rest.split(end)[1]
    return page


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    page = README.read_text()
    new = rewritten(page)
    if parser.parse_args().check:
        sys.exit(page != new)
    README.write_text(new)


if __name__ == "__main__":
    main()
