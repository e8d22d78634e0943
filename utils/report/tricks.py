"""Which tricks an experiment has, read from its flags, and by which tricks two experiments differ."""

from collections.abc import Mapping, Sequence

from learning.tricks import OWN_DEFAULTS, TRICKS, Flags, Trick

APART = [trick for trick in TRICKS if trick.apart]
NETWORK, OPTIMIZER = (
    next(trick for trick in TRICKS if trick.name == name) for name in ("network", "optimizer")
)

Values = Mapping[str, tuple]  # of an experiment's flags, by the trick that they belong to


class OwnDefault(float):
    """What an optimizer has by default: equal to the same number, and to what another one has by default."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, OwnDefault) or super().__eq__(other)

    __hash__ = float.__hash__


def values_of(flags: Flags, plain: Flags, teacher: str | None, left_out: Sequence[str]) -> dict[str, tuple]:
    """The flags of a run as tricks that can be set apart from each other; `plain` are the defaults.

    Tricks without letters are told flag by flag, but for those `left_out`. The learning rate and the weight
    decay matter where they are not the optimizer's own; a `teacher` is known by its fingerprint.
    """
    own = OWN_DEFAULTS[flags["optimizer"]]
    usual = {name: OwnDefault(value) for name, value in own.items() if flags[name] == value}
    flags = {**flags, **usual, "teacher": teacher}
    values = {trick.name: trick.value(flags, plain) for trick in APART}
    told = {flag.name for trick in APART for flag in trick.flags}
    return values | {f"--{name}": (value,) for name, value in flags.items() if name not in {*told, *left_out}}


class Tricks:
    """The tricks of several experiments, given the `values_of` the flags of each and of the defaults."""

    def __init__(self, values: Mapping[str, Values], defaults: Mapping[str, Values], baseline: str):
        named = {trick.name for trick in APART}
        flags = [Trick(name, "", ()) for name in values[baseline] if name not in named]
        self.tricks = (*APART, *flags)
        self.baseline = baseline
        self.defaults = {name: self._by_trick(found) for name, found in defaults.items()}
        self.values = {name: self._by_trick(found) for name, found in values.items()}
        # By network and number of tricks, so that each experiment follows what it builds on.
        self.values = {name: self.values[name] for name in sorted(self.values, key=self._place)}

    def _by_trick(self, values: Values) -> dict[Trick, tuple]:
        return {trick: values.get(trick.name, (None,)) for trick in self.tricks}

    def _place(self, experiment: str) -> tuple:
        network, networks = self.network(experiment), [self.network(self.baseline), *(NETWORK.letters or ())]
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
        return self.values[experiment][NETWORK][0]

    def group(self, experiment: str) -> str:
        """The network and the optimizer of an experiment, in words."""
        return f"{self.network(experiment)}, {self.values[experiment][OPTIMIZER][0]}"

    def differences(self, a: str, b: str) -> list[Trick]:
        """The tricks in which two experiments differ."""
        return [trick for trick in self.tricks if self.values[a][trick] != self.values[b][trick]]

    def in_words(self, trick: Trick, a: str, b: str) -> str:
        """What `a` has of a trick where `b` has something else or nothing."""
        if trick.on_or_off or isinstance(self.values[a][trick][0], bool):
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
            trick for trick in self.tricks if (trick in on or trick is NETWORK) and not self._is_shared(trick)
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
        several_ways = not trick.on_or_off
        alike = {
            values[trick]
            for name, values in self.values.items()
            if (several_ways or trick in self._on(name)) and trick.short(values[trick]) == trick.short(value)
        }
        varying = [str(value[i]) for i in range(len(value)) if len({other[i] for other in alike}) > 1]
        return f"({', '.join(varying)})" if varying else ""
