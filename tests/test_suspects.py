"""learning/confident.py and suspects.py: labels that a network contradicts."""

import csv
import re
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from learning.confident import suspects
from tests.conftest import SMALL, write_images
from tests.disturbed import wait_for
from utils.data.folders import Splitting, find_dataset, folds
from utils.data.split import stratified_folds
from utils.run.checkpoint import read_checkpoint, save_checkpoint


def as_the_paper_says(labels, probabilities):
    """Equations 1 to 3 of arXiv 1911.00068 and its "prune by noise rate", one image after the other."""
    count, classes = probabilities.shape
    of_label = {i: [n for n in range(count) if labels[n] == i] for i in range(classes)}
    thresholds = {j: sum(probabilities[n, j] for n in own) / len(own) for j, own in of_label.items() if own}
    joint = {(i, j): 0 for i in range(classes) for j in range(classes)}
    for n in range(count):
        reached = [j for j, threshold in thresholds.items() if probabilities[n, j] >= threshold]
        if reached:
            joint[labels[n], max(reached, key=lambda j: probabilities[n, j])] += 1
    found = set()
    for (i, j), number in joint.items():
        in_row = sum(joint[i, k] for k in range(classes))
        if i != j and in_row:
            leads = sorted(
                ((probabilities[n, j] - probabilities[n, i], n) for n in of_label[i]), reverse=True
            )
            found |= {n for lead, n in leads[: round(len(of_label[i]) * number / in_row)] if lead > 0}
    margins = {}
    for n in found:
        other = max((k for k in range(classes) if k != labels[n]), key=lambda k: probabilities[n, k])
        margins[n] = (probabilities[n, labels[n]] - probabilities[n, other], n, other)
    return sorted(margins.values())


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("sure", [0, 1, 2])
def test_suspects_are_those_of_the_paper(classes, sure):
    rng = np.random.default_rng(classes)
    labels = rng.integers(0, classes, 300)
    logits = rng.normal(0, 1.5, (300, classes))
    logits[np.arange(300), labels] += sure
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    found = suspects(labels, probabilities)
    expected = as_the_paper_says(labels, probabilities)
    assert len(expected) > 5
    assert found.numbers.tolist() == [number for _, number, _ in expected]
    assert found.taken_for.tolist() == [other for _, _, other in expected]
    np.testing.assert_allclose(found.margins, [margin for margin, _, _ in expected])


def test_sure_labels_are_no_suspects_nor_is_a_class_without_images_in_the_way():
    assert suspects(np.array([0, 0, 1]), np.eye(3)[[0, 0, 1]]).numbers.tolist() == []
    found = suspects(np.array([0, 0, 0, 1, 1, 1]), np.eye(3)[[0, 0, 1, 1, 1, 1]])
    assert (found.numbers.tolist(), found.taken_for.tolist(), found.margins.tolist()) == ([2], [1], [-1])


@pytest.mark.parametrize("grouped", [False, True])
def test_each_image_is_held_out_once_and_classes_and_groups_stay(grouped):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 203)
    groups = np.unique(rng.integers(0, 60, 203), return_inverse=True)[1] if grouped else None
    found = stratified_folds(labels, 5, np.random.default_rng(0), groups)
    again, other = (stratified_folds(labels, 5, np.random.default_rng(seed), groups) for seed in (0, 1))
    assert np.array_equal(found, again)
    assert not np.array_equal(found, other)
    counts = np.array([np.bincount(labels[found == fold], minlength=4) for fold in range(5)])
    assert (np.ptp(counts, 0) <= (6 if grouped else 1)).all()
    if grouped:
        assert all(len({*found[groups == group].tolist()}) == 1 for group in range(groups.max() + 1))


def test_folds_of_a_data_set_leave_the_test_images_out(tmp_path):
    write_images(tmp_path, 40, seed=0)
    for path in tmp_path.rglob("*.png"):
        path.rename(path.with_name(f"{int(path.stem) // 4}-{path.name}"))
    dataset = find_dataset(tmp_path, 42, how=Splitting(group_by=r"^.*-"))
    found = list(folds(dataset, 3, 42, 0.2))
    pool = {*dataset.splits["train"].tolist(), *dataset.splits["val"].tolist()}
    held = [number for fold in found for number in fold.splits["test"].tolist()]
    assert sorted(held) == sorted(pool)
    for fold in found:
        parts = [fold.splits[split].tolist() for split in ("train", "val", "test")]
        assert sorted(number for part in parts for number in part) == sorted(pool)
        groups = [{fold.files[number].rpartition("-")[0] for number in part} for part in parts]
        assert sum(map(len, groups)) == len(set.union(*groups))
    assert len({fold.identity() for fold in (dataset, *found)}) == 4


def rows_of(run: Path) -> list[dict]:
    with (run / "suspects.csv").open(newline="") as file:
        return list(csv.DictReader(file))


TAUGHT = (
    *SMALL,
    "--norm",
    "evonorm",
    "--optimizer",
    "ADAM",
    "--learning_rate",
    "0.001",
    "--batch_size",
    "8",
    "--epochs",
    "4",
)
COLOURS = ("red", "green", "blue")
WRONG = {"train": (3, 17, 23, 31, 35, 39), "test": (0, 4, 7)}  # that lie in the folder "blue" and are red


@pytest.fixture
def mislabelled(program) -> Path:
    """A data set of colours, which are learned at once, in which some lie in the folder of another."""
    rng = np.random.default_rng(0)
    root = program.data = program.folder / "data"
    for split, count in (("train", 40), ("test", 10)):
        for channel, name in enumerate(COLOURS):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 120, (24, 24, 3), np.uint8)
                pixels[..., channel] += 100
                Image.fromarray(pixels).save(root / split / name / f"{number:03d}.png")
        for number in WRONG[split]:
            (root / split / f"red/{number:03d}.png").rename(root / split / f"blue/wrong{number}.png")
    assert program("run", *TAUGHT) == 0
    return program.run("run")


def test_wrong_labels_of_the_test_images_are_found(program, mislabelled, capsys):
    run = mislabelled
    assert program("run", "--suspects") == 0
    assert re.search(r"\d+ suspects? among \d+ images to validate and test on\n", capsys.readouterr().out)
    rows = rows_of(run)
    assert all(row["split"] in ("val", "test") for row in rows)
    wrong = {f"{split}/blue/wrong{number}.png" for split, numbers in WRONG.items() for number in numbers}
    found = rows[0]
    assert found["path"] in wrong
    assert (found["label"], found["taken_for"]) == ("blue", "red")
    assert sum(row["path"] in wrong for row in rows) >= 2
    margins = [float(row["margin"]) for row in rows]
    assert margins == sorted(margins)
    assert float(found["probability_of_label"]) < float(found["probability_of_taken_for"])
    page = (run / "suspects.html").read_text()
    assert page.count("<article>") == len(rows)
    assert "labelled blue, taken for red" in page
    assert program("run", "--overwrite", *TAUGHT, "--epochs", "1") == 0
    assert not (run / "suspects.csv").exists()


def test_wrong_labels_of_training_images_are_found_by_folds(program, mislabelled, capsys):
    run = mislabelled
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    assert program("run", "--suspects", "--folds", "3") == 0
    out = capsys.readouterr().out
    assert " among 120 images to train and validate on, by 3 networks, each trained without its part\n" in out
    rows = rows_of(run)
    assert {row["split"] for row in rows} <= {"train", "val"}
    wrong = {f"train/blue/wrong{number}.png" for number in WRONG["train"]}
    assert {row["path"] for row in rows[:2]} <= wrong
    assert not (run / "folds").exists()
    after = {path.name: path.read_bytes() for path in run.iterdir() if path.name in before}
    assert after == before


def test_folds_go_on_after_a_kill_and_make_way_for_another_run(program, mislabelled):
    shutil.copytree(mislabelled, program.run("other"))
    assert program("other", "--suspects", "--folds", "2") == 0
    process = program.start("run", "--suspects", "--folds", "2")
    wait_for(process, "fold     2 of 2")
    process.send_signal(signal.SIGKILL)
    process.wait()
    run = mislabelled
    kept = (run / "folds/1 of 2/best.pt").stat().st_mtime_ns
    assert not (run / "suspects.csv").exists()
    process = program.start("run", "--suspects", "--folds", "2")
    wait_for(process, "fold     2 of 2")
    assert (run / "folds/1 of 2/best.pt").stat().st_mtime_ns == kept
    assert process.wait(timeout=120) == 0
    assert rows_of(run) == rows_of(program.run("other"))
    (run / "folds/1 of 2").mkdir(parents=True)
    assert program("run", *TAUGHT, "--overwrite", "--epochs", "1") == 0
    assert not (run / "folds").exists()


def test_a_part_is_no_run_to_go_on_with(program, mislabelled, capsys):
    process = program.start("run", "--suspects", "--folds", "2")
    wait_for(process, "fold     1 of 2")
    wait_for(process, "1/4 ")
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143
    assert err.endswith("stopped by SIGTERM; give the same command again\n")
    capsys.readouterr()
    assert program("run/folds/1 of 2", "--resume") == 2
    assert "changed since the run started" in capsys.readouterr().err


def test_what_was_trained_on_other_images_is_no_judge(program, mislabelled, capsys):
    """Neither the run, nor a part that was kept: what is held out changes with the images."""
    process = program.start("run", "--suspects", "--folds", "2")
    wait_for(process, "fold     2 of 2")
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = (mislabelled / "folds/1 of 2/best.pt").stat().st_mtime_ns
    (program.data / "train/blue/wrong3.png").rename(program.data / "train/red/right3.png")
    assert program("run", "--suspects") == 2
    assert (
        "changed since the run started: who was held out is not known; give --folds"
        in capsys.readouterr().err
    )
    process = program.start("run", "--suspects", "--folds", "2")
    wait_for(process, "fold     2 of 2")
    assert (mislabelled / "folds/1 of 2/best.pt").stat().st_mtime_ns != kept
    assert process.wait(timeout=120) == 0
    assert "right3" not in str(rows_of(mislabelled)[:2])


def test_copies_are_held_out_together(program, mislabelled, monkeypatch):
    for number in (1, 2, 5):
        shutil.copy(
            program.data / f"train/red/{number:03d}.png", program.data / f"train/blue/copy{number}.png"
        )
    seen = []

    def noted(args, folder, check, data):
        dataset = data[0]
        splits = dataset.split_names()
        seen.append(dict(zip(dataset.files, splits.tolist(), strict=True)))
        folder.path.mkdir(parents=True)
        weights = read_checkpoint(mislabelled / "best.pt")
        save_checkpoint(folder / "best.pt", {**weights, "images": dataset.identity()})

    monkeypatch.setattr("learning.suspects.train", noted)
    assert program("run", "--suspects", "--folds", "3") == 0
    assert len(seen) == 3
    for splits in seen:
        for number in (1, 2, 5):
            assert splits[f"train/red/{number:03d}.png"] == splits[f"train/blue/copy{number}.png"]
        assert {split for name, split in splits.items() if name.startswith("test/")} == {""}


def test_parts_that_are_too_small_are_told(program, tmp_path, capsys):
    write_images(tmp_path / "data/train", 6, seed=0)
    write_images(tmp_path / "data/test", 2, seed=1)
    program.data = tmp_path / "data"
    for path in sorted((program.data / "train/plain").iterdir())[1:]:
        path.unlink()
    assert program("run", *SMALL, "--epochs", "1") == 0
    for parts, words in (("2", "a part has all images of class plain"), ("60", "--folds 60: ")):
        assert program("run", "--suspects", "--folds", parts) == 2
        assert words in capsys.readouterr().err
    assert not (program.run("run") / "folds").exists()
    flags = ("--teacher", str(program.run("run") / "best.pt"))
    assert program("student", *SMALL, "--epochs", "1", *flags) == 0
    assert program("student", "--suspects", "--folds", "2") == 2
    assert "may have seen what is held out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--folds", "5"), "--folds is for --suspects"),
        (("--suspects", "--overwrite"), "--overwrite and --suspects exclude each other"),
        (("--suspects",), "holds no run"),
        (("--suspects", "--folds", "1"), "1 is out of range"),
        (("--suspects", "--evaluate"), "exclude each other"),
    ],
)
def test_what_cannot_be_is_refused(program, capsys, flags, words):
    assert program("none", *flags) == 2
    assert words in capsys.readouterr().err
