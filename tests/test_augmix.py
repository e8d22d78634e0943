"""learning/augmix.py."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from learning.augment import Augment, Shape
from learning.augmix import CHAINS, MILD, AugMix, divergence
from learning.criterion import Criterion
from learning.loss import CrossEntropy
from learning.randaugment import RANGES, TWO_WAYS
from tests.conftest import applied
from tests.test_randaugment import smooth_images, with_pillow
from utils.run.randomness import Draws
from utils.run.transfer import to_device


def uniforms(count):
    return np.random.default_rng(0).random((count, AugMix.columns))


def mixture_by_pillow(image: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """The paper's algorithm on one image, by the numbers that are drawn for it."""
    share, shares, lengths = numbers[0], numbers[1:4], numbers[4:7]
    weights = -np.log(1 - shares)
    weights /= weights.sum()
    mixed = share * image
    for chain in range(3):
        changed = Image.fromarray(image)
        for place in range(1 + int(3 * lengths[chain])):
            start = 7 + 5 * (3 * chain + place)
            which, sign, _, _, strength = numbers[start : start + 5]
            name = MILD[int(which * len(MILD))]
            amount = RANGES[name] * strength * 0.3
            if name in TWO_WAYS and sign < 0.5:
                amount = -amount
            changed = with_pillow(changed, name, amount, (0.5, 0.5))
        mixed = mixed + (1 - share) * weights[chain] * np.asarray(changed, float)
    return mixed


def test_both_mixtures_are_the_papers():
    images, numbers = smooth_images(12, 32), uniforms(12)
    drawn = AugMix().draw(numbers, Shape(32, 32, np.ones(12)))
    views = AugMix().apply(images, to_device(drawn, torch.device("cpu")))
    assert views.dtype == torch.uint8
    assert views.shape == (12, 9, 32, 32)
    assert torch.equal(views[:, :3], images)
    for image, of_image, parts in zip(images, views, numbers.reshape(12, 2, -1), strict=True):
        for ours, part in zip(of_image[3:].split(3), parts, strict=True):
            expected = mixture_by_pillow(image.permute(1, 2, 0).numpy(), part)
            difference = np.abs(ours.permute(1, 2, 0).numpy() - expected)
            # The places that geometric operations round otherwise, as in test_randaugment.py.
            assert (difference > 3).mean() < 0.02


def test_the_draws_have_the_papers_distributions():
    first, second = AugMix().draw(uniforms(4000), Shape(32, 32, np.ones(4000)))
    assert not np.array_equal(first["share"], second["share"])
    assert first["share"].mean() == pytest.approx(0.5, abs=0.02)
    np.testing.assert_allclose(first["weights"].sum(1), 1 - first["share"][:, 0], atol=1e-6)
    parts = first["weights"] / first["weights"].sum(1, keepdims=True)
    # Dirichlet(1, 1, 1): means of 1/3 and variances of 1/18.
    assert parts.mean(0) == pytest.approx([1 / 3] * 3, abs=0.015)
    assert parts.var(0) == pytest.approx([1 / 18] * 3, abs=0.005)
    assert len(first["chains"]) == CHAINS
    for plans in first["chains"]:
        counts = [sum(len(of_kind["chosen"]) for of_kind in plan.values()) / 4000 for plan in plans]
        assert counts == pytest.approx([1, 2 / 3, 1 / 3], abs=0.03)


def test_views_are_drawn_anew_at_each_step():
    images = smooth_images(4, 32)
    assert torch.equal(applied(AugMix(), images), applied(AugMix(), images))
    augment = Augment({"augmix": AugMix()})
    first, second = (augment(images, Draws(0, step)) for step in (0, 1))
    assert torch.equal(first[:, :3], second[:, :3])
    assert not torch.equal(first, second)
    assert augment.views == 3


def test_the_divergence_by_hand():
    same = torch.randn(5, 1, 4).expand(5, 3, 4)
    torch.testing.assert_close(divergence(same), torch.zeros(5), atol=1e-6, rtol=0)
    # Three views, each sure of another class: the mean is even, and every KL is log 3.
    assert divergence(200 * torch.eye(3)[None]).item() == pytest.approx(math.log(3), rel=1e-5)
    logits = torch.randn(2, 3, 4)
    p = logits.softmax(2)
    expected = (p * (p / p.mean(1, keepdim=True)).log()).sum(2).mean(1)
    torch.testing.assert_close(divergence(logits), expected)


def test_the_first_view_counts_and_all_are_to_agree():
    logits, targets = torch.randn(4, 3, 5), torch.eye(5)[:4]
    criterion = Criterion(CrossEntropy(0.1), views=3)
    losses, of_first = criterion(torch.nn.Identity(), logits.flatten(0, 1), targets)
    assert torch.equal(of_first, logits[:, 0])
    expected = CrossEntropy(0.1)(logits[:, 0], targets) + 12 * divergence(logits)
    torch.testing.assert_close(losses, expected)
