"""The training loss."""

import torch
import torch.nn.functional as F


def soft_cross_entropy(logits: torch.Tensor, targets: torch.Tensor, smoothing: float = 0.0) -> torch.Tensor:
    """Mean cross-entropy of logits [N, K] against probabilities `targets` [N, K]: a scalar.

        loss = -1/N * sum_i sum_k q_ik log softmax(logits_i)_k,   q = (1 - smoothing) targets + smoothing / K

    Label smoothing is that of Szegedy et al. 2015 (arXiv 1512.00567, section 7): the uniform
    distribution over all K classes, the right one included, is mixed in.
    """
    return F.cross_entropy(logits, targets, label_smoothing=smoothing)
