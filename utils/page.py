"""Sections of text, tables and pictures, as Markdown or as one HTML file that needs nothing beside it."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from string import Template

import numpy as np
from PIL import Image

from utils.text import markdown, markdown_table, visible

TEMPLATE = Path(__file__).with_name("page.html")


@dataclass
class Section:
    """Plain text, so that whoever shows it escapes it."""

    title: str
    paragraphs: list[str] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    pictures: dict[str, str] = field(default_factory=dict)  # file names, and what they show


def to_markdown(sections: Sequence[Section]) -> str:
    """The sections as Markdown, which a terminal shows as well; the first has the title."""
    parts = []
    for number, section in enumerate(sections):
        parts.append(f"{'#' if number == 0 else '##'} {section.title}")
        parts += map(markdown, section.paragraphs)
        if section.rows:
            parts.append(markdown_table(section.columns, [list(map(markdown, row)) for row in section.rows]))
        parts += [f"![{text}]({file})" for file, text in section.pictures.items()]
    return "\n\n".join(parts) + "\n"


def to_page(sections: Sequence[Section], folder: Path = Path(), more: str = "") -> str:
    """The sections as HTML, with `more` of it below; the first has the title, pictures are in `folder`."""
    headings = ("h1", *["h2"] * (len(sections) - 1))
    parts = [_section(*pair, folder) for pair in zip(sections, headings, strict=True)]
    body = "\n".join([*parts, more])
    return Template(TEMPLATE.read_text("utf-8")).substitute(title=text(sections[0].title), body=body)


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
        parts.append(f"<p>{picture(folder / file, description)}</p>")
    return "\n".join(parts)


def picture(path: Path, description: str) -> str:
    """The HTML of a PNG file."""
    return _image(path.read_bytes(), "png", description)


def pixels_as_image(pixels: np.ndarray, description: str) -> str:
    """The HTML of an image, uint8 [H, W, 3]."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=80)
    return _image(buffer.getvalue(), "jpeg", description)


def _image(content: bytes, kind: str, description: str) -> str:
    data = base64.b64encode(content).decode()
    return f'<img src="data:image/{kind};base64,{data}" alt="{text(description)}">'
