"""The pictures of the report, in colours that people with any common colour blindness can tell apart."""

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from utils.report.comparison import Evidence
from utils.run.pictures import BLUE, GREEN, VERMILION, save
from utils.text import visible

COLOURS = (BLUE, VERMILION, GREEN, "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe and Ito's
MARKERS = "osD^vP*"
GREY = "#888888"
LONGEST_LABEL = 48
WIDTH = 7.5  # inches: legible on a phone too


def draw_all(evidence: Evidence, folder: Path) -> None:
    """Write every picture that the sections name into `folder`."""
    accuracies(evidence, folder / "accuracies.png")
    cost(evidence, folder / "cost.png")
    learning_curves(evidence, folder / "learning_curves.png")
    if evidence.effects:
        effects(evidence, folder / "effects.png")


def accuracies(evidence: Evidence, path: Path) -> None:
    """Test accuracy of every experiment with its interval, the best on top."""
    names = sorted(evidence.experiments, key=lambda name: evidence.accuracies[name].mean)
    figure, axes = _rows_of_dots(len(names))
    for network, style in _networks(evidence).items():
        rows = [row for row, name in enumerate(names) if evidence.tricks.network(name) == network]
        found = [evidence.accuracies[names[row]] for row in rows]
        means = np.array([estimate.mean for estimate in found])
        reach = np.abs([[estimate.low, estimate.high] for estimate in found] - means[:, None]).T
        axes.errorbar(means, rows, xerr=reach, linestyle="", capsize=2.5, label=visible(network), **style)
    baseline = evidence.accuracies[evidence.baseline].mean
    axes.axvline(baseline, color=GREY, linestyle="--", linewidth=1, label="baseline", zorder=0)
    axes.set_yticks(range(len(names)), [_label(evidence, name) for name in names])
    one_seed = any(estimate.spread.seeds == 1 for estimate in evidence.accuracies.values())
    of_these = "\n(of one seed: for these trained networks only)" * one_seed
    axes.set_xlabel(f"Test accuracy (%), with 95 % intervals{of_these}")
    figure.legend(loc="outside upper center", ncols=4, frameon=False)
    save(figure, path)


def effects(evidence: Evidence, path: Path) -> None:
    """The mean effect of each trick over the pairs that differ by it, the most helpful on top."""
    found = evidence.effects[::-1]
    figure, axes = _rows_of_dots(len(found))
    for row, effect in enumerate(found):
        estimate = effect.estimate
        colour = {"helps": BLUE, "hurts": VERMILION}.get(effect.verdict, GREY)
        reach = [[estimate.mean - estimate.low], [estimate.high - estimate.mean]]
        filled = "white" if colour == GREY else colour
        axes.errorbar(
            estimate.mean, row, xerr=reach, fmt="o", color=colour, markerfacecolor=filled, capsize=2.5
        )
    axes.axvline(0, color=GREY, linewidth=1, zorder=0)
    axes.set_yticks(
        range(len(found)),
        [
            f"{visible(effect.words)} ({len(effect.pairs)} pair{'s' * (len(effect.pairs) > 1)})"
            for effect in found
        ],
    )
    axes.set_xlabel("Difference in test accuracy (points)\n95 % intervals; filled: helps or hurts")
    save(figure, path)


def cost(evidence: Evidence, path: Path) -> None:
    """Test accuracy against minutes of training; the front has no experiment above and left of it."""
    minutes = {name: found.mean("minutes") for name, found in evidence.experiments.items()}
    figure = Figure(figsize=(WIDTH, 4.5), layout="constrained")
    axes = _plain(figure.subplots())
    for network, style in _networks(evidence).items():
        names = [name for name in minutes if evidence.tricks.network(name) == network]
        means = [evidence.accuracies[name].mean for name in names]
        axes.plot([minutes[name] for name in names], means, linestyle="", label=visible(network), **style)
    front, best = [], -1.0
    for name in sorted(minutes, key=lambda name: (minutes[name], -evidence.accuracies[name].mean)):
        if evidence.accuracies[name].mean > best:
            best = evidence.accuracies[name].mean
            front.append(name)
    xs, ys = [minutes[name] for name in front], [evidence.accuracies[name].mean for name in front]
    axes.step(xs, ys, where="post", color=GREY, linestyle=":", zorder=0)
    axes.plot(xs, ys, "o", color=GREY, markersize=13, fillstyle="none", label="none is better in less time")
    for name, x, y in zip(front, xs, ys, strict=True):
        axes.annotate(
            _label(evidence, name), (x, y), (-4, 5), textcoords="offset points", ha="right", fontsize=8
        )
    axes.margins(x=0.15, y=0.12)
    axes.set_xlabel("Training time (minutes a run)")
    axes.set_ylabel("Test accuracy (%)")
    figure.legend(loc="outside upper center", ncols=4, frameon=False)
    save(figure, path)


def learning_curves(evidence: Evidence, path: Path) -> None:
    """Validation accuracy by epoch, the mean over seeds, a panel for each network and optimizer."""
    groups: dict[str, list[str]] = {}
    for name in evidence.experiments:
        groups.setdefault(evidence.tricks.group(name), []).append(name)
    figure = Figure(figsize=(WIDTH, 0.5 + 2.7 * len(groups)), layout="constrained")
    styles = list(product(("-", "--", ":"), COLOURS))
    panels = figure.subplots(len(groups), squeeze=False, sharex=True, sharey=True)[:, 0]
    for axes, (group, names) in zip(panels, groups.items(), strict=True):
        for number, name in enumerate(names):
            line, colour = styles[number % len(styles)]
            curves = [run.val_accuracies for run in evidence.experiments[name].runs.values()]
            length = min(map(len, curves))  # an early stop may make one shorter
            mean = np.mean([curve[:length] for curve in curves], axis=0)
            marker = "o" if length <= 10 else ""
            axes.plot(
                range(1, length + 1), mean, line, color=colour, marker=marker, label=_label(evidence, name)
            )
        _plain(axes)
        axes.set_title(visible(group), loc="left")
        axes.set_ylabel("Validation accuracy (%)")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.tick_params(labelbottom=True)
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=8)
    panels[-1].set_xlabel("Epoch")
    save(figure, path)


def _rows_of_dots(count: int) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, 1.6 + 0.27 * count), layout="constrained")
    axes = _plain(figure.subplots())
    axes.set_ylim(-0.6, count - 0.4)
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    return figure, axes


def _plain(axes: Axes) -> Axes:
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def _networks(evidence: Evidence) -> dict[str, dict[str, Any]]:
    """A colour and a marker for each network."""
    networks = dict.fromkeys(evidence.tricks.network(name) for name in evidence.experiments)
    return {
        network: {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)]}
        for number, network in enumerate(networks)
    }


def _label(evidence: Evidence, name: str) -> str:
    """The letters of an experiment if no other has the same, else its name, in so far as there is room."""
    letters: Sequence[str] = [evidence.tricks.letters(other) for other in evidence.experiments]
    own = evidence.tricks.letters(name)
    label = visible(own if letters.count(own) == 1 else name)
    return label if len(label) <= LONGEST_LABEL else f"{label[: LONGEST_LABEL - 1]}…"
