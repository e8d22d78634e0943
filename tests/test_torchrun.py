"""One run by several processes: what it computes is what one process computes, and how it ends."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from learning.share import PartOfBatch, Shares, WholeBatch
from tests.conftest import ROOT, SMALL
from tests.disturbed import load, wait_for, wait_until
from utils.world import World

SECONDS = 240
EXACT = (*SMALL, "--precision", "fp32", "--learning_rate", "0.001")
TRICKS = (
    *(
        *EXACT,
        "--randaugment",
        "--crop",
        "random",
        "--mixup",
        "0.2",
        "--cutmix_alpha",
        "1",
        "--cutmix_prob",
        "1",
    ),
    *("--ema", "0.9", "--label_smooth", "0.1", "--accumulate", "2", "--drop_path", "0.1", "--dropout", "0.2"),
)


@pytest.fixture
def together(program):
    """Starts a run of several processes, in float64 if asked for."""
    started = []

    def start(processes, name, *flags, exact=False, restarts=0, machines=("--standalone",)):
        main = ["-m", "tests.in_float64"] if exact else [str(ROOT / "main.py")]
        command = [sys.executable, "-m", "torch.distributed.run", *machines]
        command += [f"--nproc_per_node={processes}", f"--max_restarts={restarts}", *main]
        process = subprocess.Popen(
            [*command, *program.arguments(name, *flags)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=program.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        started.append(process)
        return process

    def run(*args, **options):
        process = start(*args, **options)
        output = process.communicate(timeout=SECONDS)[0]
        assert "Warning" not in output, output  # torch's own
        return process.returncode, output

    run.start, run.program = start, program
    yield run
    for process in started:
        process.kill()


def test_the_benchmark_says_how_speed_grows_with_processes(tmp_path, shapes):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=3"]
    sizes = ["--image_size", "32", "--batch_size", "12", "--rounds", "1", "--steps", "2", "--mixup", "0.2"]
    command += ["-m", "utils.benchmark", "--networks", "RegNetX-200MF", "--data_dir", str(shapes), *sizes]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stderr
    rows = re.findall(
        r"^\| RegNetX-200MF \| (\d) +\| (\d+) +\| (\d+\.\d\d) +\| (.*?) *\|$", done.stdout, re.MULTILINE
    )
    assert [row[0] for row in rows] == ["1", "2", "3"]
    assert rows[0][2:] == ("1.00", "")
    for _, rate, ratio, waiting in rows[1:]:
        assert float(ratio) == pytest.approx(int(rate) / int(rows[0][1]), abs=0.05)
        assert 0 <= int(waiting.removesuffix("%")) < 100


def weights_of(run: Path) -> dict:
    return {name: each for name, each in load(run / "last.pt")["network"].items() if each.is_floating_point()}


def furthest(one: dict, other: dict) -> float:
    """The largest difference of a tensor, as a share of its norm."""
    return max(
        float((one[name].double() - other[name].double()).norm() / one[name].double().norm().clamp(min=1e-9))
        for name in one
    )


def workers_of(process: subprocess.Popen) -> list[int]:
    """The processes of a run, by rank."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        found = {}
        children = " ".join(path.read_text() for path in Path(f"/proc/{process.pid}/task").glob("*/children"))
        for number in map(int, children.split()):
            try:
                environ = Path(f"/proc/{number}/environ").read_bytes().split(b"\0")
            except OSError:
                continue
            for entry in environ:
                if entry.startswith(b"RANK="):
                    found[int(entry[5:])] = number
        if found:
            return [found[rank] for rank in sorted(found)]
        time.sleep(0.2)
    raise AssertionError("no process was started")


@pytest.mark.parametrize(
    "flags",
    [
        (),
        ("--grad_clip", "1", "--sam", "0.05"),
        ("--norm", "evonorm_b0", "--class_weights", "balanced"),
    ],
    ids=lambda flags: " ".join(flags) or "all at once",
)
def test_several_processes_compute_what_one_computes(together, flags):
    flags = (*TRICKS, *flags)
    results = {count: together(count, f"by{count}", *flags, exact=True) for count in (1, 2, 3)}
    assert [code for code, _ in results.values()] == [0, 0, 0], results
    one = together.program.run("by1")
    for processes in (2, 3):
        several = together.program.run(f"by{processes}")
        assert furthest(weights_of(one), weights_of(several)) < 1e-10
        rows = [(run / "log.csv").read_text().splitlines()[1:] for run in (one, several)]
        figures = [np.array([row.split(",")[1:6] for row in each], float) for each in rows]
        np.testing.assert_allclose(*figures, rtol=1e-6)
        first, second = ((run / "predictions.csv").read_text() for run in (one, several))
        assert re.sub(r"(\.\d{5})\d+", r"\1", first) == re.sub(r"(\.\d{5})\d+", r"\1", second)
        said = results[processes][1]
        assert "test accuracy" in said
        assert said.count("result ") == 1  # one of them speaks


def test_a_network_whose_head_is_trained_first(together):
    """Its gradients change their number when the rest is trained too."""
    assert together(1, "base", *EXACT, "--epochs", "1")[0] == 0
    base = ("--pretrained", "1", "--pretrained_path", str(together.program.run("base") / "best.pt"))
    for count in (1, 2):
        code, said = together(count, f"by{count}", *TRICKS, *base, "--freeze_epochs", "1", exact=True)
        assert code == 0, said
    assert furthest(*(weights_of(together.program.run(f"by{count}")) for count in (1, 2))) < 1e-10


def test_single_precision_differs_by_rounding_alone(together):
    flags = (*TRICKS, "--model", "ResNet18", "--epochs", "1", "--batch_size", "48", "--accumulate", "1")
    for count in (1, 2):
        assert together(count, f"by{count}", *flags)[0] == 0
    one, two = (
        torch.cat([each.flatten() for each in weights_of(together.program.run(f"by{count}")).values()])
        for count in (1, 2)
    )
    assert (one - two).norm() < 1e-5 * one.norm()


def test_a_run_goes_on_with_another_number_of_processes(together):
    program = together.program
    assert together(1, "straight", *TRICKS, exact=True)[0] == 0
    process = together.start(3, "changed", *TRICKS, exact=True)
    wait_for(process, "1/2 ")
    os.kill(workers_of(process)[1], signal.SIGKILL)
    said = process.communicate(timeout=SECONDS)[0]
    assert process.returncode != 0
    assert re.search(r"main\.py: process 1 on \S+ has died", said), said
    assert not (program.run("changed") / "result.json").exists()
    code, said = together(2, "changed", "--resume", exact=True)
    assert code == 0, said
    assert furthest(*(weights_of(program.run(name)) for name in ("straight", "changed"))) < 1e-10


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_reaches_all_and_saves_once(together, number):
    flags = (*TRICKS, "--epochs", "200")
    process = together.start(2, "stopped", *flags)
    wait_for(process, "1/200 ")
    workers = workers_of(process)
    process.send_signal(number)
    said = process.communicate(timeout=SECONDS)[0]
    assert said.count("main.py: stopped by") == 1, said
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)
    assert load(together.program.run("stopped") / "last.pt")["step"] >= 3


@pytest.mark.parametrize("moment", ["classes ", "1/200 "])
@pytest.mark.parametrize("rank", [0, 1])
def test_a_signal_to_one_process_is_passed_on(together, rank, moment):
    process = together.start(2, "stopped", *TRICKS, "--epochs", "200")
    wait_for(process, moment)
    workers = workers_of(process)
    os.kill(workers[rank], signal.SIGUSR1)
    said = process.communicate(timeout=SECONDS)[0]
    assert said.count("main.py: stopped by SIGUSR1") == 1, said
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)
    assert (together.program.run("stopped") / "last.pt").exists() is (moment == "1/200 ")


def test_torchrun_starts_a_run_anew_that_lost_a_process(together):
    process = together.start(2, "restarted", *EXACT, "--epochs", "30", "--resume", restarts=1)
    wait_for(process, "2/30 ")
    os.kill(workers_of(process)[1], signal.SIGKILL)
    said = process.communicate(timeout=SECONDS)[0]
    assert process.returncode == 0, said
    assert "test accuracy" in said


def test_two_machines_compute_what_one_process_computes_also_when_one_is_lost(together):
    assert together(1, "straight", *TRICKS, exact=True)[0] == 0
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    machines = ["--nnodes=2", "--rdzv_backend=c10d", f"--rdzv_endpoint=localhost:{port}"]
    two = [
        together.start(1, "two", *TRICKS, "--resume", exact=True, restarts=1, machines=machines)
        for _ in range(2)
    ]
    run = together.program.run("two")
    wait_until((run / "last.pt").exists, SECONDS)
    os.kill(workers_of(two[1])[0], signal.SIGKILL)
    assert not (run / "result.json").exists()
    said = [process.communicate(timeout=SECONDS)[0] for process in two]
    assert [process.returncode for process in two] == [0, 0], said
    assert sum(words.count("test accuracy") for words in said) == 1
    assert furthest(weights_of(together.program.run("straight")), weights_of(run)) < 1e-10


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--device", "cuda:0"), "has a card of its own"),
        (("--batch_size", "2"), "give a larger --batch_size"),
        (("--data_dir", "nowhere"), "nowhere"),
        (("--evaluate",), "--evaluate is for one process"),
    ],
)
def test_what_several_processes_cannot_do_is_refused_in_one_line(together, flags, words):
    code, said = together(3, "refused", *SMALL, *flags)
    assert code != 0
    lines = [line for line in said.splitlines() if "main.py: " in line]
    assert len(lines) == 1, said
    assert words in lines[0]


def test_norms_of_each_process_train_and_keep_the_mean(together):
    step = (*EXACT, "--model", "EfficientNet-B0", "--epochs", "1", "--batch_size", "48", "--norm_per_process")
    code, said = together(2, "apart", *step)
    assert code == 0, said
    code, said = together(1, "alone", *step)
    assert "--norm_per_process does nothing in one process" in said
    # After one step the mean of the first norm's means of two halves is that of the whole batch; its
    # variances, each around the mean of a half, are others.
    apart, alone = (weights_of(together.program.run(name)) for name in ("apart", "alone"))
    first = next(name for name in alone if name.endswith("running_mean"))
    torch.testing.assert_close(apart[first], alone[first])
    variances = [each[first.replace("mean", "var")] for each in (apart, alone)]
    assert not torch.allclose(*variances, rtol=1e-6)


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize(
    ("count", "accumulate", "size"), [(7, 1, 2), (16, 3, 3), (5, 2, 2), (9, 4, 2), (6, 6, 1)]
)
def test_parts_are_the_whole_batch(count, accumulate, size, mixed):
    whole = WholeBatch(count, accumulate)
    parts = [PartOfBatch(count, accumulate, rank, size, mixed) for rank in range(size)]
    assert sorted(place for part in parts for place in part.places) == list(range(count))
    images = torch.arange(count)
    for part in parts:
        loaded = images[part.at_hand]
        assert torch.equal(part.own(loaded), torch.from_numpy(part.places))
        if mixed:
            after = part.own(loaded.roll(-1))
            assert torch.equal(after, (part.own(loaded) + 1) % count)
    for number, batch in enumerate(whole.split(images)):
        pieces = [part.split(part.own(images[part.at_hand]))[number] for part in parts]
        assert torch.equal(torch.cat(pieces), batch)
        assert max(map(len, pieces)) - min(map(len, pieces)) <= 1


def test_the_smallest_part_is_known():
    shares = Shares(images=11, steps=3, accumulate=2, rank=0, size=1, mixed=False)
    lengths = [length for step in range(3) for length in shares(step).lengths]
    assert shares.smallest == min(lengths) == 1
    assert sum(lengths) == 11


def test_a_world_is_that_of_torchrun_or_one_process_alone():
    whole = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    whole |= {"MASTER_ADDR": "a", "MASTER_PORT": "1"}
    assert World.of(whole) == World(3, 4, 1, 2)
    for name in whole:
        assert World.of({key: value for key, value in whole.items() if key != name}) == World()
