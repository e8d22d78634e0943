"""Which folders hold which split and which class, in the ways in which people lay images out."""

import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from utils.errors import UserError
from utils.text import count, some

EXTENSIONS = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}

# What a split's folder is called, in upper or lower case, also with a number or one of the words `BESIDE`.
SPLIT_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
BESIDE = {"seg", "set", "data", "dataset", "split", "folder", "image", "images", "img", "imgs"}
# Folders that systems and programs make, beside the hidden ones; never looked into.
SYSTEM_FOLDERS = {"__macosx", "@eadir", "$recycle.bin", "system volume information", "lost+found"}
EXPECTED = "<class>/ folders of images, or train/<class>/ and test/<class>/"
PLACES_SHOWN = 5


@dataclass(frozen=True)
class Tree:
    """What lies in a folder and in the folders in it, by paths in it, in the order of their parts.

    Neither hidden files and folders are in it nor those that systems make. `images` are the files that are
    called like images, `others` the rest; `folders` has the names of the folders in each folder, and
    `images_in` how many images are in each, at any depth.
    """

    images: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    folders: dict[str, list[str]] = field(default_factory=dict)
    images_in: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, root: Path) -> "Tree":
        """What lies in `root`, where folders and files may be links; raises `OSError`."""
        tree = cls()
        tree._look_into(str(root), "", set())
        return tree

    def _look_into(self, root: str, place: str, seen: set[str]) -> int:
        """Add what is in a folder of it, and give the number of images."""
        self.folders[place] = []
        real = os.path.realpath(os.path.join(root, place))
        if real in seen:  # a link back
            return 0
        seen.add(real)
        with os.scandir(os.path.join(root, place)) as entries:
            own = sorted((entry.name, entry) for entry in entries if not is_foreign(entry.name))
        for name, entry in own:
            path = os.path.join(place, name)
            if entry.is_dir():
                self.folders[place].append(name)
                self.images_in[place] += self._look_into(root, path, seen)
            # A link that leads nowhere is told when it is read; a pipe is never read.
            elif is_image(name) and (entry.is_file() or not os.path.exists(entry.path)):
                self.images.append(path)
                self.images_in[place] += 1
            else:
                self.others.append(path)
        return self.images_in[place]

    def full_folders(self, place: str) -> list[str]:
        """The names of the folders in a folder that have images in them."""
        return [name for name in self.folders[place] if self.images_in[os.path.join(place, name)]]

    def images_right_in(self, place: str) -> int:
        """How many images are in a folder and in no folder in it."""
        return self.images_in[place] - sum(
            self.images_in[os.path.join(place, name)] for name in self.folders[place]
        )


class Labelled(NamedTuple):
    """An image by its path in the data folder, with its class and its split."""

    path: str
    name: str  # below the folder of its class
    label: str
    split: str  # "train" where none is told
    group: str = ""  # of which all images are in one split, if it has one
    told: str = ""  # all that a table says of it


def find_layout(root: Path, tree: Tree) -> tuple[list[Labelled], list[str]]:
    """The images in folders of classes, some of them of "train", and what a person should know of that.

    `tree` is what lies in `root`. A folder that is called like a split is one. Raises `UserError` where it is
    not clear what is meant.
    """
    if not tree.images:
        endings = ", ".join(sorted(EXTENSIONS))
        raise UserError(f"--data_dir {root} holds no images ({endings}); expected {EXPECTED}")
    place = _unpacked(tree)
    splits = _splits(root, place, tree)
    notes = [f"splits by folders: {', '.join(f'{split} in {where}' for split, where in splits.items())}"]
    if not splits:
        splits = {"train": place}
        notes = [f"the folders in {place} are the classes"] if place else []
        _refuse_splits_within(root, place, tree)

    found: list[Labelled] = []
    unused: Counter[str] = Counter()
    folders = {f"{folder}{os.sep}" if folder else "": split for split, folder in splits.items()}
    for path in tree.images:
        folder = next((folder for folder in folders if path.startswith(folder)), None)
        name, _, inside = path[len(folder or "") :].partition(os.sep)
        if folder is not None and inside:
            found.append(Labelled(path, inside, name, folders[folder]))
        else:
            unused[os.path.dirname(path) or "the data folder"] += 1
    if unused:
        told = some((f"{number} in {where}" for where, number in unused.most_common()), PLACES_SHOWN)
        notes.append(f"not used, since in no folder of a class: {count(unused.total(), 'image')} ({told})")
    looked_at = dict.fromkeys((place, *splits.values()))
    named = [os.path.join(folder, name) for folder in looked_at for name in tree.folders[folder]]
    if empty := [folder for folder in named if not tree.images_in[folder]]:
        notes.append(f"not used, since no images are in there: {some(empty, PLACES_SHOWN)}")
    return found, notes


def _unpacked(tree: Tree) -> str:
    """The folder itself or, as archives unpack, the only one in it, and so on; not a class or a split."""
    place = ""
    while len(names := tree.full_folders(place)) == 1 and not split_of(names[0]):
        inner = os.path.join(place, names[0])
        if tree.images_right_in(place) or tree.images_right_in(inner):
            break
        place = inner
    return place


def _splits(root: Path, place: str, tree: Tree) -> dict[str, str]:
    """The folder of classes of each split, in the order of `SPLIT_NAMES`; none if no folder is called so."""
    named: dict[str, str] = {}
    for name in tree.full_folders(place):
        if (split := split_of(name)) in named:
            raise UserError(
                f"{root / place / named[split]} and {root / place / name} are both called like a {split} "
                "folder; keep one"
            )
        if split:
            named[split] = name
    if named and "train" not in named:
        raise UserError(
            f"{root / place / min(named.values())} is called like a split, and no folder beside it like that "
            "of training images; call that train or, if this is a class, rename it"
        )
    splits = {}
    for split in filter(named.__contains__, SPLIT_NAMES):
        folder = os.path.join(place, named[split])
        inner = tree.full_folders(folder)
        if len(inner) == 1 and split_of(inner[0]) == split:
            folder = os.path.join(folder, inner[0])
        if tree.full_folders(folder):
            splits[split] = folder
        elif split == "train":
            raise UserError(f"{root / folder} holds images in no folders of classes; {_instead()}")
    return splits


def _refuse_splits_within(root: Path, place: str, tree: Tree) -> None:
    """Raise `UserError` where the folders of classes, or those in them, are not what they are taken for."""
    names = tree.full_folders(place)
    if not names:
        raise UserError(f"{root / place} holds images in no folders of classes; {_instead()}")
    for name in names:
        for inner in tree.full_folders(os.path.join(place, name)):
            if split_of(inner):
                raise UserError(
                    f"{root / place / name / inner} is called like a split, but {name} like a class; "
                    f"{_instead()}"
                )


def _instead() -> str:
    return f"expected {EXPECTED}, or a table of --labels"


def split_of(name: str) -> str | None:
    """The split that a folder is called like, or None."""
    words = [word for word in re.findall(r"[^\W\d_]+", name.lower()) if word not in BESIDE]
    return next(
        (split for split, names in SPLIT_NAMES.items() if len(words) == 1 and words[0] in names), None
    )


def is_foreign(name: str) -> bool:
    """Whether a file or folder of that name is hidden, or made by a system."""
    return name.startswith(".") or name.lower() in SYSTEM_FOLDERS


def is_image(name: str) -> bool:
    """Whether a file is called like an image; whether it is one, reading it will tell."""
    return os.path.splitext(name)[1].lower() in EXTENSIONS


def passed_by(files: Iterable[str]) -> list[str]:
    """What to say of files that are not taken for images: one line, or none."""
    endings = Counter(os.path.splitext(file)[1].lower() or "none" for file in files)
    if not endings:
        return []
    told = some((f"{ending} {number}" for ending, number in endings.most_common()), 5)
    return [f"{count(endings.total(), 'file')} not taken for images, by endings: {told}"]
