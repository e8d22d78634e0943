"""The decoded cache: every image of a data set, decoded and resized once, in one mapped file.

The file is a plain `.npy` array, uint8 [n, S, S, 3], in the order of the files' names; it holds all
splits, so every experiment on the same images shares it, however they are split. Its name carries a
fingerprint of what it was made from. It is written beside its place and renamed when whole, under a
lock, so a killed build leaves nothing that could be taken for a cache, and of several runs that
start together one builds while the others wait.
"""

import glob
import hashlib
import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from tqdm import tqdm

from utils.console import say
from utils.data.decode import Frame, UnreadableImage, decode
from utils.data.folders import Dataset
from utils.errors import UserError
from utils.run.cores import cores
from utils.run.files import replacing
from utils.run.lock import hold_in_turn

FORMAT = 3  # part of every fingerprint: raise it when `decode` or the layout of the file changes
IMAGES_AT_ONCE = 256


def fingerprint(dataset: Dataset, frame: Frame) -> str:
    """A hash of the frame and of each file's name, length and time of change."""
    digest = hashlib.sha256(f"{FORMAT}\n{frame.size}{' crop' * frame.crop}{' fine' * frame.fine}\n".encode())
    for name, status in sorted(zip(dataset.files, dataset.statuses, strict=True)):
        digest.update(f"{name}\0{status.length}\0{status.changed}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def series(dataset: Dataset) -> str:
    """What the files in the cache are called that are about this data folder."""
    root = dataset.root.resolve()
    place = hashlib.sha256(str(root).encode(errors="surrogateescape")).hexdigest()
    return f"{root.name[:40]}-{place[:8]}"


def _of_frame(dataset: Dataset, frame: Frame) -> str:
    """What those are called that have its images in this frame."""
    return f"{series(dataset)}-{'crop' * frame.crop}{'fine' * frame.fine}{frame.size}px"


def cache_file(dataset: Dataset, frame: Frame, folder: Path) -> Path:
    """Where the decoded images are or will be."""
    return folder / f"{_of_frame(dataset, frame)}-{fingerprint(dataset, frame)[:16]}.npy"


def decoded_size(dataset: Dataset, frame: Frame) -> int:
    """How many bytes they take."""
    return len(dataset.files) * frame.size**2 * 3


def cached_images(
    dataset: Dataset, frame: Frame, folder: Path, check: Callable[[], None]
) -> tuple[np.ndarray, np.ndarray]:
    """Decoded images [n, size, size, 3], uint8, mapped from a file in `folder`, and their places in it [n].

    Builds the file first where it is missing or damaged. `check` is called between images and may
    raise to stop the build. Raises `UserError` naming the images that cannot be read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = cache_file(dataset, frame, folder)
    shape = (len(dataset.files), frame.size, frame.size, 3)
    places = np.empty(len(dataset.files), np.int64)
    places[sorted(range(len(places)), key=dataset.files.__getitem__)] = np.arange(len(places))

    pixels = _map(path, shape)
    if pixels is None:
        with hold_in_turn(folder / f"{_of_frame(dataset, frame)}.lock", "cache", check):
            pixels = _map(path, shape)  # another run may have built it while this one waited
            if pixels is None:
                _build(path, dataset, frame, shape, places, check)
                for other in folder.glob(f"{glob.escape(_of_frame(dataset, frame))}-*.npy"):
                    if other != path:
                        say("cache", f"removed {other}, of other images or of these before a change")
                        other.unlink()
                pixels = _map(path, shape)
    assert pixels is not None
    return pixels, places


def decoded_in_memory(dataset: Dataset, frame: Frame, check: Callable[[], None]) -> np.ndarray:
    """The decoded images, uint8 [n, size, size, 3], in memory; raises as `cached_images` does."""
    try:
        pixels = np.empty((len(dataset.files), frame.size, frame.size, 3), np.uint8)
    except MemoryError as error:
        raise UserError(f"--cache ram: {error}; use --cache disk") from error
    refuse(_decode_all(dataset, frame, pixels.__setitem__, check), len(dataset.files))
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
    say("cache", f"{path} is damaged; building it again")
    return None


@contextmanager
def remembering(note: Path, check: Callable[[], None]) -> Iterator[Callable[[Callable[[IO], None]], None]]:
    """Hold the lock of a file of what can be found anew, and give what writes it.

    A folder that cannot be written, or is full, is told and stops nothing.
    """

    def write(save: Callable[[IO], None]) -> None:
        try:
            with replacing(note) as file:
                save(file)
        except OSError as error:
            forgotten(error)

    def forgotten(error: OSError) -> None:
        reason = error.strerror or "it took no more"
        say("cache", f"{note} cannot be written ({reason}), so this is found anew each time")

    with ExitStack() as stack:
        try:
            note.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(hold_in_turn(note.with_suffix(".lock"), "cache", check))
        except OSError as error:
            forgotten(error)
            yield lambda save: None
            return
        yield write


def _build(
    path: Path,
    dataset: Dataset,
    frame: Frame,
    shape: tuple[int, ...],
    places: np.ndarray,
    check: Callable[[], None],
) -> None:
    with replacing(path) as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        file.flush()
        start, length = file.tell(), math.prod(shape[1:])
        _reserve(file.fileno(), start + len(dataset.files) * length, path.parent)

        def write(index: int, pixels: np.ndarray) -> None:
            os.pwrite(file.fileno(), pixels.data, start + int(places[index]) * length)

        refuse(_decode_all(dataset, frame, write, check), len(dataset.files))


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
    numbers = range(len(dataset.files))
    return of_images(dataset, numbers, lambda path: decode(path, frame), store, check, "decoding images once")


def of_images(
    dataset: Dataset,
    numbers: Sequence[int],
    read: Callable[[Path], Any],
    store: Callable[[int, Any], None],
    check: Callable[[], None],
    words: str,
) -> dict[str, UnreadableImage]:
    """`read` images, in threads since Pillow works outside Python's lock, and `store` what comes of it.

    Returns the files that cannot be read, and why.
    """
    unreadable: dict[str, UnreadableImage] = {}

    def read_one(index: int) -> None:
        name = dataset.files[index]
        try:
            store(index, read(dataset.root / name))
        except UnreadableImage as error:
            unreadable[name] = error

    count = len(numbers)
    with (
        ThreadPoolExecutor(cores()) as pool,
        tqdm(total=count, desc=words, unit=" images", disable=None, leave=False) as bar,
    ):
        for first in range(0, count, IMAGES_AT_ONCE):
            for _ in pool.map(read_one, numbers[first : first + IMAGES_AT_ONCE]):
                bar.update()
                check()
    return unreadable


def refuse(unreadable: dict[str, UnreadableImage], count: int) -> None:
    """Raise `UserError` naming the images that cannot be read, if there are any."""
    if unreadable:
        raise UserError(
            f"{len(unreadable)} of {count} images cannot be read; remove or replace them, or go on without "
            f"them with --skip_corrupt: {'; '.join(sorted(map(str, unreadable.values())))}"
        )
