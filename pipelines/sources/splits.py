"""Which examples are for training and which for testing, the same on every machine for ever."""

import hashlib

from tfssl.pipelines.errors import BadInput

SPLITS = ("train", "test", "val")
ALL = "all"
MOST_CLASSES = 10**6
SAME = {"valid": "val", "validation": "val"}
TENTH = 10


def digest(name):
    """The first eight bytes of SHA-256 of a name, as an integer: Python's own hash changes."""
    data = name.encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.sha256(data).digest()[:8], "big")


def cut(names, split, what="this source"):
    """Positions of the examples of `split` when `names` are cut 90/10 by the hash of each name.

    A name's side depends on that name alone, so that new examples move no old ones; only where
    chance would leave one side empty does the name with the smallest (or largest) hash go there;
    a single name is for training.

    Args:
        names: one string an example; equal names fall on the same side.
        split: `train`, `test`, or `all`.
        what: the source's name, for the message.

    Returns:
        A list of positions in `names`, ascending.

    Raises:
        BadInput: for another split.
    """
    if split == ALL:
        return list(range(len(names)))
    if split not in ("train", "test"):
        raise BadInput(
            f"{what} has no split {split!r}: it holds no splits of its own and is cut into "
            "train (90 %) and test (10 %); use @train or @test."
        )
    hashes = [digest(name) for name in names]
    test = {h for h in hashes if h % TENTH == 0}
    if test == set(hashes):
        test -= {max(hashes, default=0)}
    elif not test and len(set(hashes)) > 1:
        test = {min(hashes)}
    return [i for i, h in enumerate(hashes) if (h in test) == (split == "test")]


def choose(has, split, what):
    """The name under which a source that `has` its own splits keeps the one asked for.

    `test` is served by the validation split where there is no other.
    """
    named = {SAME.get(name.lower(), name.lower()): name for name in has}
    if split in has:
        return split
    if split in named:
        return named[split]
    if split == "test" and "val" in named:
        return named["val"]
    usable = sorted(SAME.get(name.lower(), name.lower()) for name in has)
    usable = [name for name in usable if name in SPLITS] or [ALL]
    raise BadInput(
        f"{what} has no split {split!r}; it holds {', '.join(sorted(has))}: use @{usable[0]}, say."
    )


def numbers(labels):
    """The class names "0", "1", ... up to the largest of whole numbers that serve as labels.

    [] where they are no count of classes: negative ones, or numbers such as dates.
    """
    if not 0 <= min(labels) <= max(labels) < MOST_CLASSES:
        return []
    return [str(number) for number in range(int(max(labels)) + 1)]
