"""What a finished run leaves: its figures, its predictions and its pictures."""

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from learning.calibration import SHARES, Calibration, accepted, at_limit, calibration_error, too_few
from learning.evaluation import Confusion, Evaluation
from learning.sections import MANY_CLASSES, class_section, class_table, error_section
from utils.console import say, show, show_table
from utils.data.folders import Dataset
from utils.page import Picture, Section, to_page
from utils.run import pictures
from utils.run.files import replacing, write_json
from utils.run.folder import RunFolder
from utils.run.records import Result, as_content
from utils.text import cell, sentence, visible

PROBABILITY = "probability_"
SMALLEST = 1e-300  # that is written, whose logarithm is finite
PAGE = "run.html"
PAIRS_SHOWN = 3


def write_results(
    folder: RunFolder,
    dataset: Dataset,
    skipped: Sequence[str],
    history: Sequence[dict],
    best: Mapping[str, Any],
    test: Evaluation,
    test_last: Evaluation,
    calibration: Calibration,
    in_effect: Mapping[str, str],
    crop: bool,
) -> Result:
    """Write what a run came to, and result.json last, since it says that all else is there.

    `skipped` names the images that could not be read, `history` has the rows of log.csv, `best` says which
    weights were best on the validation images, `test` is the evaluation of those and `test_last` that of
    the last epoch's. The calibration is that of the best weights, `in_effect` has the tricks and their
    strengths, and with `crop` the network sees middle squares of images.
    """
    files = [dataset.files[index] for index in dataset.splits["test"]]
    write_predictions(folder / "predictions.csv", files, dataset.classes, test, calibration.temperature)
    result = _came_to(dataset, skipped, history, best, test, test_last, calibration)
    calibrated = test.at(calibration.temperature)
    name, seen = str(folder.path), (test.labels, test.predictions, calibrated.confidences)
    curve = pictures.learning_curve(history, best, name)
    confidences = {
        "as trained": (test.confidences, test.correct),
        f"at temperature {calibration.temperature:.3g}": (calibrated.confidences, calibrated.correct),
    }
    reliability = Picture(
        "reliability",
        "How many predictions of each confidence are right",
        pictures.reliability(confidences, name),
    )
    sections = [
        Section(name, [sentence(result_words(result)), f"{dataset.describe()}."], card=True),
        Section("Epochs", pictures=[Picture("learning_curve", "Loss and accuracy of each epoch", curve)]),
        class_section(test.confusion, dataset.classes, f"{name}: test accuracy {test.accuracy:.2f} %"),
        error_section(dataset.root, crop, files, dataset.classes, *seen),
        Section(
            "Confidences", [sentence(words) for _, words in calibration_lines(result)], pictures=[reliability]
        ),
        Section("Tricks in effect", [f"{trick}: {how}" for trick, how in in_effect.items()], folded=True),
    ]
    for picture in (picture for section in sections for picture in section.pictures):
        pictures.save(picture.figure, folder / f"{picture.name}.png")
    with replacing(folder / PAGE, "w", encoding="utf-8") as file:
        file.write(to_page(sections))
    write_json(folder / "result.json", as_content(result))
    say_result(result, test.confusion, dataset.classes, folder)
    return result


def _came_to(
    dataset: Dataset,
    skipped: Sequence[str],
    history: Sequence[dict],
    best: Mapping[str, Any],
    test: Evaluation,
    test_last: Evaluation,
    calibration: Calibration,
) -> Result:
    """The figures of a run, for result.json."""
    return Result(
        best_epoch=best["epoch"],
        best_weights=best["weights"],
        **{name: value for name, value in best.items() if name.startswith("val_")},
        **test_figures(test, dataset.classes, calibration),
        test_accuracy_last=test_last.accuracy,
        train_seconds=sum(row["seconds"] for row in history),
        images_per_second=float(np.median([row["images_per_second"] for row in history])),
        split_sizes=dataset.sizes(),
        skipped_images=len(skipped),
    )


def say_result(result: Result, confusion: Confusion, classes: Sequence[str], folder: RunFolder) -> None:
    """Say what a run came to, on the console: the worst class first, the figure of all, and what is next."""
    say_classes(confusion, classes)
    for label, words in calibration_lines(result):
        say(label, words)
    say("result", result_words(result))
    say("files", f"in {folder.path}: {PAGE}, result.json, predictions.csv, log.csv, best.pt and pictures")
    show(f"{'next':<9}python main.py {visible(folder.flags)} --predict PHOTOS")


def result_words(result: Result) -> str:
    """What a run came to, in words."""
    average = ", average" if result.best_weights == "ema" else ""
    figures = [f"macro-F1 {result.macro_f1:.2f} %", f"balanced {result.test_balanced_accuracy:.2f} %"]
    if result.top5_accuracy is not None:
        figures.append(f"top-5 {result.top5_accuracy:.2f} %")
    return (
        f"test accuracy {result.test_accuracy:.2f} % with the best weights (epoch {result.best_epoch}"
        f"{average}), {result.test_accuracy_last:.2f} % with the last; {', '.join(figures)}"
    )


def test_figures(test: Evaluation, classes: Sequence[str], calibration: Calibration) -> dict:
    """The figures of a test, for result.json and evaluation.json."""
    confusion, calibrated = test.confusion, test.at(calibration.temperature)
    figures = {"precision": confusion.precision, "recall": confusion.recall, "f1": confusion.f1}
    top = {"top5_accuracy": test.top_accuracy} if len(classes) > MANY_CLASSES else {}
    return {
        "test_accuracy": test.accuracy,
        "test_loss": test.loss,
        "test_balanced_accuracy": test.balanced_accuracy,
        "test_accuracy_per_class": dict(zip(classes, confusion.recall.tolist(), strict=True)),
        "per_class": {
            name: {figure: _or_none(values[label]) for figure, values in figures.items()}
            for label, name in enumerate(classes)
        },
        "macro_f1": confusion.macro_f1,
        **top,
        "temperature": calibration.temperature,
        "calibration_error": float(calibration_error(calibrated.confidences, calibrated.correct)),
        "calibration_error_uncalibrated": float(calibration_error(test.confidences, test.correct)),
        "accept": {
            key: None if threshold is None else _accepted(calibrated, threshold)
            for key, threshold in calibration.thresholds.items()
        },
    }


def _or_none(share: float) -> float | None:
    """JSON has no NaN."""
    return None if math.isnan(share) else float(share)


def _accepted(calibrated: Evaluation, threshold: float) -> dict[str, float | None]:
    """What becomes of the images whose confidence is no less: their share, and how many are right."""
    sure = accepted(calibrated.confidences, threshold)
    right = 100 * float(calibrated.correct[sure].mean()) if sure.any() else None
    return {"threshold": threshold, "accepted": 100 * float(sure.mean()), "accuracy": right}


def calibration_lines(result: Result) -> Iterator[tuple[str, str]]:
    """What a result says of its confidences, under labels."""
    temperature = result.temperature or 1.0
    yield (
        "sureness",
        f"confidences are off by {result.calibration_error_uncalibrated:.2f} points as trained, by "
        f"{result.calibration_error:.2f} at temperature {temperature:.3g}{at_limit(temperature)}",
    )
    for key, found in (result.accept or {}).items():
        if found:
            right = "" if found["accuracy"] is None else f", {found['accuracy']:.2f} % right"
            some = f"{found['accepted']:.1f} % of the test images"
            yield "accept", f"{key} % are right from {found['threshold']:g} on: {some}{right}"
        else:
            few = too_few((result.split_sizes or {})["val"], SHARES[key])
            yield "accept", f"{key} %: too {'few' if few else 'many wrong'} validation images"


def say_classes(confusion: Confusion, classes: Sequence[str]) -> None:
    """Show the figures of each class on the console, and the pairs that are confused most."""
    columns, rows, more = class_table(confusion, classes)
    show("")
    show_table(columns, rows)
    show("")
    if more:
        say("classes", more.removeprefix("; "))
    if pairs := confusion.most_confused(PAIRS_SHOWN):
        words = [f"{classes[true]} taken for {classes[taken]} {number}" for true, taken, number in pairs]
        say("confused", ", ".join(words))


def write_predictions(
    path: Path, files: Sequence[str], classes: Sequence[str], test: Evaluation, temperature: float
) -> None:
    """A row an image: its path in the data folder, label, prediction, confidence, probability of each class.

    The confidence is calibrated, the probabilities are those of the network.
    """
    confidences = test.at(temperature).confidences
    with replacing(path, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "prediction", "confidence", *probability_columns(classes)])
        for name, label, prediction, confidence, row in zip(
            files, test.labels, test.predictions, confidences, test.probabilities, strict=True
        ):
            names = map(cell, (name, classes[label], classes[prediction]))
            writer.writerow([*names, nine_digits(confidence), *map(nine_digits, row)])


@dataclass
class PredictionsFile:
    """What predictions.csv holds of n test images, in their order."""

    paths: list[str]
    classes: list[str]
    labels: np.ndarray  # int64 [n]
    predictions: np.ndarray  # int64 [n]
    probabilities: np.ndarray  # float64 [n, K]
    confidences: np.ndarray | None  # calibrated, float64 [n]; older files have none, and six decimals


def read_predictions(path: Path) -> PredictionsFile:
    """Read what `write_predictions` wrote, by the columns' names; a damaged file may raise anything."""
    with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
        titles, *rows = csv.reader(file)
    columns = dict(zip(titles, zip(*rows, strict=True), strict=True))
    of_classes = {
        title.removeprefix(PROBABILITY): column
        for title, column in columns.items()
        if title.startswith(PROBABILITY)
    }
    numbers = {cell(name): number for number, name in enumerate(of_classes)}
    return PredictionsFile(
        list(columns["path"]),
        list(of_classes),
        np.array([numbers[name] for name in columns["label"]]),
        np.array([numbers[name] for name in columns["prediction"]]),
        np.array(list(of_classes.values()), float).T,
        np.array(columns["confidence"], float) if "confidence" in columns else None,
    )


def probability_columns(classes: Sequence[str]) -> list[str]:
    """The titles of the last columns of predictions."""
    return [f"{PROBABILITY}{name}" for name in classes]


def nine_digits(probability: float) -> str:
    """A probability as predictions have it: however small, it does not read as 0."""
    return f"{max(probability, SMALLEST):.9g}"
