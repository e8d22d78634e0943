"""A run of epochs: train, validate, record, save; interruptible at any step."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np
from torch import nn
from tqdm import tqdm

from learning.augment import one_view_each
from learning.evaluation import Evaluation
from learning.trainer import Totals, Trainer
from learning.watch import Watch
from utils.console import warn
from utils.data.batches import Batch
from utils.errors import Interrupted, RunFailed
from utils.run.device import peak_memory_mb
from utils.run.log import Log, NoLog
from utils.run.randomness import Draws

SECONDS_BETWEEN_SAVES = 600.0
IMAGES_SHOWN = 36


class Fit:
    """Trains for `epochs` epochs, validates after each, and keeps the record.

    `batches_from` gives the run's training batches from a step on; `validate` evaluates a network;
    `save` writes a state under a file name, atomically. "last.pt" is saved after every epoch, in long
    epochs every `seconds_between_saves`, and when a signal stops the run; "best.pt", with the network alone,
    whenever the validation accuracy exceeds all before it. If `balanced`, that is the balanced accuracy and,
    where that is equal, the plain one.

    With an average of the weights (the trainer's `ema`) both are validated, and "best.pt" has as its
    "network" whichever was better; `best["weights"]` says which. After `patience` epochs without a new
    best the run ends early. `agree` is told after each step whether it is time to save, and says whether all
    processes of the run do it now; it may raise `Interrupted` in all of them.
    """

    def __init__(
        self,
        trainer: Trainer,
        batches_from: Callable[[int], Iterator[Batch]],
        validate: Callable[[nn.Module], Evaluation],
        save: Callable[[str, dict], None],
        log: Log,
        watch: Watch,
        *,
        epochs: int,
        steps_per_epoch: int,
        log_interval: int,
        patience: int | None = None,
        balanced: bool = False,
        seconds_between_saves: float = SECONDS_BETWEEN_SAVES,
        agree: Callable[[bool], bool] = bool,
    ):
        self.trainer = trainer
        self.batches_from = batches_from
        self.validate = validate
        self.save = save
        self.log = log
        self.watch = watch
        self.epochs = epochs
        self.steps_per_epoch = steps_per_epoch
        self.log_interval = log_interval
        self.patience = patience
        self.accuracies = ("accuracy", "balanced_accuracy") if balanced else ("accuracy",)
        self.seconds_between_saves = seconds_between_saves
        self.agree = agree
        self.history: list[dict] = []
        self.best: dict | None = None

    def state_dict(self) -> dict:
        """The trainer's state, the rows of the epochs that are done, and which of them was the best."""
        said = sorted(self.watch.said)
        return {**self.trainer.state_dict(), **self._place(), "history": self.history, "said": said}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`, which may be from the middle of an epoch."""
        self.trainer.load_state_dict(state)
        self.history = state["history"]
        self.best = state["best"]
        self.watch.said.update(state["said"])

    def _place(self) -> dict:
        return {"epoch": len(self.history), "step": self.trainer.step, "best": self.best}

    @property
    def out_of_patience(self) -> bool:
        """Whether the last `patience` epochs brought nothing."""
        if self.patience is None or self.best is None:
            return False
        return len(self.history) - self.best["epoch"] >= self.patience

    def run(self) -> None:
        """Do what is left of the run. Raises `Interrupted`, after saving, or `RunFailed`."""
        if self.history:
            self.log.write(self.history)  # a kill may have come between the checkpoint and the log
        batches = self.batches_from(self.trainer.step)
        self._began = time.perf_counter(), self.trainer.step
        try:
            while len(self.history) < self.epochs and not self.out_of_patience:
                self._train_to_end_of_epoch(batches)
                self._finish_epoch()
        except Interrupted:
            self.save("last.pt", self.state_dict())
            raise

    def _train_to_end_of_epoch(self, batches: Iterator[Batch]) -> None:
        trainer, totals = self.trainer, self.trainer.totals
        end = (len(self.history) + 1) * self.steps_per_epoch
        left = end - trainer.step
        bar = tqdm(
            islice(batches, left),
            desc=f"epoch {len(self.history) + 1}/{self.epochs}",
            total=self.steps_per_epoch,
            initial=self.steps_per_epoch - left,
            unit="step",
            dynamic_ncols=True,
            leave=False,
            disable=True if isinstance(self.log, NoLog) else None,  # where the output is not a terminal
        )
        totals.start_clock()
        last_save = time.perf_counter()
        self._speeds: list[tuple[float, int]] = []  # of each reading, with its images
        for batch in bar:
            if trainer.step == 0:
                images, labels, aspects = (part[:IMAGES_SHOWN] for part in batch)
                augmented = one_view_each(trainer.augment(images, Draws(trainer.seed, 0), aspects))
                each = labels.repeat_interleave(len(augmented) // len(labels))
                self.log.images(augmented, [self.watch.classes[label] for label in each.tolist()])
            trainer.train_step(*batch)
            if trainer.step % self.log_interval == 0:
                recent = self._read()
                bar.set_postfix(loss=f"{recent.loss / recent.images:.3f}", refresh=False)
                self.log.interval(
                    trainer.step,
                    recent.loss / recent.images,
                    trainer.learning_rate,
                    recent.images / recent.seconds,
                    float(trainer.gradient_norm),
                )
            due = time.perf_counter() - last_save > self.seconds_between_saves
            if self.agree(due) and trainer.step < end:
                self.save("last.pt", self.state_dict())
                totals.start_clock()
                last_save = time.perf_counter()
        self._read()

    def _read(self) -> Totals:
        """The totals since the last reading, whose speed is noted."""
        recent = self.trainer.totals.collect()
        if recent.images:
            self._speeds.append((recent.images / recent.seconds, recent.images))
        return recent

    def _usual_speed(self, totals: Totals) -> float:
        """The median over the images of the speed that they were read at: a moment's load does not count."""
        if not self._speeds:
            return totals.images / totals.seconds
        speeds, images = np.array(sorted(self._speeds)).T
        return float(speeds[np.searchsorted(images.cumsum(), images.sum() / 2)])

    def _finish_epoch(self) -> None:
        totals = self.trainer.totals
        row = {
            "epoch": len(self.history) + 1,
            "learning_rate": self.trainer.learning_rate,
            "train_loss": totals.loss / totals.images,
            "train_accuracy": 100 * totals.hits / totals.images,
        }
        ema = self.trainer.ema
        networks = {"": self.trainer.network} | ({} if ema is None else {"ema_": ema.network})
        for prefix, network in networks.items():
            validation = self.validate(network)
            if not math.isfinite(validation.loss):  # the last step of the epoch may have spoilt the weights
                raise RunFailed(
                    f"the validation loss of epoch {row['epoch']} is {validation.loss}: try a smaller "
                    "--learning_rate, a warm-up, or fp32"
                )
            if not prefix:
                confusion = validation.confusion
            for figure in ("loss", *self.accuracies):
                row[f"{prefix}val_{figure}"] = getattr(validation, figure)
        row |= {
            "seconds": totals.seconds,
            "images_per_second": self._usual_speed(totals),
            "peak_memory_mb": peak_memory_mb(self.trainer.device),
        }
        self.history.append(row)
        self.trainer.totals = self.trainer.no_totals()

        better = max(networks, key=lambda prefix: self._rank(row, prefix))  # raw, where they are equal
        improved = self.best is None or self._rank(row, better) > self._rank(self.best)
        if improved:
            self.best = {
                "epoch": row["epoch"],
                **{f"val_{accuracy}": row[f"{better}val_{accuracy}"] for accuracy in self.accuracies},
                "weights": "ema" if better else "raw",
            }
            self.save("best.pt", {**self._place(), "network": networks[better].state_dict()})
        warnings = list(self.watch.warnings(self.history, confusion))
        self.save("last.pt", self.state_dict())
        self.log.epoch(self.history, self.trainer.step, better if improved else None, self._seconds_left())
        for words in warnings:
            warn(words)

    def _seconds_left(self) -> float:
        """How long the rest of the run takes at the speed so far, validation included."""
        began, first_step = self._began
        steps, seconds = self.trainer.step - first_step, time.perf_counter() - began
        if not steps:  # it goes on from the end of an epoch, which was trained before
            steps, seconds = self.steps_per_epoch, self.history[-1]["seconds"]
        return seconds / steps * (self.epochs * self.steps_per_epoch - self.trainer.step)

    def _rank(self, figures: dict, prefix: str = "") -> tuple[float, ...]:
        """What the best has most of: balanced accuracy, where that counts, and then plain accuracy."""
        return tuple(figures[f"{prefix}val_{accuracy}"] for accuracy in reversed(self.accuracies))
