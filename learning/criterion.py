"""What a step minimises, for each image: its loss by the network's logits, and what is added to it."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from learning.augmix import CONSISTENCY, divergence
from learning.loss import image_weights
from learning.teacher import Teacher

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # of learning.loss


@dataclass(frozen=True)
class Criterion:
    """Calls the network, so that it may be called in any way, and gives (losses [N], logits [N, K]).

    `loss` maps logits [N, K] and target probabilities [N, K] to the loss of each image, to which a `teacher`
    adds its own. `class_weights` [K] let images of some classes count more. Of inputs that are several
    `views` of each image, one behind the other, the first counts, and all are to be classified alike.
    """

    loss: Loss
    teacher: Teacher | None = None
    class_weights: torch.Tensor | None = None
    views: int = 1

    def __call__(
        self, network: nn.Module, inputs: torch.Tensor, targets: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        logits = network(inputs)
        if self.views > 1:
            of_views = logits.unflatten(0, (-1, self.views))
            inputs, logits = inputs[:: self.views], of_views[:, 0]
        losses = self.loss(logits, targets)
        if self.views > 1:
            losses = losses + CONSISTENCY * divergence(of_views)
        if self.teacher is not None:
            losses = losses + self.teacher.losses(inputs, logits)
        if self.class_weights is not None:
            losses = losses * image_weights(targets, self.class_weights)
        return losses, logits
