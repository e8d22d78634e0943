"""Norm-and-activation modules: every network asks for a norm together with what follows it.

EvoNorm layers are norm and activation in one, so a network that kept its own ReLU after them would
activate twice. Asking for both at once leaves that decision to the layer.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable

from network import NORMS
from network.evonorm import EvoNormB0, EvoNormS0, line, wide


class BatchNormAct(nn.BatchNorm2d):
    """Batch normalisation, then an activation: [N, C, H, W] -> [N, C, H, W].

    Parameters and buffers are those of `nn.BatchNorm2d`, under the same names. But `num_batches_tracked` is
    left as it is: nothing reads it, and counting takes a kernel for each layer and step. With a `group` the
    statistics are those of the batches of all its processes together.
    """

    group: Any = None  # a `utils.run.group.Group`

    def __init__(
        self, channels: int, activation: nn.Module | None = None, eps: float = 1e-5, momentum: float = 0.1
    ):
        super().__init__(channels, eps, momentum)
        self.momentum: float  # never None, which would be a mean over all steps
        self.activation = activation or nn.Identity()

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        statistics = self.running_mean, self.running_var
        affine = self.weight, self.bias
        if self.training and self.group is not None:
            given = (*affine, *statistics, self.momentum, self.eps, self.group)
            return self.activation(_BatchNormOverAll.apply(features, *given))
        return self.activation(
            F.batch_norm(features, *statistics, *affine, self.training, self.momentum, self.eps)
        )


class _BatchNormOverAll(torch.autograd.Function):
    """Batch normalisation over the images of several processes, with its gradients.

    With the mean m and the variance s^2 of the n values of a channel, and g = dL/dy:

        dL/dx = gamma / s (g - sum(g) / n - (x - m) sum(g (x - m)) / (n s^2))

    where sums are over all processes. Gradients of gamma and beta are of this process's images, as those
    of all other parameters. The variance is a mean of squares around the mean, not a difference of two means.
    """

    @staticmethod
    def forward(ctx, features, weight, bias, running_mean, running_var, momentum, eps, group):
        values = features.to(wide(features))
        count = values.new_full((1,), features.numel() // features.shape[1])
        *sums, count = group.sum(torch.cat([values.sum((0, 2, 3)), count])).split([features.shape[1], 1])
        mean = sums[0] / count
        square = (values - mean[:, None, None]).square_().sum((0, 2, 3))
        squares = group.sum(square)
        variance = squares / count
        running_mean.lerp_(mean.to(running_mean.dtype), momentum)
        running_var.lerp_((squares / (count - 1)).to(running_var.dtype), momentum)
        ctx.group = group
        ctx.save_for_backward(features, weight, mean, (variance + eps).rsqrt(), count)
        mean, variance = mean.to(weight.dtype), variance.to(weight.dtype)
        return F.batch_norm(features, mean, variance, weight, bias, False, 0.0, eps)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        features, weight, mean, inverse_std, count = ctx.saved_tensors
        gradients = grad.to(mean.dtype)
        of_bias = gradients.sum((0, 2, 3))
        products = (gradients * (features.to(mean.dtype) - mean[:, None, None])).sum((0, 2, 3))
        sums, all_products = ctx.group.sum(torch.stack((of_bias, products))) / count
        slopes = -weight * inverse_std**3 * all_products
        offsets = slopes * mean + weight * inverse_std * sums
        scale = (weight * inverse_std).to(grad.dtype)[:, None, None]
        grad_features = torch.addcmul(line(features, slopes, offsets), grad, scale)
        return (grad_features, products * inverse_std, of_bias, *[None] * 5)


def synchronise(network: nn.Module, group: Any) -> None:
    """Let all norms of the network that see a whole batch see those of all processes of the group."""
    for layer in network.modules():
        if isinstance(layer, BatchNormAct | EvoNormB0):
            layer.group = group


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
