"""The networks, by name, and their pretrained weights.

Nothing here imports torch until a network is built, so that flags are checked and `--help` is answered
at once.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from network.members import MEMBERS
from utils.errors import UserError

if TYPE_CHECKING:
    from torch import nn

    from network.weights import LoadedWeights

# Every name that --model takes: the module of its family, and the member it means.
NETWORKS: dict[str, tuple[str, str]] = {
    name: (family, name) for family, names in MEMBERS.items() for name in names
} | {
    "RegNet": ("regnet", "RegNetY-1.6GF"),
    "EfficientNet": ("efficientnet", "EfficientNet-B2"),
}
NORMS = ("batchnorm", "frozen_batchnorm", "evonorm", "evonorm_b0")


class WeightsError(UserError):
    """Weights that cannot be had or do not fit; the message says which, where, and what to do."""


def build_network(
    name: str,
    num_classes: int,
    *,
    norm: str = "batchnorm",
    zero_gamma: bool = False,
    drop_path: float | None = None,
    dropout: float | None = None,
) -> nn.Module:
    """Build a network that maps images [N, 3, H, W] to logits [N, num_classes].

    `name` is one of `NETWORKS`, `norm` one of `NORMS`. `zero_gamma` starts the last norm of each
    residual branch at 0 (He et al. 2019, section 3.1), so that the network starts as its shortcuts
    alone. `drop_path` is the probability that training leaves out the last residual branch; it rises
    in proportion to the depth (Huang et al. 2016, arXiv 1603.09382, section 3). `dropout` is that of
    a feature before the last layer. None leaves both as published: 0 but for the EfficientNets.
    Raises `KeyError` for an unknown name or norm.
    """
    from network.layers import set_drop_path, set_dropout
    from network.norm import NORM_LAYERS, zero_residual_gammas

    family, member = NETWORKS[name]
    network = importlib.import_module(f"network.{family}").build(member, num_classes, NORM_LAYERS[norm])
    network.member, network.zero_gamma = member, zero_gamma
    if zero_gamma:
        zero_residual_gammas(network)
    if drop_path is not None:
        set_drop_path(network, drop_path)
    if dropout is not None:
        set_dropout(network, dropout)
    return network


def load_weights(network: nn.Module, path: str | Path, classes: Sequence[str] | None = None) -> LoadedWeights:
    """Load pretrained weights from a file; see `network.weights.load_weights`."""
    from network import weights

    return weights.load_weights(network, Path(path), classes)
