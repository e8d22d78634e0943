"""Images that belong to no data set: files and folders that a person names."""

import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from utils.data.folders import files_below, is_image
from utils.errors import UserError

STANDARD_INPUT = "-"


@dataclass
class LooseImages:
    """n image files with the names to tell them by, and the classes that their folders tell.

    `labels` are int64 [n], -1 where no folder bears the name of a class. `passed_by` counts the files in
    folders that are not called like images, by their endings.
    """

    paths: list[Path] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    labels: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    passed_by: Counter[str] = field(default_factory=Counter)

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
            files = sorted(files_below(Path(path))) if is_folder else []
            images = list(filter(is_image, files))
            if not (images or listed) and (is_folder or not os.path.exists(path)):
                raise UserError(
                    f"--predict {path}: no {'images there' if is_folder else 'such file or folder'}"
                )
            if not images:
                found.paths.append(Path(path))
                found.names.append(path)
                folders.append("")
                continue
            found.paths += images
            found.names += [image.relative_to(path).as_posix() for image in images]
            folders += [path] * len(images)
            taken = set(images)
            found.passed_by.update(file.suffix.lower() for file in files if file not in taken)
    if not found.paths:  # nothing was listed
        raise UserError("--predict: standard input names no images")
    numbers = {name: number for number, name in enumerate(classes)}
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
    return next((numbers[part] for part in Path(name).parent.parts if part in numbers), -1)
