"""Optimizers by the names of `--optimizer`."""

import torch
from torch import nn


def make_optimizer(
    name: str, network: nn.Module, learning_rate: float, weight_decay: float
) -> torch.optim.Optimizer:
    """Build the optimizer; the fastest implementation torch has for it is taken.

    - "SGD": momentum 0.9 (Bag of Tricks, arXiv 1812.01187);
    - "ADAM": arXiv 1412.6980;
    - "RADAM": Adam with a rectified, that is initially damped, adaptive rate (arXiv 1908.03265).

    Weight decay is the same rule in all three, an L2 term added to the gradient, so that swapping one
    for another changes one thing only. (The RAdam authors' own code decouples it; torch's RAdam does
    so with `decoupled_weight_decay=True`.)
    """
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    common = {"lr": learning_rate, "weight_decay": weight_decay}
    match name:
        case "SGD":
            return torch.optim.SGD(parameters, momentum=0.9, fused=True, **common)
        case "ADAM":
            return torch.optim.Adam(parameters, fused=True, **common)
        case "RADAM":
            return torch.optim.RAdam(parameters, foreach=True, **common)
    raise ValueError(f"unknown optimizer {name!r}")
