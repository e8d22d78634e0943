"""--export: files for other programs, run by their own runtimes."""

import csv
import json
import shutil
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import safetensors
import torch
import torchvision
from PIL import Image, ImageOps
from safetensors.torch import load_file
from torch import nn

from learning import export
from learning.classifier import Classifier
from network import build_network
from network.norm import BatchNormAct
from options import EXPORTS
from tests.conftest import CLASSES, ROOT, SMALL, as_trained
from utils.run.checkpoint import read_checkpoint, save_checkpoint
from utils.run.records import Weights, as_record

CPU = torch.device("cpu")
TEST = "seg_test/seg_test"


def classifier_of(network, model, tmp_path, **others) -> Classifier:
    content = as_trained(network, model, temperature=1.7, thresholds={}, **others)
    return Classifier.of(as_record(Weights, content, tmp_path), tmp_path, CPU)


def exported(classifier, path) -> export.Runtime:
    """The runtime of a file, written without the proof."""
    write, run = export.FORMATS[path.suffix]
    path.write_bytes(write(classifier, export.metadata_of(classifier, {})))
    return run(path, classifier)


def stirred(network: nn.Module) -> nn.Module:
    """With statistics and gammas that are not those of a fresh norm."""
    for module in network.modules():
        for name in ("running_mean", "running_var", "weight", "bias"):
            values = getattr(module, name, None)
            if isinstance(module, nn.BatchNorm2d) and values is not None:
                values.data = values.data + 0.3 * torch.rand_like(values)
    return network


def test_every_suffix_has_a_writer_and_a_reader():
    assert tuple(export.FORMATS) == tuple(export.NEEDED) == EXPORTS


@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
@pytest.mark.parametrize(
    ("model", "norm"),
    [
        ("ResNet18-D", "batchnorm"),
        ("ResNet18", "evonorm"),
        ("ResNet18", "evonorm_b0"),
        ("RegNetY-400MF", "frozen_batchnorm"),
        ("EfficientNet-B0", "batchnorm"),
        ("EfficientNet-Lite0", "batchnorm"),
        ("ConvNeXt-Tiny", "batchnorm"),
    ],
)
def test_every_family_answers_the_same_in_every_runtime(tmp_path, suffix, model, norm):
    torch.manual_seed(0)
    network = stirred(build_network(model, 3, norm=norm))
    mirrored = model == "ResNet18-D"  # once is enough: each view has the whole network in the graph
    flags = {"model": model, "norm": norm, "image_size": 32, "crop": "center"}
    flags["tta"] = "flip" if mirrored else "none"
    classifier = classifier_of(network, model, tmp_path, flags=flags)
    runtime = exported(classifier, tmp_path / f"network{suffix}")
    rng = np.random.default_rng(0)
    for count in (1, 5):
        images = rng.integers(0, 256, (count, 37, 37, 3), dtype=np.uint8)
        # What comes out, by hand: the middle of each view, their mean, the temperature.
        views = []
        for seen in (images, images[:, :, ::-1]) if mirrored else (images,):
            middle = torch.tensor(seen[:, 2:34, 2:34].copy()).permute(0, 3, 1, 2)
            with torch.no_grad():
                views.append(network.eval()((middle / 255 - 0.4) / 0.2).softmax(1))
        expected = (torch.stack(views).mean(0).log() / 1.7).softmax(1)
        found = runtime(images)
        assert (found.shape, found.dtype) == ((count, 3), np.float32)
        np.testing.assert_allclose(found, expected, atol=1e-5)
    if suffix == ".onnx" and "batchnorm" in norm:
        kinds = {node.op_type for node in onnx.load(tmp_path / "network.onnx").graph.node}
        assert "Conv" in kinds
        assert "BatchNormalization" not in kinds


@pytest.mark.parametrize("model", ["ResNet18-D", "RegNetY-400MF", "EfficientNet-Lite0"])
def test_norms_are_folded_into_convolutions(model):
    network = stirred(build_network(model, 3)).eval()
    inputs = torch.randn(2, 3, 64, 64)
    found = export.folded(network, inputs)
    assert not any(isinstance(module, BatchNormAct) for module in found.modules())
    assert any(isinstance(module, BatchNormAct) for module in network.modules())  # it is a copy
    with torch.no_grad():
        torch.testing.assert_close(found(inputs), network(inputs), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("suffix", EXPORTS)
def test_a_run_becomes_a_file_that_has_proved_itself(used, suffix, capsys):
    run, path = used.run("run"), used.folder / f"network{suffix}"
    assert used("run", "--export", str(path)) == 0
    out = capsys.readouterr().out
    result, told = (json.loads((run / name).read_text()) for name in ("result.json", "export.json"))
    assert told["images"] == 18
    assert 0 <= told["mean_difference"] <= told["greatest_difference"] < 1e-5
    assert told["changed_predictions"] == 0
    assert told["images_per_second"] > 0 < told["images_per_second_exported"]
    assert f"at most {told['greatest_difference']:.2g}" in out
    assert 0 < told["run_greatest_difference"] < 0.05 or told["run_changed_predictions"] == 0

    if suffix == ".onnx":
        metadata = onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map
    elif suffix == ".safetensors":
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata()
    else:
        metadata = dict.fromkeys(("classes", "image_size", "crop", "resize", "run", "test_accuracy"), "")
        torch.export.load(path, extra_files=metadata)
    about = {name: json.loads(metadata[name]) for name in metadata}
    expected = {"image_size": 37, "crop": True, "resize": "bilinear", "run": "run"}
    expected |= {"classes": list(CLASSES), "test_accuracy": result["test_accuracy"]}
    if suffix != ".pt2":
        expected |= {"input_size": 32, "tta": "flip", "network": "RegNetX-200MF"}
    assert expected.items() <= about.items()


def test_the_batch_of_a_graph_is_dynamic_and_named(used):
    path = used.folder / "network.onnx"
    assert used("run", "--export", str(path)) == 0
    session = onnxruntime.InferenceSession(path)
    (given,), (made,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.type, given.shape) == ("images", "tensor(uint8)", ["batch", 37, 37, 3])
    assert (made.name, made.shape) == ("probabilities", ["batch", 3])


@pytest.mark.parametrize("crop", ["none", "center"])
def test_the_example_answers_as_predict_does(program, tmp_path, crop):
    """As it stands, with files of all kinds: a large JPEG, one on its side, grey, transparent."""
    flags = ("--crop", crop, "--precision", "fp32")
    assert program("run", *SMALL, *flags) == 0
    assert program("run", "--export", str(tmp_path / "network.onnx")) == 0
    folder = tmp_path / "files"
    folder.mkdir()
    source = Image.open(program.data / TEST / "circle/000.png")
    source.resize((1200, 700)).save(folder / "large.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    source.resize((90, 60)).save(folder / "side.jpg", exif=exif)
    source.convert("L").save(folder / "grey.png")
    source.convert("RGBA").save(folder / "clear.png")
    deep = np.linspace(0, 40_000, 50 * 40).reshape(40, 50).astype(np.uint16)
    Image.fromarray(deep).save(folder / "deep.png")
    assert program("run", "--predict", str(folder)) == 0
    with (program.run("run") / "predicted.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    paths = [str(folder / row["path"]) for row in rows]
    example = [sys.executable, ROOT / "assets/classify_onnx.py", tmp_path / "network.onnx", *paths]
    done = subprocess.run(example, capture_output=True, text=True, cwd=tmp_path)
    lines = [line.rsplit(" ", 2) for line in done.stdout.splitlines()]
    assert len(lines) == 5, done.stderr
    for (path, name, confidence), expected, row in zip(lines, paths, rows, strict=True):
        assert (path, name) == (expected, row["prediction"])
        assert float(confidence) == pytest.approx(float(row["confidence"]), abs=2e-5)


def test_the_example_is_short():
    code = (ROOT / "assets/classify_onnx.py").read_text().split('"""')[2]
    assert len([line for line in code.splitlines() if line]) <= 20
    assert "learning" not in code


def test_safetensors_load_strictly_into_torchvisions_network(tmp_path, shapes, program):
    assert program("run", *SMALL, "--epochs", "1", "--model", "ResNet18") == 0
    assert program("run", "--export", str(tmp_path / "network.safetensors")) == 0
    theirs = torchvision.models.resnet18(num_classes=3)
    theirs.load_state_dict(load_file(tmp_path / "network.safetensors"))
    ours = Classifier.load(program.run("run") / "best.pt", "cpu").network
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(theirs.eval()(images), ours.eval()(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("suffix", EXPORTS)
def test_a_file_that_answers_otherwise_is_not_written(used, suffix, monkeypatch, capsys):
    write, run = export.FORMATS[suffix]

    def spoilt(classifier, metadata):
        parameter = next(classifier.network.parameters()).data
        parameter += 0.02
        content = write(classifier, metadata)
        parameter -= 0.02
        return content

    monkeypatch.setitem(export.FORMATS, suffix, (spoilt, run))
    before = sorted(used.folder.iterdir())
    assert used("run", "--export", str(used.folder / f"network{suffix}")) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "is not written: its probabilities differ" in error
    assert sorted(used.folder.iterdir()) == before
    assert not (used.run("run") / "export.json").exists()


@pytest.mark.parametrize("part", ["temperature", "mean", "mirror", "classes"])
def test_the_proof_sees_every_part_of_the_way(used, part, monkeypatch, capsys):
    """A graph that leaves one of them out is not written."""
    best = used.run("run") / "best.pt"
    save_checkpoint(best, read_checkpoint(best) | {"temperature": 2.0})
    made = export.Deployed.__init__

    def other(self, classifier, network):
        made(self, classifier, network)
        whole = self.views[0]
        if part == "temperature":
            self.temperature = 1.0
        elif part == "mean":
            self.views = [lambda images: whole(images) + 0.01] * 2
        elif part == "mirror":
            self.views = [whole]
        else:
            self.network = nn.Sequential(self.network, Rolled())

    monkeypatch.setattr(export.Deployed, "__init__", other)
    assert used("run", "--export", str(used.folder / "network.pt2")) == 1
    assert not (used.folder / "network.pt2").exists()


class Rolled(nn.Module):
    """Logits in another order of the classes."""

    def forward(self, logits):
        return logits.roll(1, 1)


def test_exact_ties_are_no_changed_predictions():
    a = np.array([[0.4, 0.4, 0.2], [0.6, 0.3, 0.1], [0.45, 0.4500001, 0.1]])
    b = np.array([[0.39, 0.41, 0.2], [0.2, 0.7, 0.1], [0.45, 0.45, 0.1]])
    assert export.changed_predictions(a, b) == 1
    assert export.changed_predictions(b, a) == 1


def test_predictions_of_another_precision_are_compared_and_do_not_refuse(program, tmp_path, capsys):
    assert program("run", *SMALL, "--precision", "bf16") == 0
    assert program("run", "--export", str(tmp_path / "network.pt2")) == 0
    told = json.loads((program.run("run") / "export.json").read_text())
    assert told["greatest_difference"] < 1e-5 < told["run_greatest_difference"]
    assert "run      its own predictions (bf16) differ" in capsys.readouterr().out


def test_exported_weights_are_trained_from_with_their_normalisation(used, capsys):
    """Which is another than that of ImageNet, as with EfficientNet-Lite's."""
    best = used.run("run") / "best.pt"
    save_checkpoint(best, read_checkpoint(best) | {"normalisation": [[0.4] * 3, [0.2] * 3]})
    path = used.folder / "network.safetensors"
    assert used("run", "--export", str(path)) == 0
    flags = ("--model", "RegNetX-200MF", "--image_size", "32", "--epochs", "1", "--batch_size", "16")
    for name, source in (("of_export", path), ("of_run", best)):
        assert used(name, *flags, "--pretrained_path", str(source)) == 0
        args = json.loads((used.run(name) / "args.json").read_text())
        assert args["normalisation"] == [[0.4] * 3, [0.2] * 3]
    assert "left fresh" not in capsys.readouterr().out
    first, second = (read_checkpoint(used.run(name) / "last.pt") for name in ("of_export", "of_run"))
    assert all(torch.equal(first["network"][key], second["network"][key]) for key in first["network"])


def test_other_views_are_another_result_and_refused(used, capsys):
    assert used("run", "--export", str(used.folder / "network.pt2"), "--tta", "none") == 2
    assert "--tta none (the run has flip)" in capsys.readouterr().err


def test_weights_and_what_the_file_says_are_enough(used):
    """By torchvision and the metadata alone: the digits of the run."""
    path = used.folder / "network.safetensors"
    assert used("run", "--export", str(path)) == 0
    with safetensors.safe_open(path, "pt") as file:
        about = {name: json.loads(value) for name, value in file.metadata().items()}
    network = build_network(about["network"], len(about["classes"])).eval()
    network.load_state_dict(load_file(path))
    with (used.run("run") / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    size, middle = about["image_size"], about["input_size"]
    first = (size - middle) // 2
    mean, std = (torch.tensor(part)[:, None, None] for part in about["normalisation"])
    for row in rows[:6]:
        image = Image.open(used.data / row["path"]).convert("RGB")
        pixels = np.asarray(ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR))
        views = [pixels, pixels[:, ::-1]] if about["tta"] == "flip" else [pixels]
        logits = []
        for view in views:
            seen = torch.tensor(view[first : first + middle, first : first + middle].copy()).permute(2, 0, 1)
            with torch.no_grad():
                logits.append(network(((seen / 255 - mean) / std)[None]))
        probabilities = torch.stack(logits).softmax(-1).mean(0)
        calibrated = (probabilities.log() / about["temperature"]).softmax(-1)
        assert calibrated.max().item() == pytest.approx(
            float(row["confidence"]), abs=5e-3
        )  # the run's was bf16


def test_images_that_are_gone_are_named(used, tmp_path, capsys):
    gone = ("--data_dir", str(tmp_path / "gone"))
    assert used("run", "--export", str(tmp_path / "network.pt2"), *gone) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "--data_dir" in error


@pytest.mark.parametrize(
    ("suffix", "package"),
    [(".onnx", "onnxruntime"), (".onnx", "onnxscript"), (".safetensors", "safetensors")],
)
def test_a_missing_package_is_named(used, suffix, package, monkeypatch, capsys):
    there = export.importlib.util.find_spec
    monkeypatch.setattr(
        export.importlib.util, "find_spec", lambda name: None if name == package else there(name)
    )
    assert used("run", "--export", str(used.folder / f"network{suffix}")) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert package in error
    assert "requirements" in error


def test_a_file_that_is_there_is_replaced_only_when_told(used, capsys):
    path = used.folder / "network.safetensors"
    path.write_bytes(b"precious")
    assert used("run", "--export", str(path)) == 2
    assert path.read_bytes() == b"precious"
    assert used("run", "--export", str(path), "--overwrite") == 0
    assert len(load_file(path)) > 10


def test_other_test_images_are_told(used, shapes, tmp_path, capsys):
    more = tmp_path / "more"
    shutil.copytree(shapes, more)
    shutil.copy(more / TEST / "circle/000.png", more / TEST / "circle/new.png")
    (more / TEST / "plain/000.png").rename(more / TEST / "plain/other.png")
    assert used("run", "--export", str(tmp_path / "network.pt2"), "--data_dir", str(more)) == 0
    assert "predictions.csv is not of these test images" in capsys.readouterr().out
    told = json.loads((used.run("run") / "export.json").read_text())
    assert told["images"] == 19
    (more / TEST / "circle/new.png").unlink()  # as many, but under another name
    overwrite = ("--overwrite", "--data_dir", str(more))
    assert used("run", "--export", str(tmp_path / "network.pt2"), *overwrite) == 0
    told = json.loads((used.run("run") / "export.json").read_text())
    assert told["images"] == 18
    assert "run_greatest_difference" not in told
