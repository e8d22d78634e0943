"""The levels of an image file, whatever their number of bits, sign and direction, as 8 bits of RGB."""

import re
import struct
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFile, TiffImagePlugin

# Tags of TIFF files, and values of theirs.
BITS_PER_SAMPLE, COMPRESSION, PHOTOMETRIC_INTERPRETATION = 258, 259, 262
PLANAR_CONFIGURATION, SAMPLE_FORMAT = 284, 339
UNCOMPRESSED, WHITE_IS_ZERO, SEPARATE_PLANES, SIGNED = 1, 0, 2, 2

JPEG2000_SIZES = b"\xff\x4f\xff\x51"  # what comes before the sizes of an image in a JPEG 2000 file
MIDDLE = 0x80


class Levels(NamedTuple):
    """An image in RGB, and how many of its 8 bits are used, if its file has more than 8, or else 0."""

    rgb: Image.Image
    bits_used: int


def read_levels(image: ImageFile.ImageFile) -> Levels:
    """Load an opened image file. Of more than 8 bits the upper 8 are taken, of signed levels the lowest is 0.

    Pillow would clip most such levels, and so make them white. Raises `ValueError` for levels whose range is
    not known, and for those that Pillow is known to read wrongly.
    """
    tags = dict(image.tag_v2) if isinstance(image, TiffImagePlugin.TiffImageFile) else {}
    signed = tags.get(SAMPLE_FORMAT, (1,))[0] == SIGNED
    deep = _is_deep(image, tags)
    if deep:
        _refuse_misread(image, tags, signed)
    image.load()
    if image.mode in ("I", "F") and not deep:
        raise ValueError("its grey levels have 32 bits, whose range is not known; save it with 8 or 16")
    if image.mode.startswith("I"):
        depth = tags.get(BITS_PER_SAMPLE, (16,))[0]
        levels = (np.asarray(image).astype(np.int32) + (0x8000 if signed else 0)) >> (depth - 8)
        if tags.get(PHOTOMETRIC_INTERPRETATION) == WHITE_IS_ZERO:
            levels = 255 - levels
        grey = Image.fromarray(levels.astype(np.uint8))
    elif image.mode == "L" and signed:
        grey = Image.fromarray(np.asarray(image) ^ MIDDLE)
    else:
        grey = image.convert("LA") if image.mode == "La" else image
    rgb = grey.convert("RGB")
    if not deep:
        return Levels(rgb, 0)
    low, high = np.array(rgb.getextrema()).T
    most = 2 * max(MIDDLE - low.min(), high.max() - MIDDLE) if signed else high.max()
    return Levels(rgb, int(most).bit_length())


def _is_deep(image: ImageFile.ImageFile, tags: dict) -> bool:
    """Whether a file, which is not loaded, has levels of more than 8 bits and at most 16."""
    if tags:
        return 8 < tags.get(BITS_PER_SAMPLE, (1,))[0] <= 16
    layouts = [tile[3] for tile in image.tile]  # how its parts are read
    if image.format == "PPM":
        return image.mode == "I" or any(isinstance(layout, tuple) and layout[1] > 255 for layout in layouts)
    if image.format == "JPEG2000":
        return _jpeg2000_bits(image) > 8
    return image.mode.startswith("I;16") or bool(re.search(r"(?<!BGR);1[26]", str(layouts)))


def _refuse_misread(image: ImageFile.ImageFile, tags: dict, signed: bool) -> None:
    """Raise `ValueError` for what Pillow opens, but sees other levels in than were written."""
    if image.format == "JPEG2000" and image.mode != "I;16":
        raise ValueError(
            "its JPEG 2000 colours have more than 8 bits each, which are misread; save it with 8"
        )
    uncompressed = tags.get(COMPRESSION) == UNCOMPRESSED
    if tags.get(PLANAR_CONFIGURATION) == SEPARATE_PLANES and uncompressed:
        raise ValueError(
            "its planes of more than 8 bits lie one after the other; save it in one, or compressed"
        )
    if signed and not uncompressed and "BS" in str(image.tile):  # whose bytes would be swapped twice
        raise ValueError("its signed levels are compressed, the big end first; save it uncompressed")


def _jpeg2000_bits(image: ImageFile.ImageFile) -> int:
    """The bits of the first channel of a JPEG 2000 file."""
    file = image.fp
    assert file is not None  # until it is loaded
    place = file.tell()
    file.seek(0)
    content = file.read()
    file.seek(place)
    sizes = content.index(JPEG2000_SIZES) + len(JPEG2000_SIZES)
    (first,) = struct.unpack_from(">B", content, sizes + 38)
    return (first & 0x7F) + 1
