"""What is known of each image file, found by looking at it once and remembered while it does not change."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from utils.data.cache import of_images, remembering, series
from utils.data.decode import THUMBNAIL_SIDE, Look, UnreadableImage, look
from utils.data.folders import Dataset
from utils.text import count

FEW_BITS, RARE = 6, 0.1  # of the upper 8 bits, and of the images that have more than 8
KEPT_AT_ONCE = 50_000  # images, after which what is known is written
FORMAT = 2  # part of every key: raise it when `look` changes

RECORD = np.dtype(
    [
        ("key", "<u8"),
        ("content", "<u8"),
        ("width", "<i4"),
        ("height", "<i4"),
        ("colour", "u1", 2),
        ("bits_used", "u1"),
        ("thumbnail", "u1", (THUMBNAIL_SIDE, THUMBNAIL_SIDE)),
    ]
)


@dataclass(frozen=True)
class Looks:
    """What is known of n images: records of `RECORD`, of which the image's number `places` tells its own.

    They are what `look` finds. Images that cannot be read have none, but a reason in `unreadable`, by name.
    """

    records: np.ndarray
    places: np.ndarray
    unreadable: dict[str, UnreadableImage]

    def of(self, numbers: np.ndarray | slice) -> "Looks":
        """The same of some of the images, which can be read."""
        return Looks(self.records, self.places[numbers], {})

    def __getitem__(self, column: str) -> np.ndarray:
        """A column of the records, for each image."""
        return self.records[column][self.places]


def look_at(dataset: Dataset, folder: Path, check: Callable[[], None]) -> Looks:
    """Look at the images of a data set, but not again at those that did not change.

    What is known is kept in `folder`, that of the cache, and taken for true of a file of the same name,
    length and time of change. `check` is called between images and may raise to stop. An image that could not
    be read is looked at again each time, since the reason may have been anything.
    """
    note = folder / f"{series(dataset)}.looks.npy"
    keys = _keys(dataset)
    unreadable: dict[str, UnreadableImage] = {}
    with remembering(note, check) as write:
        known = _read(note)
        missing = np.flatnonzero(~np.isin(keys, known["key"]))
        for first in range(0, len(missing), KEPT_AT_ONCE):
            numbers = missing[first : first + KEPT_AT_ONCE]
            records, bad = _look_at(dataset, numbers.tolist(), keys, check)
            unreadable |= bad
            if len(records):
                known = np.concatenate([_worth_keeping(known, keys), records])
                known.sort(order="key")
                write(partial(np.save, arr=known))
    return Looks(known, np.searchsorted(known["key"], keys), unreadable)


def unused_bits(looks: Looks) -> str | None:
    """What to say of images whose levels have more than 8 bits, if in many the upper ones are not used."""
    bits = looks["bits_used"]
    deep, few = int((bits > 0).sum()), (bits > 0) & (bits <= FEW_BITS)
    if few.sum() <= RARE * deep:
        return None
    return (
        f"{int(few.sum())} of {count(deep, 'image')} with levels of more than 8 bits use the lower ones "
        f"only: at most {2 ** int(bits[few].max())} of 256 shades are left of them; stretch their levels"
    )


def _look_at(
    dataset: Dataset, numbers: list[int], keys: np.ndarray, check: Callable[[], None]
) -> tuple[np.ndarray, dict[str, UnreadableImage]]:
    """The records of some images, and which of them cannot be read."""
    records = np.zeros(len(numbers), RECORD)
    places = {number: place for place, number in enumerate(numbers)}

    def store(number: int, found: Look) -> None:
        records[places[number]] = (keys[number], *found)

    unreadable = of_images(dataset, numbers, look, store, check, "looking at images once")
    return records[records["width"] > 0], unreadable


def _worth_keeping(known: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """The records without those of images that are not there, if they are too many: tables may take turns."""
    return known if len(known) <= 3 * len(keys) else known[np.isin(known["key"], keys)]


def _keys(dataset: Dataset) -> np.ndarray:
    """A hash of the name, length and time of change of each file, uint64 [n]."""
    parts = (
        f"{FORMAT}\0{name}\0{status.length}\0{status.changed}".encode(errors="surrogateescape")
        for name, status in zip(dataset.files, dataset.statuses, strict=True)
    )
    digests = b"".join(hashlib.blake2b(part, digest_size=8).digest() for part in parts)
    return np.frombuffer(digests, "<u8")


def _read(note: Path) -> np.ndarray:
    """The records in a file, by their keys; none if it is damaged or not there."""
    try:
        known = np.load(note, mmap_mode="r")
        if known.dtype == RECORD and known.ndim == 1 and (known["key"][1:] > known["key"][:-1]).all():
            return known
    except Exception:  # whatever is wrong with the file, the answer is to look again
        pass
    return np.empty(0, RECORD)
