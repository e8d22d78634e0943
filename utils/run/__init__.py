"""A run around its training steps: randomness, device, checkpoints, log, pictures, signals."""

import os

# cuBLAS gives the same bits only with it, and torch looks for it once, at its first matrix product on a GPU:
# it is set before torch is loaded, for --deterministic whenever it comes.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
