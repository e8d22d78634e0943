"""Augmentation on the device: the whole uint8 batch at once, each image with its own draws.

A transform is a pure function (images, rng) -> images, uint8 [N, 3, H, W] to the same or, where it
crops, to a smaller size. Draws are made
on the host, so they are the same numbers on every device.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from utils.run.device import to_device
from utils.run.randomness import Draws

Transform = Callable[[torch.Tensor, np.random.Generator], torch.Tensor]


def flip(images: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Mirror each image left to right with probability 1/2."""
    chosen = to_device(rng.random(len(images)) < 0.5, images.device)
    return torch.where(chosen[:, None, None, None], images.flip(-1), images)


def center_crop(images: torch.Tensor, size: int) -> torch.Tensor:
    """The middle `size` x `size` pixels of each image; [N, 3, H, W] to [N, 3, size, size]."""
    top, left = ((length - size) // 2 for length in images.shape[-2:])
    return images[..., top : top + size, left : left + size]


@dataclass(frozen=True)
class CenterCrop:
    """`center_crop` as a `Transform`, for training without chance."""

    size: int

    def __call__(self, images: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        """uint8 [N, 3, H, W] to [N, 3, size, size]."""
        return center_crop(images, self.size)


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
class RandomResizedCrop:
    """A random part of each image, of 8 to 100 % of its area, at `size` x `size`: a `Transform`.

    Szegedy et al. 2014 (arXiv 1409.4842, section 6); the part's width over its height is between 3/4 and
    4/3. The resize is bilinear.
    """

    size: int
    areas: tuple[float, float] = (0.08, 1.0)

    def __call__(self, images: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        """uint8 [N, 3, H, W] to [N, 3, size, size]."""
        count = len(images)
        top, left, height, width = random_boxes(rng, count, self.areas, (3 / 4, 4 / 3)).T
        # Output coordinates run from -1 to 1 over the box, input coordinates over the whole image.
        maps = np.zeros((count, 2, 3), np.float32)
        maps[:, 0, 0], maps[:, 0, 2] = width, 2 * left + width - 1
        maps[:, 1, 1], maps[:, 1, 2] = height, 2 * top + height - 1
        shape = [count, images.shape[1], self.size, self.size]
        places = F.affine_grid(to_device(maps, images.device), shape, align_corners=False)
        cropped = F.grid_sample(images.float(), places, padding_mode="border", align_corners=False)
        return cropped.round().to(torch.uint8)


@dataclass(frozen=True)
class RandomErasing:
    """With probability `p` an image loses a box, which gets the colour `fill`: a `Transform`.

    Zhong et al. 2017 (arXiv 1708.04896): 2 to 40 % of the area, height over width between 0.3 and 1 / 0.3.
    """

    p: float
    fill: tuple[int, int, int]

    def __call__(self, images: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        """uint8 [N, 3, H, W] to the same shape."""
        count, _, height, width = images.shape
        chosen = rng.random(count) < self.p
        boxes = random_boxes(rng, count, (0.02, 0.4), (0.3, 1 / 0.3))
        starts = np.round(boxes[:, :2] * (height, width))
        ends = np.round((boxes[:, :2] + boxes[:, 2:]) * (height, width))
        inside = inside_boxes(starts, np.where(chosen[:, None], ends, starts), images)
        return torch.where(inside, colour(self.fill, images), images)


def inside_boxes(starts: np.ndarray, ends: np.ndarray, images: torch.Tensor) -> torch.Tensor:
    """Which pixels lie in their image's box: bool [N, 1, H, W] on the device of `images` [N, C, H, W].

    `starts` and `ends` [N, 2] are in pixels, (row, column), the ends excluded.
    """
    rows, columns = (
        (starts[:, axis, None] <= np.arange(length)) & (np.arange(length) < ends[:, axis, None])
        for axis, length in enumerate(images.shape[2:])
    )
    rows, columns = to_device(rows, images.device), to_device(columns, images.device)
    return (rows[:, :, None] & columns[:, None, :])[:, None]


def colour(levels: Sequence[int], images: torch.Tensor) -> torch.Tensor:
    """One pixel, uint8 [C, 1, 1], on the device of `images`."""
    return to_device(np.array(levels, np.uint8)[:, None, None], images.device)


class Normalise:
    """uint8 [N, 3, H, W] in 0..255 to float32 (x / 255 - mean) / std, in channels_last memory order.

    `mean` and `std` are a number a channel, for pixels in [0, 1].
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], device: torch.device):
        mean, std = torch.tensor(mean, device=device), torch.tensor(std, device=device)
        self.mean, self.std = mean, std
        self.scale = 1 / (255 * std)
        self.shift = -mean / std

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        count, channels, height, width = images.shape
        # As rows of W x 3 numbers, which the CPU multiplies three times as fast as channels of a pixel.
        rows = images.permute(0, 2, 3, 1).reshape(count * height, width * channels).float()
        rows.mul_(self.scale.repeat(width)).add_(self.shift.repeat(width))
        return rows.view(count, height, width, channels).permute(0, 3, 1, 2)

    def after(self, other: "Normalise") -> Callable[[torch.Tensor], torch.Tensor]:
        """A function from the results of `other`, [N, 3, H, W], to those of this one for the same pixels."""
        scale = (other.std / self.std)[:, None, None]
        shift = ((other.mean - self.mean) / self.std)[:, None, None]
        return lambda inputs: inputs * scale + shift


class Augment:
    """The transforms of a training batch in order: uint8 [N, 3, H, W] to uint8 [N, 3, H, W].

    `transforms` maps the name of each transform's random stream to the transform.
    """

    def __init__(self, transforms: dict[str, Transform]):
        self.transforms = transforms

    def __call__(self, images: torch.Tensor, draws: Draws) -> torch.Tensor:
        for stream, transform in self.transforms.items():
            images = transform(images, draws(stream))
        return images
