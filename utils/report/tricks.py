"""Which tricks an experiment has, read from its flags, and by which tricks two experiments differ."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, eq=False)
class Trick:
    """Something that is on or off (`letters` is a string), or in one of several ways (a string for each)."""

    name: str
    letters: str | dict[str, str]
    settings: tuple[str, ...]  # which way comes first

    def short(self, value: tuple) -> str:
        """The letters of a value of the settings."""
        if isinstance(self.letters, str):
            return self.letters
        return self.letters.get(value[0], self.long(value))

    def long(self, value: tuple) -> str:
        """A value of the settings in words."""
        if isinstance(self.letters, str):
            return self.name
        if self.name.startswith("--"):
            return self.name if value[0] is True else f"{self.name} {value[0]}"
        return str(value[0])


# In the order in which letters are written, and in which a trick counts as added to those before it.
TRICKS = (
    Trick("network", {"ResNet50": "B", "EfficientNet": "EN", "RegNet": "RN"}, ("model",)),
    Trick("weights", {}, ("weights",)),
    Trick(
        "optimizer",
        {"SGD": "SGD", "ADAM": "A", "ADAMW": "AW", "RADAM": "R"},
        ("optimizer", "learning_rate"),
    ),
    Trick("warm-up", "W", ("warm-up",)),
    Trick("cosine decay", "C", ("cosine decay",)),
    Trick("zero gamma", "Z", ("zero_gamma",)),
    Trick("no bias decay", "NB", ("no_bias_decay",)),
    Trick("label smoothing", "S", ("label_smooth",)),
    Trick("MixUp", "M", ("mixup",)),
    Trick("CutMix", "CM", ("cutmix_alpha", "cutmix_prob")),
    Trick("RandAugment", "RA", ("randaugment", "rand_n", "rand_m")),
    Trick("TrivialAugment", "TA", ("trivial_augment",)),
    Trick("random erasing", "RE", ("random_erasing",)),
    Trick(
        "norm",
        {"batchnorm": "BN", "evonorm": "E", "evonorm_b0": "EB", "frozen_batchnorm": "FB"},
        ("norm",),
    ),
    Trick("average of weights", "EMA", ("ema",)),
    Trick("distillation", "KD", ("teacher", "teacher_temperature", "teacher_weight")),
)


class OwnDefault(float):
    """What an optimizer has by default: equal to the same number, and to what another one has by default."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, OwnDefault) or super().__eq__(other)

    __hash__ = float.__hash__


def settings_of(
    flags: Mapping[str, Any], plain: Mapping[str, Any], teacher: str | None = None
) -> dict[str, Any]:
    """The flags of a run as things that can be set apart from each other; `plain` are the defaults, those of
    its optimizer among them.

    A schedule may have two tricks, warm-up and cosine decay, whose times matter where they are not those
    that follow from the epochs; the learning rate and the weight decay matter where they are not the
    optimizer's own; weights are from scratch, ImageNet's or a file's; a `teacher` is known by its
    fingerprint.
    """
    settings = dict(flags)
    for name in ("learning_rate", "weight_decay"):
        if settings[name] == plain[name]:
            settings[name] = OwnDefault(settings[name])
    decay, warmup, milestones = (settings.pop(name) for name in ("decay_type", "warmup_epochs", "milestones"))
    usual_warmup = "usual" if warmup == plain["warmup_epochs"] else warmup
    settings["warm-up"] = None if decay == "step" else usual_warmup
    settings["cosine decay"] = decay == "cosine_warmup"
    usual = decay == "cosine_warmup" or milestones == plain["milestones"]
    settings["milestones"] = None if usual else tuple(milestones)
    pretrained, path = settings.pop("pretrained"), settings.pop("pretrained_path")
    settings["weights"] = Path(path).name if path else "ImageNet" if pretrained else "scratch"
    return settings | {"teacher": teacher}


class Tricks:
    """The tricks of several experiments, given the settings of each and what those are by default."""

    def __init__(
        self,
        settings: Mapping[str, Mapping[str, Any]],
        defaults: Mapping[str, Mapping[str, Any]],
        baseline: str,
    ):
        named = {setting for trick in TRICKS for setting in trick.settings}
        flags = [Trick(f"--{name}", {}, (name,)) for name in settings[baseline] if name not in named]
        self.tricks = (*TRICKS, *flags)
        self.baseline = baseline
        self.defaults = {name: self._values(found) for name, found in defaults.items()}
        self.values = {name: self._values(found) for name, found in settings.items()}
        # By network and number of tricks, so that each experiment follows what it builds on.
        self.values = {name: self.values[name] for name in sorted(self.values, key=self._place)}

    def _values(self, settings: Mapping[str, Any]) -> dict[Trick, tuple]:
        return {trick: tuple(settings.get(name) for name in trick.settings) for trick in self.tricks}

    def _place(self, experiment: str) -> tuple:
        network, networks = self.network(experiment), [self.network(self.baseline), *TRICKS[0].letters]
        known = networks.index(network) if network in networks else len(networks)
        added = self.differences(experiment, self.baseline)
        values = [str(self.values[experiment][trick]) for trick in added]
        return known, network, len(added), [self.tricks.index(trick) for trick in added], values, experiment

    @property
    def experiments(self) -> list[str]:
        """Their names, in the order in which they are told."""
        return list(self.values)

    def shared(self) -> list[str]:
        """What all experiments have alike and not by default, in words."""
        first = next(iter(self.values))
        return [self._long(first, trick) for trick in self._on(first) if self._is_shared(trick)]

    def letters(self, experiment: str) -> str:
        """The tricks of an experiment in short, as "B+A+W+C", without what all experiments share."""
        return "+".join(self._short(experiment, trick) for trick in self._told(experiment)) or "plain"

    def legend(self) -> dict[str, str]:
        """What the letters mean that are no words, in the order in which they are written."""
        return {
            trick.short(values[trick]): trick.long(values[trick])
            for trick in self.tricks
            for name, values in self.values.items()
            if trick in self._told(name) and trick.short(values[trick]) != trick.long(values[trick])
        }

    def network(self, experiment: str) -> str:
        """The network of an experiment."""
        return self.values[experiment][TRICKS[0]][0]

    def group(self, experiment: str) -> str:
        """The network and the optimizer of an experiment, in words."""
        optimizer = next(trick for trick in TRICKS if trick.name == "optimizer")
        return f"{self.network(experiment)}, {self.values[experiment][optimizer][0]}"

    def differences(self, a: str, b: str) -> list[Trick]:
        """The tricks in which two experiments differ."""
        return [trick for trick in self.tricks if self.values[a][trick] != self.values[b][trick]]

    def in_words(self, trick: Trick, a: str, b: str) -> str:
        """What `a` has of a trick where `b` has something else or nothing."""
        if isinstance(trick.letters, str):
            if trick not in self._on(b):
                return self._long(a, trick)
            if trick not in self._on(a):
                return f"no {self._long(b, trick)}"
        return f"{self._long(a, trick)} instead of {self._long(b, trick)}"

    def relative(self, experiment: str, others: Sequence[str]) -> str | None:
        """The one of `others` that differs by one trick; of several, that which lacks the last trick added.

        Tricks are counted from the baseline on. The relative has no more, and if as many, it comes earlier.
        """
        candidates = []
        order = self.experiments
        count = {name: len(self.differences(name, self.baseline)) for name in order}
        for place, other in enumerate(order):
            if other not in others:
                continue
            different = self.differences(experiment, other)
            fewer = count[experiment] - count[other]
            if len(different) == 1 and (fewer > 0 or (fewer == 0 and place < order.index(experiment))):
                candidates.append((fewer, self.tricks.index(different[0]), -place))
        return order[-max(candidates)[2]] if candidates else None

    def _on(self, experiment: str) -> list[Trick]:
        values, defaults = self.values[experiment], self.defaults[experiment]
        return [trick for trick in self.tricks if values[trick] != defaults[trick]]

    def _told(self, experiment: str) -> list[Trick]:
        """What sets it apart: its network, and the tricks that it has, unless all have the same."""
        on = self._on(experiment)
        return [
            trick
            for trick in self.tricks
            if (trick in on or trick is TRICKS[0]) and not self._is_shared(trick)
        ]

    def _is_shared(self, trick: Trick) -> bool:
        return len({values[trick] for values in self.values.values()}) == 1

    def _short(self, experiment: str, trick: Trick) -> str:
        return trick.short(self.values[experiment][trick]) + self._details(experiment, trick)

    def _long(self, experiment: str, trick: Trick) -> str:
        return trick.long(self.values[experiment][trick]) + self._details(experiment, trick)

    def _details(self, experiment: str, trick: Trick) -> str:
        """The settings in which experiments with this trick differ among themselves."""
        value = self.values[experiment][trick]
        several_ways = not isinstance(trick.letters, str)
        alike = {
            values[trick]
            for name, values in self.values.items()
            if (several_ways or trick in self._on(name)) and trick.short(values[trick]) == trick.short(value)
        }
        varying = [str(value[i]) for i in range(len(value)) if len({other[i] for other in alike}) > 1]
        return f"({', '.join(varying)})" if varying else ""
