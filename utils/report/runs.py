"""The finished runs in a folder, read back from the files that they left."""

import csv
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from learning.evaluation import Confusion, Evaluation
from learning.results import read_predictions
from utils.errors import UserError
from utils.run.files import read_json
from utils.run.records import About, Result

DEMO = "demo"  # how main.py --demo calls its run


@dataclass(frozen=True)
class Run:
    """One finished run; the arrays are over its n test images."""

    folder: Path
    name: str  # the folder's, in the checkpoint folder
    experiment: str  # the name without the seed's
    seed: int
    flags: Mapping[str, Any]
    settings: Mapping[str, Any]  # what makes it another experiment, that is without the seed
    val_accuracy: float  # of the best epoch, in percent
    test_accuracy: float
    minutes: tuple[float, float, float]  # of training, at the quartiles of the epochs' speeds: short to long
    images_per_second: float  # the median
    memory: float  # at most, in MB
    precision: str
    device: str
    val_accuracies: Sequence[float]  # of each epoch
    paths: Sequence[str]  # in the data folder
    classes: Sequence[str]
    labels: np.ndarray  # int64, as the next
    predictions: np.ndarray
    confidences: np.ndarray  # of the predictions, 0 to 1, calibrated where the run has a temperature
    uncalibrated: np.ndarray  # those as trained
    log_likelihoods: np.ndarray | None  # log p of the right classes as trained; older runs have six decimals
    top_accuracy: float  # the right class is among the first five, in percent

    @property
    def epochs(self) -> int:
        """For how many it was to run."""
        return self.flags["epochs"]

    @property
    def correct(self) -> np.ndarray:
        """Which test images were classified rightly, bool."""
        return self.predictions == self.labels

    @property
    def confusion(self) -> Confusion:
        """Which classes were taken for which."""
        return Confusion.of(self.labels, self.predictions, len(self.classes))

    @property
    def balanced_accuracy(self) -> float:
        """The mean over the classes of their test accuracies, in percent."""
        return self.confusion.balanced_accuracy


@dataclass(frozen=True)
class Experiment:
    """The runs of one experiment by their seeds, which rise."""

    name: str
    runs: Mapping[int, Run]

    @property
    def epochs(self) -> int:
        """For how many the runs were to run."""
        return next(iter(self.runs.values())).epochs

    @property
    def noise_is_known(self) -> bool:
        """Whether any run has epochs enough to say how its speed varies."""
        return any(len(run.val_accuracies) > 1 for run in self.runs.values())

    @property
    def minutes(self) -> np.ndarray:
        """Those of the runs, on average: [3]."""
        return np.mean([run.minutes for run in self.runs.values()], axis=0)

    def of_images(self, figure: str, seeds: Sequence[int]) -> np.ndarray:
        """A figure of the test images, such as "correct", in the runs of these seeds: [S, n]."""
        return np.stack([getattr(self.runs[seed], figure) for seed in seeds])

    def mean(self, quantity: str) -> float:
        """The mean over seeds of a figure of the runs."""
        return float(np.mean([getattr(run, quantity) for run in self.runs.values()]))

    def deviation(self, quantity: str) -> float:
        """The standard deviation over seeds, NaN for one."""
        values = [getattr(run, quantity) for run in self.runs.values()]
        return float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")


# Of flags and a teacher's fingerprint.
Settings = Callable[[Mapping[str, Any], str | None], Mapping[str, Any]]


def find_runs(root: Path, settings: Settings) -> tuple[list[Run], list[str]]:
    """The finished runs under `root`, and in words what else was there and is left out.

    Raises `UserError` where nothing is finished.
    """
    runs, left_out = [], []
    for path in sorted(root.rglob("args.json")):
        name = path.parent.relative_to(root).as_posix()
        if not (path.parent / "result.json").exists():
            left_out.append(f"run {name} is not finished")
            continue
        try:
            runs.append(_read_run(path.parent, name, settings))
        except Exception:  # a stranger's files can be wrong in any way
            left_out.append(f"run {name} has files that are damaged, or of another version")
    if not runs:
        unfinished = f" ({'; '.join(left_out)})" if left_out else ""
        raise UserError(f"{root} holds no finished runs{unfinished}; name the --checkpoint_dir of some")
    return runs, left_out


def _read_run(folder: Path, name: str, settings: Settings) -> Run:
    about, result = read_json(folder / "args.json", About), read_json(folder / "result.json", Result)
    with open(folder / "log.csv", newline="", encoding="utf-8") as file:
        log = list(csv.DictReader(file))
    found = read_predictions(folder / "predictions.csv")
    with np.errstate(divide="ignore"):  # six decimals may be 0
        test = Evaluation(found.labels, np.log(found.probabilities))
    flags = about.flags
    kinds = {"seed": int, "epochs": int, "data_dir": str}
    if (
        not all(isinstance(flags[name], kind) for name, kind in kinds.items())
        or not 1 <= flags["epochs"] <= 10**6
    ):
        raise ValueError(flags)
    own = settings(flags, about.teacher)
    speeds = np.array([_finite(row["images_per_second"]) for row in log])
    images = (result.split_sizes or {}).get("train") or result.train_seconds * result.images_per_second / len(
        log
    )
    minutes = len(log) * images / np.quantile(speeds, (0.75, 0.5, 0.25)) / 60
    hash(tuple(own.values()))  # raises for what is no plain value
    return Run(
        folder=folder,
        name=name,
        experiment=re.sub(r"/seed\d+$", "", name),
        seed=flags["seed"],
        flags=flags,
        settings=own,
        val_accuracy=_finite(result.val_accuracy),
        test_accuracy=_finite(result.test_accuracy),
        minutes=(_finite(minutes[0]), _finite(minutes[1]), _finite(minutes[2])),
        images_per_second=float(np.median(speeds)),
        memory=max(_finite(row["peak_memory_mb"]) for row in log),
        precision=about.precision,
        device=about.device,
        val_accuracies=[_finite(row["val_accuracy"]) for row in log],
        paths=found.paths,
        classes=found.classes,
        labels=found.labels,
        predictions=found.predictions,
        confidences=test.confidences if found.confidences is None else found.confidences,
        uncalibrated=test.confidences,
        log_likelihoods=None if found.confidences is None else test.log_likelihoods,
        top_accuracy=test.top_accuracy,
    )


def _finite(value: Any) -> float:
    if not math.isfinite(float(value)):
        raise ValueError(value)
    return float(value)


def is_the_demos_own(run: Run) -> bool:
    """Whether it is no experiment, but what main.py --demo makes."""
    return run.experiment == DEMO and bool(run.flags.get("demo"))


def _tested_on(run: Run) -> list[tuple[str, str]]:
    """The test images with their classes."""
    return [(path, run.classes[label]) for path, label in zip(run.paths, run.labels, strict=True)]


def group(runs: Sequence[Run], baseline: str) -> tuple[dict[str, Experiment], list[str]]:
    """The experiments that can be compared with the baseline, and in words which runs are left out.

    Left out are runs with other flags than those of the same experiment, a seed's second run, and runs
    that were tested on other images than the baseline. Raises `UserError` for a baseline that is not there.
    """
    names = sorted({run.experiment for run in runs})
    if baseline not in names:
        raise UserError(f"--baseline {baseline}: there is no such experiment; there are {', '.join(names)}")
    reference = next(run for run in runs if run.experiment == baseline)
    found: dict[str, dict[int, Run]] = {}
    left_out = []
    for run in runs:
        others = found.setdefault(run.experiment, {})
        first = next(iter(others.values()), run)
        other_flags = sorted(key for key in run.settings if run.settings[key] != first.settings.get(key))
        if is_the_demos_own(run) and baseline != DEMO:
            left_out.append(f"run {run.name} is the demo's own")
        elif _tested_on(run) != _tested_on(reference):
            left_out.append(f"run {run.name} was tested on other images than {reference.name}")
        elif other_flags:
            left_out.append(f"run {run.name} has other flags than {first.name}: {', '.join(other_flags)}")
        elif run.seed in others:
            left_out.append(f"run {run.name} has the seed of {others[run.seed].name}")
        else:
            others[run.seed] = run
    grouped = {name: Experiment(name, dict(sorted(found[name].items()))) for name in names if found[name]}
    return grouped, left_out
