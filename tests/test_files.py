"""utils/run/files.py: files that are whole or not there."""

import errno
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from utils.run.files import replacing, write_json


def test_the_new_content_takes_the_old_ones_place(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"old": 1})
    with path.open() as reader:
        write_json(path, {"größe": 2})
        assert reader.read() == '{\n  "old": 1\n}\n'  # the old file was replaced, not written over
    assert path.read_text(encoding="utf-8") == '{\n  "größe": 2\n}\n'
    assert list(tmp_path.iterdir()) == [path]


def test_a_failing_writer_leaves_the_old_content_and_no_rest(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), replacing(path, "w") as file:
        file.write("new")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS])
def test_a_file_system_that_cannot_sync_stops_nothing(tmp_path, monkeypatch, error):
    def fsync(descriptor):
        raise OSError(error, "cannot")

    monkeypatch.setattr("os.fsync", fsync)
    write_json(tmp_path / "a.json", {"a": 1})
    assert (tmp_path / "a.json").read_text() == '{\n  "a": 1\n}\n'


def test_a_disk_that_fails_is_told(tmp_path, monkeypatch):
    def fsync(descriptor):
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr("os.fsync", fsync)
    with pytest.raises(OSError, match="broken"):
        write_json(tmp_path / "a.json", {"a": 1})


def test_a_writer_killed_half_way_leaves_the_old_content(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    script = (
        "import os, pathlib, sys; from utils.run.files import replacing\n"
        "with replacing(pathlib.Path(sys.argv[1]), 'w') as file:\n"
        "    file.write('half of the new'); file.flush(); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", script, str(path)], cwd=ROOT).returncode == -9
    assert path.read_text() == "old"
    with replacing(path, "w") as file:  # what the kill left is in nobody's way
        file.write("new")
    assert list(tmp_path.iterdir()) == [path]
