"""Finding the images: which splits there are, which classes, which files."""

import hashlib
import os
import re
from argparse import Namespace
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from utils.data.labels import read_labels
from utils.data.layout import INSTEAD, SPLIT_NAMES, Labelled, Tree, alike, find_layout, passed_by, quoted
from utils.data.split import kept_for_test, stratified_folds, stratified_split
from utils.errors import UserError
from utils.run.randomness import generator
from utils.text import count, one_form, some

NAMES_SHOWN = 5


class Splitting(NamedTuple):
    """How images are labelled and split where folders do not say it."""

    labels: Path | None = None  # a table
    group_by: str | None = None  # a regular expression
    val_fraction: float = 0.2
    test_fraction: float = 0.2

    @classmethod
    def of(cls, args: Namespace) -> "Splitting":
        """That of the flags."""
        labels = Path(args.labels) if args.labels else None
        return cls(labels, args.group_by, args.val_fraction, args.test_fraction)


BY_FOLDERS = Splitting()


class Status(NamedTuple):
    """A file's length in bytes and its time of change in nanoseconds."""

    length: int
    changed: int


NOWHERE = Status(-1, 0)  # where a link leads nowhere


@dataclass(frozen=True)
class Dataset:
    """All images of a data folder, each with its class and its split.

    `files` are paths relative to `root`, in an order that depends on nothing but their names and what is told
    of them; `labels` [n] int64 index `classes`; `splits` maps "train", "val" and "test" to int64 indices into
    `files`. The first `pool` of them are those that training images are among, whatever the seed.
    """

    root: Path
    classes: tuple[str, ...]
    files: tuple[str, ...]
    labels: np.ndarray
    splits: dict[str, np.ndarray]
    pool: int
    notes: tuple[str, ...] = ()  # what a person should know of how they were found
    told: tuple[str, ...] = ()  # what a table says of each file, or what else makes the data set another one
    groups: np.ndarray | None = None  # the number of each image's group [n], if there are any

    def identity(self) -> str:
        """A hash of the files' names and lengths and of what a table says, wherever the folder lies."""
        digest = hashlib.sha256()
        for name, status in zip(self.files, self.statuses, strict=True):
            digest.update(f"{name}\0{status.length}\n".encode(errors="surrogateescape"))
        for line in self.told:
            digest.update(f"{line}\n".encode(errors="surrogateescape"))
        return digest.hexdigest()

    @cached_property
    def statuses(self) -> list[Status]:
        """That of each file, as it was when it was first asked for."""
        return [_status(os.path.join(self.root, name)) for name in self.files]

    def training_images(self) -> "Dataset":
        """The first `pool` images, with the numbers that they have here, whatever the split."""
        splits = {"train": self.splits["train"]}
        return replace(self, files=self.files[: self.pool], labels=self.labels[: self.pool], splits=splits)

    def split_names(self) -> np.ndarray:
        """The name of each image's split, or "", [n]."""
        names = np.full(len(self.files), "", "<U5")
        for split, numbers in self.splits.items():
            names[numbers] = split
        return names

    def describe(self) -> str:
        """Where it is, and how many classes and images it has."""
        sizes = self.sizes()
        return (
            f"{self.root}: {len(self.classes)} classes; {sizes['train']} training, {sizes['val']} validation "
            f"and {sizes['test']} test images"
        )

    def sizes(self) -> dict[str, int]:
        """The number of images in each split."""
        return {split: len(indices) for split, indices in self.splits.items()}


def _status(path: str) -> Status:
    try:
        status = os.stat(path)
        return Status(status.st_size, status.st_mtime_ns)
    except OSError:
        return NOWHERE


def find_dataset(
    root: Path, seed: int, without: Collection[str] = (), how: Splitting = BY_FOLDERS
) -> Dataset:
    """Find the images under `root`, by a table or in folders of classes, `without` some files.

    Without test images about a fifth of each class become the test split, by their paths below the class's
    folder: they stay when other images come, and for every seed. Without validation images a fifth of what
    is left of each class become the validation split; which ones is a function of `seed`. Images of one
    group are in one split.

    Raises `UserError` when there is no such folder or layout, when there is one class only, when the splits
    do not hold the same classes, or share a group.
    """
    if not root.is_dir():
        raise UserError(f"--data_dir {root}: no such folder; name one, or try --demo")
    tree = Tree.of(root)
    where = f"--labels {how.labels}" if how.labels else str(root)
    found, notes = read_labels(how.labels, root, tree) if how.labels else find_layout(root, tree)
    table = os.path.realpath(how.labels) if how.labels else None
    others = [path for path in tree.others if not table or os.path.realpath(root / path) != table]
    notes += passed_by(others, tree.foreign)
    found = _without(found, without, where)
    if how.group_by:
        found = _grouped(found, how.group_by, where)
    grouped = any(image.group for image in found)
    if grouped:
        notes.append(_about_groups(found))
    try:
        classes = _classes(found, where)
    except UserError as error:
        raise UserError(
            "; ".join([str(error), *(note for note in notes if note.startswith("not used"))])
        ) from None
    if same := [*alike(classes)]:
        notes.append(f"classes of names that look alike are kept apart: {some(same, NAMES_SHOWN, '; ')}")
    numbers = {name: number for number, name in enumerate(classes)}
    found = _with_test_images(found, numbers, where, how, notes)
    _refuse_shared_groups(found)
    order = {split: number for number, split in enumerate(SPLIT_NAMES)}
    found.sort(key=lambda image: (order[image.split], numbers[image.label]))
    labels = np.array([numbers[image.label] for image in found], dtype=np.int64)
    split_numbers = np.array([order[image.split] for image in found])
    splits = {split: np.flatnonzero(split_numbers == number) for split, number in order.items()}
    pool = len(splits["train"])
    groups = _group_numbers(found)[1] if grouped else None
    if len(splits["val"]):
        _say_not_used("val_fraction", how, notes)
    else:
        of_pool = None if groups is None else _from_zero(groups[:pool])
        train, val = stratified_split(labels[:pool], how.val_fraction, generator(seed, "split"), of_pool)
        if not len(val):
            raise UserError(
                f"{where}: each class has one image or group left, so none to validate on; add more"
            )
        if lacking := [name for name, number in numbers.items() if number not in labels[val]]:
            notes.append(f"too small to validate on some images: {some(lacking, NAMES_SHOWN)}")
        splits |= {"train": train, "val": val}
    told = tuple(image.told for image in found) if how.labels else ()
    files = tuple(image.path for image in found)
    return Dataset(root, classes, files, labels, splits, pool, tuple(notes), told, groups)


def folds(dataset: Dataset, count: int, seed: int, val_fraction: float) -> Iterator[Dataset]:
    """The data set with each of `count` parts of its training and validation images held out in turn.

    That is "test" then; of what is left, a share is validated on. The test images are in no split. Raises
    `UserError` for a class that would not be trained on, and if nothing would be validated on.
    """
    pool = len(dataset.splits["train"]) + len(dataset.splits["val"])  # whose files come first
    labels, groups = dataset.labels[:pool], None if dataset.groups is None else dataset.groups[:pool]
    fold_of = stratified_folds(labels, count, generator(seed, "folds"), _from_zero(groups))
    for fold in range(count):
        rest = np.flatnonzero(fold_of != fold)
        of_rest = None if groups is None else groups[rest]
        train, val = stratified_split(
            labels[rest], val_fraction, generator(seed, "split"), _from_zero(of_rest)
        )
        splits = {"train": rest[train], "val": rest[val], "test": np.flatnonzero(fold_of == fold)}
        trained = np.bincount(labels[rest[train]], minlength=len(dataset.classes))
        if not trained.all():
            name = dataset.classes[int(trained.argmin())]
            raise UserError(
                f"--folds {count}: a part has all images of class {name} that could be trained on"
            )
        if not len(val) or not len(splits["test"]):
            raise UserError(f"--folds {count}: too few images for as many parts, and for some to validate on")
        told = (*dataset.told, f"fold {fold} of {count}")
        yield replace(dataset, splits=splits, pool=pool, told=told)


def _from_zero(groups: np.ndarray | None) -> np.ndarray | None:
    """The numbers of groups without gaps."""
    return None if groups is None else np.unique(groups, return_inverse=True)[1]


def _without(found: list[Labelled], without: Collection[str], where: str) -> list[Labelled]:
    """Those that can be read."""
    left = [image for image in found if image.path not in without]
    lost = {(image.split, image.label) for image in found} - {(image.split, image.label) for image in left}
    for split, label in sorted(lost):
        raise UserError(f"{where}: no {split} image of class {label} can be read; replace some")
    return left


def _grouped(found: list[Labelled], group_by: str, where: str) -> list[Labelled]:
    """The images with the text that a regular expression, or its first group, finds in their paths."""
    if any(image.group for image in found):
        raise UserError(f"{where} tells groups already; leave out --group_by")
    expression = re.compile(one_form(group_by))
    matches = [expression.search(one_form(image.path)) for image in found]
    # The first of the groups in brackets that took part, or all that was found.
    texts = [next(filter(None, (*match.groups(), match[0])), "") if match else "" for match in matches]
    if not any(texts):
        raise UserError(f"--group_by {group_by} finds nothing in the paths, such as {found[0].path}")
    return [image._replace(group=text) for image, text in zip(found, texts, strict=True)]


def _about_groups(found: list[Labelled]) -> str:
    """How many groups there are, and the largest."""
    sizes = Counter(image.group for image in found if image.group)
    alone = len(found) - sizes.total()
    more = f"; {count(alone, 'image')} of no group" if alone else ""
    ((name, most),) = sizes.most_common(1)
    largest = f"the largest, {name}, of {count(most, 'image')}"
    return f"{count(len(sizes), 'group')}, each in one split, {largest}{more}"


def _group_numbers(found: Sequence[Labelled]) -> tuple[list[str], np.ndarray]:
    """The names of the groups, of which an image of none is one of its own, and the group of each image."""
    keys = [(image.group, "") if image.group else (image.name, image.path) for image in found]
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    return [name for name, _ in numbers], np.array([numbers[key] for key in keys])


def _classes(found: list[Labelled], where: str) -> tuple[str, ...]:
    """The names of the classes, which are the same in each split."""
    of_split = {
        split: names
        for split in SPLIT_NAMES
        if (names := {image.label for image in found if image.split == split})
    }
    if "train" not in of_split:
        raise UserError(f"{where} tells no training images")
    classes = of_split["train"]
    for split, names in of_split.items():
        if names != classes:
            parts = {"train": sorted(classes - names), split: sorted(names - classes)}
            only = [f"only in {side}: {quoted(of)}" for side, of in parts.items() if of]
            only += [f"these look alike: {same}" for same in alike(sorted(classes ^ names))]
            raise UserError(f"{where}: the splits hold different classes; {'; '.join(only)}")
    if len(classes) < 2:
        raise UserError(f"{where} holds one class, {min(classes)}; at least 2 are needed: {INSTEAD}")
    return tuple(sorted(classes))


def _with_test_images(
    found: list[Labelled], numbers: Mapping[str, int], where: str, how: Splitting, notes: list[str]
) -> list[Labelled]:
    """The same images, some of them of "test"; the classes have `numbers`."""
    splits = {image.split for image in found}
    if {"test", "val"} & splits:
        _say_not_used("test_fraction", how, notes)
    if "test" in splits:
        return found
    if "val" in splits:
        notes.append(
            "no test images: the validation images are tested on, and some training images are validated on"
        )
        return [image._replace(split="test") if image.split == "val" else image for image in found]
    names, groups = _group_numbers(found)
    labels = np.array([numbers[image.label] for image in found])
    kept = kept_for_test(names, labels, groups, how.test_fraction)
    shares = np.bincount(labels, kept) / np.bincount(labels)
    what = "groups" if any(image.group for image in found) else "files"
    if not shares.all():
        label = int(shares.argmin())
        number = len({*groups[labels == label].tolist()})
        raise UserError(
            f"{where}: class {[*numbers][label]} has {count(number, what[:-1])}, too few to test on some of "
            "them and to train on others; add more"
        )
    notes.append(
        f"no test images: about {100 * how.test_fraction:g} % of each class ({100 * shares.min():.0f} to "
        f"{100 * shares.max():.0f} %) are kept for the test, by the {what}' names, the same whatever --seed"
    )
    return [image._replace(split="test") if test else image for image, test in zip(found, kept, strict=True)]


def _say_not_used(flag: str, how: Splitting, notes: list[str]) -> None:
    if getattr(how, flag) != getattr(BY_FOLDERS, flag):
        notes.append(f"--{flag} is not used, since these images are told")


def _refuse_shared_groups(found: list[Labelled]) -> None:
    """Raise `UserError` for a group that is in two splits already."""
    first: dict[str, Labelled] = {}
    for image in found:
        other = first.setdefault(image.group, image)
        if image.group and image.split != other.split:
            raise UserError(
                f"{other.path} ({other.split}) and {image.path} ({image.split}) are of one group, "
                f"{image.group}; put it into one split"
            )
