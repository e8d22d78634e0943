"""utils/data/looks.py: what is known of each image, and that it is remembered."""

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, ImageOps

from tests.conftest import ROOT, SMALL
from tests.test_bad_input import data, spoil_images  # noqa: F401
from tests.test_images import never
from utils.data.decode import THUMBNAIL_SIDE, UnreadableImage, look
from utils.data.folders import Splitting, find_dataset
from utils.data.looks import look_at
from utils.data.scenes import draw_scene


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["jpg", "png", "tif", "webp"])
def test_the_size_of_an_image_is_that_of_its_upright_pixels(tmp_path, kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"image.{kind}"
    scene = draw_scene("street", np.random.default_rng(0)).resize((300, 200))
    scene.save(path, exif=exif)
    with Image.open(path) as opened:
        upright = ImageOps.exif_transpose(opened)
    found = look(path)
    assert (found.width, found.height) == upright.size == ((300, 200) if orientation < 5 else (200, 300))
    assert found.content == int(hashlib.blake2b(path.read_bytes(), digest_size=8).hexdigest(), 16)
    small = upright.convert("YCbCr").resize((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BOX)
    assert np.abs(found.thumbnail - np.asarray(small, float)[..., 0]).mean() < 4
    assert np.abs(np.array(found.colour) - np.asarray(small)[..., 1:].mean((0, 1))).max() < 1.5


def test_images_are_looked_at_once_and_again_when_they_change(data, tmp_path, monkeypatch):  # noqa: F811
    Image.new("RGB", (40, 20)).save(data / "train/plain/000.png")
    cache = tmp_path / "new" / "cache"
    looked = []

    def counted(path):
        looked.append(path.name)
        return look(path)

    monkeypatch.setattr("utils.data.looks.look", counted)

    def widths():
        looked.clear()
        dataset = find_dataset(data, seed=42)
        looks = look_at(dataset, cache, never)
        return dict(zip(dataset.files, (looks["width"] / looks["height"]).tolist(), strict=True))

    first = widths()
    assert first == {name: 2.0 if name == "train/plain/000.png" else 1.0 for name in first}
    assert len(looked) == 21
    assert widths() == first
    assert looked == []
    path = data / "train/plain/000.png"
    Image.new("RGB", (20, 40)).save(path)
    os.utime(path, (0, 0))
    assert widths() == first | {"train/plain/000.png": 0.5}
    assert looked == ["000.png"]
    path.rename(data / "train/plain/more.png")
    (data / "train/circle/001.png").unlink()
    assert widths()["train/plain/more.png"] == 0.5
    assert looked == ["more.png"]
    (note,) = cache.glob("*.npy")
    assert len(np.load(note)) == 23  # those of images that went are kept for a while


@pytest.mark.parametrize("damage", ["empty", "text", "cut", "another type", "out of order"])
def test_a_damaged_note_is_made_anew(data, tmp_path, damage):  # noqa: F811
    dataset = find_dataset(data, seed=42)
    expected = look_at(dataset, tmp_path / "cache", never)
    (note,) = (tmp_path / "cache").glob("*.npy")
    records = np.load(note)
    if damage == "another type":
        np.save(note, np.ones(21))
    elif damage == "out of order":
        np.save(note, records[::-1])
    else:
        note.write_bytes({"empty": b"", "text": b"text", "cut": note.read_bytes()[:-100]}[damage])
    again = look_at(dataset, tmp_path / "cache", never)
    for column in ("content", "width", "height", "thumbnail"):
        assert np.array_equal(again[column], expected[column])


def test_images_that_cannot_be_read_are_looked_at_again(data, tmp_path):  # noqa: F811
    names = spoil_images(data)
    dataset = find_dataset(data, seed=42)
    for _ in range(2):
        looks = look_at(dataset, tmp_path / "cache", never)
        assert sorted(looks.unreadable) == names
        assert all(isinstance(error, UnreadableImage) for error in looks.unreadable.values())
    readable = find_dataset(data, 42, without=looks.unreadable)
    assert (look_at(readable, tmp_path / "cache", never)["width"] > 0).all()


@pytest.mark.parametrize("cache", ["auto", "disk", "ram", "off"])
def test_a_run_looks_at_unchanged_images_once(data, program, monkeypatch, cache):  # noqa: F811
    assert program("run", *SMALL, "--cache", cache) == 0
    monkeypatch.setattr("utils.data.looks.look", None)
    monkeypatch.setattr("utils.data.copies.near_pairs", None)
    assert program("again", *SMALL, "--cache", cache) == 0
    assert program("run", "--cache", cache, "--evaluate") == 0


def test_two_runs_look_beside_each_other(data, tmp_path):  # noqa: F811
    """Each in a loop in which it forgets what it saw."""
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from utils.data.folders import find_dataset\nfrom utils.data.looks import look_at\n"
        "images, cache = find_dataset(Path(sys.argv[1]), seed=42), Path(sys.argv[2])\n"
        "for _ in range(30):\n"
        "    assert (look_at(images, cache, lambda: None)['width'] == 24).all()\n"
        "    [note.unlink(missing_ok=True) for note in cache.glob('*.npy')]\n"
    )
    command = [sys.executable, "-c", code, str(data), str(tmp_path / "cache")]
    runs = [subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    assert [run.communicate(timeout=60)[1] for run in runs] == ["", ""]


def test_tables_of_one_folder_may_take_turns(data, tmp_path, monkeypatch):  # noqa: F811
    looked = []

    def counted(path):
        looked.append(path)
        return look(path)

    monkeypatch.setattr("utils.data.looks.look", counted)
    names = find_dataset(data, seed=42).files
    for number in range(6):
        rows = [f"{name},{name.split('/')[1]}" for name in names[number % 2 :: 2]]
        (tmp_path / "t.csv").write_text("\n".join(["path,label", *rows]))
        look_at(find_dataset(data, 42, how=Splitting(labels=tmp_path / "t.csv")), tmp_path / "cache", never)
    assert len(looked) == len(names)


def test_records_of_images_that_are_gone_do_not_grow_for_ever(data, tmp_path):  # noqa: F811
    for number in range(100, 200):
        (data / "train/plain").joinpath(f"{number - 1}.png").unlink(missing_ok=True)
        Image.new("RGB", (20, 20), (number, 0, 0)).save(data / f"train/plain/{number}.png")
        dataset = find_dataset(data, seed=42)
        look_at(dataset, tmp_path / "cache", never)
    (note,) = (tmp_path / "cache").glob("*.npy")
    assert len(np.load(note)) <= 3 * len(dataset.files) + 1


def test_what_was_seen_before_a_stop_is_kept(data, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr("utils.data.looks.KEPT_AT_ONCE", 5)
    dataset, calls = find_dataset(data, seed=42), []

    def stop():
        calls.append(1)
        if len(calls) == 13:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        look_at(dataset, tmp_path / "cache", stop)
    (note,) = (tmp_path / "cache").glob("*.npy")
    assert len(np.load(note)) == 10
    looks = look_at(dataset, tmp_path / "cache", never)
    assert (looks["width"] == 24).all()
    assert [look(data / name).content for name in dataset.files] == looks["content"].tolist()


@pytest.mark.parametrize(
    "flags", [("--cache", "off"), ("--cache", "ram"), ("--cache", "off", "--crop", "random")]
)
def test_a_cache_folder_that_cannot_be_written_stops_nothing_that_needs_none(
    program, tmp_path, capsys, flags
):
    (tmp_path / "file").touch()
    place = ("--cache_dir", str(tmp_path / "file/cache"))
    assert program("run", *SMALL, *flags, *place) == 0
    assert "cannot be written (Not a directory), so this is found anew each time" in capsys.readouterr().out
    assert program("run", "--evaluate", *flags[:2], *place) == 0


def test_a_full_disk_stops_no_look(data, tmp_path, capsys, monkeypatch):  # noqa: F811
    def full(file, arr):
        raise OSError("written less than asked")  # as numpy raises it

    monkeypatch.setattr("numpy.save", full)
    dataset = find_dataset(data, seed=42)
    assert (look_at(dataset, tmp_path / "cache", never)["width"] == 24).all()
    assert "cannot be written (it took no more), so this is found anew" in capsys.readouterr().out
    assert not list((tmp_path / "cache").glob("*.npy"))
