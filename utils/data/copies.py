"""Images that are in a data set more than once: the same file, or nearly the same picture.

A copy on both sides of a split makes a test or validation accuracy too good.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from utils.data.cache import series
from utils.data.folders import Dataset
from utils.data.looks import Looks
from utils.data.near import NEAR_FORMAT, near_pairs
from utils.run.files import replacing

ALMOST = np.float32(0.9999)  # the most similar that files of different bytes are called
PAIR = np.dtype([("contents", "<u8", 2), ("similarity", "<f4")])


class Copies(NamedTuple):
    """m pairs of images, smaller number first: [m, 2]; and how similar they are: [m], 1 for the same bytes.

    Of k files with the same bytes there are k - 1 pairs, each with the first of them; only that one is
    compared with other images. So the pairs never grow with the square of the copies.
    """

    images: np.ndarray
    similarity: np.ndarray


def find_copies(
    dataset: Dataset, looks: Looks, folder: Path, device: torch.device, check: Callable[[], None]
) -> Copies:
    """The copies among the images of a data set, all of which can be read.

    What was compared is remembered in `folder`, that of the cache, as long as no image comes or changes.
    """
    contents, first, group = np.unique(looks["content"], return_index=True, return_inverse=True)
    numbers = np.arange(len(group))
    again = numbers[first[group] != numbers]
    same = np.stack([first[group[again]], again], 1)

    key = hashlib.blake2b(f"{NEAR_FORMAT}".encode() + contents.tobytes(), digest_size=8).digest()
    note = folder / f"{series(dataset)}.pairs.npz"
    near = _read(note, key)
    if near is None:
        one_each = looks.of(first)
        found = near_pairs(one_each["thumbnail"], one_each["colour"], device, check)
        near = np.empty(len(found.similarity), PAIR)
        near["contents"], near["similarity"] = contents[found.images], found.similarity
        with replacing(note) as file:
            np.savez(file, key=np.frombuffer(key, np.uint8), pairs=near)
    other = np.sort(first[np.searchsorted(contents, near["contents"])], axis=1)
    return Copies(
        np.concatenate([same, other]),
        np.concatenate([np.ones(len(same), np.float32), np.minimum(near["similarity"], ALMOST)]),
    )


def _read(note: Path, key: bytes) -> np.ndarray | None:
    """The near pairs in a file, or None if there is none or it is of other images."""
    try:
        with np.load(note) as file:
            if file["key"].tobytes() == key and file["pairs"].dtype == PAIR:
                return file["pairs"]
    except Exception:  # whatever is wrong with the file, the answer is to compare again
        pass
    return None


def leaks(copies: Copies, dataset: Dataset) -> np.ndarray:
    """Which pairs, bool [m], have one image in "test" and the other in "train" or "val"."""
    tested = np.zeros(len(dataset.files), bool)
    tested[dataset.splits["test"]] = True
    return tested[copies.images].sum(1) == 1
