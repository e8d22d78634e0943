"""Locks, which end with the process that holds them wherever that can be known."""

import errno
import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import SoftFileLock, Timeout

from utils.text import visible

# What file systems answer that have no locks, such as Lustre and NFS as they are often mounted.
NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}
SECONDS_TO_SEE_WHETHER_IT_IS_GONE = 0.5


class InUse(Exception):
    """Another process holds the lock; the message says which one, where that is known."""


@contextmanager
def hold(path: Path) -> Iterator[None]:
    """Hold the lock of that name within this context; raises `InUse` at once if another process does.

    It is the system's lock on the file, which ends with its holder. Where the file system has none, it is a
    file beside it with the number and machine of the process: of a process on this machine it is known
    whether it is gone, and of others the message says what to delete then.
    """
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InUse(f"{path.parent} is in use by another process") from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
        else:
            try:
                yield
            finally:
                fcntl.flock(file, fcntl.LOCK_UN)  # closing would not do, where a fork has it open
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


def _holder(marker: Path) -> str:
    """The process that a marker names: its number in the first line, its machine in the second."""
    try:
        number, machine, *_ = marker.read_text("utf-8", "replace").splitlines()
        return f"process {number} on {visible(machine)}"
    except (OSError, ValueError):
        return "another process"
