"""utils/run/log.py."""

import csv

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from utils.run.log import RunLog

ROW = {
    "epoch": 1,
    "learning_rate": 0.0123456,
    "train_loss": 2.0,
    "train_accuracy": 40.0,
    "val_loss": 1.5,
    "val_accuracy": 50.0,
    "seconds": 2.5,
    "images_per_second": 100.4,
    "peak_memory_mb": 1.0,
}


def steps(folder, tag):
    events = EventAccumulator(str(folder)).Reload()
    return [event.step for event in events.Scalars(tag)]


def test_a_resumed_log_keeps_the_events_up_to_its_checkpoint_and_forgets_later_ones(tmp_path):
    with RunLog(tmp_path, 3) as log:
        for epoch in (1, 2, 3):
            log.interval(3 * epoch - 1, 1.0, 0.1, 100.0)
            log.epoch([ROW | {"epoch": epoch}], 3 * epoch, improved=False)
    with RunLog(tmp_path, 3, first_step=6) as log:  # the checkpoint is of step 6
        log.interval(8, 0.5, 0.1, 100.0)
    assert steps(tmp_path, "accuracy/validation") == [3, 6]
    assert steps(tmp_path, "loss/train") == [2, 5, 8]


def test_the_console_has_a_line_an_epoch_under_its_titles(tmp_path, capsys):
    with RunLog(tmp_path, 20) as log:
        log.epoch([ROW], 1, improved=True)
        log.epoch([ROW, ROW | {"epoch": 2}], 2, improved=False)
    title, first, second = capsys.readouterr().out.splitlines()
    assert [cell.strip() for cell in title.split("|")] == [
        *("epoch", "learning rate", "train loss, accuracy", "validation loss, accuracy", "time"),
    ]
    assert [cell.strip() for cell in first.split("|")] == [
        *("1/20", "0.0123", "2.0000, 40.00 %", "1.5000, 50.00 %", "2.5 s, 100 images/s, best"),
    ]
    assert [line.rfind("|") for line in (first, second)] == [title.rfind("|")] * 2
    assert not second.endswith("best")


def test_the_average_of_weights_has_a_column_of_its_own(tmp_path, capsys):
    with RunLog(tmp_path, 2) as log:
        log.epoch([ROW | {"ema_val_loss": 1.25, "ema_val_accuracy": 55.0}], 1, improved=True)
    title, line = capsys.readouterr().out.splitlines()
    assert "average of weights" in title
    assert "1.2500, 55.00 %" in line
    (row,) = csv.DictReader((tmp_path / "log.csv").open())
    assert float(row["ema_val_accuracy"]) == 55
    assert steps(tmp_path, "accuracy/validation_ema") == [1]


def test_augmented_images_are_shown_as_one_grid(tmp_path):
    with RunLog(tmp_path, 2) as log:
        log.images(torch.zeros(4, 3, 8, 8, dtype=torch.uint8))
    assert EventAccumulator(str(tmp_path)).Reload().Tags()["images"]
