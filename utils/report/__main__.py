"""Compare the finished runs in a folder: python -m utils.report --help."""

import sys
from collections.abc import Mapping, Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import options
from utils.console import say, show, show_table
from utils.errors import UserError, explain
from utils.flags import Help, Parser, run_flags
from utils.page import Section, to_markdown, to_page
from utils.report.comparison import Evidence
from utils.report.packed import pack, unpacked
from utils.report.runs import Run, find_runs, group, is_the_demos_own
from utils.report.sections import (
    FIGURES,
    accuracies_table,
    effects_table,
    make_sections,
    runs_section,
)
from utils.report.tricks import Tricks, values_of
from utils.run.files import replacing
from utils.run.pictures import save
from utils.text import count, visible

# Flags that do not make a run another experiment.
NOT_OF_EXPERIMENT = (*options.NOT_OF_THE_RUN, "seed", "num_classes", "demo")

ACCURACIES = ("experiment", "validation, %", "test, %", "balanced test, %", "seeds", "minutes")


def main(argv: list[str] | None = None) -> int:
    """Write the report and print it; returns the exit code."""
    parser = Parser(
        prog="python -m utils.report",
        description="Which tricks help: compares the finished runs in a folder.",
        formatter_class=Help,
    )
    parser.add_argument(
        "runs", metavar="CHECKPOINT_DIR", type=Path, help="the folder of all runs, or a file of --pack"
    )
    parser.add_argument(
        "--baseline",
        metavar="NAME",
        help="the experiment to compare with (default: that of the name baseline, else the plainest)",
    )
    parser.add_argument(
        "--output", metavar="DIR", type=Path, help="where to write (default: CHECKPOINT_DIR/report)"
    )
    parser.add_argument(
        "--pack",
        metavar="FILE",
        type=Path,
        help="write what a report needs of the runs into one small ZIP file, instead of a report",
    )
    args = parser.parse_args(argv)
    if args.pack and (args.baseline or args.output):
        parser.error("--pack writes the runs as they are: leave out --baseline and --output")
    if args.pack and args.pack.suffix != ".zip":
        parser.error(f"--pack {args.pack}: name a file that ends in .zip")
    output = args.output or (args.runs.with_suffix("") if args.runs.is_file() else args.runs) / "report"
    try:
        with unpacked(args.runs) as root:
            if args.pack:
                runs, left_out = pack(root, args.pack)
                say_left_out(left_out)
                say("packed", f"{count(runs, 'run')} in {args.pack}, {args.pack.stat().st_size / 1e6:.2f} MB")
            else:
                write_report(root, args.baseline, output, with_images=root == args.runs)
        return 0
    except OSError as error:
        return fail(explain(error, args.runs, "try again"))
    except UserError as error:
        return fail(error)


def fail(error: UserError) -> int:
    """Say in one line what went wrong; returns the exit code."""
    print(f"report: {visible(error)}", file=sys.stderr)
    return error.exit_code


def say_left_out(reasons: Sequence[str]) -> None:
    """Say which runs are not among the others, and why."""
    for reason in reasons:
        say("left out", reason)


def write_report(root: Path, baseline: str | None, folder: Path, with_images: bool = True) -> None:
    """Compare the runs under `root`, print what is found, and write it into `folder`. Raises `UserError`."""
    evidence, left_out = gather(root, baseline)
    sections = make_sections(evidence, left_out, with_images)
    folder.mkdir(parents=True, exist_ok=True)
    for section in sections:
        for picture in section.pictures:
            save(picture.figure, folder / f"{picture.name}.png")
    page = to_page([*sections, runs_section(evidence, folder)])
    for name, content in {"report.html": page, "report.md": to_markdown(sections)}.items():
        with replacing(folder / name, "w", encoding="utf-8") as file:
            file.write(content)
    print_report(evidence, sections[0], left_out)
    say("written", f"{folder}: report.html, report.md and its pictures")


def print_report(evidence: Evidence, verdict: Section, left_out: Sequence[str]) -> None:
    """Say what is found, in the width of a terminal: the rest is on the page."""
    for number, paragraph in enumerate(verdict.paragraphs):
        say("" if number else "verdict", paragraph)
    tables = (
        (effects_table(evidence), ("trick", "verdict", *FIGURES[:2], "time")),
        (accuracies_table(evidence), ACCURACIES),
    )
    for (columns, rows), shown in tables:
        places = [columns.index(title) for title in shown if title in columns]
        if rows:
            show("")
            show_table(
                [columns[place] for place in places], [[row[place] for place in places] for row in rows]
            )
    show("")
    say_left_out(left_out)


def gather(root: Path, baseline: str | None) -> tuple[Evidence, list[str]]:
    """What the runs under `root` say, and in words which are left out. Raises `UserError`."""
    runs, unread = find_runs(root, settings)
    baseline = baseline or choose_baseline(runs)
    experiments, left_out = group(runs, baseline)
    first = {name: next(iter(found.runs.values())) for name, found in experiments.items()}
    tricks = Tricks(
        {name: run.settings for name, run in first.items()},
        {name: default_settings(run) for name, run in first.items()},
        baseline,
    )
    evidence = Evidence(experiments, tricks)
    apart = [f"run {name} has no seed in common with {baseline}" for name in evidence.apart]
    return evidence, [*left_out, *apart, *unread]


def choose_baseline(runs: list[Run]) -> str:
    """The experiment "baseline" or, without one, that with the fewest settings of its own."""

    def oddness(run: Run) -> tuple:
        plain = default_settings(run)
        return (
            is_the_demos_own(run),
            run.experiment != "baseline",
            sum(plain[key] != run.settings[key] for key in plain),
            run.experiment,
        )

    return min(runs, key=oddness).experiment


def default_flags(epochs: int) -> dict:
    """The flags of a run of so many epochs without any others."""
    return run_flags(options.parse_args(["--checkpoint_name", "default", "--epochs", str(epochs)]))


def settings(flags: Mapping[str, Any], teacher: str | None) -> dict[str, tuple]:
    """What makes a run another experiment."""
    default = default_flags(flags["epochs"])
    return values_of(
        {**default, **flags}, default, teacher, NOT_OF_EXPERIMENT
    )  # some flags are younger than the run


def default_settings(run: Run) -> dict[str, tuple]:
    """What the settings of a run would be without flags, but for those that scale with its epochs."""
    plain = settings(default_flags(run.flags["epochs"]), None)
    return {name: plain.get(name, (None,)) for name in run.settings}


if __name__ == "__main__":
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    sys.exit(main())
