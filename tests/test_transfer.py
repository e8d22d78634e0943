"""utils/run/transfer.py."""

import numpy as np
import torch

from utils.run.transfer import pack, to_device, unpack

RNG = np.random.default_rng(0)
ARRAYS = [
    RNG.random(5) < 0.5,
    RNG.integers(0, 99, 3),
    RNG.random((2, 2, 3)).astype(np.float32),
    RNG.integers(0, 256, (4, 7), dtype=np.uint8),
    np.zeros((0, 4), np.float32),
    RNG.random((3, 5)) < 0.5,
    RNG.integers(0, 99, (2, 1)),
    np.arange(6, dtype=np.float32)[::2],
]


def test_arrays_come_out_of_one_buffer_as_they_were():
    packed = pack(ARRAYS)
    assert packed.dtype == torch.uint8
    assert len(packed) == sum(array.nbytes for array in ARRAYS)
    for tensor, array in zip(unpack(packed.clone(), ARRAYS), ARRAYS, strict=True):
        assert tensor.dtype == torch.from_numpy(array.copy()).dtype
        assert tensor.shape == array.shape
        assert np.array_equal(tensor.numpy(), array)


def test_nested_arrays_keep_their_structure():
    arrays = {"a": ARRAYS[0], "b": [ARRAYS[1], {"c": ARRAYS[2]}], "d": []}
    for device in ("cpu", "meta"):  # which has shapes only
        tensors = to_device(arrays, torch.device(device))
        assert tensors["a"].shape == (5,)
        assert tensors["b"][1]["c"].shape == (2, 2, 3)
        assert tensors["b"][1]["c"].dtype == torch.float32
        assert tensors["d"] == []
