"""network/: ResNet against torchvision, norms, zero gamma, and the ancestor's defects E, Z and N."""

import pytest
import torch
import torchvision
from torch import nn

from network import NETWORKS, build_network
from network.evonorm import EvoNormS0


def randomise(network: nn.Module) -> nn.Module:
    """Random weights and norm statistics, so that no part of a network hides behind its start."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in network.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 2, generator=generator)
        elif tensor.is_floating_point():
            tensor.add_(0.05 * torch.randn(tensor.shape, generator=generator))
    return network.eval()


@pytest.mark.parametrize("name", [name for name in NETWORKS if name.startswith("ResNet")])
def test_n2_resnet_equals_torchvisions_for_the_same_weights(name):
    theirs = randomise(getattr(torchvision.models, name.lower())(num_classes=7))
    ours = build_network(name, 7).eval()
    ours.load_state_dict(theirs.state_dict())  # strict: the same names and shapes
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        expected, logits = theirs(images), ours(images)
    assert (logits - expected).abs().max() < 1e-5 * expected.abs().max()


def test_initial_weights_have_torchvisions_distribution():
    ours, theirs = (
        build_network("ResNet18", 7).state_dict(),
        torchvision.models.resnet18(num_classes=7).state_dict(),
    )
    for name, tensor in theirs.items():
        if tensor.numel() > 1000:
            assert ours[name].std() == pytest.approx(tensor.std().item(), rel=0.15), name
        elif name.endswith(("bn1.weight", "bn2.bias")):
            assert torch.equal(ours[name], tensor)


def test_building_depends_on_torchs_seed_alone():
    torch.manual_seed(3)
    first = build_network("ResNet18", 3).state_dict()
    torch.manual_seed(3)
    second = build_network("ResNet18", 3).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(("name", "count"), [("ResNet18", 8), ("ResNet50", 16)])
@pytest.mark.parametrize("norm", ["batchnorm", "evonorm"])
def test_zero_gamma_silences_each_residual_branch(name, count, norm):  # E5: EvoNorm had no such attribute
    network = build_network(name, 3, norm=norm, zero_gamma=True)
    zeros = [n for n, p in network.named_parameters() if n.endswith(".weight") and (p == 0).all()]
    assert len(zeros) == count
    last = "bn2" if name == "ResNet18" else "bn3"
    assert all(f".{last}." in zero for zero in zeros)


def test_e1_e3_evonorm_leaves_no_batchnorm():
    network = build_network("ResNet50", 3, norm="evonorm")
    assert sum(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules()) == 0
    assert sum(isinstance(module, EvoNormS0) for module in network.modules()) == 53


def test_e4_evonorm_is_not_followed_by_an_activation():
    """A ReLU is left after each residual sum only, where no norm precedes it directly."""
    network = build_network("ResNet50", 3, norm="evonorm")
    assert sum(isinstance(module, nn.ReLU) for module in network.modules()) == 16
    layer = network.layer1[0].bn1
    assert (layer(torch.randn(2, 64, 8, 8)) < 0).any()


def test_e6_evonorm_parameters_have_one_dimension():
    assert {name: tuple(p.shape) for name, p in EvoNormS0(64, nn.ReLU()).named_parameters()} == {
        "weight": (64,),
        "bias": (64,),
        "v": (64,),
    }


@pytest.mark.parametrize("channels", [64, 48, 20])
def test_evonorm_s0_is_its_equation(channels):
    layer = EvoNormS0(channels, nn.ReLU())
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    images = torch.randn(3, channels, 5, 6)
    groups = {64: 32, 48: 16, 20: 4}[channels]
    expected = torch.empty_like(images)
    for n in range(3):
        for members in torch.arange(channels).chunk(groups):
            std = (images[n, members].var(unbiased=False) + 1e-5).sqrt()
            for c in members.tolist():
                x = images[n, c]
                y = x * torch.sigmoid(layer.v[c] * x) / std
                expected[n, c] = y * layer.weight[c] + layer.bias[c]
    torch.testing.assert_close(layer(images), expected)


def test_e8_unknown_names_are_refused():
    with pytest.raises(KeyError):
        build_network("ResNet50", 3, norm="groupnorm")
    with pytest.raises(KeyError):
        build_network("ResNet51", 3)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_training_step_works(name):
    network = build_network(name, 3).to(memory_format=torch.channels_last)
    logits = network(torch.randn(2, 3, 64, 64).to(memory_format=torch.channels_last))
    assert logits.shape == (2, 3)
    logits.square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())


def test_n4_building_leaves_no_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    build_network("ResNet18", 3)
    assert not list(tmp_path.iterdir())
