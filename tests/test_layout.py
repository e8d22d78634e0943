"""utils/data/layout.py: the ways in which images are laid out."""

import os
import re
import shutil

import pytest

from tests.conftest import CLASSES, write_images
from utils.data.folders import Splitting, find_dataset
from utils.data.layout import split_of
from utils.errors import UserError


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("seg_train/seg_train", "seg_test/seg_test"),
        ("seg_train", "seg_test"),
        ("train", "test"),
        ("Training", "TESTING"),
        ("train_images", "Test Images"),
        ("training_set/training_set", "test_set"),
        ("train2017", "test2017"),
        ("an archive/train", "an archive/test"),
        ("an archive/and another/train/train", "an archive/and another/test"),
    ],
)
def test_each_layout_is_found_wherever_it_lies(tmp_path, train, test):  # paths were hard-coded
    write_images(tmp_path / "some where" / train, 10, seed=0)
    write_images(tmp_path / "some where" / test, 3, seed=1)
    dataset = find_dataset(tmp_path / "some where", seed=42)
    assert dataset.classes == CLASSES
    assert dataset.sizes() == {"train": 24, "val": 6, "test": 9}
    for split, folder in (("train", train), ("val", train), ("test", test)):
        for index in dataset.splits[split]:
            assert dataset.files[index].startswith(f"{folder}/{dataset.classes[dataset.labels[index]]}/")
    assert dataset.notes == (f"splits by folders: train in {train}, test in {test}",)


@pytest.mark.parametrize("val", ["val", "valid", "Validation", "dev"])
def test_without_a_test_folder_the_validation_folder_is_the_test(tmp_path, val):
    write_images(tmp_path / "train", 10, seed=0)
    write_images(tmp_path / val, 3, seed=1)
    dataset = find_dataset(tmp_path, seed=42)
    assert dataset.sizes() == {"train": 24, "val": 6, "test": 9}
    assert all(dataset.files[index].startswith(f"{val}/") for index in dataset.splits["test"])
    assert all(dataset.files[index].startswith("train/") for index in dataset.splits["val"])
    assert "the validation images are tested on" in dataset.notes[1]


@pytest.mark.parametrize("place", ["", "an archive/", "train/", "train/train/"])
def test_a_folder_of_classes_alone_is_one(tmp_path, place):
    write_images(tmp_path / place, 50, seed=0)
    dataset = find_dataset(tmp_path, seed=42)
    assert dataset.classes == CLASSES
    assert sorted(dataset.files) == [f"{place}{name}/{n:03d}.png" for name in CLASSES for n in range(50)]
    assert dataset.pool + dataset.sizes()["test"] == 150
    assert dataset.training_images().files[0].startswith(f"{place}circle/")


def test_folders_within_a_class_are_part_of_it(tmp_path):
    for name in ("cat", "dog"):
        write_images(tmp_path / "train" / name, 4, seed=0, classes=["circle", "plain"])
        write_images(tmp_path / "test" / name / "more", 2, seed=1, classes=["circle"])
    dataset = find_dataset(tmp_path, seed=42)
    assert dataset.classes == ("cat", "dog")
    assert dataset.pool == 16
    assert dataset.notes[1:] == ("part of the classes are the folders in theirs: circle, plain",)


def test_classes_that_sound_like_splits_are_classes(tmp_path):
    """Of scenes."""
    flat(tmp_path, "train_station", "valley", "testing_ground", "value")
    with pytest.raises(UserError, match="testing_ground would be a class"):
        find_dataset(tmp_path, seed=42)
    shutil.rmtree(tmp_path / "testing_ground")
    assert find_dataset(tmp_path, seed=42).classes == ("train_station", "valley", "value")


def test_folders_that_are_linked_twice_count_twice_and_those_that_lead_back_are_named(tmp_path):
    write_images(tmp_path / "all", 5, seed=0)
    root = tmp_path / "data"
    root.mkdir()
    for name in ("train", "test"):
        (root / name).symlink_to(tmp_path / "all")
    (tmp_path / "all/plain/up").symlink_to(tmp_path)
    (tmp_path / "all/plain/same").symlink_to(tmp_path / "all/plain")
    (tmp_path / "all/plain/loop").symlink_to("loop")
    dataset = find_dataset(root, seed=42)
    assert len(dataset.files) == 30
    assert dataset.notes[1:] == ("6 files not taken for images, by endings: none 6",)
    linked = tmp_path / "linked"
    linked.symlink_to(root)
    table = tmp_path / "t.csv"
    rows = [
        f"{place / name},{name.split('/')[1]}" for place in (linked, root.resolve()) for name in dataset.files
    ]
    for some_rows in (rows[:30], rows[30:]):
        table.write_text("\n".join(["path,label", *some_rows]))
        assert sorted(find_dataset(linked, 42, how=Splitting(labels=table)).files) == sorted(dataset.files)


def test_what_lies_beside_an_unpacked_folder_is_named(tmp_path):
    write_images(tmp_path / "images", 5, seed=0)
    shutil.copy(tmp_path / "images/plain/000.png", tmp_path / "cover.PNG")
    (tmp_path / "meta").mkdir()
    dataset = find_dataset(tmp_path, seed=42)
    assert dataset.notes[:3] == (
        "the folders in images are the classes",
        "not used, since in no folder of a class: 1 image (1 in the data folder)",
        "not used, since no images are in there: meta",
    )


def test_a_test_folder_of_one_folder_of_no_class_is_not_used(tmp_path):
    """As that of Tiny ImageNet."""
    write_images(tmp_path / "train", 10, seed=0)
    write_images(tmp_path, 3, seed=1, classes=["plain"])
    (tmp_path / "test").mkdir()
    (tmp_path / "plain").rename(tmp_path / "test/images")
    dataset = find_dataset(tmp_path, seed=42)
    assert dataset.notes[1] == "not used, since in no folder of a class: 3 images (3 in test/images)"
    assert "are kept for the test" in dataset.notes[2]


def test_what_was_not_used_is_told_with_what_lacks(tmp_path):
    for split in ("train", "test"):
        write_images(tmp_path / split, 3, seed=0)
    for path in (tmp_path / "test/plain").iterdir():
        path.unlink()
    with pytest.raises(
        UserError, match="only in train: 'plain'; not used, since no images are in there: test/plain"
    ):
        find_dataset(tmp_path, seed=42)


@pytest.mark.parametrize("stray", ["train/stray.png", "test/stray.png", "stray.png"])
def test_a_split_stays_one_whatever_else_lies_in_it(tmp_path, stray):
    """The classes were `train` and `test` then."""
    write_images(tmp_path / "train", 10, seed=0)
    write_images(tmp_path / "test", 3, seed=1)
    shutil.copy(tmp_path / "train/plain/000.png", tmp_path / stray)
    dataset = find_dataset(tmp_path, seed=42)
    assert dataset.classes == CLASSES
    assert len(dataset.files) == 39
    where = os.path.dirname(stray) or "the data folder"
    assert dataset.notes[1] == f"not used, since in no folder of a class: 1 image (1 in {where})"


def test_what_is_not_used_is_counted_and_named(tmp_path):
    write_images(tmp_path / "train", 5, seed=0)
    write_images(tmp_path / "test", 3, seed=1)
    write_images(tmp_path / "extra", 2, seed=2)
    for name in ("__MACOSX", "@eaDir", ".ipynb_checkpoints", ".Trash-1000", "$RECYCLE.BIN", "lost+found"):
        for place in (".", "train", "train/plain"):
            write_images(tmp_path / place / name, 1, seed=2)
    for folder in ("annotations", "train/cube", "test/masks"):
        (tmp_path / folder).mkdir()
    for file in ("train/plain/notes.txt", "test/plain/Thumbs.db", "README", "annotations/a.txt"):
        (tmp_path / file).write_text("none")
    (tmp_path / "train/plain/._000.png").write_text("none")
    dataset = find_dataset(tmp_path, seed=42)
    assert dataset.notes[1:] == (
        "not used, since in no folder of a class: 6 images "
        "(2 in extra/circle, 2 in extra/plain, 2 in extra/stripes)",
        "not used, since no images are in there: annotations, train/cube, test/masks",
        "4 files not taken for images, by endings: .txt 2, none 1, .db 1",
        "hidden or made by a system, and never looked into: "
        "$RECYCLE.BIN 3, .Trash-1000 3, .ipynb_checkpoints 3, @eaDir 3, __MACOSX 3 and 2 more",
    )
    assert len(dataset.files) == 15 + 9


@pytest.mark.parametrize("split", ["", "train", "test"])
def test_names_that_differ_in_unicode_form_alone_are_one_class(tmp_path, split):
    """As where one folder was made on macOS and another on Linux."""
    composed, decomposed = "Bl\u00e4tter", "Bla\u0308tter"
    write_images(tmp_path / "train", 5, seed=0)
    write_images(tmp_path / "test", 3, seed=1)
    for place in ("train", "test"):
        (tmp_path / place / "plain").rename(tmp_path / place / (decomposed if place == split else composed))
    if split == "train":
        shutil.copytree(tmp_path / "train/circle", tmp_path / "train" / composed)
    dataset = find_dataset(tmp_path, seed=42)
    assert dataset.classes == (composed, "circle", "stripes")
    joined = f"folders whose names differ in Unicode form alone are one class: '{composed}'"
    assert dataset.notes[1:] == ((joined,) if split else ())
    assert dataset.pool == (20 if split == "train" else 15)
    assert dataset.sizes()["test"] == 9


@pytest.mark.parametrize("forms", [("Bl\u00e4tter", "Bla\u0308tter"), ("Bla\u0308tter", "Bl\u00e4tter")])
def test_a_single_class_of_a_split_is_known_in_any_unicode_form(tmp_path, forms):
    write_images(tmp_path / "train", 5, seed=0)
    (tmp_path / "train/plain").rename(tmp_path / "train" / forms[0])
    shutil.copytree(tmp_path / "train/circle", tmp_path / "test" / forms[1])
    with pytest.raises(UserError, match="different classes; only in train: 'circle', 'stripes'"):
        find_dataset(tmp_path, seed=42)


@pytest.mark.parametrize("other", ["Plain", "plain ", " plain", "plain\u200b", "\uff50lain"])
def test_names_that_look_alike_are_told_in_quotes(tmp_path, other):
    write_images(tmp_path / "train", 5, seed=0)
    write_images(tmp_path / "test", 3, seed=1)
    (tmp_path / "test/plain").rename(tmp_path / "test" / other)
    alike = ", ".join(map(repr, sorted(["plain", other])))
    words = f"only in train: 'plain'; only in test: {other!r}; these look alike: {alike}"
    with pytest.raises(UserError, match=re.escape(words)):
        find_dataset(tmp_path, seed=42)
    shutil.copytree(tmp_path / "test" / other, tmp_path / "test/plain")
    shutil.copytree(tmp_path / "test" / other, tmp_path / "train" / other)
    dataset = find_dataset(tmp_path, seed=42)
    assert dataset.notes[1:] == (f"classes of names that look alike are kept apart: {alike}",)
    assert len(dataset.classes) == 4


def test_files_of_all_kinds_that_pillow_reads_are_images(tmp_path):
    """They were passed over, or counted as no images."""
    names = ["a.jfif", "b.jpe", "c.avif", "d.mpo", "e.pbm", "f.JP2", "g.tga", "h.APNG", "i.jpg"]
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        for file in (*names, "icon.ico", "drawing.eps", "photo.heic"):
            (tmp_path / name / file).touch()
    dataset = find_dataset(tmp_path, seed=42)
    assert sorted(dataset.files) == [f"{name}/{file}" for name in ("one", "two") for file in sorted(names)]
    assert "6 files not taken for images, by endings: .eps 2, .ico 2, .heic 2" in dataset.notes


def test_a_test_folder_of_no_classes_is_not_used(tmp_path):
    """As Kaggle's, whose labels nobody knows."""
    write_images(tmp_path / "train", 10, seed=0)
    write_images(tmp_path, 3, seed=1, classes=["plain"])
    (tmp_path / "plain").rename(tmp_path / "test")
    dataset = find_dataset(tmp_path, seed=42)
    assert dataset.notes[1] == "not used, since in no folder of a class: 3 images (3 in test)"
    assert "are kept for the test" in dataset.notes[2]
    assert all(name.startswith("train/") for name in dataset.files)


def flat(root, *names):
    """Folders of images, of classes or not."""
    write_images(root, 3, seed=0, classes=["plain"])
    for name in names:
        shutil.copytree(root / "plain", root / name)
    shutil.rmtree(root / "plain")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("train", "test"), "data/train holds images in no folders of classes"),
        (("train", "car", "bus"), "data/train holds images in no folders of classes"),
        (("test", "car", "bus"), "data/test is called like a split, and no folder beside it"),
        (("car", "bus", "test/car", "test/bus"), "data/test is called like a split, and no folder beside it"),
        (("val/car", "val/bus"), "data/val is called like a split, and no folder beside it"),
        (
            ("car/train", "car/test", "bus/train", "bus/test"),
            "data/bus/test is called like a split, but lies in",
        ),
        (("one/train/car", "two/train/car"), "data/one/train is called like a split, but lies in"),
        (("train/car", "training/car"), "data/train and .*data/training are both called like a train folder"),
        (("train1/car", "train2/car"), "data/train1 and .*data/train2 are both called like a train folder"),
        (
            ("data_train/train/car", "data_train/train/bus", "data_train/val/car"),
            "train and val, which are no",
        ),
        (("a/x/train", "b/x/train"), "a/x/train is called like a split, but lies in"),
        (("cars_train/cars_train", "cars_test/cars_test"), "cars_test would be a class, but"),
        (("trainset/a", "trainset/b", "testset/a", "testset/b"), "would be a class, but"),
        (("rps/a", "rps/b", "rps-test-set/a", "rps-test-set/b"), "rps-test-set would be a class, but"),
        (("x_train", "x_valid", "more"), "x_train would be a class, but"),
        (("yes", "no", "tumors/yes", "tumors/no"), "data/tumors holds folders that are called like those"),
        (("car",), "data holds one class, car; at least 2"),
        (("train/car", "test/car"), "data holds one class, car; at least 2"),
        ((".", ".."), "data holds images in no folders of classes"),
        (("train/car", "train/bus", "test/car"), "different classes; only in train: 'bus'"),
        (("train/car", "train/bus", "test/car", "test/bus", "test/van"), "only in test: 'van'"),
        (("train/car", "train/bus", "val/car", "val/van"), "only in train: 'bus'; only in val: 'van'"),
    ],
)
def test_what_is_not_clear_is_refused(tmp_path, names, words):
    root = tmp_path / "data"
    root.mkdir()
    if names == (".", ".."):
        flat(root, "a")
        shutil.copytree(root / "a", root, dirs_exist_ok=True)
        shutil.rmtree(root / "a")
    else:
        flat(root, *names)
    with pytest.raises(UserError, match=words):
        find_dataset(root, seed=42)


def test_a_folder_without_images_or_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UserError, match="nowhere: no such folder"):
        find_dataset(tmp_path / "nowhere", seed=42)
    (tmp_path / "train/car").mkdir(parents=True)
    for name in ("a.heic", "b.HEIC", "c.xyz", "._d.jpg"):
        (tmp_path / "train/car" / name).touch()
    told = (
        "holds no images (.jpg, .png, ...); 3 files not taken for images, by endings: .heic 2, .xyz 1; "
        "hidden or made by a system, and never looked into: ._* 1; expected <class>/ folders"
    )
    with pytest.raises(UserError, match=re.escape(told)):
        find_dataset(tmp_path, seed=42)


@pytest.mark.parametrize(
    "name", ["trainer", "trains", "latest", "contest", "seg_pred", "model_train", "t", ""]
)
def test_other_names_are_no_splits(name):
    assert split_of(name) is None
