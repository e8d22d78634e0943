"""What argparse lacks: errors of one line, defaults in the help, and numbers in a range."""

import argparse
import math
from collections.abc import Callable
from typing import Any, NoReturn

from utils.text import visible


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {visible(message)} (--help lists all flags)\n")


class Help(argparse.HelpFormatter):
    """Adds each flag's default to its help, where there is one to tell."""

    def _get_help_string(self, action: argparse.Action) -> str:
        silent = action.default in (None, False, argparse.SUPPRESS) or "default" in action.help
        return action.help if silent else f"{action.help} (default: %(default)s)"


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
