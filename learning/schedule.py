"""The learning rate, as a pure function of the step."""

import math
from collections.abc import Sequence

DECAY_FACTOR = 0.1


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

    - "step": 0.1 to the power of the number of `milestones` (in epochs) that have passed;
    - "step_warmup": the same, after a warm-up;
    - "cosine_warmup": after the warm-up of w steps, (1 + cos(pi * (t - w) / (T - w))) / 2, which is 1 at
      step w and would be 0 at step T, one after the last (SGDR, arXiv 1608.03983, without restarts).

    The warm-up multiplies by (t + 1) / w over the first w = `warmup_epochs` * `steps_per_epoch` steps
    (Goyal et al. 2017, arXiv 1706.02677): never 0, and it delays nothing that follows.

    Raises `ValueError` for an unknown `decay_type`.
    """
    if decay_type not in ("step", "step_warmup", "cosine_warmup"):
        raise ValueError(f"unknown decay_type {decay_type!r}")
    warmup_steps = round(warmup_epochs * steps_per_epoch) if decay_type.endswith("warmup") else 0
    warmup = min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0
    if decay_type == "cosine_warmup":
        steps = round(epochs * steps_per_epoch)
        progress = (step - warmup_steps) / max(1, steps - warmup_steps)
        decay = (1 + math.cos(math.pi * min(max(progress, 0.0), 1.0))) / 2
    else:
        decay = DECAY_FACTOR ** sum(step >= round(epoch * steps_per_epoch) for epoch in milestones)
    return warmup * decay
