"""Images that show nearly the same: cut, brightened, saved anew, in another size, or of one burst.

Candidates come from a perceptual hash (the signs of the 63 lowest frequencies of a discrete cosine
transform, after the "pHash" of Zauner 2010), which each image has also for parts of it, since a cut moves
them all. A part is then fitted to the other image, and the two are compared at a small size, by the
differences between neighbouring pixels: two landscapes have much of their light and dark in common, but not
their details.
"""

import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from utils.data.decode import THUMBNAIL_SIDE as SIDE
from utils.run.cores import cores
from utils.run.device import DTYPES, choose_precision

NEAR_FORMAT = 1  # raise it when other pairs are found
FREQUENCIES = 8  # along an axis; all pairs but the mean's
MOST_DIFFERENT = 13  # bits of 63
LIKE = 0.9  # the least correlation of details of two images that are told as one
UNLIKE = 0.7  # a correlation of pixels before fitting that no fitting makes up for
COMPARED_SIDE = 16
# Of the images whose hashes are near an image's, so many are compared by pixels: no more would be looked at.
MOST_CANDIDATES = 16
NO_COLOUR = 128  # of both colour differences
BLOCK, OTHERS = 256, 2048  # images compared at once
AT_ONCE = 16  # blocks, between looks whether to stop
FEW = 20_000  # images, which a CPU compares soon enough
STEPS = (0.04, 0.02, 0.01)  # of the edges of a part while it is fitted, as shares of an image


def _parts() -> torch.Tensor:
    """The parts of an image that are compared with whole others, [W, 4]: left, right, top and bottom."""
    nine = [(x, x + 0.9, y, y + 0.9) for x in (0, 0.05, 0.1) for y in (0, 0.05, 0.1)]
    sides = [(0, 0.85, 0, 1), (0.15, 1, 0, 1), (0, 1, 0, 0.85), (0, 1, 0.15, 1)]
    return torch.tensor([(0, 1, 0, 1), *nine, *sides, (0.1, 0.9, 0.1, 0.9)])


class NearPairs(NamedTuple):
    """m pairs of images: their numbers, the smaller first, int64 [m, 2], and correlations, float32 [m]."""

    images: np.ndarray
    similarity: np.ndarray


def near_pairs(
    thumbnails: np.ndarray, colours: np.ndarray, device: torch.device, check: Callable[[], None]
) -> NearPairs:
    """Which of n images show nearly the same.

    By their thumbnails, uint8 [n, SIDE, SIDE], grey, and their mean colours [n, 2], as `look` gives them.
    Images of a single colour are like no others. Few images are compared on the CPU, whatever the device.
    `check` is called in between and may raise to stop.
    """
    count = len(thumbnails)
    device = device if count > FEW else torch.device("cpu")
    dtype = DTYPES[choose_precision("auto", device)]  # each holds whole numbers up to 63
    parts = _parts().to(device)

    def thumbnail(numbers: np.ndarray | slice) -> torch.Tensor:
        return torch.from_numpy(thumbnails[numbers]).to(device, torch.float32)

    blocks = [slice(first, first + OTHERS) for first in range(0, count, OTHERS)]
    whole = [_hashes(thumbnail(block), parts[:1])[:, 0].T.contiguous().to(dtype) for block in blocks]

    def pairs_from(first: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Images of a block, others that look nearly as a part of them, and how nearly."""
        hashes = _hashes(thumbnail(slice(first, first + BLOCK)), parts).to(dtype).flatten(0, 1)
        candidates = []
        for block, others in zip(blocks, whole, strict=True):
            same = hashes @ others  # bits that are the same, less those that are not
            least = len(others) - 2 * MOST_DIFFERENT
            rows = (same.amax(1) >= least).nonzero()[:, 0]  # few, which saves time
            row, other = (same[rows] >= least).nonzero(as_tuple=True)
            row = rows[row]
            near = torch.stack([first + row // len(parts), block.start + other, row % len(parts)])
            candidates.append(_nearest(torch.cat([near, -same[row, other].long()[None]]).cpu().numpy()))
        cut, other, part, _ = _nearest(np.concatenate(candidates, axis=1))
        similarity = _compare(thumbnail(cut), thumbnail(other), parts[torch.from_numpy(part)])
        like = (similarity >= LIKE) & _alike(colours[cut], colours[other])
        return cut[like], other[like], similarity[like]

    found: dict[tuple[int, int], float] = {}
    starts = range(0, count, BLOCK)
    with (
        tqdm(total=count, desc="comparing images once", unit=" images", disable=None, leave=False) as bar,
        _in_threads(1 if device.type != "cpu" else cores()) as pool,
    ):
        for first in range(0, len(starts), AT_ONCE):
            for pairs in pool.map(pairs_from, starts[first : first + AT_ONCE]):
                for cut, other, similarity in zip(*pairs, strict=True):
                    key = (min(int(cut), int(other)), max(int(cut), int(other)))
                    found[key] = max(found.get(key, 0), float(similarity))
                bar.update(min(BLOCK, count - bar.n))
                check()
    ordered = sorted(found)
    return NearPairs(
        np.array(ordered, dtype=np.int64).reshape(-1, 2),
        np.array([found[key] for key in ordered], dtype=np.float32),
    )


@contextmanager
def _in_threads(count: int) -> Iterator[ThreadPoolExecutor]:
    """Threads of which each computes alone: torch's own would wait for each other after each small step."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(count) as pool:
            yield pool
    finally:
        torch.set_num_threads(before)


def _alike(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Whether colours [m, 2] differ by no more than a cut or another brightness makes."""
    a, b = (colours.astype(float) - NO_COLOUR for colours in (a, b))
    strongest = np.maximum(np.hypot(*a.T), np.hypot(*b.T))
    return np.hypot(*(a - b).T) <= 8 + 0.3 * strongest


def _nearest(candidates: np.ndarray) -> np.ndarray:
    """Of the rows image, other, part and distance the nearest part of each pair, of the nearest others."""
    candidates = candidates[:, candidates[0] != candidates[1]]
    image, other, _, distance = candidates
    candidates = candidates[:, np.lexsort((distance, other, image))]
    new = np.ones(candidates.shape[1], bool)
    new[1:] = (candidates[:2, 1:] != candidates[:2, :-1]).any(0)
    candidates = candidates[:, new]
    candidates = candidates[:, np.lexsort((candidates[3], candidates[0]))]
    rank = np.arange(candidates.shape[1]) - np.searchsorted(candidates[0], candidates[0])
    return candidates[:, rank < MOST_CANDIDATES]


def _hashes(thumbnails: torch.Tensor, parts: torch.Tensor) -> torch.Tensor:
    """The hash of each part of each image, [n, W, 63] of -1 and 1."""
    places = torch.arange(SIDE, device=parts.device) + 0.5
    frequencies = torch.arange(FREQUENCIES, device=parts.device)[:, None]
    cosines = torch.cos(torch.pi * frequencies * places / SIDE)
    rows, columns = (cosines @ _averaging(parts[:, axis : axis + 2], SIDE) for axis in (2, 0))
    waves = rows @ thumbnails[:, None] @ columns.mT  # [n, W, 8, 8]
    return torch.where(waves.flatten(2)[..., 1:] > 0, 1.0, -1.0)


def _averaging(spans: torch.Tensor, side: int) -> torch.Tensor:
    """Matrices [m, side, SIDE] that average spans [m, 2] of an axis of a thumbnail to `side` pixels."""
    start, end = spans[:, :1, None], spans[:, 1:, None]
    length = (end - start) / side
    lower = (start + length * torch.arange(side, device=spans.device)[:, None]) * SIDE
    pixel = torch.arange(SIDE, device=spans.device)
    overlap = torch.minimum(lower + length * SIDE, pixel + 1.0) - torch.maximum(lower, pixel.float())
    return overlap.clamp(min=0) / (length * SIDE)


def _compare(cut: torch.Tensor, others: torch.Tensor, parts: torch.Tensor) -> np.ndarray:
    """Correlations [m] of the details of parts of images, each fitted to its whole other image."""
    small = _resized(others, torch.tensor([[0.0, 1.0, 0.0, 1.0]], device=parts.device))
    unfitted = _resized(cut, parts)
    similarity = _correlation(unfitted, small)
    known = _correlation(_details(unfitted), _details(small)) * (similarity >= UNLIKE)
    likely = ((similarity >= UNLIKE) & (known < LIKE)).nonzero()[:, 0]
    cut, small, parts, best = cut[likely], small[likely], parts[likely], similarity[likely]
    for step, _, edge, sign in itertools.product(STEPS, range(3), range(4), (-1, 1)):
        moved = parts.clone()
        moved[:, edge] = (moved[:, edge] + sign * step).clamp(0, 1)
        tried = _correlation(_resized(cut, moved), small)
        parts = torch.where((tried > best)[:, None], moved, parts)
        best = torch.maximum(tried, best)
    fitted = _correlation(_details(_resized(cut, parts)), _details(small))
    return known.index_copy(0, likely, fitted).cpu().numpy()


def _details(images: torch.Tensor) -> torch.Tensor:
    """The differences between neighbouring pixels, [m, D]."""
    return torch.cat([images.diff(dim=1).flatten(1), images.diff(dim=2).flatten(1)], 1)


def _resized(thumbnails: torch.Tensor, parts: torch.Tensor) -> torch.Tensor:
    """Parts [m, 4] of thumbnails [m, SIDE, SIDE] at the size at which they are compared."""
    rows, columns = (_averaging(parts[:, axis : axis + 2], COMPARED_SIDE) for axis in (2, 0))
    return rows @ thumbnails @ columns.mT


def _correlation(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """That of each two images or details of images: [m]."""
    a, b = (values.flatten(1) - values.flatten(1).mean(1, keepdim=True) for values in (a, b))
    return (a * b).sum(1) / (a.square().sum(1) * b.square().sum(1) + 1e-3).sqrt()
