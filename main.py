"""Train, validate and test an image classifier on a folder of images: the command line.

What needs torch is imported once the flags are known to be good, so that --help, mistakes and finished
runs are answered at once.
"""

import shlex
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import options
import tricks
from network import WeightsError
from utils.errors import Interrupted, RunFailed, UserError, explain
from utils.run.files import read_json, write_json
from utils.run.folder import RunFolder
from utils.run.signals import StopSignal
from utils.text import visible

Check = Callable[[], None]  # raises `Interrupted` once a signal has asked the run to stop


def main(argv: list[str] | None = None) -> int:
    """Run one command line; returns the exit code. Bad flags exit with code 2 at once."""
    args = options.parse_args(argv)
    try:
        folder = RunFolder(args.checkpoint_dir, args.checkpoint_name)
        with StopSignal() as stop:
            if args.evaluate:
                evaluate(args, folder, stop.check)
            elif args.resume and folder.finished:
                say_finished(args, folder)
            else:
                train(args, folder, stop.check)
        return 0
    except OSError as error:
        folder = Path(args.checkpoint_dir, args.checkpoint_name)
        return fail(explain(error, folder, "go on with --resume"))
    except (UserError, WeightsError, RunFailed, Interrupted) as error:
        return fail(error)


def fail(error: UserError | WeightsError | RunFailed | Interrupted) -> int:
    """Say in one line what went wrong; returns the exit code."""
    print(f"main.py: {visible(error)}", file=sys.stderr)
    return error.exit_code


def train(args: Namespace, folder: RunFolder, check: Check) -> None:
    """Train, validate and test; with --resume, what is left to do of that."""
    if not (args.resume or args.overwrite):
        folder.refuse_another_run()

    from learning.setup import assemble, make_fit, make_trainer
    from utils.run.checkpoint import contents_told, load_checkpoint, refuse_older
    from utils.run.failures import failures_told
    from utils.run.log import RunLog
    from utils.run.results import write_results

    checkpoint = None
    started = (folder / "last.pt").exists()
    # In the first epoch best.pt is written before last.pt; later the two are there together.
    alone = args.resume and not started and (folder / "best.pt").exists()
    if alone and load_checkpoint(folder / "best.pt")["epoch"] > 1:
        raise UserError(f"{folder.path} has lost its last.pt; --overwrite starts anew, and removes best.pt")
    if args.resume and started:
        checkpoint = load_checkpoint(folder / "last.pt")
        refuse_older(checkpoint)
        args = options.with_flags_of_run(args, checkpoint["flags"], folder.path)
    elif problem := options.contradiction(args):
        raise UserError(problem)
    with failures_told(args.batch_size):
        parts = assemble(args, checkpoint, check)
        if checkpoint is None:
            parts.inspect(check)
        trainer = make_trainer(parts)
    about = {"flags": options.run_flags(args), **parts.about()}

    with folder.claim(), failures_told(args.batch_size):
        if checkpoint is None:
            if (folder / "last.pt").exists() and not started:
                folder.refuse_another_run()  # which another process has started meanwhile
            folder.clear()
        try:
            first_step = checkpoint["step"] if checkpoint else None
            with RunLog(folder.path, args.epochs, first_step) as log:
                fit = make_fit(parts, trainer, folder, about, log)
                in_effect = tricks.in_effect(tricks.Built(fit, len(parts.views)))
                print(tricks.lines(in_effect))
                if checkpoint:
                    with contents_told(folder / "last.pt"):
                        fit.load_state_dict(checkpoint)
                else:
                    write_json(folder / "args.json", {**about, "tricks": in_effect})
                fit.run()
            last = parts.evaluate(parts.network, "test")
            best = load_checkpoint(folder / "best.pt")
            with contents_told(folder / "best.pt"):
                parts.network.load_state_dict(best["network"])
            test = parts.evaluate(parts.network, "test")
            write_results(folder, parts.dataset, parts.skipped, fit.history, best["best"], test, last)
        except Interrupted as stopped:
            run = ["--checkpoint_dir", args.checkpoint_dir, "--checkpoint_name", args.checkpoint_name]
            advice = f"go on with: python main.py {shlex.join(run)} --resume"
            raise Interrupted(stopped.signal_number, advice) from None


def evaluate(args: Namespace, folder: RunFolder, check: Check) -> None:
    """Test the best weights of a run again."""
    from learning.setup import assemble
    from utils.run.checkpoint import contents_told, load_checkpoint
    from utils.run.failures import failures_told
    from utils.run.results import test_figures

    checkpoint = load_checkpoint(folder / "best.pt")
    args = options.with_flags_of_run(args, checkpoint["flags"], folder.path)
    with failures_told(args.batch_size):
        parts = assemble(args, checkpoint, check)
        with contents_told(folder / "best.pt"):
            parts.network.load_state_dict(checkpoint["network"])
        evaluation = parts.evaluate(parts.network, "test")
    write_json(folder / "evaluation.json", test_figures(evaluation, parts.dataset.classes))
    print(f"test accuracy {evaluation.accuracy:.2f} % with the weights of epoch {checkpoint['epoch']}")


def say_finished(args: Namespace, folder: RunFolder) -> None:
    """Answer --resume of a run that has nothing left to do."""
    about, result = read_json(folder / "args.json"), read_json(folder / "result.json")
    options.with_flags_of_run(args, about["flags"], folder.path)
    print(f"{visible(folder.path)} is finished: test accuracy {result['test_accuracy']:.2f} %")


if __name__ == "__main__":
    if sys.stdout:  # whoever reads a pipe sees each line when it is printed, in letters that it takes
        sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")
    try:
        sys.exit(main())
    except KeyboardInterrupt:  # before signals are handled
        sys.exit(130)
