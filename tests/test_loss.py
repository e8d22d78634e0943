"""learning/loss.py."""

import math

import torch
import torch.nn.functional as F

from learning.loss import soft_cross_entropy


def test_by_hand():
    logits = torch.tensor([[0.0, math.log(3.0)]])  # probabilities 1/4, 3/4
    loss = soft_cross_entropy(logits, torch.tensor([[0.5, 0.5]]))
    assert math.isclose(loss, -(math.log(0.25) + math.log(0.75)) / 2, rel_tol=1e-6)
    # Smoothing 0.2 of 2 classes: the label [0, 1] becomes [0.1, 0.9].
    loss = soft_cross_entropy(logits, torch.tensor([[0.0, 1.0]]), smoothing=0.2)
    assert math.isclose(loss, -0.1 * math.log(0.25) - 0.9 * math.log(0.75), rel_tol=1e-6)


def test_hard_labels_give_the_plain_cross_entropy():
    logits, labels = torch.randn(8, 5), torch.arange(8) % 5
    torch.testing.assert_close(
        soft_cross_entropy(logits, torch.eye(5)[labels]), F.cross_entropy(logits, labels)
    )


def test_its_own_formula():
    logits, targets = torch.randn(6, 4, dtype=torch.double), torch.rand(6, 4, dtype=torch.double).softmax(1)
    smoothed = 0.9 * targets + 0.1 / 4
    expected = -(smoothed * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(soft_cross_entropy(logits, targets, 0.1), expected)
