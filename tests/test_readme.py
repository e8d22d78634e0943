"""The README names every flag, and no flag, file or network that is not there."""

import re

import pytest

from learning.tricks import table
from network import NETWORKS
from options import build_parser
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text()
FLAGS = {
    flag for action in build_parser()._actions for flag in action.option_strings if flag.startswith("--")
}
# Flags of other programs that the README calls.
FOREIGN = {"--logdir", "--check", "--baseline", "--dry_run"}


def test_the_readme_names_every_flag_and_no_other():
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z_]*", README))
    assert named - FOREIGN == FLAGS


def test_the_table_of_tricks_is_that_of_the_code():
    assert table() in README, (
        "put in what python -c 'from learning import tricks; print(tricks.table())' prints"
    )


def test_the_readme_links_to_files_that_are_there():
    links = {link for link in re.findall(r"\]\(([^)]+)\)", README) if not link.startswith("http")}
    assert "learning/schedule.py" in links
    assert [link for link in links if not (ROOT / link).is_file()] == []


def test_the_readme_names_networks_that_are_there():
    named = set(re.findall(r"--model (\S+?)[`\s]", README))
    assert named
    assert named <= set(NETWORKS)


@pytest.mark.parametrize("words", ["main.py --demo", "-m pytest"])
def test_the_two_commands_are_one_line_each_and_start_from_nothing(words):
    lines = [
        line for line in README.splitlines() if words in line and line.startswith("python3 -m venv .venv && ")
    ]
    assert len(lines) == 1
