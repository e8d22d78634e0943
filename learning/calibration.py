"""How far confidences can be believed.

A network's probabilities are softmax(z). With a temperature T, fitted on images that it was not trained on,
softmax(z / T) keeps each prediction and makes its confidence mean what it says (Guo et al. 2017, arXiv
1706.04599, section 4.2).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from learning.evaluation import Evaluation

BINS = 15
COLDEST, HOTTEST = 1 / 20, 20.0
LEVEL = 0.05  # of the bounds of `accept_threshold`
SHARES = {"95": 0.95, "99": 0.99}  # how many of the accepted images should be right
# Tried in this order, whatever the images are.
THRESHOLDS = (0.999, 0.998, 0.995, *(percent / 100 for percent in range(99, -1, -1)))


@dataclass(frozen=True)
class Calibration:
    """What the validation images say of a network's confidences.

    `thresholds` maps the keys of `SHARES` to the confidence from which on so many predictions are right, or
    None.
    """

    temperature: float
    thresholds: Mapping[str, float | None]

    @classmethod
    def of(cls, validation: Evaluation) -> "Calibration":
        """Fit both on the validation images."""
        temperature = fit_temperature(validation)
        found = validation.at(temperature)
        return cls(
            temperature,
            {key: accept_threshold(found.confidences, found.correct, share) for key, share in SHARES.items()},
        )


def fit_temperature(validation: Evaluation) -> float:
    """The temperature with the highest likelihood, from 1/20 to 20.

    Where all predictions are right every colder one is better: nothing can be fitted, and it is 1. With
    b = 1/T the slope of the mean loss, mean(sum_k p_k z_k - z_y), rises with b; bisection finds its root.
    """
    if validation.correct.all():
        return 1.0
    z, of_labels = validation.log_probabilities, validation.log_likelihoods.mean()
    low, high = COLDEST, HOTTEST
    for _ in range(30):
        middle = math.sqrt(low * high)
        probabilities = validation.at(middle).probabilities
        too_cold = (probabilities * z).sum(1).mean() > of_labels
        low, high = (middle, high) if too_cold else (low, middle)
    return middle


def at_limit(temperature: float) -> str:
    """What there is to add where none between the limits is the best."""
    return ", its limit" if min(temperature / COLDEST, HOTTEST / temperature) < 1 + 1e-6 else ""


def calibration_error(
    confidences: np.ndarray, correct: np.ndarray, counts: np.ndarray | None = None
) -> np.ndarray:
    """The expected calibration error in points of accuracy: float64 [], or [B] for `counts` [B, n].

    The n images in the order of their confidence are cut into 15 bins of equal mass, and

        ECE = sum_bins |sum_(image in bin) (correct - confidence)| / n.

    `counts` says how often each image is taken, n times in all, for a bootstrap; an image that is taken
    several times is not divided between two bins.
    """
    order = np.argsort(confidences, kind="stable")
    gaps = 100.0 * (correct - confidences)[order]
    taken = np.ones((1, len(order)), int) if counts is None else counts[:, order]
    rank, total = taken.cumsum(1), (taken * gaps).cumsum(1)
    total = np.concatenate([np.zeros((len(total), 1)), total], 1)
    edges = np.cumsum([0, *map(len, np.array_split(order, BINS))])
    ends = np.stack([(rank <= edge).sum(1) for edge in edges], 1)  # how many images lie below each edge
    errors = np.abs(np.diff(np.take_along_axis(total, ends, 1), axis=1)).sum(1) / len(order)
    return errors[0] if counts is None else errors


def accept_threshold(confidences: np.ndarray, correct: np.ndarray, share: float) -> float | None:
    """The confidence from which on at least a `share` of predictions is right, or None if none is sure.

    Of `THRESHOLDS` it is the last that holds before one does not, which keeps the chance of a wrong answer at
    `LEVEL` though several are tried: their order does not depend on what is right. One holds if the lower
    bound of Clopper and Pearson (1934, Biometrika 26: 404) at 95 % is no less than the share. Those that too
    few images reach for that, even with all of them right, are passed by.

    That is so for images that decided nothing. The best epoch and the temperature were chosen on the
    validation images, which flatters a threshold: what it does on the test images is told beside it.
    """
    last = None
    for threshold in THRESHOLDS:
        sure = accepted(confidences, threshold)
        count, errors = int(sure.sum()), int((sure & ~correct).sum())
        if too_few(count, share):
            continue
        if _chance_of_at_most(errors, count, 1 - share) > LEVEL:
            break
        last = threshold
    return last


def accepted(confidences: np.ndarray, threshold: float) -> np.ndarray:
    """Which predictions are sure enough, bool [n]."""
    return confidences >= threshold


def too_few(images: int, share: float) -> bool:
    """Whether so many images cannot show that a `share` is right, even if all are."""
    return share**images > LEVEL


def _chance_of_at_most(errors: int, count: int, rate: float) -> float:
    """P(E <= errors) of a binomial E."""
    ways = math.lgamma(count + 1)
    return math.fsum(
        math.exp(
            ways
            - math.lgamma(k + 1)
            - math.lgamma(count - k + 1)
            + k * math.log(rate)
            + (count - k) * math.log1p(-rate)
        )
        for k in range(errors + 1)
    )
