"""Stopping a run at a point from which it can go on."""

import signal
from types import FrameType

from utils.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopSignal:
    """Within this context SIGINT and SIGTERM only leave a note, which `check` turns into `Interrupted`.

    Everything that runs long (decoding, batches of training, validation and test) calls `check` where
    stopping is safe, that is between images or between steps. A second signal ends the process at
    once, which is safe too, only less polite: files are written atomically.
    """

    def __init__(self) -> None:
        self.received: int | None = None

    def __enter__(self) -> "StopSignal":
        self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)

    def check(self) -> None:
        """Raise `Interrupted` if a signal has come."""
        if self.received is not None:
            raise Interrupted(self.received)
