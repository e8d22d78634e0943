"""A run from its flags to its results: train, or test again what was trained."""

import json
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch

import options
from learning import tricks
from learning.calibration import Calibration
from learning.classifier import Classifier
from learning.data import Check, FoundData, find_data
from learning.fit import Fit
from learning.results import test_figures, write_results
from learning.setup import (
    Parts,
    assemble,
    evaluated,
    make_fit,
    make_trainer,
    open_loader,
    place_of,
    prepare_device,
    say_network,
)
from utils.console import say, warn
from utils.data.batches import Loader
from utils.data.folders import Dataset
from utils.errors import Interrupted, UserError
from utils.flags import run_flags
from utils.run.checkpoint import explained_contents, load_checkpoint, refuse_older, save_checkpoint
from utils.run.device import choose_device
from utils.run.failures import explained_failures
from utils.run.files import write_json
from utils.run.folder import RunFolder
from utils.run.log import NoLog, RunLog
from utils.run.records import Progress, Result, Weights
from utils.run.together import ALONE, Together


def train(
    args: Namespace,
    folder: RunFolder,
    check: Check,
    data: FoundData | None = None,
    together: Together = ALONE,
) -> None:
    """Train, validate and test, with --resume what is left to do of that; on `data` or what the flags say.

    The folder has been claimed.
    """
    args.device = together.device_name(args.device)
    args, progress = begin(args, folder)
    if args.norm_per_process and together.group is None:
        warn("--norm_per_process does nothing in one process")
    before = progress.flags["epochs"] if progress else args.epochs
    with explained_failures(args.batch_size):
        with together.first_of_machine_first():
            parts = assemble(args, progress, check, data, together)
        if progress is None:
            with together.first_of_machine_first():
                parts.tell_copies(check)
        trainer = make_trainer(parts)

    first = together.first
    with explained_failures(args.batch_size):
        if first and progress is None:
            folder.clear()
        elif first:
            folder.clear_made()
        together.refuse_unshared(folder.path)
        together.refuse_unlike(lambda: parts.facts() | {"step": progress.step if progress else 0})
        try:
            log_to = partial(RunLog, folder.path, args.epochs, progress.step if progress else None)
            with log_to() if first else NoLog() as log:
                fit = make_fit(parts, trainer, folder, log)
                in_effect = tricks.in_effect(tricks.Built(fit, len(parts.classifier.views)))
                for number, (name, strength) in enumerate(in_effect.items()):
                    say("" if number else "tricks", f"{name}: {strength}")
                if progress:
                    with explained_contents(folder / "last.pt"):
                        fit.load_state_dict(vars(progress))
                if args.epochs > before:
                    say("epochs", f"{before} become {args.epochs}")
                    if first:
                        (folder / "result.json").unlink(missing_ok=True)
                    fit.save("last.pt", fit.state_dict())  # so that --resume alone goes on to the new end
                # Also after a kill just here.
                if first and (not progress or recorded_epochs(folder) != args.epochs):
                    write_json(folder / "args.json", {**parts.about(), "tricks": in_effect})
                with together.in_step():
                    fit.run()
                    result = finish(parts, folder, fit, in_effect)
                if result:
                    log.result(run_flags(args), result)
        except Interrupted as stopped:
            advice = f"go on with: python main.py {folder.flags} --resume"
            raise Interrupted(stopped.signal_number, advice) from None


def begin(args: Namespace, folder: RunFolder) -> tuple[Namespace, Progress | None]:
    """The flags of the run, and what it goes on from. Raises `UserError`."""
    progress = None
    started = (folder / "last.pt").exists()
    # In the first epoch best.pt is written before last.pt; later the two are there together.
    alone = args.resume and not started and (folder / "best.pt").exists()
    if alone and load_checkpoint(folder / "best.pt", Weights).epoch > 1:
        raise UserError(f"{folder.path} has lost its last.pt; --overwrite starts anew, and removes best.pt")
    if args.resume and started:
        progress = load_checkpoint(folder / "last.pt", Progress)
        refuse_older(progress, folder / "last.pt")
        args = options.with_flags_of_run(args, progress.flags, folder.path)
    else:
        if problem := options.contradiction(args):
            raise UserError(problem)
        if args.recipe:
            say("recipe", options.recipe(args))
        for words in options.unwise(args):
            warn(words)
    return args, progress


def recorded_epochs(folder: RunFolder) -> int | None:
    """How long args.json says the run is; None where it cannot be read."""
    try:
        return json.loads((folder / "args.json").read_text("utf-8"))["flags"]["epochs"]
    except (OSError, ValueError, LookupError, TypeError):
        return None


def finish(parts: Parts, folder: RunFolder, fit: Fit, in_effect: Mapping[str, str]) -> Result | None:
    """Test the last weights and the best, calibrate these, and write what the run came to.

    The first process writes, and has the result.
    """
    network = parts.classifier.network
    last = parts.evaluate(network, "test")
    best = load_checkpoint(folder / "best.pt", Weights)
    with explained_contents(folder / "best.pt"):
        network.load_state_dict(best.network)
    calibration = Calibration.of(parts.evaluate(network, "val"))
    if parts.together.first:
        flags = {**best.flags, "epochs": parts.args.epochs}  # which may have been fewer when it was the best
        save_checkpoint(folder / "best.pt", {**vars(best), **vars(calibration), "flags": flags})
    test = parts.evaluate(network, "test")
    if not parts.together.first:
        return None
    return write_results(
        folder,
        parts.dataset,
        parts.skipped,
        fit.history,
        best.best or {},
        test,
        last,
        calibration,
        in_effect,
        parts.classifier.frame.crop,
    )


def evaluate(args: Namespace, folder: RunFolder, check: Check) -> None:
    """Test the best weights of a run again."""
    args, weights = open_run(args, folder)
    with explained_failures(args.batch_size):
        device = choose_device(args.device)
        prepare_device(args, device, weights.precision, weights.memory_format)
        dataset, _, _ = find_data(args, weights, check)
        classifier = open_classifier(args, folder, weights, device)
        loader = open_loader(args, dataset, classifier, check)
        calibrate(args, folder, weights, classifier, loader, dataset)
        test = classifier.evaluate(evaluated(loader, dataset, "test", args))
    folder.note_made(folder / "evaluation.json")
    write_json(folder / "evaluation.json", test_figures(test, dataset.classes, classifier.calibration))
    say("result", f"test accuracy {test.accuracy:.2f} % with the weights of epoch {weights.epoch}")


def open_run(args: Namespace, folder: RunFolder, anew: Sequence[str] = ()) -> tuple[Namespace, Weights]:
    """The flags and the best weights of a run; flags named in `anew` may be others."""
    weights = load_checkpoint(folder / "best.pt", Weights)
    return options.with_flags_of_run(args, weights.flags, folder.path, anew), weights


def open_classifier(args: Namespace, folder: RunFolder, weights: Weights, device: torch.device) -> Classifier:
    """That of the weights, with the views that the flags want."""
    weights = replace(weights, flags={**weights.flags, "tta": args.tta})
    classifier = Classifier.of(weights, folder / "best.pt", device)
    say_network(args.model, classifier.network, place_of(weights))
    return classifier


def calibrate(
    args: Namespace,
    folder: RunFolder,
    weights: Weights,
    classifier: Classifier,
    loader: Loader,
    dataset: Dataset,
) -> None:
    """Give the classifier its calibration where the run has none: before its end, or of an older version."""
    if weights.temperature is None:
        warn(f"{folder.path} has no temperature; it is fitted now, on the validation images")
        classifier.calibration = Calibration.of(classifier.evaluate(evaluated(loader, dataset, "val", args)))
