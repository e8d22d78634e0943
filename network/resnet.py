"""ResNet (He et al. 2015, arXiv 1512.03385) and the tweaks of the Bag of Tricks (arXiv 1812.01187, 4.2).

- `ResNet50` is torchvision's, with the stride of a bottleneck in its 3x3 convolution: ResNet-B of the
  paper, so `ResNet50-B` is another name for it. Blocks of two convolutions (depths 18 and 34) have their
  stride there anyway.
- `-C` replaces the stem's 7x7 convolution by three 3x3 ones.
- `-D` does that too, and pools before the 1x1 convolution of a strided shortcut, which otherwise ignores
  three quarters of its input.

The state dict has torchvision's names, and timm's (resnet50c, resnet50d) for the parts of C and D.
"""

from collections import OrderedDict

import torch
from torch import nn

from network.layers import Conv2d, Dropout, StochasticDepth
from network.members import RESNETS
from network.norm import NormLayer


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> Conv2d:
    """A convolution without bias that divides the size by `stride`."""
    return Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)


def shortcut(inputs: int, outputs: int, stride: int, norm: NormLayer, pooled: bool) -> nn.Module:
    """The input itself or, where the shape changes, a projection of it, `pooled` in ResNet-D."""
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    if not pooled:
        return nn.Sequential(conv(inputs, outputs, 1, stride), norm(outputs))
    pool = nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False) if stride == 2 else nn.Identity()
    return nn.Sequential(pool, conv(inputs, outputs, 1), norm(outputs))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions: [N, C, H, W] -> [N, width, H / stride, W / stride]."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int, norm: NormLayer, pooled: bool):
        super().__init__()
        self.conv1 = conv(inputs, width, 3, stride)
        self.bn1 = norm(width, nn.ReLU(inplace=True))
        self.conv2 = conv(width, width, 3)
        self.bn2 = norm(width)
        self.downsample = shortcut(inputs, width, stride, norm, pooled)
        self.sum = StochasticDepth(0.0)
        self.relu = nn.ReLU(inplace=True)

    @property
    def last_norm(self) -> nn.Module:
        """The norm that --zero_gamma starts at 0."""
        return self.bn2

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        branch = self.bn1(self.conv1(features))
        branch = self.bn2(self.conv2(branch))
        return self.relu(self.sum(branch, self.downsample(features)))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions: [N, C, H, W] -> [N, 4 * width, H / stride, W / stride]."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int, norm: NormLayer, pooled: bool):
        super().__init__()
        outputs = width * self.expansion
        self.conv1 = conv(inputs, width, 1)
        self.bn1 = norm(width, nn.ReLU(inplace=True))
        self.conv2 = conv(width, width, 3, stride)
        self.bn2 = norm(width, nn.ReLU(inplace=True))
        self.conv3 = conv(width, outputs, 1)
        self.bn3 = norm(outputs)
        self.downsample = shortcut(inputs, outputs, stride, norm, pooled)
        self.sum = StochasticDepth(0.0)
        self.relu = nn.ReLU(inplace=True)

    @property
    def last_norm(self) -> nn.Module:
        """The norm that --zero_gamma starts at 0."""
        return self.bn3

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        branch = self.bn1(self.conv1(features))
        branch = self.bn2(self.conv2(branch))
        branch = self.bn3(self.conv3(branch))
        return self.relu(self.sum(branch, self.downsample(features)))


class ResNet(nn.Module):
    """Images [N, 3, H, W] -> logits [N, num_classes], through four stages at 1/4 to 1/32 of the size."""

    head, feature_layer = "fc", "layer4"
    layer1: nn.Sequential
    layer2: nn.Sequential
    layer3: nn.Sequential
    layer4: nn.Sequential

    def __init__(self, member: str, tweak: str, num_classes: int, norm: NormLayer):
        super().__init__()
        block: type[BasicBlock | Bottleneck] = Bottleneck if RESNETS[member].bottleneck else BasicBlock
        if tweak in ("C", "D"):
            layers = (
                ("0", conv(3, 32, 3, stride=2)),
                ("1", norm(32, nn.ReLU(inplace=True))),
                ("3", conv(32, 32, 3)),  # timm counts the activations too
                ("4", norm(32, nn.ReLU(inplace=True))),
                ("6", conv(32, 64, 3)),
            )
            self.conv1: nn.Module = nn.Sequential(OrderedDict(layers))
        else:
            self.conv1 = conv(3, 64, 7, stride=2)
        self.bn1 = norm(64, nn.ReLU(inplace=True))
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        inputs = 64
        for stage, depth in enumerate(RESNETS[member].depths):
            width, blocks = 64 * 2**stage, nn.Sequential()
            for position in range(depth):
                stride = 2 if stage > 0 and position == 0 else 1
                blocks.append(block(inputs, width, stride, norm, pooled=tweak == "D"))
                inputs = width * block.expansion
            self.add_module(f"layer{stage + 1}", blocks)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = Dropout(0.0, inputs)
        self.fc = nn.Linear(inputs, num_classes)

        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.maxpool(self.bn1(self.conv1(images)))
        features = self.layer4(self.layer3(self.layer2(self.layer1(features))))
        return self.fc(self.dropout(self.avgpool(features).flatten(1)))


def build(name: str, num_classes: int, norm: NormLayer) -> ResNet:
    """Build a member of the family, such as ResNet50 or ResNet50-D."""
    member, _, tweak = name.partition("-")
    return ResNet(member, tweak, num_classes, norm)
