"""Knowledge distillation: a trained network that the student follows."""

from collections.abc import Callable

import torch
from torch import nn

from learning.loss import distillation


class Teacher:
    """A frozen network, and how much of the student's loss is to follow it.

    `to_input` makes the teacher's inputs of the student's: the two may expect other normalisations.
    `fingerprint` tells it from other teachers.
    """

    def __init__(
        self,
        network: nn.Module,
        to_input: Callable[[torch.Tensor], torch.Tensor],
        temperature: float,
        weight: float,
        fingerprint: str = "",
    ):
        self.network = network.eval().requires_grad_(False)
        self.to_input = to_input
        self.temperature = temperature
        self.weight = weight
        self.fingerprint = fingerprint

    def losses(self, inputs: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """What is added to the images' losses, [N], for the student's `logits` [N, K] of `inputs`."""
        with torch.no_grad():
            teacher_logits = self.network(self.to_input(inputs))
        return self.weight * distillation(logits, teacher_logits, self.temperature)
