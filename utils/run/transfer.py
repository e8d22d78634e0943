"""From the host to the device, without making the host wait."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch.utils._pytree import tree_flatten, tree_unflatten


def to_device(arrays: Any, device: torch.device) -> Any:
    """Numpy arrays, in nested lists and dictionaries, as tensors on the device.

    They share one copy, since each costs a GPU's host as much as a kernel does, however small it is.
    """
    leaves, structure = tree_flatten(arrays)
    if device.type == "cpu" or not leaves:
        return tree_unflatten([torch.from_numpy(leaf) for leaf in leaves], structure)
    packed = pinned(pack(leaves), device).to(device, non_blocking=True)
    return tree_unflatten(unpack(packed, leaves), structure)


def pack(arrays: Sequence[np.ndarray]) -> torch.Tensor:
    """The bytes of all arrays in one uint8 tensor."""
    parts = (arrays[i].tobytes() for _, same in _by_type(arrays) for i in same)
    return torch.frombuffer(bytearray().join(parts), dtype=torch.uint8)


def unpack(packed: torch.Tensor, arrays: Sequence[np.ndarray]) -> list[torch.Tensor]:
    """Views of what `pack` made of `arrays`, wherever it is now, as tensors like them."""
    tensors: dict[int, torch.Tensor] = {}
    start = 0
    for dtype, same in _by_type(arrays):
        end = start + sum(arrays[i].nbytes for i in same)
        values = packed[start:end].view(torch.from_numpy(np.empty(0, dtype)).dtype)
        for i, part in zip(same, values.split([arrays[i].size for i in same]), strict=True):
            tensors[i] = part if arrays[i].ndim == 1 else part.view(arrays[i].shape)
        start = end
    return [tensors[i] for i in range(len(arrays))]


def _by_type(arrays: Sequence[np.ndarray]) -> Iterator[tuple[np.dtype, list[int]]]:
    """Which arrays are of each type; the large numbers come first, so all lie at multiples of their size."""
    order = sorted(range(len(arrays)), key=lambda i: (-arrays[i].itemsize, arrays[i].dtype.str))
    return ((dtype, list(same)) for dtype, same in groupby(order, key=lambda i: arrays[i].dtype))


def pinned(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The host tensor in memory from which a CUDA device copies while the host goes on."""
    return tensor.pin_memory() if device.type == "cuda" else tensor
