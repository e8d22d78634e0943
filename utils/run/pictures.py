"""The pictures of a run."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from utils.figures import BLUE, GREEN, GREY, INK, VERMILION, WIDTH, boxes_for_unknown_letters, plain
from utils.run.files import replacing
from utils.text import shortened, visible

TRAIN, VALIDATION, AVERAGE = BLUE, VERMILION, GREEN

RELIABILITY_BINS = 15
FEW_CLASSES = 20  # beyond them a matrix is ordered by what is confused, with a list beside it
PAIRS_LISTED = 20
LONGEST_NAME = 24


def save(figure: Figure, path: Path) -> None:
    """Write a picture, whole or not at all; letters that the font lacks are drawn as boxes."""
    with replacing(path) as file, boxes_for_unknown_letters():
        figure.savefig(file, format="png", dpi=150)


def learning_curve(history: Sequence[dict], best: Mapping[str, Any], title: str) -> Figure:
    """Loss and accuracy of each epoch, for training and validation, and a mark at the best.

    `history` is as in log.csv; `best` has the epoch, the val_accuracy and the weights ("raw" or "ema").
    """
    epochs = [row["epoch"] for row in history]
    figure = Figure(figsize=(WIDTH, 6), layout="constrained")
    figure.suptitle(visible(title))
    marker = "o" if len(epochs) <= 30 else ""
    losses, accuracies = figure.subplots(2, 1, sharex=True)
    for axes, quantity, label in ((losses, "loss", "Loss (nats)"), (accuracies, "accuracy", "Accuracy (%)")):
        for split, name, colour, style in (
            ("train", "training", TRAIN, "--"),
            ("val", "validation", VALIDATION, "-"),
            ("ema_val", "validation of the average", AVERAGE, "-."),
        ):
            if f"{split}_{quantity}" not in history[0]:
                continue
            values = [row[f"{split}_{quantity}"] for row in history]
            axes.plot(epochs, values, style, color=colour, marker=marker, markersize=4, label=name)
        plain(axes).set_ylabel(label)
    accuracies.set_xlabel("Epoch")
    accuracies.xaxis.set_major_locator(MaxNLocator(integer=True))
    all_losses = np.concatenate([np.asarray(line.get_ydata()) for line in losses.lines])
    if all_losses.max() > 10 * all_losses.min() > 0:  # from scratch the first are many times the rest
        losses.set_yscale("log")
        losses.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        losses.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        losses.yaxis.set_minor_formatter(NullFormatter())
    balanced = "val_balanced_accuracy"
    more = f" (balanced {best[balanced]:.2f} %)" if balanced in best else ""
    accuracies.plot(
        best["epoch"],
        best["val_accuracy"],
        "*",
        color=AVERAGE if best["weights"] == "ema" else VALIDATION,
        markersize=13,
        markeredgecolor=INK,
        label=f"best: {best['val_accuracy']:.2f} %{more} at epoch {best['epoch']}",
        zorder=3,
    )
    accuracies.legend(frameon=False)
    return figure


def labelled_images(pixels: np.ndarray, labels: Sequence[str]) -> np.ndarray:
    """A grid of images, uint8 [N, H, W, 3], each under its label: uint8 [H', W', 3]."""
    side = math.ceil(math.sqrt(len(labels)))
    rows = math.ceil(len(labels) / side)
    figure = Figure(figsize=(1.5 * side, 1.7 * rows), layout="constrained")
    for place, (image, label) in enumerate(zip(pixels, labels, strict=True), 1):
        axes = figure.add_subplot(rows, side, place)
        axes.imshow(image)
        axes.set_title(shortened(label, 16), fontsize=8)
        axes.set_axis_off()
    canvas = FigureCanvasAgg(figure)
    with boxes_for_unknown_letters():
        canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def reliability(found: Mapping[str, tuple[np.ndarray, np.ndarray]], title: str) -> Figure:
    """How many of the images of about equal confidence are right, and how the confidences are spread.

    `found` maps what the confidences are to them, [n], and to which predictions are right, bool [n].
    """
    figure = Figure(figsize=(WIDTH, 5.6), layout="constrained")
    figure.suptitle(visible(title))
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    axes.plot((0, 100), (0, 100), color=GREY, linestyle=":", label="as it should be")
    for (name, (confidences, correct)), (colour, style) in zip(
        found.items(), ((BLUE, "--"), (VERMILION, "-")), strict=True
    ):
        order = np.argsort(confidences, kind="stable")
        bins = [part for part in np.array_split(order, RELIABILITY_BINS) if len(part)]
        means = [(100 * confidences[part].mean(), 100 * correct[part].mean()) for part in bins]
        axes.plot(*zip(*means, strict=True), style, color=colour, marker="o", markersize=4, label=name)
        edges = np.linspace(0, 100, 41)
        below.hist(100 * confidences, edges, histtype="step", color=colour, linestyle=style)
    plain(axes).set_ylabel(f"Right predictions (%), in {RELIABILITY_BINS} bins of equal size")
    axes.legend(frameon=False)
    plain(below).set_xlabel("Confidence (%)")
    below.set_ylabel("Test images")
    return figure


def confusion_matrix(
    confusion: np.ndarray, classes: Sequence[str], pairs: Sequence[tuple[int, int, int]], title: str
) -> Figure:
    """How often images of each class (row) were taken for each class (column), [K, K] counts.

    Many classes stand in an order in which what is confused stands together, beside a list of the `pairs`
    that are confused most often: true class, prediction, images.
    """
    count = len(classes)
    many = count > FEW_CLASSES
    side = min(max(WIDTH - 1, 0.6 * count if not many else 10, 0.085 * count), 30)
    figure = Figure(figsize=(side + (4.5 if many else 1), side), layout="constrained")
    axes, *beside = figure.subplots(1, 1 + many, squeeze=False, width_ratios=[side, 3][: 1 + many])[0]
    order = similar_together(confusion).tolist() if many else list(range(count))
    share = 100 * confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    axes.imshow(share[np.ix_(order, order)], cmap="Blues", vmin=0, vmax=100)
    size = min(72 * 0.8 * side / count, 9)
    if size > 4:
        names = [shortened(classes[label], LONGEST_NAME) for label in order]
        turned = {"rotation": 90 if many else 45, "ha": "center" if many else "right"}
        axes.set_xticks(
            range(count), names, fontsize=size, rotation_mode="anchor" if not many else None, **turned
        )
        axes.set_yticks(range(count), names, fontsize=size)
    axes.set_xlabel("Predicted class")
    axes.set_ylabel("True class (colour: share of its images)")
    axes.set_title(visible(title), fontsize=11)
    for row, column in np.argwhere(confusion[np.ix_(order, order)] > 0) if size > 6 else ():
        true, taken = order[row], order[column]
        colour = "white" if share[true, taken] > 55 else "black"
        axes.text(
            column, row, str(confusion[true, taken]), ha="center", va="center", color=colour, fontsize=size
        )
    if many:
        lines = [
            f"{shortened(classes[a], 18)} taken for {shortened(classes[b], 18)}: {n}" for a, b, n in pairs
        ]
        beside[0].set_axis_off()
        beside[0].text(
            0, 1, "\n".join(["Confused most often", *lines[:PAIRS_LISTED]]), va="top", linespacing=1.6
        )
    return figure


def similar_together(confusion: np.ndarray) -> np.ndarray:
    """An order of the classes, int64 [K], in which those that are taken for each other stand together.

    It is that of the Fiedler vector: of the smallest sum of mixed(i, j) (x_i - x_j)^2 over all x that are no
    constant (Atkins et al. 1998, SIAM Journal on Computing 28: 297).
    """
    sizes = np.maximum(confusion.sum(1), 1)
    mixed = (confusion + confusion.T) / np.sqrt(np.outer(sizes, sizes))
    mixed = mixed + 1e-6  # so that all are connected
    np.fill_diagonal(mixed, 0)
    _, vectors = np.linalg.eigh(np.diag(mixed.sum(1)) - mixed)
    return np.argsort(vectors[:, 1], kind="stable")
