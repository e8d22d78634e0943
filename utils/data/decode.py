"""One image file to pixels."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps


class UnreadableImage(Exception):
    """A file that is not an image Pillow can read; the message names the file and the reason."""


def decode(path: Path, size: int) -> np.ndarray:
    """Decode an image and resize it to `size` x `size` RGB pixels: uint8 [size, size, 3].

    The resize is Pillow's bilinear filter, which averages when it shrinks; the aspect ratio is not
    kept. JPEG files more than twice too large are decoded at a half, quarter or eighth of their
    size, which costs a fraction of the time and still leaves at least twice `size` to average. A
    camera's orientation mark is applied. Raises `UnreadableImage`.
    """
    try:
        with Image.open(path) as image:
            image.draft("RGB", (2 * size, 2 * size))
            upright = ImageOps.exif_transpose(image).convert("RGB")
            return np.asarray(upright.resize((size, size), Image.Resampling.BILINEAR))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UnreadableImage(f"{path}: {' '.join(str(error).split())}") from error
