"""Which folders hold which split and which class, in the ways in which people lay images out."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from utils.data.formats import is_image
from utils.errors import UserError
from utils.text import count, looks_of, one_form, some

# What a split's folder is called, in upper or lower case, also with a number or one of the words `BESIDE`.
SPLIT_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
BESIDE = {"seg", "set", "data", "dataset", "split", "folder", "image", "images", "img", "imgs"}
# Folders that systems and programs make, beside the hidden ones; never looked into.
SYSTEM_FOLDERS = {
    *("__macosx", "network trash folder", "temporary items"),  # macOS
    *("$recycle.bin", "recycler", "system volume information"),  # Windows
    *("lost+found", "lost.dir", "__pycache__"),
    *("@eadir", "@recycle", "@tmp", "@__thumb", "#recycle", "#snapshot"),  # network drives
}
APPLE_DOUBLE = "._"  # begins the files in which macOS keeps what a file system cannot
EXPECTED = "<class>/ folders of images, or train/<class>/ and test/<class>/"
INSTEAD = f"expected {EXPECTED}, or a table of --labels"
PLACES_SHOWN = 5


@dataclass(frozen=True)
class Tree:
    """What lies in a folder and in the folders in it, by paths in it, in the order of their parts.

    Hidden files and folders, and those that systems make, are `foreign`, and never looked into. `images` are
    the files that are called like images, `others` the rest; `folders` has the names of the folders in each
    folder, and `images_in` how many images are in each, at any depth.
    """

    images: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    folders: dict[str, list[str]] = field(default_factory=dict)
    images_in: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, root: Path) -> "Tree":
        """What lies in `root`, where folders and files may be links; raises `OSError`."""
        tree = cls()
        tree._look_into(str(root), "", (os.path.realpath(root),))
        return tree

    def _look_into(self, root: str, place: str, above: tuple[str, ...]) -> int:
        """Add what is in a folder of it, and give the number of images.

        `above` has the true paths of that folder and of those by which it was reached.
        """
        self.folders[place] = []
        with os.scandir(os.path.join(root, place)) as entries:
            inside = sorted((entry.name, entry) for entry in entries)
        for name, entry in inside:
            path = os.path.join(place, name)
            if is_foreign(name):
                self.foreign.append(path)
            elif os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir():
                true = os.path.realpath(entry.path) if entry.is_symlink() else os.path.join(above[-1], name)
                if any(os.path.join(other, "").startswith(os.path.join(true, "")) for other in above):
                    self.others.append(path)  # a link back
                    continue
                self.folders[place].append(name)
                self.images_in[place] += self._look_into(root, path, (*above, true))
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
        instead = "".join(f"; {note}" for note in passed_by(tree.others, tree.foreign))
        raise UserError(f"--data_dir {root} holds no images (.jpg, .png, ...){instead}; expected {EXPECTED}")
    place = _unpacked(tree)
    splits = _splits(root, place, tree)
    if splits:
        notes = [f"splits by folders: {', '.join(f'{split} in {where}' for split, where in splits.items())}"]
    else:
        splits = {"train": place}
        notes = [f"the folders in {place or 'it'} are the classes"]
    classes = tree.full_folders(splits["train"])
    _refuse_unlikely(root, splits["train"], classes, tree)
    within = {name for folder in classes for name in tree.full_folders(os.path.join(splits["train"], folder))}
    called = sorted({name for folder in splits.values() for name in tree.full_folders(folder)})
    if joined := [name for name, number in Counter(map(one_form, called)).items() if number > 1]:
        notes.append(f"folders whose names differ in Unicode form alone are one class: {quoted(joined)}")
    if within:
        notes.append(f"part of the classes are the folders in theirs: {some(sorted(within), PLACES_SHOWN)}")

    found: list[Labelled] = []
    unused: list[str] = []
    folders = {f"{folder}{os.sep}" if folder else "": split for split, folder in splits.items()}
    for path in tree.images:
        folder = next((folder for folder in folders if path.startswith(folder)), None)
        name, _, inside = path[len(folder or "") :].partition(os.sep)
        if folder is not None and inside:
            found.append(Labelled(path, inside, one_form(name), folders[folder]))
        else:
            unused.append(path)
    if unused:
        notes.append(f"not used, since in no folder of a class: {places(unused)}")
    above = [place[:end] for end, letter in enumerate(place) if letter == os.sep]
    looked_at = dict.fromkeys(("", *above, place, *splits.values()))
    named = [os.path.join(folder, name) for folder in looked_at for name in tree.folders[folder]]
    if empty := [folder for folder in named if not tree.images_in[folder]]:
        notes.append(f"not used, since no images are in there: {some(empty, PLACES_SHOWN)}")
    return found, notes


def _unpacked(tree: Tree) -> str:
    """The folder itself or, as archives unpack, the only one in it, and so on; not a class or a split."""
    place = ""
    while len(names := tree.full_folders(place)) == 1 and not split_of(names[0]):
        inner = os.path.join(place, names[0])
        if tree.images_right_in(inner):
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
            "of training images; call that train, or name the folder that holds both; if this is a class, "
            "rename it"
        )
    splits: dict[str, str] = {}
    for split in filter(named.__contains__, SPLIT_NAMES):
        folder = os.path.join(place, named[split])
        inner = tree.full_folders(folder)
        if len(inner) == 1 and split_of(inner[0]) == split:
            folder = os.path.join(folder, inner[0])
        inner = tree.full_folders(folder)
        if split == "train" and not inner:
            raise UserError(
                f"{root / folder} holds images in no folders of classes; if it is one, rename it; {INSTEAD}"
            )
        # One folder of another name holds images of no known class, as test/images often does.
        known = map(one_form, tree.full_folders(splits.get("train", folder)))
        if len(inner) > 1 or {*map(one_form, inner)} & {*known}:
            splits[split] = folder
    return splits


def _refuse_unlikely(root: Path, place: str, classes: list[str], tree: Tree) -> None:
    """Raise `UserError` where the folders of classes, or those in them, are not what they are taken for."""
    if not classes:
        raise UserError(f"{root / place} holds images in no folders of classes; {INSTEAD}")
    inside = {name: set(tree.full_folders(os.path.join(place, name))) for name in classes}
    for name in classes:
        if len(inside[name]) >= len(classes) - 1 > 0 and inside[name] >= {*classes} - {name}:
            raise UserError(
                f"{root / place / name} holds folders that are called like those beside it, as a copy "
                "of them would; move one away"
            )
    hints = {name: hint for name in classes if (hint := _hint_of(name))}
    for name in hints:
        alike = any(len(inside[name] & inside[other]) > 1 for other in classes if other != name)
        if alike or len({*hints.values()}) > 1:
            raise UserError(
                f"{root / place / name} would be a class, but it and what lies in it or beside it are called "
                f"like parts of a split; {INSTEAD}"
            )
    splits = list(filter(split_of, classes))
    if len(splits) > 1:
        raise UserError(f"{root / place} holds {' and '.join(splits)}, which are no classes; {INSTEAD}")
    for folder in tree.folders:
        if folder != place and f"{folder}{os.sep}".startswith(os.path.join(place, "")):
            for name in filter(split_of, tree.full_folders(folder)):
                raise UserError(
                    f"{root / folder / name} is called like a split, but lies in what would be a class; "
                    f"{INSTEAD}"
                )


def _hint_of(name: str) -> str | None:
    """How a word in a folder's name begins that may mean a split, or None."""
    hint = re.search(r"(?<![^\W\d_])(train|valid|test)", name.lower())
    return hint[0] if hint else None


def split_of(name: str) -> str | None:
    """The split that a folder is called like, or None."""
    words = [word for word in re.findall(r"[^\W\d_]+", name.lower()) if word not in BESIDE]
    return next(
        (split for split, names in SPLIT_NAMES.items() if len(words) == 1 and words[0] in names), None
    )


def is_foreign(name: str) -> bool:
    """Whether a file or folder of that name is hidden, or made by a system."""
    return name.startswith(".") or name.lower() in SYSTEM_FOLDERS


def places(images: Iterable[str]) -> str:
    """How many images there are, and where."""
    folders = Counter(os.path.dirname(image) or "the data folder" for image in images)
    told = some((f"{number} in {folder}" for folder, number in folders.most_common()), PLACES_SHOWN)
    return f"{count(folders.total(), 'image')} ({told})"


def passed_by(others: Iterable[str], foreign: Iterable[str]) -> list[str]:
    """What to say of files that are not taken for images, and of what is never looked into."""
    endings = Counter(os.path.splitext(file)[1].lower() or "none" for file in others)
    bases = map(os.path.basename, foreign)
    names = Counter(f"{APPLE_DOUBLE}*" if base.startswith(APPLE_DOUBLE) else base for base in bases)
    told = (
        (f"{count(endings.total(), 'file')} not taken for images, by endings", endings),
        ("hidden or made by a system, and never looked into", names),
    )
    return [f"{what}: {_numbers(counts)}" for what, counts in told if counts]


def _numbers(counts: Counter[str]) -> str:
    """What there is, and how many of it, the most first."""
    return some((f"{name} {number}" for name, number in counts.most_common()), PLACES_SHOWN)


def quoted(names: Iterable[str]) -> str:
    """The first names, in quotes, so that spaces at their ends are seen."""
    return some(map(repr, names), PLACES_SHOWN)


def alike(classes: Iterable[str]) -> Iterator[str]:
    """What to say of names that look alike, in quotes; nothing if none do."""
    seen: dict[str, list[str]] = {}
    for name in classes:
        seen.setdefault(looks_of(name), []).append(name)
    for names in seen.values():
        if len(names) > 1:
            yield quoted(names)
