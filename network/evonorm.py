"""EvoNorm: evolved normalisation-activation layers (Liu et al. 2020, arXiv 2004.02967)."""

import math

import torch
from torch import nn


class EvoNormS0(nn.Module):
    """EvoNorm-S0, norm and activation in one, independent of the batch: [N, C, H, W] -> the same.

        y = x * sigmoid(v * x) / std_group(x) * gamma + beta

    `std_group` is the standard deviation over height, width and the channels of a group (table 2 of
    the paper; 32 groups, fewer where 32 does not divide C). `weight` is gamma, `bias` is beta; they
    and `v` have shape (C,).

    The layer at the end of a residual branch has no activation before the sum. There
    (`activation=None`) only gamma and beta are applied, as in the authors' code: the numerator of S0
    is its nonlinearity. The type of the `activation` given is not used.
    """

    def __init__(self, channels: int, activation: nn.Module | None = None, eps: float = 1e-5):
        super().__init__()
        self.groups = math.gcd(channels, 32)
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.v = nn.Parameter(torch.ones(channels)) if activation is not None else None

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        per_channel = (1, -1, 1, 1)
        if self.v is not None:
            # In float32: under autocast the variance of half-precision values would lose its digits.
            variance = images.float().unflatten(1, (self.groups, -1)).var((2, 3, 4), unbiased=False)
            inverse_std = (variance + self.eps).rsqrt().to(images.dtype)  # [N, groups]
            inverse_std = inverse_std.repeat_interleave(images.shape[1] // self.groups, 1)[:, :, None, None]
            images = images * torch.sigmoid(self.v.view(per_channel) * images) * inverse_std
        return images * self.weight.view(per_channel) + self.bias.view(per_channel)

    def extra_repr(self) -> str:
        return f"{len(self.weight)}, groups={self.groups}, activation={self.v is not None}"
