"""utils/data/folders.py and split.py."""

import random
import shutil

import numpy as np
import pytest
import torch

from tests.conftest import CLASSES, write_images
from utils.data.folders import find_dataset
from utils.data.split import stratified_split
from utils.errors import UserError


@pytest.mark.parametrize(
    ("train", "test"),
    [("seg_train/seg_train", "seg_test/seg_test"), ("seg_train", "seg_test"), ("train", "test")],
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
    assert np.bincount(labels[val], minlength=4).tolist() == [1, 1, 2, 90]


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda root: shutil.rmtree(root), "no such folder"),
        (lambda root: shutil.rmtree(root / "train"), "no training images"),
        (lambda root: shutil.rmtree(root / "test"), "test is missing"),
        (lambda root: shutil.rmtree(root / "test" / "plain"), "only in .*train: plain"),
        (lambda root: (root / "test" / "cube").mkdir(), "only in .*test: cube"),
        (lambda root: [path.unlink() for path in (root / "train" / "plain").iterdir()], "plain holds no im"),
        (lambda root: [shutil.rmtree(root / "train" / name) for name in CLASSES[1:]], "1 class folders"),
    ],
)
def test_what_is_wrong_with_the_data_is_named(tmp_path, damage, named):
    root = tmp_path / "data"
    write_images(root / "train", 2, seed=0)
    write_images(root / "test", 2, seed=1)
    damage(root)
    with pytest.raises(UserError, match=named):
        find_dataset(root, seed=42)


def test_other_files_are_not_images(tmp_path):
    write_images(tmp_path / "train", 2, seed=0)
    write_images(tmp_path / "test", 2, seed=1)
    (tmp_path / "train" / "plain" / "notes.txt").write_text("hello")
    (tmp_path / "train" / ".hidden").mkdir()
    assert len(find_dataset(tmp_path, seed=42).files) == 12


def test_the_identity_follows_the_images_not_the_place(tmp_path, shapes):
    shutil.copytree(shapes, tmp_path / "copy")
    identity = find_dataset(tmp_path / "copy", seed=42).identity()
    assert identity == find_dataset(shapes, seed=42).identity()
    (tmp_path / "copy/seg_train/seg_train/plain/000.png").unlink()
    assert identity != find_dataset(tmp_path / "copy", seed=42).identity()
