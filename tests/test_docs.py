"""README and docs: what they name is there, nothing is left out, and their commands run."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import options
from learning.tricks import table
from network import NETWORKS
from options import build_parser
from tests.conftest import ROOT

PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text()
    for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"))
}
README, ALL = PAGES["README.md"], "\n".join(PAGES.values())
FLAGS = {
    flag for action in build_parser()._actions for flag in action.option_strings if flag.startswith("--")
}
# Flags of other programs, which README and docs call.
FOREIGN = {
    "--logdir",
    "--check",
    "--baseline",
    "--dry_run",
    "--pack",
    "--index-url",
    "--shm-size",
    "--install",
}
# A block of commands, and why it is not run, if it is not.
BLOCK = re.compile(r"(?:<!-- not run: ([^>]*) -->\n)?```(bash|python)\n(.*?)```", re.DOTALL)


def blocks(page):
    return BLOCK.findall(PAGES[page])


def test_every_flag_is_named_and_no_other():
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z_-]*", ALL))
    assert named - FOREIGN == FLAGS


def test_the_table_of_tricks_is_that_of_the_code():
    assert table() in PAGES["docs/tricks.md"], (
        "put in what python -c 'from learning import tricks; print(tricks.table())' prints"
    )


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_that_are_there(page):
    links = {link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", PAGES[page])}
    links = {link for link in links if link and not link.startswith("http")}
    assert [link for link in links if not (ROOT / page).parent.joinpath(link).is_file()] == []


def test_the_readme_leads_to_every_page():
    assert [page for page in PAGES if page != "README.md" and f"]({page})" not in README] == []


def test_lines_of_code_that_are_quoted_are_there():
    quoted = re.findall(r"^\[[^]]+\]\(\.\./([\w/.]+)\): `(.+)`$", PAGES["docs/tricks.md"], re.MULTILINE)
    assert len(quoted) > 25
    assert [(file, line) for file, line in quoted if line not in (ROOT / file).read_text()] == []


def test_networks_that_are_named_are_there():
    named = set(re.findall(r"--model (\S+?)[`\s]", ALL))
    assert named
    assert named <= set(NETWORKS)


@pytest.mark.parametrize("words", ["main.py --demo", "-m pytest"])
def test_the_two_commands_are_one_line_each_and_start_from_nothing(words):
    lines = [
        line for line in README.splitlines() if words in line and line.startswith("python3 -m venv .venv && ")
    ]
    assert len(lines) == 1


def test_the_readme_is_three_screens():
    assert len(README.splitlines()) < 180


@pytest.mark.parametrize("page", PAGES)
def test_the_english_is_plain(page):
    assert re.findall(r"\b(told|for looking|restless|reckoned|in words|whilst|thereof)\b", PAGES[page]) == []


@pytest.mark.parametrize("page", PAGES)
def test_commands_can_be_parsed(page):
    """Those too that are not run."""
    for _, language, text in blocks(page):
        if language == "python":
            compile(text, page, "exec")
            continue
        subprocess.run(["bash", "-n", "-c", text], check=True)
        for line in text.splitlines():
            command = re.search(r"python (main\.py|-m utils\.batch) ([^<|>]*)", line)
            if not command:
                continue
            words = [word for word in shlex.split(command[2]) if word != "--dry_run"]
            name = ["--checkpoint_name", "any"] * (command[1] != "main.py")
            options.parse_args([*name, *words])


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A folder in which the project lies and the demo's run is finished."""
    place = tmp_path_factory.mktemp("project")
    for path in ROOT.iterdir():
        if path.name not in ("checkpoint", "cache", "data", ".git"):
            (place / path.name).symlink_to(path)
    run(place, "python main.py --demo --epochs 2")
    return place


def run(place: Path, text: str) -> str:
    """What the commands print; fails where one of them fails."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", text],
        cwd=place,
        env={**os.environ, "PATH": path, "PYTHONPATH": str(place)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if any(not why for why, _, _ in blocks(page))])
def test_commands_run_as_they_stand(page, project):
    for why, language, text in blocks(page):
        if not why:
            run(project, text if language == "bash" else f"python - << 'END'\n{text}\nEND")
