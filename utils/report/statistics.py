"""How sure a difference in accuracy is, given which test images each run got right.

An experiment is an array [S, n]: S seeds by n test images, 1 where the image was classified rightly, else 0.
The mean of several experiments on the same seeds and images is seen as one. Their difference, x = a - b, is

    x[s, i] = mean + image[i] + seed[s] + rest[s, i],

so that its mean has the variance Var(image)/n + (Var(seed) + Var(rest)/n)/S. The first part, V, comes from
n images and is well known. The second, B, is (Q_a + Q_b)/S, where Q is the mean square between the accuracies
of the seeds, of which two or three say little. The interval reaches

    (V z + B t) / sqrt(V + B)                                              (Cochran 1964, Biometrics 20: 191)

to both sides, with quantiles of Student's t: z for n - 1 degrees of freedom, and t for those of Welch and
Satterthwaite (Satterthwaite 1946, Biometrics Bulletin 2: 110),

    (S - 1) (m_a + m_b)^2 / (m_a^2 + m_b^2),                               m = max(Q, Var(rest) / 2n).

Images alone make a Q of Var(rest)/n, so a smaller one is luck: with it in the place of m, the freedom would
often be that of the other experiment alone. Half of that variance is taken, since with all of it an
experiment whose seeds differ by much too often seemed better than a steady one. (With half of it that is so
in 5.6 % of studies where the seeds differ by 2 points, and in up to 8 % where two seeds differ by 3.) p is
the level at which the interval ends at 0. No experiment's spread says anything of another's, so that an
unsteady one cannot hide among others. What the seeds of both have in common makes B too large, which is the
careful side.

One seed allows none of that: it speaks of these networks, not of those that the next seed would give.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

LEVEL = 0.05  # of all tests; intervals cover 1 - LEVEL
POWER = 0.8  # with which `images_needed` and `seeds_needed` would see an effect
PERCENT = 100.0
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

        If `careful`, as a difference must be, no less than it would without what seeds add beyond the rest.
        Else V / (V + B), the part of z, is raised to 3/4: with Cochran's up to 97.5 % of intervals of single
        accuracies cover, with 1/2 down to 92 %.
        """
        variance = self.image + self.seed
        of_images = student_quantile(1 - level / 2, max(self.images - 1, 1))
        of_seeds = student_quantile(1 - level / 2, self.freedom) if self.seed else 0.0
        share = (self.image / variance) ** (1 if careful else 0.75) if variance else 1.0
        both = math.sqrt(variance) * (share * of_images + (1 - share) * of_seeds)
        return max(both, of_images * math.sqrt(self.image + self.rest) if careful else 0.0)

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
class Mean:
    """The mean of a figure over an experiment's seeds and images, and how sure it is."""

    mean: float
    low: float
    high: float
    spread: Spread


@dataclass(frozen=True)
class Estimate(Mean):
    """A difference of two experiments, of their accuracy in points."""

    p: float  # two-sided, of the hypothesis that there is none

    def images_needed(self, effect: float) -> float:
        """Test images with which a true `effect` would be seen, with these seeds; inf if none are enough."""
        return _least(1, lambda images: self.spread.of(images, self.spread.seeds).shows(effect))

    def seeds_needed(self, effect: float) -> float:
        """Seeds with which it would be seen, on these images; inf if none are enough, nan if unknown."""
        if self.spread.seeds == 1:
            return math.nan
        return _least(2, lambda seeds: self.spread.of(self.spread.images, seeds).shows(effect))


def difference(a: np.ndarray, b: np.ndarray, unit: float = PERCENT) -> Estimate:
    """How much larger `a` [S, n] is than `b`: a figure of an experiment, or the mean over several, in `unit`.

    Of two experiments with one seed p is McNemar's exact one, if the figure is whether an image was
    classified rightly (bool).
    """
    sides = unit * a, unit * b
    x = sides[0] - sides[1]
    if not x.any():
        seeds, images = x.shape
        return Estimate(0.0, 0.0, 0.0, Spread(images, seeds, image=0.0), p=1.0)
    spread = _spread(x, sides)
    mean, reach = x.mean(), spread.reach()
    if not reach or (len(a) == 1 and a.dtype == b.dtype == bool):
        p = mcnemar(a[0], b[0])
    else:
        p = _p(abs(mean), spread)
    return Estimate(mean, mean - reach, mean + reach, spread, p)


def mean_figure(x: np.ndarray) -> Mean:
    """That of any figure of the images, [S, n], whatever seeds may share with other experiments."""
    spread = _spread(x, (x,))
    mean, reach = float(x.mean()), spread.reach(careful=False)
    return Mean(mean, mean - reach, mean + reach, spread)


def accuracy(right: np.ndarray) -> Mean:
    """The accuracy of one experiment [S, n], whatever seeds may share with other experiments.

    The interval is Wilson's (1927, JASA 22: 209) for as many images as would make the variance that is
    found: with the mean m in shares of 1, a reach of r and q = r^2 / (m (1 - m)) it is

        (m + q / 2 +- sqrt(m (1 - m) q + q^2 / 4)) / (1 + q).

    q is at least that of 2 n S independent images, since seeds that are equally good by luck say nothing,
    and where no image is wrong, or none right, that of n images: z^2 / n.
    """
    x = PERCENT * right
    spread = _spread(x, (x,))
    mean, reach, room = right.mean(), spread.reach(careful=False) / 100, right.mean() * (1 - right.mean())
    of_one = student_quantile(1 - LEVEL / 2, math.inf) ** 2
    q = max(reach**2 / room, of_one / (2 * right.size)) if room else of_one / right.shape[1]
    middle, half = mean + q / 2, math.sqrt(room * q + q**2 / 4)
    low, high = (100 * (middle + side) / (1 + q) for side in (-half, half))
    return Mean(100 * mean, low, high, spread)


def _spread(x: np.ndarray, parts: Sequence[np.ndarray]) -> Spread:
    """The spread of the mean of x [S, n], a sum or difference of `parts`, in percent."""
    seeds, images = x.shape
    of_images = x.mean(0).var(ddof=1) / images if images > 1 else 0.0
    if seeds == 1:
        return Spread(images, seeds, of_images)
    between = np.array([part.mean(1).var(ddof=1) for part in parts])
    rests = np.array([_rest(part) for part in parts])
    likely = np.maximum(between, rests / 2)
    freedom = (seeds - 1) * likely.sum() ** 2 / (likely**2).sum() if likely.any() else math.inf
    # V is not below 0, though the difference of two estimates may be.
    of_images = max(of_images - _rest(x) / seeds, 0.0)
    return Spread(images, seeds, of_images, between.sum() / seeds, rests.sum() / seeds, freedom)


def _rest(x: np.ndarray) -> float:
    """Var(rest) / n, the part of the variance of a seed's mean of x [S, n] that its own errors make."""
    rest = x - x.mean(0) - x.mean(1, keepdims=True) + x.mean()
    seeds, images = x.shape
    return (rest**2).sum() / ((seeds - 1) * max(images - 1, 1)) / images


def _p(distance: float, spread: Spread) -> float:
    """The level whose interval reaches exactly so far, by bisection."""
    low, high = -30.0, 0.0  # logarithms
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if spread.reach(math.exp(middle)) < distance else (middle, high)
    return math.exp(high)


def _least(first: int, enough: Callable[[int], bool]) -> float:
    """The smallest whole number from `first` on that is `enough`, if larger ones are; inf beyond MOST."""
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
    """The exact two-sided p-value that a and b [n] are right equally often (McNemar 1947).

    Of the images that one of them gets right and the other wrong, either should have half: a binomial test.
    """
    only_a, only_b = int((a > b).sum()), int((b > a).sum())
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
