"""The pictures of a run."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rcParams
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from utils.run.files import replacing
from utils.text import visible

# From the Okabe-Ito palette, which people with any common colour blindness can tell apart.
BLUE, VERMILION, GREEN = "#0072B2", "#D55E00", "#009E73"
TRAIN, VALIDATION, AVERAGE = BLUE, VERMILION, GREEN

RELIABILITY_BINS = 15

rcParams["text.parse_math"] = False  # names of classes and runs may have dollar signs


def save(figure: Figure, path: Path) -> None:
    """Write a picture, whole or not at all; letters that the font lacks are drawn as boxes."""
    with replacing(path) as file, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(file, format="png", dpi=120)


def learning_curve(path: Path, history: Sequence[dict], best: Mapping[str, Any], title: str) -> None:
    """Draw loss and accuracy of each epoch, for training and validation, and mark the best.

    `history` is as in log.csv; `best` has the epoch, the val_accuracy and the weights ("raw" or "ema").
    """
    epochs = [row["epoch"] for row in history]
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    figure.suptitle(visible(title))
    marker = "o" if len(epochs) <= 30 else ""
    for axes, quantity, label in zip(
        figure.subplots(1, 2),
        ("loss", "accuracy"),
        ("Loss (nats)", "Accuracy (%)"),
        strict=True,
    ):
        for split, name, colour, style in (
            ("train", "training", TRAIN, "--"),
            ("val", "validation", VALIDATION, "-"),
            ("ema_val", "validation of the average", AVERAGE, "-."),
        ):
            if f"{split}_{quantity}" not in history[0]:
                continue
            values = [row[f"{split}_{quantity}"] for row in history]
            axes.plot(epochs, values, style, color=colour, marker=marker, markersize=4, label=name)
        axes.set_xlabel("Epoch")
        axes.set_ylabel(label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    losses = figure.axes[0]
    all_losses = np.concatenate([np.asarray(line.get_ydata()) for line in losses.lines])
    if all_losses.max() > 10 * all_losses.min() > 0:  # from scratch the first are many times the rest
        losses.set_yscale("log")
        losses.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        losses.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        losses.yaxis.set_minor_formatter(NullFormatter())
    balanced = "val_balanced_accuracy"
    told = f" (balanced {best[balanced]:.2f} %)" if balanced in best else ""
    axes.plot(
        best["epoch"],
        best["val_accuracy"],
        "*",
        color=AVERAGE if best["weights"] == "ema" else VALIDATION,
        markersize=13,
        markeredgecolor="black",
        label=f"best: {best['val_accuracy']:.2f} %{told} at epoch {best['epoch']}",
        zorder=3,
    )
    axes.legend(frameon=False)
    save(figure, path)


def reliability(path: Path, found: Mapping[str, tuple[np.ndarray, np.ndarray]], title: str) -> None:
    """Draw how many of the images of about equal confidence are right, and how the confidences are spread.

    `found` maps what the confidences are to them, [n], and to which predictions are right, bool [n].
    """
    figure = Figure(figsize=(5.4, 6), layout="constrained")
    figure.suptitle(visible(title))
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    axes.plot((0, 100), (0, 100), color="#888888", linestyle=":", label="as it should be")
    for (name, (confidences, correct)), (colour, style) in zip(
        found.items(), ((BLUE, "--"), (VERMILION, "-")), strict=True
    ):
        order = np.argsort(confidences, kind="stable")
        bins = [part for part in np.array_split(order, RELIABILITY_BINS) if len(part)]
        means = [(100 * confidences[part].mean(), 100 * correct[part].mean()) for part in bins]
        axes.plot(*zip(*means, strict=True), style, color=colour, marker="o", markersize=4, label=name)
        edges = np.linspace(0, 100, 41)
        below.hist(100 * confidences, edges, histtype="step", color=colour, linestyle=style)
    axes.set_ylabel(f"Right predictions (%), in {RELIABILITY_BINS} bins of equal size")
    axes.legend(frameon=False)
    below.set_xlabel("Confidence (%)")
    below.set_ylabel("Test images")
    for each in (axes, below):
        each.grid(alpha=0.3)
        each.spines[["top", "right"]].set_visible(False)
    save(figure, path)


def confusion_matrix(path: Path, confusion: np.ndarray, classes: Sequence[str], title: str) -> None:
    """Draw how often images of each class (row) were taken for each class (column), [K, K] counts."""
    count = len(classes)
    share = 100 * confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    side = min(max(4.5, 1.6 + 0.62 * count), 24)
    figure = Figure(figsize=(side + 1.0, side), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=100)
    figure.colorbar(image, label="Share of the images of a class (%)", shrink=0.8)
    names = list(map(visible, classes))
    axes.set_xticks(range(count), names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(count), names)
    axes.set_xlabel("Predicted class")
    axes.set_ylabel("True class")
    axes.set_title(visible(title))
    if count <= 30:  # beyond that the numbers would not be readable
        for row, column in np.ndindex(count, count):
            colour = "white" if share[row, column] > 55 else "black"
            axes.text(column, row, str(confusion[row, column]), ha="center", va="center", color=colour)
    save(figure, path)
