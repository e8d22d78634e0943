"""Networks with the names of modules that pycls files have, for images in BGR: an oracle for loading.

Written from the names and the order of computation in pycls's anynet.py, effnet.py and resnet.py.
"""

import torch
import torch.nn.functional as F
from torch import nn


def conv(inputs, outputs, kernel, stride=1, groups=1, bias=False):
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=bias)


class SE(nn.Module):
    def __init__(self, width, squeezed, activation):
        super().__init__()
        self.f_ex = nn.Sequential(
            conv(width, squeezed, 1, bias=True),
            activation(),
            conv(squeezed, width, 1, bias=True),
            nn.Sigmoid(),
        )

    def forward(self, x):
        return x * self.f_ex(F.adaptive_avg_pool2d(x, 1))


class BottleneckTransform(nn.Module):
    def __init__(self, inputs, inner, outputs, stride, groups, se):
        super().__init__()
        self.a, self.a_bn = conv(inputs, inner, 1), nn.BatchNorm2d(inner)
        self.b, self.b_bn = conv(inner, inner, 3, stride, groups), nn.BatchNorm2d(inner)
        if se:
            self.se = SE(inner, round(0.25 * inputs), nn.ReLU)
        self.c, self.c_bn = conv(inner, outputs, 1), nn.BatchNorm2d(outputs)

    def forward(self, x):
        x = F.relu(self.a_bn(self.a(x)))
        x = F.relu(self.b_bn(self.b(x)))
        x = self.se(x) if hasattr(self, "se") else x
        return self.c_bn(self.c(x))


class ResBottleneckBlock(nn.Module):
    def __init__(self, inputs, inner, outputs, stride, groups, se):
        super().__init__()
        if inputs != outputs or stride != 1:
            self.proj, self.bn = conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs)
        self.f = BottleneckTransform(inputs, inner, outputs, stride, groups, se)

    def forward(self, x):
        shortcut = self.bn(self.proj(x)) if hasattr(self, "proj") else x
        return F.relu(shortcut + self.f(x))


class Stem(nn.Module):
    def __init__(self, width, kernel, activation, pool):
        super().__init__()
        self.conv, self.bn = conv(3, width, kernel, 2), nn.BatchNorm2d(width)
        self.activation, self.pool = activation(), pool

    def forward(self, x):
        x = self.activation(self.bn(self.conv(x)))
        return F.max_pool2d(x, 3, 2, 1) if self.pool else x


class Head(nn.Module):
    def __init__(self, width, classes):
        super().__init__()
        self.fc = nn.Linear(width, classes)

    def forward(self, x):
        return self.fc(x.mean((2, 3)))


def add_stages(network, stages, make_block):
    """`stages` are lists of the arguments of blocks; names are s1.b1, s1.b2, ..., s2.b1, ..."""
    for number, blocks in enumerate(stages, 1):
        stage = nn.Sequential()
        for position, arguments in enumerate(blocks, 1):
            stage.add_module(f"b{position}", make_block(*arguments))
        network.add_module(f"s{number}", stage)


def regnet(depths, widths, group_width, se, classes):
    network = nn.Sequential()
    network.add_module("stem", Stem(32, 3, nn.ReLU, pool=False))
    inputs, stages = 32, []
    for depth, width in zip(depths, widths, strict=True):
        blocks = [(inputs if i == 0 else width, width, width, 2 if i == 0 else 1) for i in range(depth)]
        stages.append([(*block, width // group_width, se) for block in blocks])
        inputs = width
    add_stages(network, stages, ResBottleneckBlock)
    network.add_module("head", Head(inputs, classes))
    return network


def resnet50(classes):
    network = nn.Sequential()
    network.add_module("stem", Stem(64, 7, nn.ReLU, pool=True))
    inputs, stages = 64, []
    for number, depth in enumerate((3, 4, 6, 3)):
        inner, outputs = 64 * 2**number, 256 * 2**number
        stride = 2 if number else 1
        stages.append(
            [
                (inputs if i == 0 else outputs, inner, outputs, stride if i == 0 else 1, 1, False)
                for i in range(depth)
            ]
        )
        inputs = outputs
    add_stages(network, stages, ResBottleneckBlock)
    network.add_module("head", Head(inputs, classes))
    return network


class MBConv(nn.Module):
    def __init__(self, inputs, expansion, kernel, stride, outputs):
        super().__init__()
        width = inputs * expansion
        if expansion != 1:
            self.exp, self.exp_bn = conv(inputs, width, 1), nn.BatchNorm2d(width)
        self.dwise, self.dwise_bn = conv(width, width, kernel, stride, width), nn.BatchNorm2d(width)
        self.se = SE(width, inputs // 4, nn.SiLU)
        self.lin_proj, self.lin_proj_bn = conv(width, outputs, 1), nn.BatchNorm2d(outputs)
        self.has_skip = stride == 1 and inputs == outputs

    def forward(self, x):
        y = F.silu(self.exp_bn(self.exp(x))) if hasattr(self, "exp") else x
        y = self.se(F.silu(self.dwise_bn(self.dwise(y))))
        y = self.lin_proj_bn(self.lin_proj(y))
        return x + y if self.has_skip else y


class EffHead(nn.Module):
    def __init__(self, inputs, width, classes):
        super().__init__()
        self.conv, self.conv_bn, self.fc = (
            conv(inputs, width, 1),
            nn.BatchNorm2d(width),
            nn.Linear(width, classes),
        )

    def forward(self, x):
        return self.fc(F.silu(self.conv_bn(self.conv(x))).mean((2, 3)))


def efficientnet_b0(classes):
    network = nn.Sequential()
    network.add_module("stem", Stem(32, 3, nn.SiLU, pool=False))
    inputs, stages = 32, []
    for expansion, kernel, stride, width, depth in zip(
        (1, 6, 6, 6, 6, 6, 6),
        (3, 3, 5, 3, 5, 5, 3),
        (1, 2, 2, 2, 1, 2, 1),
        (16, 24, 40, 80, 112, 192, 320),
        (1, 2, 2, 3, 3, 4, 1),
        strict=True,
    ):
        stages.append(
            [
                (inputs if i == 0 else width, expansion, kernel, stride if i == 0 else 1, width)
                for i in range(depth)
            ]
        )
        inputs = width
    add_stages(network, stages, MBConv)
    network.add_module("head", EffHead(inputs, 1280, classes))
    return network


NETWORKS = {
    "ResNet50": resnet50,
    "RegNetX-600MF": lambda classes: regnet((1, 3, 5, 7), (48, 96, 240, 528), 24, False, classes),
    "RegNetY-200MF": lambda classes: regnet((1, 1, 4, 7), (24, 56, 152, 368), 8, True, classes),
    "EfficientNet-B0": efficientnet_b0,
}


def save(network: nn.Module, path) -> None:
    torch.save({"epoch": 99, "model_state": network.state_dict(), "cfg": "a string of settings"}, path)
