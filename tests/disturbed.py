"""What the tests of disturbed runs share."""

import json
import time
from threading import Timer

import torch

from tests.conftest import TRICKED
from tests.test_trainer import assert_same

CACHE = ("--cache", "disk")
WORKERS = ("--cache", "off", "--num_workers", "2")


def load(path):
    """A checkpoint without its flags, which say where and how fast a run computes."""
    content = torch.load(path, weights_only=True)
    del content["flags"]
    return content


def wait_for(process, text, seconds=240):
    """Read what a process says until a line has `text`; one that says it too late is killed."""
    seen = []
    timer = Timer(seconds, process.kill)
    timer.start()
    try:
        for line in process.stdout:
            seen.append(line)
            if text in line:
                return
    finally:
        timer.cancel()
    raise AssertionError("".join([*seen, *(process.stderr or ())]))


def wait_until(condition, seconds=120):
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def finish(program, straight, *flags):
    """Resume to the end; the run must be the same, to the bit, as the undisturbed one."""
    assert program("run", *TRICKED, *flags, "--resume") == 0
    run = program.run("run")
    for file in ("last.pt", "best.pt"):
        assert_same(load(run / file), load(straight / file))
    assert (run / "predictions.csv").read_text() == (straight / "predictions.csv").read_text()
    results = [json.loads((folder / "result.json").read_text()) for folder in (run, straight)]
    for result in results:
        del result["train_seconds"], result["images_per_second"]
    assert results[0] == results[1]
