"""network/evonorm.py against its equations."""

import pytest
import torch
from torch import nn

from network import build_network, evonorm
from network.evonorm import EvoNormB0, EvoNormS0

LAYERS = [EvoNormS0, EvoNormB0]


def test_evonorm_parameters_have_one_dimension():
    assert {name: tuple(p.shape) for name, p in EvoNormS0(64, nn.ReLU()).named_parameters()} == {
        "weight": (64,),
        "bias": (64,),
        "v": (64,),
    }


def random_evonorm(layer):
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    return layer


@pytest.mark.parametrize(("channels", "groups"), [(64, 32), (48, 24), (20, 20), (116, 29), (66, 22)])
def test_evonorm_s0_is_its_equation(channels, groups):
    layer = random_evonorm(EvoNormS0(channels, nn.ReLU()))
    images = torch.randn(3, channels, 5, 6)
    expected = torch.empty_like(images)
    for n in range(3):
        for members in torch.arange(channels).chunk(groups):
            std = (images[n, members].var(unbiased=False) + 1e-5).sqrt()
            for c in members.tolist():
                x = images[n, c]
                y = x * torch.sigmoid(layer.v[c] * x) / std
                expected[n, c] = y * layer.weight[c] + layer.bias[c]
    torch.testing.assert_close(layer(images), expected)


def test_evonorm_b0_is_its_equation():
    layer = random_evonorm(EvoNormB0(8, nn.ReLU()))
    images = 3 * torch.randn(4, 8, 5, 6)
    for training in (True, False):
        running = layer.running_var.clone()
        output = layer.train(training)(images)
        for c in range(8):
            batch_var = images[:, c].var(unbiased=False) if training else running[c]
            for n in range(4):
                x = images[n, c]
                instance_std = (x.var(unbiased=False) + 1e-5).sqrt()
                y = x / torch.maximum((batch_var + 1e-5).sqrt(), layer.v[c] * x + instance_std)
                torch.testing.assert_close(output[n, c], y * layer.weight[c] + layer.bias[c])
        if training:
            expected = 0.9 * running + 0.1 * images.var((0, 2, 3), unbiased=False)
            torch.testing.assert_close(layer.running_var, expected)
        else:
            assert torch.equal(layer.running_var, running)


@pytest.mark.parametrize("layer", [EvoNormS0, EvoNormB0])
def test_evonorm_without_activation_is_affine(layer):
    layer = random_evonorm(layer(6))
    images = torch.randn(2, 6, 3, 3)
    assert {name for name, _ in layer.named_parameters()} == {"weight", "bias"}
    expected = torch.stack([images[:, c] * layer.weight[c] + layer.bias[c] for c in range(6)], 1)
    torch.testing.assert_close(layer(images), expected)


def test_evonorm_keeps_torchs_training_flag():
    layer = EvoNormB0(4, nn.ReLU())
    assert layer.training
    assert not layer.eval().training
    assert "training" not in EvoNormB0.__dict__


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("activation", [nn.ReLU(), None])
@pytest.mark.parametrize("layer", LAYERS)
def test_gradients_are_those_of_finite_differences(layer, activation, training):
    torch.manual_seed(0)
    layer = random_evonorm(layer(6, activation)).double().train(training)
    images = (2 * torch.randn(3, 6, 4, 5, dtype=torch.double) + 0.5).to(memory_format=torch.channels_last)
    names = [name for name, _ in layer.named_parameters()]

    def output(images, *parameters):
        return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), images)

    inputs = (images.requires_grad_(), *layer.parameters())
    assert torch.autograd.gradcheck(output, inputs, nondet_tol=0)
    for wanted in range(len(inputs)):  # as where the rest is frozen
        for number, tensor in enumerate(inputs):
            tensor.requires_grad_(number == wanted)
        assert torch.autograd.gradcheck(output, inputs)


@pytest.mark.parametrize("activation", [nn.ReLU(), None])
@pytest.mark.parametrize("layer", LAYERS)
def test_bf16_stays_bf16_with_the_statistics_of_fp32(layer, activation):
    torch.manual_seed(0)
    layer = random_evonorm(layer(32, activation))
    if activation:
        nn.init.ones_(layer.v)  # near 0 both parts of B0's maximum are nearly equal, and its gradient jumps
    images = (torch.randn(4, 32, 8, 8) + 3).bfloat16().to(memory_format=torch.channels_last)
    results = []
    for given in (images, images.float()):
        given.requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            output = layer(given)
        assert output.dtype == given.dtype
        assert output.is_contiguous(memory_format=torch.channels_last)
        results.append(
            (output, *torch.autograd.grad(output.float().square().sum(), (given, *layer.parameters())))
        )
    for low, exact in zip(*results, strict=True):
        assert (low - exact).norm() < 0.02 * exact.norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_gpus_sum_of_squares_is_a_cpus(dtype):
    torch.manual_seed(0)
    features = (torch.randn(4, 8, 9, 9) + 2).to(dtype)
    mean, square = evonorm._moments(features)
    torch.testing.assert_close(mean, features.double().mean((2, 3)).float())
    torch.testing.assert_close(square, features.double().square().mean((2, 3)).float())
    torch.testing.assert_close(evonorm._norms(features).square() / 81, square)


def bytes_kept(norm: str, name: str) -> int:
    """What a network keeps for the backward pass, beside its parameters."""
    network = build_network(name, 3, norm=norm).to(memory_format=torch.channels_last)
    given = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in given:
            kept[storage.data_ptr()] = storage
        return tensor

    images = torch.randn(4, 3, 64, 64).to(memory_format=torch.channels_last)
    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with hooks, torch.autocast("cpu", torch.bfloat16):
        network(images)
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize("name", ["ResNet50", "RegNetY-200MF", "EfficientNet-B0"])
@pytest.mark.parametrize("norm", ["evonorm", "evonorm_b0"])
def test_no_more_is_kept_than_with_batchnorm(norm, name):
    assert bytes_kept(norm, name) < 1.1 * bytes_kept("batchnorm", name)
