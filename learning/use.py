"""A finished run at work: it classifies new images, and becomes a file for other programs."""

import os
import shutil
import sys
import tempfile
from argparse import Namespace
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stdout
from dataclasses import replace
from io import TextIOWrapper
from math import ceil
from pathlib import Path
from typing import IO, cast

import numpy as np
import torch

from learning.data import Check, find_data
from learning.explain import explained
from learning.export import (
    changed_predictions,
    export_proved,
    metadata_of,
    refuse_missing_packages,
)
from learning.predict import classify, say_predictions
from learning.results import read_predictions
from learning.run import calibrate, open_classifier, open_run
from learning.setup import evaluated, open_loader, prepare_device
from utils.console import say, warn
from utils.data.layout import passed_by
from utils.data.loose import find_images
from utils.errors import UserError
from utils.run import pictures
from utils.run.device import choose_device
from utils.run.failures import explained_failures
from utils.run.files import read_json, replacing, write_json
from utils.run.folder import RunFolder
from utils.run.records import Result
from utils.text import count

CPU = torch.device("cpu")


def predict(args: Namespace, folder: RunFolder, check: Check) -> None:
    """Classify a person's files and folders, with a row of a CSV file for each image."""
    folder.refuse_unfinished()
    output = standard_output() if args.output == "-" else None
    with redirect_stdout(sys.stderr) if output else nullcontext():
        args, weights = open_run(args, folder, anew=["tta", "batch_size"])
        images = find_images(args.predict, weights.classes)
        place = folder / "predicted.csv" if args.output in (None, "-") else Path(args.output)
        page, picture = (
            place.with_name("explained.html"),
            place.with_name(f"{place.stem}_confusion_matrix.png"),
        )
        files = [page] * args.explain + [picture] * images.labelled + [place] * (output is None)
        if args.explain and place == page:
            raise UserError(f"--output {place} is the name of the page of --explain; name another")
        for file in files:
            refuse_to_replace(file, folder, "--output", args.output is None or args.overwrite)
        say("data", f"{count(len(images.paths), 'image')} to classify")
        for note in passed_by(images.others, images.foreign):
            say("data", note)
        in_folder = any(map(folder.holds, files))
        with folder.claim() if in_folder else nullcontext(), explained_failures(args.batch_size):
            device = choose_device(args.device)
            prepare_device(args, device, weights.precision, weights.memory_format)
            classifier = open_classifier(args, folder, weights, device)
            if weights.temperature is None:
                dataset, _, _ = find_data(args, weights, check)
                loader = open_loader(args, dataset, classifier, check)
                calibrate(args, folder, weights, classifier, loader, dataset)
            elif args.tta != weights.flags.get("tta", args.tta):
                warn("the temperature and thresholds are those of the run, without this --tta")
            folder.note_made(*files)
            batch_size = 2 * args.batch_size  # as in a test, for the same bits
            workers = min(os.cpu_count() or 1, ceil(len(images.paths) / batch_size))
            if "num_workers" in args.given:
                workers = args.num_workers
            with whole(output) if output else csv_file(place) as table:
                found = classify(classifier, images, table, batch_size, workers, check)
            if args.output is None:  # what an earlier prediction left beside it is of other images
                for file in (page, picture):
                    file.unlink(missing_ok=True)
            if len(found.labelled):
                confusion = found.confusion(len(classifier.classes))
                title = f"{folder.path}: accuracy {confusion.accuracy:.2f} % of {len(found.labelled)} images"
                pairs = confusion.most_confused(pictures.PAIRS_LISTED)
                matrix = pictures.confusion_matrix(confusion.counts, classifier.classes, pairs, title)
                pictures.save(matrix, picture)
            if args.explain:
                with replacing(page, "w", encoding="utf-8") as html:
                    html.write(explained(classifier, found, workers, check))
        say_predictions(found, classifier)
        if files:
            say("written", f"{place.parent}: {', '.join(file.name for file in files if file.exists())}")


def csv_file(path: Path) -> AbstractContextManager[IO[str]]:
    """A CSV file that is written whole or not at all; names in it may be of any bytes."""
    return replacing(path, "w", newline="", encoding="utf-8", errors="surrogateescape")


def standard_output() -> TextIOWrapper:
    """Where `print` writes; raises `UserError` if it is closed."""
    if sys.stdout is None:
        raise UserError("--output -: standard output is closed; name a file")
    return cast(TextIOWrapper, sys.stdout)


@contextmanager
def whole(output: TextIOWrapper) -> Iterator[IO[str]]:
    """A CSV file that goes to the output when it is whole."""
    with tempfile.TemporaryFile("w+", newline="", encoding="utf-8", errors="surrogateescape") as file:
        yield file
        file.seek(0)
        try:
            shutil.copyfileobj(file.buffer, output.buffer)  # type: ignore
            output.flush()
        except BrokenPipeError:  # whoever reads has enough, as head has
            os.dup2(os.open(os.devnull, os.O_WRONLY), output.fileno())
        except OSError as error:
            error.filename = "standard output"
            raise


def export(args: Namespace, folder: RunFolder, check: Check) -> None:
    """Write the network as a file for other programs, proved on the test images."""
    folder.refuse_unfinished()
    path = Path(args.export)
    refuse_missing_packages(path.suffix)
    refuse_to_replace(path, folder, "--export", args.overwrite)
    args, weights = open_run(args, folder, anew=["batch_size"])  # other views are another result
    result = read_json(folder / "result.json", Result)
    with folder.claim(), explained_failures(args.batch_size):
        prepare_device(args, CPU, "fp32", weights.memory_format)
        dataset, _, _ = find_data(args, weights, check)
        classifier = open_classifier(args, folder, replace(weights, precision="fp32"), CPU)
        loader = open_loader(args, dataset, classifier, check)
        calibrate(args, folder, weights, classifier, loader, dataset)
        about = {"run": args.checkpoint_name, "network": args.model, "test_accuracy": result.test_accuracy}
        folder.note_made(path, folder / "export.json")
        batches = evaluated(loader, dataset, "test", args)
        proof, probabilities = export_proved(classifier, path, metadata_of(classifier, about), batches)
        say("written", f"{path}, {path.stat().st_size / 1e6:.1f} MB")
        say(
            "proof",
            f"on {proof.images} test images probabilities differ from this program's by at most "
            f"{proof.greatest_difference:.2g}, predictions changed: {proof.changed_predictions}",
        )
        say(
            "speed",
            f"{proof.images_per_second_exported:.0f} images a second by its own runtime, "
            f"{proof.images_per_second:.0f} here, on this CPU in fp32",
        )
        files = [dataset.files[index] for index in dataset.splits["test"]]
        told = compare_with_run(folder, files, probabilities, weights.precision)
        write_json(folder / "export.json", {"file": str(path), **vars(proof), **told})


def compare_with_run(folder: RunFolder, files: list[str], probabilities: np.ndarray, precision: str) -> dict:
    """How the run's predictions, in its precision, differ from those in fp32; its files may be gone."""
    try:
        before = read_predictions(folder / "predictions.csv")
    except Exception:  # a file that a person may have changed
        before = None
    if before is None or before.paths != files or before.probabilities.shape != probabilities.shape:
        warn("predictions.csv is not of these test images, and is not compared")
        return {}
    told = {
        "run_greatest_difference": float(np.abs(before.probabilities - probabilities).max()),
        "run_changed_predictions": changed_predictions(before.probabilities, probabilities),
    }
    say(
        "run",
        f"its own predictions ({precision}) differ from fp32 by at most "
        f"{told['run_greatest_difference']:.2g}, changed: {told['run_changed_predictions']}",
    )
    return told


def refuse_to_replace(path: Path, folder: RunFolder, flag: str, allowed: bool) -> None:
    """Raise `UserError` for a file that may not be written: the run's own, or one that nobody gave up."""
    folder.refuse_to_replace(path, flag)
    if path.is_dir():
        raise UserError(f"{flag} {path} is a folder; name a file")
    if not path.parent.is_dir():
        raise UserError(f"{flag} {path}: there is no folder {path.parent}; make it, or name another")
    if path.exists() and not allowed:
        raise UserError(
            f"{path} is there already; name another file and folder with {flag}, or replace it by --overwrite"
        )
