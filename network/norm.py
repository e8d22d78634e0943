"""Norm-and-activation modules: every network asks for a norm together with what follows it.

EvoNorm layers are norm and activation in one, so a network that kept its own ReLU after them would
activate twice. Asking for both at once leaves that decision to the layer.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from network import NORMS
from network.evonorm import EvoNormB0, EvoNormS0


class BatchNormAct(nn.BatchNorm2d):
    """Batch normalisation, then an activation: [N, C, H, W] -> [N, C, H, W].

    Parameters and buffers are those of `nn.BatchNorm2d`, under the same names. But `num_batches_tracked` is
    left as it is: nothing reads it, and counting takes a kernel for each layer and step.
    """

    def __init__(
        self, channels: int, activation: nn.Module | None = None, eps: float = 1e-5, momentum: float = 0.1
    ):
        super().__init__(channels, eps, momentum)
        self.momentum: float  # never None, which would be a mean over all steps
        self.activation = activation or nn.Identity()

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        statistics = self.running_mean, self.running_var
        affine = self.weight, self.bias
        return self.activation(
            F.batch_norm(features, *statistics, *affine, self.training, self.momentum, self.eps)
        )


class FrozenBatchNormAct(BatchNormAct):
    """Batch normalisation by the stored mean and variance, in training too; gamma and beta are trained.

    With few images, small batches or few steps, statistics from ImageNet describe the images better than
    those of a batch do, and training and evaluation see the same function. It needs pretrained weights:
    fresh statistics (mean 0, variance 1) normalise nothing.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.train()  # a module starts in training mode without being told so

    def train(self, mode: bool = True) -> "FrozenBatchNormAct":
        super().train(mode)
        self.training = False
        return self


# All take (channels, activation, eps, momentum); without an activation the layer ends a branch.
NormLayer = Callable[..., nn.Module]
NORM_LAYERS: dict[str, NormLayer] = dict(
    zip(NORMS, (BatchNormAct, FrozenBatchNormAct, EvoNormS0, EvoNormB0), strict=True)
)


def residual_last_norms(network: nn.Module) -> list[nn.Module]:
    """The last norm of each residual branch; a residual block names it as its attribute `last_norm`."""
    norms = (getattr(block, "last_norm", None) for block in network.modules())
    return [norm for norm in norms if norm is not None]


def zero_residual_gammas(network: nn.Module) -> int:
    """Set gamma of each residual branch's last norm to 0; returns how many there are."""
    norms = residual_last_norms(network)
    for norm in norms:
        nn.init.zeros_(norm.get_parameter("weight"))
    return len(norms)
