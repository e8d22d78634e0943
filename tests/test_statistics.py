"""utils/report/statistics.py, on predictions whose truth is known."""

import math

import numpy as np
import pytest

from utils.report.statistics import (
    LEVEL,
    NO_SPREAD,
    SeedSpread,
    contrast,
    difference,
    holm,
    mcnemar,
    seed_spread,
    student_quantile,
    student_tail,
)


@pytest.fixture(autouse=True)
def _fewer_resamples(monkeypatch):
    monkeypatch.setattr("utils.report.statistics.RESAMPLES", 1000)


def predictions(rng, images, seeds=1, experiments=2, spread=0.0):
    """Equally good experiments [E] of bool [S, n], about 81 % right, whose seeds differ by `spread` points.

    An image has a difficulty that all runs meet; the rest is a run's own luck.
    """
    difficulty = rng.normal(2.2, 2, images)
    shift = rng.normal(0, spread / 100 / 0.115, (experiments, seeds, 1))  # 0.115: mean slope of the logistic
    chance = 1 / (1 + np.exp(-difficulty - shift))
    return rng.random((experiments, seeds, images)) < chance


def pair(rng, images, gain, loss):
    """Two runs [1, n]: the first alone is right with chance `gain`, the second alone with chance `loss`."""
    draw = rng.random((1, images))
    return (draw < gain) | (draw > 0.5), (draw > 0.5) | ((draw >= gain) & (draw < gain + loss))


@pytest.mark.parametrize(
    ("freedom", "value"), [(1, 12.7062), (2, 4.3027), (5, 2.5706), (30, 2.0423), (math.inf, 1.9600)]
)
def test_students_quantiles_are_those_of_the_tables(freedom, value):
    assert student_quantile(0.975, freedom) == pytest.approx(value, abs=5e-4)
    assert student_tail(value, freedom) == pytest.approx(0.025, abs=2e-5)


def test_mcnemar_is_the_binomial_test_of_the_discordant_images():
    a = np.array([1] * 5 + [0] * 1 + [1] * 7 + [0] * 3, bool)
    b = np.array([0] * 5 + [1] * 1 + [1] * 7 + [0] * 3, bool)
    assert mcnemar(a, b) == pytest.approx(2 * (1 + 6) / 2**6)
    assert mcnemar(b, a) == mcnemar(a, b)
    assert mcnemar(a, a) == 1
    assert mcnemar(np.ones(2000, bool), np.zeros(2000, bool)) == 0  # 2^-1999, without overflow


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.4, 0.9]) == pytest.approx([0.8, 0.9])
    assert holm([]) == []


def test_one_seed_without_an_effect_raises_few_false_alarms():
    rng = np.random.default_rng(0)
    p = [difference(*predictions(rng, 1000), NO_SPREAD, rng).p for _ in range(1000)]
    assert 0.025 <= np.mean(np.array(p) < LEVEL) <= 0.06  # an exact test may stay below its level


@pytest.mark.parametrize(("seeds", "spread"), [(2, 0.0), (2, 0.5), (2, 2.0), (3, 0.5), (5, 1.0)])
def test_several_seeds_without_an_effect(seeds, spread):
    """About one false alarm in 20, after correction at most that for all; intervals cover at their rate."""
    rng = np.random.default_rng(1)
    alarms, any_alarm, covered = [], [], []
    for _ in range(200):
        base, *others = predictions(rng, 1500, seeds, experiments=9, spread=spread)
        pooled = seed_spread([base, *others])
        found = [difference(other, base, pooled, rng) for other in others]
        p = [estimate.p for estimate in found]
        alarms += [value < LEVEL for value in p]
        covered += [estimate.low <= 0 <= estimate.high for estimate in found]
        any_alarm.append(min(holm(p)) < LEVEL)
    assert 0.02 <= np.mean(alarms) <= 0.065
    assert np.mean(any_alarm) <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 200)
    assert 0.935 <= np.mean(covered) <= 0.98


def test_a_restless_experiment_does_not_pass_for_a_better_one():
    rng = np.random.default_rng(2)
    alarms = []
    for _ in range(300):
        quiet = list(predictions(rng, 1500, seeds=3, experiments=8, spread=0.2))
        chance = quiet[0].mean() + rng.normal(0, 0.02, (3, 1))
        restless = rng.random((3, 1500)) < chance
        pooled = seed_spread([*quiet, restless])
        alarms.append(difference(restless, quiet[0], pooled, rng).p < LEVEL)
    assert np.mean(alarms) <= 0.11  # with the pooled spread alone it would be 0.2


def test_a_real_effect_is_found_as_often_as_reckoned_by_hand():
    """Of 1,000 images 8 % are won and 5 % lost: 3 points, with a standard error of 1.136 points.

    sqrt((0.13 - 0.03^2) / 1000) = 0.01136, and the normal chance of a z above 1.96 at 3 / 1.136 is 0.752.
    """
    rng = np.random.default_rng(3)
    found = [difference(*pair(rng, 1000, 0.08, 0.05), NO_SPREAD, rng) for _ in range(800)]
    assert np.mean([estimate.mean for estimate in found]) == pytest.approx(3, abs=0.15)
    assert np.mean([estimate.p < LEVEL for estimate in found]) == pytest.approx(0.752, abs=0.05)
    covered = np.mean([estimate.low <= 3 <= estimate.high for estimate in found])
    assert covered == pytest.approx(0.95, abs=0.02)


def test_the_number_of_images_that_it_takes_is_enough():
    rng = np.random.default_rng(4)
    needed = difference(*pair(rng, 2000, 0.06, 0.04), NO_SPREAD, rng).images_needed(2.0)
    by_hand = (1.96 + 0.8416) ** 2 * (0.10 - 0.02**2) / 0.02**2
    assert needed == pytest.approx(by_hand, rel=0.15)
    p = [difference(*pair(rng, round(by_hand), 0.06, 0.04), NO_SPREAD, rng).p for _ in range(500)]
    assert np.mean(np.array(p) < LEVEL) == pytest.approx(0.8, abs=0.06)


def test_the_number_of_seeds_that_it_takes_is_enough():
    rng = np.random.default_rng(5)
    runs = predictions(rng, 2000, seeds=30, experiments=2, spread=1.0)
    needed = difference(*runs, seed_spread(runs), rng).seeds_needed(1.5)
    found = []
    for _ in range(300):
        some = predictions(rng, 2000, seeds=round(needed), experiments=8, spread=1.0)
        better = some[0] | (rng.random(some[0].shape) < 0.015 / (1 - some[0].mean()))
        found.append(difference(better, some[1], seed_spread(some), rng).p < LEVEL)
    assert 0.65 <= np.mean(found) <= 0.95
    assert math.isnan(difference(*runs[:, :1], NO_SPREAD, rng).seeds_needed(1.5))  # one seed does not tell


def test_what_no_number_can_show_is_said():
    rng = np.random.default_rng(6)
    runs = predictions(rng, 500, seeds=2)
    assert difference(*runs, SeedSpread(4.0, 10), rng).images_needed(1.0) == math.inf
    agreed = predictions(rng, 20)[:, 0]
    steady = np.stack([agreed, agreed], axis=1)  # two seeds that make the same predictions
    assert difference(*steady, NO_SPREAD, rng).seeds_needed(0.5) == math.inf


@pytest.mark.parametrize("spread", [0.0, 1.0])
def test_the_spread_over_seeds_is_measured_beyond_the_luck_of_the_images(spread):
    rng = np.random.default_rng(7)
    found = [seed_spread(predictions(rng, 1000, 3, 6, spread)).variance for _ in range(60)]
    assert np.mean(found) == pytest.approx(spread**2, abs=0.25)
    assert seed_spread(predictions(rng, 1000, 3, 6)).freedom == 10
    assert seed_spread(predictions(rng, 1000, 1, 6)) == NO_SPREAD


def test_the_same_predictions_are_no_difference():
    rng = np.random.default_rng(8)
    a = predictions(rng, 50)[0]
    found = difference(a, a, NO_SPREAD, rng)
    assert (found.mean, found.low, found.high, found.p) == (0, 0, 0, 1)


def test_a_mean_over_pairs_is_surer_than_one_pair():
    rng = np.random.default_rng(9)
    runs = predictions(rng, 1000, seeds=2, experiments=4)
    one = contrast((1, -1), runs[:2], NO_SPREAD, rng)
    mean = contrast((0.5, -0.5, 0.5, -0.5), runs, NO_SPREAD, rng)
    accuracies = 100 * runs.mean((1, 2))
    assert mean.mean == pytest.approx((accuracies[0] - accuracies[1] + accuracies[2] - accuracies[3]) / 2)
    assert mean.high - mean.low < one.high - one.low
