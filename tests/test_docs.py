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
from utils import batch
from utils.page import to_markdown
from utils.report.__main__ import gather
from utils.report.packed import unpacked
from utils.report.sections import make_sections

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
    "--networks",
    "--baseline",
    "--dry_run",
    "--pack",
    "--index-url",
    "--shm-size",
    "--install",
    *("--standalone", "--nproc_per_node", "--nnodes", "--rdzv_backend", "--rdzv_endpoint", "--max_restarts"),
    *(
        "--job-name",
        "--array",
        "--gres",
        "--cpus-per-task",
        "--time",
        "--signal",
        "--nodes",
        "--ntasks-per-node",
    ),
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


STUDY = ROOT / "assets/photographs"


@pytest.fixture(scope="module")
def studies():
    """What the published runs say, from scratch and fine-tuned."""
    found = {}
    for part in ("scratch", "finetune"):
        with unpacked(STUDY / f"{part}.zip") as root:
            found[part] = gather(root, None)
    return found


def measured(studies):
    """The rows of the table in docs/tricks.md of what was measured."""
    effects = {
        part: {effect.words: effect for effect in evidence.effects} for part, (evidence, _) in studies.items()
    }

    def cell(effect):
        estimate = effect and effect.estimate
        return f"{estimate.mean:+.1f} ({estimate.low:+.1f} to {estimate.high:+.1f})" if effect else "-"

    def time(part, effect):
        return f"{studies[part][0].times(effect.pairs)[1]:.2f}" if effect else "-"

    return [
        f"| {' | '.join([words, *(cell(by.get(words)) for by in effects.values()), *times])} |"
        for words in dict.fromkeys(words for by in effects.values() for words in by)
        for times in [[time(part, by.get(words)) for part, by in effects.items()]]
    ]


@pytest.mark.parametrize("part", ["scratch", "finetune"])
def test_published_reports_are_those_of_their_runs(studies, part):
    assert (STUDY / part / "report.md").read_text() == to_markdown(make_sections(*studies[part], False)), (
        f"draw it again: python -m utils.report {STUDY}/{part}.zip --output {STUDY}/{part}"
    )


def test_published_runs_are_those_of_the_lists(studies):
    lists = {part: batch.read_list((STUDY / f"{part}.txt").read_text()) for part in studies}
    assert {part: {*evidence.experiments} for part, (evidence, _) in studies.items()} == {
        part: {*experiments} for part, experiments in lists.items()
    }
    flags = [
        run.flags for e, _ in studies.values() for x in e.experiments.values() for run in x.runs.values()
    ]
    assert {(run["precision"], run["data_dir"]) for run in flags} == {("fp32", "photographs")}


def test_what_was_measured_is_in_the_docs(studies):
    rows = measured(studies)
    assert "\n".join(rows) in PAGES["docs/tricks.md"], "\n".join(["put in:", *rows])
    section = README.partition("## Which tricks help?")[2].partition("\n## ")[0]
    shown = [row for row in section.splitlines() if re.match(r"\| .*\d", row)]
    assert len(shown) > 5
    assert [row for row in shown if row not in rows] == []


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
def test_every_block_says_what_it_is(page):
    fences = re.findall(r"^ *```(.*)$", PAGES[page], re.MULTILINE)
    assert {*fences[::2]} <= {"bash", "python", "text"}
    assert {*fences[1::2]} <= {""}


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
