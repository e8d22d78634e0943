"""Images that belong to no data set: files and folders that a person names."""

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from utils.data.layout import Tree
from utils.errors import UserError
from utils.text import one_form

STANDARD_INPUT = "-"


@dataclass
class LooseImages:
    """n image files with the names to tell them by, and the classes that their folders tell.

    `labels` are int64 [n], -1 where no folder bears the name of a class. `others` are the files in folders
    that are not called like images, `foreign` what is hidden in them or made by a system.
    """

    paths: list[Path] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    labels: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    others: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)

    @property
    def labelled(self) -> bool:
        """Whether the class of any image is known."""
        return bool((self.labels >= 0).any())


def find_images(given: Sequence[str], classes: Sequence[str]) -> LooseImages:
    """The files among `given`, and all images below the folders; "-" stands for the lines of standard input.

    A file is called as it was given, an image in a folder by its path below that folder or, where that would
    make two names the same, with the folder's before it. Raises `UserError` for what is not there, and if
    there are no images. Only lines of standard input may lead nowhere: reading such a file will fail.
    """
    found = LooseImages()
    folders: list[str] = []  # that of each image, or ""
    for text in given:
        for path in standard_input() if text == STANDARD_INPUT else (text,):
            listed = text == STANDARD_INPUT
            is_folder = os.path.isdir(path)
            tree = Tree.of(Path(path)) if is_folder else Tree()
            images = tree.images
            if not (images or listed) and (is_folder or not os.path.exists(path)):
                raise UserError(
                    f"--predict {path}: no {'images there' if is_folder else 'such file or folder'}"
                )
            if not images:
                found.paths.append(Path(path))
                found.names.append(path)
                folders.append("")
                continue
            found.paths += [Path(path, image) for image in images]
            found.names += [image.replace(os.sep, "/") for image in images]
            folders += [path] * len(images)
            found.others += tree.others
            found.foreign += tree.foreign
    if not found.paths:  # nothing was listed
        raise UserError("--predict: standard input names no images")
    numbers = {one_form(name): number for number, name in enumerate(classes)}
    found.labels = np.array(
        [_label(name, numbers) if folder else -1 for name, folder in zip(found.names, folders, strict=True)]
    )
    if len({*found.names}) < len(found.names):
        found.names = [os.path.join(folder, name) for name, folder in zip(found.names, folders, strict=True)]
    return found


def standard_input() -> Iterator[str]:
    """The lines, whatever bytes a file's name has."""
    for line in sys.stdin.buffer:
        if path := os.fsdecode(line.rstrip(b"\r\n")):
            yield path


def _label(name: str, numbers: dict[str, int]) -> int:
    """The class whose name a folder on the way to the file bears, the first from above."""
    return next((numbers[part] for part in map(one_form, Path(name).parent.parts) if part in numbers), -1)
