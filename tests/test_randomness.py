"""utils/run/randomness.py."""

import numpy as np
import torch

from utils.run.randomness import Draws, generator, torch_seed


def test_the_same_key_gives_the_same_numbers_and_any_other_key_others():
    numbers = generator(1, "flip", 2).random(4)
    assert np.array_equal(numbers, generator(1, "flip", 2).random(4))
    for other in (generator(0, "flip", 2), generator(1, "order", 2), generator(1, "flip", 3)):
        assert not np.array_equal(numbers, other.random(4))


def test_nothing_depends_on_global_state():
    np.random.seed(0)
    torch.manual_seed(0)
    first = generator(1, "flip").random(), torch_seed(1, "weights")
    np.random.seed(1)
    torch.manual_seed(1)
    assert first == (generator(1, "flip").random(), torch_seed(1, "weights"))


def test_a_step_has_an_independent_stream_for_each_purpose():
    draws = Draws(seed=3, step=7)
    assert draws.of_step("mixing").random() == generator(3, "mixing", 7).random()
    draws.of_step("flip").random(100)  # what one purpose draws does not shift another
    assert draws.of_step("mixing").random() == generator(3, "mixing", 7).random()


def test_the_numbers_of_a_place_depend_on_nothing_but_seed_step_and_place():
    whole = Draws(seed=3, step=7).of_places("flip", 10, 3)
    assert np.array_equal(Draws(3, 7).of_places("flip", 4, 3), whole[:4])
    assert np.array_equal(Draws(3, 7, np.array([6, 8, 9])).of_places("flip", 3, 3), whole[[6, 8, 9]])
    assert len(np.unique(whole)) == 30
    for other in (Draws(3, 8), Draws(4, 7)):
        assert not np.isin(other.of_places("flip", 10, 3), whole).any()


def test_torch_seeds_fit_torch():
    for seed in range(100):
        torch.manual_seed(torch_seed(seed, "weights"))
