"""Where a run computes, and in which precision."""

import ctypes
import os
import re
import resource
import sys
from pathlib import Path

import numpy as np
import torch

from utils.errors import UserError

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of malloc.h

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose_device(name: str) -> torch.device:
    """The device of `--device`: "auto" is the first GPU if there is one. Raises `UserError`."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise UserError(f"--device {name}: torch sees {count} GPUs here; use --device cpu or auto")
        torch.cuda.set_device(device)
    return device


def choose_precision(name: str, device: torch.device) -> str:
    """One of `DTYPES`; "auto" is the fastest this hardware multiplies in without losing accuracy.

    bf16 on GPUs from compute capability 8.0 and on CPUs with AVX512-BF16 or AMX, fp16 on older GPUs,
    else fp32.
    """
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp16"
    # Private names, because their public form (torch.cpu.get_capabilities) is newer than torch 2.9.
    multiplies_bf16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16" if multiplies_bf16 else "fp32"


def configure(device: torch.device, deterministic: bool) -> None:
    """Set torch's global switches for this run: speed, or the same bits each time on a GPU."""
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS gives the same bits only with it
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.benchmark = not deterministic
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32 where fp32 remains
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
    return torch.autocast(device.type, DTYPES[precision], enabled=precision != "fp32")


def to_device(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """A small host array on the device, without making the host wait for the device."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def describe(device: torch.device) -> str:
    """The device in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} threads"


def peak_memory_mb(device: torch.device) -> float:
    """The most memory used so far, in MB: torch's on a GPU, the whole process's on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    status = Path("/proc/self/status")
    if status.exists():  # Linux, where a new process inherits the other figure from the one that started it
        return int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text())[1]) * 1024 / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e6
