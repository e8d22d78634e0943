"""learning/gradcam.py: where a network finds its answer, on networks whose answer is known."""

import numpy as np
import pytest
import torch
from torch import nn

from learning.gradcam import heat_maps
from network import build_network


class Quadrants(nn.Module):
    """Class k is the brightness of one quadrant; the feature maps are the image at half its size."""

    head, feature_layer = "linear", "pool"

    def __init__(self):
        super().__init__()
        self.pool = nn.AvgPool2d(2)
        self.linear = nn.Linear(3 * 8 * 8, 4, bias=False)
        with torch.no_grad():
            self.linear.weight.zero_()
            for number in range(4):
                row, column = divmod(number, 2)
                weights = self.linear.weight[number].view(3, 8, 8)
                weights[:, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = 1

    def forward(self, images):
        return self.linear(self.pool(images).flatten(1))


@pytest.mark.parametrize("quadrant", range(4))
def test_the_heat_is_in_the_quadrant_that_decides(quadrant):
    row, column = divmod(quadrant, 2)
    images = torch.zeros(2, 3, 16, 16)
    images[:, :, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = 1  # what is bright there
    images[1] += 0.1  # and a little everywhere
    heat = heat_maps(Quadrants(), images, torch.tensor([quadrant, quadrant]))
    inside = torch.zeros(8, 8, dtype=torch.bool)
    inside[4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = True
    assert (heat[:, inside] == 1).all()
    assert (heat[0][~inside] == 0).all()
    assert (heat[1][~inside] < 0.1).all()


def test_where_nothing_speaks_for_a_class_there_is_no_heat():
    network = Quadrants()
    with torch.no_grad():
        network.linear.weight.neg_()
    heat = heat_maps(network, torch.rand(1, 3, 16, 16), torch.tensor([0]))
    assert heat.tolist() == torch.zeros(1, 8, 8).tolist()


def test_it_is_the_equation():
    torch.manual_seed(0)
    network = build_network("ResNet18", 5).eval()
    images, classes = torch.randn(2, 3, 64, 64), torch.tensor([3, 1])
    with torch.no_grad():
        maps = images
        for name in ("conv1", "bn1", "maxpool", "layer1", "layer2", "layer3", "layer4"):
            maps = network.get_submodule(name)(maps)
    # Behind layer4 is the mean and the last layer: dy / dA_k is w_k / (h w), the same at each place.
    weights = network.fc.weight.detach()[classes] / (maps.shape[2] * maps.shape[3])
    expected = torch.einsum("nk,nkhw->nhw", weights, maps).relu()
    expected /= expected.amax((1, 2), keepdim=True)
    np.testing.assert_allclose(heat_maps(network, images, classes), expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "norm"),
    [
        ("ResNet18", "batchnorm"),
        ("ResNet18-D", "evonorm"),
        ("ResNet18", "evonorm_b0"),
        ("RegNetY-400MF", "frozen_batchnorm"),
        ("EfficientNet-B0", "batchnorm"),
        ("EfficientNet-Lite0", "batchnorm"),
        ("ConvNeXt-Tiny", "batchnorm"),
    ],
)
def test_every_family_has_heat_maps_and_is_left_as_it_was(name, norm):
    torch.manual_seed(0)
    network = build_network(name, 3, norm=norm).requires_grad_(False)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    heat = heat_maps(network, torch.randn(2, 3, 64, 64), torch.tensor([0, 2]))
    assert heat.shape == (2, 2, 2)
    assert ((heat >= 0) & (heat <= 1)).all()
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert not any(module._forward_hooks for module in network.modules())
