"""utils/run/pictures.py: the files are pictures, whatever the names and numbers are."""

import numpy as np
import pytest
from PIL import Image

from utils.run.pictures import confusion_matrix, learning_curve


def row(epoch, loss, accuracy):
    return {
        "epoch": epoch,
        **{f"{split}_loss": loss for split in ("train", "val")},
        **{f"{split}_accuracy": accuracy for split in ("train", "val")},
    }


@pytest.mark.parametrize("epochs", [1, 3, 120])
def test_learning_curve(tmp_path, epochs):
    history = [row(epoch, 100 / epoch**2, 90.0) for epoch in range(1, epochs + 1)]
    best = {"epoch": 1, "val_accuracy": 90.0, "weights": "raw"}
    learning_curve(tmp_path / "a.png", history, best, "a run with a $ and _ in its name")
    assert Image.open(tmp_path / "a.png").size == (1080, 456)


@pytest.mark.parametrize("count", [2, 6, 40])
def test_confusion_matrix(tmp_path, count):
    confusion = np.random.default_rng(0).integers(0, 50, (count, count))
    confusion[0] = 0  # a class without images
    classes = [f"${number}_x^2" for number in range(count)]
    confusion_matrix(tmp_path / "a.png", confusion, classes, "50 % of $x$")
    image = Image.open(tmp_path / "a.png")
    assert min(image.size) > 400
    assert len(image.convert("RGB").getcolors(1 << 24)) > 20
