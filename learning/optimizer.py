"""Optimizers by the names of `--optimizer`."""

import torch
from torch import nn


def make_optimizer(
    name: str,
    network: nn.Module,
    learning_rate: float,
    weight_decay: float,
    *,
    nesterov: bool = False,
    no_bias_decay: bool = False,
) -> torch.optim.Optimizer:
    """Build the optimizer; the fastest implementation torch has for it is taken.

    - "SGD": momentum 0.9 (Bag of Tricks, arXiv 1812.01187), with `nesterov` Nesterov's;
    - "ADAM": arXiv 1412.6980;
    - "ADAMW": Adam with decoupled weight decay (arXiv 1711.05101): weights shrink by learning rate
      times `weight_decay` beside the step, so the useful values are about 100 times larger;
    - "RADAM": Adam with a rectified, that is initially damped, adaptive rate (arXiv 1908.03265).

    Weight decay is the same rule in SGD, ADAM and RADAM, an L2 term added to the gradient, so that
    swapping one for another changes one thing only. (The RAdam authors' own code decouples it; torch's
    RAdam does so with `decoupled_weight_decay=True`.)

    With `no_bias_decay` a second parameter group holds what is not the weight of a convolution or a
    linear layer (biases, and the parameters of norms) and does not decay (Bag of Tricks, section 3.1).
    """
    groups = parameter_groups(network, weight_decay, no_bias_decay)
    match name:
        case "SGD":
            optimizer = torch.optim.SGD(groups, learning_rate, momentum=0.9, nesterov=nesterov, fused=True)
            # The same as none at the first step, but torch's fused SGD fails where only some parameters
            # have one, as when the rest was frozen until now.
            for parameter in network.parameters():
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
            return optimizer
        case "ADAM":
            return torch.optim.Adam(groups, learning_rate, fused=True)
        case "ADAMW":
            return torch.optim.AdamW(groups, learning_rate, fused=True)
        case "RADAM":
            return torch.optim.RAdam(groups, learning_rate, foreach=True)
    raise ValueError(f"unknown optimizer {name!r}")


def parameter_groups(network: nn.Module, weight_decay: float, no_bias_decay: bool) -> list[dict]:
    """All parameters in one group or, with `no_bias_decay`, those of one dimension in a second without decay.

    The weights of convolutions and linear layers are the parameters that have more than one.
    """
    parameters = list(network.parameters())
    if not no_bias_decay:
        return [{"params": parameters, "weight_decay": weight_decay}]
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
