"""A run's folder: what is in it, and who may write there."""

import json
import shlex
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from itertools import takewhile
from pathlib import Path, PurePath

from utils.errors import Busy, UserError
from utils.run.files import write_json
from utils.run.lock import InUse, hold
from utils.text import some

RECORDS = ("args.json", "last.pt", "best.pt", "result.json")  # any of them makes a folder a run's
OUTPUTS = (
    *RECORDS,
    "log.csv",
    "predictions.csv",
    "evaluation.json",
    "learning_curve.png",
    "confusion_matrix.png",
    "reliability.png",
    "run.html",
    "events.out.tfevents.*",
    ".*.part",
)
LOCK = ".lock"
RUNS_SHOWN = 10
FOLDS = "folds"  # runs on parts of the data, while --suspects needs them
MADE = "made_of_weights.json"  # names of the files that were made with the weights of the run


class RunFolder:
    """The folder `checkpoint_dir`/`name`. Raises `UserError` for a name that leads elsewhere."""

    def __init__(self, checkpoint_dir: str, name: str):
        parts = PurePath(name).parts
        if not parts or PurePath(name).is_absolute() or ".." in parts:
            raise UserError(
                f"--checkpoint_name {name!r}: give the run a name, a folder inside --checkpoint_dir"
            )
        self.directory = Path(checkpoint_dir)
        self.path = self.directory / name

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    @property
    def flags(self) -> str:
        """The flags that name this run, for a command line."""
        elsewhere = ["--checkpoint_dir", str(self.directory)] if str(self.directory) != "checkpoint" else []
        name = str(self.path.relative_to(self.directory))
        return shlex.join([*elsewhere, "--checkpoint_name", name])

    @property
    def finished(self) -> bool:
        """Whether the run here has come to its end: result.json is the last file it writes."""
        return (self.path / "result.json").exists()

    @property
    def started(self) -> bool:
        """Whether there is a run here."""
        return any((self.path / name).exists() for name in RECORDS)

    def refuse_none(self) -> None:
        """Raise `UserError` that names the runs there are, unless one was started here."""
        if not self.started:
            found = sorted(
                path.parent.relative_to(self.directory) for path in self.directory.rglob("args.json")
            )
            runs = some((str(run) for run in found if FOLDS not in run.parts), RUNS_SHOWN)
            raise UserError(
                f"{self.path} holds no run; {f'there are: {runs}' if runs else 'nor is there another'}"
            )

    def refuse_unfinished(self) -> None:
        """Raise `UserError` unless the run here has come to its end."""
        if not self.finished:
            raise UserError(f"{self.path} is not finished; go on with it first, by --resume")

    def refuse_another_run(self) -> None:
        """Raise `UserError` if a run was started here, which a new one would destroy."""
        if self.started:
            raise UserError(
                f"{self.path} holds a run already; --resume goes on with it, --overwrite replaces it"
            )

    @contextmanager
    def claim(self) -> Iterator[Callable[[], None]]:
        """Make the folder, and keep other processes from writing there within this context.

        Raises `Busy`, and so may what this context gives, which is to be called once before anything is
        written. Where no run was started in it, the folder is removed again.
        """
        try:
            with self._held() as confirm:
                yield confirm
        except InUse as error:
            raise Busy(f"{error}; wait, or choose another name") from None

    @property
    def in_use(self) -> str:
        """What to say of another process that has claimed it; "" if there is none."""
        try:
            if (self.path / LOCK).exists():
                with self._held():
                    pass
        except InUse as error:
            return str(error)
        except OSError:  # who wants to use it is told of that
            pass
        return ""

    @contextmanager
    def _held(self) -> Iterator[Callable[[], None]]:
        made = [folder for folder in (self.directory, *self.directory.parents) if not folder.exists()]
        try:
            with hold(self.path / LOCK) as confirm:
                try:
                    yield confirm
                finally:
                    if not self.started:
                        (self.path / LOCK).unlink(missing_ok=True)
        finally:
            with suppress(OSError):  # of what is not empty
                below = takewhile(lambda folder: folder != self.directory, (self.path, *self.path.parents))
                for folder in (*below, *made):
                    folder.rmdir()

    def clear(self) -> None:
        """Remove what an earlier run wrote, and nothing else."""
        self.clear_made()
        shutil.rmtree(self.path / FOLDS, ignore_errors=True)
        for pattern in OUTPUTS:
            for path in self.path.glob(pattern):
                path.unlink(missing_ok=True)

    def holds(self, path: Path) -> bool:
        """Whether a file lies, or would lie, right in this folder."""
        return path.resolve().parent == self.path.resolve()

    def refuse_to_replace(self, path: Path, flag: str) -> None:
        """Raise `UserError` if the file that the flag names is one of the run's own."""
        if self.holds(path) and any(fnmatch(path.name, pattern) for pattern in (*OUTPUTS, MADE, f"{LOCK}*")):
            raise UserError(f"{flag} {path} is a file of the run itself; name another")

    def note_made(self, *paths: Path) -> None:
        """Remember the files that will lie here: made with the weights, they go when these change."""
        if made := [path.name for path in paths if self.holds(path)]:
            write_json(self / MADE, sorted({*self._made(), *made}))

    def clear_made(self) -> None:
        """Remove what was made with the weights, which change now."""
        for path in map(self.path.joinpath, self._made()):
            if path.is_file() or path.is_symlink():
                path.unlink()
        (self / MADE).unlink(missing_ok=True)

    def _made(self) -> list[str]:
        try:
            return [PurePath(name).name for name in json.loads((self / MADE).read_text("utf-8"))]
        except (OSError, ValueError, TypeError):  # there is none, or it is damaged
            return []
