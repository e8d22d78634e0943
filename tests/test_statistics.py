"""utils/report/statistics.py, on predictions whose truth is known."""

import math
import os

import numpy as np
import pytest

from utils.report.statistics import (
    LEVEL,
    Spread,
    accuracy,
    difference,
    holm,
    mcnemar,
    mean_figure,
    student_quantile,
)

STUDIES = int(os.environ.get("STUDIES", 1000))  # made-up ones for each cell of a grid; 20,000 say it surely


def predictions(rng, images, seeds=1, spreads=(0.0, 0.0), shared=0.0):
    """Equally good experiments [E] of bool [S, n], about 81 % right, whose seeds differ by `spreads` points.

    An image has a difficulty that all runs meet; the rest is a run's own luck. By `shared` points the seeds
    differ alike in all experiments.
    """
    difficulty = rng.normal(2.2, 2, images)
    own = rng.normal(0, 1, (len(spreads), seeds, 1)) * np.array(spreads)[:, None, None]
    points = own + shared * rng.normal(0, 1, (1, seeds, 1))
    chance = 1 / (1 + np.exp(-difficulty - points / 100 / 0.115))  # 0.115: mean slope of the logistic
    return rng.random(chance.shape) < chance


def pair(rng, images, gain, loss):
    """Two runs [1, n]: the first alone is right with chance `gain`, the second alone with chance `loss`."""
    draw = rng.random((1, images))
    return (draw < gain) | (draw > 0.5), (draw > 0.5) | ((draw >= gain) & (draw < gain + loss))


def limit(count, of):
    """A share of which `count` of `of` were counted, and of many studies its upper 99 % limit."""
    error = 2.326 * math.sqrt(max(count, 1) / of * (1 - count / of) / of)
    return count / of + error * (of >= 20_000)


@pytest.mark.parametrize(
    ("freedom", "value"), [(1, 12.7062), (2, 4.3027), (5, 2.5706), (30, 2.0423), (math.inf, 1.9600)]
)
def test_students_quantiles_are_those_of_the_tables(freedom, value):
    assert student_quantile(0.975, freedom) == pytest.approx(value, abs=5e-4)


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
    p = [difference(*predictions(rng, 1000)).p for _ in range(1000)]
    assert 0.025 <= np.mean(np.array(p) < LEVEL) <= 0.06  # an exact test may stay below its level


def counted(studies, seeds, spreads, images, key):
    """How many of so many studies raise a false alarm, and in how many the interval leaves out the truth."""
    rng = np.random.default_rng(key)
    alarms = missed = 0
    for _ in range(studies):
        found = difference(*predictions(rng, images, seeds, spreads))
        alarms += found.p < LEVEL
        missed += not found.low <= 0 <= found.high
    return alarms, missed


CELLS = [(2, (2, 2), 1500), (2, (2, 0.2), 3000), (3, (2, 0.2), 1500), (5, (2, 2), 360)]
GRID = [
    (seeds, (spread, other), images)
    for seeds in (2, 3, 5)
    for spread in (0, 1, 2)
    for other in {spread, spread / 10}  # as unsteady, or a steady one
    for images in (360, 1500, 3000)
]


@pytest.mark.parametrize(
    ("seeds", "spreads", "images"),
    [*CELLS, *(pytest.param(*cell, marks=pytest.mark.slow) for cell in GRID if cell not in CELLS)],
)
def test_several_seeds_without_an_effect_raise_few_false_alarms(seeds, spreads, images):
    """However much seeds differ, and if one experiment is unsteady and the other steady.

    Other experiments of a study have no part in a comparison, so their number has none.
    """
    # The grid has more, since luck moves a share of 5.5 % by 0.7 % in a thousand.
    studies = STUDIES if (seeds, spreads, images) in CELLS else max(STUDIES, 4000)
    alarms, missed = counted(studies, seeds, spreads, images, [1, seeds, images])
    assert limit(alarms, studies) <= 0.065
    assert missed == alarms


@pytest.mark.parametrize(("seeds", "least", "most"), [(2, 0.02, 0.05), (3, 0.025, 0.055), (5, 0.03, 0.06)])
def test_it_is_not_more_careful_than_it_must_be(seeds, least, most):
    """Where seeds differ by much, the level is nearly that of Student's t."""
    alarms, _ = counted(1000, seeds, (3, 3), 1500, [2, seeds])
    assert least <= alarms / 1000 <= most


def test_of_many_idle_tricks_hardly_one_seems_to_do_something():
    rng = np.random.default_rng(3)
    alarms = 0
    for _ in range(200):
        base, *others = predictions(rng, 1500, 3, (0.7,) * 9)
        alarms += min(holm([difference(other, base).p for other in others])) < LEVEL
    assert alarms / 200 <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 200)


def test_welchs_test_by_hand():
    """Two experiments of three seeds on four images, which all err on the same ones."""
    a = np.array([[1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 1]], bool)
    b = np.array([[1, 0, 0, 0], [1, 0, 0, 0], [1, 1, 0, 0]], bool)
    found = difference(a, b)
    assert found.mean == pytest.approx(75 - 100 / 3)
    # Accuracies 75, 50, 100 have the variance 625, and 25, 25, 50 have 208.33.
    assert found.spread.seed == pytest.approx((625 + 208.3333) / 3)
    assert found.spread.freedom == pytest.approx(2 * (625 + 208.3333) ** 2 / (625**2 + 208.3333**2))
    # What a double-centred table of 3 x 4 leaves, over 2 x 3 degrees of freedom and 4 images.
    table = 100 * a.astype(float)
    rest = table - table.mean(0) - table.mean(1)[:, None] + table.mean()
    table_b = 100 * b.astype(float)
    rest_b = table_b - table_b.mean(0) - table_b.mean(1)[:, None] + table_b.mean()
    by_hand = ((rest**2).sum() + (rest_b**2).sum()) / 6 / 4 / 3
    assert found.spread.rest == pytest.approx(by_hand)


def test_the_reach_of_an_interval_by_hand():
    spread = Spread(images=101, seeds=3, image=2.0, seed=3.0, rest=0.5, freedom=4)
    z, t = 1.98397, 2.77645  # of Student's tables, for 100 and 4 degrees of freedom
    assert spread.reach() == pytest.approx((2 * z + 3 * t) / math.sqrt(5), rel=1e-3)
    of_one = 0.4**0.75 * z + (1 - 0.4**0.75) * t
    assert spread.reach(careful=False) == pytest.approx(of_one * math.sqrt(5), rel=1e-3)
    # Seeds that differ less than the images explain do not make it surer than the images do.
    lucky = Spread(images=101, seeds=3, image=2.0, seed=0.01, rest=3.0, freedom=4)
    assert lucky.reach() == pytest.approx(z * math.sqrt(5), rel=1e-3)
    assert lucky.reach(careful=False) == pytest.approx(z * math.sqrt(2.01), rel=0.02)


def test_the_freedom_of_a_lucky_spread_is_not_that_of_the_other_alone():
    """Three seeds that are equally good by luck, each erring on other images, beside three that differ."""
    steady = np.ones((3, 24), bool)
    steady[np.arange(3), np.arange(3)] = False
    unsteady = np.ones((3, 24), bool)
    unsteady[:, :8] = unsteady[1, 8:10] = unsteady[2, 8:14] = False
    found = difference(steady, unsteady)

    def rest(table):
        return table - table.mean(0) - table.mean(1)[:, None] + table.mean()

    table, other = 100 * steady.astype(float), 100 * unsteady.astype(float)
    assert table.mean(1).var(ddof=1) == 0
    lucky = (rest(table) ** 2).sum() / (2 * 23) / 24 / 2  # half of what images make of it
    q = np.var([100 * 16 / 24, 100 * 14 / 24, 100 * 10 / 24], ddof=1)
    assert found.spread.freedom == pytest.approx(2 * (lucky + q) ** 2 / (lucky**2 + q**2))
    assert found.spread.seed == pytest.approx(q / 3)
    x = table - other
    by_images = x.mean(0).var(ddof=1) / 24 - (rest(x) ** 2).sum() / (2 * 23) / 24 / 3
    assert found.spread.image == pytest.approx(by_images)
    assert by_images > 1


def test_seeds_that_are_equally_good_by_luck_are_not_taken_for_sure():
    a, b = np.ones((2, 360), bool), np.ones((2, 360), bool)
    b[0, 0] = b[1, 1] = False
    found = difference(a, b)
    assert found.p > 0.05
    assert found.low < 0 < found.mean < found.high


def test_one_image_is_no_evidence():
    for seeds in (1, 2):
        found = difference(np.ones((seeds, 1), bool), np.zeros((seeds, 1), bool))
        assert found.p == 1


@pytest.mark.parametrize(
    ("pairs", "seeds"),
    [
        *((2, 2), (5, 3)),
        *(pytest.param(*cell, marks=pytest.mark.slow) for cell in ((2, 3), (5, 2), (5, 5), (10, 2), (10, 5))),
    ],
)
def test_a_mean_over_pairs_whose_sides_share_what_seeds_do_raises_few_false_alarms(pairs, seeds):
    """As all of one network may share a seed's first weights, with the trick on one side only."""
    rng, alarms = np.random.default_rng([5, pairs, seeds]), 0
    for _ in range(STUDIES):
        difficulty = rng.normal(2.2, 2, 1500)
        of_side = 2 * rng.normal(0, 1, (2, 1, seeds, 1)) / 100 / 0.115
        chance = np.broadcast_to(1 / (1 + np.exp(-difficulty - of_side)), (2, pairs, seeds, 1500))
        a, b = (rng.random(chance.shape) < chance).mean(1)
        alarms += difference(a, b).p < LEVEL
    assert limit(alarms, STUDIES) <= 0.065


SHARES_RIGHT = {2.2: 2.0, 6.0: 1.5, 8.0: 1.5}  # mean and spread of difficulty; 81, 99.2 and 99.9 % right
COVERED = [(2, 2.0, 360, 2.2), (3, 1.0, 1500, 2.2), (1, 0.0, 360, 6.0), (2, 0.0, 360, 6.0)]
COVERED_GRID = [
    *(
        (seeds, spread, n, 2.2)
        for seeds in (2, 3, 5)
        for spread in (0.0, 1.0, 2.0)
        for n in (360, 1500, 3000)
    ),
    *((seeds, 0.0, images, ease) for seeds in (1, 2, 5) for images in (360, 1500) for ease in SHARES_RIGHT),
]


@pytest.mark.parametrize(
    ("seeds", "spread", "images", "ease"),
    [
        *COVERED,
        *(pytest.param(*cell, marks=pytest.mark.slow) for cell in COVERED_GRID if cell not in COVERED),
    ],
)
def test_intervals_of_accuracies_cover_what_other_seeds_and_images_would_give(seeds, spread, images, ease):
    """Also what all experiments of a seed share, as its validation images: it is in the seeds' spread.

    One seed's interval covers what other images would give.
    """
    rng, found = np.random.default_rng([4, seeds, images]), []
    truth = 100 * np.mean(
        1 / (1 + np.exp(-np.random.default_rng(0).normal(ease, SHARES_RIGHT[ease], 2_000_000)))
    )
    for _ in range(STUDIES):
        points = spread * rng.normal(0, 1, (seeds, 1)) / 100 / 0.115
        chance = 1 / (1 + np.exp(-rng.normal(ease, SHARES_RIGHT[ease], images) - points))
        found.append(accuracy(rng.random(chance.shape) < chance))
    covered = np.mean([estimate.low <= truth <= estimate.high for estimate in found])
    luck = 2.6 * math.sqrt(0.05 * 0.95 / len(found))
    assert covered >= 0.93 - luck
    if spread >= 1:
        assert covered <= 0.97 + luck


def test_where_no_image_is_wrong_the_interval_is_wilsons():
    found = accuracy(np.ones((2, 100), bool))
    assert (found.mean, found.high) == (100, pytest.approx(100))
    assert found.low == pytest.approx(100 * 100 / (100 + 1.96**2), abs=1e-3)  # 96.30
    one = accuracy(np.arange(100)[None] < 90)  # Wilson's by hand: 90 of 100 is 82.56 to 94.48
    assert (one.low, one.high) == (pytest.approx(82.56, abs=0.2), pytest.approx(94.48, abs=0.2))


def test_a_real_effect_is_found_as_often_as_reckoned_by_hand():
    """Of 1,000 images 8 % are won and 5 % lost: 3 points, with a standard error of 1.136 points.

    sqrt((0.13 - 0.03^2) / 1000) = 0.01136, and the normal chance of a z above 1.96 at 3 / 1.136 is 0.752.
    """
    rng = np.random.default_rng(3)
    found = [difference(*pair(rng, 1000, 0.08, 0.05)) for _ in range(800)]
    assert np.mean([estimate.mean for estimate in found]) == pytest.approx(3, abs=0.15)
    assert np.mean([estimate.p < LEVEL for estimate in found]) == pytest.approx(0.752, abs=0.05)
    covered = np.mean([estimate.low <= 3 <= estimate.high for estimate in found])
    assert covered == pytest.approx(0.95, abs=0.02)


def test_the_number_of_images_that_it_takes_is_enough():
    rng = np.random.default_rng(4)
    needed = difference(*pair(rng, 2000, 0.06, 0.04)).images_needed(2.0)
    by_hand = (1.96 + 0.8416) ** 2 * (0.10 - 0.02**2) / 0.02**2
    assert needed == pytest.approx(by_hand, rel=0.15)
    p = [difference(*pair(rng, round(by_hand), 0.06, 0.04)).p for _ in range(500)]
    assert np.mean(np.array(p) < LEVEL) == pytest.approx(0.8, abs=0.06)


def test_the_number_of_seeds_that_it_takes_is_enough():
    rng = np.random.default_rng(5)
    runs = predictions(rng, 2000, 30, (1.0, 1.0))
    needed = difference(*runs).seeds_needed(1.5)
    found = []
    for _ in range(300):
        some = predictions(rng, 2000, round(needed), (1.0, 1.0))
        better = some[0] | (rng.random(some[0].shape) < 0.015 / (1 - some[0].mean()))
        found.append(difference(better, some[1]).p < LEVEL)
    assert 0.7 <= np.mean(found) <= 0.93
    assert math.isnan(difference(*runs[:, :1]).seeds_needed(1.5))  # one seed does not tell


def test_what_no_number_can_show_is_said():
    unsteady = Spread(images=500, seeds=2, image=0.5, seed=4.0, rest=0.5, freedom=2)
    assert not unsteady.of(10**9, 2).shows(1.0)
    rng = np.random.default_rng(6)
    agreed = predictions(rng, 20)[:, 0]
    steady = np.stack([agreed, agreed], axis=1)  # two seeds that make the same predictions
    assert difference(*steady).seeds_needed(0.5) == math.inf


def test_the_same_predictions_are_no_difference():
    a = predictions(np.random.default_rng(8), 50)[0]
    found = difference(a, a)
    assert (found.mean, found.low, found.high, found.p) == (0, 0, 0, 1)


def test_a_mean_over_pairs_is_surer_than_one_pair():
    rng = np.random.default_rng(9)
    a, b, c, d = predictions(rng, 1000, 2, (0.0,) * 4)
    one, mean = difference(a, b), difference(np.mean((a, c), axis=0), np.mean((b, d), axis=0))
    assert mean.mean == pytest.approx((one.mean + difference(c, d).mean) / 2)
    assert mean.high - mean.low < one.high - one.low


@pytest.mark.parametrize("seeds", [1, 3])
def test_likelihoods_raise_no_more_false_alarms_than_they_say(seeds):
    """Losses have long tails; here those of two experiments have the same mean."""
    rng, alarms, studies = np.random.default_rng(0), 0, 1500
    for _ in range(studies):
        hard = rng.gamma(0.3, 1.0, 300)  # what images are
        a, b = (-hard * rng.gamma(2.0, 0.5, (seeds, 300)) for _ in range(2))
        if seeds > 1:
            a, b = (x * (1 + 0.05 * rng.normal(size=(seeds, 1))) for x in (a, b))
        alarms += difference(a, b, unit=1.0).p < LEVEL
    assert alarms / studies < LEVEL + 2.6 * math.sqrt(LEVEL * (1 - LEVEL) / studies)


def test_the_interval_of_a_mean_loss_covers():
    rng, covered, studies = np.random.default_rng(0), 0, 1500
    for _ in range(studies):
        found = mean_figure(rng.gamma(0.5, 1.0, 500) * rng.gamma(2.0, 0.5, (3, 500)))
        covered += found.low <= 0.5 <= found.high
    assert 0.92 < covered / studies < 0.975


def test_units_scale_estimates_and_change_no_p():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 3, 50))
    one, hundred = difference(a, b, unit=1.0), difference(a, b)
    assert hundred.mean == pytest.approx(100 * one.mean)
    assert hundred.p == pytest.approx(one.p)
