"""How sure a difference in accuracy is, given which test images each run got right.

An experiment is a bool array [S, n]: S seeds by n test images, true where the image was classified rightly.
A contrast is a weighted sum of experiments on the same seeds and images: (1, -1) compares two, and the mean
over several pairs is one too. It is seen as

    x[s, i] = mean + image[i] + seed[s] + rest[s, i],

so that its mean has the variance Var(image)/n + Var(seed)/S + Var(rest)/(nS). Resampling the images, each
with all its seeds, brings out the first and the last term. That is all that one seed allows: it speaks of
these networks, not of those that the next seed would give. Two or three seeds say little about Var(seed), so
that is estimated from all experiments together, as the error term of an analysis of variance.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

RESAMPLES = 10_000
LEVEL = 0.05  # of all tests; intervals cover 1 - LEVEL
POWER = 0.8  # with which `images_needed` and `seeds_needed` would see an effect


@dataclass(frozen=True)
class SeedSpread:
    """How much runs that differ in nothing but the seed differ beyond what their images explain."""

    variance: float  # of one run's accuracy, in percent squared
    freedom: float  # degrees of freedom that this is known with


NO_SPREAD = SeedSpread(0.0, math.inf)


@dataclass(frozen=True)
class Estimate:
    """A contrast's mean in percent, and how sure it is."""

    mean: float
    low: float
    high: float
    p: float  # two-sided, of the hypothesis that the true mean is 0
    seeds: int
    images: int
    image_variance: float  # of the mean: from the choice of images, with the rest
    seed_variance: float  # of the mean: from the choice of seeds beyond the rest
    rest_variance: float | None  # of the mean: its part of image_variance, unknown with one seed

    def images_needed(self, effect: float) -> float:
        """Test images with which a true `effect` would be seen, with these seeds; inf if none are enough."""
        room = _variance_that_shows(effect) - self.seed_variance
        return self.images * self.image_variance / room if room > 0 else math.inf

    def seeds_needed(self, effect: float) -> float:
        """Seeds with which it would be seen, on these images; inf if none are enough, nan if unknown."""
        if self.rest_variance is None:
            return math.nan
        room = _variance_that_shows(effect) - max(self.image_variance - self.rest_variance, 0)
        return self.seeds * (self.seed_variance + self.rest_variance) / room if room > 0 else math.inf


def seed_spread(experiments: Sequence[np.ndarray]) -> SeedSpread:
    """The spread over seeds, pooled over experiments [S, n] on the same seeds and images.

    Of the accuracies [E, S] the residual mean square of a two-way analysis of variance (a seed may be good
    for all experiments), less what the images make of it by chance.
    """
    if len(experiments) < 2 or len(experiments[0]) < 2:
        return NO_SPREAD
    x = 100 * np.stack(experiments).astype(float)
    rest = x - x.mean(0) - x.mean(1, keepdims=True) + x.mean((0, 1))
    of_run = rest.mean(2)
    freedom, images = (x.shape[0] - 1) * (x.shape[1] - 1), x.shape[2]
    between = (of_run**2).sum() / freedom
    by_images = ((rest - of_run[..., None]) ** 2).sum() / (freedom * max(images - 1, 1)) / images
    return SeedSpread(max(between - by_images, 0.0), freedom)


def pool(spreads: Sequence[SeedSpread]) -> SeedSpread:
    """The spread over seeds of several groups of experiments."""
    known = [spread for spread in spreads if spread is not NO_SPREAD]
    freedom = sum(spread.freedom for spread in known)
    return SeedSpread(sum(s.variance * s.freedom for s in known) / freedom, freedom) if known else NO_SPREAD


def contrast(
    weights: Sequence[float],
    experiments: Sequence[np.ndarray],
    pooled: SeedSpread,
    rng: np.random.Generator,
) -> Estimate:
    """The mean of the weighted sum of experiments [S, n], its bootstrap interval, and a t test's p-value.

    The bootstrap resamples images and adds what other seeds would do: normal, with the spread `pooled` over
    many experiments or, where it is larger, that of these, so that the restless do not hide among the quiet.
    The percentile interval is stretched by Student's t over the normal quantile, with Satterthwaite's degrees
    of freedom ("expanded percentile interval", Hesterberg 2015, arXiv 1411.5279).
    """
    x = 100 * sum(weight * right.astype(float) for weight, right in zip(weights, experiments, strict=True))
    seeds, images = x.shape
    mean, of_image, of_seed = x.mean(), x.mean(0), x.mean(1)
    image_variance = of_image.var(ddof=1) / images if images > 1 else 0.0
    rest_variance, seed_variance, seed_freedom = None, 0.0, math.inf
    if seeds > 1:
        rest = x - of_image - of_seed[:, None] + mean
        rest_variance = (rest**2).sum() / (max(images - 1, 1) * (seeds - 1)) / (images * seeds)
        own = seed_spread(experiments)
        spread = max(own.variance, pooled.variance)
        seed_variance = spread * sum(weight**2 for weight in weights) / seeds
        seed_freedom = own.freedom if math.isinf(pooled.freedom) else pooled.freedom
    variance = image_variance + seed_variance
    parts = image_variance**2 / max(images - 1, 1) + seed_variance**2 / seed_freedom
    freedom = variance**2 / parts if parts else math.inf

    deviations = _resampled_means(of_image, rng) - mean
    deviations += math.sqrt(seed_variance) * rng.standard_normal(RESAMPLES)
    stretch = student_quantile(1 - LEVEL / 2, freedom) / student_quantile(1 - LEVEL / 2, math.inf)
    low, high = mean + stretch * np.quantile(deviations, (LEVEL / 2, 1 - LEVEL / 2))
    p = 2 * student_tail(abs(mean) / math.sqrt(variance), freedom) if variance else float(mean == 0)
    return Estimate(mean, low, high, p, seeds, images, image_variance, seed_variance, rest_variance)


def difference(a: np.ndarray, b: np.ndarray, pooled: SeedSpread, rng: np.random.Generator) -> Estimate:
    """How much more accurate the experiment `a` [S, n] is than `b`.

    With one seed p is McNemar's exact one.
    """
    found = contrast((1, -1), (a, b), pooled, rng)
    return replace(found, p=mcnemar(a[0], b[0])) if len(a) == 1 else found


def mcnemar(a: np.ndarray, b: np.ndarray) -> float:
    """The exact two-sided p-value that a and b [n], bool, are right equally often (McNemar 1947).

    Of the images that one of them gets right and the other wrong, either should have half: a binomial test.
    """
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    discordant = only_a + only_b
    ways = tail = 1  # to choose none of them, and so on up to the smaller count
    for chosen in range(min(only_a, only_b)):
        ways = ways * (discordant - chosen) // (chosen + 1)
        tail += ways
    return min(1.0, 2 * tail / 2**discordant)


def holm(p: Sequence[float]) -> list[float]:
    """The p-values adjusted so that the chance of any false alarm stays below the level (Holm 1979)."""
    adjusted, highest = [0.0] * len(p), 0.0
    for rank, index in enumerate(np.argsort(p, kind="stable")):
        highest = max(highest, min(1.0, (len(p) - rank) * p[index]))
        adjusted[index] = highest
    return adjusted


def student_tail(t: float, freedom: float) -> float:
    """The chance that Student's t with `freedom` degrees exceeds t."""
    angles, share = _student(freedom)
    return float(np.interp(math.atan(t / math.sqrt(min(freedom, 1e4))), angles, 1 - share))


def student_quantile(share: float, freedom: float) -> float:
    """The value that Student's t with `freedom` degrees stays below with probability `share`."""
    angles, shares = _student(freedom)
    return math.sqrt(min(freedom, 1e4)) * math.tan(np.interp(share, shares, angles))


@lru_cache(maxsize=8)
def _student(freedom: float) -> tuple[np.ndarray, np.ndarray]:
    """Angles and Student's distribution function at t = sqrt(freedom) tan(angle), from above 0 up.

    In the angle the density is cos(angle)^(freedom - 1). Beyond 1e4 degrees it is the normal one.
    """
    angles = np.linspace(0, math.pi / 2, 20_001)
    density = np.cos(angles) ** (min(freedom, 1e4) - 1)
    area = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
    return angles, 0.5 + 0.5 * area / area[-1]


def _resampled_means(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Means [RESAMPLES] of resamples of `values` [n]: only how often each different value came matters."""
    different, counts = np.unique(values.round(9), return_counts=True)
    return rng.multinomial(len(values), counts / len(values), RESAMPLES) @ different / len(values)


def _variance_that_shows(effect: float) -> float:
    """The variance of a mean with which a true `effect` is found at LEVEL with probability POWER."""
    normal = student_quantile(1 - LEVEL / 2, math.inf) + student_quantile(POWER, math.inf)
    return (effect / normal) ** 2
