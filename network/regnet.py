"""RegNet (Radosavovic et al. 2020, arXiv 2003.13678): networks whose widths lie on a line.

RegNetY adds squeeze-and-excitation to RegNetX. Members are named as in the pycls model zoo; the state
dict has torchvision's names. Of three members torchvision rounds a width the other way than pycls; they
are torchvision's here, and pycls's files of them do not fit.
"""

import math
from collections.abc import Iterator
from itertools import groupby

import torch
from torch import nn

from network.layers import Dropout, SqueezeExcitation, StochasticDepth, conv_norm, whole_multiple
from network.members import REGNETS, Line
from network.norm import NormLayer

STEM_WIDTH = 32
SE_RATIO = 0.25  # of the width that enters a block


def stages(line: Line) -> Iterator[tuple[int, int, int]]:
    """The (depth, width, group width) of each stage.

    Block j has u_j = w_0 + w_a j (equation 2), s_j = log_{w_m}(u_j / w_0) (equation 3) and the width
    w_0 w_m^{round(s_j)} (equation 4) rounded to a multiple of 8; blocks of equal width make a stage,
    whose width is then rounded to whole groups.
    """
    widths = []
    for j in range(line.depth):
        s = math.log((line.w_0 + line.w_a * j) / line.w_0) / math.log(line.w_m)
        widths.append(8 * round(line.w_0 * line.w_m ** round(s) / 8))
    for width, blocks in groupby(widths):
        group_width = min(line.group_width, width)
        if line.as_torchvision:
            width = whole_multiple(width, group_width)
        else:
            width = max(1, round(width / group_width)) * group_width
        yield len(list(blocks)), width, group_width


class Branch(nn.Sequential):
    """The bottleneck of a block: 1x1, 3x3 in groups, squeeze-and-excitation in RegNetY, 1x1."""

    def __init__(self, inputs: int, width: int, stride: int, group_width: int, se: bool, norm: NormLayer):
        super().__init__()
        self.a = conv_norm(inputs, width, 1, 1, norm, nn.ReLU(inplace=True))
        self.b = conv_norm(width, width, 3, stride, norm, nn.ReLU(inplace=True), width // group_width)
        if se:
            self.se = SqueezeExcitation(width, round(SE_RATIO * inputs), nn.ReLU(inplace=True))
        self.c = conv_norm(width, width, 1, 1, norm)


class Block(nn.Module):
    """X or Y block: [N, C, H, W] -> [N, width, H / stride, W / stride]."""

    def __init__(self, inputs: int, width: int, stride: int, group_width: int, se: bool, norm: NormLayer):
        super().__init__()
        if inputs != width or stride > 1:
            self.proj: nn.Module = conv_norm(inputs, width, 1, stride, norm)
        else:
            self.proj = nn.Identity()
        self.f = Branch(inputs, width, stride, group_width, se, norm)
        self.sum = StochasticDepth(0.0)
        self.activation = nn.ReLU(inplace=True)

    @property
    def last_norm(self) -> nn.Module:
        """The norm that --zero_gamma starts at 0."""
        return self.f.c[1]

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.activation(self.sum(self.f(features), self.proj(features)))


class RegNet(nn.Module):
    """Images [N, 3, H, W] -> logits [N, num_classes], through a stem and four stages of stride 2."""

    head, feature_layer = "fc", "trunk_output"

    def __init__(self, line: Line, se: bool, num_classes: int, norm: NormLayer):
        super().__init__()
        self.stem = conv_norm(3, STEM_WIDTH, 3, 2, norm, nn.ReLU(inplace=True))
        self.trunk_output = nn.Sequential()
        inputs = STEM_WIDTH
        for number, (depth, width, group_width) in enumerate(stages(line), 1):
            stage = nn.Sequential()
            for position in range(depth):
                block = Block(inputs, width, 2 if position == 0 else 1, group_width, se, norm)
                stage.add_module(f"block{number}-{position}", block)
                inputs = width
            self.trunk_output.add_module(f"block{number}", stage)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = Dropout(0.0, inputs)
        self.fc = nn.Linear(inputs, num_classes)

        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = math.prod(module.kernel_size) * module.out_channels
                nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
        nn.init.normal_(self.fc.weight, std=0.01)
        nn.init.zeros_(self.fc.bias)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.trunk_output(self.stem(images))
        return self.fc(self.dropout(self.avgpool(features).flatten(1)))


def build(name: str, num_classes: int, norm: NormLayer) -> RegNet:
    """Build a member of the family; raises `KeyError` for a name not in `REGNETS`."""
    return RegNet(REGNETS[name], name.startswith("RegNetY"), num_classes, norm)
