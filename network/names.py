"""How other projects name the modules of the networks here."""

import re
from collections.abc import Callable
from typing import NamedTuple

import torch

State = dict[str, torch.Tensor]


class Names(NamedTuple):
    """How another project's names of modules become ours.

    `block` matches the beginning of a name within a block, `ours` gives what takes its place, and `parts`
    the rest. `outside` has the names outside of blocks. Where a block has no `expansion`, its parts are one
    place further to the front.
    """

    block: str
    ours: Callable[[re.Match], str]
    parts: dict[str, str]
    outside: dict[str, str]
    expansion: str | None = None


PYCLS_NAMES = {
    "ResNet": Names(
        r"s(\d)\.b(\d+)\.",
        lambda match: f"layer{match[1]}.{int(match[2]) - 1}.",
        {
            "proj": "downsample.0",
            "bn": "downsample.1",
            "f.a": "conv1",
            "f.a_bn": "bn1",
            "f.b": "conv2",
            "f.b_bn": "bn2",
            "f.c": "conv3",
            "f.c_bn": "bn3",
        },
        {"stem.conv": "conv1", "stem.bn": "bn1", "head.fc": "fc"},
    ),
    "RegNet": Names(
        r"s(\d)\.b(\d+)\.",
        lambda match: f"trunk_output.block{match[1]}.block{match[1]}-{int(match[2]) - 1}.",
        {
            "proj": "proj.0",
            "bn": "proj.1",
            "f.a": "f.a.0",
            "f.a_bn": "f.a.1",
            "f.b": "f.b.0",
            "f.b_bn": "f.b.1",
            "f.se.f_ex.0": "f.se.fc1",
            "f.se.f_ex.2": "f.se.fc2",
            "f.c": "f.c.0",
            "f.c_bn": "f.c.1",
        },
        {"stem.conv": "stem.0", "stem.bn": "stem.1", "head.fc": "fc"},
    ),
    "EfficientNet": Names(
        r"s(\d)\.b(\d+)\.",
        lambda match: f"features.{match[1]}.{int(match[2]) - 1}.block.",
        {
            "exp": "0.0",
            "exp_bn": "0.1",
            "dwise": "1.0",
            "dwise_bn": "1.1",
            "se.f_ex.0": "2.fc1",
            "se.f_ex.2": "2.fc2",
            "lin_proj": "3.0",
            "lin_proj_bn": "3.1",
        },
        {
            "stem.conv": "features.0.0",
            "stem.bn": "features.0.1",
            "head.conv": "features.8.0",
            "head.conv_bn": "features.8.1",
            "head.fc": "classifier.1",
        },
        expansion="exp",
    ),
}

# One of these is in each file of pycls's.
PYCLS_MARKS = {"s1.b1.f.a.weight", "s1.b1.dwise.weight"}


def _timm_efficientnet(projection: int) -> tuple[Names, ...]:
    """The names in blocks that expand, and in those of the first stage, which do not.

    `projection` is the place of the last convolution in our blocks: 3, or 2 without squeeze-and-excitation.
    """
    return (
        Names(
            r"blocks\.([1-6])\.(\d+)\.",
            lambda match: f"features.{int(match[1]) + 1}.{match[2]}.block.",
            {
                "conv_pw": "0.0",
                "bn1": "0.1",
                "conv_dw": "1.0",
                "bn2": "1.1",
                "se.conv_reduce": "2.fc1",
                "se.conv_expand": "2.fc2",
                "conv_pwl": f"{projection}.0",
                "bn3": f"{projection}.1",
            },
            {
                "conv_stem": "features.0.0",
                "bn1": "features.0.1",
                "conv_head": "features.8.0",
                "bn2": "features.8.1",
                "classifier": "classifier.1",
            },
        ),
        Names(
            r"blocks\.0\.(\d+)\.",
            lambda match: f"features.1.{match[1]}.block.",
            {
                "conv_dw": "0.0",
                "bn1": "0.1",
                "se.conv_reduce": "1.fc1",
                "se.conv_expand": "1.fc2",
                "conv_pw": f"{projection - 1}.0",
                "bn2": f"{projection - 1}.1",
            },
            {},
        ),
    )


# Applied one after the other.
TIMM_NAMES: dict[str, tuple[Names, ...]] = {
    "ResNet": (),  # ours are timm's
    "RegNet": (
        Names(
            r"s(\d)\.b(\d+)\.",
            lambda match: f"trunk_output.block{match[1]}.block{match[1]}-{int(match[2]) - 1}.",
            {
                "downsample.conv": "proj.0",
                "downsample.bn": "proj.1",
                "conv1.conv": "f.a.0",
                "conv1.bn": "f.a.1",
                "conv2.conv": "f.b.0",
                "conv2.bn": "f.b.1",
                "se.fc1": "f.se.fc1",
                "se.fc2": "f.se.fc2",
                "conv3.conv": "f.c.0",
                "conv3.bn": "f.c.1",
            },
            {"stem.conv": "stem.0", "stem.bn": "stem.1", "head.fc": "fc"},
        ),
    ),
    "EfficientNet": _timm_efficientnet(projection=3),
    "EfficientNet-Lite": _timm_efficientnet(projection=2),
    "ConvNeXt": (
        Names(
            r"stages\.(\d)\.blocks\.(\d+)\.?",
            lambda match: f"features.{2 * int(match[1]) + 1}.{match[2]}",
            {
                "": "",  # its layer scale is a parameter of the block itself
                "conv_dw": ".block.0",
                "norm": ".block.2",
                "mlp.fc1": ".block.3",
                "mlp.fc2": ".block.5",
            },
            {"stem.0": "features.0.0", "stem.1": "features.0.1"}
            | {
                f"stages.{n}.downsample.{part}": f"features.{2 * n}.{part}"
                for n in (1, 2, 3)
                for part in (0, 1)
            }
            | {"head.norm": "classifier.0", "head.fc": "classifier.2"},
        ),
    ),
}

# One of these is in each file of timm's but for plain ResNets, which have torchvision's names.
TIMM_MARKS = {"conv1.0.weight", "stem.conv.weight", "conv_stem.weight", "head.norm.weight"}


def translate(state: State, names: Names) -> State:
    """The state under our names; a name that is not known stays, and will be called unexpected."""
    ours = {}
    for key, tensor in state.items():
        module, _, parameter = key.rpartition(".")
        block = re.match(names.block, module)
        if block is None:
            module = names.outside.get(module, module)
        elif module[block.end() :] in names.parts:
            part = names.parts[module[block.end() :]]
            if names.expansion and f"{block[0]}{names.expansion}.weight" not in state:
                part = f"{int(part[0]) - 1}{part[1:]}"
            module = names.ours(block) + part
        ours[f"{module}.{parameter}"] = tensor
    return ours
