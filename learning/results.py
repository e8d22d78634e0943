"""What a finished run leaves: its figures, its predictions and its pictures."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from learning.evaluator import Evaluation
from utils.data.folders import Dataset
from utils.run import pictures
from utils.run.files import replacing, write_json
from utils.run.folder import RunFolder
from utils.run.records import Result, as_content
from utils.text import cell, visible


def write_results(
    folder: RunFolder,
    dataset: Dataset,
    skipped: Sequence[str],
    history: Sequence[dict],
    best: Mapping[str, Any],
    test: Evaluation,
    test_last: Evaluation,
) -> None:
    """Write what a run came to, and result.json last, since it says that all else is there.

    `skipped` names the images that could not be read, `history` has the rows of log.csv, `best` says which
    weights were best on the validation images, `test` is the evaluation of those and `test_last` that of
    the last epoch's.
    """
    files = [dataset.files[index] for index in dataset.splits["test"]]
    write_predictions(folder / "predictions.csv", files, dataset.classes, test)
    pictures.learning_curve(folder / "learning_curve.png", history, best, str(folder.path))
    title = f"{folder.path}: test accuracy {test.accuracy:.2f} %"
    pictures.confusion_matrix(folder / "confusion_matrix.png", test.confusion, dataset.classes, title)

    sizes = dataset.sizes()
    seconds = sum(row["seconds"] for row in history)
    result = Result(
        best_epoch=best["epoch"],
        best_weights=best["weights"],
        **{name: value for name, value in best.items() if name.startswith("val_")},
        **test_figures(test, dataset.classes),
        test_accuracy_last=test_last.accuracy,
        train_seconds=seconds,
        images_per_second=len(history) * sizes["train"] / seconds,
        split_sizes=sizes,
        skipped_images=len(skipped),
    )
    write_json(folder / "result.json", as_content(result))
    average = ", average" if best["weights"] == "ema" else ""
    balanced = f" (balanced {test.balanced_accuracy:.2f} %)" if "val_balanced_accuracy" in best else ""
    print(
        f"test accuracy {test.accuracy:.2f} %{balanced} with the best weights "
        f"(epoch {best['epoch']}{average}), {test_last.accuracy:.2f} % with the last\n"
        f"results in {visible(folder.path)}: result.json, predictions.csv, learning_curve.png, "
        "confusion_matrix.png"
    )


def test_figures(test: Evaluation, classes: Sequence[str]) -> dict:
    """The figures of a test, for result.json and evaluation.json."""
    return {
        "test_accuracy": test.accuracy,
        "test_loss": test.loss,
        "test_balanced_accuracy": test.balanced_accuracy,
        "test_accuracy_per_class": dict(zip(classes, test.class_accuracies, strict=True)),
    }


def write_predictions(path: Path, files: Sequence[str], classes: Sequence[str], test: Evaluation) -> None:
    """A row an image: its path in the data folder, label, prediction, and each class's probability."""
    with replacing(path, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "prediction", *(f"probability_{name}" for name in classes)])
        for name, label, row in zip(files, test.labels, test.probabilities, strict=True):
            names = map(cell, (name, classes[label], classes[row.argmax()]))
            writer.writerow([*names, *(f"{p:.6f}" for p in row)])
