"""Images whose label a network contradicts that was trained without them, for a person to look at."""

import csv
import shutil
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

import options
from learning.confident import Suspects, suspects
from learning.data import Check, FoundData, changed, find_data
from learning.inspection import image_of
from learning.run import calibrate, open_classifier, open_run, train
from learning.setup import evaluated, open_loader, prepare_device
from utils.console import say, show, warn
from utils.data.copies import find_copies
from utils.data.folders import Dataset, folds
from utils.errors import Interrupted, UserError
from utils.page import Section, text, to_page
from utils.run.checkpoint import load_checkpoint
from utils.run.device import choose_device
from utils.run.failures import explained_failures
from utils.run.files import replacing
from utils.run.folder import FOLDS, RunFolder
from utils.run.records import Weights
from utils.text import cell, count

PAGE, TABLE = "suspects.html", "suspects.csv"
COLUMNS = (
    "path",
    "split",
    "label",
    "taken_for",
    "probability_of_label",
    "probability_of_taken_for",
    "margin",
)
SHOWN = 200  # on the page
SIDE = 192  # pixels an image is shown with


def find(args: Namespace, folder: RunFolder, check: Check) -> None:
    """Write the page and the table of suspects into the run's folder.

    The network of the run was trained without the validation and test images (the validation images chose its
    epoch); with --folds each training image, too, is judged by a network that was trained without it.
    """
    folder.refuse_unfinished()
    args, weights = open_run(args, folder)
    if args.folds and args.teacher:
        raise UserError(f"--folds: the run's --teacher {args.teacher} may have seen what is held out")
    with folder.claim(), explained_failures(args.batch_size):
        data = find_data(args, weights, check)
        dataset = data[0]
        if not args.folds and dataset.identity() != weights.images:
            raise UserError(f"{changed(args)}: who was held out is not known; give --folds, or train anew")
        if args.folds:
            numbers, probabilities = _by_folds(args, folder, data, check)
            judged = (
                f"images to train and validate on, by {args.folds} networks, each trained without its part"
            )
        else:
            numbers, probabilities = _predicted(args, folder, dataset, ("val", "test"), check)
            judged = "images to validate and test on"
        found = suspects(dataset.labels[numbers], probabilities)
        found, probabilities = found._replace(numbers=numbers[found.numbers]), probabilities[found.numbers]
        folder.note_made(folder / PAGE, folder / TABLE)
        _write_table(folder / TABLE, dataset, found, probabilities)
        told = f"{count(len(found.numbers), 'suspect')} among {len(numbers)} {judged}"
        with replacing(folder / PAGE, "w", encoding="utf-8") as html:
            html.write(_page(dataset, found, probabilities, told, check))
        shutil.rmtree(folder / FOLDS, ignore_errors=True)
    say("result", told)
    say("written", f"{folder.path}: {PAGE}, {TABLE}")


def _predicted(
    args: Namespace, folder: RunFolder, dataset: Dataset, splits: Sequence[str], check: Check
) -> tuple[np.ndarray, np.ndarray]:
    """The numbers [n] of the images of some splits, and what the run in the folder makes of them: [n, K]."""
    weights = load_checkpoint(folder / "best.pt", Weights)
    device = choose_device(args.device)
    prepare_device(args, device, weights.precision, weights.memory_format)
    classifier = open_classifier(args, folder, weights, device)
    loader = open_loader(args, dataset, classifier, check)
    calibrate(args, folder, weights, classifier, loader, dataset)
    found = [classifier.evaluate(evaluated(loader, dataset, split, args)) for split in splits]
    probabilities = [np.exp(each.at(classifier.calibration.temperature).log_probabilities) for each in found]
    return np.concatenate([dataset.splits[split] for split in splits]), np.concatenate(probabilities)


def _by_folds(
    args: Namespace, folder: RunFolder, data: FoundData, check: Check
) -> tuple[np.ndarray, np.ndarray]:
    """The same of all images to train and validate on, by networks with the run's flags on parts of them.

    Copies are held out together. What was trained is kept in the run's folder until all is, so that the same
    command goes on after a stop.
    """
    found = []
    dataset, looks, skipped = data
    copies = find_copies(dataset, looks, Path(args.cache_dir), choose_device(args.device), check)
    groups = np.arange(len(dataset.files)) if dataset.groups is None else dataset.groups
    dataset = replace(dataset, groups=copies.groups(groups))
    parts = list(folds(dataset, args.folds, args.seed, args.val_fraction))
    given = [name for name in args.given if name in options.NOT_OF_THE_RUN]
    if args.pretrained_path:
        start = args.pretrained_path
        warn(f"all networks start from {start}: it must not have been trained on these images")
    for number, fold in enumerate(parts, 1):
        name = f"{args.checkpoint_name}/{FOLDS}/{number} of {args.folds}"
        of_fold = Namespace(**{**vars(args), "checkpoint_name": name, "resume": True, "given": given})
        place = RunFolder(args.checkpoint_dir, name)
        show("")
        say("fold", f"{number} of {args.folds}")
        best = place / "best.pt"
        if best.exists() and load_checkpoint(best, Weights).images != fold.identity():
            shutil.rmtree(place.path)  # of the images as they were then
        if not place.finished:
            try:
                train(of_fold, place, check, (fold, looks, skipped))
            except Interrupted as stopped:
                raise Interrupted(stopped.signal_number) from None
        found.append(_predicted(of_fold, place, fold, ("test",), check))
    numbers, probabilities = zip(*found, strict=True)
    return np.concatenate(numbers), np.concatenate(probabilities)


def _write_table(path: Path, dataset: Dataset, found: Suspects, probabilities: np.ndarray) -> None:
    """A row for each suspect, the most suspect first."""
    splits = dataset.split_names()
    with replacing(path, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for number, other, margin, row in zip(*found, probabilities, strict=True):
            label = dataset.labels[number]
            names = (dataset.files[number], splits[number], dataset.classes[label], dataset.classes[other])
            writer.writerow([*map(cell, names), f"{row[label]:.6f}", f"{row[other]:.6f}", f"{margin:.6f}"])


def _page(dataset: Dataset, found: Suspects, probabilities: np.ndarray, told: str, check: Check) -> str:
    """The most suspect images, as HTML."""
    shown = min(SHOWN, len(found.numbers))
    paragraphs = [
        f"{told}, the most suspect first.",
        "A suspect is an image that a network, trained without it, takes for another class; of each class "
        "there are as many as confident learning (Northcutt et al. 2021) takes for wrong. The label may "
        f"be wrong, or the image hard: look before you change it. Here are {shown}; all are in {TABLE}.",
    ]
    cards = []
    for number, other, row in zip(found.numbers[:shown], found.taken_for, probabilities, strict=False):
        check()
        label = dataset.labels[number]
        words = f"labelled {dataset.classes[label]}, taken for {dataset.classes[other]}"
        cards.append(
            f"<article>{image_of(dataset, number, SIDE)}<h3>{text(words)}</h3>"
            f"<p>{100 * row[label]:.1f} % and {100 * row[other]:.1f} %</p>"
            f'<div class="path">{text(dataset.files[number])}</div></article>'
        )
    more = f'<div class="cards">{"".join(cards)}</div>'
    return to_page([Section("Labels to look at", paragraphs, more=more)])
