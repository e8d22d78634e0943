"""RandAugment (Cubuk et al. 2019, arXiv 1909.13719) over a batch, each image with its own draws.

N times, each image draws one of 16 operations, all equally likely, and a direction where there are
two. The operations are Pillow's of the same names. What they make of a pixel depends on

- its own value: Invert, Posterize, Solarize, SolarizeAdd, Brightness - a table made on the host;
- its value and its image's statistics: AutoContrast, Equalize, Contrast - a table made on the device;
- its other channels or its neighbours: Color, Sharpness - a blend with a degenerate image;
- the pixel at another place: Rotate, ShearX, ShearY, TranslateX, TranslateY - an affine map;
- its place: Cutout - a box.

All images that drew an operation of one kind are treated at once; those with statistics are a kind each.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from learning.augment import Shape, Transform, fill_boxes, filled_boxes, mapped_places

MAX_M = 30
COLUMNS = 4  # numbers drawn for an operation: which one, in which direction, and the place of a box

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
NOTHING = ""  # where an image gets none
TWO_WAYS = OPERATIONS[: OPERATIONS.index("Cutout")]
CUTOUT_COLOUR = (125, 123, 114)  # about the mean of ImageNet, as in the RandAugment code

Plan = dict[str, dict]  # by kind of operation: which images are `chosen`, and what it needs for them

LEVELS = np.arange(256)
TABLES: dict[str, Callable[[float], np.ndarray]] = {
    "Invert": lambda amount: 255 - LEVELS,
    "Posterize": lambda amount: LEVELS >> round(amount) << round(amount),
    "Solarize": lambda amount: np.where(LEVELS + amount < 256, LEVELS, 255 - LEVELS),
    "SolarizeAdd": lambda amount: np.where(LEVELS < 128, np.minimum(LEVELS + int(amount), 255), LEVELS),
    "Brightness": lambda amount: np.clip(LEVELS * (1 + amount), 0, 255),
}


@dataclass(frozen=True)
class RandAugment(Transform):
    """`n` random operations of strength `m` (0 to 30) on each image."""

    n: int
    m: int

    @property
    def columns(self) -> int:  # type: ignore[override]
        """How many numbers are drawn for an image."""
        return COLUMNS * self.n

    def draw(self, uniforms: np.ndarray, shape: Shape) -> list[Plan]:
        strengths = np.full(len(uniforms), self.m)
        return [draw_operations(part, strengths, shape) for part in np.split(uniforms, self.n, axis=1)]

    def apply(self, images: torch.Tensor, drawn: list[Plan]) -> torch.Tensor:
        for plan in drawn:
            images = apply_operations(images, plan)
        return images


@dataclass(frozen=True)
class TrivialAugment(Transform):
    """One random operation of random strength on each image, without a setting.

    Mueller and Hutter 2021 (arXiv 2103.10158), on the operations and ranges of RandAugment above (the
    paper has 14 operations, some with wider ranges); the strength is uniform among 0, 1, ..., 30.
    """

    @property
    def columns(self) -> int:  # type: ignore[override]
        """How many numbers are drawn for an image."""
        return COLUMNS + 1

    def draw(self, uniforms: np.ndarray, shape: Shape) -> Plan:
        strengths = np.floor(uniforms[:, -1] * (MAX_M + 1))
        return draw_operations(uniforms[:, :-1], strengths, shape)

    def apply(self, images: torch.Tensor, drawn: Plan) -> torch.Tensor:
        return apply_operations(images, drawn)


def draw_operations(
    uniforms: np.ndarray,
    strengths: np.ndarray,
    shape: Shape,
    among: Sequence[str] = OPERATIONS,
    chosen: np.ndarray | None = None,
) -> Plan:
    """One random operation for each image, of `strengths` [N] from 0 to 30, by `uniforms` [N, COLUMNS].

    Where there is a `chosen`, bool [N], the other images get none.
    """
    operations = np.array(among)[(uniforms[:, 0] * len(among)).astype(int)]
    signs = np.where(np.isin(operations, TWO_WAYS) & (uniforms[:, 1] < 0.5), -1, 1)
    amounts = signs * np.array([RANGES[name] for name in operations]) * strengths / MAX_M
    if chosen is not None:
        operations = np.where(chosen, operations, NOTHING)
    return plan_operations(operations, amounts, uniforms[:, 2:], shape.height, shape.width)


def plan_operations(
    operations: np.ndarray, amounts: np.ndarray, places: np.ndarray, height: int, width: int
) -> Plan:
    """What the device needs for one operation on each image: which images, and arrays, by kind of operation.

    `operations` [N] are names, `amounts` [N] in the units of `RANGES`, `places` [N, 2] where in
    (height, width) a Cutout box has its centre, in fractions.
    """
    plan: Plan = {}
    for kind, (names, prepare, _) in KINDS.items():
        chosen = np.flatnonzero(np.isin(operations, names))
        if len(chosen):
            about = Chosen(operations[chosen], amounts[chosen], places[chosen], height, width)
            plan[kind] = {"chosen": chosen, **prepare(about)}
    return plan


def apply_operations(images: torch.Tensor, plan: Plan) -> torch.Tensor:
    """One operation on each image: uint8 [N, 3, H, W] to the same shape."""
    result = images.clone()
    for kind, (_, _, operate) in KINDS.items():
        if kind in plan:
            tensors = dict(plan[kind])
            chosen = tensors.pop("chosen")
            result[chosen] = operate(images[chosen], **tensors)
    return result


class Chosen(NamedTuple):
    """What is drawn for the n images that get an operation of one kind."""

    operations: np.ndarray  # [n], names
    amounts: np.ndarray  # [n]
    places: np.ndarray  # [n, 2]
    height: int
    width: int

    @property
    def factors(self) -> np.ndarray:
        """How far from a degenerate image: 0 is the degenerate image, 1 the image itself."""
        return 1 + self.amounts.astype(np.float32)


def tables_of(chosen: Chosen) -> dict[str, np.ndarray]:
    """A table [n, 256] for each image, of an operation on a value alone."""
    pairs = zip(chosen.operations, chosen.amounts, strict=True)
    return {"tables": np.stack([TABLES[name](amount) for name, amount in pairs]).astype(np.uint8)}


def by_table(images: torch.Tensor, tables: torch.Tensor) -> torch.Tensor:
    """Operations on a value alone."""
    return look_up(images, tables[:, None].expand(-1, 3, -1))


def look_up(images: torch.Tensor, tables: torch.Tensor) -> torch.Tensor:
    """Each value replaced by its entry in the table of its image and channel, [N, 3, 256]."""
    tables = tables.clamp(0, 255).to(torch.uint8)
    return tables.gather(2, images.flatten(2).long()).view(images.shape)


def autocontrast(images: torch.Tensor) -> torch.Tensor:
    """Stretch each channel so that its darkest value becomes 0 and its brightest 255."""
    low = images.amin((2, 3)).float()[..., None]
    high = images.amax((2, 3)).float()[..., None]
    levels = torch.arange(256.0, device=images.device)
    stretched = (levels - low) * 255 / (high - low).clamp(min=1)
    return look_up(images, torch.where(high > low, stretched, levels))


def equalize(images: torch.Tensor) -> torch.Tensor:
    """Make the histogram of each channel as flat as it can be.

    A value becomes (step / 2 + the number of darker pixels) / step in whole numbers, where a step is
    1/255 of the pixels without those of the brightest value.
    """
    levels = torch.arange(256, device=images.device, dtype=torch.uint8).expand(*images.shape[:2], -1)
    # Sorting finds the cumulated histogram without atomic additions, whose order is random on a GPU.
    values = images.flatten(2).contiguous().sort(2).values
    darker = torch.searchsorted(values, levels.contiguous())
    step = torch.searchsorted(values, values[..., -1:].contiguous()) // 255
    return look_up(images, torch.where(step > 0, (step // 2 + darker) // step.clamp(min=1), levels))


def contrast(images: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    """Move each value away from, or towards, the image's mean grey."""
    mean = (grey(images).mean((1, 2, 3)) + 0.5).floor()[:, None]
    levels = torch.arange(256.0, device=images.device)
    return look_up(images, (mean + factors[:, None] * (levels - mean))[:, None].expand(-1, 3, -1))


def grey(images: torch.Tensor) -> torch.Tensor:
    """ITU-R 601-2 luma as Pillow rounds it: uint8 [N, 3, H, W] to float32 [N, 1, H, W]."""
    red, green, blue = images.int().split(1, 1)
    return ((19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16).float()


def smooth(images: torch.Tensor) -> torch.Tensor:
    """Pillow's SMOOTH filter, which leaves the border as it is: uint8 [N, 3, H, W] to float32."""
    smoothed = images.float()
    # By sums: a convolution would be tuned anew for each number of images, and may be of low precision.
    threes = smoothed[..., :-2] + smoothed[..., 1:-1] + smoothed[..., 2:]
    nines = threes[..., :-2, :] + threes[..., 1:-1, :] + threes[..., 2:, :]
    inner = smoothed[..., 1:-1, 1:-1]
    inner.copy_(((nines + 4 * inner) / 13 + 0.5).floor())
    return smoothed


def by_blend(images: torch.Tensor, is_color: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    """Color and Sharpness: away from, or towards, the image without colours or without details."""
    is_color, factors = (values[:, None, None, None] for values in (is_color, factors))
    degenerate = torch.where(is_color, grey(images), smooth(images))
    return torch.lerp(degenerate, images.float(), factors).clamp(0, 255).to(torch.uint8)


def affine_map(name: str, amount: float) -> list[list[float]]:
    """Where a pixel comes from: [[a, b, c], [d, e, f]] with x' = a x + b y + c, y' = d x + e y + f.

    In coordinates that run from -1 to 1 over a square image.
    """
    if name == "Rotate":  # counter-clockwise
        cosine, sine = math.cos(math.radians(amount)), math.sin(math.radians(amount))
        return [[cosine, -sine, 0], [sine, cosine, 0]]
    maps: dict[str, list[list[float]]] = {
        "ShearX": [[1, amount, amount], [0, 1, 0]],  # the top row stays
        "ShearY": [[1, 0, 0], [amount, 1, amount]],  # the left column stays
        "TranslateX": [[1, 0, 2 * amount], [0, 1, 0]],
        "TranslateY": [[1, 0, 0], [0, 1, 2 * amount]],
    }
    return maps[name]


def maps_of(chosen: Chosen) -> dict[str, np.ndarray]:
    """An affine map [n, 2, 3] for each image."""
    pairs = zip(chosen.operations, chosen.amounts, strict=True)
    return {"maps": np.array([affine_map(*pair) for pair in pairs], np.float32)}


def by_map(images: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
    """Geometric operations, bilinear; what comes from outside the image is black."""
    places = mapped_places(maps, *images.shape[2:])
    moved = F.grid_sample(images.float(), places, padding_mode="border", align_corners=False)
    inside = (places.abs() < 1).all(3)[:, None]
    return (moved * inside).round().to(torch.uint8)


def boxes_of(chosen: Chosen) -> dict[str, np.ndarray]:
    """A grey square for each image."""
    shape = np.array((chosen.height, chosen.width))
    sides = np.round(chosen.amounts[:, None] * shape)
    starts = np.round(chosen.places * shape - sides / 2)
    return filled_boxes(starts, starts + sides, chosen.height, chosen.width, CUTOUT_COLOUR)


# Of each kind its operations, what is prepared for them on the host, and what they do on the device.
KINDS: dict[str, tuple[tuple[str, ...], Callable[[Chosen], dict], Callable[..., torch.Tensor]]] = {
    "table": (("Invert", "Posterize", "Solarize", "SolarizeAdd", "Brightness"), tables_of, by_table),
    "autocontrast": (("AutoContrast",), lambda chosen: {}, autocontrast),
    "equalize": (("Equalize",), lambda chosen: {}, equalize),
    "contrast": (("Contrast",), lambda chosen: {"factors": chosen.factors}, contrast),
    "blend": (
        ("Color", "Sharpness"),
        lambda chosen: {"is_color": chosen.operations == "Color", "factors": chosen.factors},
        by_blend,
    ),
    "map": (("Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY"), maps_of, by_map),
    "box": (("Cutout",), boxes_of, fill_boxes),
}
