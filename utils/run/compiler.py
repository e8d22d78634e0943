"""What torch.compile needs of a machine, and where it keeps what it has compiled."""

import importlib.util
import os
import shutil
import sysconfig
from pathlib import Path

import torch

from utils.errors import UserError


def prepare_compiler(device: torch.device, cache_dir: Path) -> None:
    """Let torch.compile keep its results in `cache_dir`, so that later runs find them.

    Raises `UserError` if something is missing that it needs for this device.
    """
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"--compile is for CPUs and CUDA devices, not for {device.type}; leave it out")
    if missing := _missing(device):
        raise UserError(f"--compile needs {missing}, and there is none; install it, or leave --compile out")
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str((cache_dir / "compiled").resolve()))


def _missing(device: torch.device) -> str | None:
    """What is not there: for a CPU torch writes C++, for CUDA its Triton writes C that includes Python.h."""
    if device.type == "cpu":
        return None if _has("CXX", "g++", "clang++", "c++") else "a C++ compiler such as g++"
    if importlib.util.find_spec("triton") is None:
        return "the package triton"
    if not _has("CC", "gcc", "clang", "cc"):
        return "a C compiler such as gcc"
    header = Path(sysconfig.get_path("include"), "Python.h")
    return None if header.exists() else f"{header}, which comes in a package such as python3-dev"


def _has(variable: str, *compilers: str) -> bool:
    return any(map(shutil.which, (os.environ.get(variable, compilers[0]), *compilers)))
