"""--predict and --explain: new images, by a finished run."""

import csv
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
import torch

from learning.calibration import accept_threshold, accepted
from learning.classifier import Classifier
from tests.conftest import CLASSES, ROOT, SMALL, write_images
from utils.data.loose import find_images
from utils.errors import UserError
from utils.run.checkpoint import read_checkpoint, save_checkpoint
from utils.run.folder import RunFolder

TEST = "seg_test/seg_test"


def rows_of(path) -> list[dict]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def change_best(program, **content) -> None:
    """Replace entries of the checkpoint of "run", or remove those that are None."""
    path = program.run("run") / "best.pt"
    kept = read_checkpoint(path) | content
    save_checkpoint(path, {name: value for name, value in kept.items() if value is not None})


@pytest.mark.parametrize("more", [(), ("--num_workers", "0"), ("--num_workers", "3")])
def test_the_test_folder_gets_the_digits_of_the_run(used, shapes, more, capsys):
    run = used.run("run")
    assert used("run", "--predict", str(shapes / TEST), *more) == 0
    expected, found = rows_of(run / "predictions.csv"), rows_of(run / "predicted.csv")
    assert len(found) == len(expected) == 18
    for row, own in zip(found, expected, strict=True):
        assert own.pop("path") == f"{TEST}/{row.pop('path')}"
        assert (row.pop("error"), row.pop("uncertain")) == ("", "")
        assert row == own
    result = json.loads((run / "result.json").read_text())
    out = capsys.readouterr().out
    assert f"accuracy {result['test_accuracy']:.2f} % of 18 images" in out
    assert (run / "predicted_confusion_matrix.png").read_bytes().startswith(b"\x89PNG")
    assert not (used.folder / "cache").joinpath("new").exists()


def test_the_columns_are_those_that_others_rely_on(used, shapes, tmp_path):
    plain = tmp_path / "plain"
    shutil.copytree(shapes / TEST / "circle", plain)
    probabilities = [f"probability_{name}" for name in CLASSES]
    for folder, label in ((plain, []), (shapes / TEST, ["label"])):
        assert used("run", "--predict", str(folder)) == 0
        with (used.run("run") / "predicted.csv").open(newline="") as file:
            titles = next(csv.reader(file))
        assert titles == ["path", *label, "prediction", "confidence", "uncertain", "error", *probabilities]


def test_no_cache_is_written(used, shapes, tmp_path):
    empty = tmp_path / "empty"
    assert used("run", "--predict", str(shapes / TEST), "--cache_dir", str(empty)) == 0
    assert not empty.exists()


def test_confidences_are_calibrated_and_probabilities_are_not(used, shapes):
    change_best(used, temperature=4.0)
    assert used("run", "--predict", str(shapes / TEST)) == 0
    for row in rows_of(used.run("run") / "predicted.csv"):
        raw = np.array([float(row[f"probability_{name}"]) for name in CLASSES])
        assert raw.sum() == pytest.approx(1)
        cooled = raw**0.25 / (raw**0.25).sum()
        assert float(row["confidence"]) == pytest.approx(cooled.max(), rel=1e-6)
        assert row["prediction"] == CLASSES[raw.argmax()]
    classifier = Classifier.load(used.run("run") / "best.pt", "cpu")
    image = shapes / TEST / rows_of(used.run("run") / "predicted.csv")[0]["path"]
    ((name, probabilities),) = classifier.classify(image)
    first = rows_of(used.run("run") / "predicted.csv")[0]
    assert probabilities[name] == pytest.approx(float(first["confidence"]), abs=2e-3)


def test_what_is_below_the_threshold_is_uncertain(used, shapes, capsys):
    for thresholds, key in (({"95": 0.4, "99": 0.5}, "99"), ({"95": 0.4, "99": None}, "95")):
        change_best(used, thresholds=thresholds)
        assert used("run", "--predict", str(shapes / TEST)) == 0
        rows = rows_of(used.run("run") / "predicted.csv")
        expected = ["true" if float(row["confidence"]) < thresholds[key] else "false" for row in rows]
        assert [row["uncertain"] for row in rows] == expected
        count = expected.count("true")
        words = f"unsure   {count} of 18 predictions, below {100 * thresholds[key]:g} % confidence, from"
        assert f"{words} which on {key} % of" in capsys.readouterr().out


def test_images_that_cannot_be_read_are_rows_and_change_no_other(used, shapes, tmp_path, capsys):
    folder = tmp_path / "mixed"
    shutil.copytree(shapes / TEST, folder)
    assert used("run", "--predict", str(folder)) == 0
    before = rows_of(used.run("run") / "predicted.csv")
    (folder / "circle/002.png").write_bytes(b"no image")
    (folder / "plain/000.png").unlink()
    (folder / "plain/000.png").symlink_to("nowhere")
    capsys.readouterr()
    assert used("run", "--predict", str(folder), "--explain") == 0
    out = capsys.readouterr().out
    assert out.count("cannot be read") == 1
    assert "warning  cannot be read: 2 images, circle/002.png (it is no image, or one of a kind" in out
    for row, own in zip(rows_of(used.run("run") / "predicted.csv"), before, strict=True):
        if row["path"] in ("circle/002.png", "plain/000.png"):
            assert row.pop("error")
            assert row.pop("label") == own["label"]
            assert {*row.values()} == {row["path"], ""}
        else:
            assert row == own
    assert "2 images that could not be read" in (used.run("run") / "explained.html").read_text()


def test_nothing_can_be_read_and_still_there_is_an_answer(used, tmp_path, capsys):
    (tmp_path / "bad.jpg").write_bytes(b"")
    assert used("run", "--predict", str(tmp_path / "bad.jpg"), "--explain") == 0
    (row,) = rows_of(used.run("run") / "predicted.csv")
    assert (row["path"], row["prediction"]) == (str(tmp_path / "bad.jpg"), "")
    assert "warning  cannot be read: 1 image, " in capsys.readouterr().out


def test_names_are_as_given_or_below_the_folder(tmp_path):
    write_images(tmp_path / "a", 2, seed=0, classes=("circle",))
    write_images(tmp_path / "b", 2, seed=1, classes=("plain",))
    (tmp_path / "b/plain").rename(tmp_path / "b/other")
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    single = str(tmp_path / "a/circle/000.png")
    found = find_images([a, b, single], CLASSES)
    assert found.names == [*("circle/000.png", "circle/001.png", "other/000.png", "other/001.png"), single]
    assert found.labels.tolist() == [0, 0, -1, -1, -1]
    shutil.copytree(tmp_path / "a/circle", tmp_path / "b/circle")
    found = find_images([a, b], CLASSES)  # two would be called the same
    assert found.names[:3] == [f"{a}/circle/000.png", f"{a}/circle/001.png", f"{b}/circle/000.png"]
    assert len({*found.names}) == 6


def test_the_label_is_the_first_folder_that_bears_a_name(tmp_path):
    write_images(tmp_path / "set/test", 1, seed=0)
    shutil.copytree(tmp_path / "set/test/plain", tmp_path / "set/test/circle/stripes/old")
    found = find_images([str(tmp_path / "set")], CLASSES)
    labels = dict(zip(found.names, found.labels.tolist(), strict=True))
    assert labels == {
        "test/circle/000.png": 0,
        "test/circle/stripes/old/000.png": 0,
        "test/plain/000.png": 1,
        "test/stripes/000.png": 2,
    }


def test_what_is_not_called_like_an_image_is_counted(used, shapes, tmp_path, capsys):
    folder = tmp_path / "mixed"
    shutil.copytree(shapes / TEST / "circle", folder)
    for name in ("a.txt", "b.TXT", "c.csv", "d"):
        (folder / name).write_text("no image")
    assert used("run", "--predict", str(folder)) == 0
    assert "4 files not taken for images, by endings: .txt 2, .csv 1, none 1" in capsys.readouterr().out


def test_paths_come_from_standard_input_and_rows_go_to_standard_output(used, shapes):
    names = [str(shapes / TEST / "circle/000.png"), "missing.png", str(shapes / TEST / "plain")]
    command = [sys.executable, ROOT / "main.py", *used.arguments("run", "--predict", "-", "--output", "-")]
    done = subprocess.run(command, input="\n".join([*names, ""]), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [row["path"] for row in rows] == [*names[:2], *(f"{number:03d}.png" for number in range(6))]
    assert [bool(row["error"]) for row in rows] == [False, True, *[False] * 6]
    assert "missing.png" in done.stderr
    assert "predicted class" in done.stderr
    assert not (used.run("run") / "predicted.csv").exists()


def test_another_file_is_replaced_only_when_told(used, shapes, tmp_path, capsys):
    other = tmp_path / "mine.csv"
    other.write_text("precious")
    flags = ("--predict", str(shapes / TEST), "--output", str(other))
    before = sorted(path.name for path in used.run("run").iterdir())
    assert used("run", *flags) == 2
    assert "mine.csv is there already" in capsys.readouterr().err
    assert other.read_text() == "precious"
    assert used("run", *flags, "--overwrite") == 0
    assert len(rows_of(other)) == 18
    assert (tmp_path / "mine_confusion_matrix.png").exists()
    assert sorted(path.name for path in used.run("run").iterdir()) == before  # the run is as it was
    assert used("run", "--predict", str(shapes / TEST)) == 0
    assert used("run", "--predict", str(shapes / TEST)) == 0  # its own file is simply replaced


def test_the_files_of_the_run_are_not_replaced(used, shapes, capsys):
    log = used.run("run") / "log.csv"
    content = log.read_text()
    assert used("run", "--predict", str(shapes), "--output", str(log), "--overwrite") == 2
    assert "is a file of the run itself" in capsys.readouterr().err
    assert log.read_text() == content


def test_nothing_is_left_of_an_earlier_prediction(used, shapes):
    assert used("run", "--predict", str(shapes / TEST), "--explain") == 0
    assert used("run", "--predict", str(shapes / TEST / "circle")) == 0
    left = {path.name for path in used.run("run").iterdir()}
    assert "predicted.csv" in left
    assert not left & {"explained.html", "predicted_confusion_matrix.png"}


def test_an_output_called_like_the_page_is_refused(used, shapes, capsys):
    page = used.folder / "explained.html"
    assert used("run", "--predict", str(shapes / TEST), "--explain", "--output", str(page)) == 2
    assert "is the name of the page" in capsys.readouterr().err
    assert not page.exists()


def test_rows_for_standard_output_touch_nothing_of_the_run(used, shapes, capsysbinary):
    assert used("run", "--predict", str(shapes / TEST), "--explain") == 0
    files = {path: path.read_bytes() for path in used.run("run").iterdir() if path.is_file()}
    capsysbinary.readouterr()
    assert used("run", "--predict", str(shapes / TEST / "circle"), "--output", "-") == 0
    assert capsysbinary.readouterr().out.count(b"\n") == 7
    assert {path: path.read_bytes() for path in used.run("run").iterdir() if path.is_file()} == files


@pytest.mark.parametrize(("target", "code"), [("| true", 0), ("> /dev/full", 2), (">&-", 2)])
def test_a_standard_output_that_takes_no_more(used, shapes, target, code):
    predict = ("--predict", str(shapes / TEST), "--output", "-")
    command = shlex.join([sys.executable, str(ROOT / "main.py"), *used.arguments("run", *predict)])
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command} {target}"], capture_output=True, text=True
    )
    assert done.returncode == code, done.stderr
    assert ("standard output" in done.stderr) == bool(code)
    assert "Traceback" not in done.stderr
    assert not (used.run("run") / "predicted.csv").exists()


def test_a_pipe_in_the_place_of_an_image_does_not_wait_for_ever(used, shapes, tmp_path):
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)
    assert used("run", "--predict", str(pipe), str(shapes / TEST / "plain")) == 0
    first, *others = rows_of(used.run("run") / "predicted.csv")
    assert (first["path"], first["error"]) == (str(pipe), "it is a folder, a pipe or a device")
    assert not any(row["error"] for row in others)


@pytest.mark.parametrize(
    "mode", [("--evaluate",), ("--predict", "x.png"), ("--export", "a.pt2"), ("--suspects",)]
)
def test_a_name_of_no_run_is_answered_with_those_of_the_runs_there_are(used, capsys, monkeypatch, mode):
    monkeypatch.setitem(sys.modules, "learning.run", None)  # torch is not waited for
    shutil.copytree(used.run("run"), used.run("sets/seed0"))
    shutil.copytree(used.run("run"), used.run("run") / "folds/0")
    assert used("rum", *mode) == 2
    assert capsys.readouterr().err == f"main.py: {used.run('rum')} holds no run; there are: run, sets/seed0\n"
    for name in ("run", "sets"):
        shutil.rmtree(used.run(name))
    assert used("rum", *mode) == 2
    assert capsys.readouterr().err == f"main.py: {used.run('rum')} holds no run; nor is there another\n"


def test_folders_bear_the_names_of_classes_in_any_unicode_form(tmp_path):
    for name in ("Bl\u00e4tter", "Bla\u0308tter", "Wald"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").touch()
    (tmp_path / "@eaDir").mkdir()
    (tmp_path / "Wald/._a.png").touch()
    for known in ("Bl\u00e4tter", "Bla\u0308tter"):
        found = find_images([str(tmp_path)], [known, "other"])
        assert dict(zip(found.names, found.labels.tolist(), strict=True)) == {
            "Bl\u00e4tter/a.png": 0,
            "Bla\u0308tter/a.png": 0,
            "Wald/a.png": -1,
        }
        assert found.foreign == ["@eaDir", "Wald/._a.png"]


def test_a_run_that_is_in_use_is_not_written_to(used, shapes, tmp_path, capsys):
    with RunFolder(str(used.folder / "checkpoint"), "run").claim():
        assert used("run", "--predict", str(shapes / TEST)) == 75
        assert "in use by process" in capsys.readouterr().err
        other = ("--output", str(tmp_path / "other.csv"))
        assert used("run", "--predict", str(shapes / TEST), *other) == 0  # which is not in the run's folder


def test_the_batches_are_those_of_a_test(used, shapes, monkeypatch):
    sizes = []
    predict = Classifier.log_probabilities
    monkeypatch.setattr(
        Classifier,
        "log_probabilities",
        lambda self, images: sizes.append(len(images)) or predict(self, images),
    )
    assert used("run", "--predict", str(shapes / TEST), *["--num_workers", "0"]) == 0
    assert used("run", "--predict", str(shapes / TEST), "--batch_size", "4") == 0
    assert sizes == [18, 8, 8, 2]  # of the run's --batch_size 16, which tests 32 at once


@pytest.mark.parametrize(
    "content", [{"thresholds": "x"}, {"thresholds": {"99": "x"}}, {"temperature": 1e-9}, {"temperature": -1}]
)
def test_a_calibration_that_is_none_is_refused(used, shapes, content, capsys):
    change_best(used, **content)
    assert used("run", "--predict", str(shapes / TEST)) == 2
    assert "best.pt holds another network than its flags say, or something else" in capsys.readouterr().err


@pytest.mark.parametrize("names", ['["..", "", "sub", "../out.csv", "predicted.csv"]', "[1]", "{", "7"])
def test_a_damaged_list_of_what_was_made_stops_nothing(tmp_path, names):
    folder = RunFolder(str(tmp_path), "run")
    (folder / "sub").mkdir(parents=True)
    for path in (tmp_path / "out.csv", folder / "predicted.csv", folder / "of_a_person.csv"):
        path.touch()
    (folder / "made_of_weights.json").write_text(names)
    folder.clear_made()
    left = {path.name for path in folder.path.iterdir()}
    assert left - {"predicted.csv"} == {"sub", "of_a_person.csv"}
    assert ("predicted.csv" in left) == ("predicted.csv" not in names)
    assert (tmp_path / "out.csv").exists()


def test_what_is_as_sure_as_the_threshold_is_sure():
    confidences = np.array([0.9] * 59 + [0.89] * 100)
    correct = confidences == 0.9
    assert accept_threshold(confidences, correct, 0.95) == 0.9
    assert accepted(confidences, 0.9).sum() == 59


def test_a_stopped_prediction_leaves_the_old_file(used, shapes, monkeypatch):
    assert used("run", "--predict", str(shapes / TEST)) == 0
    content = (used.run("run") / "predicted.csv").read_text()
    monkeypatch.setattr("learning.predict.nine_digits", lambda share: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        used("run", "--predict", str(shapes / TEST))
    assert (used.run("run") / "predicted.csv").read_text() == content
    assert not list(used.run("run").glob(".*.part"))


def test_what_was_made_goes_when_the_run_is_trained_anew(used, shapes):
    run = used.run("run")
    kept = run / "notes.csv"
    kept.write_text("of a person")
    for flags in (
        ("--predict", str(shapes / TEST), "--explain"),
        ("--predict", str(shapes / TEST), "--output", str(run / "others.csv")),
        ("--evaluate",),
        ("--export", str(run / "network.pt2")),
    ):
        assert used("run", *flags) == 0
    made = {
        *("predicted.csv", "predicted_confusion_matrix.png", "explained.html", "others.csv"),
        *("others_confusion_matrix.png", "evaluation.json", "network.pt2", "export.json"),
    }
    assert made <= {path.name for path in run.iterdir()}
    again = shutil.copytree(run, run.with_name("again"))
    assert used("run", *SMALL, "--overwrite") == 0
    assert not made & {path.name for path in run.iterdir()}
    assert kept.read_text() == "of a person"

    (again / "result.json").unlink()  # as if it were to be trained further
    assert used("again", "--resume") == 0
    assert not made & {path.name for path in again.iterdir()}


@pytest.mark.parametrize("state", ["none", "unfinished"])
def test_a_run_that_is_not_finished_is_refused(used, shapes, state, capsys):
    if state == "none":
        shutil.rmtree(used.run("run"))
    else:
        (used.run("run") / "result.json").unlink()
    for flags in (("--predict", str(shapes)), ("--export", str(used.folder / "network.pt2"))):
        assert used("run", *flags) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert ("holds no run" if state == "none" else "is not finished") in error


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--predict", "nowhere.jpg"), "nowhere.jpg: no such file or folder"),
        (("--predict", "{empty}"), "no images there"),
        (("--predict", "{shapes}", "--output", "{empty}"), "is a folder"),
        (("--predict", "{shapes}", "--output", "{empty}/no/such.csv"), "there is no folder"),
        (("--predict", "{shapes}", "--label_smooth", "0.3"), "--label_smooth 0.3 (the run has 0.0)"),
    ],
)
def test_bad_input_is_named_in_one_line(used, shapes, tmp_path, flags, words, capsys):
    empty = tmp_path / "empty"
    empty.mkdir()
    assert used("run", *(flag.format(empty=empty, shapes=shapes / TEST) for flag in flags)) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert words in error


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--predict", "a.jpg", "--evaluate"), "--evaluate and --predict exclude each other"),
        (("--predict", "a.jpg", "--export", "a.onnx"), "--predict and --export exclude each other"),
        (("--resume", "--overwrite"), "--overwrite and --resume exclude each other"),
        (("--output", "a.csv"), "--output is for --predict"),
        (("--explain",), "--explain is for --predict"),
        (("--export", "network.h5"), "'network.h5' ends in none of .onnx, .pt2, .safetensors"),
    ],
)
def test_flags_that_do_not_go_together_are_refused_at_once(used, flags, words, capsys):
    assert used("run", *flags) == 2
    assert words in capsys.readouterr().err


def test_standard_input_without_a_name_is_refused(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\n\n")))
    with pytest.raises(UserError, match="standard input names no images"):
        find_images(["-"], CLASSES)


def test_a_run_without_a_temperature_gets_one_now(used, shapes, capsys):
    """As runs of older versions: from the same validation images, so that it is the same."""
    run = used.run("run")
    result = json.loads((run / "result.json").read_text())
    assert used("run", "--predict", str(shapes / TEST)) == 0
    expected = (run / "predicted.csv").read_text()
    capsys.readouterr()
    change_best(used, temperature=None, thresholds=None)
    assert used("run", "--predict", str(shapes / TEST)) == 0
    assert "has no temperature; it is fitted now" in capsys.readouterr().out
    assert (run / "predicted.csv").read_text() == expected
    assert used("run", "--evaluate") == 0
    assert json.loads((run / "evaluation.json").read_text()).items() <= result.items()
    assert used("run", "--predict", str(shapes / TEST), "--data_dir", str(used.folder / "gone")) == 2
    assert "--data_dir" in capsys.readouterr().err


def test_views_and_batches_may_be_others(used, shapes, capsys):
    change_best(used, temperature=1.0)
    assert used("run", "--predict", str(shapes / TEST), "--tta", "none", "--batch_size", "3") == 0
    assert "without this --tta" in capsys.readouterr().out
    plain = rows_of(used.run("run") / "predicted.csv")
    classifier = Classifier.load(used.run("run") / "best.pt", "cpu")
    assert classifier.mirrored
    classifier.mirrored = False
    paths = [shapes / TEST / row["path"] for row in plain]
    for row, (name, probabilities) in zip(plain, classifier.classify(paths, batch_size=6), strict=True):
        assert row["prediction"] == name
        assert float(row["confidence"]) == pytest.approx(probabilities[name], abs=1e-6)


def test_the_end_of_a_run_says_what_its_confidences_are_worth(program, capsys):
    assert program("run", *SMALL) == 0
    out = capsys.readouterr().out
    result = json.loads((program.run("run") / "result.json").read_text())
    assert f"at temperature {result['temperature']:.3g}" in out
    assert out.count("too few validation images") == 2  # there are 12
    assert result["accept"] == {"95": None, "99": None}
    assert f"macro-F1 {result['macro_f1']:.2f} %" in out
    best = torch.load(program.run("run") / "best.pt", weights_only=True)
    assert (best["temperature"], best["thresholds"]) == (result["temperature"], result["accept"])
    assert result["per_class"].keys() == {*CLASSES}
    assert "top5_accuracy" not in result
    assert (program.run("run") / "reliability.png").exists()


class Tags(HTMLParser):
    """Counts what is on a page."""

    def __init__(self):
        super().__init__()
        self.articles, self.images, self.links = 0, [], []

    def handle_starttag(self, tag, attributes):
        self.articles += tag == "article"
        values = dict(attributes)
        if tag == "img":
            self.images.append(values["src"])
        self.links += [values[name] for name in ("src", "href") if name in values]


def test_the_page_has_every_image_twice_and_needs_nothing_else(used, shapes):
    change_best(used, thresholds={"95": None, "99": 0.6})
    assert used("run", "--predict", str(shapes / TEST), "--explain") == 0
    page = (used.run("run") / "explained.html").read_text()
    tags = Tags()
    tags.feed(page)
    assert (tags.articles, len(tags.images)) == (18, 36)
    assert all(link.startswith("data:") for link in tags.links)
    rows = sorted(rows_of(used.run("run") / "predicted.csv"), key=lambda row: float(row["confidence"]))
    assert re.findall('class="path">(.*?)<', page) == [row["path"] for row in rows]
    shown = re.findall("<h3>(.*?)</h3><p>(.*?)</p>", page)
    for row, (name, marks) in zip(rows, shown, strict=True):
        assert name == row["prediction"]
        assert marks.startswith(f"{100 * float(row['confidence']):.1f} %")
        assert ("uncertain" in marks) == (row["uncertain"] == "true")
        assert ("right" in marks) == (row["prediction"] == row["label"])
