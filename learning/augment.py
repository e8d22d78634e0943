"""Augmentation on the device: the whole uint8 batch at once, each image with its own draws.

Draws are made on the host, so they are the same numbers on every device, and travel there in one copy.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from utils.run.randomness import Draws
from utils.run.transfer import to_device


class Transform:
    """A random change of uint8 images [N, 3, H, W] to the same shape or, of crops, to a smaller one.

    `draw` decides on the host, from `rng` and the images' shape alone; `apply` does it on the device.
    """

    def draw(self, rng: np.random.Generator, count: int, height: int, width: int) -> Any:
        """What happens to `count` images of this size: arrays, in nested lists and dictionaries."""
        raise NotImplementedError

    def apply(self, images: torch.Tensor, drawn: Any) -> torch.Tensor:
        """The changed images, by what was drawn, as tensors on their device."""
        raise NotImplementedError

    def size_after(self, height: int, width: int) -> tuple[int, int]:
        """The size that images of this size have afterwards."""
        return height, width

    def __call__(self, images: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        """The change alone, without others before and after it."""
        count, _, height, width = images.shape
        return self.apply(images, to_device(self.draw(rng, count, height, width), images.device))


class Augment:
    """The transforms of a training batch in order: uint8 [N, 3, H, W] to uint8 [N, 3, H, W].

    `transforms` maps the name of each transform's random stream to the transform.
    """

    def __init__(self, transforms: dict[str, Transform]):
        self.transforms = transforms

    def __call__(self, images: torch.Tensor, draws: Draws) -> torch.Tensor:
        drawn, (count, _, height, width) = {}, images.shape
        for stream, transform in self.transforms.items():
            drawn[stream] = transform.draw(draws(stream), count, height, width)
            height, width = transform.size_after(height, width)
        drawn = to_device(drawn, images.device)
        for stream, transform in self.transforms.items():
            images = transform.apply(images, drawn[stream])
        return images


@dataclass(frozen=True)
class Flip(Transform):
    """Mirror each image left to right with probability 1/2."""

    def draw(self, rng: np.random.Generator, count: int, height: int, width: int) -> np.ndarray:
        return rng.random(count) < 0.5

    def apply(self, images: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
        return torch.where(drawn[:, None, None, None], images.flip(-1), images)


def center_crop(images: torch.Tensor, size: int) -> torch.Tensor:
    """The middle `size` x `size` pixels of each image; [N, 3, H, W] to [N, 3, size, size]."""
    top, left = ((length - size) // 2 for length in images.shape[-2:])
    return images[..., top : top + size, left : left + size]


@dataclass(frozen=True)
class CenterCrop(Transform):
    """`center_crop`, for training without chance."""

    size: int

    def draw(self, rng: np.random.Generator, count: int, height: int, width: int) -> list:
        return []

    def apply(self, images: torch.Tensor, drawn: list) -> torch.Tensor:
        return center_crop(images, self.size)

    def size_after(self, height: int, width: int) -> tuple[int, int]:
        return self.size, self.size


def random_boxes(
    rng: np.random.Generator, count: int, areas: tuple[float, float], aspects: tuple[float, float]
) -> np.ndarray:
    """Boxes inside a unit square: [count, 4] of top, left, height and width, in fractions.

    Areas are uniform in `areas`, widths over heights log-uniform in `aspects`; a box that would not fit
    is cut to the square's side. Places are uniform among those inside.
    """
    area = rng.uniform(*areas, count)
    aspect = np.exp(rng.uniform(*np.log(aspects), count))
    height, width = np.minimum(np.sqrt(area / aspect), 1), np.minimum(np.sqrt(area * aspect), 1)
    top, left = rng.random((2, count)) * (1 - np.stack((height, width)))
    return np.stack((top, left, height, width), 1)


@dataclass(frozen=True)
class RandomResizedCrop(Transform):
    """A random part of each image, of 8 to 100 % of its area, at `size` x `size`.

    Szegedy et al. 2014 (arXiv 1409.4842, section 6); the part's width over its height is between 3/4 and
    4/3. The resize is bilinear.
    """

    size: int
    areas: tuple[float, float] = (0.08, 1.0)

    def draw(self, rng: np.random.Generator, count: int, height: int, width: int) -> np.ndarray:
        tops, lefts, heights, widths = random_boxes(rng, count, self.areas, (3 / 4, 4 / 3)).T
        # Output coordinates run from -1 to 1 over the box, input coordinates over the whole image.
        maps = np.zeros((count, 2, 3), np.float32)
        maps[:, 0, 0], maps[:, 0, 2] = widths, 2 * lefts + widths - 1
        maps[:, 1, 1], maps[:, 1, 2] = heights, 2 * tops + heights - 1
        return maps

    def apply(self, images: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
        places = mapped_places(drawn, self.size, self.size)
        cropped = F.grid_sample(images.float(), places, padding_mode="border", align_corners=False)
        return cropped.round().to(torch.uint8)

    def size_after(self, height: int, width: int) -> tuple[int, int]:
        return self.size, self.size


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
    """

    p: float
    fill: tuple[int, int, int]

    def draw(self, rng: np.random.Generator, count: int, height: int, width: int) -> dict[str, np.ndarray]:
        chosen = rng.random(count) < self.p
        boxes = random_boxes(rng, count, (0.02, 0.4), (0.3, 1 / 0.3))
        starts = np.round(boxes[:, :2] * (height, width))
        ends = np.round((boxes[:, :2] + boxes[:, 2:]) * (height, width))
        return filled_boxes(starts, np.where(chosen[:, None], ends, starts), height, width, self.fill)

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
        mean, std = torch.tensor(mean, device=device), torch.tensor(std, device=device)
        self.mean, self.std = mean, std
        self.scale = 1 / (255 * std)
        self.shift = -mean / std

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
