"""Finished runs in one small file: what the report needs of them, without weights, pictures or places."""

import csv
import io
import json
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import options
from utils.errors import UserError
from utils.flags import path as a_path
from utils.run.files import replacing

FILES = ("args.json", "result.json", "log.csv", "predictions.csv")
DIGITS = 6  # of probabilities, which are most of what there is
MOST_BYTES = 2**32  # that a file may unpack to


def pack(root: Path, file: Path) -> int:
    """Write the finished runs under `root` into a ZIP file, and return how many there are.

    Probabilities are cut to `DIGITS` digits, and of paths among the flags only the last part is kept.
    """
    runs = [path.parent for path in sorted(root.rglob("result.json"))]
    with replacing(file) as target, zipfile.ZipFile(target, "w", zipfile.ZIP_LZMA) as archive:
        for run in runs:
            for name in FILES:
                text = (run / name).read_text("utf-8", errors="surrogateescape")
                change = {"args.json": _without_places, "predictions.csv": _with_fewer_digits}.get(name)
                content = (change(text) if change else text).encode("utf-8", errors="surrogateescape")
                # With a date that is always the same, so that the same runs make the same bytes.
                entry = zipfile.ZipInfo((run.relative_to(root) / name).as_posix())
                archive.writestr(entry, content, zipfile.ZIP_LZMA)
    return len(runs)


def _without_places(text: str) -> str:
    about = json.loads(text)
    places = {flag.name for flags in options.BY_GROUP.values() for flag in flags if flag.kind is a_path}
    flags = {
        name: Path(value).name if name in places and isinstance(value, str) else value
        for name, value in about["flags"].items()
    }
    return json.dumps({**about, "flags": flags}, indent=2)


def _with_fewer_digits(text: str) -> str:
    titles, *rows = csv.reader(io.StringIO(text))
    first = titles.index("confidence")
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(titles)
    for row in rows:
        writer.writerow([*row[:first], *(f"{float(number):.{DIGITS}g}" for number in row[first:])])
    return out.getvalue()


@contextmanager
def unpacked(place: Path) -> Iterator[Path]:
    """The folder itself or, of a file that `pack` wrote, one that holds its runs within this context."""
    if not place.is_file():
        yield place
        return
    with TemporaryDirectory() as folder:
        try:
            with zipfile.ZipFile(place) as archive:
                if sum(entry.file_size for entry in archive.infolist()) > MOST_BYTES:
                    raise UserError(
                        f"{place} unpacks to more than {MOST_BYTES / 1e9:.0f} GB; it is no such file"
                    )
                archive.extractall(folder)
        except (zipfile.BadZipFile, NotImplementedError) as error:
            raise UserError(f"{place} is no file of packed runs ({error}); name a folder of runs") from None
        yield Path(folder)
