"""Batches on the device: which images each step sees, gathered and copied ahead of use."""

import itertools
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import numpy as np
import torch

from utils.data.images import ImageSource
from utils.run.randomness import generator
from utils.run.transfer import pinned

Item = TypeVar("Item")
Batch = tuple[torch.Tensor, torch.Tensor]
CopiedBatch = tuple[Batch, "torch.cuda.Event | None"]

BATCHES_AHEAD = 2


def steps_per_epoch(images: int, batch_size: int) -> int:
    """How many steps show each of `images` images once."""
    return -(-images // batch_size)


def training_order(
    indices: np.ndarray, batch_size: int, seed: int, first_step: int, last_step: int
) -> Iterator[np.ndarray]:
    """The image numbers of each step in [first_step, last_step), across epochs.

    An epoch is a permutation of `indices` drawn from (seed, epoch) and cut into batches as equal as
    they can be, of at most `batch_size`: all images are seen once, and no step has to make do with
    a small rest that would weigh as much as a full batch.
    """
    steps = steps_per_epoch(len(indices), batch_size)
    for step in range(first_step, last_step):
        epoch, position = divmod(step, steps)
        if position == 0 or step == first_step:
            batches = np.array_split(generator(seed, "order", epoch).permutation(indices), steps)
        yield batches[position]


def in_order(indices: np.ndarray, batch_size: int) -> Iterator[np.ndarray]:
    """`indices` as they come, in batches of `batch_size` and a rest: the order of evaluation."""
    return iter(np.split(indices, range(batch_size, len(indices), batch_size)))


class Loader:
    """Turns lists of image numbers into batches on the device.

    `check` is called before each batch is handed out and may raise to stop the run there.
    """

    def __init__(
        self, source: ImageSource, labels: np.ndarray, device: torch.device, check: Callable[[], None]
    ):
        self.source = source
        self.labels = torch.from_numpy(labels)
        self.device = device
        self.check = check
        # Copies overlap with the computation on the current stream. One for all that is ever loaded, since
        # torch keeps memory that was freed on a stream for that stream.
        self.copies = torch.cuda.Stream(device) if device.type == "cuda" else None

    def __call__(self, index_lists: Iterable[np.ndarray]) -> Iterator[Batch]:
        """(images uint8 [N, 3, S, S] channels_last, labels int64 [N]) for each list of N numbers.

        Later batches are gathered and copied by a thread while earlier ones are in use.
        """
        for_images, for_labels = itertools.tee(index_lists)
        images = self.source.batches(for_images)  # may start processes, so it comes before any thread
        labels = (self.labels[torch.from_numpy(indices)] for indices in for_labels)
        return self._handed_out(_ahead(self._copied(zip(images, labels, strict=True))))

    def _handed_out(self, batches: Iterator[CopiedBatch]) -> Iterator[Batch]:
        for batch, copied in batches:
            self.check()
            if copied is None:
                batch = tuple(tensor.to(self.device) for tensor in batch)
            else:
                stream = torch.cuda.current_stream(self.device)
                stream.wait_event(copied)
                for tensor in batch:
                    tensor.record_stream(stream)  # its memory is not reused before this stream is done
            yield batch

    def _copied(self, batches: Iterable[Batch]) -> Iterator[CopiedBatch]:
        """Each batch on the CUDA device, with the event that ends its copy; on others as it is, and None."""
        if self.copies is None:
            for batch in batches:
                yield batch, None
            return
        torch.cuda.set_device(self.device)  # of this thread, which else begins with the first
        for images, labels in batches:
            with torch.cuda.stream(self.copies):
                batch = tuple(
                    pinned(tensor, self.device).to(self.device, non_blocking=True)
                    for tensor in (images, labels)
                )
                copied = self.copies.record_event()
            yield batch, copied


def _ahead(items: Iterator[Item]) -> Iterator[Item]:
    """The same items, made by a thread that runs at most `BATCHES_AHEAD` of them ahead."""
    made: queue.Queue = queue.Queue(BATCHES_AHEAD)
    abandoned = threading.Event()

    def offer(kind: str, value: object) -> bool:
        while not abandoned.is_set():
            try:
                made.put((kind, value), timeout=0.1)
                return True
            except queue.Full:
                pass
        return False

    def make() -> None:
        try:
            for item in items:
                if not offer("item", item):
                    return
            offer("end", None)
        except BaseException as error:
            offer("error", error)

    thread = threading.Thread(target=make, name="batches ahead", daemon=True)
    thread.start()
    try:
        while True:
            kind, value = made.get()
            if kind == "end":
                return
            if kind == "error":
                raise value
            yield value
    finally:
        abandoned.set()
        thread.join()
