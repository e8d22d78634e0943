"""learning/classifier.py: a trained network without its data."""

import csv
import shutil

import numpy as np
import pytest
import torch

from learning.classifier import Classifier
from tests.conftest import SMALL
from utils.data.decode import UnreadableImage
from utils.errors import UserError
from utils.run.checkpoint import read_checkpoint, save_checkpoint


@pytest.mark.parametrize("flags", [(), ("--crop", "center", "--tta", "flip", "--ema", "0.5")])
def test_it_predicts_what_the_run_did_without_its_data_folder(program, shapes, tmp_path, monkeypatch, flags):
    copy = tmp_path / "copy"
    shutil.copytree(shapes, copy)
    assert program("run", *SMALL, *flags, "--data_dir", str(copy)) == 0
    with (program.run("run") / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    alone = tmp_path / "alone"
    alone.mkdir()
    for number, row in enumerate(rows):
        shutil.copy(copy / row["path"], alone / f"{number}.png")
    shutil.rmtree(copy)
    best = shutil.copy(program.run("run") / "best.pt", alone)
    monkeypatch.chdir(alone)
    classifier = Classifier.load(best, device="cpu")
    found = list(classifier.classify([f"{number}.png" for number in range(len(rows))], batch_size=5))
    assert [name for name, _ in found] == [row["prediction"] for row in rows]
    confidences = np.array([values[name] for name, values in found])
    assert np.abs(confidences - np.array([row["confidence"] for row in rows], float)).max() < 2e-3
    raw = np.array([[row[f"probability_{name}"] for name in found[0][1]] for row in rows], float)
    calibrated = raw ** (1 / classifier.calibration.temperature)
    calibrated /= calibrated.sum(1, keepdims=True)
    assert np.abs(np.array([list(values.values()) for _, values in found]) - calibrated).max() < 2e-3
    assert list(found[0][1]) == ["circle", "plain", "stripes"]
    assert list(classifier.classify([])) == []
    assert [name for name, _ in classifier.classify("0.png")] == [found[0][0]]
    with pytest.raises(ValueError, match="batch_size 0"):
        list(classifier.classify(["0.png"], batch_size=0))
    with pytest.raises(UnreadableImage, match=r"none\.png"):
        list(classifier.classify(["none.png"]))


def test_checkpoints_of_older_versions_load(program):
    """They had more in best.pt, and the first ones no memory format."""
    assert program("run", *SMALL) == 0
    best = program.run("run") / "best.pt"
    content = read_checkpoint(best)
    last = read_checkpoint(program.run("run") / "last.pt")
    older = {**last, **content, "format": 1}
    del older["memory_format"]
    torch.save(older, best)
    assert program("run", "--evaluate") == 0
    assert Classifier.load(best, "cpu").memory_format == "channels_last"


def test_what_is_missing_is_named(program):
    assert program("run", *SMALL, "--epochs", "1") == 0
    best = program.run("run") / "best.pt"
    content = read_checkpoint(best)
    del content["normalisation"]
    save_checkpoint(best, content)
    with pytest.raises(UserError, match=r"best\.pt lacks 'normalisation'"):
        Classifier.load(best)


@pytest.mark.parametrize("value", [("precision", "foo"), ("memory_format", "foo"), ("image_size", "foo")])
def test_what_does_not_fit_is_refused_when_it_is_loaded(program, value):
    assert program("run", *SMALL, "--epochs", "1") == 0
    best = program.run("run") / "best.pt"
    content = read_checkpoint(best)
    name, wrong = value
    (content["flags"] if name in content["flags"] and name == "image_size" else content)[name] = wrong
    save_checkpoint(best, content)
    with pytest.raises(UserError, match=r"best\.pt holds another network"):
        Classifier.load(best, "cpu")
