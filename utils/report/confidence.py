"""How far the confidences of experiments can be believed: calibration errors, with bootstrap intervals."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from learning.calibration import calibration_error
from utils.report.runs import Experiment
from utils.report.statistics import LEVEL
from utils.run.randomness import generator

RESAMPLES = 400


@dataclass(frozen=True)
class Interval:
    """A figure and where it lies with 95 %."""

    mean: float
    low: float
    high: float


class CalibrationErrors:
    """Those of experiments as trained, in points of accuracy, on the test images and on resamples of them.

    The resamples are the same for all, so that differences are of the same images. An interval says what
    other images, as many, would do to the same networks: how the error varies over the resamples, around the
    error itself. Resamples show a larger error on average, since an image that comes twice errs twice.
    """

    def __init__(self, experiments: Sequence[Experiment]):
        self.errors = {
            (each.name, seed): calibration_error(run.uncalibrated, run.correct, takings(len(run.labels)))
            for each in experiments
            for seed, run in each.runs.items()
        }
        self.seeds = {each.name: list(each.runs) for each in experiments}

    def of(self, name: str) -> Interval:
        """The mean over an experiment's seeds."""
        found = _interval(self._mean(name, self.seeds[name]))
        return Interval(found.mean, max(found.low, 0.0), found.high)

    def difference(self, pairs: Sequence[tuple[str, str]], seeds: Sequence[int]) -> Interval:
        """How much larger the error of the first is, on average over pairs of experiments."""
        both = [self._mean(first, seeds) - self._mean(second, seeds) for first, second in pairs]
        return _interval(np.mean(both, axis=0))

    def _mean(self, name: str, seeds: Sequence[int]) -> np.ndarray:
        """Over seeds, [1 + RESAMPLES]."""
        return np.mean([self.errors[name, seed] for seed in seeds], axis=0)


@lru_cache(maxsize=1)
def takings(images: int) -> np.ndarray:
    """How often each image is taken, int64 [1 + RESAMPLES, images]: once, and in the resamples."""
    resamples = generator(0, "bootstrap").multinomial(images, np.full(images, 1 / images), RESAMPLES)
    return np.concatenate([np.ones((1, images), np.int64), resamples])


def _interval(errors: np.ndarray) -> Interval:
    """That of an error and of its resamples, [1 + RESAMPLES]."""
    error, resampled = errors[0], errors[1:]
    low, high = error + np.quantile(resampled - resampled.mean(), (LEVEL / 2, 1 - LEVEL / 2))
    return Interval(float(error), float(low), float(high))


def unavoidable_error(experiment: Experiment) -> float:
    """The mean calibration error on so many images if each confidence were exactly right."""
    rng = generator(0, "unavoidable")
    errors = [
        calibration_error(run.uncalibrated, rng.random(len(run.uncalibrated)) < run.uncalibrated)
        for run in experiment.runs.values()
        for _ in range(50)
    ]
    return float(np.mean(errors))
