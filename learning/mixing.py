"""MixUp and CutMix: two images of a batch become one, and so do their labels.

Every function takes images [N, C, H, W] and targets [N, K], whose rows are probabilities, and returns
both in the same shapes. An image's partner is another image of the batch, drawn by permuting it.
"""

from collections.abc import Callable

import numpy as np
import torch

from utils.run.device import to_device

Mixed = tuple[torch.Tensor, torch.Tensor]
Mixing = Callable[[torch.Tensor, torch.Tensor, np.random.Generator], Mixed]


def mixup(images: torch.Tensor, targets: torch.Tensor, alpha: float, rng: np.random.Generator) -> Mixed:
    """MixUp (Zhang et al. 2017, arXiv 1710.09412): lambda x_i + (1 - lambda) x_j, and the labels alike.

    lambda ~ Beta(alpha, alpha), one draw a batch.
    """
    lam = rng.beta(alpha, alpha)
    partner = to_device(rng.permutation(len(images)), images.device)
    return torch.lerp(images[partner], images, lam), torch.lerp(targets[partner], targets, lam)


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
    partner = to_device(rng.permutation(len(images)), images.device)

    mixed = images.clone()
    mixed[:, :, top:bottom, left:right] = images[partner, :, top:bottom, left:right]
    share = 1 - (bottom - top) * (right - left) / (height * width)
    return mixed, torch.lerp(targets[partner], targets, share)


def _cut(length: int, lam: float, rng: np.random.Generator) -> tuple[int, int]:
    """One side of the CutMix box along a border of `length` pixels: [start, end)."""
    size = int(length * np.sqrt(1 - lam))
    start = int(rng.integers(length)) - size // 2
    return max(start, 0), min(start + size, length)


def make_mixing(mixup_alpha: float, cutmix_alpha: float, cutmix_prob: float) -> Mixing | None:
    """The mixing of a run, or None. An alpha of 0 leaves its method out.

    A batch gets at most one method. CutMix mixes a batch with probability `cutmix_prob` and else
    leaves it plain; MixUp mixes every batch. With both, each batch first draws, evenly, which one.
    """
    methods: list[Mixing] = []
    if mixup_alpha > 0:
        methods.append(lambda images, targets, rng: mixup(images, targets, mixup_alpha, rng))
    if cutmix_alpha > 0 and cutmix_prob > 0:

        def cutmix_sometimes(images: torch.Tensor, targets: torch.Tensor, rng: np.random.Generator) -> Mixed:
            if rng.random() < cutmix_prob:
                return cutmix(images, targets, cutmix_alpha, rng)
            return images, targets

        methods.append(cutmix_sometimes)
    if not methods:
        return None
    return lambda images, targets, rng: methods[rng.integers(len(methods))](images, targets, rng)
