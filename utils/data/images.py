"""Where pixels come from: a decoded store (mapped file or memory), or the image files themselves.

Both kinds of source answer `batches(index_lists)` with the same host tensors, uint8 [N, 3, S, S] in
channels_last memory order, so that nothing after them knows which one it is.
"""

import atexit
import contextlib
import itertools
import math
import mmap
import multiprocessing
import shutil
import signal
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader, get_worker_info
from torch.utils.data import Dataset as TorchDataset

from utils.console import say, warn
from utils.data.cache import cache_file, cached_images, decoded_in_memory, decoded_size
from utils.data.decode import Frame, UnreadableImage, decode
from utils.data.folders import Dataset
from utils.errors import UserError
from utils.run.cores import cores
from utils.run.signals import catch

Pixels = torch.Tensor | np.ndarray  # uint8 [N, S, S, 3]

SHARED_MEMORY = "/dev/shm"  # where Linux keeps it
SEMAPHORES, SEMAPHORES_EACH = 16, 4  # at least as many as torch's loader has for all workers, and for each

# More workers than cores are the person's choice.
warnings.filterwarnings("ignore", "This DataLoader will create")


class ImageSource(Protocol):
    """Anything that turns lists of image numbers into batches of pixels."""

    def batches(self, index_lists: Iterable[np.ndarray]) -> Iterator[torch.Tensor]:
        """One uint8 tensor [N, 3, S, S] on the host for each list of N image numbers."""
        ...


def open_images(
    dataset: Dataset,
    frame: Frame,
    cache: str,
    cache_dir: Path,
    num_workers: int | None,
    check: Callable[[], None],
) -> ImageSource:
    """The images of a data set as pixels of `frame`, kept as `cache` says: "disk", "ram", "off" or "auto".

    "auto" is on disk where that takes no more than a quarter of what is free, and says so in a line. Without
    `num_workers` a process for each core decodes then, and none where "off" was asked for. `check` is called
    between images while they are decoded and may raise to stop that.
    """
    if cache == "auto":
        cache = _disk_or_off(dataset, frame, cache_dir)
        num_workers = cores() if num_workers is None else num_workers
    match cache:
        case "disk":
            return StoredImages(*cached_images(dataset, frame, cache_dir, check))
        case "ram":
            return StoredImages(decoded_in_memory(dataset, frame, check))
        case "off":
            return DecodedImages([dataset.root / name for name in dataset.files], frame, num_workers or 0)
    raise ValueError(f"unknown cache {cache!r}")


def _disk_or_off(dataset: Dataset, frame: Frame, cache_dir: Path) -> str:
    """Where decoded images are kept without being told."""
    size = f"{decoded_size(dataset, frame) / 1e9:.2g} GB"
    if cache_file(dataset, frame, cache_dir).exists():
        say("cache", f"{size} of decoded images in {cache_dir}")
        return "disk"
    place = next(folder for folder in (cache_dir.resolve(), *cache_dir.resolve().parents) if folder.is_dir())
    free = shutil.disk_usage(place).free
    told = f"{size} of decoded images; {free / 1e9:.2g} GB are free in {cache_dir}"
    if 4 * decoded_size(dataset, frame) <= free:
        say("cache", told)
        return "disk"
    say(
        "cache",
        f"off: {told}, and they would take more than a quarter of that; images are decoded as they are "
        "needed",
    )
    return "off"


def _channels_last(pixels: np.ndarray) -> torch.Tensor:
    """[N, S, S, 3] in memory, seen as [N, 3, S, S]."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


class StoredImages:
    """Decoded images in one array [n, S, S, 3] uint8, in memory or mapped from the cache file.

    `places` [n] are those of the images in it, if they are in another order.
    """

    def __init__(self, pixels: np.ndarray, places: np.ndarray | None = None):
        self.pixels = pixels
        self.places = np.arange(len(pixels)) if places is None else places

    def batches(self, index_lists: Iterable[np.ndarray]) -> Iterator[torch.Tensor]:
        for indices in index_lists:
            batch = self.pixels[self.places[indices]]
            if isinstance(self.pixels.base, mmap.mmap):
                # The pages stay in the system's file cache, which may keep or drop them; only this
                # process lets go of them, so that its memory does not grow with the data set.
                self.pixels.base.madvise(mmap.MADV_DONTNEED)
            yield _channels_last(batch)


class DecodedImages(TorchDataset):
    """Image files decoded anew for each batch, in `num_workers` processes or, with 0, in this one.

    A file that cannot be read stops that or, with `tolerate`, is black, and `unreadable` has its number and
    the reason once its batch is handed out.
    """

    def __init__(self, paths: Sequence[Path], frame: Frame, num_workers: int, tolerate: bool = False):
        self.paths = paths
        self.frame = frame
        self.num_workers = num_workers
        self.tolerate = tolerate
        self.unreadable: dict[int, str] = {}

    def __getitem__(self, indices: np.ndarray) -> tuple[Pixels, dict[int, str]]:
        pixels = _room(len(indices), self.frame.size)
        array = np.asarray(pixels)
        unreadable = {}
        for place, index in enumerate(indices.tolist()):
            try:
                array[place] = decode(self.paths[index], self.frame)
            except UnreadableImage as error:  # raised by a worker it would arrive as a page of traceback
                array[place], unreadable[index] = 0, error.reason
        return pixels, unreadable

    def batches(self, index_lists: Iterable[np.ndarray]) -> Iterator[torch.Tensor]:
        context = "fork" if sys.platform == "linux" else None
        if self.num_workers and (reason := _no_processes(self.num_workers, context)):
            warn(f"images are decoded in one process, since no others can be started ({reason})")
            self.num_workers = 0
        loader = DataLoader(
            self,
            sampler=index_lists,  # type: ignore[arg-type]  # any iterable serves, a length is not asked for
            batch_size=None,
            num_workers=self.num_workers,
            collate_fn=_as_it_is,  # else torch would make tensors of arrays, see `_room`
            # Forks end when the run is killed; what a fork server starts, Python 3.14's choice, does not.
            multiprocessing_context=context if self.num_workers else None,
            worker_init_fn=_leave_signals_to_the_run,
            generator=torch.Generator(),  # workers draw nothing; this keeps torch's global state untouched
        )
        return itertools.starmap(self._checked, iter(loader))

    def _checked(self, pixels: Pixels, unreadable: dict[int, str]) -> torch.Tensor:
        self.unreadable |= unreadable
        for index, reason in unreadable.items() if not self.tolerate else ():
            path = self.paths[index]
            raise UserError(
                f"cannot read {path}: {reason}; remove or replace the file, or give --skip_corrupt"
            )
        return _channels_last(np.asarray(pixels))


def _no_processes(count: int, context: str | None) -> str | None:
    """Why so many cannot be started, or None: they take turns by semaphores, which lie in shared memory."""
    make = multiprocessing.get_context(context)
    try:
        _ = [make.Semaphore() for _ in range(SEMAPHORES + SEMAPHORES_EACH * count)]
    except OSError as error:
        return f"shared memory: {error.strerror}"
    return None


def _room(count: int, size: int) -> Pixels:
    """A place for images: in a worker a tensor in shared memory, or an array where no more of that is left.

    What a worker hands out is sent by a thread of torch, in shared memory if it is a tensor; where that is
    full, and containers often have 64 MB, it would never arrive. An array comes through a pipe.
    """
    shape = (count, size, size, 3)
    worker = get_worker_info()
    # Some versions of torch do not say that it is full, but are killed when they write there.
    if worker is not None and _free_shared_memory() >= worker.num_workers * math.prod(shape):
        with contextlib.suppress(RuntimeError):
            storage = torch.UntypedStorage._new_shared(math.prod(shape))  # as torch's own collating does
            return torch.empty(0, dtype=torch.uint8).set_(storage).view(shape)
    return np.empty(shape, np.uint8)


def _free_shared_memory() -> float:
    """Bytes, where the system says how many."""
    try:
        return shutil.disk_usage(SHARED_MEMORY).free
    except OSError:
        return math.inf


def _as_it_is(item: Any) -> Any:
    return item


def _leave_signals_to_the_run(worker: int) -> None:
    """Let only the run decide what a signal means that reaches every process, as Ctrl-C does.

    A worker that died of it would also make torch raise in the run, in the middle of its last save.
    """
    catch(signal.SIG_IGN)


@atexit.register
def _end_workers() -> None:
    """At exit multiprocessing would send workers the SIGTERM that they ignore, and wait for them for ever."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # where torch complains of workers that end
    for process in multiprocessing.active_children():
        process.kill()
