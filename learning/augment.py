"""Augmentation on the device: the whole uint8 batch at once, each image with its own draws.

A transform is a pure function (images, rng) -> images, uint8 [N, 3, H, W] to the same. Draws are made
on the host, so they are the same numbers on every device.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from utils.run.device import to_device
from utils.run.randomness import Draws

Transform = Callable[[torch.Tensor, np.random.Generator], torch.Tensor]


def flip(images: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Mirror each image left to right with probability 1/2."""
    chosen = to_device(rng.random(len(images)) < 0.5, images.device)
    return torch.where(chosen[:, None, None, None], images.flip(-1), images)


class Normalise:
    """uint8 [N, 3, H, W] in 0..255 to float32 (x / 255 - mean) / std, in channels_last memory order.

    `mean` and `std` are a number a channel, for pixels in [0, 1].
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], device: torch.device):
        mean, std = torch.tensor(mean, device=device), torch.tensor(std, device=device)
        self.scale = 1 / (255 * std)
        self.shift = -mean / std

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        count, channels, height, width = images.shape
        # As rows of W x 3 numbers, which the CPU multiplies three times as fast as channels of a pixel.
        rows = images.permute(0, 2, 3, 1).reshape(count * height, width * channels).float()
        rows.mul_(self.scale.repeat(width)).add_(self.shift.repeat(width))
        return rows.view(count, height, width, channels).permute(0, 3, 1, 2)


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
