"""Sections of text, tables and pictures, as Markdown or as one HTML file that needs nothing beside it."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from string import Template

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from utils.figures import as_svg
from utils.text import markdown, markdown_table, numeric, visible

TEMPLATE = Path(__file__).with_name("page.html")
# Cells that are shown as marks, each in the colours of a kind.
MARKS = {"helps": "good", "hurts": "bad", "less than a point": "alike", "unclear": "open"}


@dataclass(frozen=True)
class Picture:
    """A figure, the name of its file without an ending, and what it shows."""

    name: str
    words: str
    figure: Figure


@dataclass
class Section:
    """Plain text, so that whoever shows it escapes it; but `more`, which only pages show, is HTML."""

    title: str
    paragraphs: list[str] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    bars: tuple[str, ...] = ()  # columns of shares in percent, shown as bars too
    more: str = ""
    card: bool = False  # what is to be seen first
    folded: bool = False  # what few will read


def to_markdown(sections: Sequence[Section]) -> str:
    """The sections as Markdown; the first has the title."""
    parts = []
    for number, section in enumerate(sections):
        parts.append(f"{'#' if number == 0 else '##'} {section.title}")
        parts += map(markdown, section.paragraphs)
        if section.rows:
            parts.append(markdown_table(section.columns, [list(map(markdown, row)) for row in section.rows]))
        parts += [f"![{picture.words}]({picture.name}.png)" for picture in section.pictures]
    return "\n\n".join(parts) + "\n"


def to_page(sections: Sequence[Section]) -> str:
    """The sections as HTML; the first has the title."""
    headings = ("h1", *["h2"] * (len(sections) - 1))
    body = "\n".join(map(_section, sections, headings))
    return Template(TEMPLATE.read_text("utf-8")).substitute(title=text(sections[0].title), body=body)


def text(content: object) -> str:
    """Text that means nothing but itself in HTML."""
    return escape(visible(content))


def _section(section: Section, heading: str) -> str:
    parts = [f"<p>{text(paragraph)}</p>" for paragraph in section.paragraphs]
    if section.rows:
        parts.append(_table(section))
    parts += [
        f'<figure role="img" aria-label="{text(picture.words)}">{as_svg(picture.figure)}</figure>'
        for picture in section.pictures
    ]
    content = "\n".join([*parts, section.more])
    title = f"<{heading}>{text(section.title)}</{heading}>"
    if section.folded:
        return f"<details><summary>{title}</summary>\n{content}</details>"
    return f"<section{' class=card' if section.card else ''}>{title}\n{content}</section>"


def _table(section: Section) -> str:
    columns, rows = section.columns, section.rows
    right = [numeric([row[number] for row in rows]) for number in range(len(columns))]
    kinds = [" class=number" if each else "" for each in right]
    titles = "".join(
        f'<th scope="col"{kind}><button>{text(title)}</button></th>'
        for title, kind in zip(columns, kinds, strict=True)
    )
    lines = [
        "".join(
            f"<td{_bar(cell) if title in section.bars else kind}>{_cell(cell)}</td>"
            for title, cell, kind in zip(columns, row, kinds, strict=True)
        )
        for row in rows
    ]
    body = "\n".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div class="wide"><table><thead><tr>{titles}</tr></thead>\n<tbody>{body}</tbody></table></div>'


def _bar(share: str) -> str:
    """The attributes of a cell that shows a share, in percent, as a bar too."""
    length = "0" if share == "-" else share
    return (
        f' class="number bar" style="background: linear-gradient(90deg, var(--bar) {length}%, transparent 0)"'
    )


def _cell(content: str) -> str:
    kind = MARKS.get(content)
    return f'<span class="mark {kind}">{text(content)}</span>' if kind else text(content)


def pixels_as_image(pixels: np.ndarray, description: str) -> str:
    """The HTML of an image, uint8 [H, W, 3]."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=80)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img src="data:image/jpeg;base64,{data}" alt="{text(description)}">'
