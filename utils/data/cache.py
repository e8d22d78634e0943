"""The decoded cache: every image of a data set, decoded and resized once, in one mapped file.

The file is a plain `.npy` array, uint8 [n, S, S, 3], in the order of `Dataset.files`; it holds all
splits, so every seed and every experiment on the same images shares it. Its name carries a
fingerprint of what it was made from. It is written beside its place and renamed when whole, under a
lock, so a killed build leaves nothing that could be taken for a cache, and of several runs that
start together one builds while the others wait.
"""

import glob
import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from filelock import AcquireReturnProxy, FileLock, Timeout
from tqdm import tqdm

from utils.data.decode import Frame, UnreadableImage, aspect, decode
from utils.data.folders import Dataset
from utils.errors import UserError
from utils.run.files import replacing, write_json
from utils.text import visible

FORMAT = 2  # part of every fingerprint: raise it when `decode` or the layout of the file changes
IMAGES_AT_ONCE = 256


def fingerprint(dataset: Dataset, frame: Frame) -> str:
    """A hash of the frame and of each file's name, length and time of change."""
    digest = hashlib.sha256(f"{FORMAT}\n{frame.size}{' crop' * frame.crop}{' fine' * frame.fine}\n".encode())
    for name, status in zip(dataset.files, dataset.statuses, strict=True):
        digest.update(f"{name}\0{status.length}\0{status.changed}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def unreadable_images(
    dataset: Dataset, frame: Frame, folder: Path | None, check: Callable[[], None]
) -> list[str]:
    """The files that cannot be read, found by decoding all.

    With a `folder`, that of the cache, it is done once and the answer is kept there.
    """
    if folder is None:
        return sorted(_decode_all(dataset, frame, lambda index, pixels: None, check))
    series = _series(dataset, frame)
    note = folder / f"{series}-{fingerprint(dataset, frame)[:16]}.unreadable.json"
    try:
        return _names(note)
    except (OSError, ValueError):  # there is none, or it is damaged
        pass
    found = _decode_all(dataset, frame, lambda index, pixels: None, check)
    with _instead_of_older(note, series, check):
        if all(error.lasting for error in found.values()):  # else it may be read next time
            write_json(note, sorted(found))
    return sorted(found)


def image_aspects(
    dataset: Dataset, frame: Frame, folder: Path | None, check: Callable[[], None]
) -> np.ndarray:
    """The width over the height of each image, float64 [n].

    With a `folder`, that of the cache, they are kept there. Raises `UserError` naming images that cannot be
    read.
    """
    series = _series(dataset, frame)
    note = folder / f"{series}-{fingerprint(dataset, frame)[:16]}.aspects" if folder else None
    known = _aspects(note, len(dataset.files)) if note else None
    if known is not None:
        return known
    found = np.empty(len(dataset.files))
    _refuse(_of_all(dataset, aspect, found.__setitem__, check, "measuring images once"), len(found))
    if note:
        with _instead_of_older(note, series, check), replacing(note) as file:
            np.save(file, found)
    return found


def _aspects(note: Path, count: int) -> np.ndarray | None:
    """The aspects in a file, or None if there is none or it is not what its name says."""
    try:
        found = np.load(note)
        return found if found.shape == (count,) and found.dtype == float and (found > 0).all() else None
    except Exception:  # whatever is wrong with the file, the answer is to measure again
        return None


@contextmanager
def _instead_of_older(note: Path, series: str, check: Callable[[], None]) -> Iterator[None]:
    """Hold the lock of a series, in which the notes of this kind on images as they were are gone."""
    note.parent.mkdir(parents=True, exist_ok=True)
    with _locked(note.with_name(f"{series}.lock"), check):
        for outdated in note.parent.glob(f"{glob.escape(series)}-*.{note.name.split('.', 1)[1]}"):
            outdated.unlink()
        yield


def _names(note: Path) -> list[str]:
    names = json.loads(note.read_text("utf-8"))
    if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise ValueError(names)
    return names


def _series(dataset: Dataset, frame: Frame) -> str:
    """What the files in the cache are called that hold this data folder in this frame."""
    root = dataset.root.resolve()
    place = hashlib.sha256(str(root).encode(errors="surrogateescape")).hexdigest()
    return f"{root.name[:40]}-{place[:8]}-{'crop' * frame.crop}{'fine' * frame.fine}{frame.size}px"


def cached_images(dataset: Dataset, frame: Frame, folder: Path, check: Callable[[], None]) -> np.ndarray:
    """The decoded images, uint8 [n, size, size, 3], mapped from a file under `folder`.

    Builds the file first where it is missing or damaged. `check` is called between images and may
    raise to stop the build. Raises `UserError` naming the images that cannot be read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    series = _series(dataset, frame)
    path = folder / f"{series}-{fingerprint(dataset, frame)[:16]}.npy"
    shape = (len(dataset.files), frame.size, frame.size, 3)

    pixels = _map(path, shape)
    if pixels is None:
        with _locked(folder / f"{series}.lock", check):
            pixels = _map(path, shape)  # another run may have built it while this one waited
            if pixels is None:
                _build(path, dataset, frame, shape, check)
                for other in folder.glob(f"{glob.escape(series)}-*.npy"):
                    if other != path:
                        print(f"cache: the images changed; removed the outdated {visible(other)}")
                        other.unlink()
                pixels = _map(path, shape)
    assert pixels is not None
    return pixels


def decoded_in_memory(dataset: Dataset, frame: Frame, check: Callable[[], None]) -> np.ndarray:
    """The decoded images, uint8 [n, size, size, 3], in memory; raises as `cached_images` does."""
    try:
        pixels = np.empty((len(dataset.files), frame.size, frame.size, 3), np.uint8)
    except MemoryError as error:
        raise UserError(f"--cache ram: {error}; use --cache disk") from error
    _refuse(_decode_all(dataset, frame, pixels.__setitem__, check), len(dataset.files))
    return pixels


def _map(path: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    """The array in the file, or None if there is none or it is not what its name says."""
    try:
        pixels = np.lib.format.open_memmap(path, mode="r")
        if pixels.shape == shape and pixels.dtype == np.uint8:
            return pixels
    except FileNotFoundError:
        return None
    except Exception:
        pass  # whatever is wrong with the file, the answer is to build it again
    print(f"cache: {visible(path)} is damaged; building it again")
    return None


def _locked(path: Path, check: Callable[[], None]) -> AcquireReturnProxy:
    """Hold the lock, saying so when that means waiting for another run."""
    lock = FileLock(path)
    waiting = False
    while True:
        try:
            return lock.acquire(timeout=0.2)
        except Timeout:
            check()
            if not waiting:
                print(f"cache: waiting for another run that is building in {visible(path.parent)}")
                waiting = True


def _build(
    path: Path, dataset: Dataset, frame: Frame, shape: tuple[int, ...], check: Callable[[], None]
) -> None:
    with replacing(path) as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        file.flush()
        start, length = file.tell(), math.prod(shape[1:])
        _reserve(file.fileno(), start + len(dataset.files) * length, path.parent)

        def write(index: int, pixels: np.ndarray) -> None:
            os.pwrite(file.fileno(), pixels.data, start + index * length)

        _refuse(_decode_all(dataset, frame, write, check), len(dataset.files))


def _reserve(descriptor: int, length: int, folder: Path) -> None:
    """Take the disk space before the work of decoding, so that a full disk is told at once."""
    try:
        if hasattr(os, "posix_fallocate"):  # Linux
            os.posix_fallocate(descriptor, 0, length)
    except OSError as error:
        raise UserError(
            f"the decoded cache needs {length / 1e9:.2f} GB in {folder}: {error.strerror}; "
            "name another --cache_dir, or use --cache off"
        ) from error


def _decode_all(
    dataset: Dataset, frame: Frame, store: Callable[[int, np.ndarray], None], check: Callable[[], None]
) -> dict[str, UnreadableImage]:
    """Decode every image and `store` its pixels; returns the files that cannot be read, and why."""
    return _of_all(dataset, lambda path: decode(path, frame), store, check, "decoding images once")


def _of_all(
    dataset: Dataset,
    read: Callable[[Path], Any],
    store: Callable[[int, Any], None],
    check: Callable[[], None],
    words: str,
) -> dict[str, UnreadableImage]:
    """`read` every image, in threads since Pillow works outside Python's lock, and `store` what comes of it.

    Returns the files that cannot be read, and why.
    """
    unreadable: dict[str, UnreadableImage] = {}

    def read_one(index: int) -> None:
        name = dataset.files[index]
        try:
            store(index, read(dataset.root / name))
        except UnreadableImage as error:
            unreadable[name] = error

    count = len(dataset.files)
    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,
        tqdm(total=count, desc=words, unit=" images", disable=None, leave=False) as bar,
    ):
        for first in range(0, count, IMAGES_AT_ONCE):
            for _ in pool.map(read_one, range(first, min(first + IMAGES_AT_ONCE, count))):
                bar.update()
                check()
    return unreadable


def check_images(dataset: Dataset, frame: Frame, check: Callable[[], None]) -> None:
    """Decode every image; raises `UserError` naming those that cannot be read."""
    _refuse(_decode_all(dataset, frame, lambda index, pixels: None, check), len(dataset.files))


def _refuse(unreadable: dict[str, UnreadableImage], count: int) -> None:
    if unreadable:
        raise UserError(
            f"{len(unreadable)} of {count} images cannot be read; remove or replace them, or go on without "
            f"them with --skip_corrupt: {'; '.join(sorted(map(str, unreadable.values())))}"
        )
