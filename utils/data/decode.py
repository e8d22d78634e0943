"""One image file to pixels."""

import hashlib
import io
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

# Large photographs, transparent palettes, odd EXIF data: it reads them all, and warns once for each file.
warnings.filterwarnings("ignore", module="PIL")

# No others, whatever a file is called: for PostScript, Pillow would start another program.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")

THUMBNAIL_SIDE = 32
RESAMPLING = {False: Image.Resampling.BILINEAR, True: Image.Resampling.BICUBIC}


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
    thumbnail: np.ndarray


def decode(path: Path, frame: Frame) -> np.ndarray:
    """Decode an image to RGB pixels: uint8 [size, size, 3].

    The resize is by Pillow's bilinear or bicubic filter, which averages when it shrinks. JPEG files more
    than twice too large are decoded at a half, quarter or eighth of their size, which costs a fraction of the
    time and still leaves at least twice `size` to average. A camera's orientation mark is applied. Of 16-bit
    grey levels the upper 8 bits are taken. Raises `UnreadableImage`.
    """
    size = (frame.size, frame.size)
    with _explained(path), Image.open(path, formats=FORMATS) as image:
        upright = _upright(image, frame.size)
        if frame.crop:
            return np.asarray(ImageOps.fit(upright, size, RESAMPLING[frame.fine]))
        return np.asarray(upright.resize(size, RESAMPLING[frame.fine]))


def look(path: Path) -> Look:
    """Read an image file whole, for what is known of it without training.

    That is a hash of its bytes, 64 bits; its upright width and height in pixels; its mean colour, as the blue
    and red differences of YCbCr, 0 to 255; and a thumbnail, the luminance of all of it squeezed to uint8
    [THUMBNAIL_SIDE, THUMBNAIL_SIDE]. Raises `UnreadableImage`.
    """
    with _explained(path):
        content = path.read_bytes()
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            size, orientation = image.size, image.getexif().get(ExifTags.Base.Orientation, 1)
            upright = _upright(image, THUMBNAIL_SIDE)
            if image.format == "TIFF":  # whose size is turned by Pillow, or not, by its version
                size = upright.size
            elif orientation in (5, 6, 7, 8):
                size = size[::-1]
            small = upright.resize((THUMBNAIL_SIDE, THUMBNAIL_SIDE), RESAMPLING[False])
            pixels = np.asarray(small.convert("YCbCr"))
            blue, red = pixels[..., 1:].mean((0, 1)).round().astype(int).tolist()
            digest = hashlib.blake2b(content, digest_size=8).digest()
            return Look(int.from_bytes(digest, "big"), *size, (blue, red), pixels[..., 0])


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
            reason = f"it is no image of a kind that is read ({', '.join(FORMATS)})"
        raise UnreadableImage(path, " ".join(reason.split())) from error


def _upright(image: Image.Image, side: int) -> Image.Image:
    """An image as it is looked at, in RGB, for a resize to `side` pixels."""
    image.draft("RGB", (2 * side, 2 * side))
    return _to_rgb(ImageOps.exif_transpose(image))


def _to_rgb(image: Image.Image) -> Image.Image:
    """Pillow would clip the levels of more than 8 bits, and so make most of them white."""
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise ValueError("its grey levels have 32 bits, whose range is not known; save it with 8 or 16")
    return image.convert("RGB")
