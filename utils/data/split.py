"""The stratified split."""

import numpy as np


def stratified_split(
    labels: np.ndarray, fraction: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Split positions 0..n-1 into two parts, the second with `fraction` of each class.

    Shares are rounded to whole images for each class; a class of two or more images has at least
    one on either side, and a class of one image has it in the first part. `labels` is [n]; both
    results are sorted int64 positions.
    """
    first, second = [], []
    for label in np.unique(labels):
        positions = rng.permutation(np.flatnonzero(labels == label))
        count = round(fraction * len(positions))
        if len(positions) > 1:
            count = min(max(count, 1), len(positions) - 1)
        second.append(positions[:count])
        first.append(positions[count:])
    return np.sort(np.concatenate(first)), np.sort(np.concatenate(second))
