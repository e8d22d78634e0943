"""Processes that are killed or stopped, and what becomes of their runs."""

import os
import signal
import time

import pytest
import torch

from tests.conftest import SMALL, Program
from tests.test_trainer import assert_same

FLAGS = (
    *(*SMALL, "--epochs", "8", "--optimizer", "ADAM", "--mixup", "0.2", "--randaugment"),
    *("--ema", "0.9", "--crop", "random", "--drop_path", "0.1"),
)
CACHE = ("--cache", "disk")
WORKERS = ("--cache", "off", "--num_workers", "2")


@pytest.fixture(scope="module")
def straight(tmp_path_factory, shapes):
    """The folder of an undisturbed run."""
    program = Program(tmp_path_factory.mktemp("straight"), shapes)
    process = program.start("run", *FLAGS)
    _, err = process.communicate()
    assert process.returncode == 0, err
    return program.run("run")


def load(path):
    """A checkpoint without its flags, which say where and how fast a run computes."""
    content = torch.load(path, weights_only=True)
    del content["flags"]
    return content


def finish(program, straight, *flags):
    """Resume to the end; the run must be the same, to the bit, as the undisturbed one."""
    process = program.start("run", *flags)
    _, err = process.communicate()
    assert process.returncode == 0, err
    for file in ("last.pt", "best.pt"):
        assert_same(load(program.run("run") / file), load(straight / file))
    assert (program.run("run") / "predictions.csv").read_text() == (straight / "predictions.csv").read_text()


def wait_for(process, text):
    for line in process.stdout:
        if text in line:
            return
    raise AssertionError(process.stderr.read())


# What the run prints before the kill, and how many seconds pass after that. A line of an epoch comes
# when its checkpoint is written.
EPOCH = "/8 |"
KILLS = (("data  ", 0.0), ("network  ", 0.4), (EPOCH, 0.0), (EPOCH, 0.15), (EPOCH, 0.3))


@pytest.mark.parametrize("source", [CACHE, WORKERS], ids=["cache", "workers"])
def test_a_run_killed_five_times_goes_on_to_the_same_bits(program, straight, source):
    for text, seconds in KILLS:
        process = program.start("run", *FLAGS, *source, "--resume", start_new_session=True)
        wait_for(process, text)
        time.sleep(seconds)
        assert process.poll() is None
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    finish(program, straight, *FLAGS, *source, "--resume")


@pytest.mark.parametrize(
    ("number", "code", "source"),
    [(signal.SIGINT, 130, CACHE), (signal.SIGTERM, 143, WORKERS), (signal.SIGINT, 130, WORKERS)],
    ids=["INT", "TERM with workers", "INT with workers"],
)
def test_a_signal_saves_in_the_middle_of_an_epoch_and_says_how_to_go_on(
    program, straight, number, code, source
):
    """The signal goes to the whole group, workers included, as Ctrl-C in a terminal does."""
    process = program.start("run", *FLAGS, *source, start_new_session=True)
    wait_for(process, EPOCH)
    os.killpg(process.pid, number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert err.count("\n") == 1, err
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)  # no worker is left
    assert 3 <= load(program.run("run") / "last.pt")["step"] < 24

    advice = err.partition("go on with: python main.py ")[2].split()
    assert advice[-1] == "--resume"
    finish(program, straight, *advice)


def test_a_signal_before_the_training_leaves_nothing_and_says_so(program, tmp_path):
    process = program.start("run", *FLAGS)
    wait_for(process, "device  ")
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate()
    assert process.returncode == 143
    assert "same command again" in err or "--resume" in err
    assert err.count("\n") == 1
