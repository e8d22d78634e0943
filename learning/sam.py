"""Sharpness-aware minimisation (Foret et al. 2020, arXiv 2010.01412)."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def at_the_sharpest(network: nn.Module, rho: float) -> Iterator[None]:
    """Within this context the weights are w + rho g / |g|, g being the gradients that they have now.

    That is about the worst place within `rho`, and its gradients, which are to be computed in the context,
    are those that move w (equation 2 and algorithm 1 of the paper). On exit weights are w to the bit, and
    buffers, such as the statistics of norms, what they were. The gradients are cleared on entry.
    """
    trained: list[torch.Tensor] = [each for each in network.parameters() if each.grad is not None]
    changed = [*trained, *network.buffers()]
    before = [tensor.detach().clone() for tensor in changed]
    with torch.no_grad():
        gradients = [weights.grad for weights in trained if weights.grad is not None]
        length = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        torch._foreach_add_(trained, torch._foreach_mul(gradients, rho / (length + 1e-12)))
    for weights in trained:
        weights.grad = None
    try:
        yield
    finally:
        with torch.no_grad():
            torch._foreach_copy_(changed, before)
