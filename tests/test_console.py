"""utils/console.py: lines on terminals and elsewhere."""

import io
import re
import sys
import time

import pytest

from utils import console


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    """Makes a terminal of 40 columns of standard output."""
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERM", "xterm-256color")

    def begin():
        monkeypatch.setattr(sys, "stdout", Terminal())  # not before the test, since pytest sets it anew
        return sys.stdout

    return begin


LONG = "one two three four five six seven eight nine ten eleven"


def test_elsewhere_a_line_is_a_line(capsys):
    console.say("data", f"{LONG}\n\x1b[31m")
    assert capsys.readouterr().out == f"data     {LONG}\\n\\x1b[31m\n"


def test_on_a_terminal_it_is_broken_between_words_and_coloured(terminal):
    out = terminal()
    console.say("data", LONG)
    console.warn("short")
    colours = re.compile(r"\x1b\[[\d;]*m")
    lines = out.getvalue().splitlines()
    assert colours.search(lines[0])
    plain = [colours.sub("", line) for line in lines]
    assert plain == [
        "data     one two three four five six",
        "         seven eight nine ten eleven",
        "warning  short",
    ]


def test_no_color_is_heeded(terminal, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    out = terminal()
    console.say("data", "words")
    assert out.getvalue().startswith("data     words")


def test_names_are_never_markup(capsys):
    console.say("data", "[red]a[/red] :smile: [link=x]")
    console.show_table(["[b]", "n"], [["[/b]:heart:", "1"]])
    out = capsys.readouterr().out
    assert "[red]a[/red] :smile: [link=x]" in out
    assert "[/b]:heart:" in out


def test_columns_of_numbers_are_set_to_the_right(capsys):
    console.show_table(["name", "points"], [["a", "+1.50"], ["bb", "-10.25"]])
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == [
        "name   points",
        "─────────────",
        "a       +1.50",
        "bb     -10.25",
    ]


def test_what_is_slow_is_said_on_a_terminal_only(terminal, monkeypatch):
    out = terminal()
    with console.said_if_slow("loading", "torch", 0.05):
        time.sleep(0.3)
    with console.said_if_slow("loading", "more", 5):
        pass
    assert "torch" in out.getvalue()
    assert "more" not in out.getvalue()
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    with console.said_if_slow("loading", "torch", 0.05):
        time.sleep(0.3)
    assert sys.stdout.getvalue() == ""


def test_a_reader_that_is_gone_is_an_error_as_for_print(monkeypatch):
    class Gone(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", Gone())
    with pytest.raises(BrokenPipeError):
        console.say("data", "words")
