"""utils/run/randomness.py."""

import numpy as np
import torch

from utils.run.randomness import draws_of_step, generator, torch_seed


def test_the_same_key_gives_the_same_numbers_and_any_other_key_others():
    numbers = generator(1, "flip", 2).random(4)
    assert np.array_equal(numbers, generator(1, "flip", 2).random(4))
    for other in (generator(0, "flip", 2), generator(1, "order", 2), generator(1, "flip", 3)):
        assert not np.array_equal(numbers, other.random(4))


def test_nothing_depends_on_global_state():
    np.random.seed(0)
    torch.manual_seed(0)
    first = generator(1, "flip").random(), torch_seed(1, "dropout", 5)
    np.random.seed(1)
    torch.manual_seed(1)
    assert first == (generator(1, "flip").random(), torch_seed(1, "dropout", 5))


def test_a_step_has_an_independent_stream_for_each_purpose():
    draws = draws_of_step(seed=3, step=7)
    assert draws("flip").random() == generator(3, "flip", 7).random()
    draws("mixing").random(100)  # what one purpose draws does not shift another
    assert draws("flip").random() == generator(3, "flip", 7).random()


def test_torch_seeds_fit_torch():
    for index in range(100):
        torch.manual_seed(torch_seed(0, "dropout", index))
