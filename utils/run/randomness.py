"""All randomness of a run, derived from (seed, stream, index) and from nothing else.

A stream is a purpose ("order", "flip", "mixing", ...) and the index is a step or an epoch. Because
each purpose has a stream of its own, switching one trick on does not shift what the others draw:
two runs that differ in one trick see the same images, in the same order, flipped the same way.
Nothing here has a state, so a resumed run needs to remember nothing but its step.
"""

import zlib
from collections.abc import Callable

import numpy as np

Draws = Callable[[str], np.random.Generator]


def generator(seed: int, stream: str, index: int = 0) -> np.random.Generator:
    """The random generator of one purpose at one step or epoch; the same call, the same numbers."""
    return np.random.default_rng([seed, zlib.crc32(stream.encode()), index])


def draws_of_step(seed: int, step: int) -> Draws:
    """The generators of one training step, by stream name."""
    return lambda stream: generator(seed, stream, step)


def torch_seed(seed: int, stream: str, index: int = 0) -> int:
    """A 63-bit seed for torch's own generators, which initialise weights and drive dropout."""
    return int(generator(seed, stream, index).integers(2**63))
