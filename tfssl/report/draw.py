"""Small pictures of anything an example may hold: image, clip, sound, field, numbers, text."""

import functools

import numpy as np

PAPER, INK, MUTED, LINE, TINT = "#ffffff", "#1b1f24", "#5b6470", "#c9ced6", "#f2f4f7"
ACCENT = "#2f6db5"


def as_array(value):
    """A tensor, ragged tensor, list or array as a NumPy array (of objects where it is ragged)."""
    if hasattr(value, "to_list") and hasattr(value, "row_splits"):
        rows = value.to_list()
        array = np.empty(len(rows), object)
        array[:] = rows
        return array
    if hasattr(value, "numpy"):
        value = value.numpy()
    try:
        array = np.asarray(value)
    except ValueError:  # rows of different lengths
        array = np.empty(len(value), object)
        array[:] = list(value)
    # bfloat16 has a kind of its own ("V"), which NumPy's reductions refuse
    return array.astype(np.float32) if array.dtype.name in ("bfloat16", "float16") else array


def words(item):
    """One number, string or short list as text."""
    if isinstance(item, bytes):
        return item.decode("utf-8", "replace")
    if isinstance(item, (list, tuple, np.ndarray)):
        return "  ".join(words(part) for part in item)
    if isinstance(item, (float, np.floating)):
        return f"{float(item):.3g}"
    if isinstance(item, (bool, np.bool_)):
        return "yes" if item else "no"
    return str(item)


@functools.cache
def font(size, bold=False):
    """DejaVu Sans, which matplotlib brings along, so that every machine draws the same letters."""
    import matplotlib
    from PIL import ImageFont

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/{name}", size)


def bytes_of(image, like=None):
    """uint8 [H, W, 3] of an image [H, W, C], C in 1, 2 (flow), 3.

    uint8 stays; floats in [0, 1] are scaled; anything else (Lab, standardised, [-1, 1]) is
    stretched between the extremes of `like`, its batch, so that neighbours stay comparable.
    """
    image = np.asarray(image)
    like = image if like is None else like
    if image.shape[-1] == 2:
        return _flow(image)
    if image.dtype != np.uint8:
        image = image.astype(np.float32)
        finite = like[np.isfinite(like)] if like.dtype.kind == "f" else like
        low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
        if low < -0.01 or high > 1.01:
            image = (image - low) / max(high - low, 1e-9)
        image = (np.clip(np.nan_to_num(image), 0, 1) * 255).round().astype(np.uint8)
    return np.repeat(image, 3, -1) if image.shape[-1] == 1 else image


def _flow(field):
    """Direction as hue and length as saturation, as the field draws optical flow."""
    from PIL import Image

    u, v = np.moveaxis(np.nan_to_num(field.astype(np.float32)), -1, 0)
    length = np.hypot(u, v)
    hue = (np.arctan2(v, u) / (2 * np.pi)) % 1
    saturation = length / max(float(length.max()), 1e-6)
    hsv = np.stack([hue, saturation, np.ones_like(hue)], -1)
    return np.asarray(Image.fromarray((hsv * 255).astype(np.uint8), "HSV").convert("RGB"))


def fit(array, size, width=None):
    """A PIL image of height `size` (or fitting `size` x `width`), pixels square and sharp."""
    from PIL import Image

    image = Image.fromarray(array)
    scale = min(size / image.height, (width or size) / image.width)
    target = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    method = Image.Resampling.NEAREST if scale > 1.5 else Image.Resampling.LANCZOS
    return image.resize(target, method)


def picture(image, size, like=None):
    """One image [H, W, C] in a square of `size` pixels, long sides kept inside."""
    from PIL import Image

    inner = fit(bytes_of(image, like), size)
    if inner.size == (size, size):
        return inner
    cell = Image.new("RGB", (size, size), TINT)
    cell.paste(inner, ((size - inner.width) // 2, (size - inner.height) // 2))
    return cell


def strip(frames, size, like=None):
    """Frames [T, H, W, C] side by side, closer together than cells are."""
    from PIL import Image

    side = max(48, size * 3 // 4)
    cells = [fit(bytes_of(frame, like), side) for frame in frames]
    canvas = Image.new(
        "RGB", (sum(c.width + 2 for c in cells) - 2, max(c.height for c in cells)), PAPER
    )
    left = 0
    for cell in cells:
        canvas.paste(cell, (left, 0))
        left += cell.width + 2
    return canvas


def _map(values, name="viridis"):
    """uint8 [H, W, 3] of a field [H, W] between its own extremes."""
    import matplotlib

    values = np.nan_to_num(np.asarray(values, np.float32))
    low, high = float(values.min()), float(values.max())
    scaled = (values - low) / max(high - low, 1e-9)
    return (matplotlib.colormaps[name](scaled)[..., :3] * 255).astype(np.uint8)


def heat_map(field, size):
    """A field [H, W]: masks in grey, all else in viridis, the longer axis across."""
    field = np.asarray(field)
    name = "gray" if field.dtype.kind == "b" else "viridis"
    if field.shape[0] > 1.5 * field.shape[1]:
        field = field.T[::-1]
    stretched = _map(field, name)
    if name == "gray":
        stretched = (45 + stretched * 0.75).astype(np.uint8)  # white would vanish on the paper
    if field.shape[1] > 1.5 * field.shape[0]:
        return _resized(stretched, size * 3 // 2, size * 3 // 4)
    return fit(stretched, size)


def _resized(array, width, height):
    from PIL import Image

    return Image.fromarray(array).resize((width, height), Image.Resampling.BILINEAR)


def log_mel(waveform, rate, bands=40, window=0.025, hop=0.010):
    """Log-mel [bands, T], low bands last, for drawing only."""
    length, step = max(16, int(rate * window)), max(4, int(rate * hop))
    waveform = np.nan_to_num(np.asarray(waveform, np.float32).ravel())
    waveform = np.pad(waveform, (0, max(0, length - len(waveform))))
    starts = np.arange(0, len(waveform) - length + 1, step)
    starts = starts[np.unique(np.linspace(0, len(starts) - 1, min(len(starts), 400)).astype(int))]
    frames = waveform[starts[:, None] + np.arange(length)] * np.hanning(length)
    power = np.abs(np.fft.rfft(frames)) ** 2  # [T, length / 2 + 1]
    mel = np.linspace(0, 2595 * np.log10(1 + rate / 2 / 700), bands + 2)
    edges = 700 * (10 ** (mel / 2595) - 1) / (rate / 2) * (power.shape[1] - 1)
    bins = np.arange(power.shape[1])
    rise = (bins - edges[:-2, None]) / np.maximum(edges[1:-1] - edges[:-2], 1e-6)[:, None]
    fall = (edges[2:, None] - bins) / np.maximum(edges[2:] - edges[1:-1], 1e-6)[:, None]
    filters = np.clip(np.minimum(rise, fall), 0, None)
    narrow = filters.sum(1) == 0  # low bands may fall between two bins
    filters[narrow, np.clip(np.round(edges[1:-1][narrow]).astype(int), 0, len(bins) - 1)] = 1
    decibel = 10 * np.log10(power @ filters.T + 1e-10).T[::-1]
    return np.maximum(decibel, decibel.max() - 80)


def sound(waveform, rate, size):
    """A waveform [N] over its log-mel spectrogram, with its length in seconds."""
    from PIL import Image, ImageDraw

    waveform = np.nan_to_num(np.asarray(waveform, np.float32).ravel())
    width, wave, label = size * 3 // 2, size // 3, 16
    mel = size - wave - label - 2
    canvas = Image.new("RGB", (width, size), PAPER)
    draw = ImageDraw.Draw(canvas)
    draw.rectangle([0, 0, width - 1, wave - 1], TINT)
    peak = max(float(np.abs(waveform).max()), 1e-6) if waveform.size else 1.0
    for column, part in enumerate(np.array_split(waveform, width)):
        if part.size:
            high, low = (wave / 2 * (1 - 0.92 * value / peak) for value in (part.max(), part.min()))
            draw.line([(column, high), (column, max(low, high + 1))], ACCENT)
    canvas.paste(_resized(_map(log_mel(waveform, rate), "magma"), width, mel), (0, wave + 2))
    draw.text((0, size - label + 1), f"{len(waveform) / rate:.2f} s", MUTED, font(11))
    return canvas


def bars(values, size):
    """A vector [K] of floats as bars from zero."""
    from PIL import Image, ImageDraw

    values = np.nan_to_num(np.asarray(values, np.float32))
    if len(values) > size:
        values = np.array([part.mean() for part in np.array_split(values, size)])
    low, high = min(0.0, float(values.min())), max(0.0, float(values.max()))
    canvas = Image.new("RGB", (size, size), TINT)
    draw = ImageDraw.Draw(canvas)
    top = 6 + (size - 12) * (high - values) / max(high - low, 1e-9)
    zero = 6 + (size - 12) * high / max(high - low, 1e-9)
    step = size / len(values)
    for i, end in enumerate(top):
        right = max(i * step, (i + 1) * step - (2 if step > 4 else 1))
        draw.rectangle([i * step, min(end, zero), right, max(end, zero)], ACCENT)
    return canvas


def text_block(text, size, large=False):
    """Wrapped text in a tinted box `size` pixels high; what does not fit becomes an ellipsis."""
    from PIL import Image, ImageDraw

    if large and font(22).getlength(text) <= size * 3 // 4:
        width = max(size * 3 // 4, 48)
        canvas = Image.new("RGB", (width, size), TINT)
        draw = ImageDraw.Draw(canvas)
        draw.text((width / 2, size / 2), text, INK, font(22), anchor="mm")
        return canvas
    letters, line, inset = font(13), 18, 8
    width = size * 3 // 2
    lines = _wrap(text, letters, width - 2 * inset)
    most = max(1, (size - 2 * inset) // line)
    if len(lines) > most:
        lines = [*lines[: most - 1], lines[most - 1].rstrip() + " …"]
    canvas = Image.new("RGB", (width, size), TINT)
    draw = ImageDraw.Draw(canvas)
    for i, part in enumerate(lines):
        draw.text((inset, inset + i * line), part, INK, letters)
    return canvas


def _wrap(text, letters, width):
    lines = []
    for paragraph in str(text).replace("\0", "").splitlines() or [""]:
        line = ""
        for word in paragraph.split(" "):
            while letters.getlength(word) > width and len(word) > 1:  # no space to break at
                cut = max(1, int(len(word) * width / letters.getlength(word)) - 1)
                lines, line, word = [*lines, line] if line else lines, word[:cut], word[cut:]
                lines, line = [*lines, line], ""
            longer = f"{line} {word}" if line else word
            if letters.getlength(longer) > width and line:
                lines.append(line)
                line = word
            else:
                line = longer
        lines.append(line)
    return lines


def picture_bytes(array, side):
    """uint8 [side, side, 3]: an image [H, W, 3] in a square, or a field [F, T] across it."""
    if array.ndim == 2:
        return np.asarray(_resized(_map(array, "magma"), side, side))
    return np.asarray(picture(array, side))
