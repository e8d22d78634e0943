"""utils/run/compiler.py."""

import os
import sysconfig

import pytest
import torch

from utils.errors import UserError
from utils.run import compiler
from utils.run.compiler import prepare_compiler

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine with some compilers, with Triton and with Python's headers."""
    for name in ("CC", "CXX", "TORCHINDUCTOR_CACHE_DIR"):
        monkeypatch.setenv(name, "")  # to be put back afterwards, whatever becomes of it
        monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(compiler.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    (tmp_path / "Python.h").touch()

    def has(*names):
        for name in names:
            (tmp_path / name).write_text("#!/bin/sh\n")
            (tmp_path / name).chmod(0o755)
        return tmp_path

    return has


def test_a_cpu_wants_cplusplus_and_cuda_wants_c(machine, tmp_path):
    machine("gcc")
    prepare_compiler(CUDA, tmp_path)
    with pytest.raises(UserError, match=r"--compile needs a C\+\+ compiler such as g\+\+, and there is none"):
        prepare_compiler(CPU, tmp_path)
    (tmp_path / "gcc").unlink()
    machine("clang++")
    prepare_compiler(CPU, tmp_path)
    with pytest.raises(UserError, match="--compile needs a C compiler such as gcc"):
        prepare_compiler(CUDA, tmp_path)


def test_a_compiler_of_ones_own_will_do(machine, tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", str(machine("mine") / "mine"))
    prepare_compiler(CPU, tmp_path)


def test_cuda_wants_triton_and_pythons_headers(machine, tmp_path, monkeypatch):
    machine("cc")
    (tmp_path / "Python.h").unlink()
    with pytest.raises(UserError, match=r"--compile needs .*Python.h, which comes in a package"):
        prepare_compiler(CUDA, tmp_path)
    monkeypatch.setattr(compiler.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="--compile needs the package triton"):
        prepare_compiler(CUDA, tmp_path)


def test_other_devices_are_refused(machine, tmp_path):
    with pytest.raises(UserError, match="--compile is for CPUs and CUDA devices, not for mps"):
        prepare_compiler(torch.device("mps"), tmp_path)


def test_what_is_compiled_is_kept_in_the_cache_folder(machine, tmp_path):
    machine("g++")
    prepare_compiler(CPU, tmp_path / "cache")
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "cache" / "compiled")
    prepare_compiler(CPU, tmp_path / "other")  # a place that was chosen stays
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "cache" / "compiled")
