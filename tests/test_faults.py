"""What machines do to a run: kills, full disks, lost processes, closed terminals. Nothing of it is lost."""

import errno
import multiprocessing
import os
import pty
import random
import shutil
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import main
from learning.fit import Fit
from tests.conftest import ROOT, TRICKED
from tests.disturbed import CACHE, WORKERS, finish, load, wait_for
from tests.test_trainer import assert_same
from utils.report.__main__ import main as report

# Where a process kills itself: a function, and at its how-manieth call.
MOMENTS = {
    "building the cache": ("utils.data.cache", "decode", 30),
    "placing the cache": ("os", "posix_fallocate", 1),
    "before the first step": ("learning.trainer.Trainer", "train_step", 1),
    "in a step": ("learning.trainer.Trainer", "_backward", 5),
    "in validation": ("learning.evaluator", "autocast", 2),
    "writing the first checkpoint": ("torch", "save", 1),
    "writing a later checkpoint": ("torch", "save", 2),
    "renaming a checkpoint": ("os", "replace", 2),
    "after renaming a checkpoint": ("os", "fsync", 4),
    "writing log.csv": ("csv.DictWriter", "writerows", 2),
    "in the test": ("learning.classifier", "evaluate", 9),
    "writing the predictions": ("learning.results", "write_predictions", 1),
    "drawing": ("matplotlib.figure.Figure", "savefig", 1),
    "drawing the second picture": ("matplotlib.figure.Figure", "savefig", 2),
    "writing the result": ("json", "dump", 1),
}


def run_until(program: Callable, argv: list[str], place: str, name: str, call: int) -> None:
    """Run a command line in a process that kills itself at that call of a function."""
    import importlib

    parts = place.split(".")
    for length in range(len(parts), 0, -1):
        try:
            owner = importlib.import_module(".".join(parts[:length]))
            break
        except ModuleNotFoundError:
            continue
    for part in (*parts[length:], *name.split(".")[:-1]):
        owner = getattr(owner, part)
    name = name.split(".")[-1]
    function, calls = getattr(owner, name), [0]

    def counted(*args, **kwargs):
        calls[0] += 1
        if calls[0] == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)

    setattr(owner, name, counted)
    program(argv)


@pytest.fixture(scope="module")
def server():
    """Processes that start with torch already loaded: forks of one that does nothing else."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["main", "learning.run", "learning.results", "tests.test_faults"])
    return context


def test_a_run_killed_at_every_kind_of_moment_goes_on_to_the_same_bits(program, straight, server):
    for moment, (place, name, call) in MOMENTS.items():
        argv = program.arguments("run", *TRICKED, "--resume")
        process = server.Process(target=run_until, args=(main.main, argv, place, name, call))
        process.start()
        process.join(60)
        assert process.exitcode == -signal.SIGKILL, moment
    finish(program, straight)


@pytest.mark.parametrize(("name", "call"), [("replacing", 1), ("to_page", 1), ("save", 1)])
def test_a_report_killed_on_the_way_is_written_by_the_next_call(straight, tmp_path, server, name, call):
    def written(output):
        assert report([str(straight.parent), "--output", str(output)]) == 0
        return {path.name: path.read_bytes() for path in output.iterdir()}

    argv = [str(straight.parent), "--output", str(tmp_path / "killed")]
    process = server.Process(target=run_until, args=(report, argv, "utils.report.__main__", name, call))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert written(tmp_path / "killed") == written(tmp_path / "straight")


def test_a_run_killed_thirty_times_at_random_goes_on_to_the_same_bits(program, straight, server):
    """Its images come from the cache, and every other time from files through workers."""
    rng = random.Random(7)
    kills = 0
    while kills < 30:
        source = WORKERS if kills % 2 else CACHE
        argv = program.arguments("run", *TRICKED, *source, "--resume")
        process = server.Process(target=main.main, args=(argv,))
        process.start()
        time.sleep(rng.uniform(0, 1.2))
        if process.exitcode is None:
            process.kill()
            kills += 1
        process.join()
        if (program.run("run") / "result.json").exists():  # it came to its end: once more from the start
            finish(program, straight)
            shutil.rmtree(program.folder / "checkpoint")
            shutil.rmtree(program.folder / "cache", ignore_errors=True)
    finish(program, straight)


class FullDisk:
    """A file for which there is room for so many bytes."""

    def __init__(self, file, room):
        self.file = file
        self.room = room

    def write(self, data):
        self.room -= len(data)
        if self.room < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self.file.write(data)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.file.close()

    def __getattr__(self, name):
        return getattr(self.file, name)


# In the order in which a run comes to them.
WRITTEN = ("args.json", "best.pt", "last.pt", "log.csv", "predictions.csv", "learning_curve.png")


def test_a_full_disk_is_named_and_the_last_checkpoint_is_whole(program, straight, capsys, monkeypatch):
    """One run that meets a full disk at each file it writes, and each time goes on when there is room."""
    run = program.run("run")
    for name in (*WRITTEN, "confusion_matrix.png", "result.json"):

        def on_a_full_disk(path, *args, name=name, **kwargs):
            file = open(path, *args, **kwargs)  # noqa: SIM115
            room = 1000 if name.endswith(".pt") else 10  # torch makes another error of a later write
            return FullDisk(file, room) if Path(path).name == f".{name}.part" else file

        before = load(run / "last.pt") if (run / "last.pt").exists() else None
        with monkeypatch.context() as patch:
            patch.setattr("utils.run.files.open", on_a_full_disk, raising=False)
            capsys.readouterr()
            assert program("run", *TRICKED, "--resume") == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        assert f"{name}: No space left on device" in err
        assert "--resume" in err
        assert not list(run.glob(".*.part"))
        if before:
            after = load(run / "last.pt")
            assert after["step"] >= before["step"]
            if name == "last.pt":
                assert_same(after, before)
        if name == "best.pt":  # so that there is a checkpoint to spoil
            monkeypatch.setattr(Fit, "_finish_epoch", stop_after_the_first(Fit._finish_epoch))
            with pytest.raises(KeyboardInterrupt):
                program("run", *TRICKED, "--resume")
            monkeypatch.undo()
    finish(program, straight)


def stop_after_the_first(finish_epoch):
    def stop(fit):
        finish_epoch(fit)
        raise KeyboardInterrupt

    return stop


def test_a_full_disk_is_named_when_tensorboard_meets_it(program, straight):
    """It writes in a thread, from its second event on."""
    code = f"""
import errno, sys, threading
from tensorboard.compat.tensorflow_stub.io.gfile import LocalFileSystem
import main
write = LocalFileSystem._write
def full(*args):
    if threading.current_thread() is not threading.main_thread():
        raise OSError(errno.ENOSPC, "No space left on device")
    write(*args)
LocalFileSystem._write = full
sys.exit(main.main({program.arguments("run", *TRICKED)!r}))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (
        2,
        f"main.py: {program.run('run')}: No space left on device; what was saved before is whole: "
        "make room and go on with --resume\n",
    )
    finish(program, straight)


def test_a_cache_that_does_not_fit_is_told_before_it_is_built(program, straight, capsys, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    assert program("run", *TRICKED, "--cache", "disk") == 2
    assert "the decoded cache needs 0.00 GB in" in capsys.readouterr().err
    assert not program.run("run").exists()
    assert not list((program.folder / "cache").glob("*px-*.npy"))
    monkeypatch.undo()
    finish(program, straight)


def workers_of(process) -> list[int]:
    """The processes that decode images for a run."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(pid) for pid in children if b"main.py" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def test_workers_end_when_the_run_is_killed(program):
    process = program.start("run", *TRICKED, *WORKERS, "--epochs", "999")
    wait_for(process, "1/999 ")
    workers = workers_of(process)
    assert len(workers) == 2
    process.kill()
    process.communicate()
    end = time.monotonic() + 15  # they look for the run every five seconds
    while time.monotonic() < end and any(is_running(pid) for pid in workers):
        time.sleep(0.1)
    assert not any(is_running(pid) for pid in workers)


def is_running(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_killed_worker_ends_the_run_in_one_line(program, straight):
    process = program.start("run", *TRICKED, *WORKERS, "--epochs", "999")
    wait_for(process, "1/999 ")
    workers = workers_of(process)
    os.kill(workers[0], signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err.count("\n")) == (1, 1), err
    assert "a process that decodes images was killed" in err
    assert load(program.run("run") / "last.pt")["epoch"] >= 1


def test_an_unforeseen_error_ends_a_run_with_workers(program, monkeypatch):
    """Workers ignore SIGTERM, so that nobody but the run decides when they end; they must not outlive it."""
    code = (
        "import main, sys, learning.fit\n"
        "def broken(self): raise ZeroDivisionError\n"
        "learning.fit.Fit._finish_epoch = broken\n"
        f"main.main({program.arguments('run', *TRICKED, '--cache', 'off', '--num_workers', '2')!r})\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be", 2),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("MPS backend out of memory (MPS allocated: 17.94 GB, other allocations: 1.2 GB"),
    ],
)
def test_too_little_memory_says_the_batch_size_and_what_to_try(program, capsys, monkeypatch, error):
    def greedy(self, *batch):
        raise error

    monkeypatch.setattr("learning.trainer.Trainer.train_step", greedy)
    assert program("run", *TRICKED) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "too little memory for --batch_size 16; start anew with a smaller one" in err


def test_other_errors_are_not_taken_for_want_of_memory(program, monkeypatch):
    def broken(self, *batch):
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr("learning.trainer.Trainer.train_step", broken)
    with pytest.raises(RuntimeError, match="shapes"):
        program("run", *TRICKED)


def test_a_closed_terminal_saves_in_the_middle_of_an_epoch(program, straight):
    """The run talks to a terminal of its own, with a progress bar, and the terminal is closed."""
    pid, terminal = pty.fork()
    if pid == 0:
        termios.tcsetwinsize(1, (24, 100))
        os.execv(sys.executable, [sys.executable, str(ROOT / "main.py"), *program.arguments("run", *TRICKED)])
    shown = b""
    while b"2/8" not in shown:
        shown += os.read(terminal, 1000)
    os.close(terminal)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 128 + signal.SIGHUP
    assert b"\repoch 1/8:" in shown  # the progress bar, which would write to the terminal again
    finish(program, straight)


def test_a_clock_that_goes_back_changes_nothing(program, straight, monkeypatch):
    times = iter(range(2**31, 0, -3600))  # an hour back at each look
    monkeypatch.setattr("time.time", lambda: float(next(times)))
    assert program("run", *TRICKED) == 0
    finish(program, straight)
    events = list(program.run("run").glob("events.out.tfevents.*"))
    assert events


def test_a_folder_that_is_removed_is_told_in_one_line(program, straight):
    process = program.start("run", *TRICKED, "--epochs", "999")
    wait_for(process, "1/999 ")
    while program.run("run").exists():  # the run may be writing a file at that moment
        shutil.rmtree(program.run("run"), ignore_errors=True)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err.count("\n")) == (2, 1)
    assert "No such file or directory" in err
    assert str(program.run("run")) in err
    finish(program, straight)
