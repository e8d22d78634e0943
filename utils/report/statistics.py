"""How sure a difference in accuracy is, given which test images each run got right.

An experiment is a bool array [S, n]: S seeds by n test images, true where the image was classified rightly.
A contrast is a weighted sum of experiments on the same seeds and images: (1, -1) compares two, and the mean
over several pairs is one too. What it makes of an image and a seed is seen as

    x[s, i] = mean + image[i] + seed[s] + rest[s, i],

so that its mean has the variance Var(image)/n + (Var(seed) + Var(rest)/n)/S. The first part, V, comes from n
images and is well known. The second, B, is the sum over the experiments of weight^2 Q/S, where Q is the mean
square between the accuracies of the seeds, of which two or three say little. The interval reaches

    (V z + B t) / sqrt(V + B)                                              (Cochran 1964, Biometrics 20: 191)

to both sides, with quantiles of Student's t: z for n - 1 degrees of freedom, and t for those of Welch and
Satterthwaite (Satterthwaite 1946, Biometrics Bulletin 2: 110),

    (sum_e weight_e^2 m_e)^2 / sum_e ((weight_e^2 m_e)^2 / (S - 1)),       m_e = max(Q_e, Var(rest_e) / 2n).

Images alone make a Q_e of Var(rest_e)/n, so a smaller one is luck: with it in the place of m_e, the freedom
would often be that of the other experiment alone. Half of that variance is taken, since with all of it an
experiment whose seeds differ by much too often seemed better than a quiet one. p is the level at which the
interval ends at 0. No experiment's spread says anything of another's, so the restless do not hide among the
quiet. What all experiments of a seed share, as its validation images, makes Q too large for differences; that
errs on the careful side.

One seed allows none of that: it speaks of these networks, not of those that the next seed would give.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

LEVEL = 0.05  # of all tests; intervals cover 1 - LEVEL
POWER = 0.8  # with which `images_needed` and `seeds_needed` would see an effect
MOST = 10**9  # images or seeds, beyond which no number is enough


@dataclass(frozen=True)
class Spread:
    """Where the variance of a mean over seeds and images comes from, in percent squared."""

    images: int
    seeds: int
    image: float  # from the choice of images; with one seed, all that is known
    seed: float = 0.0  # from the choice of seeds, the rest included
    rest: float = 0.0  # what of `seed` images explain, since each seed errs on others
    freedom: float = math.inf  # degrees of freedom that `seed` is known with

    def reach(self, level: float = LEVEL, careful: bool = True) -> float:
        """How far the interval that covers 1 - `level` reaches to each side.

        If `careful`, no less than it would without what seeds add beyond the rest.
        """
        variance = self.image + self.seed
        if not variance:
            return 0.0
        of_images = student_quantile(1 - level / 2, max(self.images - 1, 1))
        of_seeds = student_quantile(1 - level / 2, self.freedom) if self.seed else 0.0
        least = of_images * math.sqrt(self.image + self.rest) if careful else 0.0
        return max((self.image * of_images + self.seed * of_seeds) / math.sqrt(variance), least)

    def shows(self, effect: float) -> bool:
        """Whether a true `effect` is found at LEVEL with probability POWER."""
        power = student_quantile(POWER, math.inf)
        return self.reach() + power * math.sqrt(self.image + self.seed) <= effect

    def of(self, images: int, seeds: int) -> "Spread":
        """That of a mean over other numbers of them."""
        seed = max(self.seed - self.rest, 0) * self.seeds / seeds
        rest = self.rest * self.seeds / seeds * self.images / images
        freedom = self.freedom * (seeds - 1) / (self.seeds - 1) if self.seeds > 1 else math.inf
        return Spread(images, seeds, self.image * self.images / images, seed + rest, rest, freedom)


@dataclass(frozen=True)
class Estimate:
    """A mean in percent, and how sure it is."""

    mean: float
    low: float
    high: float
    p: float  # two-sided, of the hypothesis that the true mean is 0
    spread: Spread

    def images_needed(self, effect: float) -> float:
        """Test images with which a true `effect` would be seen, with these seeds; inf if none are enough."""
        return _least(1, lambda images: self.spread.of(images, self.spread.seeds).shows(effect))

    def seeds_needed(self, effect: float) -> float:
        """Seeds with which it would be seen, on these images; inf if none are enough, nan if unknown."""
        if self.spread.seeds == 1:
            return math.nan
        return _least(2, lambda seeds: self.spread.of(self.spread.images, seeds).shows(effect))


def contrast(weights: Sequence[float], experiments: Sequence[np.ndarray]) -> Estimate:
    """The mean of the weighted sum of `experiments` [S, n], in percent."""
    mean, spread = _mean_and_spread(weights, experiments)
    reach = spread.reach()
    return Estimate(mean, mean - reach, mean + reach, _p(abs(mean), spread), spread)


def difference(a: np.ndarray, b: np.ndarray) -> Estimate:
    """How much more accurate the experiment `a` [S, n] is than `b`.

    With one seed p is McNemar's exact one.
    """
    found = contrast((1, -1), (a, b))
    return replace(found, p=mcnemar(a[0], b[0])) if len(a) == 1 else found


def accuracy(right: np.ndarray) -> Estimate:
    """The accuracy of one experiment [S, n], whatever seeds may share with other experiments.

    Where all images are right, or all wrong, the interval is Clopper and Pearson's.
    """
    mean, spread = _mean_and_spread((1,), (right,))
    reach = spread.reach(careful=False)
    low, high = max(mean - reach, 0.0), min(mean + reach, 100.0)
    if right.all() or not right.any():
        room = 100 * (1 - (LEVEL / 2) ** (1 / right.shape[1]))
        low, high = max(mean - room, 0.0), min(mean + room, 100.0)
    return Estimate(mean, low, high, _p(mean, spread), spread)


def _mean_and_spread(weights: Sequence[float], experiments: Sequence[np.ndarray]) -> tuple[float, Spread]:
    each = [100 * weight * right.astype(float) for weight, right in zip(weights, experiments, strict=True)]
    x = sum(each)
    seeds, images = x.shape
    of_images = x.mean(0).var(ddof=1) / images if images > 1 else 0.0
    if seeds == 1:
        return x.mean(), Spread(images, seeds, of_images)
    between = np.array([one.mean(1).var(ddof=1) for one in each])
    rests = np.array([_rest(one) for one in each])
    likely = np.maximum(between, rests / 2)
    freedom = (seeds - 1) * likely.sum() ** 2 / (likely**2).sum() if likely.any() else math.inf
    # V is not below 0, though the difference of two estimates may be.
    of_images = max(of_images - _rest(x) / seeds, 0.0)
    return x.mean(), Spread(images, seeds, of_images, between.sum() / seeds, rests.sum() / seeds, freedom)


def _rest(x: np.ndarray) -> float:
    """Var(rest) / n, the part of the variance of a seed's mean of x [S, n] that its own errors make."""
    rest = x - x.mean(0) - x.mean(1, keepdims=True) + x.mean()
    seeds, images = x.shape
    return (rest**2).sum() / ((seeds - 1) * max(images - 1, 1)) / images


def _p(distance: float, spread: Spread) -> float:
    """The level whose interval reaches exactly so far, by bisection."""
    if not spread.reach():
        return float(distance == 0)
    low, high = -30.0, 0.0  # logarithms
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if spread.reach(math.exp(middle)) < distance else (middle, high)
    return math.exp(high)


def _least(first: int, enough: Callable[[int], bool]) -> float:
    """The smallest whole number from `first` on that is `enough`, as all after it are; inf beyond MOST."""
    low, high = first, first
    while not enough(high):
        if high > MOST:
            return math.inf
        low, high = high + 1, 2 * high
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return low


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


@lru_cache(maxsize=64)
def _student(freedom: float) -> tuple[np.ndarray, np.ndarray]:
    """Angles and Student's distribution function at t = sqrt(freedom) tan(angle), from above 0 up.

    In the angle the density is cos(angle)^(freedom - 1). Beyond 1e4 degrees it is the normal one.
    """
    angles = np.linspace(0, math.pi / 2, 20_001)
    density = np.cos(angles) ** (min(freedom, 1e4) - 1)
    area = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
    return angles, 0.5 + 0.5 * area / area[-1]
