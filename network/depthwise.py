"""Depthwise convolutions on small feature maps, whose weight gradient a CPU's library computes slowly."""

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable


class DepthwiseConv2d(torch.autograd.Function):
    """`F.conv2d` of C groups, with `weight_gradient` as its weights' gradient, which has none itself."""

    @staticmethod
    def forward(ctx, features: torch.Tensor, weight: torch.Tensor, stride: int, padding: int) -> torch.Tensor:
        """Images [N, C, H, W] and weight [C, 1, k, k] to [N, C, H', W']."""
        ctx.save_for_backward(features, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(features, weight, None, stride, padding, groups=len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: torch.Tensor) -> tuple:
        """The gradients of features and weight for that of the output, [N, C, H', W']."""
        features, weight = ctx.saved_tensors
        stride, padding = ctx.stride, ctx.padding
        grad_features = grad_weight = None
        if ctx.needs_input_grad[0]:
            settings = ([stride] * 2, [padding] * 2, [1, 1], False, [0, 0], len(weight), (True, False, False))
            grad_features, *_ = torch.ops.aten.convolution_backward(grad, features, weight, None, *settings)
        if ctx.needs_input_grad[1]:
            grad_weight = weight_gradient(features, grad, weight.shape[2], stride, padding)
        return grad_features, grad_weight, None, None


# An operation of its own, so that torch.compile calls it and does not unroll its sums.
@torch.library.custom_op("tricks::depthwise_weight_gradient", mutates_args=())
def weight_gradient(
    features: torch.Tensor, grad: torch.Tensor, kernel: int, stride: int, padding: int
) -> torch.Tensor:
    """The gradient of the weights, [C, 1, k, k], for features [N, C, H, W] and the output's, [N, C, H', W'].

    A sum for each tap (i, j) of the kernel, over the output positions o = (row, column) that meet a pixel:

        dL/dw[c, i, j] = sum_n sum_o features[n, c, stride * o + (i, j) - padding] grad[n, c, o]
    """
    result = features.new_zeros(features.shape[1], 1, kernel, kernel)
    for i in range(kernel):
        rows, their_rows = _meeting(i - padding, stride, features.shape[2], grad.shape[2])
        for j in range(kernel):
            columns, their_columns = _meeting(j - padding, stride, features.shape[3], grad.shape[3])
            products = features[:, :, rows, columns] * grad[:, :, their_rows, their_columns]
            result[:, 0, i, j] = products.sum((0, 2, 3))
    return result


@weight_gradient.register_fake
def _(features: torch.Tensor, grad: torch.Tensor, kernel: int, stride: int, padding: int) -> torch.Tensor:
    return features.new_empty(features.shape[1], 1, kernel, kernel)


def _meeting(offset: int, stride: int, inputs: int, outputs: int) -> tuple[slice, slice]:
    """Which inputs a tap meets, and the outputs o that meet them, with input = stride * o + offset."""
    first = max(0, -(offset // stride))
    last = min(outputs - 1, (inputs - 1 - offset) // stride)
    if last < first:
        return slice(0), slice(0)
    return slice(stride * first + offset, stride * last + offset + 1, stride), slice(first, last + 1)
