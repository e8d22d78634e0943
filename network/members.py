"""The members of the families of networks, by name: the figures of their papers, without torch."""

from typing import NamedTuple


class Blocks(NamedTuple):
    """How many blocks each of a ResNet's four stages has (table 1 of arXiv 1512.03385)."""

    depths: tuple[int, int, int, int]
    bottleneck: bool


RESNETS = {
    "ResNet18": Blocks((2, 2, 2, 2), bottleneck=False),
    "ResNet34": Blocks((3, 4, 6, 3), bottleneck=False),
    "ResNet50": Blocks((3, 4, 6, 3), bottleneck=True),
    "ResNet101": Blocks((3, 4, 23, 3), bottleneck=True),
    "ResNet152": Blocks((3, 8, 36, 3), bottleneck=True),
}
TWEAKS = ("", "-B", "-C", "-D")


class Line(NamedTuple):
    """The parameters of a RegNet (arXiv 2003.13678, section 4): d, w_0, w_a, w_m, and a group's width."""

    depth: int
    w_0: int
    w_a: float
    w_m: float
    group_width: int
    as_torchvision: bool = False


REGNETS = {
    "RegNetX-200MF": Line(13, 24, 36.44, 2.49, 8),
    "RegNetX-400MF": Line(22, 24, 24.48, 2.54, 16, as_torchvision=True),
    "RegNetX-600MF": Line(16, 48, 36.97, 2.24, 24),
    "RegNetX-800MF": Line(16, 56, 35.73, 2.28, 16),
    "RegNetX-1.6GF": Line(18, 80, 34.01, 2.25, 24),
    "RegNetX-3.2GF": Line(25, 88, 26.31, 2.25, 48),
    "RegNetX-4.0GF": Line(23, 96, 38.65, 2.43, 40),
    "RegNetX-6.4GF": Line(17, 184, 60.83, 2.07, 56),
    "RegNetX-8.0GF": Line(23, 80, 49.56, 2.88, 120),
    "RegNetX-12GF": Line(19, 168, 73.36, 2.37, 112),
    "RegNetX-16GF": Line(22, 216, 55.59, 2.1, 128),
    "RegNetX-32GF": Line(23, 320, 69.86, 2.0, 168),
    "RegNetY-200MF": Line(13, 24, 36.44, 2.49, 8),
    "RegNetY-400MF": Line(16, 48, 27.89, 2.09, 8),
    "RegNetY-600MF": Line(15, 48, 32.54, 2.32, 16),
    "RegNetY-800MF": Line(14, 56, 38.84, 2.4, 16, as_torchvision=True),
    "RegNetY-1.6GF": Line(27, 48, 20.71, 2.65, 24),
    "RegNetY-3.2GF": Line(21, 80, 42.63, 2.66, 24),
    "RegNetY-4.0GF": Line(22, 96, 31.41, 2.24, 64),
    "RegNetY-6.4GF": Line(25, 112, 33.22, 2.27, 72),
    "RegNetY-8.0GF": Line(17, 192, 76.82, 2.19, 56, as_torchvision=True),
    "RegNetY-12GF": Line(19, 168, 73.36, 2.37, 112),
    "RegNetY-16GF": Line(18, 200, 106.23, 2.48, 112),
    "RegNetY-32GF": Line(20, 232, 115.89, 2.53, 232),
}


class Scaling(NamedTuple):
    """How an EfficientNet differs from B0: factors of width and depth, and its dropout."""

    width: float
    depth: float
    dropout: float
    lite: bool = False


EFFICIENTNETS = {
    "EfficientNet-B0": Scaling(1.0, 1.0, 0.2),
    "EfficientNet-B1": Scaling(1.0, 1.1, 0.2),
    "EfficientNet-B2": Scaling(1.1, 1.2, 0.3),
    "EfficientNet-B3": Scaling(1.2, 1.4, 0.3),
    "EfficientNet-B4": Scaling(1.4, 1.8, 0.4),
    "EfficientNet-B5": Scaling(1.6, 2.2, 0.4),
    "EfficientNet-B6": Scaling(1.8, 2.6, 0.5),
    "EfficientNet-B7": Scaling(2.0, 3.1, 0.5),
    "EfficientNet-Lite0": Scaling(1.0, 1.0, 0.2, lite=True),
    "EfficientNet-Lite1": Scaling(1.0, 1.1, 0.2, lite=True),
    "EfficientNet-Lite2": Scaling(1.1, 1.2, 0.3, lite=True),
    "EfficientNet-Lite3": Scaling(1.2, 1.4, 0.3, lite=True),
    "EfficientNet-Lite4": Scaling(1.4, 1.8, 0.3, lite=True),
}


class Stages(NamedTuple):
    """The widths and depths of a ConvNeXt's stages, and the last block's probability to be left out."""

    widths: tuple[int, int, int, int]
    depths: tuple[int, int, int, int]
    stochastic_depth: float


CONVNEXTS = {
    "ConvNeXt-Tiny": Stages((96, 192, 384, 768), (3, 3, 9, 3), 0.1),
    "ConvNeXt-Small": Stages((96, 192, 384, 768), (3, 3, 27, 3), 0.4),
    "ConvNeXt-Base": Stages((128, 256, 512, 1024), (3, 3, 27, 3), 0.5),
}

# Of each family, which is a module of this package, the names of its members.
MEMBERS = {
    "resnet": [f"{name}{tweak}" for name in RESNETS for tweak in TWEAKS],
    "regnet": list(REGNETS),
    "efficientnet": list(EFFICIENTNETS),
    "convnext": list(CONVNEXTS),
}
