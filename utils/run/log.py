"""The record of a run: a line an epoch on the console and in log.csv, and TensorBoard events."""

import csv
import threading
from pathlib import Path

import torch
from torch.utils.tensorboard import SummaryWriter

from utils.run.files import replacing


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

    def images(self, pixels: torch.Tensor) -> None:
        """Show uint8 images [N, 3, H, W] as one grid."""
        self.board.add_images("augmented training images", pixels, 0)

    def interval(self, step: int, loss: float, learning_rate: float, images_per_second: float) -> None:
        """Note means over the steps since the last call; `step` counts those that are done."""
        self.board.add_scalar("loss/train", loss, step)
        self.board.add_scalar("learning_rate", learning_rate, step)
        self.board.add_scalar("images_per_second", images_per_second, step)

    def write(self, history: list[dict]) -> None:
        """Write log.csv: the rows of `history` under their keys."""
        with replacing(self.path, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, history[0])
            writer.writeheader()
            writer.writerows(history)

    def epoch(self, history: list[dict], step: int, improved: bool) -> None:
        """Note the last row of `history`, and say it in one line."""
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
        cells = self._cells(row)
        if not self._header_printed:
            print(" | ".join(cells))
            self._header_printed = True
        line = " | ".join(cell.rjust(len(title)) for title, cell in cells.items())
        print(line + ", best" * improved, flush=True)

    def _cells(self, row: dict) -> dict[str, str]:
        """What the console says of an epoch, by the titles of the columns."""
        balanced = ", balanced" if "val_balanced_accuracy" in row else ""
        cells = {
            "    epoch": f"{row['epoch']}/{self.epochs}",
            "learning rate": f"{row['learning_rate']:.3g}",
            "train loss, accuracy": _loss_and_accuracies(row, "train"),
            f"validation loss, accuracy{balanced}": _loss_and_accuracies(row, "val"),
        }
        if "ema_val_accuracy" in row:
            cells["average of weights"] = _loss_and_accuracies(row, "ema_val")
        return cells | {"time": f"{row['seconds']:.1f} s, {row['images_per_second']:.0f} images/s"}


def _loss_and_accuracies(row: dict, split: str) -> str:
    """What a row of the history says of a split, for the console."""
    names = (f"{split}_accuracy", f"{split}_balanced_accuracy")
    accuracies = [f"{row[name]:5.2f} %" for name in names if name in row]
    return ", ".join([f"{row[f'{split}_loss']:.4f}", *accuracies])
