"""utils/run/log.py."""

import csv

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

from utils.run.log import RunLog
from utils.run.records import Result

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
            log.interval(3 * epoch - 1, 1.0, 0.1, 100.0, 2.5)
            log.epoch([ROW | {"epoch": epoch}], 3 * epoch, None, 60.0)
    with RunLog(tmp_path, 3, first_step=6) as log:  # the checkpoint is of step 6
        log.interval(8, 0.5, 0.1, 100.0, 2.5)
    assert steps(tmp_path, "accuracy/validation") == [3, 6]
    assert steps(tmp_path, "loss/train") == steps(tmp_path, "gradient_norm") == [2, 5, 8]


def lines_of(tmp_path, capsys, *rows, better=None, epochs=20, first=1):
    with RunLog(tmp_path, epochs) as log:
        for number, row in enumerate(rows, first):
            log.epoch([ROW | row | {"epoch": number}], number, better, 5430.0)
    return capsys.readouterr().out.splitlines()


def test_the_console_has_a_line_an_epoch_under_its_titles(tmp_path, capsys):
    _, titles, first, second = lines_of(tmp_path, capsys, {}, {"train_loss": 12345.6}, better="")
    assert titles.split() == ["epoch", "rate", "loss", "acc.%", "loss", "acc.%", "img/s", "left"]
    assert first.split() == ["1/20", "0.012", "2.0000", "40.00", "1.5000", "50.00*", "100", "1.5", "h"]
    assert second.split()[2] == "12345."
    assert len(titles) == len(first) == len(second)


EVERYTHING = {
    "val_accuracy": 100.0,
    "train_accuracy": 100.0,
    "val_balanced_accuracy": 100.0,
    "ema_val_loss": 1.25,
    "ema_val_accuracy": 100.0,
    "ema_val_balanced_accuracy": 100.0,
    "learning_rate": 1.234e-05,
    "images_per_second": 99999.0,
}


@pytest.mark.parametrize("epochs", [120, 99999])
def test_no_line_of_an_epoch_is_wider_than_a_terminal(tmp_path, capsys, epochs):
    lines = lines_of(
        tmp_path,
        capsys,
        EVERYTHING,
        {**EVERYTHING, "val_loss": 1e30},
        better="ema_",
        epochs=epochs,
        first=epochs - 1,
    )
    assert max(map(len, lines)) <= 79


def test_the_lines_of_a_run_name_all_epochs_or_none_does(tmp_path, capsys):
    """A reader, or a test, that waits for "/2000 " must not see it until the tenth epoch only."""
    for epochs, shown in ((999, "1/999"), (2000, "1")):
        *_, line = lines_of(tmp_path, capsys, {}, epochs=epochs)
        assert line.split()[0] == shown


def test_the_best_is_marked_where_it_is_the_best(tmp_path, capsys):
    *_, line = lines_of(tmp_path, capsys, EVERYTHING | {"ema_val_balanced_accuracy": 77.0}, better="ema_")
    assert [cell for cell in line.split() if cell.endswith("*")] == ["77.00*"]
    *_, line = lines_of(tmp_path, capsys, EVERYTHING | {"val_balanced_accuracy": 66.0}, better="")
    assert [cell for cell in line.split() if cell.endswith("*")] == ["66.00*"]
    *_, line = lines_of(tmp_path, capsys, EVERYTHING)
    assert "*" not in line


def test_the_average_of_weights_has_a_column_of_its_own(tmp_path, capsys):
    _, titles, line = lines_of(tmp_path, capsys, {"ema_val_loss": 1.25, "ema_val_accuracy": 55.0})
    assert "average" in titles
    assert "55.00" in line
    (row,) = csv.DictReader((tmp_path / "log.csv").open())
    assert float(row["ema_val_accuracy"]) == 55
    assert steps(tmp_path, "accuracy/validation_ema") == [1]


def test_augmented_images_are_shown_as_one_grid_with_their_labels(tmp_path):
    with RunLog(tmp_path, 2) as log:
        log.images(torch.zeros(4, 3, 8, 8, dtype=torch.uint8), ["a", "b", "$c", "d\n"])
    assert EventAccumulator(str(tmp_path)).Reload().Tags()["images"]


def test_tensorboard_has_flags_with_final_figures_and_charts_of_both_splits(tmp_path):
    with RunLog(tmp_path, 2) as log:
        log.epoch([ROW], 1, "", 0.0)
        flags = {"model": "ResNet18", "mixup": 0.2, "milestones": [1.0, 2.0], "ema": None}
        result = Result(
            val_accuracy=90.0, test_accuracy=88.5, train_seconds=1.0, images_per_second=1.0, best_epoch=1
        )
        log.result(flags, result)
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [event.value for event in events.Scalars("accuracy/best_test")] == [88.5]
    plugins = events.summary_metadata
    start = flags_of(plugins["_hparams_/session_start_info"])
    assert start["mixup"] == 0.2
    assert start["milestones"] == "[1.0, 2.0]"
    assert "custom_scalars__config__" in events.Tags()["tensors"]


def flags_of(metadata):
    data = plugin_data_pb2.HParamsPluginData.FromString(metadata.plugin_data.content)
    found = data.session_start_info.hparams
    return {name: value.number_value or value.string_value for name, value in found.items()}
