"""Checkpoints: dictionaries of tensors and plain values, written atomically and read without pickle."""

import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch.utils._pytree import tree_map_only

from utils.errors import UserError
from utils.run.failures import is_out_of_memory
from utils.run.files import replacing
from utils.run.records import FORMAT, Progress, Weights, as_record

Kind = TypeVar("Kind", bound=Weights)

FOLDER = 0x10  # the attribute of a zip's record that marks one


def save_checkpoint(path: Path, content: Mapping[str, Any]) -> None:
    """Write `content` so that a kill at any moment leaves the old file or the new one.

    Its tensors are written as of the host, so that any machine can read them.
    """
    content = tree_map_only(torch.Tensor, torch.Tensor.cpu, content)
    with replacing(path) as file:
        try:
            torch.save({"format": FORMAT, **content}, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):  # what torch makes of a full disk
                raise error.__context__ from None
            raise


def load_checkpoint(path: Path, kind: type[Kind]) -> Kind:
    """Read a checkpoint, its tensors into host memory; raises `UserError` if it is not one of this kind."""
    return as_record(kind, read_checkpoint(path), path)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What is in a checkpoint, whatever its kind; raises `UserError` if it is none."""
    try:
        with zipfile.ZipFile(path) as records:
            # torch writes checksums, but does not look at them; and of a record that is marked as a folder it
            # reads nothing, which leaves in the tensor what its memory held before.
            folders = [record for record in records.infolist() if record.external_attr & FOLDER]
            if folders or records.testzip() is not None:
                raise zipfile.BadZipFile
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"checkpoint {path}: {error.strerror}; is the run's name right?") from error
    except MemoryError:
        raise
    except Exception as error:  # a stranger's file can fail in any way
        raise UserError(
            f"checkpoint {path} is damaged, or no file of this program; train it anew, or name another"
        ) from error
    if not isinstance(content, dict) or not isinstance(content.get("format"), int):
        raise UserError(f"{path} is not a checkpoint of this program")
    if content["format"] > FORMAT:
        raise UserError(f"{path} was written by a newer version of this program; update, or train anew")
    return content


def refuse_older(checkpoint: Progress, path: Path) -> None:
    """Raise `UserError` for a checkpoint of a version whose steps were others."""
    if checkpoint.format < FORMAT:
        raise UserError(
            f"{path} was begun by an older version, whose training steps differ; finish it there, "
            "or train anew with --overwrite (--evaluate still works)"
        )


@contextmanager
def explained_contents(path: Path) -> Iterator[None]:
    """Within this context a checkpoint whose contents do not fit is a `UserError` that names it."""
    try:
        yield
    except (RuntimeError, KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        if is_out_of_memory(error):
            raise
        raise UserError(
            f"checkpoint {path} holds another network than its flags say, or something else; train it anew"
        ) from error
