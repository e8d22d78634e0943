"""ConvNeXt (Liu et al. 2022, arXiv 2201.03545): a ResNet that took over what transformers had shown to help.

Patches of 4 x 4 pixels as a stem; depthwise 7 x 7 convolutions, then two linear layers with four times the
channels between them; one norm, of layers, and one activation a block; norms before each halving of the size.
The state dict has torchvision's names.
"""

import torch
from torch import nn

from network.layers import Conv2d, Dropout, StochasticDepth
from network.members import CONVNEXTS, Stages
from network.norm import BatchNormAct, NormLayer

LAYER_SCALE = 1e-6  # what each branch is multiplied by at first


class LayerNorm2d(nn.LayerNorm):
    """Layer normalisation over the channels of each place: [N, C, H, W] to the same shape."""

    def __init__(self, channels: int):
        super().__init__(channels, eps=1e-6)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return super().forward(features.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Block(nn.Module):
    """x + scale * branch(x): [N, C, H, W] to the same shape."""

    def __init__(self, channels: int, p: float):
        super().__init__()
        self.layer_scale = nn.Parameter(torch.full((channels, 1, 1), LAYER_SCALE))
        self.block = nn.Sequential(
            Conv2d(channels, channels, 7, 1, 3, groups=channels),
            nn.Identity(),  # torchvision counts its two changes of the memory order
            nn.LayerNorm(channels, eps=1e-6),
            nn.Linear(channels, 4 * channels),
            nn.GELU(),
            nn.Linear(4 * channels, channels),
        )
        self.sum = StochasticDepth(p)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        convolution, *rest = self.block
        branch = convolution(features).permute(0, 2, 3, 1)
        for layer in rest:
            branch = layer(branch)
        return self.sum(self.layer_scale * branch.permute(0, 3, 1, 2), features)


class ConvNeXt(nn.Module):
    """Images [N, 3, H, W] -> logits [N, num_classes], through four stages at 1/4 to 1/32 of the size."""

    head, feature_layer = "classifier.2", "features"

    def __init__(self, stages: Stages, num_classes: int):
        super().__init__()
        inputs, count = stages.widths[0], 0
        self.features = nn.Sequential(nn.Sequential(Conv2d(3, inputs, 4, 4), LayerNorm2d(inputs)))
        for width, depth in zip(stages.widths, stages.depths, strict=True):
            if width != inputs:
                self.features.append(nn.Sequential(LayerNorm2d(inputs), Conv2d(inputs, width, 2, 2)))
            stage = nn.Sequential()
            for _ in range(depth):
                stage.append(Block(width, stages.stochastic_depth * count / (sum(stages.depths) - 1)))
                count += 1
            self.features.append(stage)
            inputs = width
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = Dropout(0.0, inputs)
        self.classifier = nn.Sequential(LayerNorm2d(inputs), nn.Flatten(1), nn.Linear(inputs, num_classes))

        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        norm, flatten, linear = self.classifier
        return linear(self.dropout(flatten(norm(self.avgpool(self.features(images))))))


def build(name: str, num_classes: int, norm: NormLayer) -> ConvNeXt:
    """Build a member of the family. Raises `ValueError` for another norm, since it has layer norms."""
    if norm is not BatchNormAct:
        raise ValueError(f"{name} has layer norms of its own; leave the norm out")
    return ConvNeXt(CONVNEXTS[name], num_classes)
