"""Every flag: those of the tricks (learning/tricks.py) and the others, and the checks across them."""

import argparse
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from learning.schedule import SCHEDULES, step_decay
from learning.tricks import OWN_DEFAULTS, TRICKS, has_layer_norms
from utils.errors import UserError
from utils.flags import Flag, Help, Parser, number, path
from utils.run.files import read_json
from utils.run.folder import RunFolder
from utils.run.records import About

# What --demo sets unless told otherwise: sizes that a laptop's CPU finishes in about a minute.
DEMO = {
    "data_dir": "data/demo",
    "checkpoint_name": "demo",
    "model": "ResNet18",
    "pretrained": 0,
    "image_size": 64,
    "batch_size": 32,
    "epochs": 10,
    "optimizer": "ADAM",
    "decay_type": "cosine_warmup",
}

# Flags by another name, of which "norm" is for networks with batch norm. Measured: docs/runs.md.
RECIPES: dict[str, dict[str, Any]] = {
    "baseline": {},
    "finetune": {
        "pretrained": 1,
        "optimizer": "ADAM",
        "decay_type": "cosine_warmup",
        "norm": "frozen_batchnorm",
        "epochs": 15,
    },
    "scratch": {"pretrained": 0, "optimizer": "ADAM", "decay_type": "cosine_warmup"},
}

UNSET = object()
# What is done with a run that there is already; another is trained without any of them.
USES = ("evaluate", "predict", "export", "suspects")  # of a run
MODES = ("resume", "inspect", *USES)
EXPORTS = (".onnx", ".pt2", ".safetensors")


def device_name(text: str) -> str:
    """The type of --device."""
    if not re.fullmatch(r"auto|cpu|mps|(cuda|xpu)(:(0|[1-9][0-9]?))?", text):
        raise argparse.ArgumentTypeError(f"{text!r} is none of auto, cpu, cuda, cuda:N, mps, xpu, xpu:N")
    return text


def export_path(text: str) -> str:
    """The type of --export."""
    if Path(text).suffix not in EXPORTS:
        raise argparse.ArgumentTypeError(f"{text!r} ends in none of {', '.join(EXPORTS)}")
    return path(text)


def regular_expression(text: str) -> str:
    """The type of --group_by."""
    try:
        re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no regular expression: {error}") from None
    return text


share_between = number(float, 0, 1, above_low=True, below_high=True)

# By group. Flags that say where and how fast a run computes, or what to do with it, but not what it computes,
# are not of the run.
FLAGS = {
    "run": (
        Flag(
            "checkpoint_name", "", "the run's name: its folder in --checkpoint_dir", str, "NAME", of_run=False
        ),
        Flag("checkpoint_dir", "checkpoint", "the folder of all runs", path, "DIR", of_run=False),
        Flag("resume", False, "go on with an interrupted run, or start it if there is none", of_run=False),
        Flag(
            "overwrite",
            False,
            "start anew in place of the run of that name; with --predict, --export, --inspect, replace files",
            of_run=False,
        ),
        Flag("evaluate", False, "test the best weights of a run instead of training", of_run=False),
        Flag("demo", False, "draw a small data set of six kinds of scenes and train on it for a minute"),
        Flag(
            "recipe",
            None,
            "flags by another name, each of which may be given as well: finetune, for pretrained weights, "
            "scratch, without any, or baseline, which is none",
            tuple(RECIPES),
            of_run=False,
        ),
        Flag("seed", 42, "all randomness derives from it", number(int, 0, 2**32 - 1), "N"),
        Flag(
            "log_interval",
            20,
            "steps between readings of the loss",
            number(int, 1, 10**6),
            "STEPS",
            of_run=False,
        ),
    ),
    "use of a run": (
        Flag(
            "predict",
            None,
            "classify these files and the images in these folders; - reads paths from standard input",
            path,
            "PATH",
            several=True,
            of_run=False,
        ),
        Flag(
            "output",
            None,
            "where --predict writes (default: predicted.csv in the run's folder; - is standard output), or "
            "the folder of --inspect (default: inspection)",
            path,
            "PLACE",
            of_run=False,
        ),
        Flag("explain", False, "with --predict, show on a page where the network looks", of_run=False),
        Flag(
            "export",
            None,
            "write the network for other programs (.onnx, .pt2 or .safetensors), proved on the test images",
            export_path,
            "FILE",
            of_run=False,
        ),
        Flag(
            "suspects",
            False,
            "show images whose label the network contradicts: those to validate and test on, or by --folds",
            of_run=False,
        ),
        Flag(
            "folds",
            None,
            "with --suspects, train anew on all but each of N parts of the training and validation images",
            number(int, 2, 100),
            "N",
            of_run=False,
        ),
    ),
    "data": (
        Flag(
            "inspect",
            False,
            "look at the images instead of training: sizes, copies, what cannot be read; a page and a table",
            of_run=False,
        ),
        Flag(
            "data_dir",
            "data",
            "holds a folder of images for each class, or folders such as train, val and test that hold those",
            path,
            "DIR",
            of_run=False,
        ),
        Flag(
            "labels",
            None,
            "a CSV file with the columns path, in --data_dir, and label, and perhaps split and group",
            path,
            "FILE",
            of_run=False,
        ),
        Flag(
            "group_by",
            None,
            "images in whose paths this finds the same text, such as a patient's number, are in one split",
            regular_expression,
            "REGEX",
        ),
        Flag(
            "val_fraction",
            0.2,
            "how much of each class's training images to validate on, where no folder says which",
            share_between,
            "SHARE",
        ),
        Flag(
            "test_fraction",
            0.2,
            "how much of each class to test on, where no folder says which",
            share_between,
            "SHARE",
        ),
        Flag(
            "num_classes",
            None,
            "what you expect the data to hold; another number is an error (default: what it holds)",
            number(int, 2, 10**6),
            "N",
        ),
        Flag(
            "image_size", 256, "images are resized to a square of this side", number(int, 8, 4096), "PIXELS"
        ),
        Flag(
            "cache",
            "auto",
            "keep decoded images in a file or in memory, or decode them in every epoch; auto: in a file "
            "where it takes at most a quarter of what is free, else off",
            ("auto", "disk", "ram", "off"),
            of_run=False,
        ),
        Flag(
            "cache_dir",
            "cache",
            "the folder of decoded images and of what is known of the images",
            path,
            "DIR",
            of_run=False,
        ),
        Flag(
            "skip_corrupt", False, "go on without the images that cannot be read, as if they were not there"
        ),
        Flag(
            "num_workers",
            None,
            "processes that decode without a cache (default: none, with --cache auto one for each core)",
            number(int, 0, 256),
            "N",
            of_run=False,
        ),
    ),
    "network": (),
    "training": (
        Flag("epochs", 120, "times each training image is seen", number(int, 1, 10**6), "N"),
        Flag("batch_size", 64, "most images trained on at once", number(int, 1, 10**6), "N"),
    ),
    "optimizer": (),
    "loss": (),
    "augmentation": (),
    "device": (
        Flag(
            "device",
            "auto",
            "auto (the first CUDA device, else the CPU), cpu, cuda, cuda:N and, untested, mps, xpu or xpu:N",
            device_name,
            "NAME",
            of_run=False,
        ),
        Flag(
            "memory_format",
            "auto",
            "the order of images and weights in memory; auto takes what the network is faster in there",
            ("auto", "channels_last", "contiguous"),
        ),
        Flag(
            "compile",
            False,
            "train with torch.compile, which takes a minute or more at first and pays in long runs",
        ),
        Flag(
            "norm_per_process",
            False,
            "under torchrun, let norms see the images of each process alone: faster, with other results",
        ),
        Flag("deterministic", False, "the same bits each time on a GPU too, at some cost in speed"),
    ),
}
BY_GROUP = {
    group: [*flags, *(flag for trick in TRICKS if trick.group == group for flag in trick.flags)]
    for group, flags in FLAGS.items()
}
# --resume and --evaluate take all others from the run's checkpoint.
NOT_OF_THE_RUN = tuple(flag.name for flags in BY_GROUP.values() for flag in flags if not flag.of_run)


def build_parser() -> argparse.ArgumentParser:
    """The flags, in groups."""
    parser = Parser(
        prog="main.py",
        description="Train an image classifier on a folder of images, with the bag of tricks.",
        formatter_class=Help,
        allow_abbrev=False,
    )
    for title, flags in BY_GROUP.items():
        group = parser.add_argument_group(title)
        for flag in flags:
            flag.add_to(group)
    return parser


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line (by default the process's own) and check it.

    Beside a value for every flag the result has `given`, the names of those on the command line.
    Exits with code 2 and one line if a flag is unknown, out of range, or at odds with another.
    """
    parser = build_parser()
    defaults = vars(parser.parse_args([]))
    args = parser.parse_args(argv, argparse.Namespace(**dict.fromkeys(defaults, UNSET)))
    given = [name for name, value in vars(args).items() if value is not UNSET]
    if "demo" in given:
        defaults |= DEMO
    chosen = RECIPES[args.recipe] if "recipe" in given else {}
    model = defaults["model"] if args.model is UNSET else args.model
    kept = {"norm"} if has_layer_norms(model) else set()
    left = [name for name in chosen if name not in given and name not in kept]
    defaults |= {name: chosen[name] for name in left}
    given += left
    args = argparse.Namespace(
        **{name: value if value is not UNSET else defaults[name] for name, value in vars(args).items()}
    )
    for name, value in OWN_DEFAULTS[args.optimizer].items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    if args.milestones is None:
        args.milestones = [args.epochs * share for share in (0.25, 0.5, 0.75)]
    if args.warmup_epochs is None:
        args.warmup_epochs = min(5.0, args.epochs / 10)
    args.given = given
    problem = None
    if not (args.checkpoint_name or args.inspect):
        problem = "--checkpoint_name is needed: name the run, or try --demo"
    elif len(modes := [name for name in MODES if getattr(args, name)]) > 1:
        problem = f"{' and '.join(f'--{name}' for name in modes)} exclude each other: give one of them"
    elif args.overwrite and modes and modes[0] in ("resume", "evaluate", "suspects"):
        problem = f"--overwrite and --{modes[0]} exclude each other: give one of them"
    elif args.recipe == "finetune" and not args.pretrained:
        problem = "--recipe finetune is for pretrained weights: use --recipe scratch with --pretrained 0"
    elif args.explain and not args.predict:
        problem = "--explain is for --predict"
    elif args.folds and not args.suspects:
        problem = "--folds is for --suspects"
    elif args.output and not (args.predict or args.inspect):
        problem = "--output is for --predict and --inspect"
    elif not modes:  # else the run's own flags count
        problem = contradiction(args)
    if problem:
        parser.error(problem)
    return args


def recipe(args: argparse.Namespace) -> str:
    """The flags that --recipe stands for, as far as they hold."""
    own = RECIPES[args.recipe]
    flags = [f"--{name} {value}" for name, value in own.items() if getattr(args, name) == value]
    return f"{args.recipe}: {' '.join(flags) or 'no flags'}"


def contradiction(args: argparse.Namespace) -> str | None:
    """What forbids to start a run with flags that are right one by one, or None."""
    return next(filter(None, (trick.contradiction(args) for trick in TRICKS)), None)


def unwise(args: argparse.Namespace) -> list[str]:
    """What is allowed, and likely to go wrong."""
    return [message for trick in TRICKS for message in trick.unwise(args)]


def refuse_unless_longer(args: argparse.Namespace, stored: Mapping[str, Any], run: Path) -> None:
    """Raise `UserError` unless --resume can make a run with the `stored` flags longer.

    What it comes to then is the run that the flags would have made from the start.
    """
    warms_up, decay = SCHEDULES[stored["decay_type"]]
    wish = f"--epochs {args.epochs}: {run} has {stored['epochs']}"
    if args.epochs < stored["epochs"]:
        raise UserError(f"{wish}, and can be made longer only")
    if decay is not step_decay:
        raise UserError(
            f"{wish}, to whose end its learning rate falls by --decay_type {stored['decay_type']}; train "
            f"anew, or go on from its weights under another name by --pretrained_path {run}/best.pt"
        )
    kept = ["milestones", *["warmup_epochs"] * warms_up]
    if any(getattr(args, name) != stored[name] for name in kept):
        epochs = " ".join(f"{epoch:g}" for epoch in stored["milestones"])
        warmup = f" --warmup_epochs {stored['warmup_epochs']:g}" * warms_up
        raise UserError(
            f"{wish}, and what scales with them has to stay: give --milestones {epochs}{warmup} too"
        )


def nothing_left(args: argparse.Namespace, folder: RunFolder) -> bool:
    """Whether --resume has nothing to do in the run's folder. Raises `UserError` if it was another run."""
    if not folder.finished:
        return False
    stored = read_json(folder / "args.json", About).flags
    return with_flags_of_run(args, stored, folder.path).epochs <= stored["epochs"]


def with_flags_of_run(
    args: argparse.Namespace, stored: Mapping[str, Any], run: Path, anew: Sequence[str] = ()
) -> argparse.Namespace:
    """`args` with the flags that an earlier run was started with, as its checkpoint has them.

    Flags in `NOT_OF_THE_RUN`, and those named in `anew`, are taken from the command line where they were
    given there. Any other given flag must repeat what the run has; else `UserError` names those that do not.
    """
    free = [*NOT_OF_THE_RUN, *anew]
    defaults = vars(build_parser().parse_args([]))  # of flags that are younger than the run
    stored = {**defaults, **stored}
    changed = [name for name in args.given if name not in free and getattr(args, name) != stored[name]]
    if args.resume and changed == ["epochs"]:
        refuse_unless_longer(args, stored, run)
        free.append("epochs")
    elif changed:
        named = ", ".join(f"--{name} {getattr(args, name)} (the run has {stored[name]})" for name in changed)
        raise UserError(f"{run} was started with other flags; leave out {named}, or choose another name")
    ours = {name: getattr(args, name) for name in free if name in args.given}
    actions = {name: getattr(args, name) for name in (*MODES, "overwrite", "output", "explain")}
    return argparse.Namespace(**{**stored, **ours, **actions, "given": args.given})
