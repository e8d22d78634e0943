"""Train, validate and test an image classifier on a folder of images: the command line.

What needs torch is imported once the flags are known to be good, so that --help, mistakes and finished
runs are answered at once.
"""

import os
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, redirect_stderr, redirect_stdout
from functools import partial
from io import TextIOWrapper
from pathlib import Path

import options
from utils.console import said_if_slow, say
from utils.errors import ProgramError, UserError, explain
from utils.run.cores import wait_briefly
from utils.run.files import read_json
from utils.run.folder import RunFolder
from utils.run.records import Result
from utils.run.together import joined, stop_signal
from utils.text import visible
from utils.world import World


def main(argv: list[str] | None = None) -> int:
    """Run one command line; returns the exit code. Bad flags exit with code 2 at once."""
    world = World.of(os.environ)
    with ExitStack() as stack:
        if world.rank:  # the first process speaks
            nowhere = stack.enter_context(open(os.devnull, "w"))
            stack.enter_context(redirect_stdout(nowhere))
            with redirect_stderr(nowhere):
                args = options.parse_args(argv)
        else:
            args = options.parse_args(argv)
        return run(args, world)


def run(args: Namespace, world: World) -> int:
    """Do what the flags ask for; returns the exit code."""
    mode = next((name for name in options.USES if getattr(args, name)), "train")
    try:
        with stop_signal(world) as stop, explained_errors(args):
            if world.size > 1 and (mode != "train" or args.inspect):
                flag = "inspect" if args.inspect else mode
                raise UserError(f"--{flag} is for one process: start it without torchrun")
            named = "data_dir" in args.given and world.size == 1  # else it is found together
            if named and not (args.demo or args.predict or Path(args.data_dir).is_dir()):
                from utils.data.folders import find_dataset

                find_dataset(Path(args.data_dir), args.seed)  # says what is wrong, before torch is loaded
            if args.inspect:
                with said_if_slow("loading", "torch"):
                    from learning.inspection import inspect
                inspect(args, stop.check)
                return 0
            folder = RunFolder(args.checkpoint_dir, args.checkpoint_name)
            if args.resume and options.nothing_left(args, folder):
                accuracy = read_json(folder / "result.json", Result).test_accuracy
                say("result", f"{folder.path} is finished: test accuracy {accuracy:.2f} %")
                return 0
            if mode != "train":
                folder.refuse_none()
            elif not (args.resume or args.overwrite):
                folder.refuse_another_run()

            writes = mode == "train" and world.rank == 0
            with (
                folder.claim() if writes else nullcontext(lambda: None) as confirm,
                joined(args, stop, world) as together,
                explained_errors(args),
            ):
                if mode == "train" and not (args.resume or args.overwrite):
                    folder.refuse_another_run()  # which another process may have made since
                data = None
                if mode == "train" and not (args.resume and folder.started):
                    from learning.data import find_data

                    refuse_missing_files(args)
                    with together.first_of_machine_first():
                        data = find_data(args, None, together.check)
                with said_if_slow("loading", "torch"):
                    from learning import run, suspects, use

                modes: dict[str, Callable[[Namespace, RunFolder, Callable[[], None]], None]] = {
                    "train": partial(run.train, data=data, together=together),
                    "evaluate": run.evaluate,
                    "predict": use.predict,
                    "export": use.export,
                    "suspects": suspects.find,
                }
                confirm()
                modes[mode](args, folder, together.check)
        return 0
    except ProgramError as error:
        if not (error.said or world.rank):  # of several processes the first speaks
            print(f"main.py: {visible(error)}", file=sys.stderr)
        return error.exit_code


def refuse_missing_files(args: Namespace) -> None:
    """Raise `UserError` if weights that a new run starts with are not there, before images are looked at."""
    for flag in ("pretrained_path", "teacher"):
        named = getattr(args, flag)
        if named and not Path(named).is_file():
            raise UserError(f"--{flag} {named}: no such file")


@contextmanager
def explained_errors(args: Namespace) -> Iterator[None]:
    """Within this context what the system refuses is a `UserError`."""
    try:
        yield
    except OSError as error:
        place = Path(args.checkpoint_dir, args.checkpoint_name)
        uses = any(getattr(args, name) for name in (*options.USES, "inspect"))
        raise explain(error, place, "try again" if uses else "go on with --resume") from error


if __name__ == "__main__":
    wait_briefly()
    if isinstance(sys.stdout, TextIOWrapper):  # lines are seen when they are printed, on any terminal
        sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")
    try:
        sys.exit(main())
    except KeyboardInterrupt:  # before signals are handled
        sys.exit(130)
