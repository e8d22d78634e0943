"""Finding the images: which splits a folder holds, which classes, which files."""

import hashlib
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

import numpy as np

from utils.data.split import stratified_split
from utils.errors import UserError
from utils.run.randomness import generator

EXTENSIONS = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
VALIDATION_FRACTION = 0.2

# Where each known layout keeps its splits; the first whose training folder exists is taken.
LAYOUTS = (
    {"train": "seg_train/seg_train", "test": "seg_test/seg_test"},
    {"train": "seg_train", "test": "seg_test"},
    {"train": "train", "val": "val", "test": "test"},
)


@dataclass(frozen=True)
class Dataset:
    """All images of a data folder, each with its class and its split.

    `files` are paths relative to `root`, in an order that depends on nothing but their names;
    `labels` [n] int64 index `classes`; `splits` maps "train", "val" and "test" to int64 indices
    into `files`. Those under `train_folder` come first.
    """

    root: Path
    train_folder: str
    classes: tuple[str, ...]
    files: tuple[str, ...]
    labels: np.ndarray
    splits: dict[str, np.ndarray]

    def identity(self) -> str:
        """A hash of the files' names and lengths, the same wherever the folder lies."""
        digest = hashlib.sha256()
        for name in self.files:
            digest.update(f"{name}\0{self.status(name)[0]}\n".encode(errors="surrogateescape"))
        return digest.hexdigest()

    def status(self, name: str) -> tuple[int, int]:
        """A file's length in bytes and its time of change in nanoseconds; (-1, 0) if it leads nowhere."""
        try:
            status = os.stat(self.root / name)
            return status.st_size, status.st_mtime_ns
        except OSError:
            return -1, 0

    def training_images(self) -> "Dataset":
        """The images under `train_folder`, with the numbers that they have here, whatever the split."""
        folder = f"{self.train_folder}{os.sep}"
        names = [name.removeprefix(folder) for name in self.files if name.startswith(folder)]
        return replace(
            self,
            root=self.root / self.train_folder,
            train_folder="",
            files=tuple(names),
            labels=self.labels[: len(names)],
            splits={"train": self.splits["train"]},
        )

    def sizes(self) -> dict[str, int]:
        """The number of images in each split."""
        return {split: len(indices) for split, indices in self.splits.items()}


def find_dataset(root: Path, seed: int, without: Collection[str] = ()) -> Dataset:
    """Find the images under `root`, in any of the `LAYOUTS`, `without` some of the files.

    Without a validation folder, 20 % of the training images of each class become the validation
    split; which ones is a function of `seed` alone.

    Raises `UserError` when there is no such folder or layout, when a class has no images, or when
    the splits do not hold the same classes.
    """
    folders = split_folders(root)
    classes = _class_names(folders["train"])
    files: list[str] = []
    labels: list[int] = []
    splits: dict[str, np.ndarray] = {}
    for split, folder in folders.items():
        if _class_names(folder) != classes:
            raise UserError(_class_difference(folders["train"], classes, folder, _class_names(folder)))
        start = len(files)
        for label, name in enumerate(classes):
            paths = sorted(filter(is_image, files_below(folder / name)))
            found = [file for file in (str(path.relative_to(root)) for path in paths) if file not in without]
            if not found:
                raise UserError(f"{folder / name} holds no images ({', '.join(sorted(EXTENSIONS))})")
            files.extend(found)
            labels.extend([label] * len(found))
        splits[split] = np.arange(start, len(files))

    all_labels = np.array(labels, dtype=np.int64)
    if "val" not in splits:
        train, val = stratified_split(
            all_labels[splits["train"]], VALIDATION_FRACTION, generator(seed, "split")
        )
        if not len(val):
            raise UserError(
                f"{folders['train']} has one image in each class, so none to validate on; add more"
            )
        splits = {"train": splits["train"][train], "val": splits["train"][val], "test": splits["test"]}
    train_folder = str(folders["train"].relative_to(root))
    return Dataset(root, train_folder, classes, tuple(files), all_labels, splits)


def split_folders(root: Path) -> dict[str, Path]:
    """The folder of each split: always "train" and "test", and "val" where there is one."""
    if not root.is_dir():
        raise UserError(f"--data_dir {root}: no such folder; name one, or try --demo")
    for layout in LAYOUTS:
        if not (root / layout["train"]).is_dir():
            continue
        folders = {split: root / name for split, name in layout.items()}
        if not folders["test"].is_dir():
            raise UserError(f"{folders['test']} is missing: test images are needed beside {folders['train']}")
        return {split: folder for split, folder in folders.items() if folder.is_dir()}
    expected = ", ".join(f"{layout['train']}/<class>" for layout in LAYOUTS)
    raise UserError(f"--data_dir {root} holds no training images; expected one of {expected}")


def files_below(folder: Path) -> Iterator[Path]:
    """All files in a folder and in the folders in it, of which some may be links; raises `OSError`."""
    seen = set()
    for place, folders, names in os.walk(folder, onerror=_raise, followlinks=True):
        if os.path.realpath(place) in seen:  # a link back
            folders.clear()
            continue
        seen.add(os.path.realpath(place))
        yield from (Path(place, name) for name in names)


def _raise(error: OSError) -> NoReturn:
    raise error


def is_image(path: Path) -> bool:
    """Whether a file is called like an image; links that lead nowhere will be told, pipes are passed by."""
    named = path.suffix.lower() in EXTENSIONS and not path.name.startswith(".")
    return named and (path.is_file() or not path.exists())


def _class_names(folder: Path) -> tuple[str, ...]:
    names = tuple(
        sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    )
    if len(names) < 2:
        raise UserError(f"{folder} holds {len(names)} class folders; at least 2 are needed")
    return names


def _class_difference(
    train_folder: Path, train_classes: tuple[str, ...], folder: Path, classes: tuple[str, ...]
) -> str:
    only_train = sorted(set(train_classes) - set(classes))
    only_here = sorted(set(classes) - set(train_classes))
    parts = [
        f"only in {where}: {', '.join(names)}"
        for where, names in ((train_folder, only_train), (folder, only_here))
        if names
    ]
    return f"the splits hold different classes; {'; '.join(parts)}"
