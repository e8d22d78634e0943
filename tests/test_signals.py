"""utils/run/signals.py."""

import os
import signal

import pytest

from utils.errors import Interrupted
from utils.run.signals import StopSignal


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGINT, 130),
        (signal.SIGTERM, 143),
        (signal.SIGHUP, 129),
        (signal.SIGUSR1, 128 + signal.SIGUSR1),
        (signal.SIGUSR2, 128 + signal.SIGUSR2),
    ],
)
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
    assert signal.getsignal(signal.SIGINT) == before


def test_the_same_wish_told_twice_is_one_but_a_second_one_ends_it_at_once(monkeypatch):
    ended = []
    with StopSignal() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)  # a parent process passes the terminal's Ctrl-C on
        assert signal.getsignal(signal.SIGTERM) == stop._note
        stop.patience = 0.0
        with monkeypatch.context() as patch:
            patch.setattr("utils.run.signals.os.kill", lambda pid, number: ended.append(number))
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL
    assert ended == [signal.SIGINT]
    assert stop.received == signal.SIGINT


def test_nohup_keeps_a_run_going_when_the_terminal_closes():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopSignal() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            stop.check()
    finally:
        signal.signal(signal.SIGHUP, before)
