"""learning/augment.py."""

import numpy as np
import pytest
import torch

from learning.augment import Augment, Normalise, flip
from utils.run.randomness import draws_of_step


def random_images(count=64, height=5, width=7):
    pixels = np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


def test_flip_mirrors_about_half_of_the_images():
    images = random_images(1000)
    flipped = flip(images, np.random.default_rng(0))
    mirrored = torch.from_numpy(images.numpy()[..., ::-1].copy())
    is_same = (flipped == images).all((1, 2, 3))
    is_mirrored = (flipped == mirrored).all((1, 2, 3))
    assert (is_same ^ is_mirrored).all()
    assert is_mirrored.float().mean() == pytest.approx(0.5, abs=0.06)


def test_normalise_is_its_formula_in_channels_last_order():
    images = random_images()
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    result = Normalise(mean, std, torch.device("cpu"))(images)
    expected = (images.double() / 255 - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    torch.testing.assert_close(result.double(), expected, rtol=0, atol=1e-6)
    assert result.dtype == torch.float32
    assert result.is_contiguous(memory_format=torch.channels_last)


def test_normalise_takes_any_memory_order():
    images, normalise = random_images(), Normalise((0.5,) * 3, (0.5,) * 3, torch.device("cpu"))
    assert torch.equal(normalise(images), normalise(images.contiguous()))


def test_a_transform_more_does_not_shift_the_draws_of_the_others():
    images = random_images()
    draws = draws_of_step(seed=1, step=2)
    noise = {"noise": lambda images, rng: images.add(int(rng.random()))}
    alone = Augment({"flip": flip})(images, draws)
    assert torch.equal(Augment({**noise, "flip": flip})(images, draws), alone)
    assert not torch.equal(Augment({"flip": flip})(images, draws_of_step(seed=1, step=3)), alone)
