"""Compare the finished runs in a folder: python -m utils.report --help."""

import sys
from collections.abc import Mapping
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import options
from utils.errors import UserError, explain
from utils.flags import Help, Parser, run_flags
from utils.page import to_markdown
from utils.report import page, pictures
from utils.report.comparison import Evidence
from utils.report.runs import Run, find_runs, group
from utils.report.sections import make_sections
from utils.report.tricks import Tricks, values_of
from utils.run.files import replacing
from utils.text import visible

# Flags that do not make a run another experiment.
NOT_OF_EXPERIMENT = (*options.NOT_OF_THE_RUN, "seed", "num_classes", "demo")


def main(argv: list[str] | None = None) -> int:
    """Write the report and print it; returns the exit code."""
    parser = Parser(
        prog="python -m utils.report",
        description="Which tricks help: compares the finished runs in a folder.",
        formatter_class=Help,
    )
    parser.add_argument("folder", metavar="CHECKPOINT_DIR", type=Path, help="the folder of all runs")
    parser.add_argument(
        "--baseline",
        metavar="NAME",
        help="the experiment to compare with (default: that of the name baseline, else the plainest)",
    )
    parser.add_argument(
        "--output", metavar="DIR", type=Path, help="where to write (default: CHECKPOINT_DIR/report)"
    )
    args = parser.parse_args(argv)
    try:
        write_report(args.folder, args.baseline, args.output or args.folder / "report")
        return 0
    except OSError as error:
        return fail(explain(error, args.folder, "try again"))
    except UserError as error:
        return fail(error)


def fail(error: UserError) -> int:
    """Say in one line what went wrong; returns the exit code."""
    print(f"report: {visible(error)}", file=sys.stderr)
    return error.exit_code


def write_report(root: Path, baseline: str | None, folder: Path) -> None:
    """Compare the runs under `root`, print what is found, and write it into `folder`. Raises `UserError`."""
    evidence, left_out = gather(root, baseline)
    sections = make_sections(evidence, left_out)

    folder.mkdir(parents=True, exist_ok=True)
    pictures.draw_all(evidence, folder)
    contents = {"report.html": page.render(sections, evidence, folder), "report.md": to_markdown(sections)}
    for name, content in contents.items():
        with replacing(folder / name, "w", encoding="utf-8") as file:
            file.write(content)
    print(contents["report.md"])
    print(f"written to {visible(folder)}: report.md, report.html, and the pictures")


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
