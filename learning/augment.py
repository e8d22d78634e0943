"""Augmentation on the device: the whole uint8 batch at once, each image with its own draws.

Draws are made on the host, so they are the same numbers on every device, and travel there in one copy.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from utils.run.randomness import Draws
from utils.run.transfer import to_device


class Shape(NamedTuple):
    """The pixels of a batch's images, which may be squeezed."""

    height: int
    width: int
    aspects: np.ndarray  # [N], width over height of what each image shows


class Transform:
    """A random change of uint8 images [N, 3, H, W] to the same shape or, of crops, to another one.

    `draw` decides on the host, from `columns` numbers in [0, 1) for each image and the images' shape alone;
    `apply` does it on the device.
    """

    columns: int
    views = 1  # how many images it makes of one, one behind the other in their channels

    def draw(self, uniforms: np.ndarray, shape: Shape) -> Any:
        """What happens to images for which `uniforms` [N, columns] were drawn: arrays, in nested lists."""
        raise NotImplementedError

    def apply(self, images: torch.Tensor, drawn: Any) -> torch.Tensor:
        """The changed images, by what was drawn, as tensors on their device."""
        raise NotImplementedError

    def shape_after(self, shape: Shape) -> Shape:
        """The shape that images of this shape have afterwards."""
        return shape


class Augment:
    """The transforms of a training batch in order: uint8 [N, 3, H, W] to uint8 [N, 3, H', W'].

    `transforms` maps the name of each transform's random stream to the transform.
    """

    def __init__(self, transforms: dict[str, Transform]):
        self.transforms = transforms

    @property
    def views(self) -> int:
        """How many images become of one: they come as [N, views * 3, H', W']."""
        return math.prod(transform.views for transform in self.transforms.values())

    def draw(self, draws: Draws, shape: Shape) -> list:
        """What each transform does to images of this shape, for `apply`."""
        drawn = []
        for stream, transform in self.transforms.items():
            uniforms = draws.of_places(stream, len(shape.aspects), transform.columns)
            drawn.append(transform.draw(uniforms, shape))
            shape = transform.shape_after(shape)
        return drawn

    def apply(self, images: torch.Tensor, drawn: list) -> torch.Tensor:
        """The changed images, by what was drawn, as tensors on their device."""
        for transform, of_transform in zip(self.transforms.values(), drawn, strict=True):
            images = transform.apply(images, of_transform)
        return images

    def __call__(self, images: torch.Tensor, draws: Draws, aspects: np.ndarray | None = None) -> torch.Tensor:
        """The changed images; `aspects` [N], width over height, are those of what squeezed images show."""
        return self.apply(images, to_device(self.draw(draws, shape_of(images, aspects)), images.device))


def one_view_each(pixels: torch.Tensor) -> torch.Tensor:
    """The views of each image after each other: [N, V * 3, H, W] to [N * V, 3, H, W]."""
    return pixels if pixels.shape[1] == 3 else pixels.unflatten(1, (-1, 3)).flatten(0, 1)


def shape_of(images: torch.Tensor, aspects: np.ndarray | None) -> Shape:
    """The shape of a batch [N, 3, H, W]; without `aspects` the images are not squeezed."""
    count, _, height, width = images.shape
    return Shape(height, width, np.full(count, width / height) if aspects is None else aspects)


@dataclass(frozen=True)
class Flip(Transform):
    """Mirror each image left to right with probability 1/2."""

    columns = 1
    axis = -1

    def draw(self, uniforms: np.ndarray, shape: Shape) -> np.ndarray:
        return uniforms[:, 0] < 0.5

    def apply(self, images: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
        return torch.where(drawn[:, None, None, None], images.flip(self.axis), images)


class VerticalFlip(Flip):
    """The same from top to bottom."""

    axis = -2


def sides(
    uniforms: np.ndarray,
    areas: tuple[float, float],
    aspects: tuple[float, float],
    of_images: np.ndarray | float = 1.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Heights and widths of boxes, in fractions of images whose width over height is `of_images`.

    From `uniforms` [..., 2] areas uniform in `areas` and, log-uniform in `aspects`, widths over heights.
    """
    area = areas[0] + uniforms[..., 0] * (areas[1] - areas[0])
    low, high = np.log(aspects)
    aspect = np.exp(low + uniforms[..., 1] * (high - low)) / of_images
    return np.sqrt(area / aspect), np.sqrt(area * aspect)


def mapped_places(maps: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Where each output pixel comes from, by affine maps [N, 2, 3] of (x, y, 1): [N, height, width, 2].

    As `F.affine_grid`, but without its matrix product, which a GPU may compute in low precision: a map that
    changes nothing would then move pixels.
    """
    y, x = ((torch.arange(length, device=maps.device) * 2 + 1) / length - 1 for length in (height, width))
    a, b, c = maps[:, :, :, None, None].unbind(2)  # [N, 2, 1, 1] each
    return (a * x + b * y[:, None] + c).permute(0, 2, 3, 1)


@dataclass(frozen=True)
class RandomErasing(Transform):
    """With probability `p` an image loses a box, which gets the colour `fill`.

    Zhong et al. 2017 (arXiv 1708.04896): 2 to 40 % of the area, height over width between 0.3 and 1 / 0.3.
    A box that would not fit is cut to the image's side.
    """

    p: float
    fill: tuple[int, int, int]
    columns = 5

    def draw(self, uniforms: np.ndarray, shape: Shape) -> dict[str, np.ndarray]:
        lengths = np.minimum(np.stack(sides(uniforms[:, 1:3], (0.02, 0.4), (0.3, 1 / 0.3)), 1), 1)
        places = uniforms[:, 3:] * (1 - lengths)
        size = (shape.height, shape.width)
        starts, ends = np.round(places * size), np.round((places + lengths) * size)
        chosen = uniforms[:, :1] < self.p
        return filled_boxes(starts, np.where(chosen, ends, starts), shape.height, shape.width, self.fill)

    def apply(self, images: torch.Tensor, drawn: dict[str, torch.Tensor]) -> torch.Tensor:
        return fill_boxes(images, **drawn)


def filled_boxes(
    starts: np.ndarray, ends: np.ndarray, height: int, width: int, fill: Sequence[int]
) -> dict[str, np.ndarray]:
    """What `fill_boxes` needs: `starts` and `ends` [N, 2] are in pixels, (row, column), the ends excluded."""
    rows, columns = (
        (starts[:, axis, None] <= np.arange(length)) & (np.arange(length) < ends[:, axis, None])
        for axis, length in enumerate((height, width))
    )
    return {"rows": rows, "columns": columns, "fill": np.array(fill, np.uint8)}


def fill_boxes(
    images: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor, fill: torch.Tensor
) -> torch.Tensor:
    """Images [N, 3, H, W], in the colour `fill` [3] where bool `rows` [N, H] and `columns` [N, W] are set."""
    inside = rows[:, None, :, None] & columns[:, None, None, :]
    return torch.where(inside, fill[:, None, None], images)


class Normalise:
    """Pixels [N, 3, H, W] in 0..255, whole or mixed, to float32 (x / 255 - mean) / std in a memory order.

    `mean` and `std` are a number a channel, for pixels in [0, 1].
    """

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device,
        memory_format: torch.memory_format = torch.channels_last,
    ):
        self.memory_format = memory_format
        self.mean, self.std = torch.tensor(mean, device=device), torch.tensor(std, device=device)
        self.scale = 1 / (255 * self.std)
        self.shift = -self.mean / self.std

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        count, channels, height, width = images.shape
        # As rows of W x 3 numbers, which the CPU multiplies three times as fast as channels of a pixel.
        rows = images.permute(0, 2, 3, 1).reshape(count * height, width * channels)
        rows = rows.to(torch.float32, copy=True)
        rows.mul_(self.scale.repeat(width)).add_(self.shift.repeat(width))
        pixels = rows.view(count, height, width, channels).permute(0, 3, 1, 2)
        return pixels.contiguous(memory_format=self.memory_format)

    def after(self, other: "Normalise") -> Callable[[torch.Tensor], torch.Tensor]:
        """A function from the results of `other`, [N, 3, H, W], to those of this one for the same pixels."""
        scale = (other.std / self.std)[:, None, None]
        shift = ((other.mean - self.mean) / self.std)[:, None, None]
        return lambda inputs: (inputs * scale + shift).contiguous(memory_format=self.memory_format)
