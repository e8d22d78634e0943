"""A run from its flags to its results: train, or test again what was trained."""

import shlex
from argparse import Namespace
from collections.abc import Callable

import options
from learning import tricks
from learning.classifier import Classifier
from learning.results import test_figures, write_results
from learning.setup import (
    assemble,
    evaluated,
    find_data,
    make_fit,
    make_trainer,
    open_loader,
    place_of,
    prepare_device,
    say_network,
)
from utils.errors import Interrupted, UserError
from utils.run.checkpoint import explained_contents, load_checkpoint, refuse_older
from utils.run.device import choose_device
from utils.run.failures import explained_failures
from utils.run.files import write_json
from utils.run.folder import RunFolder
from utils.run.log import RunLog
from utils.run.records import Progress, Weights


def train(args: Namespace, folder: RunFolder, check: Callable[[], None]) -> None:
    """Train, validate and test; with --resume, what is left to do of that."""
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
    elif problem := options.contradiction(args):
        raise UserError(problem)
    with explained_failures(args.batch_size):
        parts = assemble(args, progress, check)
        if progress is None:
            parts.inspect(check)
        trainer = make_trainer(parts)

    with folder.claim(), explained_failures(args.batch_size):
        if progress is None:
            if (folder / "last.pt").exists() and not started:
                folder.refuse_another_run()  # which another process has started meanwhile
            folder.clear()
        try:
            with RunLog(folder.path, args.epochs, progress.step if progress else None) as log:
                fit = make_fit(parts, trainer, folder, log)
                in_effect = tricks.in_effect(tricks.Built(fit, len(parts.classifier.views)))
                print(tricks.lines(in_effect))
                if progress:
                    with explained_contents(folder / "last.pt"):
                        fit.load_state_dict(vars(progress))
                else:
                    write_json(folder / "args.json", {**parts.about(), "tricks": in_effect})
                fit.run()
            network = parts.classifier.network
            last = parts.evaluate(network, "test")
            best = load_checkpoint(folder / "best.pt", Weights)
            with explained_contents(folder / "best.pt"):
                network.load_state_dict(best.network)
            test = parts.evaluate(network, "test")
            write_results(folder, parts.dataset, parts.skipped, fit.history, best.best or {}, test, last)
        except Interrupted as stopped:
            run = ["--checkpoint_dir", args.checkpoint_dir, "--checkpoint_name", args.checkpoint_name]
            advice = f"go on with: python main.py {shlex.join(run)} --resume"
            raise Interrupted(stopped.signal_number, advice) from None


def evaluate(args: Namespace, folder: RunFolder, check: Callable[[], None]) -> None:
    """Test the best weights of a run again."""
    path = folder / "best.pt"
    weights = load_checkpoint(path, Weights)
    args = options.with_flags_of_run(args, weights.flags, folder.path)
    with explained_failures(args.batch_size):
        device = choose_device(args.device)
        prepare_device(args, device, weights.precision, weights.memory_format)
        dataset, _ = find_data(args, weights, check)
        classifier = Classifier.of(weights, path, device)
        say_network(args.model, classifier.network, place_of(weights))
        loader = open_loader(args, dataset, classifier, check)
        evaluation = classifier.evaluate(evaluated(loader, dataset, "test", args))
    write_json(folder / "evaluation.json", test_figures(evaluation, dataset.classes))
    print(f"test accuracy {evaluation.accuracy:.2f} % with the weights of epoch {weights.epoch}")
