"""Optimizers by the names of `--optimizer`."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

HUGE = 1e12


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
    swapping one for another changes one thing only. (The RAdam authors' own code decouples it.)

    With `no_bias_decay` a second parameter group holds what is not the weight of a convolution or a
    linear layer (biases, and the parameters of norms) and does not decay (Bag of Tricks, section 3.1).
    """
    groups = parameter_groups(network, weight_decay, no_bias_decay)
    if name not in OPTIMIZERS:
        raise ValueError(f"unknown optimizer {name!r}")
    options = {"nesterov": nesterov} if name == "SGD" else {}
    return OPTIMIZERS[name](groups, learning_rate, fused=True, **options)


class SGD(torch.optim.SGD):
    """torch's, with momentum 0.9 of which every parameter has a buffer from the start.

    That is the same as none at the first step, but torch's fused SGD fails where only some parameters have
    one, as when the rest was frozen until now.
    """

    def __init__(self, groups: list[dict], learning_rate: float, **options: Any):
        super().__init__(groups, learning_rate, momentum=0.9, **options)
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


class RAdam(torch.optim.Adam):
    """Adam with a rectified adaptive rate (Liu et al. 2019, arXiv 1908.03265, algorithm 2).

    With rho_inf = 2 / (1 - beta_2) - 1 and rho_t = rho_inf - 2 t beta_2^t / (1 - beta_2^t), step t is that of
    Adam with a learning rate of r_t times its own,

        r_t = sqrt((rho_t - 4) (rho_t - 2) rho_inf / ((rho_inf - 4) (rho_inf - 2) rho_t))   where rho_t > 5,

    and before that, in the first steps, one along the corrected first moment alone. (The paper has 4 in place
    of 5, its authors' code and torch 5.)

    So the work is that of torch's fused Adam. torch's own RAdam has no fused kernel, and in fp16 it makes the
    host wait at each step for whether a gradient overflowed. Here t counts the steps that were called, also
    those left out after an overflow, which only the device knows of: the first few of an fp16 run, before its
    loss scale has come down, so that rectification starts by as many steps too early.
    """

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update all parameters that have a gradient."""
        own_groups = self.param_groups
        self.param_groups = []
        for group in own_groups:
            by_count: dict[int, list[nn.Parameter]] = {}  # where some were frozen at first, there are two
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_count.setdefault(self._count(parameter) + 1, []).append(parameter)
            for count, parameters in by_count.items():
                self.param_groups.append({**group, "params": parameters, **_rectified(group, count)})
        try:
            super().step()
            for group in self.param_groups:
                for parameter in group["params"]:
                    self.state[parameter]["count"] = group["count"]
        finally:
            self.param_groups = own_groups

    def _count(self, parameter: nn.Parameter) -> int:
        """How often the parameter was updated."""
        state = self.state[parameter]
        if state and "count" not in state:  # as other versions of this program left it
            return int(state["step"])
        return state.get("count", 0)


OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "SGD": SGD,
    "ADAM": torch.optim.Adam,
    "ADAMW": torch.optim.AdamW,
    "RADAM": RAdam,
}


def _rectified(group: dict, t: int) -> dict:
    """The settings with which Adam's step `t` (from 1) is RAdam's."""
    beta = group["betas"][1]
    rho_inf = 2 / (1 - beta) - 1
    rho = rho_inf - 2 * t * beta**t / (1 - beta**t)
    if rho > 5:
        r = math.sqrt((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho))
        # RAdam adds eps to sqrt(v), Adam to sqrt(v / (1 - beta_2^t)).
        return {"lr": group["lr"] * r, "eps": group["eps"] / math.sqrt(1 - beta**t), "count": t}
    # Adam divides by sqrt(v) + eps: beside so large an eps the second moment vanishes, and eps cancels out.
    return {"lr": group["lr"] * HUGE, "eps": HUGE, "count": t}


def parameter_groups(network: nn.Module, weight_decay: float, no_bias_decay: bool) -> list[dict]:
    """All parameters in one group or, with `no_bias_decay`, two, of which the second does not decay.

    It has what is not the weight of a convolution or a linear layer.
    """
    parameters = list(network.parameters())
    if not no_bias_decay:
        return [{"params": parameters, "weight_decay": weight_decay}]
    weights = {id(layer.weight) for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear)}
    return [
        {"params": [p for p in parameters if id(p) in weights], "weight_decay": weight_decay},
        {"params": [p for p in parameters if id(p) not in weights], "weight_decay": 0.0},
    ]
