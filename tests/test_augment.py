"""learning/augment.py."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision.transforms.v2.functional as tv

from learning.augment import (
    Augment,
    CenterCrop,
    Flip,
    Normalise,
    RandomErasing,
    RandomResizedCrop,
    Transform,
    center_crop,
    mapped_places,
    random_boxes,
)
from learning.randaugment import RandAugment
from utils.run.randomness import draws_of_step


def random_images(count=64, height=5, width=7):
    pixels = np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


def test_flip_mirrors_about_half_of_the_images():
    images = random_images(1000)
    flipped = Flip()(images, np.random.default_rng(0))
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

    class Nothing(Transform):
        def draw(self, rng, count, height, width):
            return rng.random(count)

        def apply(self, images, drawn):
            return images

    flips = {"flip": Flip()}
    alone = Augment(flips)(images, draws)
    assert torch.equal(Augment({"nothing": Nothing(), **flips})(images, draws), alone)
    assert not torch.equal(Augment(flips)(images, draws_of_step(seed=1, step=3)), alone)


def test_transforms_one_after_the_other_do_what_each_does_alone():
    """Drawing all at first, and copying what is drawn at once, changes nothing; sizes follow the crop."""
    images = random_images(16, 20, 20)
    transforms = {
        "crop": RandomResizedCrop(12),
        "flip": Flip(),
        "randaugment": RandAugment(2, 15),
        "random_erasing": RandomErasing(1, (9, 8, 7)),
    }
    draws = draws_of_step(seed=1, step=2)
    together, one_by_one = Augment(transforms)(images, draws), images
    for stream, transform in transforms.items():
        one_by_one = transform(one_by_one, draws(stream))
    assert together.shape == (16, 3, 12, 12)
    assert torch.equal(together, one_by_one)


def test_places_are_those_of_torch():
    maps = torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(0))
    expected = F.affine_grid(maps, [4, 3, 5, 7], align_corners=False)
    torch.testing.assert_close(mapped_places(maps, 5, 7), expected)


def test_center_crop_takes_the_middle():
    images = random_images(2, 8, 9)
    expected = images[:, :, 2:6, 2:6]
    assert torch.equal(center_crop(images, 4), expected)
    assert torch.equal(CenterCrop(4)(images, np.random.default_rng(0)), expected)
    assert torch.equal(center_crop(images, 8), images[..., :8])


def test_random_boxes_have_the_areas_and_aspects_asked_for_and_lie_inside():
    top, left, height, width = random_boxes(np.random.default_rng(0), 5000, (0.1, 0.4), (0.5, 2.0)).T
    area, aspect = height * width, width / height
    assert (np.stack((top, left)) >= 0).all()
    assert (np.stack((top + height, left + width)) <= 1 + 1e-12).all()
    assert (area.min(), area.max()) == pytest.approx((0.1, 0.4), abs=0.01)
    assert area.mean() == pytest.approx(0.25, abs=0.01)
    assert (aspect.min(), aspect.max()) == pytest.approx((0.5, 2.0), abs=0.02)
    assert (aspect > 1).mean() == pytest.approx(0.5, abs=0.03)  # log-uniform
    for start, side in ((left, width), (top, height)):
        assert (start / (1 - side)).mean() == pytest.approx(0.5, abs=0.02)


def test_a_random_resized_crop_is_torchvisions_of_the_same_boxes():
    images = F.interpolate(random_images(8, 6, 6).float(), 48, mode="bicubic").clamp(0, 255).to(torch.uint8)
    crops = RandomResizedCrop(24)(images, np.random.default_rng(3))
    assert crops.shape == (8, 3, 24, 24)
    boxes = random_boxes(np.random.default_rng(3), 8, (0.08, 1.0), (3 / 4, 4 / 3))
    for image, crop, (top, left, height, width) in zip(images, crops, boxes * 48, strict=True):
        # The oracle magnifies so much that its whole pixels hit the fractional box.
        large = F.interpolate(image[None].float(), 48 * 8, mode="bilinear", align_corners=False)
        sides = [round(8 * side) for side in (top, left, height, width)]
        expected = tv.resized_crop(large, *sides, [24, 24], antialias=False)
        assert (crop - expected).abs().mean() < 3


def test_random_erasing_fills_a_box_in_a_share_of_the_images():
    images = torch.zeros(2000, 3, 40, 30, dtype=torch.uint8)
    erased = RandomErasing(0.3, (9, 8, 7))(images, np.random.default_rng(0))
    touched = (erased != 0).any(1)
    chosen = touched.any((1, 2))
    assert chosen.float().mean() == pytest.approx(0.3, abs=0.03)
    areas = touched[chosen].float().mean((1, 2))
    assert areas.mean() == pytest.approx(0.21, abs=0.02)
    assert areas.max() <= 0.43
    for axis, length in ((2, 40), (1, 30)):
        lines = touched[chosen].any(axis).float()
        centres = (lines * torch.arange(0.5, length)).sum(1) / lines.sum(1)
        assert centres.mean() == pytest.approx(length / 2, abs=0.06 * length)
        assert centres.std() > 0.1 * length
    one = erased[chosen][0]
    rows, columns = touched[chosen][0].any(1), touched[chosen][0].any(0)
    assert (one[:, rows][:, :, columns] == torch.tensor([9, 8, 7])[:, None, None]).all()  # a full box
    assert torch.equal(RandomErasing(0, (9, 8, 7))(images, np.random.default_rng(0)), images)


def test_one_normalisation_after_another():
    images = random_images()
    cpu = torch.device("cpu")
    ours, theirs = Normalise((0.5, 0.4, 0.3), (0.2, 0.3, 0.4), cpu), Normalise((0.1,) * 3, (0.7,) * 3, cpu)
    torch.testing.assert_close(theirs.after(ours)(ours(images)), theirs(images), rtol=1e-5, atol=1e-5)
