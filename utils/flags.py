"""What argparse lacks: flags as data, errors of one line, defaults in the help, and numbers in a range."""

import argparse
import difflib
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NoReturn

from utils.text import visible


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, which guesses what an unknown flag was meant to be."""

    def error(self, message: str) -> NoReturn:
        _, unknown, words = message.partition("unrecognized arguments: ")
        flags = [word.partition("=")[0] for word in words.split() if unknown and word.startswith("-")]
        near = [
            name for flag in flags for name in difflib.get_close_matches(flag, self._option_string_actions, 1)
        ]
        guess = f"; did you mean {' '.join(near)}?" if near else ""
        self.exit(2, f"{self.prog}: error: {visible(message)}{guess} (--help lists all flags)\n")


class Help(argparse.HelpFormatter):
    """Adds each flag's default to its help, where there is one to tell."""

    def _get_help_string(self, action: argparse.Action) -> str:
        words = action.help or ""
        silent = action.default in (None, False, "", argparse.SUPPRESS) or "default" in words
        return words if silent else f"{words} (default: %(default)s)"


def number(
    kind: type, low: float, high: float = math.inf, above_low: bool = False, below_high: bool = False
) -> Callable[[str], Any]:
    """A flag's type: an int or float from `low` to `high`, without an end that is to be left out."""

    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(
                f"{text!r} is not a {'whole ' if kind is int else ''}number"
            ) from None
        too_low = not (value > low if above_low else value >= low)  # also true of NaN
        too_high = value >= high if below_high or math.isinf(high) else value > high
        if too_low or too_high:
            least = f"above {low:g}" if above_low else f"at least {low:g}"
            most = f" and {'below' if below_high else 'at most'} {high:g}" * math.isfinite(high)
            raise argparse.ArgumentTypeError(f"{text} is out of range; give {least}{most}")
        return value

    return parse


def spelled(names: Iterable[str]) -> Callable[[str], str]:
    """A flag's type: one of the names as it is spelled there, in whatever case it was given."""
    by_letters = {name.lower(): name for name in names}
    return lambda text: by_letters.get(text.lower(), text)


def path(text: str) -> str:
    """The type of flags that name a file or a folder."""
    if not text or "\0" in text:
        raise argparse.ArgumentTypeError(f"{text!r} is no name of a file or a folder")
    return text


share = number(float, 0, 1)
share_below_one = number(float, 0, 1, below_high=True)
not_negative = number(float, 0)
positive = number(float, 0, above_low=True)


@dataclass(frozen=True)
class Flag:
    """The flag `--name`. Of those whose default is False and which have no `kind`, no value is given.

    `kind` makes a value of a text, or is a tuple of all values. What a run computes depends on it if
    `of_run`; --resume and --evaluate take such flags from the run's checkpoint.
    """

    name: str
    default: Any
    help: str
    kind: Callable[[str], Any] | tuple | None = None
    metavar: str | None = None
    several: bool = False
    of_run: bool = True

    def add_to(self, group: argparse._ArgumentGroup) -> None:
        """Let the parser of the group know it."""
        options: dict[str, Any] = {"default": self.default, "help": self.help}
        if self.kind is None and self.default is False:
            options["action"] = "store_true"
        elif isinstance(self.kind, tuple):
            kind = type(self.kind[0])
            options |= {"choices": self.kind, "type": spelled(self.kind) if kind is str else kind}
        else:
            options |= {"type": self.kind or str, "metavar": self.metavar}
        if self.several:
            options["nargs"] = "+"
        group.add_argument(f"--{self.name}", **options)


def run_flags(args: argparse.Namespace) -> dict[str, Any]:
    """The flags as plain values, for args.json and the checkpoint."""
    return {name: value for name, value in vars(args).items() if name != "given"}
