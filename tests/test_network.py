"""network/ against torchvision and published figures, and the ancestor's defects E, Z and N."""

import math

import efficientnet_lite_pytorch
import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from network import NETWORKS, NORMS, build_network
from network.depthwise import DepthwiseConv2d
from network.efficientnet import MBConv
from network.evonorm import EvoNormB0, EvoNormS0
from network.layers import Conv2d, Dropout, RandomLayer, SameConv2d, SqueezeExcitation, StochasticDepth
from network.norm import residual_last_norms
from network.weights import from_lite, torchvision_name


def randomise(network: nn.Module) -> nn.Module:
    """Random weights and norm statistics, so that no part of a network hides behind its start."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in network.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 2, generator=generator)
        elif tensor.is_floating_point():
            tensor.add_(0.05 * torch.randn(tensor.shape, generator=generator))
    return network.eval()


def in_torchvision(name: str) -> bool:
    return torchvision_name(name) in torchvision.models.list_models()


@pytest.mark.parametrize("name", [name for name in NETWORKS if in_torchvision(name)])
def test_a_network_equals_torchvisions_for_the_same_weights(name):
    theirs = randomise(torchvision.models.get_model(torchvision_name(name), num_classes=7))
    ours = build_network(name, 7).eval()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected, logits = theirs(images), ours(images)
    assert expected.abs().max() > 1e-3
    assert (logits - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.parametrize(
    "name", ["ResNet18", "ResNet50", "RegNetX-400MF", "RegNetY-400MF", "EfficientNet-B0", "ConvNeXt-Tiny"]
)
def test_a_training_pass_equals_torchvisions(name):
    """In float64, since a CPU trains convolutions in other ways than it evaluates them (`layers.Conv2d`)."""
    theirs = randomise(torchvision.models.get_model(torchvision_name(name), num_classes=7)).double().train()
    ours = build_network(name, 7, drop_path=0, dropout=0).double()
    ours.load_state_dict(theirs.state_dict())
    for module in theirs.modules():
        if isinstance(module, nn.Dropout | torchvision.ops.StochasticDepth):
            module.p = 0
    images = torch.randn(4, 3, 64, 64, dtype=torch.double, generator=torch.Generator().manual_seed(1))
    for network in (theirs, ours):
        network(images.to(memory_format=torch.channels_last)).log_softmax(1)[:, 0].sum().backward()
    for (key, expected), parameter in zip(theirs.named_parameters(), ours.parameters(), strict=True):
        error = (parameter.grad - expected.grad).abs().max()
        assert error <= 1e-8 * expected.grad.abs().max() + 1e-12, key
    for (key, expected), buffer in zip(theirs.named_buffers(), ours.buffers(), strict=True):
        if not key.endswith("num_batches_tracked"):  # which ours leave alone
            torch.testing.assert_close(buffer, expected, msg=key)


def as_computed(layer: nn.Conv2d, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """What a layer makes of images, and the gradients of images and parameters."""
    given = images.clone().requires_grad_()
    result = layer(given)
    weights = torch.randn(result.shape, dtype=result.dtype, generator=torch.Generator().manual_seed(0))
    return result, *torch.autograd.grad((result * weights).sum(), (given, *layer.parameters()))


def assert_trained_as_evaluated(layer: nn.Conv2d, images: torch.Tensor) -> None:
    for trained, evaluated in zip(
        as_computed(layer.train(), images), as_computed(layer.eval(), images), strict=True
    ):
        torch.testing.assert_close(trained, evaluated)


@pytest.mark.parametrize(
    ("inputs", "outputs", "kernel", "stride", "groups", "product"),
    [
        (8, 16, 1, 1, 1, True),
        (8, 16, 1, 2, 1, True),
        (8, 128, 3, 1, 1, True),
        (8, 128, 3, 2, 1, True),
        (8, 128, 5, 1, 1, True),
        (8, 64, 3, 1, 1, False),
        (8, 16, 3, 1, 2, False),
    ],
)
def test_a_convolution_is_the_same_whichever_way_it_is_computed(
    inputs, outputs, kernel, stride, groups, product, monkeypatch
):
    torch.manual_seed(0)
    layer = Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups).double()
    calls, as_product = [], layer._as_product
    monkeypatch.setattr(layer, "_as_product", lambda images: calls.append(1) or as_product(images))
    assert_trained_as_evaluated(layer, torch.randn(2, inputs, 5, 6, dtype=torch.double))
    assert len(calls) == product


@pytest.mark.parametrize("layer_of", [Conv2d, SameConv2d])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 1), (5, 2)])
@pytest.mark.parametrize("size", [(1, 1), (2, 2), (3, 3), (2, 7), (7, 4), (5, 5), (8, 9)])
def test_a_depthwise_convolution_is_the_same_on_maps_of_any_size(layer_of, kernel, stride, size):
    torch.manual_seed(0)
    images = torch.randn(3, 8, *size, dtype=torch.double).to(memory_format=torch.channels_last)
    padding = 0 if layer_of is SameConv2d else kernel // 2
    for outputs, bias in ((8, False), (8, True), (16, False)):
        layer = layer_of(8, outputs, kernel, stride, padding, groups=8, bias=bias)
        assert_trained_as_evaluated(layer.double(), images)


def test_small_maps_have_their_own_depthwise_gradient():
    def way(layer, size):
        return type(layer(torch.randn(1, 8, size, size)).grad_fn).__name__

    small, large = DepthwiseConv2d.__name__ + "Backward", "ConvolutionBackward0"
    three, five, strided = (
        Conv2d(8, 8, kernel, stride, kernel // 2, groups=8, bias=False)
        for kernel, stride in ((3, 1), (5, 1), (3, 2))
    )
    assert [way(three, size) for size in (1, 2, 3)] == [small, small, large]
    assert [way(five, size) for size in (4, 5)] == [small, large]
    assert [way(strided, size) for size in (3, 4)] == [small, large]
    assert way(five.eval(), 4) == large


def test_depthwise_convolutions_are_trained_in_fp32_on_a_cpu():
    layer = Conv2d(8, 8, 3, 1, 1, groups=8)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(torch.randn(1, 8, 4, 4)).dtype == torch.float32
        assert layer.eval()(torch.randn(1, 8, 4, 4)).dtype == torch.bfloat16


def test_every_member_of_torchvisions_families_is_here():
    families = ("resnet", "regnet", "efficientnet_b", "convnext")
    theirs = {name for name in torchvision.models.list_models() if name.startswith(families)}
    assert theirs - {torchvision_name(name) for name in NETWORKS} == {"regnet_y_128gf", "convnext_large"}


@pytest.mark.parametrize("name", ["ResNet18", "RegNetY-400MF", "EfficientNet-B0", "ConvNeXt-Tiny"])
def test_initial_weights_have_torchvisions_distribution(name):
    ours = build_network(name, 7).state_dict()
    theirs = torchvision.models.get_model(torchvision_name(name), num_classes=7).state_dict()
    if name == "EfficientNet-B0":  # for few classes its last layer starts smaller, see efficientnet.py
        assert ours["classifier.1.weight"].abs().max() <= 1 / math.sqrt(1280)
        del theirs["classifier.1.weight"], theirs["classifier.1.bias"]
    for key, tensor in theirs.items():
        if tensor.numel() > 500:
            assert ours[key].std() == pytest.approx(tensor.std().item(), rel=0.2, abs=1e-8), key
        elif not tensor.is_floating_point() or tensor.std() == 0:
            assert torch.equal(ours[key], tensor), key


# Parameters (M) and multiply-adds (G) of convolutions and linear layers for 1000 classes, as published.
PUBLISHED = {
    # torchvision's documentation, at 224 pixels.
    "ResNet18": (11.690, 1.814, 224),
    "ResNet34": (21.798, 3.664, 224),
    "ResNet50": (25.557, 4.089, 224),
    "ResNet101": (44.549, 7.801, 224),
    "ResNet152": (60.193, 11.514, 224),
    "ConvNeXt-Tiny": (28.589, 4.456, 224),
    "ConvNeXt-Small": (50.224, 8.684, 224),
    "ConvNeXt-Base": (88.591, 15.355, 224),
    # timm's tables (its multiply-adds are of resnet18d, 34d, 50c, 50d, 101d, 152d).
    "ResNet18-D": (11.71, 2.06, 224),
    "ResNet34-D": (21.82, 3.91, 224),
    "ResNet50-C": (25.58, 4.35, 224),
    "ResNet50-D": (25.58, 4.35, 224),
    "ResNet101-D": (44.57, 8.08, 224),
    "ResNet152-D": (60.21, 11.8, 224),
    # The pycls model zoo, at 224 pixels; for three members torchvision's documentation (see regnet.py).
    "RegNetX-200MF": (2.7, 0.2, 224),
    "RegNetX-400MF": (5.496, 0.414, 224),
    "RegNetX-600MF": (6.2, 0.6, 224),
    "RegNetX-800MF": (7.3, 0.8, 224),
    "RegNetX-1.6GF": (9.2, 1.6, 224),
    "RegNetX-3.2GF": (15.3, 3.2, 224),
    "RegNetX-4.0GF": (22.1, 4.0, 224),
    "RegNetX-6.4GF": (26.2, 6.5, 224),
    "RegNetX-8.0GF": (39.6, 8.0, 224),
    "RegNetX-12GF": (46.1, 12.1, 224),
    "RegNetX-16GF": (54.3, 15.9, 224),
    "RegNetX-32GF": (107.8, 31.7, 224),
    "RegNetY-200MF": (3.2, 0.2, 224),
    "RegNetY-400MF": (4.3, 0.4, 224),
    "RegNetY-600MF": (6.1, 0.6, 224),
    "RegNetY-800MF": (6.433, 0.834, 224),
    "RegNetY-1.6GF": (11.2, 1.6, 224),
    "RegNetY-3.2GF": (19.4, 3.2, 224),
    "RegNetY-4.0GF": (20.6, 4.0, 224),
    "RegNetY-6.4GF": (30.6, 6.4, 224),
    "RegNetY-8.0GF": (39.381, 8.473, 224),
    "RegNetY-12GF": (51.8, 12.1, 224),
    "RegNetY-16GF": (83.6, 15.9, 224),
    "RegNetY-32GF": (145.0, 32.3, 224),
    # torchvision's documentation, at the size of its weights (288 for B2, where the paper has 260).
    "EfficientNet-B0": (5.289, 0.386, 224),
    "EfficientNet-B1": (7.794, 0.687, 240),
    "EfficientNet-B2": (9.110, 1.088, 288),
    "EfficientNet-B3": (12.233, 1.827, 300),
    "EfficientNet-B4": (19.342, 4.394, 380),
    "EfficientNet-B5": (30.390, 10.266, 456),
    "EfficientNet-B6": (43.041, 19.068, 528),
    "EfficientNet-B7": (66.348, 37.746, 600),
    # The authors' README, whose multiply-adds count norms and activations too.
    "EfficientNet-Lite0": (4.7, 0.407, 224),
    "EfficientNet-Lite1": (5.4, 0.631, 240),
    "EfficientNet-Lite2": (6.1, 0.899, 260),
    "EfficientNet-Lite3": (8.2, 1.44, 280),
    "EfficientNet-Lite4": (13.0, 2.64, 300),
}
SAME_COST = {"ResNet18-C": "ResNet18-D", "ResNet34-C": "ResNet34-D", "ResNet101-C": "ResNet101-D"} | {
    "ResNet152-C": "ResNet152-D",
    "RegNet": "RegNetY-1.6GF",
    "EfficientNet": "EfficientNet-B2",
    **{f"ResNet{depth}-B": f"ResNet{depth}" for depth in (18, 34, 50, 101, 152)},
}


def multiply_adds(network: nn.Module, size: int) -> int:
    """Those of convolutions and linear layers on one image, counted without computing."""
    total = 0

    def count(module, inputs, output):
        nonlocal total
        if isinstance(module, nn.Conv2d):
            per_value = module.in_channels // module.groups * math.prod(module.kernel_size)
        else:
            per_value = module.in_features
        total += output.numel() * per_value

    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.register_forward_hook(count)
    network.eval()(torch.zeros(1, 3, size, size, device="meta"))
    return total


def digits(number: float) -> float:
    """Half a unit of the last digit that is written."""
    return 0.5 * 10.0 ** -len(str(number).partition(".")[2])


@pytest.mark.parametrize("name", NETWORKS)
def test_parameters_and_multiply_adds_are_the_published_ones(name):
    millions, giga, size = PUBLISHED[SAME_COST.get(name, name)]
    with torch.device("meta"):
        network = build_network(name, 1000)
    parameters = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    cost = multiply_adds(network, size) / 1e9
    assert abs(parameters - millions) <= digits(millions) * 1.001
    if "Lite" in name:
        assert 0.94 * giga < cost < giga
    elif name.endswith(("-C", "-D")):
        assert cost == pytest.approx(giga, rel=0.006)
    else:
        assert abs(cost - giga) <= digits(giga) * 1.001


def test_lite_pads_as_tensorflow_does():
    """For a stride of 2: on even sizes more at the end, on odd sizes alike."""
    layer = SameConv2d(1, 1, 3, stride=2, bias=False)
    nn.init.ones_(layer.weight)
    line = torch.arange(1.0, 7).expand(1, 1, 6, 6)
    # Columns (1 2 3), (3 4 5), (5 6 -), two or three rows of each.
    assert layer(line)[0, 0, 0].tolist() == [18, 36, 33]
    line = torch.arange(1.0, 6).expand(1, 1, 5, 5)
    # Columns (- 1 2), (2 3 4), (4 5 -), two rows at the border and three inside.
    assert layer(line)[0, 0, 1].tolist() == [9, 27, 27]


@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("size", [4, 5, 6, 7, 10])
def test_same_padding_by_hand(kernel, stride, size):
    """The windows of the outputs together, ceil(size / stride) of them, have their middle in the image's."""
    layer = SameConv2d(1, 1, kernel, stride, bias=False)
    nn.init.ones_(layer.weight)
    image = 10.0 ** torch.arange(size, dtype=torch.double) * torch.eye(size, dtype=torch.double)
    counts = -(-size // stride)
    before = max((counts - 1) * stride + kernel - size, 0) // 2
    windows = [range(i * stride - before, i * stride - before + kernel) for i in range(counts)]
    expected = [
        [sum(10**x for x in {*row} & {*column} & {*range(size)}) for column in windows] for row in windows
    ]
    assert layer.double()(image[None, None])[0, 0].tolist() == expected


def test_lite_equals_its_reference():
    """The package that its weights were published for; random weights and norm statistics."""
    theirs = randomise(efficientnet_lite_pytorch.EfficientNet.from_name("efficientnet-lite0", num_classes=5))
    ours = build_network("EfficientNet-Lite0", 5).eval()
    state = from_lite(dict(theirs.state_dict()), ours)
    assert state.keys() == ours.state_dict().keys()
    ours.load_state_dict(state)
    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected, logits = theirs(images), ours(images)
    assert (logits - expected).abs().max() < 1e-5 * expected.abs().max()


def test_building_depends_on_torchs_seed_alone():
    torch.manual_seed(3)
    first = build_network("ResNet18", 3).state_dict()
    torch.manual_seed(3)
    second = build_network("ResNet18", 3).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


SMALL_MEMBERS = (
    "ResNet18",
    "ResNet50-D",
    "RegNetX-200MF",
    "RegNetY-200MF",
    "EfficientNet-B0",
    "EfficientNet-Lite0",
)
RESIDUAL_BRANCHES = {  # in the EfficientNets those of blocks that keep their shape
    "ResNet18": 8,
    "ResNet50-D": 16,
    "RegNetX-200MF": 13,
    "RegNetY-200MF": 13,
    "EfficientNet-B0": 9,
    "EfficientNet-Lite0": 9,
}


@pytest.mark.parametrize("name", SMALL_MEMBERS)
@pytest.mark.parametrize("norm", NORMS)
def test_zero_gamma_silences_each_residual_branch(name, norm):  # EvoNorm had no such attribute
    network = build_network(name, 3, norm=norm, zero_gamma=True).eval()
    zeros = [n for n, p in network.named_parameters() if n.endswith(".weight") and (p == 0).all()]
    assert len(zeros) == RESIDUAL_BRANCHES[name]

    seen = []
    for module in network.modules():
        if isinstance(module, StochasticDepth):
            module.register_forward_pre_hook(lambda m, args: seen.append(bool((args[0] == 0).all())))
    network(torch.randn(1, 3, 64, 64))
    assert seen == [True] * RESIDUAL_BRANCHES[name]


@pytest.mark.parametrize(
    ("name", "momentum", "eps"),
    [
        *(("EfficientNet-B0", 0.1, 1e-5), ("EfficientNet-B4", 0.1, 1e-5), ("EfficientNet-B5", 0.01, 1e-3)),
        *(
            ("EfficientNet-B7", 0.01, 1e-3),
            ("EfficientNet-Lite0", 0.01, 1e-3),
            ("EfficientNet-Lite4", 0.01, 1e-3),
        ),
        *(("ResNet18", 0.1, 1e-5), ("RegNetY-200MF", 0.1, 1e-5)),
    ],
)
def test_norms_have_the_momentum_and_eps_that_published_weights_were_trained_with(name, momentum, eps):
    with torch.device("meta"):
        layers = [module for module in build_network(name, 3).modules() if isinstance(module, nn.BatchNorm2d)]
    assert {(layer.momentum, layer.eps) for layer in layers} == {(momentum, eps)}


@pytest.mark.parametrize("name", SMALL_MEMBERS)
def test_frozen_batchnorm_keeps_its_statistics_and_trains_its_scale(name):
    plain, frozen = (build_network(name, 3, norm=norm).double() for norm in ("batchnorm", "frozen_batchnorm"))
    randomise(plain)
    frozen.load_state_dict(plain.state_dict())
    layers = [module for module in frozen.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(layers) == sum(isinstance(module, nn.BatchNorm2d) for module in plain.modules())
    for module in frozen.modules():
        if isinstance(module, RandomLayer):
            assert module.training  # frozen are the norms alone
            module.p = 0
    images = torch.randn(2, 3, 64, 64, dtype=torch.double)
    for logits in (frozen(images), frozen.train()(images)):  # as built, and as the second epoch begins
        torch.testing.assert_close(logits, plain.eval()(images))
    logits.sum().backward()
    assert all(layer.weight.grad.any() for layer in layers)
    for kept, given in zip(frozen.buffers(), plain.buffers(), strict=True):
        assert torch.equal(kept, given)


@pytest.mark.parametrize("name", SMALL_MEMBERS)
@pytest.mark.parametrize(("norm", "layer"), [("evonorm", EvoNormS0), ("evonorm_b0", EvoNormB0)])
def test_evonorm_leaves_no_batchnorm(name, norm, layer):
    plain, network = build_network(name, 3), build_network(name, 3, norm=norm)
    count = sum(isinstance(module, nn.BatchNorm2d) for module in plain.modules())
    assert sum(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules()) == 0
    assert sum(isinstance(module, layer) for module in network.modules()) == count


@pytest.mark.parametrize("name", SMALL_MEMBERS)
def test_evonorm_is_not_followed_by_an_activation(name):
    """What is left of activations works on residual sums and inside squeeze-and-excitation."""
    network = build_network(name, 3, norm="evonorm")
    allowed = ("relu", "activation")  # a block's own, after the sum; and that of squeeze-and-excitation
    for key, module in network.named_modules():
        if isinstance(module, (nn.ReLU, nn.ReLU6, nn.SiLU)):
            assert key.rpartition(".")[2] in allowed, key
            parent = network.get_submodule(key.rpartition(".")[0])
            assert isinstance(parent, SqueezeExcitation) or hasattr(parent, "sum"), key
    assert not any(isinstance(m, (nn.ReLU6, nn.SiLU)) for m in network.modules()) or name == "EfficientNet-B0"


def test_squeeze_excitation_is_its_equation():
    layer = SqueezeExcitation(6, 2, nn.ReLU())
    images = torch.randn(3, 6, 4, 5)
    w1, b1 = layer.fc1.weight[:, :, 0, 0], layer.fc1.bias
    w2, b2 = layer.fc2.weight[:, :, 0, 0], layer.fc2.bias
    for n in range(3):
        squeezed = torch.relu(w1 @ images[n].mean((1, 2)) + b1)
        weights = torch.sigmoid(w2 @ squeezed + b2)
        torch.testing.assert_close(layer(images)[n], images[n] * weights[:, None, None])


def test_stochastic_depth_drops_branches_of_images_and_keeps_the_mean():
    layer = StochasticDepth(0.25)
    torch.manual_seed(0)
    branch, shortcut = torch.ones(4000, 2, 1, 1), torch.full((4000, 2, 1, 1), 10.0)
    summed = layer(branch.clone(), shortcut)
    assert {round(value, 4) for value in summed.unique().tolist()} == {10.0, round(10 + 1 / 0.75, 4)}
    assert torch.equal(summed[:, 0], summed[:, 1])
    assert summed.mean() == pytest.approx(11, abs=0.05)
    assert torch.equal(layer.eval()(branch, shortcut), torch.full((4000, 2, 1, 1), 11.0))


def test_random_layers_do_what_was_drawn_for_each_image_and_else_draw_themselves():
    layer, features = Dropout(0.5, 3), torch.full((2, 3), 2.0)
    drawn = layer.draw(np.array([[0.1, 0.5, 0.9], [0.7, 0.4, 0.2]]))
    assert drawn.tolist() == [[0, 2, 2], [2, 0, 0]]  # dropped below p, else divided by 1 - p
    layer.factors = torch.from_numpy(drawn)
    assert layer(features).tolist() == [[0, 4, 4], [4, 0, 0]]
    assert torch.equal(layer.eval()(features), features)
    layer.train().factors = None
    kept = layer(torch.ones(4000, 3))
    assert sorted(kept.unique().tolist()) == [0, 2]
    assert kept.mean() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(
    ("name", "dropout"), [("B0", 0.2), ("B2", 0.3), ("B4", 0.4), ("B7", 0.5), ("Lite4", 0.3)]
)
def test_dropout_and_stochastic_depth_are_those_published(name, dropout):
    network = build_network(f"EfficientNet-{name}", 3)
    (drop,) = [module for module in network.modules() if isinstance(module, Dropout)]
    assert drop.p == dropout
    blocks = [module for module in network.modules() if isinstance(module, MBConv)]
    for position, block in enumerate(blocks):
        if block.sum is not None:
            assert block.sum.p == pytest.approx(0.2 * position / len(blocks))


@pytest.mark.parametrize("name", SMALL_MEMBERS)
def test_drop_path_rises_with_the_depth_and_dropout_comes_before_the_head(name):
    network = build_network(name, 3, drop_path=0.4, dropout=0.25)
    rates = [module.p for module in network.modules() if isinstance(module, StochasticDepth)]
    assert rates == pytest.approx([0.4 * (number + 1) / len(rates) for number in range(len(rates))])
    assert len(rates) == len(residual_last_norms(network))
    images, inputs = torch.randn(4, 3, 64, 64), []
    network.get_submodule(network.head).register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    with torch.no_grad():
        network.eval()(images)
        for module in network.modules():
            if isinstance(module, Dropout):
                module.train()
        network(images)
    evaluated, trained = inputs
    alive = evaluated != 0  # rectifiers leave zeros of their own
    assert (trained[alive] == 0).float().mean() == pytest.approx(0.25, abs=0.05)
    assert (trained[~alive] == 0).all()


def test_unknown_names_are_refused():
    with pytest.raises(KeyError):
        build_network("ResNet50", 3, norm="groupnorm")
    with pytest.raises(KeyError):
        build_network("ResNet51", 3)


@pytest.mark.parametrize(
    "name", ["ResNet18", "ResNet50-D", "RegNetY-200MF", "EfficientNet-Lite0", "ConvNeXt-Tiny"]
)
def test_a_family_tells_its_head_and_its_last_feature_maps(name):
    network, seen = build_network(name, 3), []
    assert network.get_submodule(network.head).out_features == 3
    network.get_submodule(network.feature_layer).register_forward_hook(
        lambda _, args, out: seen.append(out.shape)
    )
    network(torch.zeros(2, 3, 96, 64))
    assert [(len(shape), *shape[-2:]) for shape in seen] == [(4, 3, 2)]


def train_one_step(name, norm="batchnorm", size=64):
    network = build_network(name, 3, norm=norm).to(memory_format=torch.channels_last)
    images = torch.randn(2, 3, size, size).to(memory_format=torch.channels_last)
    logits = network(images)
    assert logits.shape == (2, 3)
    logits.square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())
    assert sum(bool(parameter.grad.any()) for parameter in network.parameters()) > 10


@pytest.mark.parametrize("name", SMALL_MEMBERS)
@pytest.mark.parametrize("norm", ["evonorm", "evonorm_b0"])
def test_a_training_step_works_with_evonorm(name, norm):
    train_one_step(name, norm)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_training_step_of_every_member_works(name):
    train_one_step(name)


def test_building_leaves_no_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    build_network("ResNet18", 3)
    assert not list(tmp_path.iterdir())
