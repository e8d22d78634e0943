"""What the report says, in sections of text, tables and pictures."""

import math
from collections.abc import Sequence

from learning.results import MANY_CLASSES, class_table
from utils.page import Section
from utils.report.comparison import WORTH_SEEING, Evidence, Finding, takes
from utils.report.confidence import unavoidable_error
from utils.report.statistics import LEVEL, POWER
from utils.text import count


def make_sections(evidence: Evidence, left_out: Sequence[str]) -> list[Section]:
    """All sections in order; `left_out` says which runs are not among the evidence."""
    sections = [_summary(evidence), _accuracies(evidence)]
    if evidence.against_baseline:
        text = f"The difference in test accuracy to {evidence.baseline}, in points."
        sections.append(_comparisons("Against the baseline", text, evidence.against_baseline))
    if evidence.against_relative:
        text = (
            "The difference in test accuracy to the experiment that differs by one trick alone, in points. "
            "Where there are several of those, it is the one that lacks the trick added last."
        )
        sections.append(_comparisons("Against the nearest relative", text, evidence.against_relative))
    if evidence.effects:
        sections.append(_effects(evidence))
    if evidence.losses:
        sections.append(_confidences(evidence))
    if any(effect.pairs in evidence.likelihoods for effect in evidence.effects):
        sections.append(_effects_on_confidences(evidence))
    sections.append(_classes(evidence))
    pictures = {"learning_curves.png": "Validation accuracy by epoch, a panel for each network and optimizer"}
    sections += [Section("Learning curves", pictures=pictures), _how_to_read(evidence)]
    if left_out:
        sections.append(Section("Left out", list(left_out)))
    return sections


def _summary(evidence: Evidence) -> Section:
    best = evidence.experiments[evidence.best]
    runs = sum(len(found.runs) for found in evidence.experiments.values())
    paragraphs = [
        f"{count(len(evidence.experiments), 'experiment')} in {count(runs, 'run')}, tested on the same "
        f"{evidence.images:,} images.",
        f"Best on the validation images: {best.name}, with a test accuracy of "
        f"{_mean_and_deviation(best.mean('test_accuracy'), best.deviation('test_accuracy'))} %.",
    ]
    shared = evidence.tricks.shared()
    if shared:
        paragraphs.append(f"All have in common: {', '.join(shared)}.")
    told: dict[str, list[str]] = {}
    findings = _told(evidence)
    for what, finding in findings:
        told.setdefault(finding.verdict, []).append(f"{what} ({finding.estimate.mean:+.2f} points)")
    for verdict, title in (("helps", "More accurate"), ("hurts", "Less accurate")):
        if verdict in told:
            paragraphs.append(f"{title}: {'; '.join(told[verdict])}.")
    if unknown := told.get("cannot be told apart"):
        paragraphs.append(
            f"{len(unknown)} of {len(findings)} comparisons cannot be told apart with so many images "
            "and seeds."
        )
    return Section("Which tricks help", paragraphs)


def _told(evidence: Evidence) -> list[tuple[str, Finding]]:
    """The comparisons that the summary tells, in words: of experiments, and of tricks over several pairs."""
    findings = [*evidence.compared, *(effect for effect in evidence.effects if len(effect.pairs) > 1)]
    found = []
    for finding in findings:
        (name, other), *more = finding.pairs
        words = f"{finding.words} over {len(finding.pairs)} pairs" if more else f"{name} against {other}"
        found.append((words, finding))
    return found


def _accuracies(evidence: Evidence) -> Section:
    rows = []
    every_run = [run for found in evidence.experiments.values() for run in found.runs.values()]
    accuracies = {"validation, %": "val_accuracy", "test, %": "test_accuracy"}
    if any(run.flags.get("class_weights") == "balanced" for run in every_run):
        accuracies["balanced test, %"] = "balanced_accuracy"
    for name, found in evidence.experiments.items():
        runs = list(found.runs.values())
        figures = [
            _mean_and_deviation(found.mean(each), found.deviation(each)) for each in accuracies.values()
        ]
        marks = {"baseline": name == evidence.baseline != "baseline", "best": name == evidence.best}
        told = ", ".join(mark for mark, holds in marks.items() if holds)
        rows.append(
            [
                f"{name} ({told})" if told else name,
                evidence.tricks.letters(name),
                *figures,
                str(len(runs)),
                f"{found.mean('minutes'):.2f}",
                f"{found.mean('images_per_second'):.0f}",
                f"{max(run.memory for run in runs):.0f}",
            ]
        )
    columns = ["experiment", "tricks", *accuracies, "seeds"]
    columns += ["minutes of training", "images a second", "peak memory, MB"]
    legend = ", ".join(f"{short} = {name}" for short, name in evidence.tricks.legend().items())
    text = ["Of the epoch that validated best; mean ± standard deviation over the seeds."]
    if len(accuracies) > 2:
        text.append(
            "Balanced: the mean over classes, by which runs with class weights choose their epoch. The best "
            "experiment and all comparisons go by the accuracy over all images."
        )
    text += [f"{legend}."] if legend else []
    pictures = {
        "accuracies.png": "Test accuracy of each experiment, with 95 % intervals",
        "cost.png": "Test accuracy against minutes of training",
    }
    return Section("Accuracy", text, columns, rows, pictures)


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
            rows.append([effect.words, *_figures(found, digits=4), *change, str(len(found.pairs))])
    text = [
        "The mean over all pairs of experiments that differ by that trick alone: on the log-likelihood, in "
        "nats, of which more is better, with the same statistics as accuracy and a correction of its own; "
        "and on the calibration error, in points, of which less is better, without a verdict.",
    ]
    columns = ["trick", "nats", *FIGURES[1:], "calibration error", "95 % interval", "pairs"]
    return Section("The effect of each trick on confidences", text, columns, rows)


def _classes(evidence: Evidence) -> Section:
    """The figures of each class in the run of the best experiment that validated best."""
    runs = evidence.experiments[evidence.best].runs.values()
    best = max(runs, key=lambda run: run.val_accuracy)
    columns, rows, more = class_table(best.confusion, best.classes)
    text = (
        f"{best.experiment} with seed {best.seed}, the run of the best experiment that validated best: test "
        f"accuracy {best.test_accuracy:.2f} %, macro-F1 {best.confusion.macro_f1:.2f} %"
    )
    if len(best.classes) > MANY_CLASSES:
        text += f", top-5 accuracy {best.top_accuracy:.2f} %"
    return Section(
        "The best run, class by class", [f"{text}. The worst class comes first{more}."], columns, rows
    )


def _comparisons(title: str, text: str, findings: Sequence[Finding]) -> Section:
    rows = [
        [
            *finding.pairs[0],
            finding.words,
            *_figures(finding),
            takes(finding.estimate),
            str(finding.estimate.spread.seeds),
        ]
        for finding in findings
    ]
    columns = ["experiment", "against", "differs by", *FIGURES]
    columns += [f"to see {WORTH_SEEING:g} points takes", "seeds"]
    return Section(title, [text], columns, rows)


def _effects(evidence: Evidence) -> Section:
    rows = [[effect.words, *_figures(effect), str(len(effect.pairs))] for effect in evidence.effects]
    text = (
        "The mean over all pairs of experiments that differ by that trick alone, in points of test accuracy."
    )
    pictures = {"effects.png": "The effect of each trick on test accuracy, with 95 % intervals"}
    return Section("The effect of each trick", [text], ["trick", *FIGURES, "pairs"], rows, pictures)


FIGURES = ("points", "95 % interval", "p", "p (Holm)", "verdict")


def _figures(finding: Finding, digits: int = 2) -> list[str]:
    """The columns `FIGURES`, of which the first is in another unit if the finding is."""
    estimate = finding.estimate
    interval = f"{estimate.low:+.{digits}f} to {estimate.high:+.{digits}f}"
    figures = [f"{estimate.mean:+.{digits}f}", interval, _p(estimate.p), _p(finding.p)]
    return [*figures, finding.verdict]


def _how_to_read(evidence: Evidence) -> Section:
    seeds = {found.spread.seeds for found in evidence.accuracies.values()}
    seeds |= {finding.estimate.spread.seeds for finding in evidence.findings.values()}
    paragraphs = [
        "Each run's epoch was chosen on the validation images; the test images were classified after the "
        "training and have decided nothing. To choose an experiment, look at its validation accuracy.",
        "An interval covers the true difference in 95 of 100 cases, and p is the chance of a difference as "
        "large if there were none, both on the same images for both experiments. Of many findings some come "
        f"out by luck: a verdict, and a filled dot in a picture, needs a p below {LEVEL:g} after Holm's "
        "correction for all that are made here, so an interval may leave out 0 without one.",
        f"What it takes to see {WORTH_SEEING:g} points is reckoned for a chance of {POWER:.0%}, for one "
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
    return Section("How to read this", paragraphs)


def _mean_and_deviation(mean: float, deviation: float) -> str:
    return f"{mean:.2f}" if math.isnan(deviation) else f"{mean:.2f} ± {deviation:.2f}"


def _p(p: float) -> str:
    return "<0.001" if p < 0.001 else f"{p:.3f}"
