"""learning/evaluation.py: figures of predictions, by independent counts."""

import numpy as np
import pytest

from learning.evaluation import Confusion, Evaluation, at_temperature

LABELS = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2, 2])
PREDICTIONS = np.array([0, 1, 2, 1, 1, 2, 2, 0, 2, 1])


def test_precision_recall_and_f1_by_counting():
    found = Confusion.of(LABELS, PREDICTIONS, 4)  # class 3 has no images and is never predicted
    for label in range(3):
        true_positives = sum((label == LABELS) & (label == PREDICTIONS))
        precision = true_positives / sum(label == PREDICTIONS)
        recall = true_positives / sum(label == LABELS)
        assert found.precision[label] == pytest.approx(100 * precision)
        assert found.recall[label] == pytest.approx(100 * recall)
        assert found.f1[label] == pytest.approx(100 * 2 * precision * recall / (precision + recall))
    assert np.isnan([found.precision[3], found.recall[3], found.f1[3]]).all()
    assert found.accuracy == 60
    assert found.balanced_accuracy == pytest.approx((100 / 3 + 100 + 60) / 3)
    assert found.macro_f1 == pytest.approx(found.f1[:3].mean())
    assert found.sizes.tolist() == [3, 2, 5, 0]


def test_a_class_that_is_never_predicted_has_no_precision_and_f1_of_0():
    found = Confusion.of(np.array([0, 0, 1]), np.array([0, 0, 0]), 2)
    assert np.isnan(found.precision[1])
    assert (found.recall[1], found.f1[1]) == (0, 0)
    assert found.macro_f1 == pytest.approx(40)


def test_top_accuracy_counts_the_first_five():
    logits = np.tile(-np.arange(8.0), (8, 1))  # class k is guess k + 1
    found = Evaluation(np.arange(8), at_temperature(logits, 1.0))
    assert found.accuracy == 12.5
    assert found.top_accuracy == 62.5


def test_a_class_that_ties_with_many_is_not_among_the_first():
    """As in files with six decimals, where all but one are 0."""
    with np.errstate(divide="ignore"):
        found = Evaluation(np.array([3]), np.log(np.eye(25)[[0]]))
    assert found.top_accuracy == 0


@pytest.mark.parametrize("temperature", [0.3, 1.0, 7.0])
def test_a_temperature_divides_the_logits(temperature):
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 4, (50, 5))
    found = Evaluation(rng.integers(0, 5, 50), at_temperature(logits, 1.0)).at(temperature)
    exponentials = np.exp(logits / temperature)
    np.testing.assert_allclose(found.probabilities, exponentials / exponentials.sum(1, keepdims=True))
    np.testing.assert_array_equal(found.predictions, logits.argmax(1))
    expected = -np.mean(
        [np.log(row[label]) for row, label in zip(found.probabilities, found.labels, strict=True)]
    )
    assert found.loss == pytest.approx(expected)


def test_probabilities_that_are_too_small_for_a_number_have_a_logarithm():
    found = Evaluation(np.array([1]), at_temperature(np.array([[2000.0, 0.0]]), 1.0))
    assert found.loss == 2000
