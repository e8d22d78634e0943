"""Where a run computes, in which precision and in which memory order."""

import ctypes
import os
import re
import resource
import sys
import warnings
from pathlib import Path

import torch

from utils.console import warn
from utils.errors import UserError

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of malloc.h

DTYPES = {
    "fp32": torch.float32,
    "tf32": torch.float32,  # whose products a GPU computes with 10 bits of the fraction in place of 23
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
MEMORY_FORMATS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}

# Where "contiguous" is faster, by family of networks and type of device. Training on an RTX 3090 in half
# precision at 224 pixels, images a second in contiguous and in channels_last: ResNet-50 826 and 1,218,
# EfficientNet-B2 800 and 979, but RegNetY-1.6GF 954 and 650, RegNetY-8.0GF 386 and 118 (timm,
# results/benchmark-train-amp-{nchw,nhwc}-pt112-cu113-rtx3090.csv).
CONTIGUOUS = {("regnet", "cuda")}

NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")
NO_GPU = "torch finds no GPU here"


def choose_device(name: str) -> torch.device:
    """The device of `--device`.

    "auto" is the first CUDA device, or the CPU where there is none that works: a card that stays unused is
    told. Raises `UserError` for a device that is not there or does not work.
    """
    kind, _, number = name.partition(":")
    index = int(number or 0)
    if kind == "auto":
        obstacle = cuda_obstacle(0)
        kind = "cpu" if obstacle else "cuda"
        if obstacle and obstacle != NO_GPU:
            warn(f"the CPU is used: {obstacle}")
        elif obstacle and (other := other_accelerator()):
            warn(f"the CPU is used; --device {other} tries this machine's GPU")
    elif kind == "cuda":
        if obstacle := cuda_obstacle(index):
            raise UserError(f"--device {name}: {obstacle}; or use --device cpu")
    elif kind != "cpu":
        if kind != other_accelerator() or index >= torch.accelerator.device_count():
            raise UserError(f"--device {name}: torch finds none here; use --device cpu or auto")
        warn(f"--device {kind} is untested: compare its results with those of a CPU")
    if kind == "cpu":
        return torch.device("cpu")
    return torch.device(kind, index)


def cuda_obstacle(index: int) -> str:
    """Why torch cannot compute on this CUDA device; `NO_GPU` if there is none, "" if it can.

    Then the device is made the one that torch computes on unless told otherwise.
    """
    if not torch.backends.cuda.is_built():
        if not NVIDIA_DRIVER.exists():
            return NO_GPU
        return "this torch was built without CUDA; install one with it (pytorch.org)"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch says in many lines what is said here in one
            torch.cuda.init()
            if index >= torch.cuda.device_count():
                count = torch.cuda.device_count()
                return f"torch sees {count} GPU{'s' * (count > 1)} here"
            torch.cuda.set_device(index)
            torch.ones(1, device=torch.device("cuda", index)).add_(1)
            torch.cuda.synchronize()
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().partition("\n")[0]
    else:
        return ""
    if "Found no NVIDIA driver" in reason:
        return NO_GPU
    if "No CUDA GPUs are available" in reason:
        shown = os.environ.get("CUDA_VISIBLE_DEVICES")
        hidden = shown is not None and shown.strip() in ("", "-1")  # the usual way of saying: none
        if hidden or not NVIDIA_DRIVER.exists():
            return NO_GPU
        of_these = "" if shown is None else f' among CUDA_VISIBLE_DEVICES="{shown}"'
        return f"there is an NVIDIA driver, but it shows torch no GPU{of_these}"
    if "driver on your system is too old" in reason:
        return (
            f"the NVIDIA driver is too old for this torch, which is for CUDA {torch.version.cuda}; "
            "update the driver, or install a torch for an older CUDA (pytorch.org)"
        )
    if "no kernel image" in reason:
        capability = ".".join(map(str, torch.cuda.get_device_capability(index)))
        return (
            f"torch {torch.__version__} has no kernels for compute capability {capability}, that of this "
            f"{torch.cuda.get_device_name(index)}; install a torch for an older CUDA (pytorch.org)"
        )
    return f"the GPU does not work: {reason}"


def other_accelerator() -> str | None:
    """The type of an accelerator that torch can use here and that is not CUDA's."""
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return found.type if found and found.type in ("mps", "xpu") else None


def choose_precision(name: str, device: torch.device) -> str:
    """One of `DTYPES`; "auto" is the fastest this hardware multiplies in without losing accuracy.

    bf16 on GPUs from compute capability 8.0, on Intel's, and on CPUs with AVX512-BF16 or AMX; fp16 on GPUs of
    7.0 and 7.5; else fp32. Raises `UserError` for "tf32" where there is no such thing.
    """
    capability = torch.cuda.get_device_capability(device) if device.type == "cuda" else (0, 0)
    if name == "tf32" and capability < (8, 0):
        raise UserError("--precision tf32 is for CUDA devices of compute capability 8.0 and more; use fp32")
    if name != "auto":
        return name
    if device.type == "cpu":
        # Private names, because their public form (torch.cpu.get_capabilities) is newer than torch 2.9.
        multiplies_bf16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    else:
        multiplies_bf16 = device.type == "xpu" or capability >= (8, 0)
    return "bf16" if multiplies_bf16 else "fp16" if capability >= (7, 0) else "fp32"


def choose_memory_format(name: str, family: str, device: torch.device) -> str:
    """One of `MEMORY_FORMATS`; "auto" is what the `family` of networks is faster in on this type of device.

    It is a table, and not measured on the spot, because the bits of a run depend on it.
    """
    if name != "auto":
        return name
    return "contiguous" if (family, device.type) in CONTIGUOUS else "channels_last"


def configure(device: torch.device, precision: str, deterministic: bool) -> None:
    """Set torch's global switches for this run: speed, or the same bits each time on a GPU."""
    if deterministic and device.type not in ("cpu", "cuda"):
        raise UserError(f"--deterministic is a promise for CPUs and CUDA only, not for {device.type}")
    torch.use_deterministic_algorithms(deterministic)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # it takes time, and nothing reads such
    torch.backends.cudnn.benchmark = not deterministic
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some torch's compiler cannot do yet with what is to replace these
        torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
        torch.backends.cudnn.allow_tf32 = precision == "tf32"
    if device.type == "cpu":
        keep_freed_memory()


def keep_freed_memory() -> None:
    """Let glibc's malloc hand out again what a step has freed, instead of returning it to the system.

    A step on a CPU frees and takes hundreds of large tensors. Memory that comes from the system is cleared
    page by page first, which took up to a fifth of a step; the peak is the same.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other libraries have none
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The context in which a forward pass runs in `precision`."""
    dtype = DTYPES[precision]
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)


def describe(device: torch.device) -> str:
    """The device in words."""
    if device.type in ("cuda", "xpu"):
        return getattr(torch, device.type).get_device_name(device)
    if device.type == "mps":
        return "Apple's GPU"
    return f"CPU, {torch.get_num_threads()} threads"


def peak_memory_mb(device: torch.device) -> float:
    """The most memory used so far, in MB: torch's on a GPU, the whole process's on a CPU or Apple's GPU."""
    if device.type in ("cuda", "xpu"):
        return getattr(torch, device.type).max_memory_allocated(device) / 1e6
    status = Path("/proc/self/status")
    if status.exists():  # Linux, where a new process inherits the other figure from the one that started it
        return int(re.findall(r"VmHWM:\s+(\d+) kB", status.read_text())[0]) * 1024 / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e6
