"""learning/fit.py: epochs, the record, saving, and going on from any step."""

import copy
import signal
from itertools import pairwise

import numpy as np
import pytest
import torch

from learning.evaluation import Evaluation
from learning.evaluator import evaluate
from learning.fit import Fit
from learning.watch import Watch
from tests.test_trainer import CPU, NORMALISE, assert_same, make_trainer, random_batch
from utils.data.batches import Loader, in_order, steps_per_epoch, training_order
from utils.data.images import StoredImages
from utils.errors import Interrupted, RunFailed
from utils.run.log import RunLog

EPOCHS, BATCH, COUNT = 3, 8, 30
STEPS = steps_per_epoch(COUNT, BATCH)


class Recorder:
    """Stands for the files and the log of a run."""

    def __init__(self):
        self.states = {}
        self.saves = []
        self.rows = []
        self.intervals = []
        self.shown = []

    def save(self, name, state):
        self.states[name] = copy.deepcopy(state)
        self.saves.append((name, self.states[name]))

    def write(self, history):
        self.written = list(history)

    def epoch(self, history, step, better, seconds_left):
        self.rows.append((history[-1], step, better is not None))
        assert seconds_left >= 0

    def interval(self, step, *values):
        self.intervals.append((step, *values))

    def images(self, pixels, labels):
        self.shown.append(pixels)


def sure_of(predictions, labels):
    """An evaluation with these predictions of two classes."""
    return Evaluation(labels, np.log(np.array([[0.99, 0.01], [0.01, 0.99]]))[predictions])


def make_fit(recorder, check=lambda: None, accuracies=None, trainer=None, **settings):
    images, labels = random_batch(COUNT)
    loader = Loader(StoredImages(images.permute(0, 2, 3, 1).numpy()), labels.numpy(), CPU, check)
    trainer = make_trainer(optimizer="ADAM", **(trainer or {}))
    scripted = iter(accuracies or ())

    def validate(network):
        if accuracies:
            hits = next(scripted)
            return sure_of(np.array([0] * hits + [1] * (100 - hits)), np.zeros(100, int))
        return evaluate(network, loader(in_order(np.arange(10), 4)), [NORMALISE], "fp32")

    return Fit(
        trainer,
        lambda step: loader(training_order(np.arange(COUNT), BATCH, 7, step, EPOCHS * STEPS)),
        validate,
        recorder.save,
        recorder,
        Watch(EPOCHS, "abcdefghij"),
        **{"epochs": EPOCHS, "steps_per_epoch": STEPS, "log_interval": 3} | settings,
    )


def test_a_run_trains_validates_and_records_each_epoch():
    recorder = Recorder()
    fit = make_fit(recorder)
    fit.run()
    assert fit.trainer.step == EPOCHS * STEPS
    assert [row["epoch"] for row, _, _ in recorder.rows] == [1, 2, 3]
    assert [step for _, step, _ in recorder.rows] == [STEPS, 2 * STEPS, 3 * STEPS]
    assert [step for step, *_ in recorder.intervals] == [3, 6, 9, 12]
    assert len(recorder.shown) == 1
    for row, _, _ in recorder.rows:
        assert row["images_per_second"] > 0
        assert 0 < row["train_loss"] < 5
    assert recorder.states["last.pt"]["epoch"] == EPOCHS


RARE = np.array([0] * 90 + [1] * 10)


def evaluation(right_of_many, right_of_few):
    """Of 90 images of one class and 10 of another."""
    right = np.concatenate([np.arange(90) < right_of_many, np.arange(10) < right_of_few])
    return sure_of(np.where(right, RARE, 1 - RARE), RARE)


@pytest.mark.parametrize(("balanced", "best"), [(False, 1), (True, 2)])
def test_with_class_weights_the_balanced_accuracy_chooses(balanced, best):
    recorder = Recorder()
    fit = make_fit(recorder, balanced=balanced)
    epochs = [evaluation(90, 0), evaluation(75, 8), evaluation(85, 3)]
    scripted = iter(epochs)
    fit.validate = lambda network: next(scripted)
    fit.run()
    assert fit.best["epoch"] == recorder.states["best.pt"]["epoch"] == best
    assert fit.best["val_accuracy"] == epochs[best - 1].accuracy
    for (row, _, improved), epoch in zip(recorder.rows, epochs, strict=True):
        assert row["val_accuracy"] == epoch.accuracy
        assert row.get("val_balanced_accuracy") == (epoch.balanced_accuracy if balanced else None)
        assert improved == (row["epoch"] == 1 or row["epoch"] == best)
    assert [epoch.balanced_accuracy for epoch in epochs[:2]] == [50, pytest.approx(100 * (75 / 90 + 0.8) / 2)]


def test_it_goes_on_from_any_step_to_the_same_end():
    straight = Recorder()
    make_fit(straight, seconds_between_saves=0).run()
    states = [state for name, state in straight.saves if name == "last.pt"]
    assert sorted({state["step"] for state in states}) == list(range(1, EPOCHS * STEPS + 1))
    for state in states:
        again = Recorder()
        fit = make_fit(again)
        fit.load_state_dict(copy.deepcopy(state))
        fit.run()
        if state["epoch"] < EPOCHS:
            assert_same(again.states["last.pt"], straight.states["last.pt"])
        assert_same(fit.state_dict(), straight.states["last.pt"])
        if "best.pt" in again.states:
            assert_same(again.states["best.pt"], straight.states["best.pt"])


@pytest.mark.parametrize("batches_before", range(1, 24))
def test_a_signal_saves_a_state_to_go_on_from(batches_before):
    """Batches of training and of validation alike: the run stops before the next one."""
    straight, stopped, again = Recorder(), Recorder(), Recorder()
    make_fit(straight).run()
    count = 0

    def check():
        nonlocal count
        count += 1
        if count > batches_before:
            raise Interrupted(signal.SIGTERM)

    fit = make_fit(stopped, check)
    if batches_before >= EPOCHS * (STEPS + 3):
        fit.run()
        return
    with pytest.raises(Interrupted):
        fit.run()
    resumed = make_fit(again)
    resumed.load_state_dict(stopped.states["last.pt"])
    resumed.run()
    assert_same(again.states["last.pt"], straight.states["last.pt"])


def test_what_was_said_is_not_said_again_by_who_goes_on(capsys):
    recorder = Recorder()
    make_fit(recorder, accuracies=[0, 0, 0]).run()
    assert capsys.readouterr().out.count("epoch 2: no validation image is taken for a;") == 1
    second = [state for name, state in recorder.saves if name == "last.pt"][1]
    assert second["epoch"] == 2
    again = make_fit(Recorder(), accuracies=[0])
    again.load_state_dict(second)
    again.run()
    assert "is taken for a" not in capsys.readouterr().out


def test_best_is_the_first_of_the_highest_validation_accuracies():
    recorder = Recorder()
    make_fit(recorder, accuracies=[40, 60, 60]).run()
    assert [improved for _, _, improved in recorder.rows] == [True, True, False]
    assert recorder.states["best.pt"]["epoch"] == 2
    assert recorder.states["last.pt"]["best"] == {"epoch": 2, "val_accuracy": 60.0, "weights": "raw"}


def test_the_better_of_weights_and_average_is_kept():
    recorder = Recorder()
    # Raw and average of each epoch; equal ones mean raw.
    fit = make_fit(recorder, accuracies=[40, 40, 50, 60, 59, 58], trainer={"ema_decay": 0.9})
    fit.run()
    (first, after_first), (second, after_second) = (
        (state, after) for (name, state), (_, after) in pairwise(recorder.saves) if name == "best.pt"
    )
    assert first["best"] == {"epoch": 1, "val_accuracy": 40.0, "weights": "raw"}
    assert second["best"] == {"epoch": 2, "val_accuracy": 60.0, "weights": "ema"}
    assert_same(second["network"], after_second["ema"])
    assert_same(first["network"], after_first["network"])
    with pytest.raises(AssertionError):
        assert_same(first["network"], after_first["ema"])
    assert [row["ema_val_accuracy"] for row, _, _ in recorder.rows] == pytest.approx([40, 60, 58])


def test_a_run_stops_when_it_is_out_of_patience():
    recorder = Recorder()
    fit = make_fit(recorder, accuracies=[40, 30, 40, 99], patience=2, epochs=9)
    fit.run()
    assert len(recorder.rows) == 3  # epoch 1 was the best, 2 and 3 brought nothing
    resumed = make_fit(Recorder(), accuracies=[99], patience=2, epochs=9)
    resumed.load_state_dict(copy.deepcopy(fit.state_dict()))
    resumed.run()
    assert len(resumed.history) == 3


def test_every_epoch_is_saved_when_it_ends():
    recorder = Recorder()
    make_fit(recorder, accuracies=[40, 30, 20]).run()
    assert [(name, state["epoch"]) for name, state in recorder.saves] == [
        ("best.pt", 1),
        ("last.pt", 1),
        ("last.pt", 2),
        ("last.pt", 3),
    ]


def test_a_run_that_fails_keeps_the_state_from_before():
    recorder = Recorder()
    fit = make_fit(recorder)
    criterion = fit.trainer.criterion

    def spoilt(*args):
        losses, logits = criterion(*args)
        return losses * (torch.nan if fit.trainer.step == 5 else 1), logits

    fit.trainer.criterion = spoilt
    with pytest.raises(RunFailed, match="step 5"):
        fit.run()
    assert recorder.states["last.pt"]["step"] == STEPS
    assert all(value.isfinite().all() for value in recorder.states["last.pt"]["network"].values())


def test_the_validation_loss_is_plain_whatever_the_training_loss(tmp_path):
    losses = []
    for factor in (1, 2):
        fit = make_fit(Recorder())
        fit.trainer.optimizer.param_groups[0]["lr"] = fit.trainer.base_lrs[0] = 0.0

        def criterion(network, inputs, targets, factor=factor):
            logits = network(inputs)
            return factor * logits.square().mean(1), logits

        fit.trainer.criterion = criterion
        fit.run()
        losses.append([(row["train_loss"], row["val_loss"]) for row in fit.history])
    for (train, val), (train_doubled, val_same) in zip(*losses, strict=True):
        assert train_doubled == pytest.approx(2 * train)
        assert val_same == val


def test_log_csv_is_the_history(tmp_path, capsys):
    recorder = Recorder()
    fit = make_fit(recorder)
    with RunLog(tmp_path, EPOCHS) as fit.log:
        fit.run()
    lines = (tmp_path / "log.csv").read_text().splitlines()
    assert lines[0] == (
        "epoch,learning_rate,train_loss,train_accuracy,val_loss,val_accuracy,"
        "seconds,images_per_second,peak_memory_mb"
    )
    assert [float(value) for value in lines[3].split(",")] == list(fit.history[2].values())
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in printed] == ["train", "epoch", "1/3", "2/3", "warning", "3/3"]


def test_weights_that_are_spoilt_by_the_last_step_fail_the_run():
    recorder = Recorder()
    fit = make_fit(recorder)
    validate = fit.validate

    def spoil(network):
        if fit.trainer.step == 2 * STEPS:
            torch.nn.init.constant_(network[0].weight, float("nan"))
        return validate(network)

    fit.validate = spoil
    with pytest.raises(RunFailed, match="validation loss of epoch 2 is nan"):
        fit.run()
    assert [name for name, _ in recorder.saves] == ["best.pt", "last.pt"]
    assert recorder.states["last.pt"]["epoch"] == 1


def test_a_resumed_run_writes_the_rows_it_already_has():
    recorder = Recorder()
    fit = make_fit(recorder)
    fit.run()
    again = Recorder()
    resumed = make_fit(again)
    resumed.load_state_dict(copy.deepcopy(fit.state_dict()))
    resumed.run()
    assert [row["epoch"] for row in again.written] == [1, 2, 3]


def test_of_equal_balanced_accuracies_the_better_plain_one_is_kept():
    """As of epochs that take every image for the rare class, and later for the frequent one."""
    recorder = Recorder()
    fit = make_fit(recorder, balanced=True)
    labels = np.repeat([0, 1], [96, 4])
    takes_all_for = iter([1, 0, 1])
    fit.validate = lambda network: sure_of(np.full(100, next(takes_all_for)), labels)
    fit.run()
    assert fit.best == {"epoch": 2, "val_accuracy": 96, "val_balanced_accuracy": 50, "weights": "raw"}
