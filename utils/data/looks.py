"""What is known of each image file, found by looking at it once and remembered while it does not change."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils.data.cache import locked, of_images, series
from utils.data.decode import THUMBNAIL_SIDE, Look, UnreadableImage, look
from utils.data.folders import Dataset
from utils.run.files import replacing

FORMAT = 1  # part of every key: raise it when `look` changes

RECORD = np.dtype(
    [
        ("key", "<u8"),
        ("content", "<u8"),
        ("width", "<i4"),
        ("height", "<i4"),
        ("colour", "u1", 2),
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
    folder.mkdir(parents=True, exist_ok=True)
    note = folder / f"{series(dataset)}.looks.npy"
    keys = _keys(dataset)
    with locked(note.with_suffix(".lock"), check):
        known = _read(note)
        missing = np.flatnonzero(~np.isin(keys, known["key"]))
        records = np.zeros(len(missing), RECORD)
        place_of = {index: place for place, index in enumerate(missing.tolist())}

        def store(index: int, found: Look) -> None:
            records[place_of[index]] = (keys[index], *found)

        unreadable = {}
        if len(missing):
            unreadable = of_images(dataset, missing.tolist(), look, store, check, "looking at images once")
        if len(unreadable) < len(missing):
            known = np.concatenate([known[np.isin(known["key"], keys)], records[records["width"] > 0]])
            known.sort(order="key")
            with replacing(note) as file:
                np.save(file, known)
    places = np.searchsorted(known["key"], keys)
    return Looks(known, places, unreadable)


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
