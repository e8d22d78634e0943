"""What the families share. All of it maps [N, C, H, W] to [N, C', H', W']."""

import torch
import torch.nn.functional as F
from torch import nn

from network.norm import NormLayer


class Conv2d(nn.Conv2d):
    """A convolution that a CPU does in fp32 where its bf16 is slower: depthwise ones.

    Their backward pass in bf16 leaves oneDNN's fast path (torch 2.14, a CPU with AMX: 1.3 to 30 times
    slower than in fp32, most with a stride or a 5 x 5 kernel). All others, grouped ones included, are
    faster in bf16, and so are all of them on a GPU.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.is_depthwise = 1 < self.groups == self.in_channels

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.is_depthwise and images.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
            with torch.autocast("cpu", enabled=False):
                return super().forward(images.float())
        return super().forward(images)


class SameConv2d(Conv2d):
    """A convolution with TensorFlow's "SAME" padding: the output is ceil(size / stride).

    At stride 2 on an even size that pads more at the end than at the start, which `nn.Conv2d` cannot.
    """

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        padding = []
        for axis in (1, 0):  # F.pad counts from the last axis
            kernel, stride, size = self.kernel_size[axis], self.stride[axis], images.shape[2 + axis]
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            padding += [total // 2, total - total // 2]
        return super().forward(F.pad(images, padding))


def whole_multiple(channels: float, divisor: int) -> int:
    """The multiple of `divisor` nearest to `channels`, above 0 and no more than 10 % smaller."""
    multiple = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return multiple if multiple >= 0.9 * channels else multiple + divisor


def conv_norm(
    inputs: int,
    outputs: int,
    kernel: int,
    stride: int,
    norm: NormLayer,
    activation: nn.Module | None = None,
    groups: int = 1,
    same: bool = False,
) -> nn.Sequential:
    """A convolution without bias, a norm, and an activation unless it is None.

    The size is divided by `stride`. `same` pads as TensorFlow does, which differs at stride 2 only.
    """
    if same and stride > 1:
        conv = SameConv2d(inputs, outputs, kernel, stride, groups=groups, bias=False)
    else:
        conv = Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, norm(outputs, activation))


class SqueezeExcitation(nn.Module):
    """Channels weighted by what the whole image holds (Hu et al. 2017, arXiv 1709.01507).

    x * sigmoid(W2 act(W1 mean(x))), with the mean over height and width and `squeezed` channels between.
    """

    def __init__(self, channels: int, squeezed: int, activation: nn.Module):
        super().__init__()
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.activation = activation
        self.fc2 = nn.Conv2d(squeezed, channels, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        weights = self.fc2(self.activation(self.fc1(images.mean((2, 3), keepdim=True))))
        return images * weights.sigmoid()


class StochasticDepth(nn.Module):
    """The sum of a residual branch and its shortcut, where training leaves out branches at random.

    With probability p an image's branch is dropped, else divided by 1 - p (Huang et al. 2016, arXiv
    1603.09382, with the scaling at training time). The branch is overwritten with the sum.
    """

    def __init__(self, p: float):
        super().__init__()
        self.p = p

    def forward(self, branch: torch.Tensor, shortcut: torch.Tensor) -> torch.Tensor:
        if not self.training or self.p == 0:
            return branch.add_(shortcut)
        keep = 1 - self.p
        weights = branch.new_empty(len(branch), 1, 1, 1).bernoulli_(keep).div_(keep)
        return torch.addcmul(shortcut, branch, weights)

    def extra_repr(self) -> str:
        return f"p={self.p:.3g}"


def set_drop_path(network: nn.Module, p: float) -> None:
    """Let training drop residual branch l of L with probability p l / L."""
    sums = [module for module in network.modules() if isinstance(module, StochasticDepth)]
    for number, module in enumerate(sums, 1):
        module.p = p * number / len(sums)


def set_dropout(network: nn.Module, p: float) -> None:
    """Let training drop each feature before the last layer with probability p."""
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = p
