"""MixUp and CutMix: two images of a batch become one, and so do their labels.

Every function takes pixels [N, C, H, W] and targets [N, K], whose rows are probabilities, and returns
both in the same shapes. An image's partner is the one after it in the batch, whose order is random, so that
a part of a batch can be mixed with few images beside its own (`learning.share`).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

Mixed = tuple[torch.Tensor, torch.Tensor]


def mixup(images: torch.Tensor, targets: torch.Tensor, alpha: float, rng: np.random.Generator) -> Mixed:
    """MixUp (Zhang et al. 2017, arXiv 1710.09412): lambda x_i + (1 - lambda) x_j, and the labels alike.

    lambda ~ Beta(alpha, alpha), one draw a batch. The blended pixels are float32.
    """
    lam = rng.beta(alpha, alpha)
    images = images.float()
    return torch.lerp(partners(images), images, lam), torch.lerp(partners(targets), targets, lam)


def cutmix(images: torch.Tensor, targets: torch.Tensor, alpha: float, rng: np.random.Generator) -> Mixed:
    """CutMix (Yun et al. 2019, arXiv 1905.04899): a box of the partner is pasted into each image.

    lambda ~ Beta(alpha, alpha), one draw and one box a batch. The box has sqrt(1 - lambda) of the
    height and of the width, around a centre drawn uniformly, and ends at the border of the image.
    The labels are mixed by the share of pixels that stay, which is lambda unless the border cut.
    """
    lam = rng.beta(alpha, alpha)
    height, width = images.shape[-2:]
    top, bottom = _cut(height, lam, rng)
    left, right = _cut(width, lam, rng)

    mixed = images.clone()
    mixed[:, :, top:bottom, left:right] = partners(images[:, :, top:bottom, left:right])
    share = 1 - (bottom - top) * (right - left) / (height * width)
    return mixed, torch.lerp(partners(targets), targets, share)


def partners(batch: torch.Tensor) -> torch.Tensor:
    """What belongs to the image after each; the last one's is the first."""
    return batch.roll(-1, 0)


def _cut(length: int, lam: float, rng: np.random.Generator) -> tuple[int, int]:
    """One side of the CutMix box along a border of `length` pixels: [start, end)."""
    size = int(length * np.sqrt(1 - lam))
    start = int(rng.integers(length)) - size // 2
    return max(start, 0), min(start + size, length)


@dataclass(frozen=True)
class Mixing:
    """The mixing of a run; an alpha of 0 leaves its method out.

    A batch gets at most one method. CutMix mixes a batch with probability `cutmix_prob` and else
    leaves it plain; MixUp mixes every batch. With both, each batch first draws, evenly, which one.
    """

    mixup_alpha: float = 0.0
    cutmix_alpha: float = 0.0
    cutmix_prob: float = 0.0

    @property
    def methods(self) -> list[Callable[..., Mixed]]:
        """Those that a batch may get, none if nothing is ever mixed."""
        methods = [self._mixup] if self.mixup_alpha > 0 else []
        return methods + ([self._cutmix] if self.cutmix_alpha > 0 and self.cutmix_prob > 0 else [])

    def __call__(self, images: torch.Tensor, targets: torch.Tensor, rng: np.random.Generator) -> Mixed:
        """One batch, mixed or as it is."""
        methods = self.methods
        return methods[rng.integers(len(methods))](images, targets, rng) if methods else (images, targets)

    def _mixup(self, images: torch.Tensor, targets: torch.Tensor, rng: np.random.Generator) -> Mixed:
        return mixup(images, targets, self.mixup_alpha, rng)

    def _cutmix(self, images: torch.Tensor, targets: torch.Tensor, rng: np.random.Generator) -> Mixed:
        if rng.random() < self.cutmix_prob:
            return cutmix(images, targets, self.cutmix_alpha, rng)
        return images, targets
