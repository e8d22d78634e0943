"""utils/data/folders.py and split.py."""

import csv
import hashlib
import os
import random
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import CLASSES, write_images
from utils.data.folders import Splitting, find_dataset
from utils.data.split import kept_for_test, stratified_split
from utils.errors import UserError


def test_a_folder_of_classes_alone_is_split_by_names_and_by_seed(tmp_path):
    write_images(tmp_path, 50, seed=0)
    first, second = (find_dataset(tmp_path, seed=seed) for seed in (1, 2))
    assert first.classes == CLASSES
    tests = [{found.files[index] for index in found.splits["test"]} for found in (first, second)]
    assert tests[0] == tests[1]
    assert not np.array_equal(first.splits["val"], second.splits["val"])
    indices = np.concatenate(list(first.splits.values()))
    assert sorted(indices) == list(range(150))
    for label in range(3):
        counts = {split: (first.labels[found] == label).sum() for split, found in first.splits.items()}
        assert 3 <= counts["test"] <= 20
        assert counts["val"] == round(0.2 * (50 - counts["test"]))
    share = 100 * len(tests[0]) / 150
    assert first.notes == (
        "the folders in it are the classes",
        f"no test images: about 20 % of each class ({share:.0f} to {share:.0f} %) are kept for the test, by "
        "the files' names, the same whatever --seed",
    )
    assert first.training_images().files == tuple(first.files[: first.pool])
    assert {*first.files[first.pool :]} == tests[0]


def test_a_test_image_is_one_by_the_hash_of_its_path_below_the_class(tmp_path):
    """SHA-256 of the name, its first 8 bytes as a number, below a fifth: whatever the folder is called."""
    write_images(tmp_path / "here/an archive", 40, seed=0)
    dataset = find_dataset(tmp_path / "here", seed=42)
    expected = {
        name
        for name in (f"{number:03d}.png" for number in range(40))
        if int(hashlib.sha256(name.encode()).hexdigest()[:16], 16) < 2**64 / 5
    }
    for label in range(3):
        tested = [n for n in dataset.splits["test"] if dataset.labels[n] == label]
        assert {dataset.files[n].rpartition("/")[2] for n in tested} == expected


def test_test_images_stay_when_others_come_and_go(tmp_path):
    write_images(tmp_path, 40, seed=0)
    before = find_dataset(tmp_path, seed=42)
    tested = {before.files[index] for index in before.splits["test"]}
    for number in range(40, 60):
        shutil.copy(tmp_path / "plain/000.png", tmp_path / f"plain/{number:03d}.png")
    (tmp_path / "circle/000.png").unlink()
    after = find_dataset(tmp_path, seed=7)
    again = {after.files[index] for index in after.splits["test"]}
    assert {name for name in again if name not in tested} <= {f"plain/{n:03d}.png" for n in range(40, 60)}
    assert tested - again <= {"circle/000.png"}


def test_about_a_fifth_is_tested_on_and_small_classes_have_one_on_either_side():
    names = [f"{number}.jpg" for number in range(20_000)]
    kept = kept_for_test(names, np.zeros(20_000, int), np.arange(20_000), 0.2)
    assert abs(kept.mean() - 0.2) < 0.01  # 3.5 standard errors
    for size in range(2, 8):
        for first in range(0, 700, 7):
            kept = kept_for_test(names[first : first + size], np.zeros(size, int), np.arange(size), 0.2)
            assert 0 < kept.sum() < size


def test_one_image_cannot_be_tested_on_and_trained_on(tmp_path):
    write_images(tmp_path, 3, seed=0)
    for number in (0, 1):
        (tmp_path / f"plain/00{number}.png").unlink()
    with pytest.raises(UserError, match="class plain has 1 file, too few to test on"):
        find_dataset(tmp_path, seed=42)


def test_a_val_folder_is_the_validation_split(tmp_path):
    for split, count in (("train", 5), ("val", 2), ("test", 3)):
        write_images(tmp_path / split, count, seed=count)
    dataset = find_dataset(tmp_path, seed=42)
    assert dataset.sizes() == {"train": 15, "val": 6, "test": 9}
    assert all(dataset.files[index].startswith("val/") for index in dataset.splits["val"])


def test_the_split_is_stratified_and_complete(shapes):
    dataset = find_dataset(shapes, seed=42)
    train, val = dataset.splits["train"], dataset.splits["val"]
    assert np.bincount(dataset.labels[train]).tolist() == [16, 16, 16]
    assert np.bincount(dataset.labels[val]).tolist() == [4, 4, 4]
    assert sorted([*train, *val]) == list(range(60))


def test_the_split_depends_on_the_seed_alone(shapes):
    first = find_dataset(shapes, seed=42)
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    again, other = find_dataset(shapes, seed=42), find_dataset(shapes, seed=43)
    assert np.array_equal(first.splits["val"], again.splits["val"])
    assert not np.array_equal(first.splits["val"], other.splits["val"])


def test_small_classes_keep_an_image_on_either_side():
    labels = np.array([0, 1, 1, 2, 2, 2, *[3] * 100])
    train, val = stratified_split(labels, 0.2, np.random.default_rng(0))
    assert np.bincount(labels[train]).tolist() == [1, 1, 2, 80]
    assert np.bincount(labels[val], minlength=4).tolist() == [0, 1, 1, 20]
    train, val = stratified_split(labels, 0.9, np.random.default_rng(0))
    assert np.bincount(labels[val], minlength=4).tolist() == [0, 1, 2, 90]


def test_the_identity_follows_the_images_not_the_place(tmp_path, shapes):
    shutil.copytree(shapes, tmp_path / "copy")
    identity = find_dataset(tmp_path / "copy", seed=42).identity()
    assert identity == find_dataset(shapes, seed=42).identity()
    (tmp_path / "copy/seg_train/seg_train/plain/000.png").unlink()
    assert identity != find_dataset(tmp_path / "copy", seed=42).identity()


def table_of(path, rows, *columns):
    with path.open("w", newline="", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)
    return Splitting(labels=path)


@pytest.fixture
def loose(tmp_path):
    """A folder of 90 images, numbered, whose classes only the rows of a table tell."""
    root = tmp_path / "images"
    write_images(tmp_path / "by class", 30, seed=0)
    root.mkdir()
    rows = []
    for path in sorted((tmp_path / "by class").rglob("*.png")):
        name = f"{len(rows):03d}.png"
        shutil.copy(path, root / name)
        rows.append((name, path.parent.name))
    return root, rows


def test_a_table_beside_its_images_is_no_file_that_was_passed_over(loose):
    root, rows = loose
    (root / "other.csv").write_text("")
    dataset = find_dataset(root, 1, how=table_of(root / "t.csv", rows, "path", "label"))
    assert "1 file not taken for images, by endings: .csv 1" in dataset.notes


def test_a_table_tells_the_classes(tmp_path, loose):
    root, rows = loose
    how = table_of(tmp_path / "t.csv", rows, "path", "label")
    first, second = (find_dataset(root, seed, how=how) for seed in (1, 2))
    labels = dict(rows)
    assert first.classes == CLASSES
    assert [labels[file] for file in first.files] == [CLASSES[label] for label in first.labels]
    assert sum(first.sizes().values()) == 90
    assert 9 <= first.sizes()["test"] <= 30
    assert np.array_equal(first.splits["test"], second.splits["test"])
    assert not np.array_equal(first.splits["val"], second.splits["val"])


def test_a_table_tells_the_splits_too(tmp_path, loose):
    root, rows = loose
    splits = ["Training", "valid", "TEST"]
    told = [(*row, splits[number % 3]) for number, row in enumerate(rows)]
    dataset = find_dataset(root, 42, how=table_of(tmp_path / "t.csv", told, "Path", "Label ", "split"))
    assert dataset.sizes() == {"train": 30, "val": 30, "test": 30}
    for number, split in enumerate(("train", "val", "test")):
        assert {int(dataset.files[index][:3]) % 3 for index in dataset.splits[split]} == {number}
    assert dataset.training_images().files == tuple(dataset.files[index] for index in dataset.splits["train"])


def test_an_edited_table_is_another_data_set(tmp_path, loose):
    root, rows = loose
    before = find_dataset(root, 42, how=table_of(tmp_path / "t.csv", rows, "path", "label")).identity()
    assert (
        before
        == find_dataset(root, 42, how=table_of(tmp_path / "u.csv", rows[::-1], "path", "label")).identity()
    )
    rows[0], rows[-1] = (rows[0][0], rows[-1][1]), (rows[-1][0], rows[0][1])
    assert (
        before != find_dataset(root, 42, how=table_of(tmp_path / "t.csv", rows, "path", "label")).identity()
    )


def test_all_that_is_wrong_with_a_table_is_told_at_once(tmp_path, loose):
    root, rows = loose
    (root / ".hidden.png").touch()
    (root / "notes.txt").touch()
    (root / "@eaDir").mkdir()
    shutil.copy(root / "000.png", root / "@eaDir/000.png")
    splits = ["train", "test"] * 45
    told = [[*row, split] for row, split in zip(rows, splits, strict=True)]
    told[2][0], told[4][1], told[6][2], told[8][0] = "missing.png", " ", "holdout", "./000.png"
    told[10][0], told[12][0], told[14][0] = "../images/010.png", "../t.csv", ".hidden.png"
    told[16][0], told[18][0], told[20][0] = "notes.txt", "", "@eaDir/000.png"
    told[22], told[24], told[26][1] = told[22][:2], [*told[24], "more"], os.fsdecode(b"B\xe4r")
    told[28], told[30][0] = ["000.png", "plain", "test"], f"{'x' * 5000}.png"
    with pytest.raises(UserError) as error:
        find_dataset(root, 42, how=table_of(tmp_path / "t.csv", told, "path", "label", "split"))
    prefix, _, problems = str(error.value).partition(": ")
    assert prefix == f"--labels {tmp_path / 't.csv'}"
    assert problems.split("; ") == [
        "line 4: missing.png is not there",
        "line 6: no label",
        "line 8: 'holdout' is no split (train, val, test)",
        "line 10: 000.png is in line 2 already",
        "line 14: ../t.csv is not in " + str(root),
        "line 16: .hidden.png is hidden or of the system, and not used",
        "line 18: notes.txt is not called like an image",
        "line 20: no path",
        "line 22: @eaDir/000.png is hidden or of the system, and not used",
        "line 24: 2 cells for 3 columns",
        "line 26: 4 cells for 3 columns",
        "line 28: its text is not UTF-8",
        "line 30: 000.png is in line 2 already, as circle",
        f"line 32: {'x' * 5000}.png is not there",
    ]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"path;label\n", "no column path and none label: its first line is 'path;label'"),
        (b"", "no column path and none label: its first line is ''"),
        (b"path,\n", "no column label"),
        (b"path,label,Label\n", "two columns label"),
        ("path,label\n".encode("utf-16"), "no column path and none label"),
        (b"path,label\n", "has no rows"),
        (b"path,label\n000.png,circle\n", "holds one class, circle"),
        (b'path,label\n000.png,circle\n001.png,"plain\n002.png,plain\n', r"line 3: unexpected end"),
        (b'path,label\n000.png,"cir"cle\n', r"line 2: ',' expected after"),
        (b'path,label\n"000.png","a\nb"\n001.png\n', "line 4: 1 cell for 2 columns"),
        (b"path,label\n" + b"none.png,circle\n" * 30, "line 21: none.png is in line 2 already and 10 more"),
    ],
)
def test_a_table_that_is_none_is_named(tmp_path, loose, content, words):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(UserError, match=words):
        find_dataset(loose[0], 42, how=Splitting(labels=tmp_path / "t.csv"))


def test_a_table_may_be_written_in_many_ways(tmp_path, loose, monkeypatch):
    """By a spreadsheet: a mark of UTF-8, lines of Windows, spaces, quotes, empty lines, paths in full."""
    root, rows = loose
    lines = ["", " Label , PATH,", *(f'"{label}", "{name}",' for name, label in rows[1:]), "", ",,"]
    lines.insert(3, f"circle,{root / '000.png'},x")
    (tmp_path / "t.csv").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    dataset = find_dataset(root, 42, how=Splitting(labels=tmp_path / "t.csv"))
    plain = find_dataset(root, 42, how=table_of(tmp_path / "u.csv", rows, "path", "label"))
    assert dataset.files == plain.files
    assert dataset.identity() == plain.identity()
    monkeypatch.chdir(tmp_path)
    assert find_dataset(Path("images"), 42, how=Splitting(labels=Path("t.csv"))).files == plain.files


def test_a_table_that_is_not_there_is_named(tmp_path, loose):
    for name, words in (("none.csv", "No such file"), ("", "Is a directory")):
        with pytest.raises(UserError, match=words):
            find_dataset(loose[0], 42, how=Splitting(labels=tmp_path / name))


def test_images_that_a_table_leaves_out_are_counted(tmp_path, loose):
    root, rows = loose
    (root / "notes.txt").touch()
    dataset = find_dataset(root, 42, how=table_of(tmp_path / "t.csv", rows[:60], "path", "label"))
    assert dataset.notes[:2] == (
        f"not used, since not in {tmp_path / 't.csv'}: 30 images (30 in the data folder)",
        "1 file not taken for images, by endings: .txt 1",
    )


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_table_may_have_names_in_another_unicode_form(tmp_path, loose, form):
    root, rows = loose
    named = []
    for number, (path, label) in enumerate(rows):
        name = unicodedata.normalize("NFD" if number % 2 else "NFC", f"gr\u00fcn {path}")
        (root / path).rename(root / name)
        told = (unicodedata.normalize(form, text) for text in (name, f"{label} \u00e9"))
        named.append((*told, "test" if number % 3 == 0 else "train"))
    dataset = find_dataset(root, 42, how=table_of(tmp_path / "t.csv", named, "path", "label", "split"))
    assert dataset.classes == tuple(f"{name} \u00e9" for name in CLASSES)
    assert sorted(dataset.files) == sorted(os.listdir(root))


def test_groups_are_told_apart_in_any_unicode_form(tmp_path, loose):
    """The same person, written by two systems, is on one side."""
    root, rows = loose
    jose = ("Jos\u00e9", "Jose\u0301")
    named = [(*row, ("train", "test")[n % 2], jose[n % 2]) for n, row in enumerate(rows)]
    with pytest.raises(UserError, match="are of one group, Jos\u00e9"):
        find_dataset(root, 42, how=table_of(tmp_path / "t.csv", named, "path", "label", "split", "group"))
    for number, (path, label) in enumerate(rows):
        (root / label / jose[number % 2]).mkdir(parents=True, exist_ok=True)
        (root / path).rename(root / label / jose[number % 2] / path)
    for pattern in jose:
        with pytest.raises(UserError, match="has 1 group, too few"):
            find_dataset(root, 42, how=Splitting(group_by=f"({pattern})"))


def test_a_test_split_of_a_table_that_lacks_a_class_is_named(tmp_path, loose):
    root, rows = loose
    told = [
        (*row, "test" if row[1] != "plain" and number % 2 else "train") for number, row in enumerate(rows)
    ]
    with pytest.raises(UserError, match="different classes; only in train: 'plain'"):
        find_dataset(root, 42, how=table_of(tmp_path / "t.csv", told, "path", "label", "split"))


def groups_of(dataset, group):
    """The groups of each split, which share none."""
    found = {split: {group(dataset.files[n]) for n in numbers} for split, numbers in dataset.splits.items()}
    assert sum(map(len, found.values())) == len(set.union(*found.values()))
    return found


@pytest.mark.parametrize("size", [2, 3, 7])
def test_a_group_is_never_split(tmp_path, size):
    """Bursts: images of a class whose numbers are near each other, here by the regular expression's group."""
    write_images(tmp_path, 70, seed=0)
    for path in tmp_path.rglob("*.png"):
        path.rename(path.with_name(f"burst{path.parent.name}{int(path.stem) // size:02d}_{path.stem}.png"))
    how = Splitting(group_by=r"burst(\w+)_")
    tests = []
    for seed in range(8):
        dataset = find_dataset(tmp_path, seed, how=how)
        found = groups_of(dataset, lambda file: file.rpartition("_")[0])
        tests.append(found["test"])
        for label in range(3):
            counts = {
                split: (dataset.labels[numbers] == label).sum() for split, numbers in dataset.splits.items()
            }
            assert counts["test"] >= 1
            assert (
                abs(counts["val"] - 0.2 * (70 - counts["test"])) <= size / 2 + 0.5
            )  # as even as they can be
    assert all(found == tests[0] for found in tests)
    assert find_dataset(tmp_path, 42, how=how).notes[1] == (
        f"{3 * -(-70 // size)} groups, each in one split, the largest, circle00, of {size} images"
    )


def test_groups_across_classes_stay_together_and_classes_even(tmp_path):
    """Patients, each with images of several classes."""
    write_images(tmp_path, 60, seed=0)
    for path in tmp_path.rglob("*.png"):
        path.rename(path.with_name(f"{int(path.stem) % 20:02d}-{path.stem}.png"))
    for seed in range(5):
        dataset = find_dataset(tmp_path, seed, how=Splitting(group_by=r"\d\d-"))
        groups_of(dataset, lambda file: file.rpartition("/")[2][:2])
        for split, least in (("test", 1), ("val", 3)):
            assert np.bincount(dataset.labels[dataset.splits[split]], minlength=3).min() >= least


def test_groups_of_a_table_and_images_of_none(tmp_path, loose):
    root, rows = loose
    told = [(*row, f"video{number // 6}" if number % 30 < 24 else "") for number, row in enumerate(rows)]
    dataset = find_dataset(root, 42, how=table_of(tmp_path / "t.csv", told, "path", "label", "group"))
    groups_of(dataset, lambda file: told[int(file[:3])][2] or file)
    assert dataset.notes[0] == (
        "12 groups, each in one split, the largest, video0, of 6 images; 18 images of no group"
    )


def test_a_group_in_two_splits_is_refused(tmp_path):
    write_images(tmp_path / "train", 4, seed=0)
    write_images(tmp_path / "test", 4, seed=1)
    with pytest.raises(UserError, match=r"(train|test)/circle/000\.png .* are of one group"):
        find_dataset(tmp_path, 42, how=Splitting(group_by=r"\d+\.png"))
    with pytest.raises(UserError, match=r"finds nothing in the paths, such as test/circle/000\.png"):
        find_dataset(tmp_path, 42, how=Splitting(group_by="patient"))


def test_fractions_are_those_of_what_is_left(tmp_path):
    write_images(tmp_path, 100, seed=0)
    dataset = find_dataset(tmp_path, 42, how=Splitting(val_fraction=0.5, test_fraction=0.4))
    assert 30 * 3 <= dataset.sizes()["test"] <= 50 * 3
    for label in range(3):
        counts = {
            split: (dataset.labels[numbers] == label).sum() for split, numbers in dataset.splits.items()
        }
        assert counts["val"] == round(0.5 * (100 - counts["test"]))


def test_groups_too_large_for_their_share_still_give_one_to_validate_on():
    labels = np.repeat([0, 1], [100, 100])
    groups = np.repeat([0, 1, 2, 3], 50)
    train, val = stratified_split(labels, 0.2, np.random.default_rng(0), groups)
    assert np.bincount(labels[val]).tolist() == [50, 50]
    assert not set(groups[train]) & set(groups[val])


@pytest.mark.parametrize("across", [False, True])
def test_groups_are_whole_and_classes_on_both_sides_where_that_can_be(across):
    rng = np.random.default_rng(int(across))
    for trial in range(300):
        classes, count = rng.integers(2, 6), rng.integers(8, 60)
        groups = np.unique(rng.integers(0, rng.integers(4, 25), count), return_inverse=True)[1]
        labels = rng.integers(0, classes, count)
        if not across:
            labels = groups % classes
        names = [f"{trial} {group}" for group in range(groups.max() + 1)]
        kept = kept_for_test(names, labels, groups, 0.2)
        _, second = stratified_split(labels, 0.2, rng, groups)
        for side in (kept, np.isin(np.arange(count), second)):
            assert all(len({*side[groups == group].tolist()}) == 1 for group in groups)
            for label in np.unique(labels):
                assert not side[labels == label].all()
                if not across and len({*groups[labels == label].tolist()}) > 1:
                    assert side[labels == label].any()


def test_many_groups_of_one_class_come_near_to_their_share():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(400), rng.integers(1, 8, 400))
    labels = groups % 5
    _, second = stratified_split(labels, 0.3, rng, groups)
    share = np.bincount(labels[second]) / np.bincount(labels)
    assert np.abs(share - 0.3).max() < 0.01


def test_groups_across_classes_come_near_to_their_shares_too():
    rng = np.random.default_rng(0)
    groups, labels = np.repeat(np.arange(400), 5)[:1900], rng.integers(0, 6, 1900)
    for seed in range(5):
        _, second = stratified_split(labels, 0.2, np.random.default_rng(seed), groups)
        assert np.abs(np.bincount(labels[second]) / np.bincount(labels) - 0.2).max() < 0.02


def test_a_class_without_images_to_validate_on_is_named(tmp_path):
    write_images(tmp_path / "train", 5, seed=0)
    write_images(tmp_path / "test", 2, seed=1)
    for path in sorted((tmp_path / "train/plain").iterdir())[1:]:
        path.unlink()
    dataset = find_dataset(tmp_path, seed=42)
    assert dataset.notes[1:] == ("too small to validate on some images: plain",)
    with pytest.raises(UserError, match="each class has one image or group"):
        find_dataset(tmp_path, 42, how=Splitting(group_by=".*/"))


def test_fractions_that_are_not_used_are_told(tmp_path):
    for split in ("train", "val", "test"):
        write_images(tmp_path / split, 5, seed=0)
    how = Splitting(val_fraction=0.1, test_fraction=0.1)
    unused = [f"--{flag}_fraction is not used, since these images are told" for flag in ("test", "val")]
    assert [*find_dataset(tmp_path, 42, how=how).notes[1:]] == unused
    shutil.rmtree(tmp_path / "test")
    assert find_dataset(tmp_path, 42, how=how).notes[1] == unused[0]
    shutil.rmtree(tmp_path / "val")
    dataset = find_dataset(tmp_path, 42, how=how)
    assert len(dataset.notes) == 2
    assert "about 10 %" in dataset.notes[1]


def test_groups_are_told_once(tmp_path, loose):
    root, rows = loose
    table = table_of(tmp_path / "t.csv", [(*row, "a") for row in rows], "path", "label", "group")
    with pytest.raises(UserError, match=r"t\.csv tells groups already; leave out --group_by"):
        find_dataset(root, 42, how=table._replace(group_by="x"))


def test_the_identity_covers_the_splits_and_groups_of_a_table(tmp_path, loose):
    root, rows = loose

    def identity(split, group):
        told = [
            (*row, split if n == 3 else "train" if n % 2 else "test", group) for n, row in enumerate(rows)
        ]
        how = table_of(tmp_path / "t.csv", told, "path", "label", "split", "group")
        return find_dataset(root, 42, how=how).identity()

    assert len({identity("train", ""), identity("test", "")}) == 2
    with pytest.raises(UserError, match="are of one group, a; put it into one split"):
        identity("train", "a")


def test_the_last_image_of_a_class_that_cannot_be_read_is_told(tmp_path, loose):
    root, rows = loose
    plain = [name for name, label in rows if label == "plain"]
    how = table_of(tmp_path / "t.csv", rows, "path", "label")
    with pytest.raises(UserError, match="no train image of class plain can be read"):
        find_dataset(root, 42, without=plain, how=how)
    assert len(find_dataset(root, 42, without=plain[:5], how=how).files) == 85


def test_a_table_without_splits_beside_folders_of_splits_says_so(tmp_path):
    write_images(tmp_path / "train", 5, seed=0)
    write_images(tmp_path / "test", 5, seed=1)
    rows = [(path.relative_to(tmp_path), path.parent.name) for path in tmp_path.rglob("*.png")]
    how = table_of(tmp_path / "t.csv", rows, "path", "label")
    assert f"{how.labels} tells no splits, whatever folders are called like some: test, train" in (
        find_dataset(tmp_path, 42, how=how).notes
    )


def test_any_part_of_an_expression_may_tell_the_group(tmp_path):
    write_images(tmp_path, 20, seed=0)
    for path in tmp_path.rglob("*.png"):
        number = int(path.stem)
        path.rename(path.with_name(f"{'patient' if number % 2 else 'subject'}{number // 4}-{number}.png"))
    dataset = find_dataset(tmp_path, 42, how=Splitting(group_by=r"patient(\d+)|subject(\d+)"))
    groups_of(dataset, lambda file: file.rpartition("/")[2].partition("-")[0][7:])
    assert dataset.notes[1].startswith("5 groups, each in one split, the largest, ")
    assert dataset.notes[1].endswith(", of 12 images")


def test_the_validation_groups_follow_the_seed_and_the_test_groups_do_not(tmp_path):
    write_images(tmp_path, 60, seed=0)
    for path in tmp_path.rglob("*.png"):
        path.rename(path.with_name(f"{int(path.stem) // 3}-{path.name}"))
    found = [find_dataset(tmp_path, seed, how=Splitting(group_by=r"\d+-")) for seed in range(4)]
    assert len({dataset.splits["val"].tobytes() for dataset in found}) > 1
    assert len({dataset.splits["test"].tobytes() for dataset in found}) == 1


def test_the_lowest_is_tested_on_where_a_class_would_get_none():
    names = ["a.jpg", "b.jpg", "c.jpg"]  # of which b.jpg has the lowest hash
    numbers = [int(hashlib.sha256(name.encode()).hexdigest()[:16], 16) for name in names]
    kept = kept_for_test(names, np.zeros(3, int), np.arange(3), 0.001)
    assert kept.tolist() == [number == min(numbers) for number in numbers]
    kept = kept_for_test(names, np.zeros(3, int), np.arange(3), 0.999)
    assert kept.tolist() == [number != max(numbers) for number in numbers]


def test_an_edited_group_is_another_data_set(tmp_path, loose):
    root, rows = loose
    how = table_of(tmp_path / "t.csv", [(*row, "") for row in rows], "path", "label", "group")
    before = find_dataset(root, 42, how=how)
    told = [(*row, "a" if number in (0, 1) else "") for number, row in enumerate(rows)]
    after = find_dataset(root, 42, how=table_of(tmp_path / "t.csv", told, "path", "label", "group"))
    assert before.identity() != after.identity()
