"""Files that are either whole or not there."""

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeVar

from utils.errors import UserError
from utils.run.records import as_record

Kind = TypeVar("Kind")

CANNOT_SYNC = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}


@contextmanager
def replacing(path: Path, mode: str = "wb", **options: Any) -> Iterator[IO]:
    """Open a file that takes `path`'s place, atomically and durably, when the block succeeds.

    The content goes to a temporary file beside `path`, is fsynced and renamed, and the folder is
    fsynced, so that a kill or, if the file system can sync, a power cut leaves the old file or the
    new one. A block that raises leaves the old one and no temporary file; a kill can leave the
    temporary file, which the next writer overwrites.
    """
    temporary = path.with_name(f".{path.name}.part")
    try:
        with open(temporary, mode, **options) as file:
            yield file
            file.flush()
            _sync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename in (None, str(temporary)):
            error.filename = str(path)  # a write that failed does not say where
        raise
    try:
        folder = os.open(path.parent, os.O_RDONLY)
    except PermissionError:  # it may be written, but not read
        return
    try:
        _sync(folder)
    finally:
        os.close(folder)


def _sync(descriptor: int) -> None:
    """Bring a file or a folder to the disk, where its file system can do that."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in CANNOT_SYNC:
            raise


def read_json(path: Path, kind: type[Kind]) -> Kind:
    """Read what `write_json` wrote of a record; raises `UserError` if it is damaged."""
    try:
        content = dict(json.loads(path.read_text("utf-8")))
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} is damaged; train the run anew with --overwrite") from error
    return as_record(kind, content, path)


def write_json(path: Path, content: dict | list) -> None:
    """Write readable JSON, whole or not at all; what of a name is not UTF-8 becomes JSON's escapes."""
    with replacing(path, "w", encoding="utf-8", errors="backslashreplace") as file:
        json.dump(content, file, indent=2, ensure_ascii=False)
        file.write("\n")
