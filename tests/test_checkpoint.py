"""utils/run/checkpoint.py and folder.py."""

import os

import pytest
import torch

from utils.errors import Busy, UserError
from utils.run.checkpoint import read_checkpoint, save_checkpoint
from utils.run.folder import RunFolder


def test_a_checkpoint_comes_back_as_it_was(tmp_path):
    content = {"network": {"w": torch.randn(3)}, "step": 3, "flags": {"mixup": 0.2, "milestones": [1, 2]}}
    save_checkpoint(tmp_path / "last.pt", content)
    loaded = read_checkpoint(tmp_path / "last.pt")
    assert torch.equal(loaded["network"]["w"], content["network"]["w"])
    assert (loaded["step"], loaded["flags"]) == (3, content["flags"])
    assert list(tmp_path.iterdir()) == [tmp_path / "last.pt"]


@pytest.mark.parametrize("damage", [lambda data: data[:-50], lambda data: b"", lambda data: b"text"])
def test_a_damaged_checkpoint_is_named(tmp_path, damage):
    path = tmp_path / "last.pt"
    save_checkpoint(path, {"step": 3})
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=r"last\.pt is damaged"):
        read_checkpoint(path)


def test_other_files_are_no_checkpoints(tmp_path):
    torch.save({"w": torch.zeros(1)}, tmp_path / "weights.pt")
    with pytest.raises(UserError, match="not a checkpoint of this program"):
        read_checkpoint(tmp_path / "weights.pt")
    torch.save({"format": 99}, tmp_path / "newer.pt")
    with pytest.raises(UserError, match="newer version"):
        read_checkpoint(tmp_path / "newer.pt")
    with pytest.raises(UserError, match=r"none\.pt: No such file"):
        read_checkpoint(tmp_path / "none.pt")


@pytest.mark.parametrize("name", ["", "../x", "a/../../x", "/tmp/x", ".."])
def test_a_name_that_leads_out_of_the_folder_is_refused(name):
    with pytest.raises(UserError, match="--checkpoint_name"):
        RunFolder("checkpoint", name)


def test_names_may_have_folders():
    assert str(RunFolder("checkpoint", "baseline/seed0").path) == "checkpoint/baseline/seed0"


def test_one_process_at_a_time_writes_a_folder(tmp_path):
    folder = RunFolder(str(tmp_path), "x")
    other = RunFolder(str(tmp_path), "x")
    with folder.claim():
        assert other.in_use
        words = rf"in use by process {os.getpid()} on .*; wait, or choose another name"
        with pytest.raises(Busy, match=words), other.claim():
            pass
        assert folder.path.exists()
        (folder / "args.json").touch()  # a run starts
    assert not other.in_use
    with folder.claim():
        pass
    assert [path.name for path in folder.path.iterdir()] == [".lock", "args.json"]


def test_a_folder_in_which_nothing_was_started_does_not_stay(tmp_path):
    (tmp_path / "other").mkdir()
    with RunFolder(str(tmp_path), "name/seed0").claim():
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_clearing_removes_what_runs_write_and_nothing_else(tmp_path):
    folder = RunFolder(str(tmp_path), "x")
    folder.path.mkdir()
    for name in ("last.pt", "result.json", "events.out.tfevents.1.host", ".last.pt.part", "notes.txt"):
        (folder / name).write_text("x")
    with pytest.raises(UserError, match="--resume goes on with it, --overwrite replaces it"):
        folder.refuse_another_run()
    folder.clear()
    assert [path.name for path in folder.path.iterdir()] == ["notes.txt"]
    folder.refuse_another_run()
