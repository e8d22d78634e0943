"""The report as one HTML file: its sections, and each run with the errors it was most sure of."""

from collections.abc import Sequence
from pathlib import Path, PurePath

import numpy as np

from utils.data.decode import Frame, UnreadableImage, decode
from utils.page import Section, picture, pixels_as_image, text, to_page
from utils.report.comparison import Evidence
from utils.report.runs import Run

ERRORS_SHOWN = 12
THUMBNAIL = 144  # pixels


def render(sections: Sequence[Section], evidence: Evidence, folder: Path) -> str:
    """The page; the sections' pictures are read from `folder`."""
    runs = [run for found in evidence.experiments.values() for run in found.runs.values()]
    return to_page(sections, folder, "\n".join(["<h2>The runs</h2>", *map(_run, runs)]))


def _run(run: Run) -> str:
    """What there is to see of one run, folded away."""
    figures = f"test {run.test_accuracy:.2f} %, validation {run.val_accuracy:.2f} %"
    parts = [f"<details><summary>{text(run.experiment)}, seed {text(run.seed)}: {figures}</summary>"]
    for file, description in (
        ("learning_curve.png", "Loss and accuracy of each epoch"),
        ("confusion_matrix.png", "How often images of each class were taken for each class"),
        ("reliability.png", "How many predictions of each confidence are right"),
    ):
        if (run.folder / file).is_file() and not (run.folder / file).is_symlink():
            parts.append(f"<p>{picture(run.folder / file, description)}</p>")
    return "\n".join([*parts, _confident_errors(run), "</details>"])


def _confident_errors(run: Run) -> str:
    """The wrongly classified test images, the most confident ones first."""
    wrong = np.flatnonzero(~run.correct)
    worst = wrong[np.argsort(-run.confidences[wrong], kind="stable")][:ERRORS_SHOWN]
    items, missing = [], False
    for index in worst:
        name = run.paths[index]
        shown_image = _thumbnail(run, name)
        missing |= not shown_image
        items.append(
            f"<li>{shown_image}{text(run.classes[run.predictions[index]])} "
            f"({100 * run.confidences[index]:.1f} %), but it is {text(run.classes[run.labels[index]])}"
            f'<div class="path">{text(name)}</div></li>'
        )
    title = f"{len(wrong)} of {len(run.correct)} test images were classified wrongly"
    shown = f"; the {len(worst)} most confident errors:" if len(worst) < len(wrong) else ":" if items else ""
    if missing:
        shown += f" (images that are no longer in {text(run.flags['data_dir'])} are not shown)"
    return f'<p>{title}{shown}</p>\n<ul class="errors">{"".join(items)}</ul>'


def _thumbnail(run: Run, name: str) -> str:
    """The image as the network saw it, if it is still in the data folder; none outside it is read."""
    if PurePath(name).is_absolute() or ".." in PurePath(name).parts:
        return ""
    try:
        pixels = decode(Path(run.flags["data_dir"], name), Frame(THUMBNAIL, run.flags["crop"] != "none"))
    except UnreadableImage:
        return ""
    return pixels_as_image(pixels, name)
