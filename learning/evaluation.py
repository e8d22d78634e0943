"""Figures of predictions for images whose classes are known; shares are in percent."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np

TOP = 5  # how many guesses `Evaluation.top_accuracy` allows


@dataclass(frozen=True)
class Confusion:
    """How many images of class i (row) were taken for class j (column): `counts` int64 [K, K].

    Figures of each class are float64 [K], NaN where they are of no images.
    """

    counts: np.ndarray

    @classmethod
    def of(cls, labels: np.ndarray, predictions: np.ndarray, classes: int) -> "Confusion":
        """That of int64 labels and predictions, [n] each."""
        pairs = labels * classes + predictions
        return cls(np.bincount(pairs, minlength=classes**2).reshape(classes, classes))

    @property
    def sizes(self) -> np.ndarray:
        """How many images each class has, int64 [K]."""
        return self.counts.sum(1)

    @property
    def accuracy(self) -> float:
        """The share of images that were classified rightly."""
        return float(_share(self.counts.trace(), self.counts.sum()))

    @property
    def recall(self) -> np.ndarray:
        """The accuracy among the images of each class."""
        return _share(self.counts.diagonal(), self.sizes)

    @property
    def precision(self) -> np.ndarray:
        """The share of right ones among the images that were taken for each class."""
        return _share(self.counts.diagonal(), self.counts.sum(0))

    @property
    def f1(self) -> np.ndarray:
        """The harmonic mean of precision and recall: 2 TP / (2 TP + FP + FN)."""
        return _share(2 * self.counts.diagonal(), self.sizes + self.counts.sum(0))

    @property
    def balanced_accuracy(self) -> float:
        """The mean of the class accuracies, in which rare classes count as much as others."""
        return float(np.nanmean(self.recall))

    @property
    def macro_f1(self) -> float:
        """The mean of F1 over the classes."""
        return float(np.nanmean(self.f1))

    def most_confused(self, most: int) -> list[tuple[int, int, int]]:
        """The pairs of classes that are confused most often: true class, prediction, images."""
        wrong = self.counts * ~np.eye(len(self.counts), dtype=bool)
        order = np.argsort(-wrong, axis=None, kind="stable")[:most]
        pairs = [divmod(int(place), len(wrong)) for place in order]
        return [(true, taken, int(wrong[true, taken])) for true, taken in pairs if wrong[true, taken]]


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return 100 * np.asarray(part) / whole


@dataclass(frozen=True)
class Evaluation:
    """What a network makes of n images, in their order.

    `labels` is int64 [n], `log_probabilities` float64 [n, K]. `loss` is the mean plain cross-entropy, without
    smoothing or mixing: the negative log-likelihood, in nats.
    """

    labels: np.ndarray
    log_probabilities: np.ndarray

    @classmethod
    def joined(cls, parts: Sequence["Evaluation"]) -> "Evaluation":
        """That of several batches, one after the other."""
        return cls(*(np.concatenate([getattr(part, each.name) for part in parts]) for each in fields(cls)))

    def at(self, temperature: float) -> "Evaluation":
        """The same with confidences of another temperature: softmax(logits / T)."""
        return Evaluation(self.labels, at_temperature(self.log_probabilities, temperature))

    @cached_property
    def probabilities(self) -> np.ndarray:
        """Of each class, float64 [n, K]."""
        return np.exp(self.log_probabilities)

    @cached_property
    def predictions(self) -> np.ndarray:
        """The class of the highest probability, int64 [n]."""
        return self.log_probabilities.argmax(1)

    @property
    def confidences(self) -> np.ndarray:
        """The highest probability, float64 [n]."""
        return self.probabilities.max(1)

    @property
    def correct(self) -> np.ndarray:
        """Which predictions are right, bool [n]."""
        return self.predictions == self.labels

    @property
    def log_likelihoods(self) -> np.ndarray:
        """Log p of the right classes, float64 [n]."""
        return np.take_along_axis(self.log_probabilities, self.labels[:, None], 1)[:, 0]

    @property
    def loss(self) -> float:
        """The mean of -log p of the right classes."""
        return -float(self.log_likelihoods.mean())

    @cached_property
    def confusion(self) -> Confusion:
        """Which classes were taken for which."""
        return Confusion.of(self.labels, self.predictions, self.log_probabilities.shape[1])

    @property
    def accuracy(self) -> float:
        """Top-1 accuracy."""
        return self.confusion.accuracy

    @property
    def balanced_accuracy(self) -> float:
        """The mean of the class accuracies."""
        return self.confusion.balanced_accuracy

    @property
    def top_accuracy(self) -> float:
        """The share of images whose class is among the `TOP` most probable; of equal ones the last."""
        ranks = (self.log_probabilities >= self.log_likelihoods[:, None]).sum(1)
        return 100 * float((ranks <= TOP).mean())


def at_temperature(log_probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Logarithms [..., K] of softmax(logits / T); of the logits a constant may be missing."""
    logits = log_probabilities / temperature
    logits = logits - logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))
