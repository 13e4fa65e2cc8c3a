"""Run directories as they are found: whatever is there is read, whatever is not is None."""

import json
import math
import pathlib
import re
from typing import NamedTuple

import numpy as np

from tfssl.errors import BadInput
from tfssl.report.features import FILE

PIECES = ("history.json", "run.json", "evaluation.json", "sheet.png", FILE)

METRIC = re.compile(
    r"(.*top[ _-]?\d+|mean_per_class|.*acc|R@|recall|precision$|mAP|ap(\d+.*)?$|average_precision"
    r"|ndcg|.*iou|.*rank$|r2|error|.*error|mse|rmse|mae$|f1|kendall|tau|pck|si_sdr|sdr|sir|sar|fl_all"
    r"|purity|nmi|ari$|auc|roc_auc|region_sim|spearman|loss|score)",
    re.IGNORECASE,
)
LOWER_IS_BETTER = re.compile(r".*(rank|error|mse|mae|fl_all|loss)", re.IGNORECASE)
NOT_A_SHARE = re.compile(
    r".*(rank|mse|rmse|mae|end_point|sdr|sir|sar|loss|r2|tau|spearman)", re.IGNORECASE
)
SPREADS = ("_low", "_high")


class RunFiles(NamedTuple):
    name: str  # unique among the runs of a page
    path: pathlib.Path
    history: list  # one dict an epoch, maybe empty
    run: dict
    evaluation: dict
    sheet: bytes | None
    arrays: dict  # of features.npz
    faults: list  # sentences about files that are there and cannot be read


class Score(NamedTuple):
    value: float
    low: float | None
    high: float | None


def read(paths):
    """The runs at these paths, in this order.

    Raises:
      BadInput: no path, a folder that does not exist, or one that holds no file of a run.
    """
    paths = [paths] if isinstance(paths, (str, pathlib.Path)) else list(paths)
    paths = [pathlib.Path(path) for path in paths]
    if not paths:
        raise BadInput("a report needs at least one run directory")
    for path in paths:
        if not path.is_dir():
            raise BadInput(f"{path} is no folder: give a run directory that `pretrain` wrote")
        if not any((path / piece).is_file() for piece in PIECES):
            raise BadInput(
                f"{path} is no run directory: it holds none of {', '.join(PIECES)}; give the "
                "folder that `pretrain --out` named"
            )
    return [_read(path, name) for path, name in zip(paths, _names(paths))]


def _names(paths):
    """The folders' own names, with as many parents as it takes to tell them apart."""
    parts = [path.resolve().parts for path in paths]
    names = [part[-1] for part in parts]
    for depth in range(2, max(map(len, parts)) + 1):
        if len(set(names)) == len(names):
            break
        names = ["/".join(part[-depth:]) if names.count(n) > 1 else n
                 for part, n in zip(parts, names)]  # fmt: skip
    seen = {}
    for i, name in enumerate(names):  # the same folder given twice
        seen[name] = seen.get(name, 0) + 1
        names[i] = name if seen[name] == 1 else f"{name} ({seen[name]})"
    return names


def _read(path, name):
    faults = []

    def load(piece, kind):
        file = path / piece
        if not file.is_file():
            return kind()
        try:
            value = json.loads(file.read_text("utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            faults.append(f"{piece} cannot be read: {error}")
            return kind()
        if not isinstance(value, kind):
            faults.append(f"{piece} is no {'list' if kind is list else 'object'}, it is left out")
            return kind()
        return value

    history = [row for row in load("history.json", list) if isinstance(row, dict)]
    run, evaluation = load("run.json", dict), load("evaluation.json", dict)
    sheet = None
    if (path / "sheet.png").is_file():
        try:
            sheet = (path / "sheet.png").read_bytes()
        except OSError as error:
            faults.append(f"sheet.png cannot be read: {error}")
    arrays = {}
    if (path / FILE).is_file():
        try:
            with np.load(path / FILE) as stored:
                arrays = {key: stored[key] for key in stored.files}
        except Exception as error:  # its bytes may be wrong in any way
            faults.append(f"{FILE} cannot be read: {error}")
    return RunFiles(name, path, history, run, evaluation, sheet, arrays, faults)


def curve(history, key):
    """(xs, ys) of one log over the epochs that have it; what is no number is NaN."""
    pairs = [
        (row["epoch"] if is_number(row.get("epoch")) else i, row[key])
        for i, row in enumerate(history)
        if key in row
    ]
    return [x for x, _ in pairs], [float(y) if is_number(y) else math.nan for _, y in pairs]


def logs(history):
    """The names of all numeric logs, in the order in which they first appear."""
    names = {}
    for row in history:
        for key, value in row.items():
            if is_number(value):
                names.setdefault(key)
    return list(names)


def parts(protocol):
    """The layers of a protocol that gives `<layer>_top1` with its interval for each of several."""
    return [
        key.removesuffix("_top1")
        for key in protocol
        if key.endswith("_top1")
        and all(is_number(protocol.get(f"{key}{end}")) for end in ("", "_low", "_high"))
    ]


def saw_labels(found):
    """Whether the method of a run (`RunFiles`) trains on labels, as an upper bound may."""
    uses = found.run.get("uses")
    return isinstance(uses, list) and "label" in uses


def baseline(results, protocol):
    """A baseline's numbers for a protocol: its own, or those of one that was measured once."""
    return results.get(protocol, results.get("", {}))


def protocols(results):
    """{protocol: object}; numbers that belong to no protocol (supervised training) go under ""."""
    if not isinstance(results, dict):
        return {}
    if scores({key: value for key, value in results.items() if not isinstance(value, dict)}):
        return {"": results}
    return {str(name): result for name, result in results.items() if isinstance(result, dict)}


def scores(protocol):
    """{metric: Score} of one protocol's object; parts such as layers give "part: metric".

    A suite of data sets gives the mean, and under each set's name the metric that is usual there.
    """
    if _is_suite(protocol):
        return _suite(protocol)
    found, prefixes = {}, parts(protocol)
    for key, value in protocol.items():
        part = next((prefix for prefix in prefixes if key == f"{prefix}_top1"), None)
        if part is not None:
            ends = protocol[f"{key}_low"], protocol[f"{key}_high"]
            found[f"{part}: top1"] = Score(float(value), *ends)
        elif isinstance(value, dict):
            inner = scores(value)
            found.update({f"{key}: {metric}": score for metric, score in inner.items()})
        elif is_metric(protocol, key):
            found[key] = _score(value, protocol, key)
    return found


def _score(value, protocol, key):
    """A value with the interval of `key`, where both its ends are there."""
    low, high = (protocol.get(f"{key}{end}") for end in SPREADS)
    whole = is_number(low) and is_number(high)
    return Score(float(value), *((low, high) if whole else (None, None)))


def _is_suite(protocol):
    return isinstance(protocol.get("datasets"), dict)


def _suite(protocol):
    sets = protocol["datasets"]
    return {
        name: _score(protocol[name], result, result.get("metric"))
        for name, result in [("mean", {}), *sets.items()]
        if is_number(protocol.get(name))
    }


def settings(protocol):
    """{name: value} of what is said beside the numbers: k, temperature, C, ..."""
    found, prefixes = {}, tuple(f"{prefix}_" for prefix in parts(protocol))
    for key, value in protocol.items():
        if prefixes and key.startswith(prefixes):
            continue
        numbers = isinstance(value, list) and not any(isinstance(item, str) for item in value)
        if isinstance(value, dict) or is_metric(protocol, key) or key.endswith(SPREADS) or numbers:
            continue
        found[key] = value
    return found


def is_metric(protocol, key):
    """Whether `key` of a protocol's results is a result, and not a setting or an interval's end."""
    if not is_number(protocol[key]) or key.endswith(SPREADS):
        return False
    if _is_suite(protocol):
        return key in ("mean", *protocol["datasets"])
    return f"{key}_low" in protocol or bool(METRIC.match(key))


def is_share(metric, values):
    """Whether values of a metric lie between 0 and 1 by their nature, to be shown in percent."""
    metric = metric.rpartition(": ")[2]
    values = [value for value in values if value is not None and math.isfinite(value)]
    return not NOT_A_SHARE.match(metric) and all(0 <= value <= 1 for value in values)


def lower_is_better(metric):
    """Whether less of a metric is better, as of errors and losses."""
    return bool(LOWER_IS_BETTER.match(metric.rpartition(": ")[2]))


def is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)
