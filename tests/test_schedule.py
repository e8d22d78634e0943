"""learning/schedule.py."""

import math
from itertools import pairwise

import pytest

from learning.schedule import lr_factor

DECAY_TYPES = ("step", "step_warmup", "cosine_warmup", "linear_warmup")
MILESTONES = (30, 60, 90)


def factors(decay_type, epochs=120, steps_per_epoch=10, warmup_epochs=5.0, milestones=MILESTONES):
    return [
        lr_factor(
            step,
            steps_per_epoch=steps_per_epoch,
            epochs=epochs,
            decay_type=decay_type,
            warmup_epochs=warmup_epochs,
            milestones=milestones,
        )
        for step in range(epochs * steps_per_epoch)
    ]


@pytest.mark.parametrize("decay_type", DECAY_TYPES)
def test_the_first_step_already_learns(decay_type):
    assert factors(decay_type)[0] > 0


@pytest.mark.parametrize("decay_type", ["step", "step_warmup"])
def test_drops_fall_on_the_milestones_with_and_without_warmup(decay_type):
    values = factors(decay_type)
    drops = [step for step in range(60, 1200) if values[step] < values[step - 1] * 0.99]
    assert drops == [300, 600, 900]
    assert values[299] == 1
    assert values[300] == pytest.approx(0.1)
    assert values[1199] == pytest.approx(0.001)


def test_cosine_starts_after_the_warmup_and_reaches_its_floor_one_step_after_the_last():
    values = factors("cosine_warmup")
    assert values[49] == values[50] == 1
    # Of the 1,150 steps from the warm-up on, the last is one from the floor, and trains.
    assert values[-1] == pytest.approx((1 - math.cos(math.pi / 1150)) / 2)
    assert values[-1] > 0
    assert values[625] == pytest.approx(0.5, abs=1e-6)  # half-way between step 50 and step 1200
    assert all(after < before for before, after in pairwise(values[50:]))


@pytest.mark.parametrize("epochs", range(1, 10))
@pytest.mark.parametrize("decay_type", DECAY_TYPES)
@pytest.mark.parametrize("steps_per_epoch", [1, 7])
def test_few_epochs_work(epochs, decay_type, steps_per_epoch):
    values = factors(
        decay_type, epochs, steps_per_epoch, epochs / 10, [epochs * x for x in (0.25, 0.5, 0.75)]
    )
    assert all(0 <= value <= 1 and math.isfinite(value) for value in values)
    assert values[0] > 0


def test_milestones_and_warmup_are_what_they_are_told():
    values = factors("step_warmup", epochs=8, steps_per_epoch=4, warmup_epochs=2, milestones=[3, 6])
    assert values == pytest.approx(
        [1 / 8, 2 / 8, 3 / 8, 4 / 8, 5 / 8, 6 / 8, 7 / 8, 1, 1, 1, 1, 1, *[0.1] * 12, *[0.01] * 8]
    )


def test_warmup_moves_at_every_step():
    values = factors("step_warmup")
    assert values[:50] == pytest.approx([(step + 1) / 50 for step in range(50)])


def test_without_a_warmup_the_cosine_starts_at_one():
    values = factors("cosine_warmup", epochs=1, steps_per_epoch=5, warmup_epochs=0)
    assert values == pytest.approx([(1 + math.cos(math.pi * step / 5)) / 2 for step in range(5)])


def test_an_unknown_decay_type_is_refused():
    with pytest.raises(ValueError, match="linear"):
        factors("linear")


def test_a_linear_decay_by_hand():
    values = factors("linear_warmup", epochs=10, warmup_epochs=1, milestones=())
    assert values[9] == values[10] == 1
    assert values[55] == pytest.approx(0.5)  # half of the 90 steps after the warm-up of 10
    assert values[99] == pytest.approx(1 / 90)
