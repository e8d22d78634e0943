"""utils/run/lock.py: who may write, on file systems that lock and on those that do not."""

import errno
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from tests.conftest import ROOT, SMALL
from tests.disturbed import wait_for
from utils.errors import Busy
from utils.run import lock
from utils.run.folder import RunFolder
from utils.run.lock import NO_LOCKS, InUse, hold

HOLDER = """
import sys, time, pathlib
from utils.run.lock import hold
with hold(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(100)
"""
# Loaded by Python when it starts: a file system without locks.
WITHOUT_LOCKS = """
import fcntl
def flock(file, how):
    raise OSError({error}, "no locks here")
fcntl.flock = flock
"""


@pytest.fixture(params=["locks", errno.ENOSYS, errno.ENOLCK], ids=["locks", "ENOSYS", "ENOLCK"])
def system(request, tmp_path, monkeypatch):
    """The environment of processes on a file system that locks, or does not, in one of the ways to say so."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    if request.param != "locks":
        place = tmp_path / "site"
        place.mkdir()
        (place / "sitecustomize.py").write_text(WITHOUT_LOCKS.format(error=request.param))
        environment["PYTHONPATH"] = f"{place}:{ROOT}"

        def flock(file, how):
            raise OSError(request.param, "no locks here")

        monkeypatch.setattr("fcntl.flock", flock)
    return environment


def start_holder(path, environment):
    command = [sys.executable, "-c", HOLDER, str(path)]
    holder = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    return holder


def test_a_lock_is_held_by_one_and_ends_with_a_killed_holder(tmp_path, system):
    path = tmp_path / ".lock"
    for _ in range(2):
        holder = start_holder(path, system)
        with pytest.raises(InUse, match=rf"{tmp_path} is in use by"), hold(path):
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with hold(path), pytest.raises(InUse), hold(path):
            pass
    with hold(path):  # released, not only forgotten
        pass


FORKER = """
import os, sys, time, pathlib
from utils.run.lock import hold
with hold(pathlib.Path(sys.argv[1])):
    if os.fork() == 0:
        print(os.getpid(), flush=True)
    time.sleep(100)
"""


def test_a_fork_that_outlives_the_holder_does_not_keep_the_lock(tmp_path):
    """As processes that decode images do for some seconds."""
    command = [sys.executable, "-c", FORKER, str(tmp_path / ".lock")]
    holder = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    child = int(holder.stdout.readline())
    try:
        with pytest.raises(InUse), hold(tmp_path / ".lock"):
            pass
        holder.kill()
        holder.wait()
        os.kill(child, 0)  # it is there
        with hold(tmp_path / ".lock"):
            pass
    finally:
        os.kill(child, signal.SIGKILL)


@pytest.mark.parametrize("error", sorted(NO_LOCKS))
def test_every_way_to_say_that_there_are_no_locks_is_known(tmp_path, monkeypatch, error):
    def flock(file, how):
        raise OSError(error, "no locks here")

    monkeypatch.setattr("fcntl.flock", flock)
    with hold(tmp_path / ".lock"):
        assert (tmp_path / ".lock.held").exists()


@pytest.mark.parametrize("content", ["4711", "4711\n", "text", "\0\1\2"])
def test_a_damaged_marker_is_reclaimed(tmp_path, monkeypatch, content):
    def flock(file, how):
        raise OSError(errno.ENOSYS, "no locks here")

    monkeypatch.setattr("fcntl.flock", flock)
    (tmp_path / ".lock.held").write_text(content)
    with hold(tmp_path / ".lock"):
        assert (tmp_path / ".lock.held").read_text() != content


def test_an_empty_file_that_was_left_behind_is_in_nobodys_way(tmp_path, system):
    (tmp_path / ".lock").touch()
    started = time.monotonic()
    with hold(tmp_path / ".lock"):
        pass
    assert time.monotonic() - started < 5


def test_the_holder_on_another_machine_is_named_with_what_to_delete(tmp_path, monkeypatch):
    def flock(file, how):
        raise OSError(errno.ENOSYS, "no locks here")

    monkeypatch.setattr("fcntl.flock", flock)
    marker = tmp_path / ".lock.held"
    marker.write_text("4711\nnode7\n99\n")
    with pytest.raises(InUse) as error, hold(tmp_path / ".lock"):
        pass
    assert str(error.value) == (
        f"{tmp_path} is in use by process 4711 on node7, and its file system has no locks that would end "
        f"with it; if it is gone, delete {marker}"
    )
    marker.unlink()
    with hold(tmp_path / ".lock"):
        assert marker.exists()
    assert not marker.exists()


# Loaded by Python when it starts: a machine of that name, whose locks no other machine sees.
ANOTHER_MACHINE = """
import fcntl, socket
fcntl.flock = lambda file, how: None
socket.gethostname = lambda: "node7"
"""


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """The environment of processes on another machine than this one, which does not see their locks."""
    place = tmp_path / "site"
    place.mkdir()
    (place / "sitecustomize.py").write_text(ANOTHER_MACHINE)
    return {**os.environ, "PYTHONPATH": f"{place}:{ROOT}"}


def test_a_holder_on_another_machine_is_seen_where_its_lock_is_not(tmp_path, elsewhere, monkeypatch):
    path = tmp_path / "run/.lock"
    holder = start_holder(path, elsewhere)
    words = rf"run is in use by process {holder.pid} on node7, whose lock the file system hides"
    for _ in range(2):
        with pytest.raises(InUse, match=words), hold(path):
            pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    monkeypatch.setattr(lock, "SECONDS_WITHOUT_SIGNS", 2 * lock.SECONDS_BETWEEN_SIGNS)
    with hold(path) as confirm:
        confirm()
    assert [file.name for file in path.parent.iterdir()] == [".lock"]


def test_of_two_machines_that_begin_at_the_same_moment_the_first_withdraws(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "SECONDS_BETWEEN_SIGNS", 0.1)
    sign, others = tmp_path / ".lock.by", "4711\nnode7\nabcd\n0\n"
    with hold(tmp_path / ".lock") as confirm:
        time.sleep(0.5)
        confirm()
        sign.write_text(others)  # by one that looked before this one's was there
        time.sleep(0.5)
        with pytest.raises(InUse, match="in use by process 4711 on node7"):
            confirm()
    assert sign.read_text() == others


def test_a_killed_holders_sign_is_in_nobodys_way_on_a_full_disk(tmp_path, monkeypatch):
    sign = tmp_path / ".lock.by"
    sign.write_text(f"999999\n{socket.gethostname()}\nabcd\n5\n")
    monkeypatch.setattr(lock._Sign, "_write", lambda self, number: None)
    with hold(tmp_path / ".lock") as confirm:
        confirm()


def test_folders_are_claimed_and_removed_by_many_at_once(tmp_path):
    """Those of two runs in one folder, in which nothing is started."""
    end = time.monotonic() + 3

    def use(number):
        folder, claimed = RunFolder(str(tmp_path), f"name/seed{number % 2}"), 0
        while time.monotonic() < end:
            with suppress(Busy), folder.claim():
                claimed += 1
            assert isinstance(folder.in_use, str)
        return claimed

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(use, range(4)))
    assert list(tmp_path.iterdir()) == []


def test_other_errors_are_not_taken_for_want_of_locks(tmp_path, monkeypatch):
    def flock(file, how):
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr("fcntl.flock", flock)
    with pytest.raises(OSError, match="broken"), hold(tmp_path / ".lock"):
        pass


def test_a_run_is_alone_in_its_folder_and_goes_on_after_a_kill(program, system, capsys):
    process = program.start("run", *SMALL, "--epochs", "999", env=system)
    wait_for(process, "1/999 ")
    assert program("run", "--resume") == 75
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "is in use by" in err
    assert "wait, or choose another name" in err
    process.kill()
    process.communicate()
    again = program.start("run", "--resume", env=system)
    wait_for(again, "/999 ")
    again.send_signal(signal.SIGTERM)
    assert again.wait(timeout=60) == 143
    assert {path.name for path in program.run("run").glob(".lock*")} <= {".lock"}
