"""Which images of a step's whole batch a process trains on, and where they stand in it."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from utils.run.transfer import pinned


class WholeBatch:
    """All images of a step, which go through the network in at most `accumulate` batches."""

    places: np.ndarray | None = None  # of the images that are trained on; None are all
    at_hand: np.ndarray | None = None  # of those that are loaded

    def __init__(self, count: int, accumulate: int):
        self.count = count
        self.batches = min(accumulate, count)

    def own(self, loaded: torch.Tensor) -> torch.Tensor:
        """Of what is loaded, [N, ...], what is trained on."""
        return loaded

    def split(self, tensor: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """What is trained on, [N, ...], by the batches that go through the network."""
        return tensor.tensor_split(self.batches)  # as equal as they can be


class PartOfBatch(WholeBatch):
    """The part of one of several processes: of each batch that goes through the network a piece.

    The pieces are as equal as they can be. To be mixed, they are loaded with the image after each, so that
    what comes after an image is the same as in the whole batch; after the last comes the first.
    """

    def __init__(self, count: int, accumulate: int, rank: int, size: int, mixed: bool):
        super().__init__(count, accumulate)
        batches = np.array_split(np.arange(count), self.batches)
        pieces = [np.array_split(batch, size)[rank] for batch in batches]
        self.lengths = [len(piece) for piece in pieces]
        self.places = np.concatenate(pieces)
        self.at_hand = np.union1d(self.places, (self.places + 1) % count) if mixed else self.places
        self._own = torch.from_numpy(np.searchsorted(self.at_hand, self.places))

    def own(self, loaded: torch.Tensor) -> torch.Tensor:
        if len(loaded) == len(self._own):
            return loaded
        return loaded[pinned(self._own, loaded.device).to(loaded.device, non_blocking=True)]

    def split(self, tensor: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tensor.split(self.lengths)


Share = Callable[[int], WholeBatch]  # of a step


@dataclass(frozen=True)
class Shares:
    """The part of process `rank` of `size` in each step of a run that shows `images` in `steps` an epoch."""

    images: int
    steps: int
    accumulate: int
    rank: int
    size: int
    mixed: bool

    @property
    def smallest(self) -> int:
        """The fewest images that go through the network together, over all processes."""
        count = self.images // self.steps
        return count // min(self.accumulate, count)

    def __call__(self, step: int) -> PartOfBatch:
        count, larger = divmod(self.images, self.steps)
        count += step % self.steps < larger  # as `training_order` cuts an epoch
        return PartOfBatch(count, self.accumulate, self.rank, self.size, self.mixed)
