"""Names that come from folders and files, made safe to show."""

import re
import unicodedata
from collections.abc import Iterable, Sequence

NUMBER = r"[-+<]?\d[\d,.]*( ?%| s| min| h| ±.*| to .*)?"


def visible(text: object) -> str:
    """Text for a terminal or a picture: a character that cannot be printed shows as its escape sequence."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in str(text)
    )


def markdown(text: object) -> str:
    """Text for a Markdown table, where it means nothing but itself."""
    return re.sub(r"([\\`*\[\]|~]|\b_|_\b|<(?=[a-zA-Z/!?])|&(?=[a-zA-Z#]))", r"\\\1", visible(text))


def cell(text: str) -> str:
    """Text for a CSV file: what a spreadsheet would take for a formula gets an apostrophe in front of it."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def one_form(name: str) -> str:
    """A name in Unicode's composed form: some systems write ä as one character, others as a and its dots."""
    return unicodedata.normalize("NFC", name)


def looks_of(name: str) -> str:
    """What a name is to a reader: without case, outer and double spaces, and what is not seen at all."""
    letters = unicodedata.normalize("NFKC", name).casefold()
    return " ".join("".join(x for x in letters if x.isprintable() or x.isspace()).split())


def count(number: int, what: str) -> str:
    """A number of things, as "1 image" or "2,000 images"."""
    return f"{number:,} {what}{'s' * (number != 1)}"


def duration(seconds: float) -> str:
    """A time, as "45 s", "12 min" or "3.4 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def sentence(words: str) -> str:
    """Words that begin with a capital letter and end with a full stop."""
    return f"{words[:1].upper()}{words[1:]}."


def numeric(cells: Iterable[str]) -> bool:
    """Whether a column holds numbers, perhaps with units and empty places, to be set to the right."""
    found = [cell for cell in cells if cell and cell != "-"]
    return bool(found) and all(re.fullmatch(NUMBER, cell) for cell in found)


def shortened(text: object, most: int) -> str:
    """Text made safe to show, of at most so many characters."""
    shown = visible(text)
    return shown if len(shown) <= most else f"{shown[: most - 1]}…"


def some(names: Iterable[str], most: int, separator: str = ", ") -> str:
    """The first names, made safe to show, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return separator.join(map(visible, names[:most])) + more


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns line up in a terminal too; cells must have no | of their own."""
    cells = [columns, *rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(columns))]
    lines = [
        "| " + " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) + " |"
        for row in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)
