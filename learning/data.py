"""The images of a run, found and looked at. Without torch, so that mistakes are answered soon."""

from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import numpy as np

from utils.console import say, warn
from utils.data.cache import refuse
from utils.data.demo import draw_demo
from utils.data.folders import Dataset, Splitting, find_dataset
from utils.data.looks import Looks, look_at, unused_bits
from utils.errors import UserError
from utils.run.records import About, Progress
from utils.text import count, one_form, some

Check = Callable[[], None]
FoundData = tuple[Dataset, Looks, list[str]]  # with the images that cannot be read and are left out

NAMES_SHOWN = 20
CLASSES_SHOWN = 20


def find_and_look(args: Namespace, check: Check) -> tuple[Dataset, Looks]:
    """The data set of the flags, drawn first if it is the demo's, and what is known of its images."""
    root = Path(args.data_dir)
    if args.demo:
        draw_demo(root, check)
    dataset = find_dataset(root, args.seed, how=Splitting.of(args))
    return dataset, look_at(dataset, Path(args.cache_dir), check)


def find_data(args: Namespace, about: About | None, check: Check) -> FoundData:
    """The data set of the flags, what is known of its images, and the names of those left out.

    It must have the classes of the run that it is found for. Raises `UserError` naming images that cannot be
    read, which --skip_corrupt leaves out.
    """
    root = Path(args.data_dir)
    dataset, looks = find_and_look(args, check)
    classes = len(dataset.classes)
    if args.num_classes not in (None, classes):
        raise UserError(
            f"--num_classes {args.num_classes}: {root} holds {classes} classes; leave the flag out"
        )
    if about and list(dataset.classes) != [*map(one_form, about.classes)]:
        raise UserError(f"{root} holds other classes than the run was trained on; check --data_dir")
    skipped = sorted(looks.unreadable)
    if skipped and args.skip_corrupt:
        dataset = find_dataset(root, args.seed, looks.unreadable, Splitting.of(args))
        looks = look_at(dataset, Path(args.cache_dir), check)
    refuse(looks.unreadable, len(dataset.files))
    for note in dataset.notes:
        say("data", note)
    say("data", f"{dataset.describe()}, {args.image_size} x {args.image_size} pixels")
    counts = np.bincount(dataset.labels[dataset.splits["train"]], minlength=classes)
    each = [f"{name} {number:,}" for name, number in zip(dataset.classes, counts, strict=True)]
    say("classes", f"{some(each, CLASSES_SHOWN)} (training images of each)")
    if unused := unused_bits(looks):
        warn(unused)
    if skipped:
        told = some(skipped, NAMES_SHOWN, "; ")
        warn(f"{count(len(skipped), 'image')} cannot be read, and left out: {told}")
    if about and not isinstance(about, Progress) and dataset.identity() != about.images:
        warn(f"{changed(args)}: it may have been trained on images that it is tested on now")
    return dataset, looks, skipped


def changed(args: Namespace) -> str:
    """What to say of images that are not those that a run started with."""
    return f"the images in {args.data_dir}, or what is told of them, changed since the run started"
