"""A picture of what a method sees: each example's input, its views and its targets in one row."""

import pathlib
from typing import NamedTuple

import numpy as np

from tfssl.errors import BadInput
from tfssl.files import written_whole
from tfssl.report.draw import (
    INK,
    LINE,
    MUTED,
    PAPER,
    as_array,
    bars,
    font,
    heat_map,
    picture,
    sound,
    strip,
    text_block,
    words,
)

INPUTS = ("image", "image_right", "frames", "audio", "text", "text_de", "text_es")
LONGEST_ROW = 1700  # pixels; beyond it the cells shrink
SIZES = (128, 112, 96, 80, 64)
MOST_VIEWS = 9  # the tiles of a jigsaw; more are a clip, or a few of them stand for all
SOUND = 400  # a vector of floats at least this long is a waveform


class Column(NamedTuple):
    caption: str
    cells: list  # one PIL image a row
    notes: list  # one string (or "") a row, written under the cell


class Group(NamedTuple):
    header: str
    columns: list


def sheet(examples, x, y, path, title="", rows=6):
    """Writes a PNG whose rows are examples and whose columns are inputs, views and targets.

    Args:
      examples: batch of raw examples, a dict of arrays or tensors [B, ...]. Shown are `image`,
        `image_right`, `frames`, `audio` and `text`, `text_de`, `text_es`; `sample_rate`, where it
        is there, gives the sound's time axis (16 kHz otherwise).
      x: what `views` returned: images [B, H, W, C] or [B, V, H, W, C], clips [B, T, H, W, C] or
        [B, V, T, H, W, C], waveforms [B, N] or [B, V, N], strings or ids [B] or [B, K], or a dict
        of these (nested for several tasks). Images of 1 or 3 channels, or flow of 2; floats
        outside [0, 1] are rescaled.
      y: the targets in the same shapes, class ids [B] or [B, V], or None.
      path: where the PNG goes; it is written whole or not at all.
      title: a line above the picture.
      rows: the number of examples to show, at most.

    Returns:
      path, as a pathlib.Path.

    Raises:
      BadInput: there is no example, or `path` cannot be written.
    """
    examples = {key: as_array(value) for key, value in dict(examples).items()}
    lengths = [len(value) for value in examples.values() if np.ndim(value)]
    if not lengths or not min(lengths):
        raise BadInput("the batch to draw is empty: give at least one example")
    for size in SIZES:
        blocks = [_arrange(block, size) for block in _blocks(examples, x, y, rows, size)]
        if max(block.width for block in blocks) <= LONGEST_ROW:
            break
    return _write(_page(blocks, title), path)


def _write(image, path):
    try:
        with written_whole(path) as aside:
            image.save(aside, "PNG", optimize=True)
    except OSError as error:
        reason = error.strerror or error
        raise BadInput(f"cannot write {path}: {reason}; choose another path") from None
    return pathlib.Path(path)


def _blocks(examples, x, y, rows, size):
    """One list of groups a block: several tasks get a block each, all else is one block."""
    x, y = _tree(x), _tree(y)
    rate = float(np.ravel(examples["sample_rate"])[0]) if "sample_rate" in examples else 16000.0
    context = {"size": size, "rate": rate, "video": "frames" in examples}
    shown = {key: examples[key] for key in INPUTS if key in examples}
    shown = shown or {k: v for k, v in examples.items() if np.ndim(v) >= 3} or examples
    inputs = Group(
        "input",
        [
            column
            for key, value in shown.items()
            for column in _columns(value[:rows], key, context, _singular(key), whole=True)
        ],
    )
    batch = len(next(iter(shown.values())))
    tasks = isinstance(x, dict) and isinstance(y, dict) and set(y) <= set(x)
    if tasks or (isinstance(x, dict) and any(isinstance(value, dict) for value in x.values())):
        y = y if isinstance(y, dict) else {}
        parts = [(key, x[key], y.get(key)) for key in x]
    else:
        parts = [("", x, y)]
    blocks = []
    for name, views, targets in parts:
        groups = _groups(views, "view", rows, context, name)
        groups += _groups(targets, "target", rows, context, "")
        _labels_under_views(groups, targets, rows)
        if all(len(leaf) == batch for leaf in _leaves(views)):
            blocks.append([inputs, *groups])
        else:
            # views that were folded into the batch no longer stand in their example's row
            blocks += [[inputs]] * (not blocks) + [groups]
    return blocks


def _tree(value):
    if value is None:
        return None
    if isinstance(value, dict):
        return {str(key): _tree(v) for key, v in value.items() if v is not None}
    if isinstance(value, tuple):
        return {str(i + 1): _tree(v) for i, v in enumerate(value) if v is not None}
    return as_array(value)


def _leaves(tree):
    if isinstance(tree, dict):
        return [leaf for value in tree.values() for leaf in _leaves(value)]
    return [] if tree is None else [tree]


def _groups(tree, role, rows, context, name):
    if tree is None:
        return []
    if not isinstance(tree, dict):
        noun = "frame" if role == "view" and context["video"] else role
        header = f"{name}: {role}s" if name else f"{role}s"
        return [Group(header, _columns(tree[:rows], role, context, noun))]
    groups = []
    for key, value in tree.items():
        label = f"{name} / {key}" if name else (key if role == "view" else f"{role}: {key}")
        if isinstance(value, dict):
            groups += _groups(value, role, rows, context, label)
        else:
            groups.append(Group(label, _columns(value[:rows], key, context, _singular(key))))
    return groups


def _singular(key):
    return "frame" if key == "frames" else key.replace("_", " ")


def _labels_under_views(groups, targets, rows):
    """Class ids [B, V] belong under the V views that they describe rather than in a column."""
    if len(groups) != 2 or isinstance(targets, dict) or targets is None:
        return
    views, _ = groups
    count = len(views.columns)
    if (
        targets.ndim != 2
        or targets.shape[1] != count
        or count < 2
        or targets.dtype.kind not in "iub"
    ):
        return
    for v, column in enumerate(views.columns):
        column.notes[:] = [f"target {words(t)}" for t in targets[:rows, v]]
    del groups[1]


def _columns(value, key, context, noun, whole=False):
    """The columns that show one array [B, ...]; `whole` keeps even a short clip in one strip."""
    size, rate = context["size"], context["rate"]

    def column(caption, cells):
        return Column(caption.replace("_", " "), list(cells), [""] * len(value))

    def several(draw, item_axis_length):
        shown = np.arange(item_axis_length)
        if item_axis_length > MOST_VIEWS:
            shown = np.unique(np.linspace(0, item_axis_length - 1, MOST_VIEWS).round().astype(int))
        if item_axis_length == 1:
            return [column(noun, (draw(row[0]) for row in value))]
        return [column(f"{noun} {v + 1}", (draw(row[v]) for row in value)) for v in shown]

    kind, ndim, shape = value.dtype.kind, value.ndim, value.shape
    audible = any(word in key for word in ("audio", "wave", "sound"))
    coloured = ndim >= 4 and shape[-1] in (1, 2, 3) and min(shape[-3:-1]) > 3

    if kind in "OSU":
        return [column(noun, (text_block(_text(row), size) for row in value))]
    if coloured and ndim == 4:
        return [column(noun, (picture(row, size, value) for row in value))]
    if coloured and ndim == 5 and (whole or shape[1] > MOST_VIEWS):
        return [column(*_clip(value, size, noun))]
    if coloured and ndim == 5:
        return several(lambda item: picture(item, size, value), shape[1])
    if coloured and ndim == 6:
        clips = [
            _clip(value[:, v], size, f"view {v + 1}", budget=8)
            for v in range(min(shape[1], MOST_VIEWS))
        ]
        return [column(*clip) for clip in clips]
    if kind == "f" and ndim == 2 and (audible or shape[1] >= SOUND):
        return [column(noun, (sound(row, rate, size) for row in value))]
    if kind == "f" and ndim == 3 and shape[1] <= MOST_VIEWS and (audible or shape[2] >= SOUND):
        return several(lambda item: sound(item, rate, size), shape[1])
    if ndim == 1:
        return [column(noun, (text_block(words(item), size, large=True) for item in value))]
    if (
        ndim == 2
        and shape[1] > 12
        and round(shape[1] ** 0.5) ** 2 == shape[1]
        and (kind == "b" or "mask" in key)
    ):  # one value a patch
        side = round(shape[1] ** 0.5)
        return [column(noun, (heat_map(row.reshape(side, side), size) for row in value))]
    if ndim == 2 and kind == "f" and shape[1] > 6:
        return [column(noun, (bars(row, size) for row in value))]
    if ndim == 2:
        return [column(noun, (text_block("  ".join(map(words, row)), size) for row in value))]
    if ndim == 3 and _patched(shape):
        whole_images = _unpatch(value)
        return [column(noun, (picture(row, size, whole_images) for row in whole_images))]
    if ndim == 3 and kind in "iub" and max(shape[1:]) < 8:
        return [column(noun, (text_block(_text(row), size) for row in value))]
    if ndim == 3:
        return [column(noun, (heat_map(row, size) for row in value))]
    if ndim == 4 and shape[1] <= MOST_VIEWS:
        return several(lambda item: heat_map(item, size), shape[1])
    lines = f"{value.dtype} [{', '.join(map(str, shape[1:]))}]"
    return [column(noun, (text_block(lines, size) for _ in value))]


def _clip(clips, size, noun, budget=10):
    """(caption, strips) for clips [B, T, H, W, C]: a few evenly spaced frames stand for all."""
    frames = clips.shape[1]
    shown = np.unique(
        np.linspace(0, frames - 1, min(frames, max(3, budget // 2))).round().astype(int)
    )
    plural = f"{noun}s" if noun == "frame" else noun
    caption = plural if len(shown) == frames else f"{plural}: {len(shown)} of {frames}"
    return caption, [strip(row[shown], size, clips) for row in clips]


def _text(row):
    row = np.asarray(row)
    if row.ndim == 2:
        return "\n".join("  ".join(words(item) for item in line) for line in row)
    return "\n".join(words(item) for item in np.ravel(row))


def _patched(shape):
    """[B, N, 3 p^2] with square N and p > 1 is an image in patches (the target of masking)."""
    side, patch = round(shape[1] ** 0.5), round((shape[2] / 3) ** 0.5)
    return shape[1] > 3 and side * side == shape[1] and patch > 1 and 3 * patch * patch == shape[2]


def _unpatch(value):
    batch, count, depth = value.shape
    side, patch = round(count**0.5), round((depth / 3) ** 0.5)
    grid = value.reshape(batch, side, side, patch, patch, 3).transpose(0, 1, 3, 2, 4, 5)
    return grid.reshape(batch, side * patch, side * patch, 3)


GAP, GROUP_GAP, HEADER, CAPTION, NOTE, MARGIN = 8, 28, 26, 22, 20, 28


def _arrange(groups, size):
    """One block as a picture: headers with a rule, captions, then a row an example."""
    from PIL import Image, ImageDraw

    head, small = font(15, bold=True), font(13)
    rows = max(len(column.cells) for group in groups for column in group.columns)
    columns = [column for group in groups for column in group.columns]
    heights = [
        max(
            (c.cells[r].height + NOTE * bool(c.notes[r]) for c in columns if r < len(c.cells)),
            default=0,
        )
        for r in range(rows)
    ]
    places, x = [], 0
    for group in groups:
        start = x
        widths = []
        for column in group.columns:
            width = max(
                [cell.width for cell in column.cells] + [int(small.getlength(column.caption))]
            )
            widths.append((x, width))
            x += width + GAP
        x = max(x - GAP, start + int(head.getlength(group.header)))
        places.append((start, x, widths))
        x += GROUP_GAP
    width = x - GROUP_GAP
    height = HEADER + CAPTION + sum(heights) + GAP * (rows - 1)
    canvas = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(canvas)
    for group, (start, end, widths) in zip(groups, places):
        draw.text((start, 0), group.header, INK, head)
        draw.line([(start, HEADER - 3), (end - 1, HEADER - 3)], LINE, 1)
        for column, (left, _) in zip(group.columns, widths):
            draw.text((left, HEADER + 1), column.caption, MUTED, small)
            top = HEADER + CAPTION
            for r, cell in enumerate(column.cells):
                canvas.paste(cell, (left, top))
                if column.notes[r]:
                    draw.text((left, top + cell.height + 2), column.notes[r], INK, small)
                top += heights[r] + GAP
    return canvas


def _page(blocks, title):
    from PIL import Image, ImageDraw

    heading = font(21, bold=True)
    lines = [title] if title else []
    width = max(
        [block.width for block in blocks] + [int(heading.getlength(line)) for line in lines]
    )
    top = MARGIN + 40 * len(lines)
    height = top + sum(block.height for block in blocks) + GROUP_GAP * (len(blocks) - 1) + MARGIN
    page = Image.new("RGB", (width + 2 * MARGIN, height), PAPER)
    draw = ImageDraw.Draw(page)
    for line in lines:
        draw.text((MARGIN, MARGIN - 6), line, INK, heading)
    for block in blocks:
        page.paste(block, (MARGIN, top))
        top += block.height + GROUP_GAP
    return page
