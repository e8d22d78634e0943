"""What main.py does with a run: train it, test it again, or put it to use."""

import shlex
import shutil
import sys
import tempfile
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stdout
from dataclasses import replace
from io import TextIOWrapper
from os import cpu_count
from pathlib import Path
from typing import IO, cast

import numpy as np
import torch

import options
from learning import tricks
from learning.calibration import Calibration
from learning.classifier import Classifier
from learning.explain import explain
from learning.export import changed, metadata_of, refuse_missing_packages
from learning.export import export as export_file
from learning.predict import predict as predict_images
from learning.predict import say_passed_by, summary, threshold_of
from learning.results import read_predictions, test_figures, write_results
from learning.setup import (
    Check,
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
from utils.data.batches import Loader
from utils.data.folders import Dataset
from utils.data.loose import find_images
from utils.errors import Interrupted, UserError
from utils.run import pictures
from utils.run.checkpoint import explained_contents, load_checkpoint, refuse_older, save_checkpoint
from utils.run.device import choose_device
from utils.run.failures import explained_failures
from utils.run.files import read_json, replacing, write_json
from utils.run.folder import RunFolder
from utils.run.log import RunLog
from utils.run.records import Progress, Result, Weights
from utils.text import visible

CPU = torch.device("cpu")
ANEW = ("tta", "batch_size")  # flags of the run that may be others when it is put to use


def train(args: Namespace, folder: RunFolder, check: Check) -> None:
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
        else:
            folder.clear_made()
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
            calibration = Calibration.of(parts.evaluate(network, "val"))
            save_checkpoint(folder / "best.pt", {**vars(best), **vars(calibration)})
            test = parts.evaluate(network, "test")
            write_results(
                folder, parts.dataset, parts.skipped, fit.history, best.best or {}, test, last, calibration
            )
        except Interrupted as stopped:
            run = ["--checkpoint_dir", args.checkpoint_dir, "--checkpoint_name", args.checkpoint_name]
            advice = f"go on with: python main.py {shlex.join(run)} --resume"
            raise Interrupted(stopped.signal_number, advice) from None


def evaluate(args: Namespace, folder: RunFolder, check: Check) -> None:
    """Test the best weights of a run again."""
    args, weights = open_run(args, folder)
    with explained_failures(args.batch_size):
        device = choose_device(args.device)
        prepare_device(args, device, weights.precision, weights.memory_format)
        dataset, _ = find_data(args, weights, check)
        classifier = open_classifier(args, folder, weights, device)
        loader = open_loader(args, dataset, classifier, check)
        calibrate(args, folder, weights, classifier, loader, dataset)
        test = classifier.evaluate(evaluated(loader, dataset, "test", args))
    folder.note_made(folder / "evaluation.json")
    write_json(folder / "evaluation.json", test_figures(test, dataset.classes, classifier.calibration))
    print(f"test accuracy {test.accuracy:.2f} % with the weights of epoch {weights.epoch}")


def predict(args: Namespace, folder: RunFolder, check: Check) -> None:
    """Classify a person's files and folders; see learning/predict.py."""
    folder.refuse_unfinished()
    to_standard_output = args.output == "-"
    place = folder / "predicted.csv" if args.output in (None, "-") else Path(args.output)
    page, picture = place.with_name("explained.html"), place.with_name(f"{place.stem}_confusion_matrix.png")
    standard_output = cast(TextIOWrapper, sys.stdout)
    with redirect_stdout(sys.stderr) if to_standard_output else nullcontext():
        args, weights = open_run(args, folder, ANEW)
        images = find_images(args.predict, weights.classes)
        files = [page] * args.explain + [picture] * bool((images.labels >= 0).any())
        files += [] if to_standard_output else [place]
        for file in files:
            refuse_to_replace(file, folder, args)
        print(f"data     {len(images.paths)} images to classify")
        say_passed_by(images)
        in_folder = any(map(folder.holds, files))
        with folder.claim() if in_folder else nullcontext(), explained_failures(args.batch_size):
            device = choose_device(args.device)
            prepare_device(args, device, weights.precision, weights.memory_format)
            classifier = open_classifier(args, folder, weights, device)
            if weights.temperature is None:
                dataset, _ = find_data(args, weights, check)
                loader = open_loader(args, dataset, classifier, check)
                calibrate(args, folder, weights, classifier, loader, dataset)
            elif args.tta != weights.flags.get("tta", args.tta):
                print("warning  the temperature and thresholds are those of the run, without this --tta")
            folder.note_made(*files)
            workers = args.num_workers if "num_workers" in args.given else cpu_count() or 1
            rows = whole(standard_output) if to_standard_output else csv_file(place)
            with rows as table:  # the batches are those of a test, for the same bits
                found = predict_images(classifier, images, table, 2 * args.batch_size, workers, check)
            if picture in files and len(found.labelled):
                confusion = found.confusion(len(classifier.classes))
                title = f"{folder.path}: accuracy {confusion.accuracy:.2f} % of {len(found.labelled)} images"
                pictures.confusion_matrix(picture, confusion.counts, classifier.classes, title)
            if args.explain:
                with replacing(page, "w", encoding="utf-8") as html:
                    html.write(explain(classifier, found, workers, check))
        for line in summary(found, classifier.classes, threshold_of(classifier)):
            print(line)
        if files:
            print(f"written: {', '.join(visible(file) for file in files if file.exists())}")


def refuse_to_replace(path: Path, folder: RunFolder, args: Namespace) -> None:
    """Raise `UserError` for a file that may not be written: the run's own, or one that nobody gave up."""
    flag = "--export" if args.export else "--output"
    folder.refuse_to_replace(path, flag)
    usual = args.predict and args.output in (None, "-")
    if path.is_dir():
        raise UserError(f"{flag} {path} is a folder; name a file")
    if path.exists() and not (usual or args.overwrite):
        raise UserError(
            f"{path} is there already; name another with {flag}, or give --overwrite to replace it"
        )


def csv_file(path: Path) -> AbstractContextManager[IO[str]]:
    """A CSV file that is written whole or not at all; names in it may be of any bytes."""
    return replacing(path, "w", newline="", encoding="utf-8", errors="surrogateescape")


@contextmanager
def whole(output: TextIOWrapper) -> Iterator[IO[str]]:
    """What is written here goes to the output when it is whole."""
    with tempfile.TemporaryFile("w+", newline="", encoding="utf-8", errors="surrogateescape") as file:
        yield file
        file.seek(0)
        output.flush()
        shutil.copyfileobj(file.buffer, output.buffer)  # type: ignore
        output.flush()


def export(args: Namespace, folder: RunFolder, check: Check) -> None:
    """Write the network as a file for other programs, proved on the test images; see learning/export.py."""
    folder.refuse_unfinished()
    path = Path(args.export)
    refuse_missing_packages(path.suffix)
    refuse_to_replace(path, folder, args)
    args, weights = open_run(args, folder, ANEW)
    result = read_json(folder / "result.json", Result)
    with folder.claim(), explained_failures(args.batch_size):
        prepare_device(args, CPU, "fp32", weights.memory_format)
        dataset, _ = find_data(args, weights, check)
        classifier = open_classifier(args, folder, replace(weights, precision="fp32"), CPU)
        loader = open_loader(args, dataset, classifier, check)
        calibrate(args, folder, weights, classifier, loader, dataset)
        about = {"run": args.checkpoint_name, "network": args.model, "test_accuracy": result.test_accuracy}
        folder.note_made(path, folder / "export.json")
        batches = evaluated(loader, dataset, "test", args)
        proof, log_probabilities = export_file(classifier, path, metadata_of(classifier, about), batches)
    content = {"file": str(path), **vars(proof)}
    print(
        f"written: {visible(path)}, {path.stat().st_size / 1e6:.1f} MB; on {proof.images} test images its "
        f"probabilities differ from this program's by at most {proof.greatest_difference:.2g}, predictions "
        f"changed: {proof.changed_predictions}; images a second {proof.images_per_second_exported:.0f}, here "
        f"{proof.images_per_second:.0f}"
    )
    test = [dataset.files[index] for index in dataset.splits["test"]]
    before = read_predictions(folder / "predictions.csv")
    if before.paths == test:
        found = np.exp(log_probabilities)
        content["run_greatest_difference"] = float(np.abs(before.probabilities - found).max())
        content["run_changed_predictions"] = changed(before.probabilities, found)
        print(
            f"the run's own predictions ({weights.precision}) differ from those in fp32 by at most "
            f"{content['run_greatest_difference']:.2g}, predictions changed: "
            f"{content['run_changed_predictions']}"
        )
    else:
        print("warning  the test images are no longer those of the run, whose predictions are not compared")
    write_json(folder / "export.json", content)


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
        print(
            f"warning  {visible(folder.path)} has no temperature; it is fitted now, on the validation images"
        )
        classifier.calibration = Calibration.of(classifier.evaluate(evaluated(loader, dataset, "val", args)))
