"""What the families share. All of it maps [N, C, H, W] to [N, C', H', W']."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from network.depthwise import DepthwiseConv2d
from network.norm import NormLayer

# Up to how many output pixels a convolution is faster as a matrix product: for 1 x 1 kernels, and for others
# as a multiple of the output channels. Any other precision counts as fp32.
FEW_PIXELS = {torch.float32: (1024, 0.5), torch.bfloat16: (4096, 1.0)}


class Conv2d(nn.Conv2d):
    """`nn.Conv2d`, trained on a CPU in the way that is fastest there; a GPU's library chooses for itself.

    In evaluation, which has no backward pass to gain from, it is `nn.Conv2d` to the bit. Measured with
    torch 2.14, forward and backward pass, on 2 cores with AMX, on 2 with AVX512-BF16 and on those with AVX2:

    - Depthwise convolutions stay in fp32 under autocast. In bf16 their backward pass leaves oneDNN's
      fast path and takes 1.3 to 30 times as long, most with a stride or a 5 x 5 kernel. All others,
      grouped ones included, are faster in bf16.
    - On maps smaller than their kernel the weight gradient of depthwise convolutions leaves that path in
      fp32 too, and takes 2 to 100 times as long as a sum for each tap of the kernel.
    - Where there are few output pixels, as in the last stages of a network, a convolution is a product
      of matrices: a row for each output pixel of the batch and a column for each weight of a filter.
      oneDNN spends its time on reordering the weights then, and takes up to 9 times as long.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int = 1,
        padding: int = 0,
        groups: int = 1,
        bias: bool = True,
    ):
        super().__init__(inputs, outputs, kernel, stride, padding, groups=groups, bias=bias)
        self.is_depthwise = 1 < groups == inputs == outputs

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        if features.device.type != "cpu" or not self.training:
            return super().forward(features)
        low_precision = torch.is_autocast_enabled("cpu")
        if self.is_depthwise:
            with torch.autocast("cpu", enabled=False):
                return self._depthwise(features.float() if low_precision else features)
        dtype = torch.get_autocast_dtype("cpu") if low_precision else features.dtype
        few, few_a_channel = FEW_PIXELS.get(dtype, FEW_PIXELS[torch.float32])
        pixels = len(features) * math.prod(features.shape[2:]) // math.prod(self.stride)
        most = few if self.kernel_size == (1, 1) else few_a_channel * self.out_channels
        if self.groups == 1 and pixels <= most:
            return self._as_product(features)
        return super().forward(features)

    def _depthwise(self, features: torch.Tensor) -> torch.Tensor:
        (kernel, _), (stride, _) = self.kernel_size, self.stride
        if min(features.shape[2:]) >= kernel + stride - 1:
            return super().forward(features)
        outputs = DepthwiseConv2d.apply(features, self.weight, stride, self.padding[0])
        return outputs if self.bias is None else outputs + self.bias[:, None, None]

    def _as_product(self, features: torch.Tensor) -> torch.Tensor:
        """The same by a matrix product; [N, C, H, W] to [N, C', H', W'] in channels_last memory order."""
        rows = features.permute(0, 2, 3, 1)
        if self.kernel_size == (1, 1):
            rows = rows[:, :: self.stride[0], :: self.stride[1]]
        else:
            height, width = map(int, self.padding)  # never a word, as "same"
            rows = F.pad(rows, (0, 0, width, width, height, height))
            for axis in (0, 1):
                rows = rows.unfold(1 + axis, self.kernel_size[axis], self.stride[axis])
            rows = rows.permute(0, 1, 2, 4, 5, 3).flatten(3)  # [N, H', W', k * k * C]
        filters = self.weight.permute(0, 2, 3, 1).flatten(1)
        return F.linear(rows, filters, self.bias).permute(0, 3, 1, 2)


class SameConv2d(Conv2d):
    """A convolution with TensorFlow's "SAME" padding: the output is ceil(size / stride).

    At stride 2 on an even size that pads more at the end than at the start, which `nn.Conv2d` cannot.
    """

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        padding = []
        for axis in (1, 0):  # F.pad counts from the last axis
            kernel, stride, size = self.kernel_size[axis], self.stride[axis], features.shape[2 + axis]
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            padding += [total // 2, total - total // 2]
        return super().forward(F.pad(features, padding))


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
    conv: Conv2d
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
        self.fc1 = Conv2d(channels, squeezed, 1)
        self.activation = activation
        self.fc2 = Conv2d(squeezed, channels, 1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        weights = self.fc2(self.activation(self.fc1(features.mean((2, 3), keepdim=True))))
        return features * weights.sigmoid()


class RandomLayer(nn.Module):
    """A layer that in training drops parts of its input with probability `p` and divides the rest by 1 - p.

    Which ones is decided by `columns` numbers in [0, 1) for each image, of the random `stream`. A training
    step that draws them itself sets `factors`, on the images' device, to what `draw` makes of them, and back
    to None. Else torch's generator draws.
    """

    stream: str

    def __init__(self, p: float, columns: int):
        super().__init__()
        self.p = p
        self.columns = columns
        self.factors: torch.Tensor | None = None

    def draw(self, uniforms: np.ndarray) -> np.ndarray:
        """0 or 1 / (1 - p), float32, for numbers [N, columns]; with as many dimensions as the input has."""
        return ((uniforms >= self.p) / (1 - self.p)).astype(np.float32)

    def factors_for(self, inputs: torch.Tensor) -> torch.Tensor:
        """The factors in the precision of the inputs."""
        if self.factors is not None:
            return self.factors.to(inputs.dtype)
        shape = (len(inputs), self.columns, *(1,) * (inputs.ndim - 2))
        return inputs.new_empty(shape).bernoulli_(1 - self.p).div_(1 - self.p)

    def extra_repr(self) -> str:
        return f"p={self.p:.3g}"


class StochasticDepth(RandomLayer):
    """The sum of a residual branch and its shortcut, where training leaves out branches at random.

    With probability p an image's branch is dropped, else divided by 1 - p (Huang et al. 2016, arXiv
    1603.09382, with the scaling at training time). The branch is overwritten with the sum.
    """

    stream = "drop_path"

    def __init__(self, p: float):
        super().__init__(p, columns=1)

    def draw(self, uniforms: np.ndarray) -> np.ndarray:
        """One for each image: [N, 1, 1, 1]."""
        return super().draw(uniforms)[:, :, None, None]

    def forward(self, branch: torch.Tensor, shortcut: torch.Tensor) -> torch.Tensor:
        if not self.training or self.p == 0:
            return branch.add_(shortcut)
        return torch.addcmul(shortcut, branch, self.factors_for(branch))


class Dropout(RandomLayer):
    """Training drops each of `features` of an image with probability p (arXiv 1207.0580); [N, features]."""

    stream = "dropout"

    def __init__(self, p: float, features: int):
        super().__init__(p, columns=features)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features * self.factors_for(features) if self.training and self.p else features


def random_layers(network: nn.Module) -> list[RandomLayer]:
    """Those that drop anything, in the order of the network."""
    return [module for module in network.modules() if isinstance(module, RandomLayer) and module.p]


def set_drop_path(network: nn.Module, p: float) -> None:
    """Let training drop residual branch l of L with probability p l / L."""
    sums = [module for module in network.modules() if isinstance(module, StochasticDepth)]
    for number, module in enumerate(sums, 1):
        module.p = p * number / len(sums)


def set_dropout(network: nn.Module, p: float) -> None:
    """Let training drop each feature before the last layer with probability p."""
    for module in network.modules():
        if isinstance(module, Dropout):
            module.p = p
