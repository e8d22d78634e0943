"""learning/mixing.py."""

import numpy as np
import pytest
import torch

from learning.mixing import Mixing, cutmix, mixup


class FixedBeta:
    """A generator whose Beta draws are one given number."""

    def __init__(self, lam: float, integers=()):
        self.lam = lam
        self._integers = iter(integers)

    def beta(self, a, b):
        return self.lam

    def integers(self, high):
        return next(self._integers)


def batch(count=4, height=8, width=12, classes=4):
    """Image i is all i; its label is i."""
    images = torch.arange(count).float()[:, None, None, None].expand(-1, 3, height, width).contiguous()
    return images, torch.eye(classes)[:count]


def test_mixup_by_hand():
    images, targets = batch()
    mixed, soft = mixup(images, targets, 0.2, FixedBeta(0.75))
    assert mixed[0].unique().tolist() == [0.25]  # 0.75 * 0 + 0.25 * 1
    assert mixed[3].unique().tolist() == [2.25]  # 0.75 * 3 + 0.25 * 0
    assert soft[0].tolist() == [0.75, 0.25, 0, 0]
    assert soft[3].tolist() == [0.25, 0, 0, 0.75]


def test_mixup_draws_lambda_from_beta():
    images, targets = batch(2)
    shares = [
        mixup(images, targets, 0.4, np.random.default_rng(seed))[1].max().item() for seed in range(2000)
    ]
    lam = np.random.default_rng(0).beta(0.4, 0.4, 100000)
    assert np.mean(shares) == pytest.approx(np.maximum(lam, 1 - lam).mean(), abs=0.01)


def test_cutmix_by_hand_on_a_batch_that_is_not_square():
    images, targets = batch()  # 8 high, 12 wide
    # lambda 3/4: half of each side. The centre (row 2, column 9) makes rows 0-3, columns 6-11.
    mixed, soft = cutmix(images, targets, 1.0, FixedBeta(0.75, [2, 9]))
    expected = torch.zeros(8, 12)
    expected[0:4, 6:12] = 1
    assert torch.equal(mixed[0, 0], expected)
    assert soft[0].tolist() == [0.75, 0.25, 0, 0]


def test_cutmix_corrects_lambda_to_the_pasted_pixels():
    images, targets = batch()
    # The centre in the corner leaves a quarter of the box: rows 0-1, columns 0-2, 6 of 96 pixels.
    mixed, soft = cutmix(images, targets, 1.0, FixedBeta(0.75, [0, 0]))
    assert int((mixed[0, 0] == 1).sum()) == 6
    assert soft[0].tolist() == [1 - 6 / 96, 6 / 96, 0, 0]


@pytest.mark.parametrize("seed", range(20))
def test_cutmix_labels_are_the_shares_of_pixels(seed):
    images, targets = batch()
    mixed, soft = cutmix(images, targets, 1.0, np.random.default_rng(seed))
    for image, label in zip(mixed, soft, strict=True):
        shares = torch.bincount(image[0].flatten().long(), minlength=4) / 96
        torch.testing.assert_close(label, shares)


@pytest.mark.parametrize("method", [mixup, cutmix])
def test_a_part_of_a_batch_is_mixed_as_in_the_whole_with_one_image_beside_its_own(method):
    images, targets = batch(8, classes=8)
    whole = method(images, targets, 1.0, np.random.default_rng(5))
    part = method(images[2:6], targets[2:6], 1.0, np.random.default_rng(5))
    for of_part, of_whole in zip(part, whole, strict=True):
        assert torch.equal(of_part[:3], of_whole[2:5])
    assert not torch.equal(whole[1], targets)


def test_the_input_is_left_alone():
    for method in (mixup, cutmix):
        images, targets = batch()
        before = images.clone(), targets.clone()
        method(images, targets, 1.0, np.random.default_rng(3))
        assert torch.equal(images, before[0])
        assert torch.equal(targets, before[1])


def kind(mixing, seed: int) -> str:
    """What a mixing did to a batch: nothing, MixUp (blended values) or CutMix (whole values)."""
    images, targets = batch(16, 32, 32, 16)
    mixed, soft = mixing(images, targets, np.random.default_rng(seed))
    torch.testing.assert_close(soft.sum(1), torch.ones(16))
    if torch.equal(mixed, images):
        return "plain"
    return "cutmix" if torch.equal(mixed, mixed.round()) else "mixup"


@pytest.mark.parametrize(
    ("flags", "shares"),
    [
        ((0.2, 0, 0), {"mixup": 1}),
        ((0, 1, 1), {"cutmix": 1}),
        ((0, 1, 0.5), {"cutmix": 0.5, "plain": 0.5}),  # below 1 there was no plain branch
        ((0.2, 1, 1), {"mixup": 0.5, "cutmix": 0.5}),  # both were stacked on one batch
    ],
)
def test_at_most_one_method_a_batch(flags, shares):
    kinds = [kind(Mixing(*flags), seed) for seed in range(400)]
    for name in ("plain", "mixup", "cutmix"):
        # A draw can leave a batch as it was: lambda near 1, or a box of no pixels.
        assert kinds.count(name) / 400 == pytest.approx(shares.get(name, 0), abs=0.09)


def test_without_an_alpha_or_a_probability_nothing_is_mixed():
    images, targets = batch()
    for flags in ((0, 0, 0), (0, 1, 0)):
        mixing = Mixing(*flags)
        assert mixing.methods == []
        assert mixing(images, targets, np.random.default_rng(0)) == (images, targets)
