"""Parts of training images: the middle, or random ones as large as an image's own proportions allow."""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from learning.augment import Shape, Transform, sides


def center_crop(images: torch.Tensor, size: int) -> torch.Tensor:
    """The middle `size` x `size` pixels of each image; [N, 3, H, W] to [N, 3, size, size]."""
    top, left = ((length - size) // 2 for length in images.shape[-2:])
    return images[..., top : top + size, left : left + size]


@dataclass(frozen=True)
class CenterCrop(Transform):
    """`center_crop`, for training without chance."""

    size: int
    columns = 0

    def draw(self, uniforms: np.ndarray, shape: Shape) -> list:
        return []

    def apply(self, images: torch.Tensor, drawn: list) -> torch.Tensor:
        return center_crop(images, self.size)

    def shape_after(self, shape: Shape) -> Shape:
        return Shape(self.size, self.size, np.ones_like(shape.aspects))


ATTEMPTS = 10


@dataclass(frozen=True)
class RandomResizedCrop(Transform):
    """A random part of each image, of 8 to 100 % of its area, at `size` x `size`.

    Szegedy et al. 2014 (arXiv 1409.4842, section 6), drawn as by torchvision's transform of that name: areas
    are uniform and the logarithms of the part's width over its height too, from 3/4 to 4/3. The first of ten
    draws that fits into the image is taken, at a uniform place. If none does, it is the middle, as large as
    these proportions allow.

    The images may be squeezed: their `aspects` say in which proportions a part is drawn, which is a part of
    the squeezed image as well. The resize is Pillow's bilinear filter, which averages where it shrinks.
    """

    size: int
    areas = (0.08, 1.0)
    aspects = (3 / 4, 4 / 3)
    columns = 2 * ATTEMPTS + 2

    def draw(self, uniforms: np.ndarray, shape: Shape) -> np.ndarray:
        """Boxes float32 [N, 4] of top, left, height and width, in fractions of the image."""
        attempts = uniforms[:, :-2].reshape(-1, ATTEMPTS, 2)
        heights, widths = sides(attempts, self.areas, self.aspects, shape.aspects[:, None])
        fits = (heights <= 1) & (widths <= 1)
        rows, first = np.arange(len(uniforms)), fits.argmax(1)
        height, width = heights[rows, first], widths[rows, first]
        # Where none fits: all of the image, but for the ends that are too long for these proportions.
        low, high = (aspect / shape.aspects for aspect in self.aspects)
        any_fits = fits.any(1)
        height, width = (
            np.where(any_fits, height, np.minimum(1 / low, 1)),
            np.where(any_fits, width, np.minimum(high, 1)),
        )
        # A part of a very long image may be less than a pixel wide.
        height, width = np.maximum(height, 1 / shape.height), np.maximum(width, 1 / shape.width)
        left = 1 - np.stack((height, width), 1)
        place = np.where(np.reshape(any_fits, (-1, 1)), uniforms[:, -2:], 0.5) * left
        return np.column_stack((place, height, width)).astype(np.float32)

    def apply(self, images: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
        tops, lefts, heights, widths = drawn.unbind(1)
        rows = resized(images.permute(0, 2, 3, 1).float(), tops, heights, self.size)  # [N, size, W, 3]
        columns = resized(rows.transpose(1, 2), lefts, widths, self.size)  # [N, size, size, 3], x before y
        pixels = columns.transpose(1, 2).round().to(torch.uint8).contiguous()
        return pixels.permute(0, 3, 1, 2)

    def shape_after(self, shape: Shape) -> Shape:
        return Shape(self.size, self.size, np.ones_like(shape.aspects))


def resized(lines: torch.Tensor, start: torch.Tensor, extent: torch.Tensor, size: int) -> torch.Tensor:
    """Parts of `lines` [N, length, ...] along the second axis, resized: float32 [N, size, ...].

    `start` and `extent` [N], in fractions of the length, are the parts. A result is a mean of the values in
    its part whose weights are a triangle around its middle, as wide as two steps from one result to the next,
    or as two values where those are wider.
    """
    count, length, *rest = lines.shape
    step = (extent * length / size)[:, None, None]  # in values, which lie at 0.5, 1.5, ...
    first, last = (start * length)[:, None, None], ((start + extent) * length)[:, None, None]
    middles = first + (torch.arange(size, device=lines.device)[:, None] + 0.5) * step
    reach = step.clamp(min=1)
    taps = torch.arange(2 * math.ceil(max(length / size, 1)) + 1, device=lines.device)
    values = (middles - reach).floor() + taps  # [N, size, taps]
    inside = torch.minimum(values + 1, last) - torch.maximum(values, first)  # how much of each is in the part
    weights = (1 - (values + 0.5 - middles).abs() / reach).clamp(min=0) * inside.clamp(0, 1)
    weights = weights / weights.sum(2, keepdim=True)
    places = (
        values.clamp(0, length - 1).long() + length * torch.arange(count, device=lines.device)[:, None, None]
    )
    bags = F.embedding_bag(
        places.flatten(0, 1),
        lines.flatten(2).flatten(0, 1),
        mode="sum",
        per_sample_weights=weights.flatten(0, 1),
    )
    return bags.view(count, size, *rest)
