"""utils/report: reading runs, naming tricks, the tables, the pictures and the page."""

import base64
import csv
import json
import re
import shutil
import subprocess
import zipfile
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.axes import Axes

import options
from learning.calibration import calibration_error
from learning.evaluation import Evaluation
from learning.results import read_predictions, write_predictions
from tests.conftest import CLASSES, write_images
from tests.test_batch import history_list
from utils.batch import make_commands, read_list
from utils.flags import run_flags
from utils.page import to_markdown
from utils.report.__main__ import default_flags, gather, main, settings
from utils.report.comparison import Evidence, Finding, takes
from utils.report.confidence import CalibrationErrors
from utils.report.pictures import accuracies, effects
from utils.report.runs import Experiment
from utils.report.sections import accuracies_table, make_sections
from utils.report.statistics import Estimate, Spread, difference
from utils.report.tricks import Tricks
from utils.run.files import write_json
from utils.run.records import About, Result, as_content

IMAGES = 300


def made_up_run(
    root: Path,
    name: str,
    right: np.ndarray,
    *flags: str,
    seed=42,
    classes=CLASSES,
    val=80.0,
    minutes=1.0,
    teacher=None,
    labels=None,
    hotter=1.0,
    temperature=1.0,
    **kept,
) -> None:
    """The files of a finished run whose test images, of classes in turn, were classified rightly or not."""
    folder = root / name
    folder.mkdir(parents=True)
    args = options.parse_args(["--checkpoint_name", name, "--seed", str(seed), *flags])
    images = {"classes": list(classes), "normalisation": [[0.5] * 3] * 2, "precision": "fp32"}
    about = About(flags=run_flags(args) | kept, teacher=teacher, **images)
    write_json(folder / "args.json", as_content(about))
    row = {"epoch": 1, "val_accuracy": val, "peak_memory_mb": 512.0, "images_per_second": 200 / 60 / minutes}
    with open(folder / "log.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, row)
        writer.writeheader()
        writer.writerows([row, row | {"epoch": 2}])
    labels = np.arange(len(right)) % len(classes) if labels is None else labels
    predicted = np.where(right, labels, (labels + 1) % len(classes))
    probabilities = np.full((len(right), len(classes)), 0.1)
    probabilities[np.arange(len(right)), predicted] = 0.5 + 0.4 * np.arange(len(right)) / len(right)
    test = Evaluation(labels, np.log(probabilities / probabilities.sum(1, keepdims=True))).at(hotter)
    paths = [f"test/{classes[label]}/{number:03d}.png" for number, label in enumerate(labels)]
    write_predictions(folder / "predictions.csv", paths, classes, test, temperature)
    result = Result(
        best_epoch=2,
        best_weights="raw",
        val_accuracy=val,
        test_accuracy=100 * right.mean(),
        test_loss=0.5,
        test_balanced_accuracy=100 * right.mean(),
        test_accuracy_per_class={},
        test_accuracy_last=100 * right.mean(),
        train_seconds=60 * minutes,
        images_per_second=100.0,
        split_sizes={"train": 100, "val": 20, "test": len(right)},
        skipped_images=0,
    )
    write_json(folder / "result.json", as_content(result))


def right(share: float, seed: int, images: int = IMAGES) -> np.ndarray:
    return np.random.default_rng(seed).random(images) < share


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    """Two seeds each of a baseline, of one with a trick that helps much, and of one that does nothing."""
    root = tmp_path / "checkpoint"
    for seed in (0, 1):
        made_up_run(root, f"baseline/seed{seed}", right(0.6, seed), seed=seed)
        made_up_run(
            root, f"smooth/seed{seed}", right(0.9, 2 + seed), "--label_smooth", "0.1", seed=seed, val=90
        )
        made_up_run(root, f"zero/seed{seed}", right(0.6, 4 + seed), "--zero_gamma", seed=seed, minutes=2)
    return root


def against(evidence: Evidence, baseline: str) -> dict[str, Finding]:
    """What is found of each experiment that is compared with the baseline."""
    found = {pairs: each for pairs, each in evidence.findings.items() if len(pairs) == 1}
    return {a: each for ((a, b),), each in found.items() if b == baseline}


def test_the_report_says_what_helps_by_how_much_and_how_surely(checkpoint, capsys):
    assert main([str(checkpoint)]) == 0
    out = capsys.readouterr().out
    report = checkpoint / "report"
    assert {path.name for path in report.iterdir()} == {
        *("report.md", "report.html", "accuracies.png", "effects.png", "learning_curves.png"),
        "confusion_matrix.png",
    }
    pictures = re.findall(r"!\[[^]]*\]\(([^)]*)\)", (report / "report.md").read_text())
    assert sorted(pictures) == sorted(path.name for path in report.glob("*.png"))
    text = (report / "report.md").read_text()
    (zero,) = re.findall(r"\| zero gamma +\| unclear.* 2\.00 +\| 2\.00 to 2\.00 .*(?:images|seeds).*", text)
    assert zero.endswith("| 1     |")  # it takes twice the time, and there is one pair
    for found in (text, out):
        assert re.search(r"label smoothing [| ]+helps [| ]+\+3\d\.\d\d ", found)
        assert re.search(r"zero gamma [| ]+unclear [| ]+[+-]\d\.\d\d ", found)
        assert "Helps: label smoothing (+3" in found
        assert "Unclear, on 300 test images with 2 seeds: zero gamma." in found
        assert "3 experiments in 6 runs, compared with baseline on the same 300 test images" in found
        assert "smooth (best)" in found  # by validation


def test_the_terminal_shows_a_verdict_and_tables_that_fit(checkpoint, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main([str(checkpoint)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("verdict  Helps: ")
    tables = out[out.index("\ntrick") :].splitlines()
    assert max(map(len, tables[:-1])) <= 80
    assert not any(mark in out for mark in ("|", "##"))


def test_means_and_deviations_are_over_seeds(checkpoint):
    evidence, _ = gather(checkpoint, None)
    accuracies = [100 * right(0.6, seed).mean() for seed in (0, 1)]
    row = next(row for row in accuracies_table(evidence)[1] if row[0] == "baseline")
    assert row[2] == f"{np.mean(accuracies):.2f} ± {np.std(accuracies, ddof=1):.2f}"
    comparison = evidence.findings[(("smooth", "baseline"),)]
    both = [100 * right(0.9, seed).mean() for seed in (2, 3)]
    assert comparison.estimate.mean == pytest.approx(np.mean(both) - np.mean(accuracies))
    assert comparison.estimate.low < comparison.estimate.mean < comparison.estimate.high


def test_with_class_weights_the_mean_over_classes_is_shown(tmp_path):
    labels = np.arange(IMAGES) % len(CLASSES)
    correct = labels > 0  # one class is never right
    made_up_run(tmp_path / "plain", "baseline", correct)
    evidence, _ = gather(tmp_path / "plain", None)
    assert "balanced test, %" not in accuracies_table(evidence)[0]
    few = np.concatenate([np.flatnonzero(labels == 0)[:10], np.flatnonzero(labels > 0)])
    for name, flags in {"baseline": (), "weighed": ("--class_weights", "balanced")}.items():
        made_up_run(tmp_path / "weights", name, correct[few], *flags, labels=labels[few])
    evidence, _ = gather(tmp_path / "weights", None)
    columns, rows = accuracies_table(evidence)
    row = dict(zip(columns, rows[1], strict=True))
    share = 100 * (len(CLASSES) - 1) / len(CLASSES)
    assert row["balanced test, %"] == f"{share:.2f}"
    assert float(row["test, %"]) > share + 1


def test_the_same_report_each_time(checkpoint, tmp_path, capsys):
    texts = []
    for name in ("one", "two"):
        assert main([str(checkpoint), "--output", str(tmp_path / name)]) == 0
        texts.append([path.read_bytes() for path in sorted((tmp_path / name).iterdir())])
    assert texts[0] == texts[1]


def test_one_seed_is_tested_exactly_and_its_limits_are_told(tmp_path, capsys):
    a, b = right(0.7, 0), right(0.72, 1)
    made_up_run(tmp_path, "baseline", a)
    made_up_run(tmp_path, "mixed", b, "--mixup", "0.2")
    assert main([str(tmp_path)]) == 0
    out = (tmp_path / "report/report.md").read_text()
    exact = difference(b[None], a[None]).p
    assert f"| {exact:.3f} | {exact:.3f}" in re.sub(" +", " ", out)
    assert "another seed may come out otherwise" in out
    assert "Helps: MixUp (+9.00 points, for these networks: one seed)." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("spread", "words"),
    [  # half a point shows where the variance of the mean is (0.5 / 2.81)^2 = 0.0317
        (Spread(400, 2, image=0.01, seed=0.04, rest=0.04, freedom=1e4), "630 images or 4 seeds"),
        (Spread(400, 2, image=0.01, seed=0.08, rest=0.04, freedom=1e4), "8 seeds"),
        (Spread(400, 2, image=0.049, seed=0.001, rest=0.001, freedom=1e4), "630 images"),
        (Spread(400, 1, image=0.05), "630 images"),
        (Spread(400, 2, image=0.089, seed=0.041, rest=0.001, freedom=1e4), "more of both"),
        (Spread(400, 2, image=0.02, seed=0.011, rest=0.01, freedom=1e4), "no more than there is"),
        # With t = 4.30 images must be 1 / 0.229 times as many: 1.045^2 0.229 = 0.5^2.
        (Spread(400, 2, image=0.01, seed=0.04, rest=0.04, freedom=2), "1,800 images or 5 seeds"),
    ],
)
def test_what_it_would_take_is_told_in_words(spread, words):
    assert takes(Estimate(1.0, 0.5, 1.5, spread, p=0.01)) == words
    assert takes(Estimate(1.0, 1.0, 1.0, spread, p=0.0)) == ""  # there is nothing that is not known


def test_runs_that_cannot_be_compared_are_left_out_by_name(checkpoint, capsys):
    made_up_run(checkpoint, "other_images", right(0.6, 9, 200))
    made_up_run(checkpoint, "baseline/seed2", right(0.6, 9), "--epochs", "5", seed=2)
    made_up_run(checkpoint, "zero/seed8", right(0.6, 9), "--zero_gamma", seed=1)
    made_up_run(checkpoint, "cut", right(0.6, 9))
    (checkpoint / "cut/predictions.csv").write_text("path,label\n")
    made_up_run(checkpoint, "going", right(0.6, 9))
    (checkpoint / "going/result.json").unlink()
    assert main([str(checkpoint)]) == 0
    left_out = (checkpoint / "report/report.md").read_text().split("## Left out")[1]
    assert "left out run cut has files that are damaged" in capsys.readouterr().out
    for words in (
        "other_images was tested on other images than",
        "baseline/seed2 has other flags than",
        "zero/seed8 has the seed of",
        "cut has files that are damaged",
        "going is not finished",
    ):
        assert words in left_out


@pytest.mark.parametrize("argv", [["nowhere"], [".", "--baseline", "x"], [], [".", "--nonsense"]])
def test_mistakes_are_told_in_one_line(argv, checkpoint, capsys, monkeypatch):
    monkeypatch.chdir(checkpoint)
    try:
        code = main(argv)
    except SystemExit as stop:
        code = stop.code
    err = capsys.readouterr().err
    assert (code, err.count("\n")) == (2, 1)


def test_without_a_baseline_the_plainest_is_it(tmp_path):
    made_up_run(tmp_path, "a_smooth", right(0.6, 0), "--label_smooth", "0.1")
    made_up_run(tmp_path, "plain", right(0.6, 1))
    evidence, _ = gather(tmp_path, None)
    assert evidence.baseline == "plain"
    evidence, _ = gather(tmp_path, "a_smooth")
    (comparison,) = evidence.effects
    assert (comparison.pairs, comparison.words) == ((("plain", "a_smooth"),), "no label smoothing")


@pytest.fixture
def history(tmp_path) -> Tricks:
    """The tricks of the 29 experiments."""
    found = {
        name: settings(run_flags(options.parse_args(command)), None)
        for name, command in make_commands(read_list(history_list(tmp_path)), [], []).items()
    }
    plain = settings(default_flags(120), None)
    return Tricks(found, dict.fromkeys(found, plain), "baseline")


def test_the_letters_are_those_of_the_history(history):
    letters = {name: history.letters(name) for name in history.experiments}
    assert letters["baseline"] == "B"
    assert letters["baseline_scratch"] == "B+scratch"
    assert letters["baseline_warmup_zerogamma"] == "B+W+Z"
    assert letters["baseline_Adam_warmup_cosine_labelsmooth_mixup"] == "B+A+W+C+S+M"
    assert letters["baseline_Adam_warmup_cosine_labelsmmoth_evonorm"] == "B+A+W+C+S+E"
    assert letters["baseline_Adam_warmup_cosine_labelsmooth_randaug"] == "B+A+W+C+S+RA"
    assert letters["efficientnet_RAdam_warmup_cosine_cutmix"] == "EN+R+W+C+CM"
    assert letters["regnet_Adam_warmup_cosine_labelsmooth"] == "RN+A+W+C+S"
    assert len(set(letters.values())) == 29


@pytest.mark.parametrize(
    ("experiment", "relative", "words"),
    [
        ("baseline", None, None),
        ("baseline_scratch", "baseline", "scratch instead of ImageNet"),
        ("baseline_warmup_zerogamma", "baseline_warmup", "zero gamma"),
        ("baseline_Adam_warmup_cosine", "baseline_Adam_warmup", "cosine decay instead of step decay"),
        (
            "baseline_Adam_warmup_cosine_labelsmooth_mixup",
            "baseline_Adam_warmup_cosine_labelsmooth",
            "MixUp",
        ),
        (
            "baseline_RAdam_warmup_cosine_labelsmooth",
            "baseline_Adam_warmup_cosine_labelsmooth",
            "RADAM instead of ADAM",
        ),
        (
            "regnet_Adam_warmup_cosine_cutmix",
            "baseline_Adam_warmup_cosine_cutmix",
            "RegNet instead of ResNet50",
        ),
    ],
)
def test_a_relative_differs_by_the_trick_added_last(history, experiment, relative, words):
    assert history.relative(experiment, history.experiments) == relative
    if relative:
        (trick,) = history.differences(experiment, relative)
        assert history.in_words(trick, experiment, relative) == words


def test_strengths_are_told_where_they_differ(tmp_path):
    for name, strength in (("weak", "0.1"), ("strong", "0.4")):
        made_up_run(
            tmp_path, name, right(0.6, 0), "--mixup", strength, "--image_size", "64", "--crop", "center"
        )
    made_up_run(tmp_path, "large", right(0.6, 0), "--image_size", "128", "--crop", "center")
    evidence, _ = gather(tmp_path, None)
    tricks = evidence.tricks
    assert tricks.letters("strong") == "M(0.4)+--image_size 64"
    assert tricks.shared() == ["--crop center"]
    (trick,) = tricks.differences("strong", "weak")
    assert tricks.in_words(trick, "strong", "weak") == "MixUp(0.4) instead of MixUp(0.1)"


def test_a_tricks_effect_is_the_mean_over_its_pairs(tmp_path):
    shares = {"baseline": 0.5, "m": 0.6, "s": 0.55, "sm": 0.75}
    flags = {"baseline": [], "m": ["--mixup", "0.2"], "s": ["--label_smooth", "0.1"]}
    flags["sm"] = flags["s"] + flags["m"]
    accuracy = {}
    for number, (name, share) in enumerate(shares.items()):
        correct = right(share, number)
        accuracy[name] = 100 * correct.mean()
        made_up_run(tmp_path, name, correct, *flags[name])
    evidence, _ = gather(tmp_path, None)
    (effect,) = [effect for effect in evidence.effects if effect.words == "MixUp"]
    assert sorted(effect.pairs) == [("m", "baseline"), ("sm", "s")]
    gains = accuracy["m"] - accuracy["baseline"], accuracy["sm"] - accuracy["s"]
    assert effect.estimate.mean == pytest.approx(np.mean(gains))


HOSTILE = "<img src=x onerror=alert(1)>|`$x_1$`[a](b)\x1b[31m"


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def test_names_mean_nothing_but_themselves(tmp_path, capsys):
    classes = (HOSTILE, "plain", "$\\frac{")
    made_up_run(tmp_path, "baseline", right(0.6, 0), classes=classes)
    made_up_run(tmp_path, HOSTILE, right(0.9, 1), "--mixup", "0.2", classes=classes)
    assert main([str(tmp_path)]) == 0
    assert "\x1b" not in capsys.readouterr().out
    out = (tmp_path / "report/report.md").read_text()
    assert "\x1b" not in out
    assert "\\x1b" in out
    assert "\\<img" in out
    assert all(
        line.replace("\\|", "").count("|") in (6, 9, 10, 11) for line in out.splitlines() if line[:1] == "|"
    )
    page = (tmp_path / "report/report.html").read_text()
    tags = Tags()
    tags.feed(page)
    assert all(attrs["src"].startswith("data:") for tag, attrs in tags.found if tag == "img")
    assert not any(name.startswith("on") for _, attrs in tags.found for name in attrs)
    assert [tag for tag, _ in tags.found].count("script") == 1
    assert "&lt;img src=x" in page


def test_the_page_shows_the_most_confident_errors_and_nothing_from_outside(tmp_path):
    data = tmp_path / "data"
    write_images(data / "test", 1, seed=0)
    secret = tmp_path / "secret.png"
    shutil.copy(data / "test/plain/000.png", secret)
    for number, name in enumerate(CLASSES):
        (data / "test" / name / "000.png").rename(data / "test" / name / f"{number:03d}.png")
    made_up_run(tmp_path / "runs", "baseline", np.zeros(60, bool), data_dir=str(data))
    table = tmp_path / "runs/baseline/predictions.csv"
    table.write_text(
        table.read_text()
        .replace("test/plain/058.png", str(secret))
        .replace("test/circle/057.png", "../secret.png")
    )
    assert main([str(tmp_path / "runs")]) == 0
    page = (tmp_path / "runs/report/report.html").read_text()
    listed = re.findall(r'<div class="path">([^<]*)</div>', page)
    assert len(listed) == 12
    assert listed[:3] == ["test/stripes/059.png", str(secret), "../secret.png"]  # the most confident first
    assert (
        "60 of 60 test images are classified wrongly; the 12 surest of them (12 images no longer in" in page
    )
    assert page.count("data:image/jpeg") == 0  # no error shown is in the folder, and those outside stay out

    rows = table.read_text().splitlines()
    table.write_text("\n".join(rows[:4]) + "\n")  # the three images that are there
    assert main([str(tmp_path / "runs")]) == 0
    assert (tmp_path / "runs/report/report.html").read_text().count("data:image/jpeg") == 3


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Chromium")
@pytest.mark.parametrize("width", [1366, 390])
def test_the_page_fits_a_laptop_and_a_phone_and_its_tables_sort(checkpoint, tmp_path, width):
    assert main([str(checkpoint)]) == 0
    page = (checkpoint / "report/report.html").read_text()
    probe = """<script>
      document.querySelectorAll("details").forEach(details => details.open = true);
      const titles = [...document.querySelectorAll("th button")];
      const title = titles.find(button => button.textContent == "test, %");
      const column = title.parentElement.cellIndex, rows = title.closest("table").tBodies[0].rows;
      const values = () => [...rows].map(row => parseFloat(row.cells[column].textContent));
      title.click(); const falling = values(); title.click(); const rising = values();
      addEventListener("load", () => parent.postMessage(
        [document.documentElement.scrollWidth, innerWidth, falling.join(), rising.join()].join(" "), "*"));
    </script>"""
    (tmp_path / "inner.html").write_text(page + probe)
    (tmp_path / "outer.html").write_text(
        "<title>waiting</title><script>onmessage = event => document.title = event.data</script>"
        f'<iframe src="inner.html" style="width: {width}px; height: 800px; border: 0"></iframe>'
    )
    command = ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
    command += ["--virtual-time-budget=5000", "--dump-dom", f"file://{tmp_path}/outer.html"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    scroll, inner, falling, rising = re.search("<title>(.*?)</title>", done.stdout)[1].split()
    assert int(inner) == width
    assert int(scroll) <= width  # what is wider scrolls in a box of its own
    falling, rising = ([float(value) for value in values.split(",")] for values in (falling, rising))
    assert falling == sorted(falling, reverse=True)
    assert rising == sorted(rising)
    assert ":CONSOLE" not in done.stderr


def test_markdown_has_every_section(checkpoint):
    evidence, left_out = gather(checkpoint, None)
    text = to_markdown(make_sections(evidence, left_out))
    assert re.findall("^#+ (.*)", text, re.MULTILINE) == [
        "Which tricks help",
        "The effect of each trick",
        "Accuracy and cost",
        "Confidences",
        "The effect of each trick on confidences",
        "Learning curves",
        "The best run, class by class",
        "The surest errors",
        "How to read this",
    ]
    assert json.dumps(text)  # plain characters, nothing that UTF-8 cannot write


def test_a_teacher_is_a_trick_whichever_file_it_was_in(tmp_path):
    made_up_run(tmp_path, "baseline", right(0.6, 0))
    made_up_run(tmp_path, "taught", right(0.8, 1), "--teacher", "a/best.pt", teacher="abc")
    evidence, _ = gather(tmp_path, None)
    assert evidence.tricks.letters("taught") == "KD"
    (comparison,) = evidence.effects
    assert comparison.words == "distillation"


def test_times_of_a_schedule_that_follow_from_the_epochs_are_no_tricks(tmp_path):
    warm = ("--decay_type", "step_warmup")
    made_up_run(tmp_path, "baseline", right(0.6, 0), "--epochs", "10", *warm)
    made_up_run(tmp_path, "longer", right(0.6, 1), "--epochs", "20", *warm)
    made_up_run(tmp_path, "dropped", right(0.6, 2), "--epochs", "10", *warm, "--milestones", "4", "8")
    made_up_run(tmp_path, "warmer", right(0.6, 3), "--epochs", "10", *warm, "--warmup_epochs", "3")
    evidence, _ = gather(tmp_path, None)
    words = {name: found.words for name, found in against(evidence, "baseline").items()}
    assert words == {
        "longer": "--epochs 20 instead of --epochs 10",
        "dropped": "--milestones (4.0, 8.0) instead of --milestones None",
        "warmer": "warm-up(3.0) instead of warm-up(usual)",
    }


def test_a_rate_that_differs_from_the_default_is_told(tmp_path):
    made_up_run(tmp_path, "baseline", right(0.6, 0))
    made_up_run(tmp_path, "slow", right(0.6, 1), "--learning_rate", "0.01")
    evidence, _ = gather(tmp_path, None)
    assert against(evidence, "baseline")["slow"].words == "SGD(0.01) instead of SGD(0.1)"
    assert evidence.tricks.letters("slow") == "SGD(0.01)"


def test_what_shares_no_seed_is_told_and_does_not_hide_the_others(tmp_path, capsys):
    flags = {"baseline": [], "m": ["--mixup", "0.2"], "s": ["--label_smooth", "0.1"]}
    flags["sm"] = flags["s"] + flags["m"]
    seeds = {"baseline": (0, 1), "m": (0, 1), "s": (0,), "sm": (1,)}
    for name in flags:
        for seed in seeds[name]:
            made_up_run(tmp_path, f"{name}/seed{seed}", right(0.6, seed), *flags[name], seed=seed)
    made_up_run(tmp_path, "later", right(0.6, 7), "--zero_gamma", seed=9)
    assert main([str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "run later has no seed in common with baseline" in out
    evidence, _ = gather(tmp_path, None)
    seeds = {name: found.estimate.spread.seeds for name, found in against(evidence, "baseline").items()}
    assert seeds == {"s": 1, "m": 2, "sm": 1}
    assert (("sm", "m"),) in evidence.findings
    assert {effect.words: effect.pairs for effect in evidence.effects}["MixUp"] == (("m", "baseline"),)


def test_the_direction_of_a_trick_does_not_hang_on_names(tmp_path):
    adam, radam = ("--optimizer", "ADAM"), ("--optimizer", "RADAM")
    mixed = ("--mixup", "0.2")
    for number, flags in enumerate(((), adam, radam, (*radam, *mixed), (*adam, *mixed))):
        made_up_run(tmp_path, f"{number}", right(0.6, number), *flags)
    evidence, _ = gather(tmp_path, None)
    pairs = {effect.words: len(effect.pairs) for effect in evidence.effects}
    assert pairs["RADAM instead of ADAM"] == 2


@pytest.mark.parametrize(
    "damage",
    [
        lambda run: (run / "result.json").write_text('{"val_accuracy": 3}'),
        lambda run: (run / "result.json").write_text(
            (run / "result.json").read_text().replace("80.0", "NaN")
        ),
        lambda run: (run / "result.json").write_text("[]"),
        lambda run: (run / "log.csv").write_text("epoch,val_accuracy,peak_memory_mb\n"),
        lambda run: (run / "log.csv").write_text("epoch\n1\n"),
        lambda run: (run / "args.json").write_text('{"flags": {}, "teacher": null}'),
        lambda run: (run / "predictions.csv").write_bytes(b""),
        lambda run: change_flag(run, "seed", "<img src=x onerror=alert(1)>"),
        lambda run: change_flag(run, "epochs", 0),
        lambda run: change_flag(run, "mixup", [1]),
        lambda run: change_flag(run, "data_dir", 5),
    ],
)
def test_a_run_with_a_damaged_file_is_left_out(checkpoint, capsys, damage):
    damage(checkpoint / "zero/seed0")
    assert main([str(checkpoint)]) == 0
    assert "run zero/seed0 has files that are damaged" in capsys.readouterr().out


def change_flag(run, name, value):
    about = json.loads((run / "args.json").read_text())
    about["flags"][name] = value
    (run / "args.json").write_text(json.dumps(about))


def test_a_picture_that_is_a_link_is_not_shown(checkpoint, tmp_path):
    (tmp_path / "secret").write_text("the secret")
    (checkpoint / "zero/seed0/learning_curve.png").symlink_to(tmp_path / "secret")
    assert main([str(checkpoint)]) == 0
    page = (checkpoint / "report/report.html").read_text()
    assert base64.b64encode(b"the secret").decode() not in page


def test_an_output_that_cannot_be_written_is_named(checkpoint, capsys):
    assert main([str(checkpoint), "--output", str(checkpoint / "zero/seed0/log.csv")]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "log.csv" in err


def test_the_best_is_that_which_validates_best_whatever_the_test_says(tmp_path):
    made_up_run(tmp_path, "baseline", right(0.9, 0), val=70)
    made_up_run(tmp_path, "mixed", right(0.5, 1), "--mixup", "0.2", val=80)
    evidence, _ = gather(tmp_path, None)
    assert evidence.best == "mixed"


def test_one_corrected_verdict_in_words_tables_and_pictures(tmp_path, monkeypatch):
    """Eight idle tricks, of which one is lucky: its own p is small, and that of eight is not."""
    tricks = {
        "smooth": ("--label_smooth", "0.1"),
        "mix": ("--mixup", "0.2"),
        "cut": ("--cutmix_alpha", "1", "--cutmix_prob", "1"),
        "rand": ("--randaugment",),
        "zero": ("--zero_gamma",),
        "erase": ("--random_erasing", "0.2"),
        "ema": ("--ema", "0.9"),
        "bias": ("--no_bias_decay",),
    }
    base = right(0.6, 0)
    made_up_run(tmp_path, "baseline", base)
    for name, flags in tricks.items():
        correct = base.copy()
        correct[np.flatnonzero(~base)[: 9 if name == "mix" else 5]] = True
        correct[np.flatnonzero(base)[: 1 if name == "mix" else 5]] = False
        made_up_run(tmp_path, name, correct, *flags)
    evidence, _ = gather(tmp_path, None)
    (lucky,) = [effect for effect in evidence.effects if effect.words == "MixUp"]
    assert lucky.estimate.p < 0.05 < lucky.p == pytest.approx(8 * lucky.estimate.p)
    assert lucky.estimate.low > 0
    compared = evidence.findings[(("mix", "baseline"),)]
    assert (compared.p, compared.verdict) == (lucky.p, "unclear")
    text = to_markdown(make_sections(evidence, []))
    assert "Nothing is shown to help." in text
    assert not re.search(r"\| (helps|hurts) ", text)
    filled = []
    monkeypatch.setattr(
        Axes, "errorbar", lambda self, *args, markerfacecolor, **kept: filled.append(markerfacecolor)
    )
    effects(evidence)
    assert filled == ["none"] * 8


def test_what_a_trick_does_over_several_pairs_is_in_the_summary_too(tmp_path):
    for network in ("ResNet18", "ResNet34", "ResNet50", "ResNet101"):
        for name, flags in (("plain", ()), ("smooth", ("--label_smooth", "0.1"))):
            correct = right(0.6 + 0.08 * bool(flags), len(network + name) * 7 + ord(network[-1]), 400)
            made_up_run(tmp_path, f"{network}_{name}", correct, "--model", network, *flags)
    evidence, _ = gather(tmp_path, "ResNet50_plain")
    (effect,) = [found for found in evidence.effects if found.words == "label smoothing"]
    assert (len(effect.pairs), effect.verdict) == (4, "helps")
    summary = make_sections(evidence, [])[0].paragraphs
    assert any(text.startswith("Helps: ") and "label smoothing (+" in text for text in summary)


@pytest.mark.parametrize("seeds", [1, 2])
def test_what_seeds_the_numbers_speak_of_is_said(tmp_path, seeds, monkeypatch):
    for seed in range(seeds):
        made_up_run(tmp_path, f"baseline/seed{seed}", right(0.6, seed), seed=seed)
    evidence, _ = gather(tmp_path, None)
    text = to_markdown(make_sections(evidence, []))
    assert ("With one seed" in text) == (seeds == 1)
    assert ("With several seeds" in text) == (seeds == 2)
    labels = []
    monkeypatch.setattr(Axes, "set_xlabel", lambda self, label, **kept: labels.append(label))
    accuracies(evidence)
    assert ("for these trained networks only" in labels[0]) == (seeds == 1)


def test_an_optimizer_with_its_own_rate_and_decay_is_one_trick(tmp_path):
    runs = {
        "baseline": (),
        "adamw": ("--optimizer", "ADAMW"),
        "decayed": ("--weight_decay", "0.05"),
        "faster": ("--optimizer", "ADAMW", "--learning_rate", "0.01"),
    }
    for number, (name, flags) in enumerate(runs.items()):
        made_up_run(tmp_path, name, right(0.6, number), *flags)
    evidence, _ = gather(tmp_path, None)

    def words(a, b):
        return [evidence.tricks.in_words(trick, a, b) for trick in evidence.tricks.differences(a, b)]

    assert words("adamw", "baseline") == ["ADAMW(0.001) instead of SGD"]
    assert words("decayed", "baseline") == ["--weight_decay 0.05 instead of --weight_decay 0.0001"]
    assert words("adamw", "decayed") == ["ADAMW(0.001) instead of SGD"]  # whose decay is the same number
    assert words("faster", "adamw") == ["ADAMW(0.01) instead of ADAMW(0.001)"]


def test_a_flag_that_a_run_is_too_old_for_counts_as_its_default(tmp_path):
    made_up_run(tmp_path, "baseline", right(0.6, 0))
    about = json.loads((tmp_path / "baseline/args.json").read_text())
    del about["flags"]["flip"]
    write_json(tmp_path / "baseline/args.json", about)
    made_up_run(tmp_path, "unflipped", right(0.6, 1), "--flip", "none")
    made_up_run(tmp_path, "plain", right(0.6, 2), "--seed", "42")
    evidence, _ = gather(tmp_path, "baseline")
    words = {name: found.words for name, found in against(evidence, "baseline").items()}
    assert words == {"unflipped": "--flip none instead of --flip horizontal", "plain": "nothing"}


def test_a_run_of_an_older_version_is_compared(tmp_path):
    """Whose files lack what nobody needs to compare it."""
    made_up_run(tmp_path, "baseline", right(0.6, 0))
    made_up_run(tmp_path, "old", right(0.6, 1), "--mixup", "0.2")
    needed = {
        "result.json": ("val_accuracy", "test_accuracy", "train_seconds", "images_per_second"),
        "args.json": ("flags",),
    }
    for file, names in needed.items():
        content = json.loads((tmp_path / "old" / file).read_text())
        write_json(tmp_path / "old" / file, {name: content[name] for name in names})
    evidence, left_out = gather(tmp_path, None)
    assert left_out == []
    assert list(evidence.experiments) == ["baseline", "old"]


def test_a_warm_up_of_no_epochs_is_none(tmp_path):
    made_up_run(tmp_path, "baseline", right(0.6, 0))
    made_up_run(tmp_path, "cold", right(0.6, 1), "--decay_type", "cosine_warmup", "--warmup_epochs", "0")
    evidence, _ = gather(tmp_path, None)
    assert evidence.tricks.letters("cold") == "C"


def test_likelihood_tells_apart_what_accuracy_cannot(tmp_path):
    """The same images are right, with confidences that are less well chosen."""
    correct = right(0.8, 0)
    for seed in (0, 1, 2):
        made_up_run(tmp_path, f"baseline/seed{seed}", correct, seed=seed)
        made_up_run(tmp_path, f"sure/seed{seed}", correct, "--mixup", "0.2", seed=seed, hotter=0.3)
    evidence, _ = gather(tmp_path, None)
    (effect,) = evidence.effects
    assert effect.verdict == "right on the same images"
    found = evidence.likelihoods[effect.pairs]
    assert found.verdict == "hurts"
    runs = {name: evidence.experiments[name].runs[0] for name in ("baseline", "sure")}
    expected = runs["sure"].log_likelihoods.mean() - runs["baseline"].log_likelihoods.mean()
    assert found.estimate.mean == pytest.approx(expected)
    assert evidence.losses["baseline"].mean == pytest.approx(-runs["baseline"].log_likelihoods.mean())
    text = to_markdown(make_sections(evidence, []))
    apart = f"MixUp (worse, {expected:+.4f} nats)"
    assert f"Told apart by their likelihood, though not by their accuracy: {apart}" in text
    assert re.search(rf"\| MixUp +\| hurts +\| {re.escape(f'{expected:+.4f}')} ", text)


def test_the_calibration_error_of_an_experiment_and_of_a_trick(tmp_path):
    correct = right(0.8, 0)
    made_up_run(tmp_path, "baseline", correct)
    made_up_run(tmp_path, "sure", correct, "--mixup", "0.2", hotter=0.3)
    evidence, _ = gather(tmp_path, None)
    errors = {}
    for name in ("baseline", "sure"):
        run = evidence.experiments[name].runs[42]
        errors[name] = calibration_error(run.uncalibrated, run.correct)
        found = evidence.calibration_errors.of(name)
        assert found.mean == pytest.approx(errors[name])
        assert 0 <= found.low < errors[name] < found.high
    ((pairs, _),) = evidence.likelihoods.items()
    change = evidence.calibration_errors.difference(pairs, [42])
    assert change.mean == pytest.approx(errors["sure"] - errors["baseline"])
    assert 10 < change.low < change.mean < change.high < 30
    same = evidence.calibration_errors.difference((("sure", "sure"),), [42])
    assert (same.mean, same.low, same.high) == (0, 0, 0)  # the same images in each resample


def test_runs_with_six_decimals_are_compared_by_accuracy_alone(tmp_path):
    for number, (name, flags) in enumerate(
        {"baseline": (), "mixed": ("--mixup", "0.2"), "old": ("--zero_gamma",)}.items()
    ):
        made_up_run(tmp_path, name, right(0.6, number), *flags)
    path = tmp_path / "old/predictions.csv"
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [title for title in rows[0] if title != "confidence"])
        writer.writeheader()
        for row in rows:
            del row["confidence"]
            writer.writerow({k: f"{float(v):.6f}" if k.startswith("prob") else v for k, v in row.items()})
    evidence, left_out = gather(tmp_path, "baseline")
    assert left_out == []
    assert evidence.losses.keys() == {"baseline", "mixed"}
    assert len(evidence.findings) == len(evidence.likelihoods) + 1
    text = to_markdown(make_sections(evidence, []))
    assert "Of an older version, with six decimals of each probability: old." in text


def test_columns_are_read_by_their_names(tmp_path):
    made_up_run(tmp_path, "baseline", right(0.6, 0))
    expected = read_predictions(tmp_path / "baseline/predictions.csv")
    with (tmp_path / "baseline/predictions.csv").open(newline="") as file:
        titles, *rows = csv.reader(file)
    order = [2, 4, 0, 3, 1, *range(5, len(titles))]
    with (tmp_path / "other.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["extra", *(titles[place] for place in order)])
        writer.writerows(["?", *(row[place] for place in order)] for row in rows)
    found = read_predictions(tmp_path / "other.csv")
    assert found.paths == expected.paths
    for name in ("labels", "predictions", "probabilities", "confidences"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


@pytest.mark.parametrize("count", [3, 24])
def test_the_best_run_is_told_class_by_class(tmp_path, count):
    classes = [f"class{number:02d}" for number in range(count)]
    made_up_run(tmp_path, "baseline", right(0.6, 0), classes=classes, val=70)
    made_up_run(tmp_path, "mixed", right(0.7, 1), "--mixup", "0.2", classes=classes, val=80)
    evidence, _ = gather(tmp_path, None)
    (section,) = [each for each in make_sections(evidence, []) if each.title.startswith("The best run")]
    run = evidence.experiments["mixed"].runs[42]
    assert "mixed with seed 42, the run of the best experiment" in section.paragraphs[0]
    assert f"macro-F1 {run.confusion.macro_f1:.2f} %" in section.paragraphs[0]
    assert ("top-5 accuracy" in section.paragraphs[0]) == (count > 20)
    assert len(section.rows) == min(count, 20)
    assert ("the 20 worst of 24 classes" in section.paragraphs[1]) == (count > 20)
    assert section.paragraphs[2].startswith("Confused most often: ")
    for name, images, precision, recall, _ in section.rows:
        label = classes.index(name)
        assert int(images) == (run.labels == label).sum()
        assert recall == f"{100 * run.correct[run.labels == label].mean():.2f}"
        assert precision == f"{100 * run.correct[run.predictions == label].mean():.2f}"
    assert [float(row[-1]) for row in section.rows] == sorted(float(row[-1]) for row in section.rows)


def test_the_interval_of_a_calibration_error_covers_what_other_images_show():
    rng = np.random.default_rng(0)

    def run(images):
        confidences = rng.uniform(0.4, 1, images)
        correct = rng.random(images) < confidences - 0.05
        names = ("uncalibrated", "correct", "labels")
        return SimpleNamespace(**dict(zip(names, (confidences, correct, correct), strict=True)))

    usual = np.mean([calibration_error(each.uncalibrated, each.correct) for each in map(run, [200] * 2000)])
    studies = [Experiment(str(number), {0: run(200)}) for number in range(1000)]
    errors = CalibrationErrors(studies)
    found = [errors.of(study.name) for study in studies]
    covered = np.mean([each.low <= usual <= each.high for each in found])
    assert 0.965 < covered < 0.992  # a little too wide


def test_confidences_are_compared_as_trained_and_shown_calibrated(tmp_path):
    made_up_run(tmp_path, "baseline", right(0.6, 0), temperature=3.0)
    made_up_run(tmp_path, "mixed", right(0.6, 1), "--mixup", "0.2", temperature=3.0)
    evidence, _ = gather(tmp_path, None)
    run = evidence.experiments["baseline"].runs[42]
    with (tmp_path / "baseline/predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    raw = [max(float(row[f"probability_{name}"]) for name in CLASSES) for row in rows]
    np.testing.assert_allclose(run.uncalibrated, raw)
    np.testing.assert_allclose(run.confidences, [float(row["confidence"]) for row in rows])
    assert (run.confidences < run.uncalibrated).all()
    error = evidence.calibration_errors.of("baseline").mean
    assert error == pytest.approx(calibration_error(np.array(raw), run.correct))


def test_what_accuracy_tells_too_is_not_told_again(checkpoint):
    evidence, _ = gather(checkpoint, None)
    pairs = next(pairs for pairs in evidence.likelihoods if pairs == (("smooth", "baseline"),))
    assert evidence.likelihoods[pairs].verdict == evidence.findings[pairs].verdict == "helps"
    assert "though not by their accuracy" not in to_markdown(make_sections(evidence, []))


def test_a_network_that_is_sure_and_wrong_has_a_likelihood(tmp_path):
    """Its probability of the right class is too small for a number."""
    made_up_run(tmp_path, "baseline", right(0.6, 0))
    made_up_run(tmp_path, "sure", right(0.6, 1), "--mixup", "0.2", hotter=1e-3)
    text = (tmp_path / "sure/predictions.csv").read_text()
    assert ",0," not in text
    assert ",0\n" not in text
    evidence, _ = gather(tmp_path, None)
    assert all(np.isfinite([loss.mean, loss.low, loss.high]).all() for loss in evidence.losses.values())


def test_a_trick_is_told_by_its_pairs_that_have_all_digits(tmp_path):
    for number, (name, flags) in enumerate(
        {
            "baseline": (),
            "mixed": ("--mixup", "0.2"),
            "smooth": ("--label_smooth", "0.1"),
            "both": ("--mixup", "0.2", "--label_smooth", "0.1"),
        }.items()
    ):
        made_up_run(tmp_path, name, right(0.6, number), *flags)
    path = tmp_path / "baseline/predictions.csv"
    path.write_text(path.read_text().replace(",confidence,", ",another,", 1))
    evidence, _ = gather(tmp_path, None)
    (pairs,) = [effect.pairs for effect in evidence.effects if effect.words == "MixUp"]
    assert len(pairs) == 2
    assert evidence.likelihoods[pairs].pairs == (("both", "smooth"),)
    text = to_markdown(make_sections(evidence, []))
    assert "If every confidence of baseline" not in text
    assert "Of an older version, with six decimals of each probability: baseline." in text


def test_packed_runs_make_the_same_report(checkpoint, tmp_path, capsys):
    for run in checkpoint.rglob("args.json"):
        change_flag(run.parent, "data_dir", "/secret/place/photographs")
    packed = tmp_path / "runs.zip"
    assert main([str(checkpoint), "--pack", str(packed)]) == 0
    assert "6 runs in" in capsys.readouterr().out
    first = packed.read_bytes()
    assert main([str(checkpoint), "--pack", str(packed)]) == 0
    assert packed.read_bytes() == first
    assert main([str(checkpoint), "--output", str(tmp_path / "plain")]) == 0
    assert main([str(packed)]) == 0
    texts = [(folder / "report.md").read_text() for folder in (tmp_path / "plain", tmp_path / "runs/report")]
    # Of an archive no images are looked for, which might be somebody else's.
    assert texts[0].replace(" (12 images no longer in /secret/place/photographs)", "") == texts[1]
    with zipfile.ZipFile(packed) as archive:
        assert {Path(name).name for name in archive.namelist()} == {
            *("args.json", "result.json", "log.csv", "predictions.csv")
        }
        everything = b"".join(map(archive.read, archive.namelist()))
    assert b"photographs" in everything
    assert b"secret" not in everything
    probabilities = [line for line in everything.splitlines() if line.startswith(b"test/")]
    assert max(len(digits) for digits in re.findall(rb"\.0*(\d+)", b"".join(probabilities))) == 5


def test_packing_leaves_nothing_out_in_silence_and_destroys_nothing(checkpoint, tmp_path, capsys):
    (checkpoint / "zero/seed0/result.json").unlink()
    (checkpoint / "zero/seed1/args.json").write_text("no JSON")
    packed = tmp_path / "runs.zip"
    assert main([str(checkpoint), "--pack", str(packed)]) == 0
    out = capsys.readouterr().out
    assert "left out run zero/seed0 is not finished" in out
    assert "left out run zero/seed1 has files that are damaged" in out
    assert "4 runs in" in out
    first = packed.read_bytes()
    assert main([str(packed), "--pack", str(packed)]) == 0  # packed runs can be packed
    assert packed.read_bytes() == first
    for argv in (
        [str(tmp_path / "nowhere"), "--pack", str(packed)],
        ["--pack", "a.zip", str(tmp_path / "nowhere")],
    ):
        assert main(argv) == 2
    assert packed.read_bytes() == first
    for more in (["--baseline", "a"], ["--output", "b"]):
        with pytest.raises(SystemExit):
            main([str(checkpoint), "--pack", str(packed), *more])


@pytest.mark.parametrize("place", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_a_damaged_archive_is_one_line(checkpoint, tmp_path, capsys, place):
    packed = tmp_path / "runs.zip"
    assert main([str(checkpoint), "--pack", str(packed)]) == 0
    content = bytearray(packed.read_bytes())
    content[int(place * len(content))] ^= 0xFF
    packed.write_bytes(content)
    capsys.readouterr()
    code = main([str(packed)])
    assert code in (0, 2)  # a date may be any
    assert capsys.readouterr().err.count("\n") == (code == 2)


def test_what_is_no_packed_file_is_refused(tmp_path, capsys):
    (tmp_path / "runs.zip").write_text("no runs")
    assert main([str(tmp_path / "runs.zip")]) == 2
    err = capsys.readouterr().err
    assert "runs.zip is no file of packed runs" in err
    assert err.count("\n") == 1


def test_an_archive_of_something_else_is_named_as_it_was_given(tmp_path, capsys):
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("notes.txt", "no runs")
    assert main([str(tmp_path / "other.zip")]) == 2
    assert f"report: {tmp_path}/other.zip holds no packed runs" in capsys.readouterr().err


def test_runs_of_other_lengths_are_named_and_never_best(tmp_path):
    made_up_run(tmp_path, "baseline", right(0.6, 0), val=70)
    made_up_run(tmp_path, "mixed", right(0.6, 1), "--mixup", "0.2", val=75)
    made_up_run(tmp_path, "longer", right(0.9, 2), "--epochs", "200", val=90)
    evidence, _ = gather(tmp_path, None)
    assert evidence.best == "mixed"
    text = to_markdown(make_sections(evidence, []))
    assert "Of other numbers of epochs than the 120 of baseline, and so never the best: longer (200)." in text


def test_runs_that_were_not_computed_alike_are_said_to_differ(tmp_path):
    for number, (precision, device) in enumerate({"fp32": "CPU, 2 threads", "bf16": "a card"}.items()):
        for seed in (0, 1):
            name = f"{precision}/seed{seed}"
            made_up_run(tmp_path, name, right(0.6, seed), *(["--mixup", "0.2"] * number), seed=seed)
            about = json.loads((tmp_path / name / "args.json").read_text())
            write_json(tmp_path / name / "args.json", {**about, "precision": precision, "device": device})
    evidence, _ = gather(tmp_path, "fp32")
    text = to_markdown(make_sections(evidence, []))
    assert "same precision, so that accuracies may differ by that: fp32 (2 runs), bf16 (2 runs)." in text
    assert "same device, so that times may differ by that: CPU, 2 threads (2 runs), a card (2 runs)." in text
    shutil.rmtree(tmp_path / "bf16")
    evidence, _ = gather(tmp_path, "fp32")
    assert "Not all have" not in to_markdown(make_sections(evidence, []))


def test_the_demos_own_run_is_no_experiment(tmp_path):
    for name in ("baseline", "demo"):
        made_up_run(tmp_path, name, right(0.6, 0), "--demo")
    evidence, left_out = gather(tmp_path, None)
    assert list(evidence.experiments) == ["baseline"]
    assert left_out == ["run demo is the demo's own"]
    shutil.rmtree(tmp_path / "baseline")
    evidence, _ = gather(tmp_path, None)  # alone it is shown
    assert list(evidence.experiments) == ["demo"]


def test_a_difference_that_is_shown_to_be_small(tmp_path):
    base = right(0.85, 0, 20_000)
    other = base.copy()
    other[np.flatnonzero(base)[:40]] = False
    other[np.flatnonzero(~base)[:45]] = True
    made_up_run(tmp_path, "baseline", base)
    made_up_run(tmp_path, "zero", other, "--zero_gamma")
    evidence, _ = gather(tmp_path, None)
    (effect,) = evidence.effects
    assert effect.verdict == "less than a point"
    text = to_markdown(make_sections(evidence, []))
    assert "Nothing is shown to help." in text
    assert "Shown to make less than 1 point of difference: zero gamma." in text


def test_the_demos_own_run_is_no_baseline(tmp_path):
    many = ("--mixup", "0.2", "--ema", "0.9", "--zero_gamma", "--label_smooth", "0.1", "--crop", "center")
    made_up_run(tmp_path, "demo", right(0.6, 0), "--demo")
    made_up_run(tmp_path, "first", right(0.6, 0), *many)
    evidence, _ = gather(tmp_path, None)
    assert list(evidence.experiments) == ["first"]


def test_time_is_the_median_over_epochs_whatever_one_neighbour_does(tmp_path):
    for name, speeds in {"baseline": (100, 100, 100), "zero": (100, 10, 100)}.items():
        made_up_run(tmp_path, name, right(0.6, 0), *(["--zero_gamma"] if name == "zero" else []))
        path = tmp_path / name / "log.csv"
        with path.open(newline="") as file:
            row = next(csv.DictReader(file))
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, row)
            writer.writeheader()
            writer.writerows(row | {"epoch": n, "images_per_second": v} for n, v in enumerate(speeds, 1))
    evidence, _ = gather(tmp_path, None)
    (effect,) = evidence.effects
    assert evidence.times(effect.pairs) == (1, 1, 1)
    low, middle, high = evidence.experiments["zero"].minutes
    assert low == middle == pytest.approx(3 * 100 / 100 / 60)
    assert high > 1.5 * middle  # which is told as noise
