"""network/weights.py with the files of timm, and timm itself to compare with."""

import json
import re

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from network import NETWORKS, WeightsError, build_network, load_weights
from network.weights import IMAGENET, timm_name

NORMALISATION = ((0.5, 0.25, 0.125), (0.75, 0.5, 0.25))  # of no file that there is
MEMBERS = sorted({member for _, member in NETWORKS.values()})
IN_TIMM = [name for name in MEMBERS if timm_name(name) in timm.list_models()]


def images():
    """[4, 3, 66, 96]: maps are of odd heights and even widths, where one or another padding shows."""
    return torch.rand(4, 3, 66, 96, generator=torch.Generator().manual_seed(1))


def timms(architecture, classes=5):
    """A network of timm's in evaluation: random weights and norms, with norm statistics that go with them.

    With others a signal drowns or grows without bound on its way through a hundred layers.
    """
    with torch.device("meta"):  # spares it the weights that it would start with
        network = timm.create_model(architecture, num_classes=classes)
    network.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    for name, tensor in network.state_dict().items():
        if tensor.ndim > 1:
            bound = (6 / tensor[0].numel()) ** 0.5
            tensor.uniform_(-bound, bound, generator=generator)
        elif name.endswith((".weight", ".gamma")):
            tensor.uniform_(0.2, 8 if "lite" in architecture else 0.8, generator=generator)  # for ReLU6
        else:
            tensor.copy_(torch.rand(tensor.shape, generator=generator) - 0.5)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1
    with torch.no_grad():
        network.train()(images())
    return network.eval()


def save(network, folder, architecture, **config):
    """Save as timm's repositories have it; the file's path."""
    path = folder / "model.safetensors"
    save_file(network.state_dict(), path)
    mean, std = NORMALISATION
    settings = {"mean": mean, "std": std, "input_size": [3, 224, 224]}
    content = {"architecture": architecture, "num_classes": 5, "pretrained_cfg": settings} | config
    (folder / "config.json").write_text(json.dumps(content))
    return path


def difference(ours, theirs):
    """The greatest difference of their logits, relative to the greatest logit."""
    with torch.inference_mode():
        expected, logits = theirs(images()), ours.eval()(images())
    greatest = expected.abs().max()
    assert (expected[0] - expected[1]).abs().max() > 0.01 * greatest  # what they see matters
    return ((logits - expected).abs().max() / greatest).item()


@pytest.mark.parametrize("name", IN_TIMM)
def test_timms_files_give_the_same_logits(tmp_path, name):
    theirs = timms(timm_name(name))
    path = save(theirs, tmp_path, timm_name(name))
    with torch.device("meta"):
        ours = build_network(name, 5)
    loaded = load_weights(ours.to_empty(device="cpu"), path)
    path.unlink()  # up to half a gigabyte
    assert (loaded.fresh, loaded.warnings, loaded.normalisation) == ((), (), NORMALISATION)
    assert difference(ours, theirs) < 1e-5


def test_convnext_has_timms_epsilon():
    """It hardly shows in the logits."""
    with torch.device("meta"):
        networks = build_network("ConvNeXt-Tiny", 5), timm.create_model("convnext_tiny")
    norms = [[m.eps for m in network.modules() if isinstance(m, nn.LayerNorm)] for network in networks]
    assert norms[0] == norms[1] == [1e-6] * 23


def test_timm_has_all_members_but_two():
    assert set(MEMBERS) - set(IN_TIMM) == {"ResNet18-C", "ResNet34-C"}


@pytest.mark.parametrize("name", ["ResNet18", "RegNetX-200MF", "EfficientNet-B0", "ConvNeXt-Tiny"])
def test_a_head_for_other_classes_stays_fresh(tmp_path, name):
    network = build_network(name, 3)
    fresh = load_weights(network, save(timms(timm_name(name)), tmp_path, timm_name(name))).fresh
    assert fresh == tuple(f"{network.head}.{parameter}" for parameter in ("bias", "weight"))


def test_the_network_keeps_its_function_where_it_has_another_epsilon(tmp_path):
    """timm's EfficientNet-B5 has 1e-5 and ours 1e-3, which matters for a channel that hardly varies."""
    theirs = timms("efficientnet_b5")
    theirs.bn1.running_var.fill_(1e-4)
    ours = build_network("EfficientNet-B5", 5)
    load_weights(ours, save(theirs, tmp_path, "efficientnet_b5"))
    norms = ours.features[0][1].eval(), theirs.bn1
    maps = 0.01 * torch.randn(1, 48, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(norms[0](maps), norms[1](maps), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("suffix", [".pth", ".bin"])
def test_files_that_torch_wrote_load_too(tmp_path, suffix):
    theirs = timms("regnetx_002")
    path = save(theirs, tmp_path, "regnetx_002").with_suffix(suffix)
    torch.save(theirs.state_dict(), path)
    ours = build_network("RegNetX-200MF", 5)
    loaded = load_weights(ours, path)
    assert loaded.source == f"timm's {path}"
    assert loaded.normalisation == NORMALISATION
    assert difference(ours, theirs) < 1e-5


@pytest.mark.parametrize(
    ("model", "architecture", "words"),
    [
        ("EfficientNet-B0", "tf_efficientnet_b0", "timm's tf_efficientnet_b0, not efficientnet_b0: it pads"),
        ("EfficientNet-Lite0", "efficientnet_lite0", "not tf_efficientnet_lite0: it pads in another way"),
        ("ResNet50", "resnet50d", "use --model ResNet50-D"),
        ("ResNet50-B", "regnety_080_tv", "not resnet50: use --model RegNetY-8.0GF"),
        ("ResNet50", "resnetblur50", "timm's resnetblur50, not resnet50: no network here is that"),
        ("RegNetX-400MF", "regnetx_004.pycls_in1k", "no network here is that; use a file of regnetx_004_tv"),
    ],
)
def test_other_architectures_are_refused_by_name(tmp_path, model, architecture, words):
    with torch.device("meta"):
        network = build_network(model, 5)
    path = save(nn.Linear(1, 1), tmp_path, architecture)
    if not model.startswith("ResNet"):
        save_file({"stem.conv.weight": torch.zeros(1)}, path)
    with pytest.raises(WeightsError, match=words) as error:
        load_weights(network, path)
    assert str(error.value).startswith(str(tmp_path / "config.json"))
    assert "\n" not in str(error.value)


def test_a_config_may_have_its_settings_outside_and_a_training_in_the_name(tmp_path):
    settings = {"mean": [0, 0.5, 1], "std": [1, 0.5, 0.25]}
    path = save(timms("resnet18"), tmp_path, "resnet18.a1_in1k", **settings)
    content = json.loads((tmp_path / "config.json").read_text())
    del content["pretrained_cfg"]
    (tmp_path / "config.json").write_text(json.dumps(content))
    loaded = load_weights(build_network("ResNet18", 5), path)
    assert loaded.normalisation == ((0.0, 0.5, 1.0), (1.0, 0.5, 0.25))
    assert {type(number) for part in loaded.normalisation for number in part} == {float}


HALF = [0.5, 0.5, 0.5]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe\xfd",
        b"[" * 100_000,
        b'["architecture"]',
        *(
            json.dumps({"architecture": "resnet18", "pretrained_cfg": settings}).encode()
            for settings in (
                None,
                "a1_in1k",
                {},
                {"mean": HALF},
                {"mean": HALF, "std": [0.5, 0.5]},
                {"mean": HALF, "std": [0.5, 0.5, 0]},
                {"mean": HALF, "std": [0.5, 0.5, -0.5]},
                {"mean": HALF, "std": 0.5},
                {"mean": HALF, "std": "abc"},
                {"mean": [0.5, 0.5, float("nan")], "std": HALF},
                {"mean": [0.5, 0.5, 10**400], "std": HALF},
                {"mean": [0.5, 0.5, True], "std": HALF},
                {"mean": [123.675, 116.28, 103.53], "std": HALF},  # of levels from 0 to 255
            )
        ),
    ],
)
def test_a_damaged_config_is_named(tmp_path, content):
    path = save(nn.Linear(1, 1), tmp_path, "resnet18")
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(WeightsError, match=r"config\.json (is damaged|has no `mean`)") as error:
        load_weights(build_network("ResNet18", 5), path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("model", "assumed"),
    [
        (
            "EfficientNet-B0",
            "efficientnet_b0, not tf_efficientnet_b0, trained on images normalised by mean 0.485",
        ),
        (
            "EfficientNet-Lite0",
            "tf_efficientnet_lite0, not efficientnet_lite0, .* by mean 0.5, 0.5, 0.5 and std 0.5",
        ),
        (
            "RegNetY-200MF",
            "regnety_002, trained on images normalised by mean 0.485, 0.456, 0.406 and std 0.229",
        ),
        ("ResNet18-D", "resnet18d, trained"),
        ("ConvNeXt-Tiny", "convnext_tiny, trained"),
    ],
)
def test_without_a_config_one_line_says_what_is_assumed(tmp_path, model, assumed):
    path = save(timms(timm_name(model)), tmp_path, timm_name(model))
    place = tmp_path / "config.json"
    place.write_text('{"model_type": "of another program"}')
    (foreign,) = load_weights(build_network(model, 5), path).warnings
    place.unlink()
    loaded = load_weights(build_network(model, 5), path)
    (missing,) = loaded.warnings
    assert foreign == missing.replace(f"there is no {place}", f"{place} is not timm's")
    assert re.search(assumed, missing)
    default = timm.get_pretrained_cfg(timm_name(model))
    assert loaded.normalisation == (default.mean, default.std)


def test_a_plain_resnets_file_may_be_torchvisions(tmp_path):
    """Nothing is said without a config; another program's is named."""
    path = save(timms("resnet18"), tmp_path, "resnet18")
    assert load_weights(build_network("ResNet18", 5), path).source == f"timm's {path}"
    (tmp_path / "config.json").write_text("{}")
    (warning,) = load_weights(build_network("ResNet18", 5), path).warnings
    assert "config.json is not timm's: model.safetensors is taken for timm's resnet18, trained" in warning
    (tmp_path / "config.json").unlink()
    loaded = load_weights(build_network("ResNet18", 5), path)
    assert (loaded.source, loaded.normalisation, loaded.warnings) == (str(path), IMAGENET, ())
