"""Batches on the device: which images each step sees, gathered and copied ahead of use."""

import itertools
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import TypeVar

import numpy as np
import torch

from utils.data.images import ImageSource
from utils.run.randomness import generator
from utils.run.transfer import pinned

Item = TypeVar("Item")
Batch = tuple[torch.Tensor, torch.Tensor, np.ndarray]  # images, labels, and on the host the aspects
CopiedBatch = tuple[Batch, "torch.cuda.Event | None"]

BATCHES_AHEAD = 2
SECONDS_BETWEEN_CHECKS = 0.2
SECONDS_TO_END = 5.0


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

    `check` is called before each batch is handed out and may raise to stop the run there. `aspects` [n] are
    the widths over heights of what squeezed images show; without them they are not squeezed.
    """

    def __init__(
        self,
        source: ImageSource,
        labels: np.ndarray,
        device: torch.device,
        check: Callable[[], None],
        aspects: np.ndarray | None = None,
    ):
        self.source = source
        self.labels = torch.from_numpy(labels)
        self.aspects = np.ones(len(labels)) if aspects is None else aspects
        self.device = device
        self.check = check
        self.copies = copy_stream(device) if device.type == "cuda" else None

    def __call__(self, index_lists: Iterable[np.ndarray]) -> Iterator[Batch]:
        """(images uint8 [N, 3, S, S] channels_last, labels int64 [N], aspects [N]) for lists of N numbers.

        Later batches are gathered and copied by a thread while earlier ones are in use.
        """
        for_images, for_labels, for_aspects = itertools.tee(index_lists, 3)
        images = self.source.batches(for_images)  # may start processes, so it comes before any thread
        labels = (self.labels[torch.from_numpy(indices)] for indices in for_labels)
        aspects = (self.aspects[indices] for indices in for_aspects)
        batches = zip(images, labels, aspects, strict=True)
        return self._handed_out(_ahead(self._copied(batches), self.check))

    def _handed_out(self, batches: Iterator[CopiedBatch]) -> Iterator[Batch]:
        for (images, labels, aspects), copied in batches:
            self.check()
            if copied is None:
                images, labels = images.to(self.device), labels.to(self.device)
            else:
                stream = torch.cuda.current_stream(self.device)
                stream.wait_event(copied)
                for tensor in (images, labels):
                    tensor.record_stream(stream)  # its memory is not reused before this stream is done
            yield images, labels, aspects

    def _copied(self, batches: Iterable[Batch]) -> Iterator[CopiedBatch]:
        """Each batch on the CUDA device, with the event that ends its copy; on others as it is, and None."""
        if self.copies is None:
            for batch in batches:
                yield batch, None
            return
        torch.cuda.set_device(self.device)  # of this thread, which else begins with the first
        for images, labels, aspects in batches:
            with torch.cuda.stream(self.copies):
                images, labels = (
                    pinned(tensor, self.device).to(self.device, non_blocking=True)
                    for tensor in (images, labels)
                )
                copied = self.copies.record_event()
            yield (images, labels, aspects), copied


@lru_cache
def copy_stream(device: torch.device) -> torch.cuda.Stream:
    """Where copies to a card overlap with the computation on its current stream.

    One for all that is ever loaded, since torch keeps memory that was freed on a stream for that stream.
    """
    return torch.cuda.Stream(device)


def _ahead(items: Iterator[Item], check: Callable[[], None]) -> Iterator[Item]:
    """The same items, made by a thread that runs at most `BATCHES_AHEAD` of them ahead.

    `check` is called while an item is waited for, and may raise to stop that.
    """
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
            try:
                kind, value = made.get(timeout=SECONDS_BETWEEN_CHECKS)
            except queue.Empty:
                check()
                continue
            if kind == "end":
                return
            if kind == "error":
                raise value
            yield value
    finally:
        abandoned.set()
        thread.join(SECONDS_TO_END)  # it may wait for workers that never answer
