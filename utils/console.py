"""What the program says: lines under labels, warnings and tables, for terminals of any width.

On a terminal labels have colours, unless NO_COLOR is set, and long lines are broken between words. Elsewhere,
in a file or a pipe, each line stays one line.
"""

import os
import sys
import textwrap
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from utils.text import numeric, visible

LABEL = 9  # characters
WIDTH_ELSEWHERE = 1000  # of tables in files and pipes, which nothing breaks
STYLES = {"warning": "bold yellow", "result": "bold green"}


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Raise the error, as `print` does when nobody reads any longer; rich would end the process."""
        raise  # the error that is handled when rich calls this


def _console() -> Console:
    """That of standard output as it is now: it may be redirected, and tests replace it."""
    console = _Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    if not (console.is_terminal or "COLUMNS" in os.environ):
        console.width = WIDTH_ELSEWHERE
    return console


def say(label: str, words: object) -> None:
    """Print a line of words, made safe to show, under a label."""
    console = _console()
    text, indent = visible(words), " " * LABEL
    if console.is_terminal:
        lines = textwrap.wrap(
            text, max(console.width - LABEL, 20), break_long_words=False, break_on_hyphens=False
        )
        text = f"\n{indent}".join(lines)
    line = Text(label.ljust(LABEL) + text)
    line.stylize(STYLES.get(label, "cyan"), 0, len(label))
    console.print(line)


def warn(words: object) -> None:
    """Print a warning."""
    say("warning", words)


def show(line: str) -> None:
    """Print a line as it is, without a label."""
    _console().print(line)


def show_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table that fits the terminal; columns of numbers are set to the right."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="")
    for number, title in enumerate(columns):
        right = numeric([row[number] for row in rows])
        table.add_column(visible(title), justify="right" if right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(visible(cell)) for cell in row))
    _console().print(table, soft_wrap=False)


@contextmanager
def said_if_slow(label: str, words: str, seconds: float = 1.0) -> Iterator[None]:
    """Say what takes so long, once it does, to who sits at a terminal."""
    timer = threading.Timer(seconds, say, (label, words))
    if sys.stdout is not None and sys.stdout.isatty():
        timer.start()
    try:
        yield
    finally:
        timer.cancel()
