"""Stopping a run at a point from which it can go on."""

import os
import signal
import time
from collections.abc import Callable
from types import FrameType

from utils.errors import Interrupted

# Schedulers of clusters send the last two, as they are told, before they kill.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
SECONDS_OF_ONE_REQUEST = 1.0  # in which several signals are one, sent by the terminal and a parent process

Handler = Callable[[int, FrameType | None], None] | int | None


def catch(handler: Handler) -> dict[int, Handler]:
    """Handle the signals that ask to stop, and return what handled them before.

    One that is ignored, as nohup makes it for a closed terminal, stays ignored; but not Ctrl-C, which a shell
    makes processes ignore that it starts in the background.
    """
    before: dict[int, Handler] = {number: signal.getsignal(number) for number in SIGNALS}
    if before[signal.SIGHUP] == signal.SIG_IGN:
        del before[signal.SIGHUP]
    terminals = [descriptor for descriptor in (1, 2) if os.isatty(descriptor)]

    def hang_up(number: int, frame: FrameType | None) -> None:
        assert callable(handler)
        for descriptor in terminals:  # which are gone, so that whoever writes to them would fail
            os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
        handler(number, frame)

    for number in before:
        signal.signal(number, hang_up if number == signal.SIGHUP and callable(handler) else handler)
    return before


class StopSignal:
    """Within this context a signal that asks to stop leaves a note, of which `check` raises `Interrupted`.

    Everything that runs long (decoding, batches of training, validation and test) calls `check` where
    stopping is safe, that is between images or between steps. A second wish ends the process at once,
    which is safe too, only less polite: files are written atomically. Signals within `patience` seconds are
    one wish.
    """

    def __init__(self, patience: float = SECONDS_OF_ONE_REQUEST) -> None:
        self.received: int | None = None
        self.patience = patience

    def __enter__(self) -> "StopSignal":
        self._before = catch(self._note)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is None:
            self.note(number)
        elif time.monotonic() - self._since > self.patience:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def note(self, number: int) -> None:
        """Take it that this signal has come."""
        self.received, self._since = number, time.monotonic()

    def check(self) -> None:
        """Raise `Interrupted` if a signal has come."""
        if self.received is not None:
            raise Interrupted(self.received)
