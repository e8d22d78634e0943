"""Which images are tested on, and which are validated on, where no folder says so."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

PASSES = 3  # over all groups, to bring shares nearer to what they should be


def stratified_split(
    labels: np.ndarray, fraction: float, rng: np.random.Generator, groups: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Split positions 0..n-1 into two parts, the second with `fraction` of each class.

    Shares are rounded to whole images for each class; a class of two or more images has at least
    one on either side, and a class of one image has it in the first part. `labels` is [n]; both
    results are sorted int64 positions. With `groups` [n], numbers, those of one group are on one side, and
    the shares are as near as that allows.
    """
    if groups is not None:
        sides = Sides(labels, groups)
        sides.fill(fraction, rng)
        second_side = sides.second()
        return np.flatnonzero(~second_side), np.flatnonzero(second_side)
    first, second = [], []
    for label in np.unique(labels):
        positions = rng.permutation(np.flatnonzero(labels == label))
        count = min(max(round(fraction * len(positions)), 1), len(positions) - 1)
        second.append(positions[:count])
        first.append(positions[count:])
    return np.sort(np.concatenate(first)), np.sort(np.concatenate(second))


def stratified_folds(
    labels: np.ndarray, count: int, rng: np.random.Generator, groups: np.ndarray | None = None
) -> np.ndarray:
    """The fold of each of n images, int64 [n] from 0 to `count` - 1, each with about as many of a class.

    `labels` is [n]; with `groups` [n], numbers from 0, those of one group are in one fold. Large groups are
    given out first, each to the fold that has the fewest of its classes.
    """
    sides = Sides(labels, np.arange(len(labels)) if groups is None else groups)
    shuffled: list[int] = rng.permutation(len(sides.inside)).tolist()
    held = np.zeros((count, int(labels.max()) + 1), np.int64)
    fold_of = np.empty(len(shuffled), np.int64)
    for group in sorted(shuffled, key=lambda group: -sides.inside[group].total()):
        inside = sides.inside[group]
        fold = int(np.lexsort((held.sum(1), held[:, [*inside]].sum(1)))[0])
        fold_of[group] = fold
        for label, images in inside.items():
            held[fold, label] += images
    return fold_of[sides.groups]


def kept_for_test(
    names: Sequence[str], labels: np.ndarray, groups: np.ndarray, fraction: float
) -> np.ndarray:
    """Which images to test on, about a `fraction` of each class: bool [n].

    They are those of the groups whose name, hashed to a number from 0 to 1, falls below the fraction,
    whatever other images there are; but for a class of which that would leave none on one side. `names` has
    those of the groups in the order of their numbers, `groups` [n] the group of each image.
    """
    digests = (hashlib.sha256(name.encode(errors="surrogateescape")).digest() for name in names)
    numbers = np.array([int.from_bytes(digest[:8], "big") / 2**64 for digest in digests])
    order = np.argsort(numbers, kind="stable")
    sides = Sides(labels, groups)
    below = int((numbers < fraction).sum())
    for group in order[:below].tolist():
        sides.take(group)
    sides.give_each_class_some(order.tolist())
    return sides.second()


class Sides:
    """Groups of images on two sides: all are on the first, and are taken to the second.

    Each class keeps some images on the first side. `labels` [n] are classes, `groups` [n] numbers from 0.
    """

    def __init__(self, labels: np.ndarray, groups: np.ndarray):
        self.groups = groups
        self.inside: list[Counter[int]] = [Counter() for _ in range(int(groups.max()) + 1)]
        for label, group in zip(labels.tolist(), groups.tolist(), strict=True):
            self.inside[group][label] += 1
        self.total = Counter(labels.tolist())
        self.taken: Counter[int] = Counter()  # images of each class
        self.chosen = np.zeros(len(self.inside), bool)

    def second(self) -> np.ndarray:
        """Which images are on the second side, bool [n]."""
        return self.chosen[self.groups]

    def take(self, group: int) -> None:
        """Take a group to the second side, unless it is the last of a class on the first."""
        inside = self.inside[group]
        if all(self.taken[label] + count < self.total[label] for label, count in inside.items()):
            self.taken.update(inside)
            self.chosen[group] = True

    def fill(self, fraction: float, rng: np.random.Generator) -> None:
        """Take groups in random order, and put them back, where that brings the shares nearer."""
        shuffled: list[int] = rng.permutation(len(self.inside)).tolist()
        for _ in range(PASSES):
            for group in shuffled:
                if self._gain(group, fraction) > 0:
                    if self.chosen[group]:
                        self.taken.subtract(self.inside[group])
                        self.chosen[group] = False
                    else:
                        self.take(group)
        self.give_each_class_some(sorted(shuffled, key=lambda group: self.inside[group].total()))

    def _gain(self, group: int, fraction: float) -> float:
        """By how much moving a group makes the sum of squares smaller of what its classes' shares lack."""
        gain, sign = 0.0, -1 if self.chosen[group] else 1
        for label, count in self.inside[group].items():
            missing = fraction * self.total[label] - self.taken[label]
            gain += (missing**2 - (missing - sign * count) ** 2) / self.total[label] ** 2
        return gain

    def give_each_class_some(self, order: Iterable[int]) -> None:
        """For each class with nothing on the second side take the first group in the `order` that can be."""
        for group in order:
            if any(not self.taken[label] for label in self.inside[group]):
                self.take(group)
