"""A network in evaluation: what it makes of images, shown in one or more views."""

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import nn

from learning.evaluation import Evaluation
from utils.run.device import autocast

View = Callable[[torch.Tensor], torch.Tensor]


@torch.inference_mode()
def log_probabilities(
    network: nn.Module, batches: Iterable[torch.Tensor], views: Sequence[View], precision: str
) -> torch.Tensor:
    """Of every class for images uint8 [N, 3, H, W] in batches: float64 [n, K] on the host.

    Each of `views` makes network inputs of the images; their probabilities are averaged. Leaves the mode on
    eval.
    """
    network.eval()
    all_logits = []
    for images in batches:
        with autocast(images.device, precision):
            all_logits.append(torch.stack([network(view(images)).float() for view in views], 1))
    return over_views(torch.cat(all_logits).cpu().double()).log_softmax(1)


def over_views(logits: torch.Tensor) -> torch.Tensor:
    """The logarithm of the sum of the views' probabilities, [N, V, K] to [N, K]; softmax: the mean."""
    return logits.log_softmax(2).logsumexp(1)


def evaluate(
    network: nn.Module, batches: Iterable[tuple], views: Sequence[View], precision: str
) -> Evaluation:
    """Evaluate on batches of (images uint8 [N, 3, H, W], labels int64 [N], ...), by `log_probabilities`."""
    all_labels = []

    def images() -> Iterator[torch.Tensor]:
        for batch, labels, *_ in batches:
            all_labels.append(labels)
            yield batch

    found = log_probabilities(network, images(), views, precision)
    return Evaluation(torch.cat(all_labels).cpu().numpy(), found.numpy())
