"""All randomness of a run, derived from (seed, stream, index) and from nothing else.

A stream is a purpose ("order", "flip", "mixing", ...) and the index is a step or an epoch. Because
each purpose has a stream of its own, switching one trick on does not shift what the others draw:
two runs that differ in one trick see the same images, in the same order, flipped the same way.
Nothing here has a state, so a resumed run needs to remember nothing but its step.
"""

import zlib
from dataclasses import dataclass

import numpy as np


def generator(seed: int, stream: str, index: int = 0) -> np.random.Generator:
    """The random generator of one purpose at one step or epoch; the same call, the same numbers."""
    return np.random.Generator(np.random.PCG64([seed, zlib.crc32(stream.encode()), index]))


@dataclass(frozen=True)
class Draws:
    """The random numbers of one training step.

    What is drawn for an image depends on its place in the step's whole batch, and neither on how many images
    that has nor on which of them are at hand: those at `places`, or the first ones.
    """

    seed: int
    step: int
    places: np.ndarray | None = None

    def of_step(self, stream: str) -> np.random.Generator:
        """For what all images of the step share."""
        return generator(self.seed, stream, self.step)

    def of_places(self, stream: str, count: int, columns: int) -> np.ndarray:
        """Numbers [count, columns] in [0, 1), a row for each image at hand."""
        rng = self.of_step(stream)
        if self.places is None:
            return rng.random((count, columns))
        return rng.random((self.places.max() + 1, columns))[self.places]


def torch_seed(seed: int, stream: str) -> int:
    """A 63-bit seed for torch's own generator, which draws the first weights."""
    return int(generator(seed, stream).integers(2**63))
