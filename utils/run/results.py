"""What a finished run leaves: its result and its predictions."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from utils.run.files import replacing


def write_predictions(
    path: Path,
    files: Sequence[str],
    classes: Sequence[str],
    labels: np.ndarray,
    probabilities: np.ndarray,
) -> None:
    """A row an image: its path in the data folder, label, prediction, and each class's probability.

    `labels` int64 [n], `probabilities` [n, K].
    """
    with replacing(path, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "prediction", *(f"probability_{name}" for name in classes)])
        for name, label, row in zip(files, labels, probabilities, strict=True):
            writer.writerow([name, classes[label], classes[row.argmax()], *(f"{p:.6f}" for p in row)])
