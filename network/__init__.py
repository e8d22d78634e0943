"""The networks, by name, and their pretrained weights.

Nothing here imports torch until a network is built, so that `--help` can list the names at once.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    from network.weights import LoadedWeights

# The module that holds each family's table of members.
NETWORKS: dict[str, str] = dict.fromkeys(
    ("ResNet18", "ResNet34", "ResNet50", "ResNet101", "ResNet152"), "resnet"
)
NORMS = ("batchnorm", "evonorm")


class WeightsError(Exception):
    """Weights that cannot be had or do not fit; the message says which, where, and what to do."""

    exit_code = 2


def build_network(
    name: str, num_classes: int, *, norm: str = "batchnorm", zero_gamma: bool = False
) -> nn.Module:
    """Build a network that maps images [N, 3, H, W] to logits [N, num_classes].

    `norm` is one of `NORMS`. `zero_gamma` starts the last norm of each residual branch at 0 (He et al.
    2019, section 3.1), so that the network starts as its shortcuts alone. Raises `KeyError` for an
    unknown name or norm.
    """
    from network.norm import NORM_LAYERS, zero_residual_gammas

    family = importlib.import_module(f"network.{NETWORKS[name]}")
    network = family.build(name, num_classes, NORM_LAYERS[norm])
    network.zero_gamma = zero_gamma
    if zero_gamma:
        zero_residual_gammas(network)
    return network


def load_weights(network: nn.Module, path: str | Path) -> LoadedWeights:
    """Load pretrained weights from a file; see `network.weights.load_weights`."""
    from network import weights

    return weights.load_weights(network, Path(path))
