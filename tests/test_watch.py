"""learning/watch.py: what goes wrong is said once, and what goes well is not."""

import numpy as np
import pytest

from learning.evaluation import Confusion
from learning.watch import Watch

CLASSES = ("cat", "dog", "emu")
GOOD = np.full((3, 3), 5) + 30 * np.eye(3, dtype=int)


def row(epoch, train_loss=1.0, val_loss=1.0, val_accuracy=80.0):
    return {"epoch": epoch, "train_loss": train_loss, "val_loss": val_loss, "val_accuracy": val_accuracy}


def said(epochs, rows, counts=GOOD):
    """All warnings of a run whose validations have these confusions, or always the same one."""
    watch = Watch(epochs, CLASSES)
    found = []
    for number in range(1, len(rows) + 1):
        confusion = Confusion(counts[number - 1] if isinstance(counts, list) else counts)
        found += watch.warnings(rows[:number], confusion)
    return found


def test_a_run_that_goes_well_says_nothing():
    assert said(20, [row(epoch, 2 / epoch, 1 / epoch**0.5) for epoch in range(1, 21)]) == []


@pytest.mark.parametrize(("epochs", "first"), [(4, 2), (20, 2), (120, 12)])
def test_chance_is_said_once_after_a_tenth(epochs, first):
    always_dog = np.zeros((3, 3), int)
    always_dog[:, 1] = 20
    (warning,) = said(epochs, [row(epoch, 1 / epoch) for epoch in range(1, 16)][:epochs], always_dog)
    assert warning.startswith(f"epoch {first}: the validation accuracy of 33.33 %")
    assert "largest class (33.33 %)" in warning
    assert "--recipe" in warning


def test_the_largest_class_is_what_guessing_comes_to():
    uneven = np.array([[179, 1, 0], [9, 1, 0], [10, 0, 0]])
    (warning,) = said(4, [row(1, 1.0), row(2, 0.5)], uneven)  # 90 % right, where 90 % are cats
    assert "(90.00 %)" in warning


@pytest.mark.parametrize(
    "counts",
    [
        [[18, 0], [0, 2]],  # all right, of so few that luck explains it
        [[883, 67], [1, 49]],  # of rare images as many as of frequent ones
        [[30, 0], [0, 0]],  # one class alone is validated on
    ],
)
def test_what_is_recognised_is_not_called_chance(counts):
    assert said(10, [row(1, 1.0), row(2, 0.5)], np.array(counts)) == []


def test_small_losses_are_no_trouble():
    rows = [row(1, 0.0100, 1e-4), *(row(n, 0.0099, 2e-4) for n in range(2, 12))]
    assert said(20, rows) == []


def test_a_loss_that_does_not_fall():
    (warning,) = said(10, [row(1, 1.1), row(2, 1.09), row(3, 1.09)])
    assert "does not fall (1.1000 in the first epoch, 1.0900 in this)" in warning
    assert said(10, [row(1, 1.1), row(2, 1.0), row(3, 0.9)]) == []


def test_losses_that_part():
    better = [row(epoch, 1 / epoch, 0.5, 80.0) for epoch in range(1, 6)]
    worse = [row(epoch, 1 / epoch, 0.1 * epoch + 0.4, 79.0) for epoch in range(6, 12)]
    (warning,) = said(50, better + worse)
    assert warning.startswith("epoch 6: the validation loss has risen from 0.5000 (epoch 1) to 1.0000")
    still_learning = [{**each, "val_accuracy": 80.5 + number} for number, each in enumerate(worse)]
    assert said(50, better + still_learning) == []


def test_classes_that_are_never_predicted_are_named():
    counts = np.array([[30, 5, 0], [5, 30, 0], [2, 3, 0]])
    rows = [row(epoch, 1 / epoch) for epoch in range(1, 4)]
    (warning,) = said(10, rows, counts)
    assert "taken for emu;" in warning
    assert "--class_weights balanced" in warning
    assert said(10, rows, [GOOD, GOOD, GOOD]) == []
    without = np.array([[30, 5, 0], [5, 30, 0], [0, 0, 0]])  # there are none to predict
    assert said(10, rows, without) == []
