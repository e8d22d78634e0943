"""What torch raises that a person can do something about, in words."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from utils.errors import RunFailed

# Beside torch.OutOfMemoryError: what the system, CUDA, cuDNN, cuBLAS and Metal say.
OUT_OF_MEMORY = (
    "can't allocate memory",
    "CUDA error: out of memory",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "MPS backend out of memory",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the device or the host had too little memory."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in OUT_OF_MEMORY)


@contextmanager
def explained_failures(batch_size: int) -> Iterator[None]:
    """Within this context a lack of memory, or a lost worker, is a `RunFailed` that says what to try."""
    try:
        yield
    except (RuntimeError, ValueError, MemoryError) as error:
        if is_out_of_memory(error):
            message = (
                f"the device has too little memory for --batch_size {batch_size}; start anew with "
                "a smaller one (--accumulate keeps the images of a step), or a smaller --image_size"
            )
        elif "DataLoader worker" in str(error):  # torch raises it wherever the run is at that moment
            message = (
                "a process that decodes images was killed, perhaps for want of memory; go on with "
                "--resume, or give --predict again, and fewer --num_workers"
            )
        elif "Expected more than 1 value per channel" in str(error):
            message = (
                f"batch norm cannot be trained on one image at a time, as with --batch_size {batch_size} or "
                "so many parts of --accumulate; use larger parts, or --norm evonorm"
            )
        else:
            raise
        raise RunFailed(message) from error
