"""Any image file that people have on their disks, as uint8 [H, W, 3]."""

import io
import os

import numpy as np

ENDINGS = (
    *("jpg", "jpeg", "jpe", "jfif", "png", "bmp", "gif", "webp", "tif", "tiff"),
    *("ppm", "pgm", "pnm"),
)
# Pillow's own limit: 256 MiB of three-byte pixels. A small file can claim far more.
MAX_PIXELS = 89_478_485
ORIENTATION = 0x0112
SIDEWAYS = range(5, 9)  # the orientations that swap height and width
# The mark with which a file ends, to be found in its last bytes (cameras may append to a JPEG).
START, HUFFMAN, SCAN = b"\xff\xd8", 0xC4, 0xDA
END = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}
TAIL = 4096
FULL_SCALE_16 = 65535


class Unreadable(Exception):
    """One file cannot be used; its text is the reason."""


def regular(path):
    """Raises Unreadable for what is there and is no file: a pipe would be waited for for ever."""
    if os.path.exists(path) and not os.path.isfile(path):
        raise Unreadable("not a regular file")


def opened(data):
    """A Pillow image from bytes, its header read and its size checked, nothing decoded yet."""
    from PIL import Image, UnidentifiedImageError

    if not data:
        raise Unreadable("empty file")
    try:
        image = Image.open(io.BytesIO(data))
    except UnidentifiedImageError:
        raise Unreadable("not an image") from None
    except Image.DecompressionBombError:
        raise Unreadable(f"more than {MAX_PIXELS:,} pixels") from None
    except Exception as error:
        raise Unreadable(reason(error)) from None
    if image.width * image.height > MAX_PIXELS:
        raise Unreadable(f"{image.width}x{image.height}: more than {MAX_PIXELS:,} pixels")
    return image


def plain(image):
    """Whether TensorFlow's JPEG decoder would give the same picture: 8 bits, upright, no CMYK."""
    return (
        image.format == "JPEG"
        and image.mode in ("L", "RGB")
        and image.getexif().get(ORIENTATION, 1) == 1
    )


def glance(path):
    """What a file's two ends tell, without decoding: ((H, W, 3), plain), or None if not enough.

    A JPEG or PNG that begins with a sound header and closes with its end mark is whole. (To see
    whether EXIF data follow a PNG's pixels Pillow decodes them all the same.)
    """
    from PIL import Image

    with open(path, "rb") as file:
        try:
            image = Image.open(file)
            size = image.size[::-1]
            simple = plain(image)
            if image.getexif().get(ORIENTATION, 1) in SIDEWAYS:
                size = size[::-1]
        except Exception:
            return None
        if image.format == "JPEG" and not tables_are_sound(file):
            return None
        file.seek(-min(TAIL, os.path.getsize(path)), os.SEEK_END)
        if size[0] * size[1] > MAX_PIXELS or END.get(image.format, b"?no") not in file.read():
            return None
    return (*size, 3), simple


def tables_are_sound(file):
    """Whether the segments of a JPEG hang together up to its first scan, and its Huffman codes.

    Pillow passes them over; TensorFlow's decoder ends with an error where they do not.
    """
    file.seek(len(START))
    while True:
        mark, kind = file.read(2).ljust(2, b"\0")
        while mark == kind == 0xFF:  # filling
            kind = file.read(1).ljust(1, b"\0")[0]
        size = int.from_bytes(file.read(2), "big") - 2
        body = file.read(max(0, size))
        if mark != 0xFF or len(body) != size:
            return False
        if kind == SCAN:
            return size == 4 + 2 * body[0]
        while kind == HUFFMAN and body:
            where, counts = body[0], body[1:17]
            symbols = body[17 : 17 + sum(counts)]
            codes = sum(count << (15 - i) for i, count in enumerate(counts))
            if where & ~0x13 or len(counts) < 16 or len(symbols) < sum(counts) or codes > 2**16:
                return False
            if where < 0x10 and max(symbols, default=0) > 15:  # of a difference's bits
                return False
            body = body[17 + len(symbols) :]


def decode(data):
    """Bytes of an image file -> uint8 [H, W, 3].

    EXIF rotation is applied, the first frame of an animation taken, 16 bits scaled to 8, grey
    and CMYK turned to RGB, transparency laid on white.

    Raises:
        Unreadable: with the reason, also for images above MAX_PIXELS and truncated files.
    """
    return pixels(opened(data))


def pixels(image):
    """As `decode`, from an opened Pillow image."""
    from PIL import Image, ImageOps

    try:
        if image.getexif().get(ORIENTATION, 1) != 1:
            kind = image.format
            image = ImageOps.exif_transpose(image)
            image.format = kind
        if image.mode == "F" or image.mode.startswith("I"):
            sixteen = image.mode.startswith("I;16") or image.format == "PNG"
            values, clear = np.asarray(image), image.info.get("transparency")
            grey = eight_bits(values, sixteen)
            image = Image.fromarray(np.where(values == clear, 255, grey).astype(np.uint8))
        if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
            image = image.convert("RGBA")
            white = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(white, image)
        if image.mode != "RGB":
            image = image.convert("RGB")
        return np.array(image)
    except Unreadable:
        raise
    except Exception as error:
        raise Unreadable(reason(error)) from None


def eight_bits(values, sixteen):
    """Grey values of 16 bits, 32 bits or floats [H, W] -> uint8 [H, W].

    Where the file does not say that white is 65535, the brightest pixel tells the scale.
    """
    values = values.astype(np.float64)
    if not np.isfinite(values).all():
        raise Unreadable("pixels are not finite")
    top = values.max(initial=0)
    if sixteen:
        scale = 255.0 / FULL_SCALE_16
    elif top <= 1:
        scale = 255.0
    elif top <= 255:
        scale = 1.0
    else:
        scale = 255.0 / max(top, FULL_SCALE_16)
    return np.clip(np.rint(values * scale), 0, 255).astype(np.uint8)


def reason(error):
    """One short line that tells why a file could not be read."""
    text = (isinstance(error, OSError) and error.strerror) or str(error)
    text = " ".join(text.split()) or type(error).__name__
    return text[:120]
