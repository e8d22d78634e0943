"""Train, validate and test an image classifier on a folder of images: the command line.

What needs torch is imported once the flags are known to be good, so that --help, mistakes and finished
runs are answered at once.
"""

import sys
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from io import TextIOWrapper
from pathlib import Path

import options
from utils.console import said_if_slow, say
from utils.errors import ProgramError, explain
from utils.run.cores import wait_briefly
from utils.run.files import read_json
from utils.run.folder import RunFolder
from utils.run.records import About, Result
from utils.run.signals import StopSignal
from utils.text import visible


def main(argv: list[str] | None = None) -> int:
    """Run one command line; returns the exit code. Bad flags exit with code 2 at once."""
    args = options.parse_args(argv)
    try:
        with StopSignal() as stop:
            if "data_dir" in args.given and not (args.demo or args.predict or Path(args.data_dir).is_dir()):
                from utils.data.folders import find_dataset

                find_dataset(Path(args.data_dir), args.seed)  # says what is wrong, before torch is loaded
            if args.inspect:
                with said_if_slow("loading", "torch"):
                    from learning.inspection import inspect
                inspect(args, stop.check)
                return 0
            folder = RunFolder(args.checkpoint_dir, args.checkpoint_name)
            if nothing_left(args, folder):
                return 0
            mode = next((name for name in options.USES if getattr(args, name)), "train")
            if mode != "train":
                folder.refuse_none()
            elif not (args.resume or args.overwrite):
                folder.refuse_another_run()

            anew = mode == "train" and not (args.resume and folder.started)
            data = None
            if anew:
                from learning.data import find_data

                data = find_data(args, None, stop.check)
            with said_if_slow("loading", "torch"):
                from learning import run, suspects, use

            modes: dict[str, Callable[[Namespace, RunFolder, Callable[[], None]], None]] = {
                "train": partial(run.train, data=data),
                "evaluate": run.evaluate,
                "predict": use.predict,
                "export": use.export,
                "suspects": suspects.find,
            }
            modes[mode](args, folder, stop.check)
        return 0
    except OSError as error:
        place = Path(args.checkpoint_dir, args.checkpoint_name)
        uses = any(getattr(args, name) for name in (*options.USES, "inspect"))
        then = "try again" if uses else "go on with --resume"
        return fail(explain(error, place, then))
    except ProgramError as error:
        return fail(error)


def fail(error: ProgramError) -> int:
    """Say in one line what went wrong; returns the exit code."""
    print(f"main.py: {visible(error)}", file=sys.stderr)
    return error.exit_code


def nothing_left(args: Namespace, folder: RunFolder) -> bool:
    """Whether --resume has nothing to do here, and if so, say it."""
    if not (args.resume and folder.finished):
        return False
    about, result = read_json(folder / "args.json", About), read_json(folder / "result.json", Result)
    if options.with_flags_of_run(args, about.flags, folder.path).epochs > about.flags["epochs"]:
        return False
    say("result", f"{folder.path} is finished: test accuracy {result.test_accuracy:.2f} %")
    return True


if __name__ == "__main__":
    wait_briefly()
    if isinstance(sys.stdout, TextIOWrapper):  # lines are seen when they are printed, on any terminal
        sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")
    try:
        sys.exit(main())
    except KeyboardInterrupt:  # before signals are handled
        sys.exit(130)
