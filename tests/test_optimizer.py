"""learning/optimizer.py."""

import copy
import math

import pytest
import torch
from torch import nn

from learning.optimizer import OPTIMIZERS, make_optimizer, parameter_groups
from learning.tricks import OWN_DEFAULTS
from network import build_network


def one_step(name: str, weight: float, gradient: float, steps: int = 1) -> float:
    """The weight after steps with a constant gradient, learning rate 0.1 and weight decay 0.01."""
    network = nn.Linear(1, 1, bias=False)
    nn.init.constant_(network.weight, weight)
    optimizer = make_optimizer(name, network, 0.1, 0.01)
    for _ in range(steps):
        network.weight.grad = torch.full((1, 1), gradient)
        optimizer.step()
    return network.weight.item()


def test_sgd_by_hand():
    # The gradient with decay is 0.5 + 0.01 * 2 = 0.52; momentum adds 0.9 times the last step's.
    first = 2 - 0.1 * 0.52
    second = first - 0.1 * (0.9 * 0.52 + 0.5 + 0.01 * first)
    assert one_step("SGD", 2.0, 0.5) == pytest.approx(first, rel=1e-6)
    assert one_step("SGD", 2.0, 0.5, steps=2) == pytest.approx(second, rel=1e-6)


def test_nesterov_by_hand():
    # The step is the gradient plus 0.9 times the momentum, which is the gradient at first.
    network = nn.Linear(1, 1, bias=False)
    nn.init.constant_(network.weight, 2.0)
    optimizer = make_optimizer("SGD", network, 0.1, 0.0, nesterov=True)
    network.weight.grad = torch.full((1, 1), 0.5)
    optimizer.step()
    assert network.weight.item() == pytest.approx(2 - 0.1 * 1.9 * 0.5, rel=1e-6)


def test_adamw_decouples_the_decay():
    # Beside the step of the learning rate, the weight shrinks by learning rate times decay.
    assert one_step("ADAMW", 2.0, 0.5) == pytest.approx(2 * (1 - 0.1 * 0.01) - 0.1, rel=1e-5)
    assert one_step("ADAMW", 2.0, 0.0) == pytest.approx(2 * (1 - 0.1 * 0.01), rel=1e-6)


@pytest.mark.parametrize("norm", ["batchnorm", "evonorm"])
def test_no_bias_decay_leaves_decay_to_the_weights_of_convolutions_and_linear_layers(norm):
    network = build_network("RegNetY-200MF", 3, norm=norm)
    decayed, others = make_optimizer("SGD", network, 0.1, 0.01, no_bias_decay=True).param_groups
    weights = {id(module.weight) for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)}
    assert {id(parameter) for parameter in decayed["params"]} == weights
    assert len(decayed["params"]) + len(others["params"]) == len(list(network.parameters()))
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.01, 0)


def test_the_scales_of_convnexts_branches_do_not_decay():
    """Which have three dimensions, as no bias has."""
    network = build_network("ConvNeXt-Tiny", 3)
    decayed, _ = make_optimizer("SGD", network, 0.1, 0.01, no_bias_decay=True).param_groups
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    assert all(names[id(each)].endswith(".weight") and each.ndim > 1 for each in decayed["params"])
    assert sum(each.ndim > 1 for each in network.parameters()) == len(decayed["params"]) + 18


def test_adam_by_hand():
    # The first step of Adam is the learning rate in the direction of the sign of the gradient.
    assert one_step("ADAM", 2.0, 0.5) == pytest.approx(1.9, rel=1e-5)


def test_radam_decays_weights_by_the_rule_of_adam():
    """The ancestor's RAdam decoupled the decay while its Adam did not."""
    # The first five steps of RAdam are momentum steps, so the decay adds to the gradient like SGD's.
    assert one_step("RADAM", 2.0, 0.5) == pytest.approx(2 - 0.1 * (0.5 + 0.01 * 2), rel=1e-6)


def test_radam_by_its_paper():
    """Algorithm 2 of arXiv 1908.03265, with the L2 term in the gradient."""
    weight, m, v = 2.0, 0.0, 0.0
    rho_inf = 2 / (1 - 0.999) - 1
    for t in range(1, 9):
        gradient = 0.5 + 0.01 * weight
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        m_hat = m / (1 - 0.9**t)
        rho = rho_inf - 2 * t * 0.999**t / (1 - 0.999**t)
        if rho > 5:  # the paper says 4; its authors' code and torch use 5
            r = math.sqrt((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho))
            weight -= 0.1 * r * m_hat / (math.sqrt(v / (1 - 0.999**t)) + 1e-8)
        else:
            weight -= 0.1 * m_hat
    assert one_step("RADAM", 2.0, 0.5, steps=8) == pytest.approx(weight, rel=1e-4)


@pytest.mark.parametrize("scale", [1, 1e-6])  # of the gradients; eps counts beside small ones
@pytest.mark.parametrize("frozen_steps", [0, 3])
def test_radam_is_torchs(frozen_steps, scale):
    """In the first steps and in later ones, with a moving rate, two groups and parts that join later."""
    torch.manual_seed(0)
    ours = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 2)).double()
    theirs = copy.deepcopy(ours)
    optimizers = [
        make_optimizer("RADAM", ours, 0.01, 0.1, no_bias_decay=True),
        torch.optim.RAdam(parameter_groups(theirs, 0.1, no_bias_decay=True), 0.01),
    ]
    for step in range(60):
        inputs, labels = torch.randn(16, 6, dtype=torch.double), torch.randint(2, (16,))
        for network, optimizer in zip((ours, theirs), optimizers, strict=True):
            optimizer.param_groups[1]["lr"] = 0.01 * (1 - step / 60)
            network[0].requires_grad_(step >= frozen_steps)
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(network(inputs), labels)
            (scale * loss).backward()
            optimizer.step()
        if step == 20:  # what torch's has counted, ours goes on from
            optimizers[0].load_state_dict(copy.deepcopy(optimizers[1].state_dict()))
    for own, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-9, atol=1e-9)


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match="LION"):
        make_optimizer("LION", nn.Linear(1, 1), 0.1, 0)


def test_every_optimizer_has_defaults_of_its_own():
    assert OPTIMIZERS.keys() == OWN_DEFAULTS.keys()
