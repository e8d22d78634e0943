"""The data doctor: what is wrong or odd with a folder of images, before hours are spent on it."""

import csv
from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from learning.classifier import frame_of
from learning.data import find_and_look
from utils.console import say
from utils.data.copies import Copies, find_copies
from utils.data.decode import Frame, UnreadableImage, decode
from utils.data.folders import Dataset
from utils.data.looks import Looks, unused_bits
from utils.errors import UserError
from utils.page import Section, pixels_as_image, text, to_page
from utils.run.device import choose_device
from utils.run.files import replacing
from utils.text import cell, count, some

PAGE, TABLE = "inspection.html", "inspection.csv"
COLUMNS = (
    *("finding", "path", "label", "split", "other_path", "other_label", "other_split"),
    *("similarity", "across_test", "labels_differ", "detail"),
)
SIDE = 144  # pixels an image is shown with
PAIRS_SHOWN, IMAGES_SHOWN, MOST_OF_A_CLASS = 200, 1200, 24
ROWS_SHOWN = 100
MUCH = 0.5  # of an image cut off


@dataclass(frozen=True)
class Inspection:
    """What is known of a data set: `looks` and what follows from them are of its `readable` images [r]."""

    dataset: Dataset
    readable: np.ndarray
    looks: Looks
    unreadable: dict[str, UnreadableImage]
    copies: Copies  # by numbers in the data set
    seen: np.ndarray  # how much of an image the network sees, 0 to 1
    squeeze: np.ndarray  # the longer side over the shorter, where all of it is seen

    @cached_property
    def differ(self) -> np.ndarray:
        """Which pairs have two labels."""
        a, b = self.dataset.labels[self.copies.images].T
        return a != b

    @cached_property
    def across(self) -> np.ndarray:
        """Which pairs are in two splits."""
        a, b = self.dataset.split_names()[self.copies.images].T
        return a != b

    @cached_property
    def tested(self) -> np.ndarray:
        """Which pairs are in two splits of which one is that of the test."""
        return self.across & (self.dataset.split_names()[self.copies.images] == "test").any(1)


def inspect(args: Namespace, check: Callable[[], None]) -> None:
    """Look at all images, and write a page to look at and a table to act on; nothing else is changed."""
    place = Path(args.output or "inspection")
    if args.output == "-":
        raise UserError("--output -: --inspect writes two files; name a folder")
    if place.exists() and not place.is_dir():
        raise UserError(f"--output {place} is a file; name a folder")
    if args.output and not args.overwrite and any((place / name).exists() for name in (PAGE, TABLE)):
        raise UserError(f"{place} holds an inspection already; name another folder, or give --overwrite")
    found = examine(args, check)
    place.mkdir(parents=True, exist_ok=True)
    with replacing(place / TABLE, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="")
        writer.writeheader()
        for row in findings(found):
            writer.writerow({title: cell(str(value)) for title, value in row.items()})
    told = list(summary(found, args))
    with replacing(place / PAGE, "w", encoding="utf-8") as html:
        html.write(page(found, [f"{title}: {words}" for title, words in told], check))
    for title, words in told:
        say(title, words)
    say("written", f"{place}: {PAGE}, {TABLE}")


def examine(args: Namespace, check: Callable[[], None]) -> Inspection:
    """Look at the data set of the flags."""
    dataset, looks = find_and_look(args, check)
    readable = np.flatnonzero([name not in looks.unreadable for name in dataset.files])
    unreadable, looks = looks.unreadable, looks.of(readable)
    device = choose_device(args.device)
    near = find_copies(dataset, looks, Path(args.cache_dir), device, check)
    copies = near._replace(images=readable[near.images])
    shorter, longer = np.sort([looks["width"], looks["height"]], axis=0)
    frame = frame_of(vars(args))
    seen = (args.image_size / frame.size) ** 2 * shorter / longer if frame.crop else np.ones(len(readable))
    return Inspection(dataset, readable, looks, unreadable, copies, seen, longer / shorter)


def findings(found: Inspection) -> Iterator[dict[str, object]]:
    """The rows of the table: images that cannot be read or are cut off, and pairs."""
    dataset, splits = found.dataset, found.dataset.split_names()

    def about(number: int, before: str = "") -> dict[str, object]:
        label = dataset.classes[dataset.labels[number]]
        values = {"path": dataset.files[number], "label": label, "split": splits[number]}
        return {f"{before}{title}": value for title, value in values.items()}

    numbers = {name: number for number, name in enumerate(dataset.files)}
    for name, error in sorted(found.unreadable.items()):
        yield {"finding": "cannot be read", **about(numbers[name]), "detail": error.reason}
    for pair in order_of_pairs(found).tolist():
        a, b = found.copies.images[pair].tolist()
        similarity = float(found.copies.similarity[pair])
        yield {
            "finding": "same file" if similarity == 1 else "looks nearly the same",
            **about(b),
            **about(a, "other_"),
            "similarity": f"{similarity:.4f}",
            "across_test": "yes" if found.tested[pair] else "no",
            "labels_differ": "yes" if found.differ[pair] else "no",
        }
    for place in np.flatnonzero(found.seen < 1 - MUCH).tolist():
        detail = f"{100 * (1 - found.seen[place]):.0f} % is cut off"
        yield {"finding": "much is cut off", **about(int(found.readable[place])), "detail": detail}


def order_of_pairs(found: Inspection) -> np.ndarray:
    """Pairs with two labels first, then those across splits, the test's first; the most similar in each."""
    return np.lexsort((-found.copies.similarity, ~found.across, ~found.tested, ~found.differ))


def summary(found: Inspection, args: Namespace) -> Iterator[tuple[str, str]]:
    """What was found: titles and what there is to say."""
    dataset, looks = found.dataset, found.looks
    yield from (("data", note) for note in dataset.notes)
    yield "data", dataset.describe()
    counts = np.bincount(dataset.labels)
    few, many = int(counts.argmin()), int(counts.argmax())
    if counts[few] == counts[many]:
        yield "balance", f"{count(int(counts[few]), 'image')} of each class"
    else:
        yield (
            "balance",
            f"{count(int(counts[many]), 'image')} of {dataset.classes[many]} to {counts[few]} of "
            f"{dataset.classes[few]}",
        )
    if len(found.readable):
        width, height = looks["width"].astype(np.int64), looks["height"].astype(np.int64)
        by_area = np.argsort(width * height, kind="stable")
        least, middle, most = (f"{width[n]} x {height[n]}" for n in by_area[[0, len(by_area) // 2, -1]])
        small = int((np.minimum(width, height) < args.image_size).sum())
        told = f"all {least}" if least == most else f"{least} to {most}, the middle one {middle}"
        yield "sizes", f"{told} pixels; {small} smaller than --image_size {args.image_size}"
        if unused := unused_bits(looks):
            yield "levels", unused
        yield "crop", _crop(found, args.crop)
    unreadable = some(sorted(found.unreadable), 3)
    yield "unread", count(len(found.unreadable), "image") + f": {unreadable}" * bool(unreadable)
    same = found.copies.similarity == 1
    for title, chosen, words in (("copies", same, "of the same bytes"), ("near", ~same, "nearly the same")):
        across, tested, differ = (
            int((chosen & which).sum()) for which in (found.across, found.tested, found.differ)
        )
        yield (
            title,
            f"{count(int(chosen.sum()), 'pair')} {words}, {across} across splits ({tested} across the "
            f"test's), {differ} under two labels",
        )


def _crop(found: Inspection, crop: str) -> str:
    """What --crop makes the network miss, or see squeezed."""
    if crop == "none":
        longest = f"{found.squeeze.max():.2f} to 1, {np.median(found.squeeze):.2f} to 1 in the middle"
        squeezed = f"squeezed to a square from at most {longest}" if found.squeeze.max() > 1 else "a square"
        return f"none: all of an image is seen, {squeezed}"
    cut = 100 * (1 - found.seen)
    much = int((cut > 100 * MUCH).sum())
    return (
        f"{crop}: a test leaves out {np.median(cut):.0f} % of an image, at most {cut.max():.0f} %; "
        f"more than {100 * MUCH:.0f} % of {count(much, 'image')}"
    )


def page(found: Inspection, lines: list[str], check: Callable[[], None]) -> str:
    """The page, as HTML."""
    dataset, splits = found.dataset, found.dataset.split_names()
    counts = {
        split: np.bincount(dataset.labels[numbers], minlength=len(dataset.classes))
        for split, numbers in dataset.splits.items()
    }
    total = np.bincount(dataset.labels)
    rows = [
        [name, *(f"{counts[split][label]}" for split in counts), f"{100 * total[label] / total.sum():.1f}"]
        for label, name in enumerate(dataset.classes)
    ]
    sections = [
        Section(f"What lies in {dataset.root}", lines),
        Section("Classes", columns=["class", *counts, "share, %"], rows=rows),
    ]
    if found.unreadable:
        bad = sorted(found.unreadable.items())
        sections.append(
            Section(
                "Images that cannot be read",
                [f"The first {ROWS_SHOWN} of {len(bad)}; all are in {TABLE}."]
                if len(bad) > ROWS_SHOWN
                else [],
                ["file", "why"],
                [[name, error.reason] for name, error in bad[:ROWS_SHOWN]],
            )
        )
    order = order_of_pairs(found)
    shown = order[:PAIRS_SHOWN]
    pairs = "\n".join(_pair(found, pair, splits) for pair in shown.tolist())
    told = (
        "None were found."
        if not len(order)
        else f"Pairs with two labels come first, then those across splits; {len(shown)} of "
        f"{len(order)} are shown, and all are in {TABLE}. Nothing was deleted."
    )
    cards = f'<div class="cards">{pairs}</div>'
    sections.append(Section("Images that are there more than once", [told], more=cards))
    return to_page([*sections, *_classes(found, check)])


def _pair(found: Inspection, pair: int, splits: np.ndarray) -> str:
    """Two images side by side."""
    dataset, numbers = found.dataset, found.copies.images[pair].tolist()
    similarity = found.copies.similarity[pair]
    marks = ["the same file" if similarity == 1 else f"similarity {similarity:.3f}"]
    if found.differ[pair]:
        marks.append("two labels")
    if found.across[pair]:
        marks.append("across splits")
    pictures = "".join(image_of(dataset, number, SIDE) for number in numbers)
    names = "".join(
        f'<div class="path">{text(dataset.classes[dataset.labels[number]])}, {splits[number]}: '
        f"{text(dataset.files[number])}</div>"
        for number in numbers
    )
    return f'<article><div class="pair">{pictures}</div><h3>{text(", ".join(marks))}</h3>{names}</article>'


def _classes(found: Inspection, check: Callable[[], None]) -> Iterator[Section]:
    """Some images of each class, from all over it."""
    dataset = found.dataset
    most = max(1, min(MOST_OF_A_CLASS, IMAGES_SHOWN // len(dataset.classes)))
    for label, name in enumerate(dataset.classes[:IMAGES_SHOWN]):
        numbers = found.readable[dataset.labels[found.readable] == label]
        check()
        shown = numbers[np.linspace(0, len(numbers) - 1, min(most, len(numbers))).round().astype(int)]
        items = "".join(
            f'<li>{image_of(dataset, number, SIDE)}<div class="path">{text(dataset.files[number])}</div></li>'
            for number in shown.tolist()
        )
        title = f"{name}: {len(shown)} of {len(numbers)} images"
        yield Section(title, more=f'<ul class="errors">{items}</ul>')


def image_of(dataset: Dataset, number: int, side: int) -> str:
    """The HTML of an image, squeezed to a square; none if it can no longer be read."""
    name = dataset.files[number]
    try:
        return pixels_as_image(decode(dataset.root / name, Frame(side)), name)
    except UnreadableImage:
        return ""
