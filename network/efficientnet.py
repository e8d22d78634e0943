"""EfficientNet (Tan and Le 2019, arXiv 1905.11946) and EfficientNet-Lite.

B1 to B7 are B0 made wider and deeper by compound scaling; the state dict has torchvision's names.
Lite is the same without squeeze-and-excitation, with ReLU6 for SiLU, and with a stem, a head and first
and last stages that do not scale (github.com/tensorflow/tpu, models/official/efficientnet/lite).
"""

import math
from functools import partial

import torch
from torch import nn

from network.layers import Dropout, SqueezeExcitation, StochasticDepth, conv_norm, whole_multiple
from network.members import EFFICIENTNETS, Scaling
from network.norm import NormLayer

# Table 1 of the paper: expansion, kernel, stride, channels and blocks of each stage of B0.
STAGES = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)
STEM_WIDTH, HEAD_WIDTH = 32, 1280
STOCHASTIC_DEPTH = 0.2  # block i of n is left out with probability 0.2 i / n, from i = 0


class MBConv(nn.Module):
    """Mobile inverted bottleneck: 1x1 expansion, depthwise convolution, squeeze-excitation, 1x1 projection.

    [N, inputs, H, W] -> [N, outputs, H / stride, W / stride]. A block that keeps its shape is residual.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        expansion: int,
        kernel: int,
        stride: int,
        p: float,
        lite: bool,
        norm: NormLayer,
    ):
        super().__init__()
        activation = partial(nn.ReLU6, inplace=True) if lite else nn.SiLU
        width = inputs * expansion
        self.block = nn.Sequential()
        if expansion > 1:
            self.block.append(conv_norm(inputs, width, 1, 1, norm, activation()))
        self.block.append(conv_norm(width, width, kernel, stride, norm, activation(), width, same=lite))
        if not lite:
            self.block.append(SqueezeExcitation(width, max(1, inputs // 4), nn.SiLU()))
        self.block.append(conv_norm(width, outputs, 1, 1, norm))
        self.sum = StochasticDepth(p) if stride == 1 and inputs == outputs else None

    @property
    def last_norm(self) -> nn.Module | None:
        """The norm that --zero_gamma starts at 0."""
        return self.block[-1].get_submodule("1") if self.sum is not None else None

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        branch = self.block(features)
        return branch if self.sum is None else self.sum(branch, features)


class EfficientNet(nn.Module):
    """Images [N, 3, H, W] -> logits [N, num_classes]; features are at 1/32 of the size."""

    head, feature_layer = "classifier.1", "features"

    def __init__(self, scale: Scaling, num_classes: int, norm: NormLayer):
        super().__init__()
        activation = partial(nn.ReLU6, inplace=True) if scale.lite else nn.SiLU
        stem_width = STEM_WIDTH if scale.lite else whole_multiple(STEM_WIDTH * scale.width, 8)
        self.features = nn.Sequential(conv_norm(3, stem_width, 3, 2, norm, activation(), same=scale.lite))

        ends = (0, len(STAGES) - 1) if scale.lite else ()
        depths = [
            blocks if number in ends else math.ceil(blocks * scale.depth)
            for number, (*_, blocks) in enumerate(STAGES)
        ]
        inputs, count = stem_width, 0
        for (expansion, kernel, stride, channels, _), depth in zip(STAGES, depths, strict=True):
            outputs = whole_multiple(channels * scale.width, 8)
            stage = nn.Sequential()
            for position in range(depth):
                p = STOCHASTIC_DEPTH * count / sum(depths)
                first_stride = stride if position == 0 else 1
                stage.append(MBConv(inputs, outputs, expansion, kernel, first_stride, p, scale.lite, norm))
                inputs, count = outputs, count + 1
            self.features.append(stage)

        head_width = HEAD_WIDTH if scale.lite else 4 * inputs
        self.features.append(conv_norm(inputs, head_width, 1, 1, norm, activation()))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        # The last layer starts as torch starts it. The authors' bound of 1 / sqrt(classes) is meant for a
        # thousand classes; for a handful it makes a first loss of twice that of guessing.
        self.classifier = nn.Sequential(
            Dropout(scale.dropout, head_width), nn.Linear(head_width, num_classes)
        )

        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.avgpool(self.features(images)).flatten(1))


def build(name: str, num_classes: int, norm: NormLayer) -> EfficientNet:
    """Build a member of the family; raises `KeyError` for a name not in `EFFICIENTNETS`."""
    scale = EFFICIENTNETS[name]
    if scale.lite or name >= "EfficientNet-B5":  # as their published weights were trained
        norm = partial(norm, eps=1e-3, momentum=0.01)
    return EfficientNet(scale, num_classes, norm)
