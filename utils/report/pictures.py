"""The pictures of the report, in colours that people with any common colour blindness can tell apart."""

import textwrap
from itertools import product
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from utils.figures import BLUE, GREEN, GREY, INK, VERMILION, WIDTH, plain
from utils.report.comparison import HELPS, HURTS, Evidence
from utils.text import count, shortened, visible

COLOURS = (BLUE, VERMILION, GREEN, "#CC79A7", "#E69F00", "#56B4E9", INK)  # Okabe and Ito's
MARKERS = "osD^vP*"
LONGEST_NAME = 28


def accuracies(evidence: Evidence) -> Figure:
    """Test accuracy of every experiment with its interval beside its time of training, the best on top."""
    names = sorted(evidence.experiments, key=lambda name: evidence.accuracies[name].mean)
    figure, (axes, cost) = _rows(len(names), 2)
    for network, style in _networks(evidence).items():
        rows = [row for row, name in enumerate(names) if evidence.tricks.network(name) == network]
        found = [evidence.accuracies[names[row]] for row in rows]
        means = np.array([estimate.mean for estimate in found])
        reach = np.abs([[estimate.low, estimate.high] for estimate in found] - means[:, None]).T
        axes.errorbar(means, rows, xerr=reach, linestyle="", capsize=2, label=visible(network), **style)
        minutes = np.array([evidence.experiments[names[row]].minutes for row in rows])
        middle = minutes[:, 1]
        cost.errorbar(
            middle, rows, xerr=np.abs(minutes[:, [0, 2]] - middle[:, None]).T, linestyle="", **style
        )
    baseline = evidence.accuracies[evidence.baseline].mean
    axes.axvline(baseline, color=GREY, linestyle="--", linewidth=1, label="baseline", zorder=0)
    axes.set_yticks(range(len(names)), [shortened(name, LONGEST_NAME) for name in names], fontsize=8)
    one_seed = any(estimate.spread.seeds == 1 for estimate in evidence.accuracies.values())
    of_these = "\n(of one seed: for these trained networks only)" * one_seed
    axes.set_xlabel(f"Test accuracy (%),\n95 % intervals{of_these}", fontsize=8)
    cost.set_xlim(0, 1.1 * max(found.minutes[2] for found in evidence.experiments.values()))
    cost.set_xlabel("Minutes,\nquartiles", fontsize=8)
    figure.legend(loc="outside upper center", ncols=3, frameon=False, fontsize=8)
    return figure


def effects(evidence: Evidence) -> Figure:
    """The mean effect of each trick over the pairs that differ by it, the most helpful on top."""
    found = evidence.effects[::-1]
    figure, (axes,) = _rows(len(found), 1)
    for row, effect in enumerate(found):
        estimate = effect.estimate
        colour = {HELPS: BLUE, HURTS: VERMILION}.get(effect.verdict, GREY)
        reach = [[estimate.mean - estimate.low], [estimate.high - estimate.mean]]
        filled = "none" if colour == GREY else colour
        axes.errorbar(
            estimate.mean, row, xerr=reach, fmt="o", color=colour, markerfacecolor=filled, capsize=2
        )
    axes.axvline(0, color=GREY, linewidth=1, zorder=0)
    several = any(len(effect.pairs) > 1 for effect in found)
    axes.set_yticks(
        range(len(found)),
        [wrapped(effect.words) + f" ({count(len(effect.pairs), 'pair')})" * several for effect in found],
        fontsize=8,
    )
    axes.set_xlabel(
        "Difference in test accuracy (points)\n95 % intervals; filled: helps or hurts", fontsize=8
    )
    return figure


def wrapped(words: str) -> str:
    """What a row is of, on at most two lines."""
    return textwrap.fill(visible(words), LONGEST_NAME, max_lines=2, placeholder="…")


def learning_curves(evidence: Evidence) -> Figure:
    """Validation accuracy by epoch, the mean over seeds, a panel for each network and optimizer."""
    groups: dict[str, list[str]] = {}
    for name in evidence.experiments:
        groups.setdefault(evidence.tricks.group(name), []).append(name)
    legends = [0.4 + 0.17 * ((len(names) + 1) // 2) for names in groups.values()]
    figure = Figure(figsize=(WIDTH, 0.4 + 2.6 * len(groups) + sum(legends)), layout="constrained")
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
                range(1, length + 1),
                mean,
                line,
                color=colour,
                marker=marker,
                markersize=3,
                label=shortened(name, LONGEST_NAME),
            )
        plain(axes).set_title(visible(group), loc="left", fontsize=9)
        axes.set_ylabel("Validation accuracy (%)", fontsize=8)
        axes.set_xlabel("Epoch", fontsize=8)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.tick_params(labelbottom=True)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2, frameon=False, fontsize=7)
    return figure


def _rows(number: int, panels: int) -> tuple[Figure, list[Axes]]:
    """A figure of so many rows, with as many panels beside each other."""
    figure = Figure(figsize=(WIDTH, 1.4 + 0.24 * number), layout="constrained")
    ratios = [2, 1][:panels]
    found = figure.subplots(1, panels, sharey=True, squeeze=False, width_ratios=ratios)[0]
    for axes in found:
        plain(axes).set_ylim(-0.6, number - 0.4)
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.tick_params(axis="x", labelsize=8)
    return figure, list(found)


def _networks(evidence: Evidence) -> dict[str, dict[str, Any]]:
    """A colour and a marker for each network."""
    networks = dict.fromkeys(evidence.tricks.network(name) for name in evidence.experiments)
    return {
        network: {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)]}
        for number, network in enumerate(networks)
    }
