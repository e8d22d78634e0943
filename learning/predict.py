"""New images: the class of each as a row of a CSV file, and what there is to say of all of them."""

import csv
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO

import numpy as np
from tqdm import tqdm

from learning.calibration import SHARES, accepted
from learning.classifier import Classifier
from learning.evaluation import Confusion, at_temperature
from learning.results import nine_digits, probability_columns, say_classes
from utils.console import say, show, show_table, warn
from utils.data.batches import Loader, in_order
from utils.data.images import DecodedImages
from utils.data.loose import LooseImages
from utils.text import cell, count, some, visible

UNREADABLE = -1  # in the place of a class
ONE_BY_ONE = 20  # images
LEAST_CERTAIN = 5
CLASSES_SHOWN = 20


@dataclass
class Predictions:
    """What a classifier makes of n images, in their order."""

    images: LooseImages
    predictions: np.ndarray  # int64 [n]
    confidences: np.ndarray  # calibrated, float64 [n], NaN for what cannot be read
    errors: dict[int, str]  # why an image cannot be read
    threshold: float | None  # of the confidence, below which a prediction is uncertain

    @property
    def from_uncertain(self) -> np.ndarray:
        """The numbers of the images that could be read, the least certain ones first."""
        order = np.argsort(self.confidences, kind="stable")
        return order[: len(order) - len(self.errors)]

    @property
    def labelled(self) -> np.ndarray:
        """The numbers of those that could be read and whose class is known."""
        return np.flatnonzero((self.images.labels >= 0) & (self.predictions != UNREADABLE))

    def confusion(self, classes: int) -> Confusion:
        """Which classes were taken for which, among the labelled images."""
        known = self.labelled
        return Confusion.of(self.images.labels[known], self.predictions[known], classes)


def threshold_of(classifier: Classifier) -> tuple[str, float] | None:
    """The surest share of right predictions that the validation images could show, with its threshold."""
    thresholds = classifier.calibration.thresholds
    for key in sorted(SHARES, reverse=True):
        threshold = thresholds.get(key)
        if threshold is not None:
            return key, threshold
    return None


def open_loose(
    classifier: Classifier, images: LooseImages, num_workers: int, check: Callable[[], None]
) -> tuple[Loader, DecodedImages]:
    """The images for the classifier, and their source, which knows those that could not be read."""
    source = DecodedImages(images.paths, classifier.frame, num_workers, tolerate=True)
    return Loader(source, images.labels, classifier.device, check), source


def classify(
    classifier: Classifier,
    images: LooseImages,
    file: IO[str],
    batch_size: int,
    num_workers: int,
    check: Callable[[], None],
) -> Predictions:
    """Classify the images and write a row for each into the CSV file."""
    loader, source = open_loose(classifier, images, num_workers, check)
    numbers = np.arange(len(images.paths))
    labelled = images.labelled
    surest = threshold_of(classifier)
    threshold = surest[1] if surest else None
    predictions = np.full(len(numbers), UNREADABLE)
    confidences = np.full(len(numbers), np.nan)

    writer = csv.writer(file)
    titles = ["path", *["label"] * labelled, "prediction", "confidence", "uncertain", "error"]
    writer.writerow([*titles, *probability_columns(classifier.classes)])
    batches = zip(in_order(numbers, batch_size), loader(in_order(numbers, batch_size)), strict=True)
    with tqdm(total=len(numbers), desc="predicting", unit=" images", disable=None, leave=False) as bar:
        for batch, (pixels, *_) in batches:
            found = classifier.log_probabilities(pixels)
            sure = np.exp(at_temperature(found, classifier.calibration.temperature)).max(1)
            for number, prediction, confidence, row in zip(
                batch, found.argmax(1), sure, np.exp(found), strict=True
            ):
                label = images.labels[number]
                told = [cell(images.names[number])]
                if labelled:
                    told.append(cell(classifier.classes[label]) if label >= 0 else "")
                if number in source.unreadable:
                    writer.writerow([*told, "", "", "", visible(source.unreadable[number]), *[""] * len(row)])
                    continue
                predictions[number], confidences[number] = prediction, confidence
                uncertain = "" if threshold is None else str(not accepted(confidence, threshold)).lower()
                told += [cell(classifier.classes[prediction]), nine_digits(confidence), uncertain, ""]
                writer.writerow([*told, *map(nine_digits, row)])
            bar.update(len(batch))
    return Predictions(images, predictions, confidences, source.unreadable, threshold)


def say_predictions(found: Predictions, classifier: Classifier) -> None:
    """Say what there is to say of the predictions, on the console."""
    images, classes = found.images, classifier.classes
    if found.errors:
        reasons = some((f"{images.names[n]} ({found.errors[n]})" for n in found.errors), 3, "; ")
        warn(f"cannot be read: {count(len(found.errors), 'image')}, {reasons}")
    read = found.from_uncertain
    counts = np.bincount(found.predictions[read], minlength=len(classes))
    most = [label for label in np.argsort(-counts, kind="stable")[:CLASSES_SHOWN] if counts[label]]
    if most:
        show("")
        show_table(["predicted class", "images"], [[classes[label], str(counts[label])] for label in most])
        if left := int(np.count_nonzero(counts)) - len(most):
            show(f"and {left} more")
    one_by_one = len(images.paths) <= ONE_BY_ONE
    shown = np.sort(read) if one_by_one else read[:LEAST_CERTAIN]
    rows = [
        [f"{100 * found.confidences[n]:.1f}", classes[found.predictions[n]], images.names[n]] for n in shown
    ]
    if rows:
        show("")
        show_table(["confidence, %", "prediction", "image" if one_by_one else "least certain"], rows)
    if len(found.labelled):
        confusion = found.confusion(len(classes))
        say_classes(confusion, classes)
        known = count(len(found.labelled), "image")
        say("result", f"accuracy {confusion.accuracy:.2f} % of {known} in folders of their class")
    else:
        show("")
    if surest := threshold_of(classifier):
        key, threshold = surest
        below = int((~accepted(found.confidences[read], threshold)).sum())
        say(
            "unsure",
            f"{below} of {len(read)} predictions, below {100 * threshold:g} % confidence, from which on "
            f"{key} % of the validation images are right",
        )
    else:
        say("unsure", "none is marked, since the validation images show no threshold")
