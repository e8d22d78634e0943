"""Images that are in a data set more than once: the same file, or nearly the same picture.

A copy on both sides of a split makes a test or validation accuracy too good.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from utils.data.cache import remembering, series
from utils.data.folders import Dataset
from utils.data.looks import Looks
from utils.data.near import NEAR_FORMAT, near_pairs
from utils.text import count, some

PAIRS_SHOWN = 20
SURELY = 0.97  # a similarity that few different images have
ALMOST = np.float32(0.9999)  # the most similar that files of different bytes are called
PAIR = np.dtype([("contents", "<u8", 2), ("similarity", "<f4")])


class Copies(NamedTuple):
    """m pairs of images, smaller number first: [m, 2]; and how similar they are: [m], 1 for the same bytes.

    Of k files with the same bytes there are k - 1 pairs, each with the first of them; only that one is
    compared with other images. So the pairs never grow with the square of the copies.
    """

    images: np.ndarray
    similarity: np.ndarray

    def groups(self, groups: np.ndarray) -> np.ndarray:
        """The groups [n] of images, those joined that have surely copies of each other.

        By pairs that are only nearly alike, images that are alike by nature would become one large group.
        """
        return joined(self.images[self.similarity >= SURELY], groups)


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

    key = hashlib.blake2b(f"{NEAR_FORMAT}".encode() + contents.tobytes(), digest_size=8)
    note = folder / f"{series(dataset)}-{key.hexdigest()}.pairs.npy"
    with remembering(note, check) as write:
        near = _read(note)
        if near is None:
            one_each = looks.of(first)
            found = near_pairs(one_each["thumbnail"], one_each["colour"], device, check)
            near = np.empty(len(found.similarity), PAIR)
            near["contents"], near["similarity"] = contents[found.images], found.similarity
            write(partial(np.save, arr=near))
    other = np.sort(first[np.searchsorted(contents, near["contents"])], axis=1)
    return Copies(
        np.concatenate([same, other]),
        np.concatenate([np.ones(len(same), np.float32), np.minimum(near["similarity"], ALMOST)]),
    )


def _read(note: Path) -> np.ndarray | None:
    """The near pairs in a file, or None if there is none or it is damaged."""
    try:
        near = np.load(note)
        return near if near.dtype == PAIR and near.ndim == 1 else None
    except Exception:  # whatever is wrong with the file, the answer is to compare again
        return None


class Leaks(NamedTuple):
    """The numbers [m] of images, of others that they are copies of, and whether they are to the byte."""

    leaked: np.ndarray
    other: np.ndarray
    same: np.ndarray


def leaks(copies: Copies, dataset: Dataset, tested: str, seen: Sequence[str]) -> Leaks:
    """The images of a split that are, or nearly are, images of others, the `seen`, or copies of these."""
    images, splits = len(dataset.files), dataset.split_names()
    is_seen = np.isin(splits, seen)

    def first_seen(groups: np.ndarray) -> np.ndarray:
        """Of each group the first image that is seen, or `images`."""
        first = np.full(images, images)
        np.minimum.at(first, groups[is_seen], np.flatnonzero(is_seen))
        return first

    same_bytes = joined(copies.images[copies.similarity == 1], np.arange(images))
    same = first_seen(same_bytes)[same_bytes]
    groups = copies.groups(np.arange(images))
    first = first_seen(groups)
    near = first.copy()
    a, b = groups[copies.images].T
    np.minimum.at(near, a, first[b])
    np.minimum.at(near, b, first[a])
    near = near[groups]
    leaked = np.flatnonzero((splits == tested) & (near < images))
    is_same = same[leaked] < images
    return Leaks(leaked, np.where(is_same, same[leaked], near[leaked]), is_same)


def under_two_labels(copies: Copies, dataset: Dataset) -> Leaks:
    """The images that are, or surely are nearly, another one with another label, the one most alike."""
    a, b = dataset.labels[copies.images].T
    chosen = np.flatnonzero((a != b) & (copies.similarity >= SURELY))
    most_alike = chosen[np.argsort(-copies.similarity[chosen], kind="stable")]
    again, which = np.unique(copies.images[most_alike, 1], return_index=True)
    pairs = most_alike[which]
    return Leaks(again, copies.images[pairs, 0], copies.similarity[pairs] == 1)


def misplaced(copies: Copies, dataset: Dataset) -> Iterator[str]:
    """What to say of images on two sides of a split, or under two labels, to the byte or nearly."""
    of_test = leaks(copies, dataset, "test", ("train", "val"))
    yield from _told(of_test, dataset, "test image", "trained or validated on", "the accuracy too good")
    of_val = leaks(copies, dataset, "val", ("train",))
    yield from _told(of_val, dataset, "validation image", "trained on", "the validation accuracy too good")
    twice = under_two_labels(copies, dataset)
    yield from _told(twice, dataset, "image", "under another label", "one of the two wrong")


def _told(found: Leaks, dataset: Dataset, what: str, where: str, effect: str) -> Iterator[str]:
    """That images are also `where`, and then that some look nearly the same as one there."""

    def named(number: int) -> str:
        return f"{dataset.files[number]} ({dataset.classes[dataset.labels[number]]})"

    alike = ("looks nearly the same as one that is", "look nearly the same as others that are")
    for chosen, verbs, means, word in (
        (found.same, ("is also", "are also"), "makes", "is"),
        (~found.same, alike, "may make", "is like"),
    ):
        if number := int(chosen.sum()):
            pairs = zip(found.leaked[chosen], found.other[chosen], strict=True)
            told = some((f"{named(a)} {word} {named(b)}" for a, b in pairs), PAIRS_SHOWN, "; ")
            yield f"{count(number, what)} {verbs[number > 1]} {where}, which {means} {effect}: {told}"


def joined(pairs: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """The groups [n], numbers from 0, of which those are one that pairs [m, 2] of images connect."""
    parent = list(range(int(groups.max()) + 1))

    def root(group: int) -> int:
        while parent[group] != group:
            parent[group] = parent[parent[group]]
            group = parent[group]
        return group

    for a, b in groups[pairs].tolist():
        parent[root(a)] = root(b)
    roots = np.array([root(group) for group in range(len(parent))])
    return np.unique(roots, return_inverse=True)[1][groups]
