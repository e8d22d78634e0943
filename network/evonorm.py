"""EvoNorm: layers that are norm and activation in one (Liu et al. 2020, arXiv 2004.02967, table 2).

Both variants map [N, C, H, W] to the same shape and have parameters of shape (C,): `weight` (gamma),
`bias` (beta) and `v`. Statistics are computed in float32 also under autocast: the variance of
half-precision values would lose its digits.

A layer without activation ends a residual branch or a linear bottleneck. There only gamma and beta are
applied, as in the authors' code, since what is left of both layers is their nonlinearity.
"""

import torch
from torch import nn


class EvoNorm(nn.Module):
    """What the variants share: subclasses define `scale`, by which an activated input is multiplied.

    Of `activation` only matters whether there is one; the layer brings its own.
    """

    def __init__(
        self, channels: int, activation: nn.Module | None = None, eps: float = 1e-5, momentum: float = 0.1
    ):
        super().__init__()
        self.eps = eps
        self.momentum = momentum
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.v = nn.Parameter(torch.ones(channels)) if activation is not None else None

    def scale(self, images: torch.Tensor) -> torch.Tensor:
        """What `images` is multiplied by before gamma: broadcastable to [N, C, H, W]."""
        raise NotImplementedError

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.v is not None:
            images = images * self.scale(images)
        return images * self.weight[:, None, None] + self.bias[:, None, None]

    def extra_repr(self) -> str:
        return f"{len(self.weight)}, activation={self.v is not None}"


class EvoNormS0(EvoNorm):
    """EvoNorm-S0, independent of the batch: y = x sigmoid(v x) / s_group(x) gamma + beta.

    s_group is the standard deviation over height, width and the channels of a group; there are 32
    groups or, where 32 does not divide C, the most below that do.
    """

    def __init__(self, channels: int, *args, **kwargs):
        super().__init__(channels, *args, **kwargs)
        self.groups = next(groups for groups in range(32, 0, -1) if channels % groups == 0)

    def scale(self, images: torch.Tensor) -> torch.Tensor:
        groups = images.float().unflatten(1, (self.groups, -1))  # [N, groups, C / groups, H, W]
        inverse_std = (groups.var((2, 3, 4), unbiased=False) + self.eps).rsqrt()  # [N, groups]
        per_channel = inverse_std.repeat_interleave(groups.shape[2], 1)[:, :, None, None]
        return torch.sigmoid(self.v[:, None, None] * images) * per_channel.to(images.dtype)


class EvoNormB0(EvoNorm):
    """EvoNorm-B0: y = x / max(s_batch(x), v x + s_instance(x)) gamma + beta.

    s_batch is the standard deviation of a channel over batch, height and width; a running mean of its
    square, `running_var`, stands in for it in evaluation. s_instance is that of one image's channel.
    """

    def __init__(self, channels: int, activation: nn.Module | None = None, **kwargs):
        super().__init__(channels, activation, **kwargs)
        if activation is not None:
            self.register_buffer("running_var", torch.ones(channels))

    def scale(self, images: torch.Tensor) -> torch.Tensor:
        values = images.float()
        if self.training:
            batch_var = values.var((0, 2, 3), unbiased=False)
            self.running_var.lerp_(batch_var.detach(), self.momentum)
        else:
            batch_var = self.running_var
        batch_std = (batch_var + self.eps).sqrt()[:, None, None]
        instance_std = (values.var((2, 3), unbiased=False, keepdim=True) + self.eps).sqrt()
        return torch.maximum(batch_std, self.v[:, None, None] * values + instance_std).reciprocal()
