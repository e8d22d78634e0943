"""What the report says, in sections of text, tables and pictures."""

import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

from learning.results import PAGE
from learning.sections import MANY_CLASSES, class_section, error_section
from utils.page import Picture, Section
from utils.page import text as html
from utils.report import pictures
from utils.report.comparison import (
    HELPS,
    HURTS,
    SAME,
    SMALL,
    SMALL_EFFECT,
    UNKNOWN,
    WORTH_SEEING,
    Evidence,
    Finding,
    takes,
)
from utils.report.confidence import unavoidable_error
from utils.report.statistics import LEVEL, POWER
from utils.text import count

NAMED = 6  # tricks in a sentence


def make_sections(evidence: Evidence, left_out: Sequence[str], with_images: bool = True) -> list[Section]:
    """All sections in order; `left_out` says which runs are not among the evidence.

    Without images none is looked for where the runs were made.
    """
    sections = [_verdict(evidence)]
    if evidence.effects:
        figure = pictures.effects(evidence)
        sections.append(
            Section(
                "The effect of each trick",
                [
                    "On test accuracy, in points: the mean over all pairs of experiments that differ by that "
                    "trick alone. Time is that of training, as a multiple of what it takes without: the "
                    "median over pairs and seeds, with the lowest and the highest."
                ],
                *effects_table(evidence),
                [
                    Picture(
                        "effects", "The effect of each trick on test accuracy, with 95 % intervals", figure
                    )
                ],
            )
        )
    sections.append(_accuracies(evidence))
    if evidence.compared:
        sections.append(_comparisons(evidence))
    if evidence.losses:
        sections.append(_confidences(evidence))
    if any(effect.pairs in evidence.likelihoods for effect in evidence.effects):
        sections.append(_effects_on_confidences(evidence))
    curves = Picture(
        "learning_curves",
        "Validation accuracy by epoch, a panel for each network and optimizer",
        pictures.learning_curves(evidence),
    )
    sections += [
        Section("Learning curves", pictures=[curves]),
        *_best_run(evidence, with_images),
        _how_to_read(evidence),
    ]
    if left_out:
        sections.append(Section("Left out", list(left_out)))
    return sections


def _verdict(evidence: Evidence) -> Section:
    """What the evidence comes to."""
    best = evidence.experiments[evidence.best]
    runs = sum(len(found.runs) for found in evidence.experiments.values())
    findings: dict[str, list[tuple[str, Finding]]] = {}
    told_of = _told(evidence)
    for words, finding in told_of:
        findings.setdefault(finding.verdict, []).append((words, finding))
    paragraphs = []
    for kind, verb in ((HELPS, "Helps"), (HURTS, "Hurts")):
        if found := findings.pop(kind, None):
            found = found[::-1] if kind == HURTS else found  # the strongest first
            told = [
                f"{words} ({finding.estimate.mean:+.2f} points{_if_one_seed(finding)})"
                for words, finding in found
            ]
            paragraphs.append(f"{verb}: {_listed(told)}.")
        elif kind == HELPS and told_of:
            paragraphs.append("Nothing is shown to help.")
    if found := findings.pop(SMALL, None):
        told = [words for words, _ in found]
        paragraphs.append(f"Shown to make less than {SMALL_EFFECT:g} point of difference: {_listed(told)}.")
    if found := findings.pop(SAME, None):
        paragraphs.append(f"Right on the same images: {_listed([words for words, _ in found])}.")
    if unknown := findings.get(UNKNOWN):
        names = [words for words, _ in unknown]
        seeds = [finding.estimate.spread.seeds for _, finding in unknown]
        several = f"{min(seeds)} or " * (min(seeds) < max(seeds)) + count(max(seeds), "seed")
        paragraphs.append(f"Unclear, on {evidence.images:,} test images with {several}: {_listed(names)}.")
    paragraphs.append(
        f"Best on the validation images: {best.name}, with a test accuracy of "
        f"{_mean_and_deviation(best.mean('test_accuracy'), best.deviation('test_accuracy'))} %."
    )
    shared = evidence.tricks.shared()
    also = f"; all have in common: {', '.join(shared)}" if shared else ""
    paragraphs.append(
        f"{count(len(evidence.experiments), 'experiment')} in {count(runs, 'run')}, compared with "
        f"{evidence.baseline} on the same {evidence.images:,} test images{also}."
    )
    return Section("Which tricks help", [*paragraphs, *_unlike(evidence)], card=True)


def _if_one_seed(finding: Finding) -> str:
    return ", for these networks: one seed" if finding.estimate.spread.seeds == 1 else ""


def _unlike(evidence: Evidence) -> Iterator[str]:
    """In what the runs were not computed alike, which may be what tells them apart."""
    runs = [run for found in evidence.experiments.values() for run in found.runs.values()]
    for what, consequence in (("precision", "accuracies"), ("device", "times")):
        counts = Counter(getattr(run, what) for run in runs)
        if len(counts) > 1:
            named = [f"{name or 'unknown'} ({count(number, 'run')})" for name, number in counts.items()]
            told = ", ".join(named)
            yield f"Not all have the same {what}, so that {consequence} may differ by that: {told}."


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _told(evidence: Evidence) -> list[tuple[str, Finding]]:
    """The findings that the verdict names: the tricks, and the experiments that differ by several."""
    baseline = evidence.baseline
    several = [
        (f"{found.pairs[0][0]} against {baseline}", found)
        for found in evidence.compared
        if found.pairs[0][1] == baseline and len(evidence.tricks.differences(*found.pairs[0])) > 1
    ]
    return [*((effect.words, effect) for effect in evidence.effects), *several]


def effects_table(evidence: Evidence) -> tuple[list[str], list[list[str]]]:
    """The columns and rows of the effect of each trick."""
    rows = [
        [
            effect.words,
            effect.verdict,
            *_figures(effect),
            *_time(evidence, effect),
            takes(effect.estimate),
            str(len(effect.pairs)),
        ]
        for effect in evidence.effects
    ]
    return ["trick", "verdict", *FIGURES, *TIME, TAKES, "pairs"], rows


def accuracies_table(evidence: Evidence) -> tuple[list[str], list[list[str]]]:
    """The columns and rows of the accuracies of experiments."""
    every_run = [run for found in evidence.experiments.values() for run in found.runs.values()]
    accuracies = {"validation, %": "val_accuracy", "test, %": "test_accuracy"}
    if any(run.flags.get("class_weights") == "balanced" for run in every_run):
        accuracies["balanced test, %"] = "balanced_accuracy"
    rows = []
    for name, found in evidence.experiments.items():
        figures = [
            _mean_and_deviation(found.mean(each), found.deviation(each)) for each in accuracies.values()
        ]
        marks = {"baseline": name == evidence.baseline != "baseline", "best": name == evidence.best}
        told = ", ".join(mark for mark, holds in marks.items() if holds)
        low, middle, high = found.minutes
        rows.append(
            [
                f"{name} ({told})" if told else name,
                *figures,
                str(len(found.runs)),
                f"{middle:.2f}",
                f"{100 * (high - low) / middle:.0f} %" if found.noise_is_known else "-",
                f"{found.mean('images_per_second'):.0f}",
                f"{max(run.memory for run in found.runs.values()):.0f}",
                evidence.tricks.letters(name),
            ]
        )
    columns = [
        "experiment",
        *accuracies,
        "seeds",
        "minutes",
        "noise",
        "images a second",
        "peak memory, MB",
        "tricks",
    ]
    return columns, rows


def _accuracies(evidence: Evidence) -> Section:
    columns, rows = accuracies_table(evidence)
    legend = ", ".join(f"{short} = {name}" for short, name in evidence.tricks.legend().items())
    text = [
        "Of the epoch that validated best; mean ± standard deviation over the seeds. Minutes are those of "
        "training, at the median speed; noise is how far the quartiles of the speed are apart, as a share of "
        "it."
    ]
    epochs = {name: found.epochs for name, found in evidence.experiments.items()}
    usual = epochs[evidence.baseline]
    if others := [f"{name} ({number})" for name, number in epochs.items() if number != usual]:
        text.append(
            f"Of other numbers of epochs than the {usual} of {evidence.baseline}, and so never the best: "
            f"{', '.join(others)}."
        )
    if "balanced test, %" in columns:
        text.append(
            "Balanced: the mean over classes, by which runs with class weights choose their epoch. The best "
            "experiment and all comparisons go by the accuracy over all images."
        )
    text += [f"{legend}."] if legend else []
    words = "Test accuracy of each experiment, with 95 % intervals, and its minutes of training"
    picture = Picture("accuracies", words, pictures.accuracies(evidence))
    return Section("Accuracy and cost", text, columns, rows, [picture])


def _comparisons(evidence: Evidence) -> Section:
    rows = [
        [
            *finding.pairs[0],
            finding.words,
            finding.verdict,
            *_figures(finding),
            *_time(evidence, finding),
            takes(finding.estimate),
            str(finding.estimate.spread.seeds),
        ]
        for finding in evidence.compared
    ]
    columns = ["experiment", "against", "differs by", "verdict", *FIGURES, *TIME, TAKES, "seeds"]
    text = (
        f"Against {evidence.baseline}, and against the experiment that differs by one trick alone (where "
        "there are several of those, by the one added last). What the table of tricks shows is left out."
    )
    return Section("One experiment against another", [text], columns, rows)


def _confidences(evidence: Evidence) -> Section:
    errors = evidence.calibration_errors
    first = evidence.baseline if evidence.baseline in evidence.losses else next(iter(evidence.losses))
    least = unavoidable_error(evidence.experiments[first])
    rows = []
    for name, loss in evidence.losses.items():
        error = errors.of(name)
        figures = [f"{loss.mean:.4f}", f"{loss.low:.4f} to {loss.high:.4f}", f"{error.mean:.2f}"]
        rows.append([name, *figures, f"{error.low:.2f} to {error.high:.2f}"])
    text = [
        "Of the probabilities as trained, before a temperature is fitted. The negative log-likelihood is the "
        "mean of -log p of the right classes, in nats. The calibration error is how far confidences are from "
        "the share of right ones, in points, in 15 bins of equal size; its interval is of a bootstrap "
        f"over the test images. If every confidence of {first} were right, so many images "
        f"would still show an error of about {least:.2f} points. The log-likelihood is a finer measure than "
        "right or wrong, and may tell apart what accuracy cannot.",
    ]
    told = [
        f"{words} ({'better' if found.estimate.mean > 0 else 'worse'}, {found.estimate.mean:+.4f} nats)"
        for words, finding in _told(evidence)
        if (found := evidence.likelihoods.get(finding.pairs)) and found.p < LEVEL <= finding.p
    ]
    if told:
        text.append(f"Told apart by their likelihood, though not by their accuracy: {'; '.join(told)}.")
    if left_out := [name for name in evidence.experiments if name not in evidence.losses]:
        text.append(f"Of an older version, with six decimals of each probability: {', '.join(left_out)}.")
    columns = ["experiment", "negative log-likelihood", "95 % interval", "calibration error", "95 % interval"]
    return Section("Confidences", text, columns, rows)


def _effects_on_confidences(evidence: Evidence) -> Section:
    errors = evidence.calibration_errors
    rows = []
    for effect in evidence.effects:
        if found := evidence.likelihoods.get(effect.pairs):
            error = errors.difference(found.pairs, evidence.seeds_of(found.pairs))
            change = [f"{error.mean:+.2f}", f"{error.low:+.2f} to {error.high:+.2f}"]
            rows.append([effect.words, found.verdict, *_figures(found, digits=4), *change])
    text = [
        "On the log-likelihood, in nats, of which more is better, with the same statistics as accuracy and a "
        "correction of its own; and on the calibration error, in points, of which less is better, without a "
        "verdict.",
    ]
    columns = ["trick", "verdict", "nats", *FIGURES[1:], "calibration error", "95 % interval"]
    return Section("The effect of each trick on confidences", text, columns, rows)


def _best_run(evidence: Evidence, with_images: bool) -> list[Section]:
    """The classes and the surest errors of the run of the best experiment that validated best."""
    runs = evidence.experiments[evidence.best].runs.values()
    best = max(runs, key=lambda run: run.val_accuracy)
    text = (
        f"{best.experiment} with seed {best.seed}, the run of the best experiment that validated best: test "
        f"accuracy {best.test_accuracy:.2f} %, macro-F1 {best.confusion.macro_f1:.2f} %"
    )
    if len(best.classes) > MANY_CLASSES:
        text += f", top-5 accuracy {best.top_accuracy:.2f} %"
    classes = class_section(best.confusion, best.classes, f"{best.experiment}, seed {best.seed}")
    classes.title = "The best run, class by class"
    classes.paragraphs.insert(0, f"{text}.")
    root, crop = Path(best.flags["data_dir"]) if with_images else None, best.flags["crop"] != "none"
    seen = (best.labels, best.predictions, best.confidences)
    return [classes, error_section(root, crop, best.paths, best.classes, *seen)]


def runs_section(evidence: Evidence, folder: Path) -> Section:
    """Every run with its figures, and with a way to its own page from a page in `folder`."""
    lines = []
    for found in evidence.experiments.values():
        for run in found.runs.values():
            name = html(f"{run.experiment}, seed {run.seed}")
            page = run.folder / PAGE
            if page.is_file() and not page.is_symlink():
                address = quote(os.path.relpath(page, folder))
                name = f'<a href="{html(address)}">{name}</a>'
            figures = f"test {run.test_accuracy:.2f} %, validation {run.val_accuracy:.2f} %"
            lines.append(f"<li>{name}: {figures}</li>")
    return Section(f"The {count(len(lines), 'run')}", more=f"<ul>{''.join(lines)}</ul>", folded=True)


FIGURES = ("points", "95 % interval", "p", "p (Holm)")
TIME = ("time", "from to")
TAKES = f"to see {WORTH_SEEING:g} points takes"


def _figures(finding: Finding, digits: int = 2) -> list[str]:
    """The columns `FIGURES`, of which the first is in another unit if the finding is."""
    estimate = finding.estimate
    interval = f"{estimate.low:+.{digits}f} to {estimate.high:+.{digits}f}"
    return [f"{estimate.mean:+.{digits}f}", interval, _p(estimate.p), _p(finding.p)]


def _time(evidence: Evidence, finding: Finding) -> list[str]:
    """The columns `TIME`."""
    low, middle, high = evidence.times(finding.pairs)
    return [f"{middle:.2f}", f"{low:.2f} to {high:.2f}"]


def _how_to_read(evidence: Evidence) -> Section:
    seeds = {found.spread.seeds for found in evidence.accuracies.values()}
    seeds |= {finding.estimate.spread.seeds for finding in evidence.findings.values()}
    paragraphs = [
        "Each run's epoch was chosen on the validation images; the test images were classified after the "
        "training and have decided nothing. To choose an experiment, look at its validation accuracy.",
        "An interval covers the true difference in 95 of 100 cases, and p is the chance of a difference as "
        "large if there were none, both on the same images for both experiments. Of many findings some come "
        f"out by luck: a verdict, and a filled dot in a picture, needs a p below {LEVEL:g} after Holm's "
        "correction for all that are made here, so an interval may leave out 0 without one. For "
        f'"{SMALL}" an interval that is as careful has to lie between -{SMALL_EFFECT:g} and '
        f"+{SMALL_EFFECT:g} points.",
        f"What it takes to see {WORTH_SEEING:g} points is for a chance of {POWER:.0%}, for one "
        "comparison without correction.",
    ]
    if seeds - {1}:
        paragraphs.append(
            "With several seeds, intervals and p are of Student's t, and say what other seeds and images "
            "would do. How much seeds differ is taken from the experiments that are compared and from no "
            "other. Two seeds say little about it, so that only large differences can be told; three say "
            "much more."
        )
    if 1 in seeds:
        paragraphs.append(
            "With one seed, intervals and p (of a pair McNemar's exact test, whose p may be above 0.05 where "
            "the interval just leaves out 0) speak of these trained networks only: another seed may come out "
            "otherwise with the same flags. Take several before you believe little."
        )
    return Section("How to read this", paragraphs, folded=True)


def _mean_and_deviation(mean: float, deviation: float) -> str:
    return f"{mean:.2f}" if math.isnan(deviation) else f"{mean:.2f} ± {deviation:.2f}"


def _p(p: float) -> str:
    return "<0.001" if p < 0.001 else f"{p:.3f}"
