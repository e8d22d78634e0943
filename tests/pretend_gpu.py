"""A pretend GPU: two cards that compute nothing, so that the way of a GPU is walked on any machine.

It runs in a process of its own, tests/pretending.py, since it changes torch from the ground up: a small
library that is loaded before torch tells autograd of no accelerator whose streams it must keep in order.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

LIBRARY = """
#include <cstdint>
#include <optional>
namespace c10 { enum class DeviceType : int8_t; }
namespace at { namespace accelerator {
std::optional<c10::DeviceType> getAccelerator(bool) { return std::nullopt; }
bool isAccelerator(c10::DeviceType) { return false; }
}}
"""


class CannotPretend(Exception):
    """This machine, or this torch, has no pretend GPU; the message says why."""


class PretendGpu:
    """The process that pretends, asked by lines of JSON; a call answers with what `tests.pretending` says."""

    def __init__(self, folder: Path):
        if shutil.which("g++") is None:
            raise CannotPretend("there is no g++")
        source, library, self.errors = (folder / name for name in ("pretend.cpp", "pretend.so", "errors"))
        source.write_text(LIBRARY)
        command = ["g++", "-std=c++17", "-fPIC", "-shared", "-o", library, source]
        compiled = subprocess.run(command, capture_output=True, text=True)
        if compiled.returncode:
            raise CannotPretend(f"g++ does not compile: {compiled.stderr[-500:]}")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.pretending"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors.open("w"),
            text=True,
            cwd=Path(__file__).resolve().parent.parent,
            env=os.environ | {"LD_PRELOAD": str(library), "OMP_NUM_THREADS": "1"},
        )
        if self.process.stdout.readline() != "ready\n":
            raise CannotPretend(f"torch does not allow it: {self._last_words()}")

    def __call__(self, do: str, *argv: object, **settings: object) -> SimpleNamespace:
        request = {"do": do, "argv": list(map(str, argv)), **settings}
        print(json.dumps(request), file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        assert answer, f"the pretend GPU died: {self._last_words()}"
        return SimpleNamespace(**json.loads(answer))

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()

    def _last_words(self) -> str:
        self.close()
        return self.errors.read_text()[-2000:]
