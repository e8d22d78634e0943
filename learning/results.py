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
from utils.data.folders import Dataset
from utils.run import pictures
from utils.run.files import replacing, write_json
from utils.run.folder import RunFolder
from utils.run.records import Result, as_content
from utils.text import cell, markdown_table, visible

PROBABILITY = "probability_"
SMALLEST = 1e-300  # that is written, whose logarithm is finite
MANY_CLASSES = 20  # above them the first five guesses are counted too, and not every class is printed


def write_results(
    folder: RunFolder,
    dataset: Dataset,
    skipped: Sequence[str],
    history: Sequence[dict],
    best: Mapping[str, Any],
    test: Evaluation,
    test_last: Evaluation,
    calibration: Calibration,
) -> None:
    """Write what a run came to, and result.json last, since it says that all else is there.

    `skipped` names the images that could not be read, `history` has the rows of log.csv, `best` says which
    weights were best on the validation images, `test` is the evaluation of those and `test_last` that of
    the last epoch's. The calibration is that of the best weights.
    """
    files = [dataset.files[index] for index in dataset.splits["test"]]
    write_predictions(folder / "predictions.csv", files, dataset.classes, test, calibration.temperature)
    pictures.learning_curve(folder / "learning_curve.png", history, best, str(folder.path))
    title = f"{folder.path}: test accuracy {test.accuracy:.2f} %"
    pictures.confusion_matrix(folder / "confusion_matrix.png", test.confusion.counts, dataset.classes, title)
    calibrated = test.at(calibration.temperature)
    pictures.reliability(
        folder / "reliability.png",
        {
            "as trained": (test.confidences, test.correct),
            f"at temperature {calibration.temperature:.3g}": (calibrated.confidences, calibrated.correct),
        },
        str(folder.path),
    )

    sizes = dataset.sizes()
    seconds = sum(row["seconds"] for row in history)
    result = Result(
        best_epoch=best["epoch"],
        best_weights=best["weights"],
        **{name: value for name, value in best.items() if name.startswith("val_")},
        **test_figures(test, dataset.classes, calibration),
        test_accuracy_last=test_last.accuracy,
        train_seconds=seconds,
        images_per_second=len(history) * sizes["train"] / seconds,
        split_sizes=sizes,
        skipped_images=len(skipped),
    )
    write_json(folder / "result.json", as_content(result))
    average = ", average" if best["weights"] == "ema" else ""
    balanced = f" (balanced {test.balanced_accuracy:.2f} %)" if "val_balanced_accuracy" in best else ""
    top = f"top-5 accuracy {result.top5_accuracy:.2f} %\n" if result.top5_accuracy is not None else ""
    print(f"\n{class_lines(test.confusion, dataset.classes)}\n{top}")
    for line in calibration_lines(result, sizes["val"]):
        print(line)
    print(
        f"test accuracy {test.accuracy:.2f} %{balanced} with the best weights "
        f"(epoch {best['epoch']}{average}), {test_last.accuracy:.2f} % with the last\n"
        f"results in {visible(folder.path)}: result.json, predictions.csv,\n"
        "learning_curve.png, confusion_matrix.png, reliability.png"
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


def calibration_lines(result: Result, validation_images: int) -> Iterator[str]:
    """What a result says of its confidences, for the console."""
    temperature = result.temperature or 1.0
    yield (
        f"confidence  off by {result.calibration_error_uncalibrated:.2f} points as trained, by "
        f"{result.calibration_error:.2f} at temperature {temperature:.3g}{at_limit(temperature)}"
    )
    for key, found in (result.accept or {}).items():
        if found:
            right = "" if found["accuracy"] is None else f", {found['accuracy']:.2f} % right"
            some = f"{found['accepted']:.1f} % of the test images"
            yield f"accept      {key} % are right from {found['threshold']:g} on: {some}{right}"
        else:
            few = too_few(validation_images, SHARES[key])
            yield f"accept      {key} %: too {'few' if few else 'many wrong'} validation images"


def class_table(confusion: Confusion, classes: Sequence[str]) -> tuple[list[str], list[list[str]], str]:
    """The figures of each class that has images, the worst first: columns, rows and, in words, the rest."""
    columns = (confusion.precision, confusion.recall, confusion.f1)
    shown = [label for label in np.argsort(confusion.f1, kind="stable") if confusion.sizes[label]]
    rows = [
        [classes[label], str(confusion.sizes[label]), *(_percent(each[label]) for each in columns)]
        for label in shown[:MANY_CLASSES]
    ]
    more = f"; the {MANY_CLASSES} worst of {len(shown)} classes" if len(shown) > MANY_CLASSES else ""
    return ["class", "images", "precision, %", "recall, %", "F1, %"], rows, more


def class_lines(confusion: Confusion, classes: Sequence[str]) -> str:
    """The same for the console."""
    columns, rows, more = class_table(confusion, list(map(visible, classes)))
    return f"{markdown_table(columns, rows)}\nmacro-F1 {confusion.macro_f1:.2f} %{more}"


def _percent(share: float) -> str:
    return "-" if math.isnan(share) else f"{share:.2f}"


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
