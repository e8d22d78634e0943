"""One image file to pixels."""

import errno
import stat
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageOps

# Large photographs, transparent palettes, odd EXIF data: it reads them all, and warns once for each file.
warnings.filterwarnings("ignore", module="PIL")

# No others, whatever a file is called: for PostScript, Pillow would start another program.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")

RESAMPLING = {False: Image.Resampling.BILINEAR, True: Image.Resampling.BICUBIC}


class UnreadableImage(Exception):
    """A file that is not an image Pillow can read; the message names the file and the `reason`.

    It is `lasting` if that lies in the file, and not in who may read it or in a disk that fails.
    """

    def __init__(self, path: Path, reason: str, lasting: bool = True):
        super().__init__(f"{path}: {reason}")
        self.reason = reason
        self.lasting = lasting


class Frame(NamedTuple):
    """What an image becomes: `size` x `size` pixels of all of it or, with `crop`, of its middle square.

    All of it, squeezed to a square, loses its aspect ratio; the middle square loses its ends. A `fine` frame
    is resized by cubes in place of lines, for pixels that are resized once more.
    """

    size: int
    crop: bool = False
    fine: bool = False


def decode(path: Path, frame: Frame) -> np.ndarray:
    """Decode an image to RGB pixels: uint8 [size, size, 3].

    The resize is by Pillow's bilinear or bicubic filter, which averages when it shrinks. JPEG files more
    than twice too large are decoded at a half, quarter or eighth of their size, which costs a fraction of the
    time and still leaves at least twice `size` to average. A camera's orientation mark is applied. Of 16-bit
    grey levels the upper 8 bits are taken. Raises `UnreadableImage`.
    """
    size = (frame.size, frame.size)
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # reading a pipe would wait for ever
            raise ValueError("it is a folder, a pipe or a device")
        with Image.open(path, formats=FORMATS) as image:
            image.draft("RGB", (2 * frame.size, 2 * frame.size))
            upright = _to_rgb(ImageOps.exif_transpose(image))
            if frame.crop:
                return np.asarray(ImageOps.fit(upright, size, RESAMPLING[frame.fine]))
            return np.asarray(upright.resize(size, RESAMPLING[frame.fine]))
    except Exception as error:  # a stranger's file can fail in any way
        raise unreadable(path, error) from error


def aspect(path: Path) -> float:
    """The width over the height of an image, upright, from the head of its file. Raises `UnreadableImage`."""
    try:
        with Image.open(path, formats=FORMATS) as file:
            # The size of a TIFF is turned by Pillow, or not, by its version.
            image = ImageOps.exif_transpose(file) if file.format == "TIFF" else file
            width, height = image.size
            on_its_side = image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
            return height / width if on_its_side else width / height
    except Exception as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: Exception) -> UnreadableImage:
    """What is raised for an image whose reading failed so."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    refused = getattr(error, "errno", None) not in (None, errno.ENOENT, errno.ELOOP)
    lasting = not (refused or isinstance(error, MemoryError))
    return UnreadableImage(path, " ".join(reason.split()), lasting)


def _to_rgb(image: Image.Image) -> Image.Image:
    """Pillow would clip the levels of more than 8 bits, and so make most of them white."""
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise ValueError("its grey levels have 32 bits, whose range is not known; save it with 8 or 16")
    return image.convert("RGB")
