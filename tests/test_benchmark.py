"""utils/benchmark.py."""

import re

import pytest
import torch

from network import NETWORKS as ALL_NETWORKS
from options import parse_args
from utils.benchmark import NETWORKS, TIMED, main, rates, table


def test_contenders_take_turns_and_the_rate_is_of_their_images(monkeypatch):
    clock, turns = [0.0], []
    monkeypatch.setattr("utils.benchmark.time.perf_counter", lambda: clock[0])

    def contender(name, seconds):
        def step():
            turns.append(name)
            clock[0] += seconds
            return 8

        return step

    measured = rates({"a": contender("a", 0.5), "b": contender("b", 0.25)}, rounds=3, steps_a_round=2)
    assert measured == {"a": 16, "b": 32}
    assert turns == ["a", "a", "b", "b"] * 4  # the first round warms up


def test_a_table_lines_up(capsys):
    table("Title", ["name", "n"], [["a", "100"], ["longer", "2"]])
    lines = capsys.readouterr().out.strip().splitlines()
    assert lines[2:] == ["| name   | n   |", "|--------|-----|", "| a      | 100 |", "| longer | 2   |"]


def test_its_tricks_and_networks_are_the_programs():
    assert set(NETWORKS) <= set(ALL_NETWORKS)
    for flags in TIMED:
        parse_args(["--checkpoint_name", "x", *flags.split()])


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--model=ResNet18"], "--model=ResNet18 has no meaning here"),
        (["--evaluate"], "--evaluate has no meaning here"),
        (["--data_dir", "nowhere"], "nowhere"),
        (["--epochs", "0"], "--epochs"),
    ],
)
def test_a_mistake_is_told_in_a_line(flags, words, capsys):
    with pytest.raises(SystemExit) as stop:
        main(flags)
    assert stop.value.code == 2
    assert words in capsys.readouterr().err


@pytest.mark.slow
def test_it_measures_this_machine(shapes, capsys):
    size = ("--image_size", "32", "--batch_size", "16", "--rounds", "1", "--steps", "1")
    main(["--data_dir", str(shapes), "--networks", "ResNet18", *size, "--baseline", "--skip", "tricks"])
    out = capsys.readouterr().out
    (row,) = re.findall(r"^\| ResNet18 +\|.*", out, re.MULTILINE)
    assert len(row.split("|")) == 12
    assert re.search(r"^\| 256 x 256 \| \d+ +\| \d+ +\| \d+ +\|$", out, re.MULTILINE)
    assert torch.__version__ in out
