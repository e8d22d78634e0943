"""The record of a run: a line an epoch on the console and in log.csv, and TensorBoard events."""

import csv
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from utils.console import show
from utils.run import pictures
from utils.run.files import replacing
from utils.run.records import Result
from utils.text import duration

# Training and validation in one chart, under "Custom scalars".
CHARTS = {
    "training and validation": {
        quantity: ["Multiline", [f"{quantity}/{each}" for each in ("train", "validation", "validation_ema")]]
        for quantity in ("loss", "accuracy")
    }
}


class NoLog:
    """The record that no process keeps but the first."""

    def __enter__(self) -> "NoLog":
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def _nothing(self, *of_it: object) -> None:
        pass

    images = interval = result = write = epoch = _nothing


class RunLog:
    """Writes the record into `folder`; a resumed run passes the step it goes on from.

    log.csv is written anew from the whole history each time, so it never holds an epoch twice or one
    that the checkpoint does not know; TensorBoard is told to forget what lies after `first_step`.
    """

    def __init__(self, folder: Path, epochs: int, first_step: int | None = None):
        self.path = folder / "log.csv"
        self.epochs = epochs
        self._header_printed = False
        self.purge_step = None if first_step is None else first_step + 1

    def __enter__(self) -> "RunLog":
        # TensorBoard writes in a thread, whose errors it raises here at the next call: once is enough.
        self._excepthook, threading.excepthook = threading.excepthook, self._leave_to_the_next_call
        try:
            self.board = SummaryWriter(str(self.path.parent), purge_step=self.purge_step)
            self.board.add_custom_scalars(CHARTS)
        except BaseException:
            threading.excepthook = self._excepthook
            raise
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        try:
            self.board.close()
        except OSError:
            if error is None:
                raise
        finally:
            threading.excepthook = self._excepthook

    def _leave_to_the_next_call(self, failure: threading.ExceptHookArgs) -> None:
        if not isinstance(failure.exc_value, OSError):
            self._excepthook(failure)

    def images(self, pixels: torch.Tensor, labels: Sequence[str]) -> None:
        """Show uint8 images [N, 3, H, W] as one grid, under their labels."""
        grid = pictures.labelled_images(pixels.permute(0, 2, 3, 1).cpu().numpy(), labels)
        self.board.add_image("augmented training images", grid, 0, dataformats="HWC")

    def interval(
        self, step: int, loss: float, learning_rate: float, images_per_second: float, gradient_norm: float
    ) -> None:
        """Note means over the steps since the last call; `step` counts those that are done.

        The gradient's norm is that of the last step.
        """
        self.board.add_scalar("loss/train", loss, step)
        self.board.add_scalar("learning_rate", learning_rate, step)
        self.board.add_scalar("images_per_second", images_per_second, step)
        self.board.add_scalar("gradient_norm", gradient_norm, step)

    def result(self, flags: Mapping[str, Any], result: Result) -> None:
        """Note what the run came to, beside its flags."""
        figures = {"validation": result.val_accuracy, "test": result.test_accuracy}
        metrics = {f"accuracy/best_{split}": accuracy for split, accuracy in figures.items()}
        plain = {
            name: value if isinstance(value, (bool, int, float, str)) else str(value)
            for name, value in flags.items()
        }
        for summary in hparams(plain, metrics):
            self.board._get_file_writer().add_summary(summary)
        for name, value in metrics.items():
            self.board.add_scalar(name, value, result.best_epoch)
        self.board.flush()

    def write(self, history: list[dict]) -> None:
        """Write log.csv: the rows of `history` under their keys."""
        with replacing(self.path, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, history[0])
            writer.writeheader()
            writer.writerows(history)

    def epoch(self, history: list[dict], step: int, better: str | None, seconds_left: float) -> None:
        """Note the last row of `history`, and say it in one line.

        `better` is the prefix of the weights that are the best so far ("" or "ema_"), None if none are.
        """
        row = history[-1]
        self.write(history)
        self.board.add_scalar("accuracy/train", row["train_accuracy"], step)
        self.board.add_scalar("accuracy/validation", row["val_accuracy"], step)
        self.board.add_scalar("loss/validation", row["val_loss"], step)
        if "val_balanced_accuracy" in row:
            self.board.add_scalar("balanced_accuracy/validation", row["val_balanced_accuracy"], step)
        if "ema_val_accuracy" in row:
            self.board.add_scalar("accuracy/validation_ema", row["ema_val_accuracy"], step)
            self.board.add_scalar("loss/validation_ema", row["ema_val_loss"], step)
        self.board.flush()
        cells = self._cells(row, better, seconds_left)
        if not self._header_printed:
            show(" ".join(group.ljust(width) for group, _, width, _ in cells).rstrip())
            show(" ".join(title.rjust(width) for _, title, width, _ in cells))
            self._header_printed = True
        show(" ".join(value.rjust(width) for _, _, width, value in cells))

    def _cells(self, row: dict, better: str | None, seconds_left: float) -> list[tuple[str, str, int, str]]:
        """What the console says of an epoch: titles in two lines, widths of 77 in all, and values."""
        balanced = "val_balanced_accuracy" in row
        ranked = "val_balanced_accuracy" if balanced else "val_accuracy"

        def percent(name: str) -> str:
            best = better is not None and name == f"{better}{ranked}"
            return f"{row[name]:.2f}{'*' if best else ' '}"

        # Seven characters have room for 999/999; of more epochs no line names the last, rather than some.
        number = f"{row['epoch']}/{self.epochs}" if self.epochs < 1000 else str(row["epoch"])
        cells = [
            ("", "epoch", 7, number),
            ("", "rate", 7, f"{row['learning_rate']:.2g}"),
            ("train", "loss", 6, _six(row["train_loss"])),
            ("", "acc.%", 6, f"{row['train_accuracy']:.2f}"),
            ("valid.", "loss", 6, _six(row["val_loss"])),
            ("", "acc.% ", 7, percent("val_accuracy")),
        ]
        if balanced:
            cells.append(("", "balanced", 8, percent("val_balanced_accuracy")))
        if "ema_val_accuracy" in row:
            cells.append(("", "average ", 8, percent(f"ema_{ranked}")))
        cells.append(("", "img/s", 6, f"{row['images_per_second']:.0f}"))
        return [*cells, ("* best", "left", 7, duration(seconds_left))]


def _six(loss: float) -> str:
    """A loss in six characters."""
    return f"{loss:.4f}"[:6] if loss < 1e5 else f"{loss:.0e}"


Log = RunLog | NoLog
