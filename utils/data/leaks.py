"""Images that are in more than one split, which make a test or validation accuracy too good."""

import hashlib
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from utils.data.folders import Dataset

TAIL = 4096  # bytes at a file's end; different images of one length differ there


def leaks(dataset: Dataset) -> list[tuple[str, str]]:
    """Pairs of files with the same bytes, the first in "train" or "val" and the second in "test".

    Whole files are hashed only where their lengths and their ends are the same, so that this takes a
    fraction of the time of reading them all.
    """
    test = {dataset.files[index] for index in dataset.splits["test"]}
    groups = [list(dataset.files)]
    for key in (_length, _end, _hash):
        groups = [
            found
            for names in groups
            for found in _alike(dataset.root, names, key)
            if 0 < len(test & {*found}) < len(found)
        ]
    return [(a, b) for names in groups for a in names if a not in test for b in names if b in test]


def _alike(root: Path, names: list[str], key: Callable[[Path], object]) -> list[list[str]]:
    found = defaultdict(list)
    for name in names:
        try:
            found[key(root / name)].append(name)
        except OSError:
            continue  # whoever reads the images will name it
    return list(found.values())


def _length(path: Path) -> int:
    return path.stat().st_size


def _end(path: Path) -> bytes:
    with open(path, "rb") as file:
        file.seek(max(path.stat().st_size - TAIL, 0))
        return file.read()


def _hash(path: Path) -> bytes:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
