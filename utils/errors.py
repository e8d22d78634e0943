"""The ways a program ends early, each with its exit code, which it tells in one line."""

import errno
import signal
from pathlib import Path


class ProgramError(Exception):
    """What ends a program with one line, the message, and an exit code."""

    exit_code: int
    said = False  # by another process of the same run


class UserError(ProgramError):
    """Something the person can put right: the message names the thing and what to do. Exit 2."""

    exit_code = 2


class Busy(UserError):
    """Another process does this already. Exit 75, by which others than a person know it."""

    exit_code = 75  # EX_TEMPFAIL of sysexits.h


class RunFailed(ProgramError):
    """The run itself went wrong, for example a loss that is not finite. Exit 1."""

    exit_code = 1


class Interrupted(ProgramError):
    """A signal asked the run to stop, and it reached a point where it can. Exit 128 + signal."""

    def __init__(self, signal_number: int, advice: str = "give the same command again"):
        super().__init__(f"stopped by {signal.Signals(signal_number).name}; {advice}")
        self.signal_number = signal_number
        self.exit_code = 128 + signal_number


def explain(error: OSError, folder: Path, then: str) -> UserError:
    """What the system refused, in words that name the file and what to do `then`.

    A file that could take no more may not have said which it is; it is one in `folder`.
    """
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        full = f"{error.filename or folder}: {error.strerror}"
        return UserError(f"{full}; what was saved before is whole: make room and {then}")
    return UserError(
        f"{error.filename or 'the output'}: {error.strerror or error}; put that right and {then}"
    )
