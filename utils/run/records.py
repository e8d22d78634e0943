"""What a run's files hold, as types; all who read the files read them as these.

args.json is an `About`, best.pt a `Weights`, last.pt a `Progress` and result.json a `Result`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from utils.errors import UserError

FORMAT = 2  # raised when a run of the version before cannot be gone on with; its weights still load

Kind = TypeVar("Kind")
State = Mapping[str, Any]  # of a module or an optimizer of torch's


@dataclass(frozen=True, kw_only=True)
class About:
    """What was run."""

    flags: Mapping[str, Any]
    classes: Sequence[str] = ()
    normalisation: Sequence[Sequence[float]] = ()  # mean and standard deviation of each channel
    precision: str = ""
    memory_format: str = "channels_last"  # younger than the first checkpoints, as what follows may be
    images: str = ""  # the data set's identity
    skipped_images: Sequence[str] = ()
    teacher: str | None = None  # its fingerprint
    device: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Weights(About):
    """A network as it was after an epoch, and all that it takes to use it."""

    classes: Sequence[str] = field()
    normalisation: Sequence[Sequence[float]] = field()
    precision: str = field()
    network: State
    epoch: int
    step: int
    best: Mapping[str, Any] | None  # the figures of the best epoch so far
    # Of a run that has ended: a `Calibration`.
    temperature: float | None = None
    thresholds: Mapping[str, float | None] | None = None


@dataclass(frozen=True, kw_only=True)
class Progress(Weights):
    """All that the rest of a run depends on."""

    ema: State | None
    optimizer: State
    scaler: State
    totals: Mapping[str, float]  # of the epoch so far
    history: list[dict]  # the rows of log.csv
    said: Sequence[str] = ()  # the kinds of warnings of `learning.watch`
    format: int = FORMAT


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a run came to, in percent where it is a share. Older files lack some of what has a default."""

    val_accuracy: float
    test_accuracy: float
    train_seconds: float
    images_per_second: float
    best_epoch: int | None = None
    best_weights: str | None = None  # "raw" or, of their average, "ema"
    val_balanced_accuracy: float | None = None  # where epochs are chosen by it
    test_loss: float | None = None
    test_balanced_accuracy: float | None = None
    test_accuracy_per_class: Mapping[str, float] | None = None
    per_class: Mapping[str, Mapping[str, float | None]] | None = None  # precision, recall and f1
    macro_f1: float | None = None
    top5_accuracy: float | None = None  # of more than 20 classes
    temperature: float | None = None  # as the next ones, of calibrated confidences
    calibration_error: float | None = None
    calibration_error_uncalibrated: float | None = None
    accept: Mapping[str, Mapping[str, float] | None] | None = None  # by the shares that are to be right
    test_accuracy_last: float | None = None  # with the last weights
    split_sizes: Mapping[str, int] | None = None
    skipped_images: int | None = None


def as_record(kind: type[Kind], content: Mapping[str, Any], path: Path) -> Kind:
    """What the file holds; raises `UserError` if something is missing. What else is there is left out."""
    for each in fields(kind):  # type: ignore[arg-type]
        if each.name not in content and each.default is each.default_factory is MISSING:
            raise UserError(
                f"{path} lacks {each.name!r}, which this program writes there; train the run anew"
            )
    return kind(**{each.name: content[each.name] for each in fields(kind) if each.name in content})  # type: ignore[arg-type]


def as_content(record: Any) -> dict[str, Any]:
    """What is written of a record: its fields, but for those that are None."""
    return {name: value for name, value in vars(record).items() if value is not None}
