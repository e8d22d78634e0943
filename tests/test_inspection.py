"""learning/inspection.py: the data doctor."""

import csv
import shutil

import numpy as np
import pytest
from PIL import Image

from tests.conftest import write_images
from tests.test_bad_input import data, spoil_images  # noqa: F401
from utils.data.scenes import draw_scene


def rows_of(folder):
    with (folder / "inspection.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def odd(data, program):  # noqa: F811
    """A data set with something of each kind."""
    scenes = [draw_scene("street", np.random.default_rng(number)) for number in range(3)]
    scenes[0].save(data / "train/circle/a.png")
    scenes[0].resize((60, 60)).save(data / "test/circle/b.png")
    scenes[1].save(data / "train/circle/c.png")
    scenes[1].save(data / "train/plain/d.jpg", quality=80)
    shutil.copy(data / "train/plain/000.png", data / "test/stripes/e.png")
    Image.effect_noise((400, 100), 50).save(data / "test/plain/long.png")
    spoil_images(data)
    return data


def test_all_that_is_odd_is_told(odd, program, capsys, tmp_path):
    before = {path: path.lstat().st_mtime_ns for path in odd.rglob("*")}
    place = tmp_path / "new/place"
    flags = ("--inspect", "--output", str(place), "--image_size", "32", "--crop", "center")
    assert program("", *flags) == 0
    out = capsys.readouterr().out
    lines = dict(reversed([line.split(None, 1) for line in out.splitlines()]))
    assert lines["balance"] == "12 images of circle to 9 of stripes"
    assert (
        lines["sizes"]
        == "24 x 24 to 400 x 100, the middle one 24 x 24 pixels; 22 smaller than --image_size 32"
    )
    assert lines["crop"] == (
        "center: a test leaves out 25 % of an image, at most 81 %; more than 50 % of 1 image"
    )
    assert lines["unread"].startswith("4 images: ")
    assert (
        lines["copies"]
        == "1 pair of the same bytes, 1 across splits (1 across the test's), 1 under two labels"
    )
    assert (
        lines["near"] == "2 pairs nearly the same, 1 across splits (1 across the test's), 1 under two labels"
    )
    rows = rows_of(place)
    assert [row["finding"] for row in rows] == (
        ["cannot be read"] * 4 + ["same file"] + ["looks nearly the same"] * 2 + ["much is cut off"]
    )
    same, contradiction, leak, long = rows[4:]
    assert (same["path"], same["other_path"]) == ("test/stripes/e.png", "train/plain/000.png")
    assert (same["label"], same["other_label"], same["split"]) == ("stripes", "plain", "test")
    assert (same["across_test"], same["labels_differ"], same["similarity"]) == ("yes", "yes", "1.0000")
    assert {contradiction["path"], contradiction["other_path"]} == {"train/circle/c.png", "train/plain/d.jpg"}
    assert (contradiction["across_test"], contradiction["labels_differ"]) == ("no", "yes")
    assert (leak["path"], leak["other_path"]) == ("test/circle/b.png", "train/circle/a.png")
    assert (leak["across_test"], leak["labels_differ"]) == ("yes", "no")
    assert (long["path"], long["detail"]) == ("test/plain/long.png", "81 % is cut off")
    page = (place / "inspection.html").read_text()
    for words in ("the same file, two labels, across splits", "train/circle/c.png", "cannot be read"):
        assert words in page
    assert page.count('<div class="pair">') == 3
    assert "<h2>circle: 10 of 10 images</h2>" in page
    assert {path: path.lstat().st_mtime_ns for path in odd.rglob("*")} == before
    assert not program.run("").joinpath("args.json").exists()


def test_an_inspection_is_not_replaced_unasked(odd, program, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):  # that in the default place is
        assert program("", "--inspect") == 0
    assert rows_of(tmp_path / "inspection")
    assert program("", "--inspect", "--output", "inspection") == 2
    assert "inspection holds an inspection already" in capsys.readouterr().err
    assert program("", "--inspect", "--output", "inspection", "--overwrite") == 0
    assert program("", "--inspect", "--output", "-") == 2
    assert "--output -: --inspect writes two files" in capsys.readouterr().err
    (tmp_path / "file").touch()
    assert program("", "--inspect", "--output", "file") == 2
    assert "file is a file; name a folder" in capsys.readouterr().err
    assert program("x", "--inspect", "--resume") == 2
    assert "--resume and --inspect exclude each other" in capsys.readouterr().err
    assert program("x", "--output", "file") == 2
    assert "--output is for --predict and --inspect" in capsys.readouterr().err


def test_images_without_a_fault_are_told_too(tmp_path, program, capsys):
    write_images(tmp_path / "data", 6, seed=0)
    program.data = tmp_path / "data"
    assert program("", "--inspect", "--output", str(tmp_path / "out"), "--image_size", "16") == 0
    out = capsys.readouterr().out
    assert "balance  6 images of each class\n" in out
    assert "sizes    all 24 x 24 pixels; 0 smaller than --image_size 16\n" in out
    assert "crop     none: all of an image is seen, a square\n" in out
    assert "unread   0 images\n" in out
    assert (
        "copies   0 pairs of the same bytes, 0 across splits (0 across the test's), 0 under two labels\n"
        in out
    )
    assert rows_of(tmp_path / "out") == []
    Image.new("RGB", (60, 24)).save(tmp_path / "data/plain/long.png")
    assert program("", "--inspect", "--output", str(tmp_path / "more")) == 0
    assert (
        "crop     none: all of an image is seen, squeezed to a square from at most 2.50 to 1, 1.00 to 1 in "
        "the middle\n" in capsys.readouterr().out
    )


def test_a_class_that_cannot_be_read_is_told_too(data, program, capsys, tmp_path):  # noqa: F811
    for path in (data / "train/plain").iterdir():
        path.write_bytes(b"")
    assert program("", "--inspect", "--output", str(tmp_path / "out")) == 0
    assert sum(row["finding"] == "cannot be read" for row in rows_of(tmp_path / "out")) == 5
