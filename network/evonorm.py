"""EvoNorm: layers that are norm and activation in one (Liu et al. 2020, arXiv 2004.02967, table 2).

Both variants map [N, C, H, W] to the same shape and precision and have parameters of shape (C,): `weight`
(gamma), `bias` (beta) and `v`. Statistics are computed in float32 also under autocast: the variance of
half-precision values would lose its digits.

Written with torch's operations a layer would keep half a dozen maps for the backward pass. Here it keeps its
input alone, as batch norm does, and the gradients are written out. They have no gradients themselves.

A layer without activation ends a residual branch or a linear bottleneck. There only gamma and beta are
applied, as in the authors' code, since what is left of both layers is their nonlinearity.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable

NO_EPS = 1e-30  # torch wants some, and 1 + this is 1


class EvoNorm(nn.Module):
    """What the variants share: subclasses define `activate`, for layers that are an activation too.

    Of `activation` only matters whether there is one; the layer brings its own.
    """

    zeros: torch.Tensor
    ones: torch.Tensor

    def __init__(
        self, channels: int, activation: nn.Module | None = None, eps: float = 1e-5, momentum: float = 0.1
    ):
        super().__init__()
        self.eps = eps
        self.momentum = momentum
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.v = nn.Parameter(torch.ones(channels)) if activation is not None else None
        if self.v is None:
            self.register_buffer("zeros", torch.zeros(channels), persistent=False)
            self.register_buffer("ones", torch.ones(channels), persistent=False)

    def activate(self, features: torch.Tensor) -> torch.Tensor:
        """The norm, the activation, gamma and beta: [N, C, H, W] to the same shape."""
        raise NotImplementedError

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        if self.v is not None:
            return self.activate(features)
        # By given statistics, batch norm is gamma and beta alone, in one kernel that keeps the precision.
        return F.batch_norm(features, self.zeros, self.ones, self.weight, self.bias, eps=NO_EPS)

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

    def activate(self, features: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            mean, square = (values.unflatten(1, (self.groups, -1)).mean(2) for values in _moments(features))
            inverse_std = (_variance(mean, square) + self.eps).rsqrt()
        return _S0.apply(features, self.v, self.weight, self.bias, mean, inverse_std)


class EvoNormB0(EvoNorm):
    """EvoNorm-B0: y = x / max(s_batch(x), v x + s_instance(x)) gamma + beta.

    s_batch is the standard deviation of a channel over batch, height and width; a running mean of its
    square, `running_var`, stands in for it in evaluation. s_instance is that of one image's channel. With a
    `group` the batch is that of all its processes together.
    """

    running_var: torch.Tensor
    group: Any = None  # a `utils.run.group.Group`

    def __init__(self, channels: int, activation: nn.Module | None = None, **kwargs):
        super().__init__(channels, activation, **kwargs)
        if activation is not None:
            self.register_buffer("running_var", torch.ones(channels))

    def activate(self, features: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            mean, square = _moments(features)
            batch_mean, batch_var, count = mean.mean(0), self.running_var, None
            group = self.group if self.training else None
            if self.training:
                batch_square = square.mean(0)
                if group is not None:
                    count = mean.new_full((1,), len(mean))
                    sums = group.sum(torch.cat([mean.sum(0), square.sum(0), count]))
                    batch_mean, batch_square, count = sums.split([mean.shape[1], mean.shape[1], 1])
                    batch_mean, batch_square = batch_mean / count, batch_square / count
                batch_var = _variance(batch_mean, batch_square)
                self.running_var.lerp_(batch_var, self.momentum)
            batch_std, instance_std = (
                (var + self.eps).sqrt() for var in (batch_var, _variance(mean, square))
            )
        statistics = (mean, batch_mean, instance_std, batch_std)
        given = (self.v, self.weight, self.bias, *statistics, self.training, group, count)
        return _B0.apply(features, *given)


def _moments(features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean, and the mean of the squares, of each channel of each image: [N, C] in float32 or better."""
    pixels = math.prod(features.shape[2:])
    if features.device.type != "cpu":
        return _sums(features) / pixels, _norms(features).square() / pixels
    features = features.to(wide(features))
    return _sums(features) / pixels, _sums(features.square()) / pixels


def _norms(features: torch.Tensor) -> torch.Tensor:
    """[N, C, H, W] to [N, C], on a GPU in one pass without a map in float32; a CPU is slow at it."""
    return torch.linalg.vector_norm(features, 2, (2, 3), dtype=wide(features))


def wide(values: torch.Tensor) -> torch.dtype:
    """The precision of sums over values: float32 or better."""
    return torch.promote_types(values.dtype, torch.float32)


def _variance(mean: torch.Tensor, square: torch.Tensor) -> torch.Tensor:
    """E[x^2] - E[x]^2, which rounding may leave below 0.

    Its relative error is that of float32 times E[x]^2 / Var[x], which is 1e-4 where the mean is 30 times the
    standard deviation. A pass more over the maps would spare it.
    """
    return (square - mean.square()).clamp(min=0)


def _sums(values: torch.Tensor) -> torch.Tensor:
    """Over height and width, in float32 or better: [N, C, H, W] to [N, C]."""
    if values.device.type == "cpu":  # which converts faster than it sums and converts at once
        values = values.to(wide(values))
    return values.sum((2, 3), dtype=wide(values))


def _as_map(values: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    """[C] or [N, C] in the precision of `features`, to be broadcast with them."""
    return values[..., None, None].to(features.dtype)


class _S0(torch.autograd.Function):
    """EvoNorm-S0 with its gradients.

    With z = sigmoid(v x), r = 1 / s_group and g = dL/dy, in a group of n values of mean m:

        dL/dx = g gamma r z (1 + v x (1 - z)) + (x - m) k,   k = -r^3 / n sum_group(g gamma x z)
    """

    @staticmethod
    def forward(ctx, features, v, weight, bias, mean, inverse_std):
        ctx.save_for_backward(features, v, weight, mean, inverse_std)
        scale = _to_channels(inverse_std, features) * weight
        activated = (features * _as_map(v, features)).sigmoid_().mul_(features)
        return torch.addcmul(_as_map(bias, features), activated, _as_map(scale, features))

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        features, v, weight, mean, inverse_std = ctx.saved_tensors
        inner = features * _as_map(v, features)
        gate = inner.sigmoid()
        gated = grad * gate  # g z
        slope = torch.ops.aten.sigmoid_backward(grad, gate)  # g z (1 - z)

        gated_sums = _sums(gated * features)
        inverse_stds = _to_channels(inverse_std, features)
        grad_weight = (gated_sums * inverse_stds).sum(0)
        grad_v = (_sums((slope * features).mul_(features)) * inverse_stds * weight).sum(0)
        grad_bias = _sums(grad).sum(0)

        of_group = (gated_sums * weight).unflatten(1, (mean.shape[1], -1)).sum(2)
        k = of_group * inverse_std**3 * (-mean.shape[1] / math.prod(features.shape[1:]))
        small = line(features, _to_channels(k, features), _to_channels(k * mean, features))
        grad_features = gated.addcmul_(inner, slope).mul_(_as_map(inverse_stds * weight, features))
        return grad_features.add_(small), grad_v, grad_weight, grad_bias, None, None


def line(features: torch.Tensor, slopes: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    """A small part of a gradient, slopes x - offsets ([C] or [N, C] each), rounded as a whole."""
    return torch.addcmul(_as_map(-offsets, features), features, _as_map(slopes, features))


def _to_channels(of_groups: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    """[N, groups] to [N, C]."""
    return of_groups.repeat_interleave(features.shape[1] // of_groups.shape[1], 1)


class _B0(torch.autograd.Function):
    """EvoNorm-B0 with its gradients.

    With d = max(s_batch, v x + s_instance), g = dL/dy, h = dL/dd = -g gamma x / d^2, and [.] being 1 where
    the second of the two is larger, else 0:

        dL/dx = g gamma / d + h [.] v + (x - m_instance) / (H W s_instance) sum_instance(h [.])
                + (x - m_batch) / (N H W s_batch) sum_batch(h (1 - [.]))

    without the last term in evaluation, where s_batch is given.
    """

    @staticmethod
    def forward(
        ctx, features, v, weight, bias, mean, batch_mean, instance_std, batch_std, training, group, count
    ):
        ctx.save_for_backward(features, v, weight, mean, batch_mean, instance_std, batch_std)
        ctx.training, ctx.group, ctx.count = training, group, count
        instance = torch.addcmul(_as_map(instance_std, features), features, _as_map(v, features))
        divided = features / instance.clamp_(min=_as_map(batch_std, features))
        return torch.addcmul(_as_map(bias, features), divided, _as_map(weight, features))

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        features, v, weight, mean, batch_mean, instance_std, batch_std = ctx.saved_tensors
        instance = torch.addcmul(_as_map(instance_std, features), features, _as_map(v, features))
        by_instance = instance > _as_map(batch_std, features)
        divisor = instance.clamp_(min=_as_map(batch_std, features))
        divided = grad / divisor
        products = divided * features
        of_divisor = (products / divisor).mul_(_as_map(-weight, features))  # h
        of_instance = of_divisor * by_instance

        pixels = math.prod(features.shape[2:])
        instance_sums = _sums(of_instance)
        slopes = instance_sums / (pixels * instance_std)
        offsets = slopes * mean
        if ctx.training:
            slope, count = (_sums(of_divisor) - instance_sums).sum(0), len(features)
            if ctx.group is not None:
                slope, count = ctx.group.sum(slope), ctx.count
            slope = slope / (count * pixels * batch_std)
            slopes, offsets = slopes + slope, offsets + slope * batch_mean
        grad_features = (divided * _as_map(weight, features)).addcmul_(of_instance, _as_map(v, features))
        grad_features.add_(line(features, slopes, offsets))
        grad_v, grad_weight, grad_bias = (
            _sums(values).sum(0) for values in (of_instance * features, products, grad)
        )
        return grad_features, grad_v, grad_weight, grad_bias, *[None] * 7
