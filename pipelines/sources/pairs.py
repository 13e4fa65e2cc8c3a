"""Tables that say what belongs together: csv and jsonl of paths and texts, or a text a line."""

import csv
import io
import json
import math
import os
import pathlib
import re

from tfssl.pipelines.errors import BadInput
from tfssl.pipelines.sources import splits
from tfssl.pipelines.sources.records import Record

FILES = ("image", "video", "audio")
TEXTS = {
    **{"caption": "text", "text": "text"},
    **{"caption_de": "text_de", "text_de": "text_de"},
    **{"caption_es": "text_es", "text_es": "text_es"},
}
NUMBERS = ("start", "end")
OTHERS = ("label", "split")


def records(path):
    """Every row of a table -> (records, split of each or None, strays, class names).

    Columns: `image`, `video`, `audio` (paths relative to the table), `caption` or `text` (also
    `text_de`, `text_es`), `label`, `start` and `end` in seconds, `split`; others are ignored.
    Labels that are all whole numbers are kept, others numbered in alphabetical order. Without a
    column `split` the cut hashes the first path of a row (or its text), so that all captions of
    an image fall on one side. A .txt file is one text a line.

    Raises:
        BadInput: naming the row and the column that are at fault.
    """
    path = pathlib.Path(path)
    rows = table(path)
    columns = dict.fromkeys(key for _, row in rows for key in row)
    known = [key for key in columns if key in (*FILES, *TEXTS, *NUMBERS, *OTHERS)]
    same = [key for key in known if key in TEXTS]
    if len({TEXTS[key] for key in same}) < len(same):
        raise BadInput(f"{path} has both `caption` and `text`, which mean the same: drop one.")
    contents = [key for key in known if key in FILES or key in TEXTS]
    if not contents:
        raise BadInput(
            f"{path} has no column that says what an example is; it has "
            f"{', '.join(map(str, columns))[:200]}, and one of image, video, audio, caption or "
            "text is needed."
        )
    found, of_split, labels = [], [], []
    for number, row in rows:
        found.append(record(path, number, row, known))
        labels.append(cell(path, number, row, "label") if "label" in known else None)
        if "split" in known:
            name = cell(path, number, row, "split").lower()
            of_split.append(splits.SAME.get(name, name))
            if of_split[-1] not in splits.SPLITS:
                raise BadInput(
                    f"{path}, row {number}, column 'split': {name!r}; use train, test or val."
                )
    class_names = []
    if "label" in known:
        numbers = [whole(label) for label in labels]
        if None in numbers:
            class_names = sorted(set(labels))
            place = {name: number for number, name in enumerate(class_names)}
            numbers = [place[label] for label in labels]
        else:
            class_names = splits.numbers(numbers)
        found = [r._replace(values={**r.values, "label": n}) for r, n in zip(found, numbers)]
    return found, of_split or None, [], class_names


def record(path, number, row, known):
    """One row as a `Record`."""
    files, values, times = {}, {}, {}
    for key in known:
        if key in FILES:
            name = cell(path, number, row, key)
            files[key] = os.path.join(path.parent, name)
        elif key in TEXTS:
            values[TEXTS[key]] = str(cell(path, number, row, key))
        elif key in NUMBERS and row.get(key) not in (None, ""):
            try:
                times[key] = float(row[key])
                if not math.isfinite(times[key]):
                    raise ValueError
            except (TypeError, ValueError):
                raise BadInput(
                    f"{path}, row {number}, column {key!r}: {str(row[key])[:80]!r} is no number "
                    "of seconds."
                ) from None
    if not 0 <= times.get("start", 0.0) < times.get("end", float("inf")):
        raise BadInput(f"{path}, row {number}: the clip's `end` must come after its `start` >= 0.")
    names = [os.path.normpath(str(row[key])) for key in known if key in files]
    names = [name.replace(os.sep, "/") for name in names] or list(values.values())
    return Record(names[0], files, values, **times)


def cell(path, number, row, column):
    """A cell that must hold something."""
    value = row.get(column)
    if value is None or value == "":
        raise BadInput(
            f"{path}, row {number}, column {column!r} is empty: fill it or drop the row."
        )
    value = value if isinstance(value, str) else json.dumps(value)
    # JSON may hold half a character, which no text can; of a path it may be a byte.
    return value if column in FILES else value.encode("utf-8", "replace").decode()


def whole(text):
    """A label as int where it is written as one, and 64 bits hold it, else None."""
    if not re.fullmatch(r"\s*[+-]?[0-9]+\s*", text):  # int() would take 1_2 for 12
        return None
    number = int(text)
    return number if abs(number) < 2**63 else None


def table(path):
    """[(row's number as an editor or spreadsheet shows it, {column: cell})] of a table."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput(
            f"{path} is not UTF-8 text ({error.reason} at byte {error.start})."
        ) from None
    if path.suffix.lower() == ".txt":
        rows = [(i, {"text": line.strip()}) for i, line in enumerate(text.split("\n"), 1)]
        rows = [(i, row) for i, row in rows if row["text"]]
    elif path.suffix.lower() == ".jsonl":
        rows = list(json_lines(path, text))
    else:
        reader = csv.DictReader(io.StringIO(text, newline=""), skipinitialspace=True)
        rows = []
        try:
            for row in reader:
                if None in row:
                    raise BadInput(
                        f"{path}, row {reader.line_num}: it has more cells than the first row has "
                        "column names; put texts with commas into double quotes."
                    )
                rows.append((reader.line_num, {str(k).strip().lower(): v for k, v in row.items()}))
        except csv.Error as error:
            raise BadInput(
                f"{path}, row {reader.line_num}: {error}; is a double quote open before it?"
            ) from None
    if not rows:
        raise BadInput(f"{path} holds no rows below its column names.")
    return rows


def json_lines(path, text):
    """The objects of a .jsonl file, with the line each stands in."""
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            reason = getattr(error, "msg", str(error))
            raise BadInput(f"{path}, row {number}: not JSON ({reason[:80]}).") from None
        if not isinstance(row, dict):
            raise BadInput(
                f'{path}, row {number}: a JSON object such as {{"image": ...}} is needed.'
            )
        yield number, {key.strip().lower(): value for key, value in row.items()}
