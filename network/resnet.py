"""ResNet (He et al. 2015, arXiv 1512.03385), as torchvision builds and names it.

`ResNet50` has its stride in the 3x3 convolution of a bottleneck, which the Bag of Tricks paper calls
ResNet-B. The state dict has torchvision's names: files of either load in the other.
"""

import torch
from torch import nn

from network.norm import NormLayer


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """A convolution without bias that keeps the size at stride 1."""
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions: [N, C_in, H, W] -> [N, width, H / stride, W / stride]."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int, norm: NormLayer):
        super().__init__()
        self.conv1 = conv(inputs, width, 3, stride)
        self.bn1 = norm(width, nn.ReLU(inplace=True))
        self.conv2 = conv(width, width, 3)
        self.bn2 = norm(width)
        self.downsample = projection(inputs, width, stride, norm)
        self.relu = nn.ReLU(inplace=True)

    @property
    def last_norm(self) -> nn.Module:
        return self.bn2

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        branch = self.bn1(self.conv1(images))
        branch = self.bn2(self.conv2(branch))
        return self.relu(branch + self.downsample(images))


class Bottleneck(nn.Module):
    """1x1 to `width` channels, 3x3, 1x1 to four times as many.

    [N, C_in, H, W] -> [N, 4 * width, H / stride, W / stride].
    """

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int, norm: NormLayer):
        super().__init__()
        outputs = width * self.expansion
        self.conv1 = conv(inputs, width, 1)
        self.bn1 = norm(width, nn.ReLU(inplace=True))
        self.conv2 = conv(width, width, 3, stride)
        self.bn2 = norm(width, nn.ReLU(inplace=True))
        self.conv3 = conv(width, outputs, 1)
        self.bn3 = norm(outputs)
        self.downsample = projection(inputs, outputs, stride, norm)
        self.relu = nn.ReLU(inplace=True)

    @property
    def last_norm(self) -> nn.Module:
        return self.bn3

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        branch = self.bn1(self.conv1(images))
        branch = self.bn2(self.conv2(branch))
        branch = self.bn3(self.conv3(branch))
        return self.relu(branch + self.downsample(images))


def projection(inputs: int, outputs: int, stride: int, norm: NormLayer) -> nn.Module:
    """The shortcut: a strided 1x1 convolution where the shape changes, else the input itself."""
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    return nn.Sequential(conv(inputs, outputs, 1, stride), norm(outputs))


# Name -> the block and how many of them each of the four stages has (table 1 of the paper).
MEMBERS = {
    "ResNet18": (BasicBlock, (2, 2, 2, 2)),
    "ResNet34": (BasicBlock, (3, 4, 6, 3)),
    "ResNet50": (Bottleneck, (3, 4, 6, 3)),
    "ResNet101": (Bottleneck, (3, 4, 23, 3)),
    "ResNet152": (Bottleneck, (3, 8, 36, 3)),
}


class ResNet(nn.Module):
    """Images [N, 3, H, W] -> logits [N, num_classes], through four stages at 1/4 to 1/32 of the size."""

    head = "fc"

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        depths: tuple[int, ...],
        num_classes: int,
        norm: NormLayer,
    ):
        super().__init__()
        self.conv1 = conv(3, 64, 7, stride=2)
        self.bn1 = norm(64, nn.ReLU(inplace=True))
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        inputs = 64
        for stage, depth in enumerate(depths):
            width = 64 * 2**stage
            blocks = []
            for position in range(depth):
                stride = 2 if stage > 0 and position == 0 else 1
                blocks.append(block(inputs, width, stride, norm))
                inputs = width * block.expansion
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(inputs, num_classes)

        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.maxpool(self.bn1(self.conv1(images)))
        features = self.layer4(self.layer3(self.layer2(self.layer1(features))))
        return self.fc(self.avgpool(features).flatten(1))


def build(name: str, num_classes: int, norm: NormLayer) -> ResNet:
    """Build a member of the family; raises `KeyError` for a name not in `MEMBERS`."""
    block, depths = MEMBERS[name]
    return ResNet(block, depths, num_classes, norm)
