"""Parts of the pages that show a run: how well its classes are recognised, and its surest errors."""

import math
from collections.abc import Sequence
from pathlib import Path, PurePath

import numpy as np

from learning.evaluation import Confusion
from utils.data.decode import Frame, UnreadableImage, decode
from utils.page import Picture, Section, pixels_as_image, text
from utils.run import pictures
from utils.text import count

ERRORS_SHOWN = 12
THUMBNAIL = 144  # pixels
MANY_CLASSES = 20  # above them the first five guesses are counted too, and not every class is printed


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


def class_section(confusion: Confusion, classes: Sequence[str], title: str) -> Section:
    """How well each class is recognised, and which are taken for which."""
    columns, rows, more = class_table(confusion, classes)
    pairs = confusion.most_confused(pictures.PAIRS_LISTED)
    told = [f"{classes[true]} taken for {classes[taken]} ({number})" for true, taken, number in pairs[:5]]
    confused = f"Confused most often: {', '.join(told)}." if told else "No test image is confused."
    matrix = pictures.confusion_matrix(confusion.counts, classes, pairs, title)
    words = "How often images of each class were taken for each class"
    return Section(
        "Classes",
        [f"The worst class comes first{more}.", confused],
        columns,
        rows,
        [Picture("confusion_matrix", words, matrix)],
        bars=("recall, %",),
    )


def error_section(
    root: Path | None,
    crop: bool,
    paths: Sequence[str],
    classes: Sequence[str],
    labels: np.ndarray,
    predictions: np.ndarray,
    confidences: np.ndarray,
) -> Section:
    """The wrongly classified test images, [n] in all, that the network was surest of.

    `paths` are below `root`, where the images are looked for if it is given; with `crop` the network sees
    middle squares.
    """
    wrong = np.flatnonzero(labels != predictions)
    shown = wrong[np.argsort(-confidences[wrong], kind="stable")][:ERRORS_SHOWN]
    items, missing = [], 0
    for number in shown:
        image = _thumbnail(root, paths[number], crop) if root else ""
        missing += bool(root) and not image
        items.append(
            f"<li>{image}{text(classes[predictions[number]])} ({100 * confidences[number]:.1f} %), but it is "
            f'{text(classes[labels[number]])}<div class="path">{text(paths[number])}</div></li>'
        )
    words = f"{len(wrong):,} of {len(labels):,} test images are classified wrongly"
    if len(shown) < len(wrong):
        words += f"; the {len(shown)} surest of them"
    if missing:
        words += f" ({count(missing, 'image')} no longer in {root})"
    return Section("The surest errors", [f"{words}."], more=f'<ul class="errors">{"".join(items)}</ul>')


def _thumbnail(root: Path, name: str, crop: bool) -> str:
    """The image as the network saw it, if it is still there; none outside of `root` is read."""
    if PurePath(name).is_absolute() or ".." in PurePath(name).parts:
        return ""
    try:
        return pixels_as_image(decode(root / name, Frame(THUMBNAIL, crop)), name)
    except UnreadableImage:
        return ""


def _percent(share: float) -> str:
    return "-" if math.isnan(share) else f"{share:.2f}"
