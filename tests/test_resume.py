"""Runs that are stopped by a signal, and go on."""

import os
import signal

import pytest
import torch

from tests.conftest import SMALL, TRICKED
from tests.disturbed import CACHE, WORKERS, finish, load, wait_for


@pytest.mark.parametrize(
    ("number", "code", "source"),
    [
        (signal.SIGINT, 130, CACHE),
        (signal.SIGTERM, 143, WORKERS),
        (signal.SIGUSR1, 128 + signal.SIGUSR1, WORKERS),
        (signal.SIGUSR2, 128 + signal.SIGUSR2, CACHE),
    ],
    ids=["INT", "TERM with workers", "USR1 with workers", "USR2"],
)
def test_a_signal_saves_in_the_middle_of_an_epoch_and_says_how_to_go_on(
    program, straight, number, code, source
):
    """The signal goes to the whole group, workers included, as Ctrl-C in a terminal does."""
    process = program.start("run", *TRICKED, *source, start_new_session=True)
    wait_for(process, "/8 ")  # a line of an epoch comes when its checkpoint is written
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


def test_a_run_of_an_older_version_is_not_gone_on_with_but_evaluated(program, capsys):
    """Its steps drew otherwise: what would come of it is no run of either version."""
    assert program("run", *SMALL) == 0
    for name in ("last.pt", "best.pt"):
        path = program.run("run") / name
        torch.save({**torch.load(path, weights_only=True), "format": 1}, path)
    (program.run("run") / "result.json").unlink()
    capsys.readouterr()
    assert program("run", "--resume") == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "older version" in err
    assert program("run", "--evaluate") == 0
