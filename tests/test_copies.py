"""utils/data/copies.py and near.py: images that are there more than once."""

import io
import os
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageEnhance

from tests.conftest import SMALL
from tests.test_bad_input import data  # noqa: F401
from tests.test_images import never
from utils.data import near
from utils.data.copies import Copies, find_copies, joined, leaks, under_two_labels
from utils.data.decode import THUMBNAIL_SIDE, look
from utils.data.folders import Dataset, find_dataset
from utils.data.looks import look_at
from utils.data.near import near_pairs
from utils.data.scenes import PAINTERS, draw_scene

CPU = torch.device("cpu")


def copies_in(root, cache):
    """The pairs with their similarity; and the leaks: a test image, another, whether it is that."""
    dataset = find_dataset(root, seed=42)
    looks = look_at(dataset, cache, never)
    found = find_copies(dataset, looks, cache, CPU, never)
    names = dataset.files
    pairs = [
        (names[a], names[b], float(similarity))
        for (a, b), similarity in zip(found.images, found.similarity, strict=True)
    ]
    told = zip(*leaks(found, dataset, "test", ("train", "val")), strict=True)
    return pairs, [(names[test], names[other], bool(same)) for test, other, same in told]


def pairs_of(images: list[Image.Image]):
    """The pairs that are found when images are saved without loss."""
    looks = []
    for image in images:
        file = io.BytesIO()
        image.save(file, "PNG", compress_level=1)
        path = SimpleNamespace(name="a.png", read_bytes=file.getvalue, stat=lambda: os.stat(__file__))
        looks.append(look(path))
    return near_pairs(
        np.stack([seen.thumbnail for seen in looks]), np.array([seen.colour for seen in looks]), CPU, never
    )


def cut(image, rng, most):
    width, height = image.size
    left, top, right, bottom = (rng.uniform(0, most, 4) * (width, height, width, height)).round()
    return image.crop((left, top, width - right, height - bottom))


def saved(image, quality=50):
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


CHANGES = {
    "as a JPEG of low quality": lambda image, rng: saved(image, 40),
    "half as large": lambda image, rng: image.resize((image.width // 2, image.height // 2)),
    "of another shape": lambda image, rng: image.resize((2 * image.width, image.height)),
    "brighter": lambda image, rng: ImageEnhance.Brightness(image).enhance(1.3),
    "darker": lambda image, rng: ImageEnhance.Brightness(image).enhance(0.6),
    "of more contrast": lambda image, rng: ImageEnhance.Contrast(image).enhance(1.4),
    "cut": lambda image, rng: cut(image, rng, 0.1),
    "all of it": lambda image, rng: saved(
        ImageEnhance.Brightness(cut(image, rng, 0.1)).enhance(1.2).resize((101, 97))
    ),
}


@pytest.fixture(scope="module")
def scenes() -> list[Image.Image]:
    return [
        draw_scene(name, np.random.default_rng((number, len(name))))
        for name in PAINTERS
        for number in range(50)
    ]


@pytest.fixture(scope="module")
def photographs() -> list[Image.Image]:
    if "SCENES_DIR" not in os.environ:
        pytest.skip("SCENES_DIR names no real photographs")
    files = sorted(Path(os.environ["SCENES_DIR"]).rglob("*.jpg"))
    return [Image.open(file).convert("RGB") for file in files]


def found_again(images, change) -> tuple[float, int]:
    """The share of changed images that are found, and how many pairs of different ones are."""
    rng = np.random.default_rng(0)
    count = len(images)
    changed = [CHANGES[change](image, rng) for image in images]
    pairs = pairs_of([*images, *changed]).images
    right = (pairs[:, 1] - pairs[:, 0] == count).sum()
    return right / count, len(
        {tuple(sorted(pair)) for pair in (pairs % count).tolist() if pair[0] != pair[1]}
    )


@pytest.mark.parametrize("change", CHANGES)
def test_changed_scenes_are_found_and_different_ones_are_not(scenes, change):
    share, wrong = found_again(scenes, change)
    assert share >= 0.96
    assert wrong == 0


@pytest.mark.parametrize("change", CHANGES)
def test_changed_photographs_are_found_and_different_ones_are_not(photographs, change):
    """Of the 1.2 million pairs one is a burst, of a glacier that calves."""
    share, wrong = found_again(photographs, change)
    assert share >= 0.97
    assert wrong <= 1


def test_images_of_one_colour_or_of_the_same_shape_in_another_are_like_no_others():
    plain = [Image.new("RGB", (50, 50), colour) for colour in ("black", "black", "white", "red", "red")]
    assert pairs_of(plain).images.tolist() == []
    assert pairs_of(plain[:1]).images.tolist() == []
    signs = [draw_sign(*colours) for colours in (("red", "white"), ("green", "white"), ("red", "yellow"))]
    assert pairs_of([*signs, draw_sign("red", "white").resize((80, 80))]).images.tolist() == [[0, 3]]


def draw_sign(front, back):
    image = Image.new("RGB", (100, 100), back)
    draw = ImageDraw.Draw(image)
    draw.ellipse((10, 15, 90, 85), front)
    draw.rectangle((30, 45, 75, 60), back)
    return image


def test_pairs_are_the_same_in_any_blocks_and_order(scenes, monkeypatch):
    images = [*scenes, *map(saved, scenes[:100])]
    expected = pairs_of(images)
    assert expected.images.tolist() == [[number, len(scenes) + number] for number in range(100)]
    monkeypatch.setattr(near, "BLOCK", 37)
    monkeypatch.setattr(near, "OTHERS", 53)
    again = pairs_of(images)
    assert np.array_equal(again.images, expected.images)
    np.testing.assert_allclose(again.similarity, expected.similarity, atol=1e-5)
    turned = pairs_of(images[::-1]).images
    assert sorted((len(images) - 1 - turned[:, ::-1]).tolist()) == expected.images.tolist()


def test_many_that_are_alike_do_not_make_pairs_without_end(scenes):
    images = [saved(scenes[0], quality) for quality in range(40, 90)] * 6
    pairs = pairs_of(images).images
    assert len(pairs) <= near.MOST_CANDIDATES * len(images)
    assert len({*pairs.flatten().tolist()}) == len(images)


def test_comparing_can_be_stopped():
    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        near_pairs(np.zeros((9, THUMBNAIL_SIDE, THUMBNAIL_SIDE), np.uint8), np.zeros((9, 2)), CPU, stop)


def test_only_the_same_bytes_are_copies(data, scenes, tmp_path):  # noqa: F811
    folder = data / "train/plain"
    for name in ("train/plain/twice.png", "train/stripes/again.png"):
        shutil.copy(folder / "000.png", data / name)
    scenes[0].save(data / "train/circle/scene.bmp")
    content = bytearray((data / "train/circle/scene.bmp").read_bytes())
    content[2000] ^= 1  # as long, with the same end
    (data / "test/circle/other.bmp").write_bytes(content)
    pairs, told = copies_in(data, tmp_path / "cache")
    exact = [pair for pair in pairs if pair[2] == 1]
    assert exact == [
        ("train/plain/000.png", "train/plain/twice.png", 1),
        ("train/plain/000.png", "train/stripes/again.png", 1),
    ]
    (almost,) = [pair for pair in pairs if pair[0] == "train/circle/scene.bmp"]
    assert almost[1] == "test/circle/other.bmp"
    assert 0.99 < almost[2] < 1
    assert ("test/circle/other.bmp", "train/circle/scene.bmp", False) in told
    assert not any(same for *_, same in told)


def test_copies_grow_with_their_number_and_not_with_its_square(data, tmp_path):  # noqa: F811
    for split in ("train", "test"):
        for number in range(300):
            os.link(data / "train/plain/000.png", data / split / f"plain/copy{number}.png")
    pairs, told = copies_in(data, tmp_path / "cache")
    assert len([pair for pair in pairs if pair[2] == 1]) == 600
    exact = {test: other for test, other, same in told if same}
    assert exact == {f"test/plain/copy{number}.png": "train/plain/000.png" for number in range(300)}


def test_copies_of_copies_are_told_each(data, scenes, tmp_path):  # noqa: F811
    """Of which only the first of the same bytes, and the nearest, are compared."""
    scenes[0].save(data / "train/circle/a.png")
    for number in range(7):
        scenes[0].resize((60, 60)).save(data / f"test/circle/a{number}.png")
    scenes[1].save(data / "train/circle/b.png")
    for number in range(40):
        scenes[1].save(data / f"test/circle/b{number}.jpg", quality=50 + number)
    shutil.copy(data / "train/circle/b.png", data / "test/plain/b.png")
    _, told = copies_in(data, tmp_path / "cache")
    expected = {f"test/circle/a{number}.png": "train/circle/a.png" for number in range(7)}
    expected |= {f"test/circle/b{number}.jpg": "train/circle/b.png" for number in range(40)}
    assert expected.items() <= {test: other for test, other, same in told if not same}.items()
    assert [leak for leak in told if leak[2]] == [("test/plain/b.png", "train/circle/b.png", True)]


def test_images_alike_by_nature_are_no_chain():
    """Pairs that are nearly alike are followed for one step, and surely alike ones for any number."""
    splits = {"train": np.array([0]), "val": np.array([1]), "test": np.arange(2, 8)}
    dataset = Dataset(Path(), ("a",), tuple("01234567"), np.zeros(8, int), splits, 2)
    pairs = Copies(
        np.array([[0, 2], [2, 3], [3, 4], [1, 5], [5, 6], [6, 7]]),
        np.array([0.91, 0.98, 0.92, 0.98, 0.99, 0.93], np.float32),
    )
    found = leaks(pairs, dataset, "test", ("train", "val"))
    assert found.leaked.tolist() == [2, 3, 5, 6, 7]
    assert found.other.tolist() == [0, 0, 1, 1, 1]
    groups = pairs.groups(np.arange(8))
    assert groups[2] == groups[3]
    assert groups[1] == groups[5] == groups[6]
    assert len({*groups.tolist()}) == 5
    assert not found.same.any()


def test_an_image_under_two_labels_is_told_once_with_the_most_alike():
    splits = {"train": np.arange(6), "val": np.empty(0, int), "test": np.empty(0, int)}
    labels = np.array([0, 1, 1, 0, 0, 1])
    dataset = Dataset(Path(), ("a", "b"), tuple("012345"), labels, splits, 6)
    pairs = Copies(
        np.array([[0, 1], [0, 2], [3, 2], [0, 3], [4, 5]]),
        np.array([0.98, 0.975, 1.0, 1.0, 0.969], np.float32),
    )
    found = under_two_labels(pairs, dataset)
    assert [tuple(map(int, row)) for row in zip(*found, strict=True)] == [(1, 0, 0), (2, 3, 1)]


def test_joined_groups_are_those_that_pairs_connect():
    groups = np.array([0, 0, 1, 2, 3, 4, 4])
    assert joined(np.array([[1, 2], [4, 6]]), groups).tolist() == [0, 0, 0, 1, 2, 2, 2]
    assert joined(np.empty((0, 2), int), groups).tolist() == groups.tolist()
    chain = joined(np.array([[n, n + 1] for n in range(5000)]), np.arange(5001))
    assert not chain.any()


def test_pairs_are_compared_once_and_again_when_images_change(data, scenes, tmp_path, monkeypatch):  # noqa: F811
    calls = []

    def counted(thumbnails, *others):
        calls.append(len(thumbnails))
        return near_pairs(thumbnails, *others)

    monkeypatch.setattr("utils.data.copies.near_pairs", counted)
    scenes[0].save(data / "train/circle/a.png")
    scenes[0].resize((60, 60)).save(data / "test/circle/b.png")
    first = copies_in(data, tmp_path / "cache")
    assert ("test/circle/b.png", "train/circle/a.png", False) in first[1]
    assert copies_in(data, tmp_path / "cache") == first
    assert calls == [23]
    (note,) = (tmp_path / "cache").glob("*.pairs.npy")
    for content in (b"", b"text", note.read_bytes()[:-30]):
        note.write_bytes(content)
        assert copies_in(data, tmp_path / "cache") == first
    (data / "test/circle/b.png").rename(tmp_path / "b.png")
    assert "test/circle/b.png" not in str(copies_in(data, tmp_path / "cache"))
    (tmp_path / "b.png").rename(data / "test/circle/b.png")
    assert copies_in(data, tmp_path / "cache") == first  # data sets may take turns
    assert calls == [23] * 4 + [22]


def test_test_images_that_look_as_others_are_told(data, scenes, program, capsys):  # noqa: F811
    for number in range(3):
        scenes[number].save(data / f"train/circle/a{number}.png")
        scenes[number].resize((60, 60)).save(data / f"test/{'circle' if number else 'plain'}/b{number}.png")
    assert program("run", *SMALL) == 0
    out = capsys.readouterr().out
    assert re.search(
        r"warning  \d+ test images look nearly the same as others that are trained or validated on, which "
        "may make the accuracy too good: ",
        out,
    )
    assert "test/plain/b0.png (plain) is like train/circle/a0.png (circle)" in out
    capsys.readouterr()
    (program.run("run") / "result.json").unlink()
    assert program("run", "--resume") == 0
    assert "warning" not in capsys.readouterr().out
