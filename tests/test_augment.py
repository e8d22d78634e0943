"""learning/augment.py and crop.py."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision.transforms as tv2
import torchvision.transforms.v2.functional as tv
from PIL import Image

from learning.augment import (
    Augment,
    Flip,
    Normalise,
    RandomErasing,
    Shape,
    Transform,
    VerticalFlip,
    mapped_places,
)
from learning.crop import CenterCrop, RandomResizedCrop, center_crop
from learning.randaugment import RandAugment, TrivialAugment
from tests.conftest import applied
from utils.data.decode import Frame, decode, look
from utils.run.randomness import Draws


def random_images(count=64, height=5, width=7):
    pixels = np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


def test_flip_mirrors_about_half_of_the_images():
    images = random_images(1000)
    flipped = applied(Flip(), images)
    mirrored = torch.from_numpy(images.numpy()[..., ::-1].copy())
    is_same = (flipped == images).all((1, 2, 3))
    is_mirrored = (flipped == mirrored).all((1, 2, 3))
    assert (is_same ^ is_mirrored).all()
    assert is_mirrored.float().mean() == pytest.approx(0.5, abs=0.06)
    upside_down = applied(VerticalFlip(), images)
    assert torch.equal(upside_down[is_mirrored], images[is_mirrored].flip(-2))  # by the same draws


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
    images, draws = random_images(), Draws(seed=1, step=2)

    class Nothing(Transform):
        columns = 1

        def draw(self, uniforms, shape):
            return uniforms

        def apply(self, images, drawn):
            return images

    flips = {"flip": Flip()}
    alone = Augment(flips)(images, draws)
    assert torch.equal(Augment({"nothing": Nothing(), **flips})(images, draws), alone)
    assert not torch.equal(Augment(flips)(images, Draws(seed=1, step=3)), alone)


EVERY = {
    "crop": RandomResizedCrop(12),
    "flip": Flip(),
    "vertical_flip": VerticalFlip(),
    "randaugment": RandAugment(2, 15),
    "trivial_augment": TrivialAugment(),
    "random_erasing": RandomErasing(0.5, (9, 8, 7)),
}


def test_transforms_one_after_the_other_do_what_each_does_alone():
    """Drawing all at first, and copying what is drawn at once, changes nothing; sizes follow the crop."""
    images, draws = random_images(16, 20, 20), Draws(seed=1, step=2)
    together, one_by_one = Augment(EVERY)(images, draws), images
    for stream, transform in EVERY.items():
        one_by_one = Augment({stream: transform})(one_by_one, draws)
    assert together.shape == (16, 3, 12, 12)
    assert torch.equal(together, one_by_one)


@pytest.mark.parametrize("stream", EVERY)
def test_what_happens_to_an_image_depends_on_its_place_in_the_whole_batch_alone(stream):
    """Neither on how many there are nor on which process holds it."""
    images, aspects = random_images(20, 20, 20), np.linspace(0.5, 2, 20)
    augment = Augment({stream: EVERY[stream]})
    whole = augment(images, Draws(1, 2), aspects)
    fewer = augment(images[:13], Draws(1, 2), aspects[:13])
    part = augment(images[7:13], Draws(1, 2, np.arange(7, 13)), aspects[7:13])
    torch.testing.assert_close(fewer.int(), whole[:13].int(), rtol=0, atol=1)
    torch.testing.assert_close(part.int(), whole[7:13].int(), rtol=0, atol=1)
    moved = augment(images[:6], Draws(1, 2, np.arange(7, 13)), aspects[:6])
    assert not torch.equal(moved, augment(images[:6], Draws(1, 2), aspects[:6]))


def test_places_are_those_of_torch():
    maps = torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(0))
    expected = F.affine_grid(maps, [4, 3, 5, 7], align_corners=False)
    torch.testing.assert_close(mapped_places(maps, 5, 7), expected)


def test_center_crop_takes_the_middle():
    images = random_images(2, 8, 9)
    expected = images[:, :, 2:6, 2:6]
    assert torch.equal(center_crop(images, 4), expected)
    assert torch.equal(applied(CenterCrop(4), images), expected)
    assert torch.equal(center_crop(images, 8), images[..., :8])


def boxes_of_torchvision(width, height, count):
    """What its transform draws for images of so many pixels: [count, 4] of top, left, height and width."""
    torch.manual_seed(0)
    image = torch.zeros(1, 1, 1).expand(1, height, width)
    return np.array(
        [tv2.RandomResizedCrop.get_params(image, (0.08, 1.0), (3 / 4, 4 / 3)) for _ in range(count)]
    ) / np.array([height, width, height, width])


@pytest.mark.parametrize(("width", "height"), [(1600, 1200), (900, 1600), (1000, 1000), (4000, 1000)])
def test_the_boxes_of_random_crops_are_drawn_as_torchvisions(width, height):
    """Every tenth of each of their figures, within five standard errors; (4000, 1000) often fits none."""
    count = 4000
    crop = RandomResizedCrop(24)
    shape = Shape(48, 48, np.full(count, width / height))
    ours = crop.draw(np.random.default_rng(0).random((count, crop.columns)), shape).astype(float)
    theirs = boxes_of_torchvision(width, height, count)
    assert (ours[:, :2] >= 0).all()
    assert (ours[:, :2] + ours[:, 2:] <= 1 + 1e-6).all()
    figures = {
        "top": lambda boxes: boxes[:, 0],
        "left": lambda boxes: boxes[:, 1],
        "height": lambda boxes: boxes[:, 2],
        "width": lambda boxes: boxes[:, 3],
        "area": lambda boxes: boxes[:, 2] * boxes[:, 3],
        "aspect": lambda boxes: boxes[:, 3] / boxes[:, 2],
        "middle": lambda boxes: boxes[:, 0] + boxes[:, 2] / 2,
    }
    for name, figure in figures.items():
        shares = np.linspace(0.1, 0.9, 9)
        tenths = np.quantile(figure(theirs), shares) + 1e-3  # whole pixels make steps
        found = (figure(ours)[:, None] <= tenths).mean(0)
        expected = (figure(theirs)[:, None] <= tenths).mean(0)
        assert np.abs(found - expected).max() < 5 * 0.5 * np.sqrt(2 / count), name


def test_a_random_crop_of_a_whole_image_is_pillows_resize():
    """Of large boxes every pixel counts, not only those near the output's."""
    images = random_images(3, 100, 100)
    whole = torch.tensor([[0.0, 0.0, 1.0, 1.0]]).expand(3, 4)
    for size in (24, 100, 130):
        crops = RandomResizedCrop(size).apply(images, whole)
        expected = [
            np.asarray(Image.fromarray(image.permute(1, 2, 0).numpy()).resize((size, size), Image.BILINEAR))
            for image in images
        ]
        error = (crops.permute(0, 2, 3, 1).int() - torch.from_numpy(np.stack(expected)).int()).abs()
        assert error.max() <= 1


def test_a_random_crop_is_torchvisions_of_the_same_box():
    """In whole pixels, of images that are not squeezed, both where it shrinks and where it enlarges."""
    images = F.interpolate(random_images(8, 6, 6).float(), 48, mode="bicubic").clamp(0, 255).to(torch.uint8)
    for top, left, height, width in ((0, 0, 48, 48), (5, 9, 30, 20), (40, 0, 8, 48), (47, 47, 1, 1)):
        boxes = torch.tensor([[top, left, height, width]]).expand(8, 4) / 48
        crops = RandomResizedCrop(24).apply(images, boxes)
        assert crops.shape == (8, 3, 24, 24)
        expected = tv.resized_crop(images, top, left, height, width, [24, 24], antialias=True)
        assert (crops.int() - expected.int()).abs().max() <= 1


@pytest.mark.parametrize("aspect", [0.001, 1000.0])
def test_a_very_long_image_has_crops_of_at_least_a_pixel(aspect):
    images = random_images(50, 16, 16)
    crops = applied(RandomResizedCrop(8), images, aspects=np.full(50, aspect))
    assert crops.shape == (50, 3, 8, 8)
    assert crops.float().std() > 10


SHAPES = ((1, 1), (2 / 3, 1), (1, 2 / 3))  # shares of a photograph's width and height


@pytest.mark.parametrize(("size", "frame_size", "most"), [(64, 128, 2.5), (64, 192, 1.6), (128, 256, 2)])
def test_crops_of_photographs_are_torchvisions_though_they_are_stored_squeezed(
    tmp_path, size, frame_size, most
):
    """Of 200 photographs, some upright and some wide: within a level or two on average.

    The first of these frames has fewer pixels than the photographs, and loses detail.
    """
    if "SCENES_DIR" not in os.environ:
        pytest.skip("needs photographs: SCENES_DIR=<folder>")
    files = sorted(Path(os.environ["SCENES_DIR"]).rglob("*.jpg"))[::7][:200]
    assert len(files) == 200
    rng, crop, errors = np.random.default_rng(0), RandomResizedCrop(size), []
    for number, file in enumerate(files):
        with Image.open(file) as opened:
            width, height = (round(x * y) for x, y in zip(opened.size, SHAPES[number % 3], strict=True))
            image = opened.convert("RGB").crop((0, 0, width, height))
        image.save(tmp_path / "image.png")
        seen = look(tmp_path / "image.png")
        shape = Shape(frame_size, frame_size, np.array([seen.width / seen.height]))
        ((top, left, high, wide),) = crop.draw(rng.random((1, crop.columns)), shape).astype(float)
        # Boxes of whole pixels, as torchvision has them.
        high, wide = max(round(high * height), 1), max(round(wide * width), 1)
        top, left = min(round(top * height), height - high), min(round(left * width), width - wide)
        theirs = tv.resized_crop(tv.pil_to_tensor(image), top, left, high, wide, [size, size], antialias=True)
        box = torch.tensor([[top / height, left / width, high / height, wide / width]])
        frame = decode(tmp_path / "image.png", Frame(frame_size, fine=True))
        ours = crop.apply(torch.from_numpy(frame.copy()).permute(2, 0, 1)[None], box)
        errors.append((ours[0].int() - theirs.int()).abs().float().mean().item())
    assert np.mean(errors) < most


def test_random_erasing_fills_a_box_in_a_share_of_the_images():
    images = torch.zeros(2000, 3, 40, 30, dtype=torch.uint8)
    erased = applied(RandomErasing(0.3, (9, 8, 7)), images)
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
    assert torch.equal(applied(RandomErasing(0, (9, 8, 7)), images), images)


def test_one_normalisation_after_another():
    images = random_images()
    cpu = torch.device("cpu")
    ours, theirs = Normalise((0.5, 0.4, 0.3), (0.2, 0.3, 0.4), cpu), Normalise((0.1,) * 3, (0.7,) * 3, cpu)
    torch.testing.assert_close(theirs.after(ours)(ours(images)), theirs(images), rtol=1e-5, atol=1e-5)
