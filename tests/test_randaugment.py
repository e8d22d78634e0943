"""learning/randaugment.py against Pillow."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageEnhance, ImageOps
from torch.utils._python_dispatch import TorchDispatchMode

from learning.randaugment import (
    OPERATIONS,
    RANGES,
    TWO_WAYS,
    RandAugment,
    TrivialAugment,
    apply_operations,
    plan_operations,
)
from tests.conftest import applied
from utils.run.transfer import to_device

GEOMETRIC = ("Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY")
WHOLE = ("Equalize", "Invert", "Posterize", "Solarize", "SolarizeAdd", "Cutout")  # computed in whole numbers


def operate(images, operations, amounts, places) -> torch.Tensor:
    """One operation on each image, with what is drawn given."""
    given = map(np.array, (operations, amounts, places))
    return apply_operations(images, to_device(plan_operations(*given, *images.shape[2:]), images.device))


def smooth_images(count: int, size: int) -> torch.Tensor:
    """Images with structure at all scales, some with few or one value: uint8 [count, 3, size, size]."""
    rng = np.random.default_rng(0)
    images = []
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        pixels = np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC), np.float64)
        pixels = pixels * rng.uniform(0.3, 1) + rng.normal(0, 3 * (number % 3), pixels.shape)
        images.append(pixels.clip(0, 255).astype(np.uint8))
    images[0][:] = 77
    images[1][: size // 2], images[1][size // 2 :] = 10, 200
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


def with_pillow(image: Image.Image, name: str, amount: float, place: tuple[float, float]) -> Image.Image:
    width, height = image.size

    def affine(*matrix: float) -> Image.Image:
        return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)

    match name:
        case "AutoContrast":
            return ImageOps.autocontrast(image)
        case "Equalize":
            return ImageOps.equalize(image)
        case "Invert":
            return ImageOps.invert(image)
        case "Posterize":
            return ImageOps.posterize(image, 8 - round(amount))
        case "Solarize":
            return ImageOps.solarize(image, 256 - amount)
        case "SolarizeAdd":
            return image.point([min(x + int(amount), 255) if x < 128 else x for x in range(256)] * 3)
        case "Color" | "Contrast" | "Brightness" | "Sharpness":
            return getattr(ImageEnhance, name)(image).enhance(1 + amount)
        case "Rotate":
            return image.rotate(amount, Image.Resampling.BILINEAR)
        case "ShearX":
            return affine(1, amount, 0, 0, 1, 0)
        case "ShearY":
            return affine(1, 0, 0, amount, 1, 0)
        case "TranslateX":
            return affine(1, 0, amount * width, 0, 1, 0)
        case "TranslateY":
            return affine(1, 0, 0, 0, 1, amount * height)
        case "Cutout":
            side = round(amount * width)
            top, left = (round(part * width - side / 2) for part in place)
            copy = image.copy()
            if side:
                box = (left, top, left + side - 1, top + side - 1)
                ImageDraw.Draw(copy).rectangle(box, fill=(125, 123, 114))
            return copy
    raise AssertionError(name)


@pytest.mark.parametrize("size", [32, 75])
@pytest.mark.parametrize("share", [-1.0, -0.5, 0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("name", OPERATIONS)
def test_each_operation_is_pillows(name, share, size):
    if share < 0 and name not in TWO_WAYS:
        share = -share
    amount = share * RANGES[name]
    images = smooth_images(6, size)
    places = np.random.default_rng(1).random((6, 2))
    ours = operate(images, [name] * 6, [amount] * 6, places)
    assert ours.dtype == torch.uint8
    assert ours.shape == images.shape
    for ours_one, before, place in zip(ours, images, places, strict=True):
        image = Image.fromarray(before.permute(1, 2, 0).numpy())
        expected = np.asarray(with_pillow(image, name, amount, place), int)
        difference = np.abs(ours_one.permute(1, 2, 0).numpy().astype(int) - expected)
        if name in GEOMETRIC:
            # Pillow works with 16 bits of a pixel: a border pixel can fall on the other side.
            assert (difference > 2).mean() < 0.01
        else:
            assert difference.max() <= (name not in WHOLE)


def test_images_of_a_batch_are_treated_apart():
    images = smooth_images(len(OPERATIONS), 32)
    amounts = np.array([0.5 * RANGES[name] for name in OPERATIONS])
    places = np.full((len(OPERATIONS), 2), 0.5)
    together = operate(images, OPERATIONS, amounts, places)
    for i, name in enumerate(OPERATIONS):
        alone = operate(images[i : i + 1], [name], amounts[i : i + 1], places[i : i + 1])
        assert torch.equal(together[i : i + 1], alone)


def test_the_strongest_of_each_operation():
    """At M = 30: degrees, shares of a side, parts of a factor, bits, and levels."""
    geometric = {"Rotate": 30, "ShearX": 0.3, "ShearY": 0.3, "TranslateX": 0.45, "TranslateY": 0.45}
    factors = dict.fromkeys(("Color", "Contrast", "Brightness", "Sharpness"), 0.9)
    others = {"Cutout": 0.2, "Posterize": 4, "Solarize": 256, "SolarizeAdd": 110}
    without = dict.fromkeys(("AutoContrast", "Equalize", "Invert"), 0)
    assert {**geometric, **factors, **others, **without} == RANGES
    assert len(OPERATIONS) == 16


@pytest.mark.parametrize("name", [name for name in OPERATIONS if RANGES[name]])
def test_no_strength_changes_nothing_in_large_images(name):
    images = smooth_images(4, 224)
    assert torch.equal(operate(images, [name] * 4, [0.0] * 4, np.full((4, 2), 0.5)), images)


@pytest.mark.parametrize("name", [name for name in OPERATIONS if RANGES[name]])
def test_strength_grows_with_m_for_every_operation(name):
    """At M=15 the ancestor's Color, Contrast, Brightness and Sharpness did nothing, and its
    Posterize and Solarize grew weaker."""
    images = smooth_images(6, 64)[2:]
    images[3] = torch.arange(64).mul(4).expand(3, 64, 64)  # all levels, so that each threshold matters
    for sign in (-1, 1) if name in TWO_WAYS else (1,):
        changes = []
        for m in (0, 7, 15, 22, 30):
            amounts = np.full(4, sign * RANGES[name] * m / 30)
            changed = operate(images, [name] * 4, amounts, np.full((4, 2), 0.5))
            changes.append((changed.float() - images.float()).abs().mean().item())
        assert changes[0] == 0
        assert all(before < after for before, after in pairwise(changes)), changes


def test_distances_scale_with_the_image():
    for size in (40, 80):
        image = torch.full((1, 3, size, size), 200, dtype=torch.uint8)
        moved = operate(image, ["TranslateX"], [0.45], np.zeros((1, 2)))
        assert (moved[0, 0, 0] == 0).float().mean() == pytest.approx(0.45, abs=0.02)


class Names(TorchDispatchMode):
    """Notes the operations that torch does."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen.add(func._schema.name.partition("::")[2])
        return func(*args, **(kwargs or {}))


def test_nothing_is_a_matrix_product_or_a_convolution():
    """Which a GPU may compute with 10 bits of a number's fraction: no strength would move pixels then."""
    images = smooth_images(64, 32)
    with Names() as names:
        applied(RandAugment(3, 15), images)
    assert "grid_sampler_2d" in names.seen
    products = {"mm", "bmm", "addmm", "baddbmm", "matmul", "convolution", "affine_grid_generator"}
    assert not products & names.seen


def test_every_operation_and_both_directions_occur(monkeypatch):
    seen = {name: [] for name in OPERATIONS}

    def note(operations, amounts, *_):
        for name, amount in zip(operations, amounts, strict=True):
            seen[name].append(amount)
        return {}

    monkeypatch.setattr("learning.randaugment.plan_operations", note)
    images = torch.zeros(1600, 3, 2, 2, dtype=torch.uint8)
    applied(RandAugment(2, 15), images)
    for name, amounts in seen.items():
        assert len(amounts) == pytest.approx(200, abs=5 * np.sqrt(200))
        half = RANGES[name] / 2
        assert set(amounts) == ({-half, half} if name in TWO_WAYS else {half})


def test_the_same_draws_give_the_same_images_and_the_input_stays():
    images = smooth_images(8, 32)
    before = images.clone()
    first = applied(RandAugment(3, 15), images, seed=5)
    assert torch.equal(first, applied(RandAugment(3, 15), images, seed=5))
    assert not torch.equal(first, applied(RandAugment(3, 15), images, seed=6))
    assert torch.equal(images, before)


def test_trivial_augment_draws_one_operation_of_any_strength(monkeypatch):
    shares, calls = [], []

    def note(operations, amounts, *_):
        calls.append(len(operations))
        shares.extend(
            abs(amount) / RANGES[name]
            for name, amount in zip(operations, amounts, strict=True)
            if RANGES[name]
        )
        return {}

    monkeypatch.setattr("learning.randaugment.plan_operations", note)
    applied(TrivialAugment(), torch.zeros(3100, 3, 2, 2, dtype=torch.uint8))
    assert calls == [3100]
    strengths, counts = np.unique(np.round(30 * np.array(shares)), return_counts=True)
    assert strengths.tolist() == list(range(31))
    assert counts == pytest.approx(len(shares) / 31, abs=5 * np.sqrt(len(shares) / 31))


def test_where_a_box_lies_has_nothing_to_do_with_which_operation_it_is(monkeypatch):
    seen = []
    monkeypatch.setattr(
        "learning.randaugment.plan_operations",
        lambda operations, amounts, places, *_: seen.append(places[operations == "Cutout"]) or {},
    )
    applied(RandAugment(1, 15), torch.zeros(4000, 3, 2, 2, dtype=torch.uint8))
    (places,) = seen
    assert places.mean(0) == pytest.approx([0.5, 0.5], abs=0.08)
    assert places.std(0) == pytest.approx([12**-0.5] * 2, abs=0.05)
    assert abs(np.corrcoef(places.T)[0, 1]) < 0.25
