"""What tricks do: each experiment against the baseline and against its relative, each trick on average."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from utils.report.runs import Experiment
from utils.report.statistics import (
    LEVEL,
    Estimate,
    contrast,
    difference,
    holm,
    pool,
    seed_spread,
)
from utils.report.tricks import Tricks

WORTH_SEEING = 0.5  # points of accuracy; the report says what it would take to see so much


@dataclass(frozen=True)
class Comparison:
    """An experiment against another one; `p` is adjusted for all comparisons of the report."""

    name: str
    other: str
    words: str  # what tells the first from the second
    estimate: Estimate
    p: float

    @property
    def verdict(self) -> str:
        """What the evidence says of the first one."""
        if self.p < LEVEL:
            return "helps" if self.estimate.mean > 0 else "hurts"
        return "cannot be told apart" if self.estimate.image_variance else "right on the same images"


@dataclass(frozen=True)
class Effect:
    """What a trick does on average over the pairs of experiments that differ by it alone."""

    words: str
    pairs: list[tuple[str, str]]  # with the trick, without it
    estimate: Estimate


class Evidence:
    """All that the report says; `pooled` is the spread over seeds of all experiments."""

    def __init__(self, experiments: Mapping[str, Experiment], tricks: Tricks):
        self.experiments = {name: experiments[name] for name in tricks.experiments}
        self.tricks = tricks
        self.baseline = baseline = tricks.baseline
        self.rng = np.random.default_rng(0)  # the same report each time
        by_seeds: dict[tuple[int, ...], list[np.ndarray]] = {}
        for found in self.experiments.values():
            seeds = tuple(found.runs)
            by_seeds.setdefault(seeds, []).append(found.correct(seeds))
        self.pooled = pool([seed_spread(several) for several in by_seeds.values()])

        others = [name for name in self.experiments if name != baseline]
        self.apart = [name for name in others if not self._common_seeds((name, baseline))]
        pairs = [(name, baseline) for name in others if name not in self.apart]
        relatives = [(name, relative) for name in self.experiments if (relative := self._relative(name))]
        self.compared = self._compare([*pairs, *relatives])
        self.against_baseline = [self.compared[pair] for pair in pairs]
        self.against_relative = [self.compared[pair] for pair in relatives]
        self.effects = self._effects()
        self.accuracies = {name: self._accuracy(found) for name, found in self.experiments.items()}

    @property
    def best(self) -> str:
        """The experiment that validates best."""
        return max(self.experiments, key=lambda name: self.experiments[name].mean("val_accuracy"))

    @property
    def images(self) -> int:
        """How many test images there are."""
        return next(iter(self.accuracies.values())).images

    def _common_seeds(self, names: Sequence[str]) -> list[int]:
        return sorted(set.intersection(*(set(self.experiments[name].runs) for name in names)))

    def _relative(self, name: str) -> str | None:
        return self.tricks.relative(
            name, [other for other in self.experiments if self._common_seeds((name, other))]
        )

    def _compare(self, pairs: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Comparison]:
        """Compare pairs on the seeds that they have in common."""
        estimates = {}
        for pair in dict.fromkeys(pairs):
            seeds = self._common_seeds(pair)
            right = [self.experiments[name].correct(seeds) for name in pair]
            estimates[pair] = difference(*right, self.pooled, self.rng)
        adjusted = holm([estimate.p for estimate in estimates.values()])
        return {
            (a, b): Comparison(a, b, self._words(a, b), estimate, p)
            for ((a, b), estimate), p in zip(estimates.items(), adjusted, strict=True)
        }

    def _words(self, a: str, b: str) -> str:
        found = [self.tricks.in_words(trick, a, b) for trick in self.tricks.differences(a, b)]
        return ", ".join(found) or "nothing"

    def _effects(self) -> list[Effect]:
        """The mean over the pairs of each trick with the same seeds; of several such sets, the largest."""
        found: dict[str, dict[tuple[int, ...], list[tuple[str, str]]]] = {}
        for b, a in combinations(self.experiments, 2):
            seeds = tuple(self._common_seeds((a, b)))
            if seeds and len(self.tricks.differences(a, b)) == 1:
                found.setdefault(self._words(a, b), {}).setdefault(seeds, []).append((a, b))
        effects = []
        for words, by_seeds in found.items():
            seeds, pairs = max(by_seeds.items(), key=lambda item: len(item[0]) * len(item[1]))
            names = sorted({name for pair in pairs for name in pair})
            weights = [sum((name == a) - (name == b) for a, b in pairs) / len(pairs) for name in names]
            right = [self.experiments[name].correct(seeds) for name in names]
            effects.append(Effect(words, pairs, contrast(weights, right, self.pooled, self.rng)))
        return sorted(effects, key=lambda effect: -effect.estimate.mean)

    def _accuracy(self, experiment: Experiment) -> Estimate:
        return contrast((1,), (experiment.correct(list(experiment.runs)),), self.pooled, self.rng)


def takes(estimate: Estimate) -> str:
    """What it would take to see a difference of `WORTH_SEEING` points, in words."""
    images, seeds = estimate.images_needed(WORTH_SEEING), estimate.seeds_needed(WORTH_SEEING)
    if not estimate.image_variance:
        return ""
    if images <= estimate.images:
        return "no more than there is"
    ways = []
    if math.isfinite(images):
        ways.append(f"{_two_digits(images):,} images")
    if math.isfinite(seeds):
        ways.append(f"{math.ceil(seeds):,} seeds")
    return " or ".join(ways) or ("more seeds" if math.isnan(seeds) else "more of both")


def _two_digits(count: float) -> int:
    unit = 10 ** max(math.floor(math.log10(count)) - 1, 0)
    return math.ceil(count / unit) * unit
