"""learning/ema.py."""

import pytest
import torch
from torch import nn

from learning.ema import Ema


def network_of(value: float) -> nn.Module:
    network = nn.BatchNorm1d(1)
    for tensor in (network.weight, network.bias, network.running_mean, network.running_var):
        nn.init.constant_(tensor, value)
    return network


def average(ema: Ema) -> float:
    """The one value that all tensors have."""
    values = [value for value in ema.network.state_dict().values() if value.is_floating_point()]
    assert len(values) == 4
    assert len({value.item() for value in values}) == 1
    return values[0].item()


def test_by_hand():
    network = network_of(1.0)
    ema = Ema(network, decay=0.25)

    def update(value, step):
        network.load_state_dict(network_of(value).state_dict())
        ema.update(step)

    update(2.0, 0)  # d = (1 + 0) / (10 + 0) = 0.1
    assert average(ema) == pytest.approx(0.1 * 1 + 0.9 * 2)
    update(3.0, 1)  # d = 2 / 11
    before = 2 / 11 * 1.9 + 9 / 11 * 3
    assert average(ema) == pytest.approx(before)
    update(5.0, 1000)  # d = 0.25, no longer 1001 / 1010
    assert average(ema) == pytest.approx(0.25 * before + 0.75 * 5)


def test_the_source_is_left_alone():
    network = network_of(1.0)
    ema = Ema(network, decay=0.9)
    ema.network.load_state_dict(network_of(0.0).state_dict())  # as a resumed run does
    ema.update(50)
    assert 0 < average(ema) < 1
    assert network.weight.item() == 1
    assert network.training
    assert not ema.network.training
    assert not any(parameter.requires_grad for parameter in ema.network.parameters())
    assert torch.equal(network.running_mean, torch.ones(1))
