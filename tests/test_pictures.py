"""utils/run/pictures.py: the files are pictures, whatever the names and numbers are."""

from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from learning.evaluation import Confusion
from utils.figures import INK, as_svg
from utils.run.pictures import confusion_matrix, learning_curve, save, similar_together


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
    figure = learning_curve(history, best, "a run with a $ and _ in its name")
    save(figure, tmp_path / "a.png")
    assert Image.open(tmp_path / "a.png").size == (675, 900)
    svg = as_svg(figure)
    assert "a run with a $ and _ in its name" in svg
    ElementTree.fromstring(svg)
    assert "pt" not in svg.partition(">")[0]  # it is as wide as the page lets it
    assert "currentColor" in svg
    assert INK not in svg


@pytest.mark.parametrize("count", [2, 6, 40, 200])
def test_confusion_matrix(tmp_path, count):
    confusion = np.random.default_rng(0).integers(0, 50, (count, count))
    confusion[0] = 0  # a class without images
    classes = [f"${number}_x^2" for number in range(count)]
    pairs = Confusion(confusion).most_confused(20)
    save(confusion_matrix(confusion, classes, pairs, "50 % of $x$"), tmp_path / "a.png")
    image = Image.open(tmp_path / "a.png")
    assert min(image.size) > 400
    assert len(image.convert("RGB").getcolors(1 << 24)) > 20


def test_what_is_confused_stands_together():
    """Three groups of classes, shuffled; within each they are taken for each other."""
    rng = np.random.default_rng(1)
    groups = rng.permutation(np.repeat([0, 1, 2], 8))
    alike = groups[:, None] == groups
    confusion = (
        100 * np.eye(24, dtype=int) + alike * rng.integers(2, 20, (24, 24)) + rng.integers(0, 2, (24, 24))
    )
    order = similar_together(confusion)
    assert sorted(order) == list(range(24))
    assert np.count_nonzero(np.diff(groups[order])) == 2


def test_a_matrix_without_errors_has_an_order():
    assert sorted(similar_together(5 * np.eye(30, dtype=int))) == list(range(30))


def test_a_matrix_of_many_classes_lists_what_is_confused():
    confusion = 50 * np.eye(40, dtype=int)
    confusion[3, 17] = 9
    figure = confusion_matrix(confusion, [f"class{number}" for number in range(40)], [(3, 17, 9)], "a")
    svg = as_svg(figure)
    assert "class3 taken for class17: 9" in svg
    assert all(f">class{number}<" in svg for number in range(40))
