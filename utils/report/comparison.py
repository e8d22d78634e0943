"""What tricks do: each experiment against the baseline and against its relative, each trick on average."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from utils.report.confidence import CalibrationErrors
from utils.report.runs import Experiment
from utils.report.statistics import LEVEL, PERCENT, Estimate, accuracy, difference, holm, mean_figure
from utils.report.tricks import Tricks

WORTH_SEEING = 0.5  # points of accuracy; the report says what it would take to see so much
SMALL_EFFECT = 1.0  # points; the report says of which tricks it is shown that they make less
HELPS, HURTS, SMALL, UNKNOWN = "helps", "hurts", "less than a point", "unclear"
SAME = "right on the same images"


Pair = tuple[str, str]  # the experiment that is looked at, and what it is compared with


@dataclass(frozen=True)
class Finding:
    """What a trick does, on average over pairs of experiments that differ by it.

    `p` is adjusted for all findings of the same figure, and the verdict is the same wherever it is shown.
    """

    words: str  # what tells the first of each pair from the second
    pairs: tuple[Pair, ...]
    estimate: Estimate
    p: float
    reach: float  # in points, of the interval that allows for all findings of accuracy; else infinite

    @property
    def verdict(self) -> str:
        """What the evidence says of the first ones."""
        if self.p < LEVEL:
            return HELPS if self.estimate.mean > 0 else HURTS
        if self.estimate.low == self.estimate.high == 0:
            return SAME
        return SMALL if abs(self.estimate.mean) + self.reach < SMALL_EFFECT else UNKNOWN


class Evidence:
    """All that the report says."""

    def __init__(self, experiments: Mapping[str, Experiment], tricks: Tricks):
        self.experiments = {name: experiments[name] for name in tricks.experiments}
        self.tricks = tricks
        self.baseline = baseline = tricks.baseline

        others = [name for name in self.experiments if name != baseline]
        self.apart = [name for name in others if not self._common_seeds((name, baseline))]
        pairs = [(name, baseline) for name in others if name not in self.apart]
        relatives = [(name, relative) for name in self.experiments if (relative := self._relative(name))]
        tricks_alone = self._pairs_by_trick()
        compared = [(pair,) for pair in [*pairs, *relatives]]
        wanted = [*compared, *tricks_alone]
        self.findings = self._find(wanted, "correct", PERCENT)
        effects = [self.findings[several] for several in tricks_alone]
        self.effects = sorted(effects, key=lambda effect: -effect.estimate.mean)
        # Of pairs that are not the whole evidence of a trick, which is among the effects.
        told = {effect.pairs for effect in self.effects}
        self.compared = [self.findings[pair] for pair in dict.fromkeys(compared) if pair not in told]
        self.accuracies = {
            name: accuracy(found.of_images("correct", list(found.runs)))
            for name, found in self.experiments.items()
        }
        # Of experiments whose predictions have all digits.
        exact = {
            name: found
            for name, found in self.experiments.items()
            if all(run.log_likelihoods is not None for run in found.runs.values())
        }
        self.losses = {
            name: mean_figure(-found.of_images("log_likelihoods", list(found.runs)))
            for name, found in exact.items()
        }
        known = {pairs: tuple(pair for pair in pairs if exact.keys() >= {*pair}) for pairs in wanted}
        likelihoods = self._find([pairs for pairs in known.values() if pairs], "log_likelihoods", 1.0)
        self.likelihoods = {pairs: likelihoods[known[pairs]] for pairs in known if known[pairs]}
        self.calibration_errors = CalibrationErrors(list(exact.values()))

    @property
    def best(self) -> str:
        """The experiment that validates best, of those that ran as long as the baseline."""
        epochs = self.experiments[self.baseline].epochs
        names = [name for name, found in self.experiments.items() if found.epochs == epochs]
        return max(names, key=lambda name: self.experiments[name].mean("val_accuracy"))

    def times(self, pairs: tuple[Pair, ...]) -> tuple[float, float, float]:
        """How many times as long the first of pairs train as the second: lowest, median, highest."""
        ratios = [
            self.experiments[a].runs[seed].minutes[1] / self.experiments[b].runs[seed].minutes[1]
            for a, b in pairs
            for seed in self.seeds_of(pairs)
        ]
        return min(ratios), float(np.median(ratios)), max(ratios)

    @property
    def images(self) -> int:
        """How many test images there are."""
        return next(iter(self.accuracies.values())).spread.images

    def _common_seeds(self, names: Sequence[str]) -> list[int]:
        return sorted(set.intersection(*(set(self.experiments[name].runs) for name in names)))

    def _relative(self, name: str) -> str | None:
        return self.tricks.relative(
            name, [other for other in self.experiments if self._common_seeds((name, other))]
        )

    def _pairs_by_trick(self) -> list[tuple[Pair, ...]]:
        """For each trick all pairs that differ by it, on the same seeds; of several sets, the largest."""
        found: dict[str, dict[tuple[int, ...], list[Pair]]] = {}
        for b, a in combinations(self.experiments, 2):
            seeds = tuple(self._common_seeds((a, b)))
            if seeds and len(self.tricks.differences(a, b)) == 1:
                found.setdefault(self._words((a, b)), {}).setdefault(seeds, []).append((a, b))
        largest = [
            max(by_seeds.items(), key=lambda item: len(item[0]) * len(item[1])) for by_seeds in found.values()
        ]
        return [tuple(pairs) for _, pairs in largest]

    def _find(
        self, wanted: Sequence[tuple[Pair, ...]], figure: str, unit: float
    ) -> dict[tuple[Pair, ...], Finding]:
        """A finding for each of these means over pairs, on the seeds that all their experiments have."""
        estimates = {pairs: self._estimate(pairs, figure, unit) for pairs in wanted}
        # A pair that is compared both ways is one comparison.
        same = {pairs: frozenset(map(frozenset, pairs)) for pairs in estimates}
        p = {same[pairs]: estimate.p for pairs, estimate in estimates.items()}
        adjusted = dict(zip(p, holm(list(p.values())), strict=True))
        return {
            pairs: Finding(
                self._words(pairs[0]),
                pairs,
                estimate,
                adjusted[same[pairs]],
                estimate.spread.reach(LEVEL / len(p)) if unit == PERCENT else math.inf,
            )
            for pairs, estimate in estimates.items()
        }

    def seeds_of(self, pairs: tuple[Pair, ...]) -> list[int]:
        """The seeds that all these experiments have."""
        return self._common_seeds([name for pair in pairs for name in pair])

    def _estimate(self, pairs: tuple[Pair, ...], figure: str, unit: float) -> Estimate:
        seeds = self.seeds_of(pairs)
        # What has the trick on one side and what has it not on the other; nothing is on both.
        sides = [
            [self.experiments[name].of_images(figure, seeds) for name in side]
            for side in zip(*pairs, strict=True)
        ]
        a, b = (side[0] if len(side) == 1 else np.mean(side, axis=0) for side in sides)
        return difference(a, b, unit)

    def _words(self, pair: Pair) -> str:
        found = [self.tricks.in_words(trick, *pair) for trick in self.tricks.differences(*pair)]
        return ", ".join(found) or "nothing"


def takes(estimate: Estimate) -> str:
    """What it would take to see a difference of `WORTH_SEEING` points, in words."""
    images, seeds = estimate.images_needed(WORTH_SEEING), estimate.seeds_needed(WORTH_SEEING)
    if estimate.low == estimate.high:
        return ""
    if images <= estimate.spread.images:
        return "no more than there is"
    ways = []
    if math.isfinite(images):
        ways.append(f"{_two_digits(images):,} images")
    if math.isfinite(seeds):
        ways.append(f"{seeds:,} seeds")
    return " or ".join(ways) or ("more seeds" if math.isnan(seeds) else "more of both")


def _two_digits(count: float) -> int:
    unit = 10 ** max(math.floor(math.log10(count)) - 1, 0)
    return math.ceil(count / unit) * unit
