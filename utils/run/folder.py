"""A run's folder: what is in it, and who may write there."""

from pathlib import Path, PurePath

from filelock import AcquireReturnProxy, FileLock, Timeout

from utils.errors import UserError

RECORDS = ("args.json", "last.pt", "best.pt", "result.json")  # any of them makes a folder a run's
OUTPUTS = (
    *RECORDS,
    "log.csv",
    "predictions.csv",
    "evaluation.json",
    "learning_curve.png",
    "confusion_matrix.png",
    "events.out.tfevents.*",
    ".*.part",
)


class RunFolder:
    """The folder `checkpoint_dir`/`name`. Raises `UserError` for a name that leads elsewhere."""

    def __init__(self, checkpoint_dir: str, name: str):
        parts = PurePath(name).parts
        if not parts or PurePath(name).is_absolute() or ".." in parts:
            raise UserError(
                f"--checkpoint_name {name!r}: give the run a name, a folder inside --checkpoint_dir"
            )
        self.path = Path(checkpoint_dir, name)

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    @property
    def finished(self) -> bool:
        """Whether the run here has come to its end: result.json is the last file it writes."""
        return (self.path / "result.json").exists()

    def refuse_another_run(self) -> None:
        """Raise `UserError` if a run was started here, which a new one would destroy."""
        if any((self.path / name).exists() for name in RECORDS):
            raise UserError(
                f"{self.path} holds a run already; --resume goes on with it, --overwrite replaces it"
            )

    def claim(self) -> AcquireReturnProxy:
        """Make the folder and keep other processes from writing there while the result is held."""
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            return FileLock(self.path / ".lock").acquire(timeout=0)
        except Timeout:
            raise UserError(
                f"{self.path} is in use by another process; wait, or choose another name"
            ) from None

    def clear(self) -> None:
        """Remove what an earlier run wrote, and nothing else."""
        for pattern in OUTPUTS:
            for path in self.path.glob(pattern):
                path.unlink()
