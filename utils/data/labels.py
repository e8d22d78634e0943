"""A table of labels beside a folder of images, as Kaggle publishes them."""

import csv
import os
from collections.abc import Iterator
from pathlib import Path

from utils.data.layout import SPLIT_NAMES, Labelled, Tree, is_foreign, places, split_of
from utils.errors import UserError
from utils.text import count, one_form, some

PROBLEMS_SHOWN = 20
COLUMNS = ("path", "label", "split", "group")


def read_labels(table: Path, root: Path, tree: Tree) -> tuple[list[Labelled], list[str]]:
    """The images that a CSV file names, in the order of their paths, and what a person should know of that.

    It has the columns path and label and perhaps split and group; `tree` is what lies in `root`. Raises
    `UserError` that tells everything that is wrong, with the numbers of the lines.
    """
    lines = _lines(table)
    titles = [title.strip().lower() for title in next(lines, (0, []))[1]]
    if problem := _wrong_titles(titles):
        raise UserError(f"--labels {table}: {problem}")

    images, problems = set(tree.images), []
    forms = {one_form(path): path for path in tree.images if not path.isascii()}
    found: dict[str, tuple[int, Labelled]] = {}  # by paths, with the numbers of the lines
    for line, cells in lines:
        if len(cells) != len(titles):
            problems.append(f"line {line}: {count(len(cells), 'cell')} for {count(len(titles), 'column')}")
            continue
        told = dict.fromkeys(COLUMNS, "") | {
            title: cell.strip() for title, cell in zip(titles, cells, strict=True)
        }
        path, label, group = told["path"], one_form(told["label"]), one_form(told["group"])
        if path and path not in images:
            path = _path_in(root, path)
            path = forms.get(one_form(path), path)
        split = split_of(told["split"]) or ""
        image = Labelled(path, path, label, split or "train", group, f"{label}\0{split}\0{group}")
        wrong = [*_wrong_text(told, "split" in titles), *_wrong_path(image, root, images, found)]
        problems += [f"line {line}: {problem}" for problem in wrong]
        found.setdefault(path, (line, image))
    if problems:
        raise UserError(f"--labels {table}: {some(problems, PROBLEMS_SHOWN, '; ')}")
    if not found:
        raise UserError(f"--labels {table} has no rows")
    unlisted = [path for path in tree.images if path not in found]
    notes = [f"not used, since not in {table}: {places(unlisted)}"] if unlisted else []
    if "split" not in titles and (named := sorted({*filter(split_of, tree.folders[""])})):
        notes.append(f"{table} tells no splits, whatever folders are called like some: {some(named, 5)}")
    return sorted((image for _, image in found.values()), key=lambda image: image.path.split(os.sep)), notes


def _lines(table: Path) -> Iterator[tuple[int, list[str]]]:
    """The rows that are not empty, each with the number of the line where it begins."""
    try:
        # Paths may have any bytes; a label that has them is refused.
        with open(table, newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
            reader = csv.reader(file, strict=True, skipinitialspace=True)
            begins = 1
            try:
                for cells in reader:
                    if any(cell.strip() for cell in cells):
                        yield begins, cells
                    begins = reader.line_num + 1
            except csv.Error as error:
                raise UserError(f"--labels {table}, line {begins}: {error}") from error
    except OSError as error:
        raise UserError(f"--labels {table}: {error.strerror or error}; name the table") from error


def _wrong_titles(titles: list[str]) -> str | None:
    told = f"its first line is {','.join(titles)!a}"
    if missing := [title for title in COLUMNS[:2] if title not in titles]:
        return f"no column {' and none '.join(missing)}: {told}; have path,label[,split][,group] in UTF-8"
    twice = next((title for title in COLUMNS if titles.count(title) > 1), None)
    return f"two columns {twice}: {told}" if twice else None


def _path_in(root: Path, path: str) -> str:
    """A path in the data folder as `Tree` has it, whether the table has it so, in full or by detours."""
    found = (
        os.path.relpath(os.path.join(place, path), place)
        for place in (os.path.abspath(root), os.path.realpath(root))
    )
    return min(found, key=lambda path: path.startswith(os.pardir))


def _wrong_text(told: dict[str, str], splits: bool) -> Iterator[str]:
    """What is wrong with a row's label, split and group, by the names of the columns."""
    if not told["label"]:
        yield "no label"
    elif not _is_text(told["label"] + told["group"]):
        yield "its text is not UTF-8"
    if splits and not split_of(told["split"]):
        yield f"{told['split']!r} is no split ({', '.join(SPLIT_NAMES)})"


def _wrong_path(
    image: Labelled, root: Path, images: set[str], found: dict[str, tuple[int, Labelled]]
) -> Iterator[str]:
    """What is wrong with a row's path, beside those that were found before."""
    if not image.path:
        yield "no path"
    elif image.path in found:
        line, other = found[image.path]
        yield f"{image.path} is in line {line} already" + (
            f", as {other.label}" if other.label != image.label else ""
        )
    elif image.path not in images:
        yield _why_not(image.path, root)


def _why_not(path: str, root: Path) -> str:
    """Why a path is not that of an image in the data folder."""
    steps = path.split(os.sep)
    if os.pardir in steps:
        return f"{path} is not in {root}"
    if any(map(is_foreign, steps)):
        return f"{path} is hidden or of the system, and not used"
    if not os.path.lexists(root / path):
        return f"{path} is not there"
    if os.path.isdir(root / path):
        return f"{path} is a folder"
    return f"{path} is not called like an image"


def _is_text(text: str) -> bool:
    return text.isascii() or text.encode(errors="replace").decode() == text
