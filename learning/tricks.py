"""Which tricks a run has, read back from the objects that were built for it.

A flag that came to nothing would be missing here.
"""

from collections import Counter

from torch import nn

from learning.fit import Fit
from learning.trainer import Trainer
from network.evonorm import EvoNorm
from network.layers import Dropout, StochasticDepth
from network.norm import FrozenBatchNormAct, residual_last_norms


def active_tricks(fit: Fit, views: int) -> dict[str, str]:
    """The names of the tricks that are active, and their strengths in words.

    `views` is how many views of an image are evaluated.
    """
    trainer = fit.trainer
    tricks = {
        **_of_network(trainer.network),
        "optimizer": _optimizer(trainer),
        "schedule": _schedule(fit),
        "augmentation": ", ".join(map(str, trainer.augment.transforms.values())) or "none",
        "loss": "cross-entropy, plain for validation and test images",
    }
    mixing, smoothing = trainer.mixing, trainer.criterion.keywords["smoothing"]
    share = {0: "", 1: "", 2: ", in half of the batches"}[len(mixing.methods)]
    if mixing.mixup_alpha:
        tricks["MixUp"] = f"alpha {mixing.mixup_alpha:g}{share}"
    if mixing.cutmix_alpha and mixing.cutmix_prob:
        tricks["CutMix"] = f"alpha {mixing.cutmix_alpha:g}, probability {mixing.cutmix_prob:g}{share}"
    if mixing.methods:
        tricks["training accuracy"] = "against the label that has the larger share"
    if smoothing:
        tricks["label smoothing"] = f"{smoothing:g}"
    if trainer.class_weights is not None:
        weights = trainer.class_weights.tolist()
        chosen = "epochs are chosen by balanced accuracy"
        tricks["class weights"] = f"from {min(weights):.3g} to {max(weights):.3g}; {chosen}"
    if trainer.teacher is not None:
        teacher = trainer.teacher
        tricks["distillation"] = f"temperature {teacher.temperature:g}, weight {teacher.weight:g}"
    if trainer.ema is not None:
        tricks["average of weights"] = f"decay {trainer.ema.decay:g}, after a ramp"
    if trainer.grad_clip is not None:
        tricks["gradient clipping"] = f"norm at most {trainer.grad_clip:g}"
    if trainer.accumulate > 1:
        tricks["accumulation"] = f"{trainer.accumulate} batches a step"
    if trainer.freeze_steps:
        tricks["freezing"] = f"only the last layer for {trainer.freeze_steps} steps"
    if trainer.precision != "fp32":
        tricks["low precision"] = trainer.precision
    if fit.patience is not None:
        tricks["early stopping"] = f"after {fit.patience} epochs without a better validation accuracy"
    if views > 1:
        tricks["test-time augmentation"] = f"mean of {views} views"
    return tricks


def lines(tricks: dict[str, str]) -> str:
    """The tricks for a console."""
    return "\n".join(
        f"{'' if number else 'tricks':8} {name}: {strength}"
        for number, (name, strength) in enumerate(tricks.items())
    )


def _of_network(network: nn.Module) -> dict[str, str]:
    """The tricks that are in the network's layers and their first values."""
    tricks = {}
    norms = Counter(
        type(module).__name__
        for module in network.modules()
        if isinstance(module, EvoNorm | FrozenBatchNormAct)
    )
    if norms:
        tricks["norm"] = ", ".join(f"{count} {name}" for name, count in norms.items())
    gammas = [norm.weight for norm in residual_last_norms(network)]
    zeros = sum(not gamma.any() for gamma in gammas)
    if zeros:
        tricks["zero gamma"] = f"in {zeros} of {len(gammas)} residual branches"
    drops = [module.p for module in network.modules() if isinstance(module, StochasticDepth) and module.p]
    if drops:
        tricks["drop path"] = f"up to {max(drops):.3g}, in {len(drops)} residual branches"
    dropouts = [module.p for module in network.modules() if isinstance(module, Dropout) and module.p]
    if dropouts:
        tricks["dropout"] = f"{dropouts[0]:g}"
    return tricks


def _optimizer(trainer: Trainer) -> str:
    optimizer, groups = trainer.optimizer, trainer.optimizer.param_groups
    words = [type(optimizer).__name__]
    if "momentum" in groups[0]:
        words.append(f"{'Nesterov ' * groups[0]['nesterov']}momentum {groups[0]['momentum']:g}")
    words.append(f"learning rate {trainer.base_lrs[0]:g}")
    for group in groups:
        words.append(f"weight decay {group['weight_decay']:g} on {len(group['params'])} tensors")
    return ", ".join(words)


def _schedule(fit: Fit) -> str:
    factor = fit.trainer.lr_factor
    factors = [factor(step) for step in range(fit.epochs * fit.steps_per_epoch)]
    highest = factors.index(max(factors))
    rise = f"rises over {highest + 1} steps, " if highest else ""
    return f"{factor.keywords['decay_type']}, {rise}ends at {factors[-1]:.3g} of the learning rate"
