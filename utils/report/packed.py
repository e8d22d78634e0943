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
from learning.results import PROBABILITY
from utils.errors import UserError
from utils.flags import path as a_path
from utils.run.files import replacing

FILES = ("args.json", "result.json", "log.csv", "predictions.csv")
DIGITS = 5  # of probabilities, which are most of what there is
MOST_BYTES = 2**32  # that a file may unpack to


def pack(root: Path, file: Path) -> tuple[int, list[str]]:
    """Write the finished runs under `root` into a ZIP file; returns how many they are, and what is left out.

    Probabilities are cut to `DIGITS` digits, and of paths among the flags only the last part is kept. Raises
    `UserError` where nothing is finished, and writes nothing then.
    """
    contents: dict[str, bytes] = {}
    left_out = []
    for run in sorted(path.parent for path in root.rglob("args.json")):
        name = run.relative_to(root)
        if not (run / "result.json").exists():
            left_out.append(f"run {name} is not finished")
            continue
        try:
            contents |= {(name / each).as_posix(): _packed(run / each) for each in FILES}
        except Exception:  # files that the report could not read either
            left_out.append(f"run {name} has files that are damaged, or of another version")
    if not contents:
        raise UserError(f"{root} holds no finished runs to pack; name the --checkpoint_dir of some")
    with replacing(file) as target, zipfile.ZipFile(target, "w", zipfile.ZIP_LZMA) as archive:
        for entry, content in contents.items():
            # With a date that is always the same, so that the same runs make the same bytes.
            archive.writestr(zipfile.ZipInfo(entry), content, zipfile.ZIP_LZMA)
    return len(contents) // len(FILES), left_out


def _packed(path: Path) -> bytes:
    text = path.read_text("utf-8", errors="surrogateescape")
    change = {"args.json": _without_places, "predictions.csv": _with_fewer_digits}.get(path.name)
    return (change(text) if change else text).encode("utf-8", errors="surrogateescape")


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
    first = next(place for place, title in enumerate(titles) if title.startswith(("confidence", PROBABILITY)))
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
                size = sum(entry.file_size for entry in archive.infolist())
                if size <= MOST_BYTES:
                    archive.extractall(folder)
        except OSError:
            raise
        except Exception as error:  # each way of packing has errors of its own
            reason = str(error) or type(error).__name__
            raise UserError(f"{place} is no file of packed runs ({reason}); name a folder of runs") from None
        if size > MOST_BYTES:
            raise UserError(f"{place} unpacks to {size / 1e9:.0f} GB, which packed runs do not")
        if not any(Path(folder).rglob("args.json")):
            raise UserError(f"{place} holds no packed runs; name a folder of runs, or a file of --pack")
        yield Path(folder)
