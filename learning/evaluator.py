"""Evaluation: the loss and accuracy of a network on a split, and its prediction for each image."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from utils.run.device import autocast

View = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Evaluation:
    """What a network makes of a split of n images, in the split's order.

    `loss` is the mean plain cross-entropy, without smoothing or mixing; `labels` int64 [n];
    `probabilities` float64 [n, K].
    """

    loss: float
    labels: np.ndarray
    probabilities: np.ndarray

    @property
    def predictions(self) -> np.ndarray:
        """The class of the highest probability, int64 [n]."""
        return self.probabilities.argmax(1)

    @property
    def accuracy(self) -> float:
        """Top-1 accuracy in percent."""
        return 100 * float((self.predictions == self.labels).mean())

    @property
    def confusion(self) -> np.ndarray:
        """How many images of class i (row) were taken for class j (column): int64 [K, K]."""
        classes = self.probabilities.shape[1]
        pairs = self.labels * classes + self.predictions
        return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)

    @property
    def class_accuracies(self) -> list[float]:
        """The accuracy among the images of each class, in percent; NaN for a class without images."""
        counts = self.confusion
        with np.errstate(invalid="ignore"):
            return (100 * counts.diagonal() / counts.sum(1)).tolist()

    @property
    def balanced_accuracy(self) -> float:
        """The mean of the class accuracies, in which rare classes count as much as others, in percent."""
        return float(np.nanmean(self.class_accuracies))


@torch.inference_mode()
def log_probabilities(
    network: nn.Module, batches: Iterable[torch.Tensor], views: Sequence[View], precision: str
) -> torch.Tensor:
    """Of every class for images uint8 [N, 3, H, W] in batches: float64 [n, K] on the host, up to a constant.

    Each of `views` makes network inputs of the images; their probabilities are averaged. Leaves the mode on
    eval.
    """
    network.eval()
    all_logits = []
    for images in batches:
        with autocast(images.device, precision):
            all_logits.append(torch.stack([network(view(images)).float() for view in views], 1))
    logits = torch.cat(all_logits).cpu().double()
    # The logarithm of the sum of the views' probabilities, [n, K]: softmax makes it their mean.
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

    logits = log_probabilities(network, images(), views, precision)
    labels = torch.cat(all_labels).cpu()
    return Evaluation(
        loss=F.cross_entropy(logits, labels).item(),
        labels=labels.numpy(),
        probabilities=logits.softmax(1).numpy(),
    )
