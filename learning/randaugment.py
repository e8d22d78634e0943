"""RandAugment (Cubuk et al. 2019, arXiv 1909.13719) over a batch, each image with its own draws.

N times, each image draws one of 16 operations, all equally likely, and a direction where there are
two. The operations are Pillow's of the same names. What they make of a pixel depends on

- its own value: Invert, Posterize, Solarize, SolarizeAdd, Brightness - a table made on the host;
- its value and its image's statistics: AutoContrast, Equalize, Contrast - a table made on the device;
- its other channels or its neighbours: Color, Sharpness - a blend with a degenerate image;
- the pixel at another place: Rotate, ShearX, ShearY, TranslateX, TranslateY - an affine map;
- its place: Cutout - a box.

Each of these five kinds treats all images that drew one of its operations at once.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from learning.augment import colour, inside_boxes
from utils.run.device import to_device

MAX_M = 30

# What M = 30 means; other M are in proportion, so M = 0 changes nothing. Distances are fractions of the
# image's side. The last three have no strength.
RANGES = {
    "Rotate": 30.0,  # degrees
    "ShearX": 0.3,  # widths a height
    "ShearY": 0.3,
    "TranslateX": 0.45,  # widths
    "TranslateY": 0.45,
    "Color": 0.9,  # the factor is 1 plus or minus this
    "Contrast": 0.9,
    "Brightness": 0.9,
    "Sharpness": 0.9,
    "Cutout": 0.2,  # the box's side
    "Posterize": 4.0,  # bits taken away
    "Solarize": 256.0,  # how many of the brightest levels are inverted
    "SolarizeAdd": 110.0,  # what is added to levels below 128
    "AutoContrast": 0.0,
    "Equalize": 0.0,
    "Invert": 0.0,
}
OPERATIONS = tuple(RANGES)
TWO_WAYS = OPERATIONS[: OPERATIONS.index("Cutout")]
CUTOUT_COLOUR = (125, 123, 114)  # about the mean of ImageNet, as in the RandAugment code

LEVELS = np.arange(256)
TABLES: dict[str, Callable[[float], np.ndarray]] = {
    "Invert": lambda amount: 255 - LEVELS,
    "Posterize": lambda amount: LEVELS >> round(amount) << round(amount),
    "Solarize": lambda amount: np.where(LEVELS + amount < 256, LEVELS, 255 - LEVELS),
    "SolarizeAdd": lambda amount: np.where(LEVELS < 128, np.minimum(LEVELS + int(amount), 255), LEVELS),
    "Brightness": lambda amount: np.clip(LEVELS * (1 + amount), 0, 255),
}


@dataclass(frozen=True)
class RandAugment:
    """`n` random operations of strength `m` (0 to 30) on each image: a `Transform`."""

    n: int
    m: int

    def __call__(self, images: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        """uint8 [N, 3, H, W] to the same shape."""
        for _ in range(self.n):
            images = random_operation(images, np.full(len(images), self.m), rng)
        return images


@dataclass(frozen=True)
class TrivialAugment:
    """One random operation of random strength on each image: a `Transform` without a setting.

    Mueller and Hutter 2021 (arXiv 2103.10158), on the operations and ranges of RandAugment above (the
    paper has 14 operations, some with wider ranges); the strength is uniform among 0, 1, ..., 30.
    """

    def __call__(self, images: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        """uint8 [N, 3, H, W] to the same shape."""
        return random_operation(images, rng.integers(MAX_M + 1, size=len(images)), rng)


def random_operation(images: torch.Tensor, strengths: np.ndarray, rng: np.random.Generator) -> torch.Tensor:
    """One random operation on each image, of `strengths` [N] from 0 to 30: uint8 [N, 3, H, W] to the same."""
    count = len(images)
    operations = rng.choice(OPERATIONS, count)
    signs = np.where(np.isin(operations, TWO_WAYS), rng.choice((-1, 1), count), 1)
    amounts = signs * np.array([RANGES[name] for name in operations]) * strengths / MAX_M
    return apply_operations(images, operations, amounts, rng.random((count, 2)))


def apply_operations(
    images: torch.Tensor, operations: np.ndarray, amounts: np.ndarray, places: np.ndarray
) -> torch.Tensor:
    """One operation on each image: uint8 [N, 3, H, W] to the same shape.

    `operations` [N] are names, `amounts` [N] in the units of `RANGES`, `places` [N, 2] where in
    (height, width) a Cutout box has its centre, in fractions.
    """
    result = images.clone()
    for names, transform in KINDS:
        chosen = np.flatnonzero(np.isin(operations, names))
        if len(chosen):
            rows = to_device(chosen, images.device)
            result[rows] = transform(images[rows], operations[chosen], amounts[chosen], places[chosen])
    return result


def by_table(
    images: torch.Tensor, operations: np.ndarray, amounts: np.ndarray, places: np.ndarray
) -> torch.Tensor:
    """Operations on a value alone."""
    tables = np.stack([TABLES[name](amount) for name, amount in zip(operations, amounts, strict=True)])
    tables = to_device(tables.astype(np.uint8), images.device)
    return look_up(images, tables[:, None].expand(-1, 3, -1))


def by_statistics(
    images: torch.Tensor, operations: np.ndarray, amounts: np.ndarray, places: np.ndarray
) -> torch.Tensor:
    """AutoContrast, Equalize and Contrast: tables that depend on the image."""
    makers = {"AutoContrast": autocontrast_tables, "Equalize": equalize_tables, "Contrast": contrast_tables}
    tables = torch.empty(len(images), 3, 256, device=images.device)
    for name, maker in makers.items():
        chosen = np.flatnonzero(operations == name)
        if len(chosen):
            rows = to_device(chosen, images.device)
            factors = to_device(1 + amounts[chosen].astype(np.float32), images.device)
            tables[rows] = maker(images[rows], factors)
    return look_up(images, tables.clamp(0, 255).to(torch.uint8))


def look_up(images: torch.Tensor, tables: torch.Tensor) -> torch.Tensor:
    """Each value replaced by its entry in the table of its image and channel, [N, 3, 256]."""
    return tables.gather(2, images.flatten(2).long()).view(images.shape)


def autocontrast_tables(images: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    """Stretch each channel so that its darkest value becomes 0 and its brightest 255: [N, 3, 256]."""
    low = images.amin((2, 3)).float()[..., None]
    high = images.amax((2, 3)).float()[..., None]
    levels = torch.arange(256.0, device=images.device)
    return torch.where(high > low, (levels - low) * 255 / (high - low).clamp(min=1), levels)


def equalize_tables(images: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    """Make the histogram of each channel as flat as it can be: [N, 3, 256].

    A value becomes (step / 2 + the number of darker pixels) / step in whole numbers, where a step is
    1/255 of the pixels without those of the brightest value.
    """
    levels = torch.arange(256, device=images.device, dtype=torch.uint8).expand(*images.shape[:2], -1)
    # Sorting finds the cumulated histogram without atomic additions, whose order is random on a GPU.
    values = images.flatten(2).contiguous().sort(2).values
    darker = torch.searchsorted(values, levels.contiguous())
    step = torch.searchsorted(values, values[..., -1:].contiguous()) // 255
    return torch.where(step > 0, (step // 2 + darker) // step.clamp(min=1), levels).float()


def contrast_tables(images: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    """Move each value away from, or towards, the image's mean grey: [N, 3, 256]."""
    mean = (grey(images).mean((1, 2, 3)) + 0.5).floor()[:, None]
    levels = torch.arange(256.0, device=images.device)
    return (mean + factors[:, None] * (levels - mean))[:, None].expand(-1, 3, -1)


def grey(images: torch.Tensor) -> torch.Tensor:
    """ITU-R 601-2 luma as Pillow rounds it: uint8 [N, 3, H, W] to float32 [N, 1, H, W]."""
    red, green, blue = images.int().split(1, 1)
    return ((19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16).float()


def smooth(images: torch.Tensor) -> torch.Tensor:
    """Pillow's SMOOTH filter, which leaves the border as it is: uint8 [N, 3, H, W] to float32."""
    smoothed = images.float()
    kernel = torch.ones(3, 1, 3, 3, device=images.device)
    kernel[:, :, 1, 1] = 5
    smoothed[..., 1:-1, 1:-1] = (F.conv2d(smoothed, kernel / 13, groups=3) + 0.5).floor()
    return smoothed


def by_blend(
    images: torch.Tensor, operations: np.ndarray, amounts: np.ndarray, places: np.ndarray
) -> torch.Tensor:
    """Color and Sharpness: away from, or towards, the image without colours or without details."""
    is_color = to_device(operations == "Color", images.device)[:, None, None, None]
    factors = to_device(1 + amounts.astype(np.float32), images.device)[:, None, None, None]
    degenerate = torch.where(is_color, grey(images), smooth(images))
    return torch.lerp(degenerate, images.float(), factors).clamp(0, 255).to(torch.uint8)


def affine_map(name: str, amount: float) -> list[list[float]]:
    """Where a pixel comes from: [[a, b, c], [d, e, f]] with x' = a x + b y + c, y' = d x + e y + f.

    In coordinates that run from -1 to 1 over a square image.
    """
    if name == "Rotate":  # counter-clockwise
        cosine, sine = math.cos(math.radians(amount)), math.sin(math.radians(amount))
        return [[cosine, -sine, 0], [sine, cosine, 0]]
    return {
        "ShearX": [[1, amount, amount], [0, 1, 0]],  # the top row stays
        "ShearY": [[1, 0, 0], [amount, 1, amount]],  # the left column stays
        "TranslateX": [[1, 0, 2 * amount], [0, 1, 0]],
        "TranslateY": [[1, 0, 0], [0, 1, 2 * amount]],
    }[name]


def by_map(
    images: torch.Tensor, operations: np.ndarray, amounts: np.ndarray, places: np.ndarray
) -> torch.Tensor:
    """Geometric operations, bilinear; what comes from outside the image is black."""
    maps = np.array([affine_map(*pair) for pair in zip(operations, amounts, strict=True)], np.float32)
    places_from = F.affine_grid(to_device(maps, images.device), list(images.shape), align_corners=False)
    moved = F.grid_sample(images.float(), places_from, padding_mode="border", align_corners=False)
    inside = (places_from.abs() < 1).all(3)[:, None]
    return (moved * inside).round().to(torch.uint8)


def by_box(
    images: torch.Tensor, operations: np.ndarray, amounts: np.ndarray, places: np.ndarray
) -> torch.Tensor:
    """Cutout: a grey square."""
    shape = np.array(images.shape[2:])
    sides = np.round(amounts[:, None] * shape)
    starts = np.round(places * shape - sides / 2)
    return torch.where(inside_boxes(starts, starts + sides, images), colour(CUTOUT_COLOUR, images), images)


KINDS = (
    (("Invert", "Posterize", "Solarize", "SolarizeAdd", "Brightness"), by_table),
    (("AutoContrast", "Equalize", "Contrast"), by_statistics),
    (("Color", "Sharpness"), by_blend),
    (("Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY"), by_map),
    (("Cutout",), by_box),
)
