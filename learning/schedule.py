"""The learning rate, as a pure function of the step: a warm-up, or none, times a decay."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

DECAY_FACTOR = 0.1


def step_decay(step: int, start: int, end: int, drops: Sequence[int]) -> float:
    """0.1 to the power of how many of the `drops` have passed."""
    return DECAY_FACTOR ** sum(step >= drop for drop in drops)


def cosine_decay(step: int, start: int, end: int, drops: Sequence[int]) -> float:
    """(1 + cos(pi t)) / 2, with t from 0 at `start` to 1 at `end` (SGDR, arXiv 1608.03983, no restarts)."""
    return (1 + math.cos(math.pi * _progress(step, start, end))) / 2


def linear_decay(step: int, start: int, end: int, drops: Sequence[int]) -> float:
    """1 - t, with t from 0 at `start` to 1 at `end`."""
    return 1 - _progress(step, start, end)


def _progress(step: int, start: int, end: int) -> float:
    return min(max((step - start) / max(1, end - start), 0.0), 1.0)


# Of each --decay_type, whether it begins with a warm-up, and how the learning rate falls after that.
SCHEDULES: dict[str, tuple[bool, Callable[[int, int, int, Sequence[int]], float]]] = {
    "step": (False, step_decay),
    "step_warmup": (True, step_decay),
    "cosine_warmup": (True, cosine_decay),
    "linear_warmup": (True, linear_decay),
}


def lr_factor(
    step: int,
    *,
    steps_per_epoch: int,
    epochs: float,
    decay_type: str,
    warmup_epochs: float,
    milestones: Sequence[float],
) -> float:
    """The factor in [0, 1] that multiplies the learning rate at `step`, counted from 0.

    It is that of the decay of the `decay_type` in `SCHEDULES`, whose drops are the `milestones` (in epochs).
    Cosine and linear decay start where the warm-up of w steps ends, and would reach 0 at step T, one after
    the last. The warm-up multiplies by (t + 1) / w over the first w = `warmup_epochs` * `steps_per_epoch`
    steps (Goyal et al. 2017, arXiv 1706.02677): never 0, and it delays nothing that follows.

    Raises `ValueError` for an unknown `decay_type`.
    """
    if decay_type not in SCHEDULES:
        raise ValueError(f"unknown decay_type {decay_type!r}")
    warms_up, decay = SCHEDULES[decay_type]
    warmup_steps = round(warmup_epochs * steps_per_epoch) * warms_up
    warmup = min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0
    drops = [round(epoch * steps_per_epoch) for epoch in milestones]
    return warmup * decay(step, warmup_steps, round(epochs * steps_per_epoch), drops)


@dataclass(frozen=True)
class Schedule:
    """`lr_factor` of the step alone."""

    decay_type: str
    steps_per_epoch: int
    epochs: float
    warmup_epochs: float
    milestones: Sequence[float]

    def __call__(self, step: int) -> float:
        return lr_factor(step, **vars(self))
