"""What only a GPU can show; skipped without one: python -m pytest tests/test_cuda.py -s

With REHEARSE=1 the tests that need no GPU themselves are tried on a CPU.
"""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from learning.augment import Augment, Flip, Normalise, RandomErasing
from learning.crop import RandomResizedCrop
from learning.randaugment import RandAugment
from learning.results import read_predictions
from learning.setup import assemble, make_fit, make_trainer
from network.evonorm import EvoNormB0, EvoNormS0
from options import parse_args
from tests.conftest import ROOT, SMALL
from tests.disturbed import load, wait_for
from tests.test_randaugment import smooth_images
from tests.test_trainer import assert_same
from utils.data.near import near_pairs
from utils.data.scenes import draw_scene
from utils.run.randomness import Draws
from utils.run.transfer import to_device

DEVICE = "cpu" if os.environ.get("REHEARSE") else "cuda"
pytestmark = pytest.mark.skipif(DEVICE == "cuda" and not torch.cuda.is_available(), reason="needs a GPU")
needs_a_card = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

RUN = (*SMALL, "--device", DEVICE)
TRICKS = (
    *("--randaugment", "--mixup", "0.2", "--cutmix_alpha", "1", "--cutmix_prob", "1", "--crop", "random"),
    *("--random_erasing", "0.5", "--ema", "0.9", "--label_smooth", "0.1", "--optimizer", "ADAM"),
)


@pytest.mark.parametrize(
    "flags",
    [
        (),
        ("--model", "EfficientNet-B0"),
        ("--model", "ResNet18", "--norm", "evonorm", "--optimizer", "RADAM"),
        ("--model", "RegNetY-200MF", "--memory_format", "channels_last", "--precision", "fp16"),
        ("--model", "ResNet18", "--compile"),
    ],
    ids=lambda flags: " ".join(flags) or "RegNetX-200MF",
)
def test_a_deterministic_run_that_is_killed_goes_on_to_the_same_bits(program, flags):
    run = (*RUN, "--epochs", "4", "--deterministic", *TRICKS, *flags)
    assert program("straight", *run) == 0
    process = program.start("killed", *run)
    wait_for(process, "2/4 ")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert program("killed", "--resume", "--device", DEVICE) == 0
    for file in ("last.pt", "best.pt"):
        assert_same(*(load(program.run(name) / file) for name in ("straight", "killed")))
    first, second = ((program.run(name) / "predictions.csv").read_text() for name in ("straight", "killed"))
    assert first == second


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16", "fp16"])
@pytest.mark.parametrize("norm", ["batchnorm", "evonorm", "evonorm_b0"])
def test_every_precision_trains(program, precision, norm):
    if precision == "tf32" and DEVICE == "cpu":
        pytest.skip("a CPU has none")
    gently = ("--optimizer", "ADAM", "--learning_rate", "0.0001")
    assert program("run", *RUN, *gently, "--precision", precision, "--norm", norm) == 0
    loss = float((program.run("run") / "log.csv").read_text().splitlines()[-1].split(",")[2])
    assert 0 < loss < 5


def test_the_device_augments_as_a_cpu_does():
    """Up to a level where rounding falls the other way."""
    transforms = {
        "crop": RandomResizedCrop(48),
        "flip": Flip(),
        "randaugment": RandAugment(1, 15),
        "random_erasing": RandomErasing(0.5, (9, 8, 7)),
    }
    images, draws = smooth_images(128, 64), Draws(seed=1, step=2)
    augmented = [Augment(transforms)(images.to(name), draws).cpu().int() for name in ("cpu", DEVICE)]
    different = (augmented[0] - augmented[1]).abs() > 1
    assert different.float().mean() < 0.002
    normalised = [
        Normalise((0.4,) * 3, (0.2,) * 3, torch.device(name))(images.to(name)).cpu()
        for name in ("cpu", DEVICE)
    ]
    torch.testing.assert_close(*normalised)


def test_near_copies_are_those_of_the_cpu(monkeypatch):
    scenes = [draw_scene("sea", np.random.default_rng(number)) for number in range(200)]
    small = [image.resize((side, side)) for image in scenes for side in (90, 60)]
    thumbnails = np.stack([np.asarray(image.convert("L").resize((32, 32))) for image in small])
    colours = np.full((len(small), 2), 128)
    expected = near_pairs(thumbnails, colours, torch.device("cpu"), lambda: None)
    monkeypatch.setattr("utils.data.near.FEW", 0)
    found = near_pairs(thumbnails, colours, torch.device(DEVICE), lambda: None)
    assert len(expected.images) == 200
    assert np.array_equal(found.images, expected.images)
    np.testing.assert_allclose(found.similarity, expected.similarity, atol=1e-4)


def test_what_is_copied_at_once_arrives():
    rng = np.random.default_rng(0)
    arrays = [rng.random(5) < 0.5, rng.integers(0, 9, (3, 2)), rng.random((4, 3)).astype(np.float32)]
    for tensor, array in zip(to_device(arrays, torch.device(DEVICE)), arrays, strict=True):
        assert np.array_equal(tensor.cpu().numpy(), array)


@pytest.mark.parametrize("layer", [EvoNormS0, EvoNormB0])
def test_evonorm_is_that_of_a_cpu_in_float64(layer):
    torch.manual_seed(0)
    layer = layer(64, torch.nn.ReLU())
    images = torch.randn(4, 64, 12, 12).to(memory_format=torch.channels_last)
    results = []
    for device, dtype in (("cpu", torch.float64), (DEVICE, torch.float32)):
        layer = layer.to(device, dtype)
        given = images.to(device, dtype).requires_grad_()
        output = layer(given)
        gradients = torch.autograd.grad(output.square().sum(), (given, *layer.parameters()))
        results.append([tensor.detach().cpu().double() for tensor in (output, *gradients)])
    for exact, ours in zip(*results, strict=True):
        assert (ours - exact).norm() < 1e-4 * exact.norm()


@needs_a_card
def test_a_step_does_not_make_the_host_wait(program, tmp_path):
    for flags in ((*TRICKS, "--precision", "bf16"), (*TRICKS, "--precision", "fp16", "--optimizer", "RADAM")):
        arguments = program.arguments("x", *RUN, *flags)
        parts = assemble(parse_args(arguments), None, lambda: None)
        trainer = make_trainer(parts)
        batches = make_fit(parts, trainer, tmp_path, None).batches_from(0)
        trainer.train_step(*next(batches))
        batch = next(batches)
        torch.cuda.set_sync_debug_mode("error")
        try:
            trainer.train_step(*batch)
        finally:
            torch.cuda.set_sync_debug_mode("default")


@needs_a_card
def test_memory_does_not_creep_over_evaluations(program, capsys):
    parts = assemble(parse_args(program.arguments("x", *RUN, "--ema", "0.9")), None, lambda: None)
    trainer = make_trainer(parts)
    reserved = []
    for _ in range(20):
        for network in (parts.classifier.network, trainer.ema.network):
            parts.evaluate(network, "val")
        reserved.append(torch.cuda.memory_reserved() / 1e6)
    with capsys.disabled():
        shown = ", ".join(f"{reserved[i]:.0f}" for i in (0, 4, -1))
        print(f"\nMB reserved after 2, 10 and 40 evaluations: {shown}")
    assert reserved[-1] == reserved[4]


@needs_a_card
@pytest.mark.parametrize("model", ["ResNet50", "EfficientNet"])
def test_evonorm_takes_little_more_memory_than_batchnorm(program, capsys, model):
    """The peak of a step on 64 images of 256 x 256 pixels."""
    peaks = {}
    for norm in ("batchnorm", "evonorm"):
        size = ("--image_size", "256", "--batch_size", "64", "--precision", "bf16")
        flags = ("--model", model, "--norm", norm, *size)
        parts = assemble(parse_args(program.arguments("x", *RUN, *flags)), None, lambda: None)
        trainer = make_trainer(parts)
        images = torch.zeros(64, 3, 256, 256, dtype=torch.uint8, device=DEVICE)
        labels = torch.zeros(64, dtype=torch.int64, device=DEVICE)
        trainer.train_step(images, labels)
        torch.cuda.reset_peak_memory_stats()
        trainer.train_step(images, labels)
        peaks[norm] = torch.cuda.max_memory_allocated() / 1e9
        del parts, trainer
        torch.cuda.empty_cache()
    with capsys.disabled():
        shown = ", ".join(f"{norm} {peak:.1f}" for norm, peak in peaks.items())
        print(f"\n{model}, 64 images of 256 x 256 pixels, GB at the peak of a step: {shown}")
    assert peaks["evonorm"] <= 1.6 * peaks["batchnorm"]


def test_a_run_is_put_to_use(program):
    """New images get the digits of the run, on a page with heat maps, and the export is that of a CPU."""
    flags = ("--deterministic", "--crop", "center", "--tta", "flip", "--model", "EfficientNet-B0")
    assert program("run", *RUN, *flags) == 0
    test = str(program.data / "seg_test/seg_test")
    assert program("run", "--predict", test, "--explain", "--num_workers", "2", "--device", DEVICE) == 0
    own, found = (
        read_predictions(program.run("run") / name) for name in ("predictions.csv", "predicted.csv")
    )
    np.testing.assert_array_equal(found.probabilities, own.probabilities)
    np.testing.assert_array_equal(found.confidences, own.confidences)
    assert (program.run("run") / "explained.html").read_text().count("<article>") == len(own.paths)
    assert program("run", "--export", str(program.folder / "network.onnx")) == 0


def test_two_runs_beside_each_other(program):
    def run(name):
        command = [sys.executable, str(ROOT / "main.py"), *program.arguments(name, *RUN, *TRICKS)]
        return subprocess.run(command, capture_output=True, cwd=program.folder)

    with ThreadPoolExecutor() as pool:
        for done in pool.map(run, ("one", "two")):
            assert done.returncode == 0, done.stderr
