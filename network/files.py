"""Weights files of other projects: read without running their code, and unwrapped."""

import argparse
import codecs
import json
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from torch.serialization import safe_globals

from network import WeightsError
from utils.text import some, visible

# Under which names training scripts keep a network beside other things; averages come first, as the better.
WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model_state_dict", "model_state", "model")
# What parallel training, compilers and larger networks put before the names of a network's parts.
PREFIXES = ("module.", "model.", "backbone.", "encoder_q.", "encoder.", "network.", "net.")
COMPILED = "_orig_mod."  # stands before the part that was compiled, wherever that is
AVERAGED = "n_averaged"  # how many networks an average is of


class _Unused:
    """Stands for a number of numpy's beside the weights, which nobody needs.

    numpy's own makers of numbers trust what they are told, so that a stranger's file could crash them.
    """

    def __init__(self, *parts: object):
        pass

    def __setstate__(self, state: object) -> None:
        pass


# Plain values that scripts save beside the weights. numpy has had its maker of numbers in two places.
HARMLESS: list[Any] = [
    argparse.Namespace,
    (_Unused, "numpy.dtype"),
    (_Unused, "numpy._core.multiarray.scalar"),
    (_Unused, "numpy.core.multiarray.scalar"),
]

# How files begin that are often taken for weights, and what to say of them.
BEGINNINGS = (
    (b"version https://git-lfs", "a Git LFS pointer in place of the file: fetch that with git lfs pull"),
    (b"<?xml", "an XML text, perhaps an error message of a server: download the file itself"),
    (b"<", "an HTML page, perhaps one that asks to log in: download the file itself"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras writes them, and no weights of PyTorch"),
    (b"\x1f\x8b", "a gzip archive: unpack it"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive: unpack it"),
    (b"\x93NUMPY", "an array of NumPy, and no dictionary of tensors by name"),
    (b"{", "a JSON text, perhaps an index of several files"),
)
SNIFFED = 4096  # bytes at a file's beginning that tell its kind
SHARE_OF_NETWORK = 1 / 3  # of all names at least have the prefix of the one that is meant


class Unwrapped(NamedTuple):
    """Tensors by name, and in words what was around them, or ""."""

    state: dict[str, Any]
    told: str


def read_file(path: Path) -> dict:
    """The dictionary in a weights file; raises `WeightsError` if there is none that loads without its code.

    Of this project's exports that is `network`, `normalisation` and `classes`, as in its checkpoints.
    """
    try:
        with path.open("rb") as file:
            beginning = file.read(SNIFFED)
        content = _read_safetensors(path) if beginning[8:9] == b"{" else _read_pickled(path)
    except OSError as error:
        raise WeightsError(f"weights file {path}: {error.strerror or 'cannot be read'}") from error
    except Exception as error:  # a stranger's file can fail in any way
        raise WeightsError(f"weights file {path} is {_what_is_wrong(path, beginning, error)}") from error
    if not isinstance(content, dict):
        raise WeightsError(f"weights file {path} holds no dictionary of tensors by name")
    return content


def _read_pickled(path: Path) -> Any:
    """What `torch.save` wrote, whatever the file is called."""
    with path.open("rb") as file, safe_globals(HARMLESS), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what is refused in one line, or works
        return torch.load(file, map_location="cpu", weights_only=True)


def _read_safetensors(path: Path) -> dict:
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dictionary
        about = file.metadata() or {}
    if "normalisation" in about:  # an export of this project
        own = {key: json.loads(about[key]) for key in ("normalisation", "classes")}
        return {"network": tensors, **own}
    return tensors


def _what_is_wrong(path: Path, beginning: bytes, error: Exception) -> str:
    """What a file is, that could not be read."""
    if not beginning:
        return "empty"
    text = beginning.removeprefix(codecs.BOM_UTF8).lstrip()
    for begins, what in BEGINNINGS:
        if text[: len(begins)].lower() == begins.lower():
            return what
    if path.suffix == ".onnx":
        return "an ONNX graph, and no weights of PyTorch"
    names = _names_in_archive(path)
    if any("/code/" in name or name.endswith("/archive_format") for name in names):
        return "a program (TorchScript, or of torch.export): save its state_dict() with torch.save"
    if names and not any(name.endswith("data.pkl") for name in names):
        return f"an archive of other files ({some(names, 3)}): unpack it, and name one"
    if wanted := re.search(r"GLOBAL ([\w.]+)", str(error)):
        return (
            f"a pickle of more than tensors by name ({visible(wanted[1])}), which cannot be loaded without "
            "running code: save its state_dict() alone"
        )
    return "damaged, or no dictionary of tensors that loads without running code"


def _names_in_archive(path: Path) -> list[str]:
    """The names of the files in a ZIP archive; none if it is no whole one."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError):
        return []


def unwrap(content: dict) -> Unwrapped:
    """The tensors in what a training script saved, by the names that they have in the network alone."""
    told: list[str] = []
    for _ in WRAPPERS:  # a dictionary may hold itself
        found = [name for name in WRAPPERS if _holds_weights(content.get(name))]
        if not found:
            break
        told.append(f"its {found[0]}{f' (not {some(found[1:], 3)})' * bool(found[1:])}")
        content = content[found[0]]
    state = {key: value for key, value in content.items() if key != AVERAGED}
    compiled = {key.replace(COMPILED, ""): value for key, value in state.items()}
    prefixes = []
    if len(compiled) == len(state) and compiled.keys() != state.keys():  # no two names become one
        prefixes, state = [COMPILED], compiled
    left_out: list[str] = []
    while prefix := _prefix_of(state):
        prefixes.append(prefix)
        left_out += [key for key in state if not key.startswith(prefix)]
        state = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    if prefixes:
        told.append(f"names without {''.join(prefixes)}")
    if left_out:
        told.append(f"left out: {some(dict.fromkeys(key.partition('.')[0] for key in left_out), 6)}")
    return Unwrapped(state, "; ".join(told))


def _holds_weights(value: object) -> bool:
    """Whether an entry of a file may be a network, or what has one in it."""
    return isinstance(value, dict) and any(
        isinstance(part, torch.Tensor) or name in WRAPPERS for name, part in value.items()
    )


def _prefix_of(state: Mapping[str, Any]) -> str | None:
    """One of `PREFIXES` that many of the names begin with, or None."""
    for prefix in PREFIXES:
        if sum(key.startswith(prefix) for key in state) > SHARE_OF_NETWORK * len(state):
            return prefix
    return None
