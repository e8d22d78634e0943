"""Runs that are stopped by a signal, and go on."""

import os
import signal

import pytest

from tests.conftest import TRICKED
from tests.disturbed import CACHE, WORKERS, finish, load, wait_for


@pytest.mark.parametrize(
    ("number", "code", "source"),
    [(signal.SIGINT, 130, CACHE), (signal.SIGTERM, 143, WORKERS)],
    ids=["INT", "TERM with workers"],
)
def test_a_signal_saves_in_the_middle_of_an_epoch_and_says_how_to_go_on(
    program, straight, number, code, source
):
    """The signal goes to the whole group, workers included, as Ctrl-C in a terminal does."""
    process = program.start("run", *TRICKED, *source, start_new_session=True)
    wait_for(process, "/8 |")  # a line of an epoch comes when its checkpoint is written
    os.killpg(process.pid, number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert err.count("\n") == 1, err
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)  # no worker is left
    assert 3 <= load(program.run("run") / "last.pt")["step"] < 24

    advice = err.partition("go on with: python main.py ")[2].split()
    assert advice.pop() == "--resume"
    finish(program, straight, *advice)


def test_a_signal_before_the_training_leaves_nothing_and_says_so(program, tmp_path):
    process = program.start("run", *TRICKED)
    wait_for(process, "device  ")
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate()
    assert process.returncode == 143
    assert "same command again" in err or "--resume" in err  # it may have come as far as the first step
    assert err.count("\n") == 1
    run = program.run("run")
    assert not run.exists() or (run / "last.pt").exists()
