"""Which files are images, by their names, and what of them Pillow is asked to read."""

import os
import struct
import zlib
from pathlib import Path

from PIL import Image

# What pictures are kept in. Of what else Pillow opens, PostScript starts another program, icons are there for
# their folder's sake, textures (DDS) hold more than colours, drawings (PSD) need not hold what they show, and
# the levels of scientific files (FITS, SPIDER) have a range that their makers know.
FORMATS: tuple[str, ...] = (
    *("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM", "AVIF", "JPEG2000"),
    *("MSP", "QOI", "SGI", "SUN", "XPM"),
)
# These begin with no mark of their own, so that any file might be taken for one: only what is called so is.
UNMARKED: tuple[str, ...] = ("DIB", "PCX", "TGA", "XBM")

Image.init()  # knows all endings then
# Some may not be built in.
FORMATS, UNMARKED = (tuple(name for name in names if name in Image.OPEN) for names in (FORMATS, UNMARKED))
_FORMAT_OF = {
    ending: name
    for ending, name in Image.registered_extensions().items()
    if name in (*FORMATS, *UNMARKED, "MPO")  # which is a JPEG with more pictures behind the first
}

PNG_BEGINS = b"\x89PNG\r\n\x1a\n"
JPEG_BEGINS, SCAN = b"\xff\xd8", 0xDA
# Markers of a JPEG file that say how its pixels are kept, or how it was held, with the fewest bytes for that.
JFIF, ADOBE, EXIF = (0xE0, b"JFIF\0", 14), (0xEE, b"Adobe", 12), (0xE1, b"Exif\0\0", 6)
APPLICATION, COMMENT = range(0xE0, 0xF0), 0xFE


def is_image(name: str) -> bool:
    """Whether a file is called like an image; whether it is one, reading it will tell."""
    return _ending(name) in _FORMAT_OF


def formats_of(path: Path) -> tuple[str, ...]:
    """What a file may be: whatever shows by its first bytes, or else what it is called."""
    called = _FORMAT_OF.get(_ending(path.name))
    return (*FORMATS, called) if called in UNMARKED else FORMATS


def without_metadata(content: bytes) -> bytes:
    """A PNG or JPEG file with its pixels, its orientation and nothing else; raises `ValueError` for others.

    For files whose metadata Pillow refuses: profiles and texts that are too long, damaged or cut short.
    """
    try:
        if content.startswith(PNG_BEGINS):
            return _png_pixels(content)
        if content.startswith(JPEG_BEGINS):
            return _jpeg_pixels(content)
    except (struct.error, IndexError) as error:
        raise ValueError("it is cut short") from error
    raise ValueError("no metadata is known of it")


def _ending(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _png_pixels(content: bytes) -> bytes:
    """The critical chunks, whose names begin with a capital, and those that may tell the orientation."""
    kept, place = [PNG_BEGINS], len(PNG_BEGINS)
    while place < len(content):
        length, kind = struct.unpack_from(">I4s", content, place)
        data = content[place + 8 : place + 8 + length]
        (check,) = struct.unpack_from(">I", content, place + 8 + length)
        orientation = kind == b"eXIf" or data.startswith(b"XML:com.adobe.xmp\0")
        if kind[:1].isupper() or (orientation and check == zlib.crc32(kind + data)):
            kept.append(content[place : place + 12 + length])
        place += 12 + length
    return b"".join(kept)


def _jpeg_pixels(content: bytes) -> bytes:
    """All segments before the first scan but those of applications and comments, and all from there."""
    kept, place = [JPEG_BEGINS], len(JPEG_BEGINS)
    while (marker := content[place + 1]) != SCAN:
        (length,) = struct.unpack_from(">H", content, place + 2)
        data = content[place + 4 : place + 2 + length]
        needed = any(
            marker == wanted and data.startswith(begins) and len(data) >= least
            for wanted, begins, least in (JFIF, ADOBE, EXIF)
        )
        if needed or (marker not in APPLICATION and marker != COMMENT):
            kept.append(content[place : place + 2 + length])
        place += 2 + length
    return b"".join((*kept, content[place:]))
