"""An exponential moving average of a network's weights."""

import copy

import torch
from torch import nn


class Ema:
    """Keeps the average of a network's weights and norm statistics over the steps of its training.

    The network stays the same object on the same device.

    After step t (from 0):  average <- d_t average + (1 - d_t) weights,   d_t = min(decay, (1 + t) / (10 + t))

    The ramp of d_t (as in TensorFlow's ExponentialMovingAverage) lets the average follow the first steps
    at once; with the decay alone it would consist of the random start for 1 / (1 - decay) steps, more than
    a short run has. torch's AveragedModel is not used, since it averages either no statistics or, with
    them, the count of batches. Such whole numbers stay as they are at the start.
    """

    def __init__(self, network: nn.Module, decay: float):
        self.decay = decay
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self._averages, self._values = (
            [tensor for tensor in each.state_dict().values() if tensor.is_floating_point()]
            for each in (self.network, network)
        )

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take the weights as they are after `step`."""
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self._averages, self._values, weight)
