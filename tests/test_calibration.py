"""learning/calibration.py: against torch's optimizer, loops, fractions, and networks whose truth is known."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from learning.calibration import (
    BINS,
    THRESHOLDS,
    Calibration,
    accept_threshold,
    calibration_error,
    fit_temperature,
)
from learning.evaluation import Evaluation, at_temperature


def made_up(
    images: int, temperature: float, seed: int = 0, classes: int = 5, spread: float = 2.0
) -> Evaluation:
    """A network whose confidences would be right at this temperature."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, spread, (images, classes))
    chances = np.exp(at_temperature(logits, 1.0))
    labels = (chances.cumsum(1) < rng.random((images, 1))).sum(1).clip(0, classes - 1)
    return Evaluation(labels, at_temperature(logits * temperature, 1.0))


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_the_temperature_is_that_of_another_optimizer(temperature):
    evaluation = made_up(400, temperature)
    logits, labels = torch.from_numpy(evaluation.log_probabilities), torch.from_numpy(evaluation.labels)
    log_t = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([log_t], max_iter=200, tolerance_grad=1e-12, tolerance_change=1e-15)

    def loss():
        optimizer.zero_grad()
        value = F.cross_entropy(logits / log_t.exp(), labels)
        value.backward()
        return value

    optimizer.step(loss)
    assert fit_temperature(evaluation) == pytest.approx(log_t.exp().item(), rel=1e-5)


@pytest.mark.parametrize("temperature", [0.5, 2.5])
def test_a_known_temperature_is_found_and_mends_the_error(temperature):
    evaluation = made_up(20_000, temperature)
    found = fit_temperature(evaluation)
    assert found == pytest.approx(temperature, rel=0.04)
    calibrated = evaluation.at(found)
    assert calibration_error(evaluation.confidences, evaluation.correct) > 5
    assert calibration_error(calibrated.confidences, calibrated.correct) < 1.2
    assert calibrated.loss < evaluation.loss


def test_where_all_are_right_nothing_is_fitted():
    evaluation = Evaluation(np.zeros(50, int), np.log(np.tile([0.6, 0.4], (50, 1))))
    assert fit_temperature(evaluation) == 1.0


def test_a_network_that_is_worse_than_chance_gets_the_hottest():
    evaluation = Evaluation(np.ones(50, int), np.log(np.tile([0.9, 0.1], (50, 1))))
    assert fit_temperature(evaluation) == pytest.approx(20)


@pytest.mark.parametrize("images", [1, 7, 15, 100, 361])
def test_the_calibration_error_by_a_loop(images):
    rng = np.random.default_rng(images)
    confidences, correct = rng.random(images), rng.random(images) < 0.7
    order = sorted(range(images), key=lambda i: confidences[i])
    expected, first = 0.0, 0
    for number in range(BINS):
        last = first + images // BINS + (number < images % BINS)  # the first bins have the images left over
        expected += abs(sum(float(correct[i]) - confidences[i] for i in order[first:last]))
        first = last
    assert first == images
    assert calibration_error(confidences, correct) == pytest.approx(100 * expected / images)


def test_images_that_are_as_sure_are_taken_in_their_order():
    rng = np.random.default_rng(0)
    confidences, correct = rng.choice([0.6, 0.7, 0.8], 200), rng.random(200) < 0.7
    apart = confidences + np.arange(200) * 1e-9
    assert calibration_error(confidences, correct) == pytest.approx(
        calibration_error(apart, correct), abs=1e-4
    )


def test_the_error_of_a_resample_is_that_of_the_repeated_images():
    rng = np.random.default_rng(0)
    confidences, correct = rng.random(45), rng.random(45) < 0.5
    order = np.argsort(confidences)
    counts = np.zeros((2, 45), int)
    counts[0, order[::3]] = 3  # bins of 3, so that none is cut
    counts[1] = 1
    found = calibration_error(confidences, correct, counts)
    repeated = np.repeat(np.arange(45), counts[0])
    assert found[0] == pytest.approx(calibration_error(confidences[repeated], correct[repeated]))
    assert found[1] == pytest.approx(calibration_error(confidences, correct))


@pytest.mark.parametrize(("share", "least"), [(0.99, 299), (0.95, 59)])
def test_without_an_error_it_takes_so_many_images(share, least):
    for images, expected in ((least, True), (least - 1, False)):
        found = accept_threshold(np.full(images, 0.777), np.ones(images, bool), share)
        assert (found is not None) == expected
    assert accept_threshold(np.full(least, 0.777), np.ones(least, bool), share) == 0  # then all are accepted


def lower_bound_holds(errors: int, count: int, share: Fraction) -> bool:
    """Clopper and Pearson's lower bound at 95 % is at least the share: exactly, by fractions."""
    rate = 1 - share
    chance = sum(math.comb(count, k) * rate**k * share ** (count - k) for k in range(errors + 1))
    return chance <= Fraction(5, 100)


@pytest.mark.parametrize("seed", range(20))
def test_the_threshold_is_the_last_that_holds_in_order(seed):
    rng = np.random.default_rng(seed)
    confidences = 1 - rng.random(300) ** 2 * 0.6
    correct = rng.random(300) < confidences**0.3
    last = None
    for threshold in sorted(THRESHOLDS, reverse=True):
        accepted = correct[confidences >= threshold]
        if len(accepted) < 59:  # fewer could not hold, whatever they are
            continue
        if not lower_bound_holds(int((~accepted).sum()), len(accepted), Fraction(95, 100)):
            break
        last = threshold
    assert accept_threshold(confidences, correct, 0.95) == last


def test_thresholds_fall_and_end_with_all():
    assert list(THRESHOLDS) == sorted(set(THRESHOLDS), reverse=True)
    assert THRESHOLDS[-1] == 0


@pytest.mark.parametrize("images", [100, 1000])
def test_the_promise_is_broken_by_luck_in_no_more_than_5_percent_of_studies(images):
    """Predictions that are right with 94.5 % whatever their confidence: no threshold is right for 95 %."""
    rng = np.random.default_rng(0)
    wrong = 0
    studies = 2000
    for _ in range(studies):
        confidences = rng.uniform(0.3, 1, images)
        wrong += accept_threshold(confidences, rng.random(images) < 0.945, 0.95) is not None
    assert wrong / studies < 0.05 + 2.6 * math.sqrt(0.05 * 0.95 / studies)


def test_a_good_network_gets_its_thresholds():
    found = Calibration.of(made_up(3000, 2.0, spread=6.0))
    assert 0 < found.thresholds["95"] < found.thresholds["99"] < 1
    rest = made_up(50_000, 2.0, seed=1, spread=6.0).at(found.temperature)
    for key, threshold in found.thresholds.items():
        accepted = rest.confidences >= threshold
        assert rest.correct[accepted].mean() >= int(key) / 100
