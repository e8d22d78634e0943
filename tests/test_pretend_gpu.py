"""The way of a GPU, walked on a pretended one: what a run does there, and what it would cost."""

import os

import pytest
import torch

from network import build_network
from tests.conftest import SMALL, as_trained
from tests.pretend_gpu import CannotPretend, PretendGpu
from utils.run.checkpoint import save_checkpoint

ALL = (
    *("--randaugment", "--mixup", "0.2", "--cutmix_alpha", "1", "--cutmix_prob", "0.5", "--crop", "random"),
    *("--random_erasing", "0.5", "--ema", "0.9", "--label_smooth", "0.1", "--grad_clip", "1"),
    *("--accumulate", "2"),
    *("--class_weights", "balanced", "--drop_path", "0.1", "--dropout", "0.1", "--no_bias_decay"),
)
FP16 = ("--precision", "fp16")
# One trick, optimizer, norm and precision after the other, and what belongs together.
TRICKS = [
    (),
    ("--nesterov", "--no_bias_decay"),
    ("--optimizer", "ADAM"),
    ("--optimizer", "ADAMW"),
    ("--optimizer", "RADAM"),
    ("--randaugment",),
    ("--trivial_augment",),
    ("--augmix",),
    (
        *("--augmix", "--mixup", "0.2", "--accumulate", "2", "--teacher", "TEACHER", "--drop_path", "0.1"),
        *("--sam", "0.1", "--class_weights", "balanced"),
    ),
    ("--crop", "random"),
    ("--crop", "center"),
    ("--random_erasing", "0.5"),
    ("--mixup", "0.2"),
    ("--cutmix_alpha", "1", "--cutmix_prob", "1"),
    ("--mixup", "0.2", "--cutmix_alpha", "1", "--cutmix_prob", "0.5"),
    ("--ema", "0.99"),
    ("--accumulate", "4"),
    ("--grad_clip", "1"),
    ("--class_weights", "balanced"),
    ("--label_smooth", "0.1"),
    ("--teacher", "TEACHER"),
    ("--loss", "focal", "--class_weights", "balanced", "--label_smooth", "0.1", "--mixup", "0.2"),
    ("--loss", "bce", "--teacher", "TEACHER", "--cutmix_alpha", "1", "--cutmix_prob", "1"),
    ("--sam", "0.05", "--accumulate", "2", "--ema", "0.99"),
    ("--norm", "evonorm"),
    ("--norm", "evonorm_b0"),
    ("--norm", "frozen_batchnorm", "--pretrained_path", "WEIGHTS"),
    ("--freeze_epochs", "1", "--pretrained_path", "WEIGHTS"),
    ("--drop_path", "0.2", "--dropout", "0.2"),
    ("--zero_gamma",),
    ("--precision", "fp32"),
    ("--precision", "tf32"),
    FP16,
    (*FP16, "--optimizer", "ADAM", "--grad_clip", "1"),
    (*FP16, "--optimizer", "RADAM", "--grad_clip", "1"),
    (*FP16, "--norm", "evonorm"),
    (*FP16, "--norm", "evonorm_b0"),
    (*FP16, "--teacher", "TEACHER"),
    (*FP16, "--sam", "0.05", "--loss", "focal"),
    (*FP16, "--loss", "bce"),
    ("--memory_format", "contiguous"),
    ("--memory_format", "channels_last"),
    ("--deterministic",),
    ALL,
    (*ALL, *FP16, "--optimizer", "RADAM", "--norm", "evonorm"),
]
NETWORKS = ["ResNet18", "ResNet50-D", "RegNetY-200MF", "EfficientNet-B0", "EfficientNet-Lite0"]
FEW = [(), ("--norm", "evonorm"), ("--memory_format", "contiguous"), ALL]


def cases():
    for network in NETWORKS:
        for flags in TRICKS:
            slow = network != "ResNet18" and flags not in FEW
            marks = [pytest.mark.slow] if slow else []
            yield pytest.param(network, flags, id=" ".join((network, *flags)), marks=marks)
    for flags in ((), ALL, (*FP16, "--teacher", "TEACHER"), ("--memory_format", "contiguous")):
        yield pytest.param("ConvNeXt-Tiny", flags, id=" ".join(("ConvNeXt-Tiny", *flags)))


@pytest.fixture(scope="module")
def gpu(tmp_path_factory):
    try:
        pretended = PretendGpu(tmp_path_factory.mktemp("pretend"))
    except CannotPretend as reason:
        if os.environ.get("PRETEND_GPU") == "required":
            raise
        pytest.skip(f"no pretend GPU here: {reason}")
    yield pretended
    pretended.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Weights to start from and a run to follow, of a network's name."""
    folder, made = tmp_path_factory.mktemp("weights"), set()

    def make(name):
        weights, teacher = folder / f"{name}.pth", folder / f"{name}.pt"
        if name not in made:
            network = build_network(name, 3)
            torch.save(network.state_dict(), weights)
            save_checkpoint(teacher, as_trained(network, name))
            made.add(name)
        return {"WEIGHTS": weights, "TEACHER": teacher}

    return make


@pytest.mark.parametrize(("network", "flags"), list(cases()))
def test_a_step_is_whole_and_never_waits(gpu, program, files, network, flags):
    size = ("--image_size", "64", "--batch_size", "16", "--device", "cuda")
    pretrained = () if "WEIGHTS" in flags else ("--pretrained", "0")
    given = [str(files(network).get(flag, flag)) for flag in flags]
    seen = gpu("steps", *program.arguments("x", "--model", network, *size, *pretrained, *given))
    assert (seen.error, seen.faults, seen.exit) == ("", {}, 0), seen.printed
    assert seen.copies == 1


@pytest.mark.parametrize(
    ("device", "flags"),
    [("auto", ()), ("cuda", ()), ("cuda:0", ("--cache", "off")), ("cuda:1", (*ALL, "--tta", "flip"))],
)
def test_a_run_is_trained_interrupted_resumed_and_evaluated(gpu, program, device, flags):
    given = program.arguments("run", *SMALL, *flags, "--device", device)
    started = gpu("main", *given, stop_at=4)
    resumed = gpu("main", *given, "--resume")
    evaluated = gpu("main", *program.arguments("run"), "--evaluate", "--device", device)
    for seen, code in ((started, 143), (resumed, 0), (evaluated, 0)):
        assert (seen.error, seen.faults, seen.exit) == ("", {}, code), seen.printed
        assert seen.streams == 1
        assert "device   Pretend GPU; bf16, contiguous\n" in seen.printed
    elsewhere = gpu("main", *program.arguments("run"), "--evaluate", "--device", "cpu")
    assert "threads; bf16, contiguous\n" in elsewhere.printed  # as on the GPU, and not as `auto` is there
    assert "epoch 1, step 4 of the run" in resumed.printed
    assert "2/2" in resumed.printed


@pytest.mark.parametrize(
    ("capability", "precision"), [((9, 0), "bf16"), ((8, 0), "bf16"), ((7, 5), "fp16"), ((6, 1), "fp32")]
)
def test_the_precision_is_what_the_card_is_fast_in(gpu, program, capability, precision):
    flags = (*SMALL, "--epochs", "1", "--device", "auto")
    seen = gpu("main", *program.arguments("run", *flags), capability=capability)
    assert (seen.error, seen.faults, seen.exit) == ("", {}, 0)
    assert f"device   Pretend GPU; {precision}," in seen.printed


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--device", "cuda:2"), "--device cuda:2: torch sees 2 GPUs here"),
        (("--device", "xpu"), "--device xpu: torch finds none here"),
        (("--device", "mps"), "--device mps: torch finds none here"),
    ],
)
def test_a_device_that_is_not_there_is_refused(gpu, program, flags, words):
    seen = gpu("main", *program.arguments("run", *SMALL, *flags))
    assert seen.exit == 2
    assert words in seen.printed


# The most that a step may launch on the device, and dispatch on the host.
BUDGET = {"ResNet50": (496, 840), "EfficientNet": (1164, 1656), "RegNet": (1399, 2180)}


@pytest.mark.parametrize("network", BUDGET)
def test_a_step_takes_no_more_kernels_and_operations_than_it_did(gpu, program, network):
    flags = ("--model", network, "--pretrained", "0", "--image_size", "64", "--batch_size", "16")
    seen = gpu("steps", *program.arguments("x", *flags, "--optimizer", "ADAM", "--device", "cuda"))
    print(f"{network}: {seen.kernels} kernels, {seen.operations} operations")
    assert seen.kernels <= BUDGET[network][0]
    assert seen.operations <= BUDGET[network][1]


# What is planted, the flags under which it matters, and what is said of it.
PLANTED = [
    ("a loss that is read", (), "wait: a number is read"),
    ("images in float64", (), "float64"),
    ("a mask", (), "aten.nonzero"),
    ("pageable memory", (), "wait: a copy of pageable memory"),
    ("pageable images", (), "wait: a copy of pageable memory"),
    ("a constant from the host", (), "wait: a copy to the device"),
    ("an index on the host", ("--mixup", "0.2"), "devices: index"),
    ("statistics on the host", (), "device"),
    ("another memory order", (), "memory order: lost"),
    ("an operation without order", (), "not deterministic: cumsum"),
    ("a convolution of two precisions", (), "dtypes: convolution"),
    ("a checkpoint of the device", (), "checkpoint: a tensor on cuda:0"),
    ("a device without a number", (), "specified index"),
    ("no current card", ("--device", "cuda:1"), "card: cuda:1 is used while cuda:0"),
    ("no current card in the thread", ("--device", "cuda:1"), "card: cuda:1 is used while cuda:0"),
    ("a stream for each loading", (), "streams"),
    ("an evaluation that waits", (), "wait: a copy to the host"),
    ("a RAdam that waits", ("--optimizer", "RADAM", *FP16), "wait: a number is read"),
]


@pytest.mark.parametrize(("plant", "flags", "words"), PLANTED, ids=[plant for plant, *_ in PLANTED])
def test_a_planted_fault_is_found(gpu, program, plant, flags, words):
    size = ("--model", "ResNet18", "--pretrained", "0", "--image_size", "64", "--batch_size", "16")
    run = (*size, "--epochs", "1", "--device", "cuda", *flags)
    seen = gpu("main", *program.arguments("x", *run), plant=plant)
    found = [*seen.faults, seen.error, *(["streams"] if seen.streams > 1 else [])]
    assert any(words in text for text in found), found
