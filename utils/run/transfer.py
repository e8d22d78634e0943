"""From the host to the device, without making the host wait."""

from typing import Any

import numpy as np
import torch
from torch.utils._pytree import tree_flatten, tree_unflatten

ALIGNMENT = 8  # bytes, of the largest numbers that are copied


def to_device(arrays: Any, device: torch.device) -> Any:
    """Numpy arrays, in nested lists and dictionaries, as tensors on the device.

    They share one copy, since each costs a GPU's host as much as a kernel does, however small it is.
    """
    leaves, structure = tree_flatten(arrays)
    if device.type == "cpu":
        return tree_unflatten([torch.from_numpy(leaf) for leaf in leaves], structure)
    starts = np.cumsum([0, *(-(-leaf.nbytes // ALIGNMENT) * ALIGNMENT for leaf in leaves)])
    packed = np.empty(starts[-1], np.uint8)
    for start, leaf in zip(starts, leaves, strict=False):
        packed[start : start + leaf.nbytes] = np.frombuffer(leaf.tobytes(), np.uint8)
    there = pinned(torch.from_numpy(packed), device).to(device, non_blocking=True)
    tensors = [
        there[start : start + leaf.nbytes].view(torch.from_numpy(leaf).dtype).view(leaf.shape)
        for start, leaf in zip(starts, leaves, strict=False)
    ]
    return tree_unflatten(tensors, structure)


def pinned(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The host tensor in memory from which a CUDA device copies while the host goes on."""
    return tensor.pin_memory() if device.type == "cuda" else tensor
