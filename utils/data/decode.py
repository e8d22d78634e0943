"""One image file to pixels."""

import hashlib
import io
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from utils.data.formats import formats_of, without_metadata
from utils.data.levels import read_levels

# Large photographs, transparent palettes, odd EXIF data: it reads them all, and warns once for each file.
warnings.filterwarnings("ignore", module="PIL")

THUMBNAIL_SIDE = 32
RESAMPLING = {False: Image.Resampling.BILINEAR, True: Image.Resampling.BICUBIC}
UPRIGHT = {  # how to turn an image of each orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class UnreadableImage(Exception):
    """A file that is not an image Pillow can read; the message names the file and the `reason`."""

    def __init__(self, path: Path, reason: str):
        super().__init__(f"{path}: {reason}")
        self.reason = reason


class Frame(NamedTuple):
    """What an image becomes: `size` x `size` pixels of all of it or, with `crop`, of its middle square.

    All of it, squeezed to a square, loses its aspect ratio; the middle square loses its ends. A `fine` frame
    is resized by cubes in place of lines, for pixels that are resized once more.
    """

    size: int
    crop: bool = False
    fine: bool = False


class Look(NamedTuple):
    """What a look at an image file finds: see `look`."""

    content: int
    width: int
    height: int
    colour: tuple[int, int]
    bits_used: int
    thumbnail: np.ndarray


def decode(path: Path, frame: Frame) -> np.ndarray:
    """Decode an image to RGB pixels: uint8 [size, size, 3].

    The resize is by Pillow's bilinear or bicubic filter, which averages when it shrinks. JPEG files more
    than twice too large are decoded at a half, quarter or eighth of their size, which costs a fraction of the
    time and still leaves at least twice `size` to average. A camera's orientation mark is applied, and no
    other metadata matter. Of more than 8 bits the upper 8 are taken. Raises `UnreadableImage`.
    """
    size = (frame.size, frame.size)
    with _explained(path):
        image = _read(path, path, frame.size).image
        if frame.crop:
            return np.asarray(ImageOps.fit(image, size, RESAMPLING[frame.fine]))
        return np.asarray(image.resize(size, RESAMPLING[frame.fine]))


def look(path: Path) -> Look:
    """Read an image file whole, for what is known of it without training.

    That is a hash of its bytes, 64 bits; its upright width and height in pixels; its mean colour, as the blue
    and red differences of YCbCr, 0 to 255; how many of the upper 8 bits it uses, if it has more than 8, or
    else 0; and a thumbnail, the luminance of all of it squeezed to uint8 [THUMBNAIL_SIDE, THUMBNAIL_SIDE].
    Raises `UnreadableImage`.
    """
    with _explained(path):
        content = path.read_bytes()
        image, size, bits_used = _read(path, io.BytesIO(content), THUMBNAIL_SIDE)
        small = image.resize((THUMBNAIL_SIDE, THUMBNAIL_SIDE), RESAMPLING[False])
        pixels = np.asarray(small.convert("YCbCr"))
        blue, red = pixels[..., 1:].mean((0, 1)).round().astype(int).tolist()
        digest = hashlib.blake2b(content, digest_size=8).digest()
        return Look(int.from_bytes(digest, "big"), *size, (blue, red), bits_used, pixels[..., 0])


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn whatever goes wrong while a file is read into an `UnreadableImage`, and read no pipe."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # reading a pipe would wait for ever
            raise ValueError("it is a folder, a pipe or a device")
        yield
    except Exception as error:  # a stranger's file can fail in any way
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        if isinstance(error, UnidentifiedImageError):  # which would say where the bytes lie
            reason = "it is no image, or one of a kind that is not read"
        raise UnreadableImage(path, " ".join(reason.split())) from error


class Read(NamedTuple):
    """An upright RGB image, perhaps smaller than in its file, its upright size there, and see `Levels`."""

    image: Image.Image
    size: tuple[int, int]
    bits_used: int


def _read(path: Path, source: Path | IO[bytes], side: int) -> Read:
    """What is in an image file, for a resize to `side` pixels; metadata that are in the way are left out."""
    try:
        return _open(path, source, side)
    except Exception:  # a stranger's file can fail in any way
        try:
            return _open(path, io.BytesIO(without_metadata(path.read_bytes())), side)
        except Exception:
            pass  # they were not
        raise


def _open(path: Path, source: Path | IO[bytes], side: int) -> Read:
    with Image.open(source, formats=formats_of(path)) as image:
        size = image.size
        image.draft("RGB", (2 * side, 2 * side))
        rgb, bits_used = read_levels(image)
        if image.format == "TIFF":  # which most versions of Pillow have turned by now
            size = image.size
        if (orientation := _orientation(image)) == 1:
            return Read(rgb, size, bits_used)
        size = size[::-1] if orientation >= 5 else size
        return Read(rgb.transpose(UPRIGHT[orientation]), size, bits_used)


def _orientation(image: Image.Image) -> int:
    """The mark of how the camera was held, or 1, upright, where there is none that can be read."""
    try:
        mark = image.getexif().get(ExifTags.Base.Orientation)
        return int(mark) if mark in UPRIGHT else 1
    except Exception:  # EXIF data are written by many programs, and fail in any way
        return 1
