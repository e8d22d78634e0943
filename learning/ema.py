"""An exponential moving average of a network's weights."""

import copy

import torch
from torch import nn


class Ema:
    """Keeps the average of a network's weights and norm statistics over the steps of its training.

    After step t (from 0):  average <- d_t average + (1 - d_t) weights,   d_t = min(decay, (1 + t) / (10 + t))

    The ramp of d_t (as in TensorFlow's ExponentialMovingAverage) lets the average follow the first steps
    at once; with the decay alone it would consist of the random start for 1 / (1 - decay) steps, more than
    a short run has. torch's AveragedModel is not used, since it averages either no statistics or, with
    them, the count of batches.
    """

    def __init__(self, network: nn.Module, decay: float):
        self.decay = decay
        self.network = copy.deepcopy(network).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Take the weights as they are after `step`."""
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        averages, values = self.network.state_dict().values(), network.state_dict().values()
        pairs = list(zip(averages, values, strict=True))
        floats = [pair for pair in pairs if pair[0].is_floating_point()]
        torch._foreach_lerp_(*map(list, zip(*floats, strict=True)), weight)
        for average, value in pairs:
            if not average.is_floating_point():
                average.copy_(value)
