"""utils/run/signals.py."""

import os
import signal

import pytest

from utils.errors import Interrupted
from utils.run.signals import StopSignal


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_waits_for_the_next_check(number, code):
    with StopSignal() as stop:
        stop.check()
        os.kill(os.getpid(), number)
        with pytest.raises(Interrupted) as error:
            stop.check()
    assert error.value.exit_code == code


def test_handlers_are_put_back():
    before = signal.getsignal(signal.SIGINT)
    with StopSignal():
        assert signal.getsignal(signal.SIGINT) != before
        os.kill(os.getpid(), signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL  # a second Ctrl-C ends it at once
    assert signal.getsignal(signal.SIGINT) == before
