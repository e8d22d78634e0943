"""utils/run/device.py: the device, precision and memory order of a run; see also test_pretend_gpu.py."""

import os
import subprocess
import sys

import pytest
import torch

from tests.conftest import ROOT
from utils.errors import UserError
from utils.run import device
from utils.run.device import choose_device, choose_memory_format, choose_precision, configure

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)

# Beginnings of what torch says.
NO_DRIVER = "Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU and installed"
OLD_DRIVER = "The NVIDIA driver on your system is too old (found version 11040). Please update your GPU"
NO_KERNELS = "CUDA error: no kernel image is available for execution on the device\nCUDA kernel errors"
BUSY = "CUDA error: all CUDA-capable devices are busy or unavailable\nFor debugging consider"


@pytest.fixture
def failing(monkeypatch):
    """Lets torch fail at one of its ways to a GPU, in its own words."""

    def fail(where, words):
        def raises(*args, **settings):
            raise RuntimeError(words)

        monkeypatch.setattr(torch.cuda, "init", lambda: None)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        monkeypatch.setattr(torch.cuda, "set_device", lambda index: None)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "NVIDIA GeForce GTX 1080 Ti")
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (6, 1))
        monkeypatch.setattr(torch.cuda, where, raises)

    return fail


@pytest.mark.parametrize(
    ("where", "words", "told"),
    [
        ("init", OLD_DRIVER, "the NVIDIA driver is too old for this torch, which is for CUDA"),
        (
            "synchronize",
            NO_KERNELS,
            "has no kernels for compute capability 6.1, that of this NVIDIA GeForce GTX 1080",
        ),
        (
            "set_device",
            BUSY,
            "the GPU does not work: CUDA error: all CUDA-capable devices are busy or unavailable",
        ),
    ],
)
def test_a_card_that_does_not_work_is_told_or_refused(failing, where, words, told, capsys):
    failing(where, words)
    torch_ones = torch.ones
    with pytest.MonkeyPatch.context() as patch:  # there is no card to put a number on
        patch.setattr(torch, "ones", lambda *args, device=None: torch_ones(*args))
        assert choose_device("auto") == CPU
        (line,) = capsys.readouterr().out.splitlines()
        assert line.startswith("warning  the CPU is used: ")
        assert told in line
        for name in ("cuda", "cuda:0"):
            with pytest.raises(UserError) as error:
                choose_device(name)
            assert f"--device {name}: " in str(error.value)
            assert told in str(error.value)
            assert "\n" not in str(error.value)


@pytest.mark.parametrize("words", [NO_DRIVER, "No CUDA GPUs are available"])
def test_a_machine_without_a_card_takes_the_cpu_in_silence(failing, words, capsys):
    failing("init", words)
    assert choose_device("auto") == CPU
    assert capsys.readouterr().out == ""
    with pytest.raises(UserError, match="--device cuda: torch finds no GPU here; or use --device cpu"):
        choose_device("cuda")


@pytest.mark.parametrize(("shown", "told"), [("7", True), (None, True), ("", False), ("-1", False)])
def test_a_driver_that_shows_no_card_is_told_unless_none_was_wanted(
    failing, shown, told, monkeypatch, tmp_path, capsys
):
    failing("init", "No CUDA GPUs are available")
    monkeypatch.setattr(device, "NVIDIA_DRIVER", tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if shown is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", shown)
    assert choose_device("auto") == CPU
    out = capsys.readouterr().out
    assert ("shows torch no GPU" in out) == told
    assert ('CUDA_VISIBLE_DEVICES="7"' in out) == (shown == "7")


def test_a_torch_without_cuda_beside_a_driver_is_told(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: False)
    assert choose_device("auto") == CPU
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(device, "NVIDIA_DRIVER", tmp_path)
    assert choose_device("auto") == CPU
    assert "built without CUDA" in capsys.readouterr().out


def test_another_accelerator_is_taken_when_it_is_named(monkeypatch, capsys):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("mps"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 1)
    assert choose_device("mps").type == "mps"
    assert "--device mps is untested" in capsys.readouterr().out
    with pytest.raises(UserError, match="--device xpu:0: torch finds none here"):
        choose_device("xpu:0")
    if not torch.cuda.is_available():
        assert choose_device("auto") == CPU
        assert "--device mps tries this machine's GPU" in capsys.readouterr().out
    with pytest.raises(UserError, match="--deterministic"):
        configure(torch.device("mps"), "fp32", deterministic=True)


@pytest.mark.parametrize(
    ("name", "capability", "expected"),
    [
        ("auto", (9, 0), "bf16"),
        ("auto", (8, 0), "bf16"),
        ("auto", (7, 0), "fp16"),
        ("auto", (6, 1), "fp32"),
        ("tf32", (8, 6), "tf32"),
        ("fp32", (9, 0), "fp32"),
    ],
)
def test_the_precision_of_a_card(name, capability, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert choose_precision(name, CUDA) == expected


def test_tf32_is_refused_where_there_is_none(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    for place in (CPU, CUDA):
        with pytest.raises(UserError, match="--precision tf32"):
            choose_precision("tf32", place)


def test_fp32_multiplies_in_fp32_and_tf32_in_tf32():
    for precision, low in (("tf32", True), ("fp32", False), ("bf16", False)):
        configure(CPU, precision, deterministic=False)
        assert torch.backends.cudnn.allow_tf32 is low
        assert torch.get_float32_matmul_precision() == ("high" if low else "highest")


def test_memory_orders_follow_the_family_and_the_device():
    assert choose_memory_format("auto", "regnet", CUDA) == "contiguous"
    assert choose_memory_format("auto", "regnet", CPU) == "channels_last"
    assert choose_memory_format("auto", "resnet", CUDA) == "channels_last"
    for name in ("contiguous", "channels_last"):
        assert choose_memory_format(name, "regnet", CUDA) == name


def test_cublas_is_told_before_torch_is_loaded():
    """Torch looks once, at its first matrix product, and then refuses --deterministic for good."""
    code = "import os, sys, main; print(os.environ['CUBLAS_WORKSPACE_CONFIG'], 'torch' in sys.modules)"
    environment = {name: value for name, value in os.environ.items() if name != "CUBLAS_WORKSPACE_CONFIG"}
    out = subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, env=environment, text=True)
    assert out.split() == [":4096:8", "False"]


GIVEN_BACK = """
import re, sys, torch
from utils.run.device import configure
if sys.argv[1:]: configure(torch.device("cpu"), "fp32", False)
def resident(): return int(re.search(r"VmRSS:\\s+(\\d+)", open("/proc/self/status").read())[1]) // 1024
for _ in range(2):
    maps = [torch.ones(16, 1024, 1024) for _ in range(4)]
    before = resident()
    del maps
print(before - resident())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc")
def test_freed_memory_is_kept_for_the_next_step():
    configured, as_it_comes = (
        int(subprocess.check_output([sys.executable, "-c", GIVEN_BACK, *more], cwd=ROOT))
        for more in (["x"], [])
    )
    assert as_it_comes > 200  # of 256 MB
    assert configured < 8
