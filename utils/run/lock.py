"""Locks, which end with the process that holds them wherever that can be known."""

import errno
import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from filelock import SoftFileLock, Timeout

from utils.text import visible

# What file systems answer that have no locks, such as Lustre and NFS as they are often mounted.
NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}
SECONDS_TO_SEE_WHETHER_IT_IS_GONE = 2.5  # of which a marker that is damaged takes two
HOLDER = re.compile(r"([1-9]\d{0,9})\n([^\n?]{1,100})")  # its number and, in the next line, its machine

_held: set[IO] = set()


def _let_go() -> None:
    """In a process that was forked: its copies would hold the locks when the one that took them is gone."""
    for file in _held:
        file.close()
    _held.clear()


os.register_at_fork(after_in_child=_let_go)


class InUse(Exception):
    """Another process holds the lock; the message says which one, where that is known."""


@contextmanager
def hold(path: Path) -> Iterator[None]:
    """Hold the lock of that name within this context; raises `InUse` at once if another process does.

    It is the system's lock on the file, which ends with its holder. Where the file system has none, it is a
    file beside it with the number and machine of the process: of a process on this machine it is known
    whether it is gone, and of others the message says what to delete then.
    """
    with _open(path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InUse(f"{path.parent} is in use by another process") from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
        else:
            _held.add(file)
            try:
                yield
            finally:
                _held.discard(file)
            return
    marker = path.with_name(f"{path.name}.held")
    try:
        lock = SoftFileLock(marker).acquire(timeout=SECONDS_TO_SEE_WHETHER_IT_IS_GONE)
    except Timeout:
        raise InUse(
            f"{path.parent} is in use by {_holder(marker)}, and its file system has no locks that would end "
            f"with it; if it is gone, delete {marker}"
        ) from None
    with lock:
        yield


def _open(path: Path) -> IO:
    """The file to lock, made if it is not there; one of another person's may only be readable."""
    try:
        return path.open("a")
    except PermissionError:
        return path.open()


def _holder(marker: Path) -> str:
    """The process that a marker names."""
    try:
        found = HOLDER.match(marker.read_text("utf-8", "replace"))
    except OSError:
        found = None
    return f"process {found[1]} on {visible(found[2])}" if found else "another process"
