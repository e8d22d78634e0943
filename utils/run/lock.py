"""Locks, which end with the process that holds them wherever that can be known."""

import errno
import fcntl
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import IO

from filelock import SoftFileLock, Timeout

from utils.console import say
from utils.text import visible

# What file systems answer that have no locks, such as Lustre and NFS as they are often mounted.
NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}
SECONDS_TO_SEE_WHETHER_IT_IS_GONE = 2.5  # of which a marker that is damaged takes two
ATTEMPTS = 100
ATTEMPTS_TO_READ = 5
SECONDS_BETWEEN_SIGNS = 2.0
SECONDS_WITHOUT_SIGNS = 10.0  # after which a process on another machine is thought dead
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
def hold(path: Path) -> Iterator[Callable[[], None]]:
    """Hold the lock of that name within this context; raises `InUse` at once if another process does.

    It is the system's lock on the file, which ends with its holder. Where the file system has none, it is a
    file beside it with the number and machine of the process: of a process on this machine it is known
    whether it is gone, and of others the message says what to delete then.

    Some file systems lock for each machine by itself. So the holder shows in a file beside the lock that it
    lives, and who finds such a sign of another machine waits whether it is renewed. Two that begin at the
    same moment can miss each other's: what this context gives raises `InUse` in one of them a moment later.
    """
    sign = _Sign(path.with_name(f"{path.name}.by"))
    try:
        file = _locked(path)
    except BlockingIOError:
        raise InUse(f"{path.parent} is in use by {_holder(sign.path)}") from None
    if file:
        with file:
            _held.add(file)
            try:
                with sign:
                    yield sign.confirm
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
        yield lambda: None


@contextmanager
def hold_in_turn(path: Path, label: str, check: Callable[[], None]) -> Iterator[None]:
    """Hold the lock once no other process does, saying so under the label; `check` may raise to stop."""
    waiting = False
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(hold(path))
                break
            except InUse as error:
                check()
                if not waiting:
                    say(label, f"waiting, since {error}")
                    waiting = True
                time.sleep(0.2)
        yield


def _locked(path: Path) -> IO | None:
    """The file, locked; None where the file system has no locks. Raises `BlockingIOError`."""
    attempts = 0
    while True:
        try:
            file = _open(path)
        except (FileNotFoundError, FileExistsError):  # the folder is removed just now
            attempts += 1
            if attempts == ATTEMPTS:
                raise
            continue
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    return file
            file.close()  # its last holder has removed it meanwhile
        except OSError as error:
            file.close()
            if error.errno in NO_LOCKS:
                return None
            raise


def _open(path: Path) -> IO:
    """The file to lock, made if it is not there; one of another person's may only be readable."""
    path.parent.mkdir(parents=True, exist_ok=True)
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


class _Sign:
    """A file that shows, within this context, that the holder of a lock lives. Raises `InUse`."""

    def __init__(self, path: Path):
        self.path = path
        self.ours = f"{os.getpid()}\n{socket.gethostname()}\n{secrets.token_hex(4)}\n"
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._renew, daemon=True)

    def __enter__(self) -> None:
        found = self._read()
        # On this machine the lock says that who left the sign is gone.
        if found and found.split("\n")[1:2] != [socket.gethostname()]:
            end = time.monotonic() + SECONDS_WITHOUT_SIGNS
            while time.monotonic() < end:
                time.sleep(0.1)
                now = self._read()
                if not now:
                    break
                if now != found:
                    self._refuse()
        with suppress(OSError):
            self.path.unlink()
        self._write(0)
        self._thread.start()

    def __exit__(self, *error: object) -> None:
        self._left.set()
        self._thread.join()
        if self._read().startswith(self.ours):
            self.path.unlink(missing_ok=True)

    def confirm(self) -> None:
        """Raise `InUse` if another process has the lock as well, and its sign came after this one's."""
        found = self._read()
        if found and not found.startswith(self.ours):
            self._refuse()

    def _refuse(self) -> None:
        hidden = "whose lock the file system hides from this machine"
        raise InUse(f"{self.path.parent} is in use by {_holder(self.path)}, {hidden}")

    def _renew(self) -> None:
        for number in count(1):
            if self._left.wait(SECONDS_BETWEEN_SIGNS) or not self._read().startswith(self.ours):
                return
            self._write(number)

    def _read(self) -> str:
        for _ in range(ATTEMPTS_TO_READ):
            try:
                return self.path.read_text("utf-8", "replace")
            except FileNotFoundError:
                break
            except OSError:  # on NFS of a file that is replaced just now
                time.sleep(0.1)
        return ""

    def _write(self, number: int) -> None:
        part = self.path.with_name(f"{self.path.name}.{os.getpid()}.part")
        try:
            part.write_text(f"{self.ours}{number}\n")
            part.replace(self.path)
        except OSError:  # a folder that can only be read, a full disk
            with suppress(OSError):
                part.unlink(missing_ok=True)
