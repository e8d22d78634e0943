"""The report as one HTML file that needs nothing beside it: pictures and images are inside."""

import base64
import io
from collections.abc import Sequence
from html import escape
from pathlib import Path, PurePath
from string import Template

import numpy as np
from PIL import Image

from utils.data.decode import Frame, UnreadableImage, decode
from utils.report.comparison import Evidence
from utils.report.runs import Run
from utils.report.sections import Section
from utils.text import visible

TEMPLATE = Path(__file__).with_name("page.html")
ERRORS_SHOWN = 12
THUMBNAIL = 144  # pixels


def render(sections: Sequence[Section], evidence: Evidence, folder: Path) -> str:
    """The page; the sections' pictures are read from `folder`."""
    runs = [run for found in evidence.experiments.values() for run in found.runs.values()]
    first, *others = sections
    parts = [_section(first, "h1", folder), *(_section(section, "h2", folder) for section in others)]
    return Template(TEMPLATE.read_text("utf-8")).substitute(
        sections="\n".join(parts), runs="\n".join(map(_run, runs))
    )


def text(content: object) -> str:
    """Text that means nothing but itself in HTML."""
    return escape(visible(content))


def _section(section: Section, heading: str, folder: Path) -> str:
    parts = [f"<{heading}>{text(section.title)}</{heading}>"]
    parts += [f"<p>{text(paragraph)}</p>" for paragraph in section.paragraphs]
    if section.rows:
        titles = "".join(f'<th scope="col"><button>{text(title)}</button></th>' for title in section.columns)
        rows = "\n".join(
            "<tr>" + "".join(f"<td>{text(cell)}</td>" for cell in row) + "</tr>" for row in section.rows
        )
        parts.append(
            f'<div class="wide"><table><thead><tr>{titles}</tr></thead>\n<tbody>{rows}</tbody></table></div>'
        )
    for file, description in section.pictures.items():
        parts.append(f"<p>{_picture(folder / file, description)}</p>")
    return "\n".join(parts)


def _run(run: Run) -> str:
    """What there is to see of one run, folded away."""
    figures = f"test {run.test_accuracy:.2f} %, validation {run.val_accuracy:.2f} %"
    parts = [f"<details><summary>{text(run.experiment)}, seed {text(run.seed)}: {figures}</summary>"]
    for file, description in (
        ("learning_curve.png", "Loss and accuracy of each epoch"),
        ("confusion_matrix.png", "How often images of each class were taken for each class"),
    ):
        if (run.folder / file).is_file() and not (run.folder / file).is_symlink():
            parts.append(f"<p>{_picture(run.folder / file, description)}</p>")
    return "\n".join([*parts, _confident_errors(run), "</details>"])


def _confident_errors(run: Run) -> str:
    """The wrongly classified test images, the most confident ones first."""
    wrong = np.flatnonzero(~run.correct)
    worst = wrong[np.argsort(-run.confidences[wrong], kind="stable")][:ERRORS_SHOWN]
    items, missing = [], False
    for index in worst:
        name = run.paths[index]
        image = _thumbnail(run, name)
        missing |= not image
        items.append(
            f"<li>{image}{text(run.predictions[index])} "
            f"({100 * run.confidences[index]:.1f} %), but it is {text(run.labels[index])}"
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
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=80)
    return _image(buffer.getvalue(), "jpeg", name)


def _picture(path: Path, description: str) -> str:
    return _image(path.read_bytes(), "png", description)


def _image(content: bytes, kind: str, description: str) -> str:
    data = base64.b64encode(content).decode()
    return f'<img src="data:image/{kind};base64,{data}" alt="{text(description)}">'
