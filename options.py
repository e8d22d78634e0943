"""Every flag: its default, its help, its range, and the checks across flags."""

import argparse
import difflib
import re
from typing import Any

from network import NETWORKS, NORMS
from utils.errors import UserError
from utils.flags import Help, Parser, number

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

# Flags that say where and how fast a run computes, or what to do with it, but not what it computes.
# All others belong to the run: --resume and --evaluate take them from its checkpoint.
NOT_OF_THE_RUN = (
    "checkpoint_dir",
    "checkpoint_name",
    "data_dir",
    "cache",
    "cache_dir",
    "num_workers",
    "teacher",  # its place; which teacher it is belongs to the run, and is checked
    "device",
    "log_interval",
    "resume",
    "overwrite",
    "evaluate",
)

# Of each optimizer its learning rate and weight decay, where no others are given. The decay of ADAMW is
# another rule, for which values about 100 times larger do the same.
OWN_DEFAULTS = {
    "SGD": {"learning_rate": 0.1, "weight_decay": 1e-4},
    "ADAM": {"learning_rate": 1e-3, "weight_decay": 1e-4},
    "ADAMW": {"learning_rate": 1e-3, "weight_decay": 0.05},
    "RADAM": {"learning_rate": 1e-3, "weight_decay": 1e-4},
}


def _own_defaults(flag: str) -> str:
    """In words, what a flag is for each optimizer unless it is given."""
    return "default: " + ", ".join(f"{own[flag]:g} for {name}" for name, own in OWN_DEFAULTS.items())


UNSET = object()

Group = argparse._ArgumentGroup
fraction, strength = number(float, 0, 1), number(float, 0)
below_one = number(float, 0, 1, below_high=True)


def device_name(text: str) -> str:
    """The type of --device."""
    if not re.fullmatch(r"auto|cpu|mps|(cuda|xpu)(:(0|[1-9][0-9]?))?", text):
        raise argparse.ArgumentTypeError(f"{text!r} is none of auto, cpu, cuda, cuda:N, mps, xpu, xpu:N")
    return text


def path(text: str) -> str:
    """The type of flags that name a file or a folder."""
    if not text or "\0" in text:
        raise argparse.ArgumentTypeError(f"{text!r} is no name of a file or a folder")
    return text


def network_name(text: str) -> str:
    """The type of --model."""
    if text not in NETWORKS:
        near = difflib.get_close_matches(text, NETWORKS, n=4, cutoff=0)
        raise argparse.ArgumentTypeError(f"there is no network {text!r}; like it are {', '.join(near)}")
    return text


def _add_run_flags(group: Group) -> None:
    group.add_argument(
        "--checkpoint_name", default="", metavar="NAME", help="the run's name: its folder in --checkpoint_dir"
    )
    group.add_argument(
        "--checkpoint_dir", type=path, default="checkpoint", metavar="DIR", help="the folder of all runs"
    )
    group.add_argument(
        "--resume", action="store_true", help="go on with an interrupted run, or start it if there is none"
    )
    group.add_argument("--overwrite", action="store_true", help="start anew in place of the run of that name")
    group.add_argument(
        "--evaluate", action="store_true", help="test the best weights of a run instead of training"
    )
    group.add_argument(
        "--demo",
        action="store_true",
        help="draw a small data set of six kinds of scenes and train on it for a minute",
    )
    group.add_argument(
        "--seed",
        type=number(int, 0, 2**32 - 1),
        default=42,
        metavar="N",
        help="all randomness derives from it",
    )
    group.add_argument(
        "--log_interval",
        type=number(int, 1, 10**6),
        default=20,
        metavar="STEPS",
        help="steps between readings of the loss",
    )


def _add_data_flags(group: Group) -> None:
    group.add_argument(
        "--data_dir",
        type=path,
        default="data",
        metavar="DIR",
        help="holds seg_train and seg_test, or train, val and test, with a folder for each class",
    )
    group.add_argument(
        "--num_classes",
        type=number(int, 2, 10**6),
        metavar="N",
        help="what you expect the data to hold; another number is an error (default: what it holds)",
    )
    group.add_argument(
        "--image_size",
        type=number(int, 8, 4096),
        default=256,
        metavar="PIXELS",
        help="images are resized to a square of this side",
    )
    group.add_argument(
        "--crop",
        choices=("none", "center", "random"),
        default="none",
        help="center: keep the aspect ratio and cut out the middle; random: so too, but train on random "
        "parts of 8 to 100 %% of the area; none: squeeze whole images to squares",
    )
    group.add_argument(
        "--frame_size",
        type=number(int, 8, 8192),
        metavar="PIXELS",
        help="squares of this side hold the whole training images that --crop random takes parts of "
        "(default: twice --image_size)",
    )
    group.add_argument(
        "--cache",
        choices=("disk", "ram", "off"),
        default="disk",
        help="keep decoded images in a file or in memory, or decode them in every epoch",
    )
    group.add_argument(
        "--cache_dir", type=path, default="cache", metavar="DIR", help="the folder of --cache disk"
    )
    group.add_argument(
        "--skip_corrupt",
        action="store_true",
        help="go on without the images that cannot be read, as if they were not there",
    )
    group.add_argument(
        "--num_workers",
        type=number(int, 0, 256),
        default=0,
        metavar="N",
        help="processes that decode with --cache off",
    )


def _add_network_flags(group: Group) -> None:
    group.add_argument(
        "--model",
        type=network_name,
        default="ResNet50",
        metavar="NAME",
        help="ResNet18, 34, 50, 101 or 152, each also with -B, -C or -D; RegNetX-200MF to RegNetY-32GF; "
        "EfficientNet-B0 to -B7 and -Lite0 to -Lite4; RegNet means RegNetY-1.6GF and EfficientNet its B2",
    )
    group.add_argument(
        "--norm",
        choices=NORMS,
        default="batchnorm",
        help="the normalisation layers; frozen_batchnorm keeps pretrained statistics, evonorm is EvoNorm-S0",
    )
    group.add_argument(
        "--pretrained",
        type=int,
        choices=(0, 1),
        default=1,
        help="1: start from ImageNet weights, 0: from scratch",
    )
    group.add_argument(
        "--pretrained_path",
        type=path,
        metavar="FILE",
        help="a weights file (default: torchvision's, downloaded once)",
    )
    group.add_argument(
        "--zero_gamma", action="store_true", help="start the last norm of each residual branch at 0"
    )
    group.add_argument(
        "--drop_path",
        type=below_one,
        metavar="P",
        help="share of images for which training leaves out the last residual branch, less for earlier ones "
        "(default: as published, rising towards 0.2 in the EfficientNets and else 0)",
    )
    group.add_argument(
        "--dropout",
        type=below_one,
        metavar="P",
        help="share of features that training leaves out before the last layer "
        "(default: as published, 0.2 to 0.5 for the EfficientNets and else 0)",
    )


def _add_training_flags(group: Group) -> None:
    group.add_argument(
        "--epochs",
        type=number(int, 1, 10**6),
        default=120,
        metavar="N",
        help="times each training image is seen",
    )
    group.add_argument(
        "--batch_size",
        type=number(int, 1, 10**6),
        default=64,
        metavar="N",
        help="most images trained on at once",
    )
    group.add_argument(
        "--accumulate",
        type=number(int, 1, 10**6),
        default=1,
        metavar="K",
        help="a step takes K batches, that is K times --batch_size images, in the memory of one",
    )
    group.add_argument(
        "--freeze_epochs",
        type=number(int, 0, 10**6),
        default=0,
        metavar="EPOCHS",
        help="train only the last layer at first, on top of pretrained weights",
    )
    group.add_argument(
        "--grad_clip",
        type=number(float, 0, above_low=True),
        metavar="NORM",
        help="scale longer gradients down to this norm",
    )
    group.add_argument(
        "--ema",
        type=below_one,
        metavar="DECAY",
        help="also average weights over the steps, for example with 0.999, and keep what validates better",
    )
    group.add_argument(
        "--early_stop",
        type=number(int, 1, 10**6),
        metavar="EPOCHS",
        help="stop after so many epochs without a better validation accuracy",
    )


def _add_optimizer_flags(group: Group) -> None:
    group.add_argument("--optimizer", choices=tuple(OWN_DEFAULTS), default="SGD", help="SGD has momentum 0.9")
    group.add_argument("--nesterov", action="store_true", help="Nesterov's momentum, for SGD")
    group.add_argument(
        "--learning_rate",
        type=number(float, 0, above_low=True),
        metavar="RATE",
        help=f"the highest of the schedule ({_own_defaults('learning_rate')})",
    )
    group.add_argument(
        "--linear_scaling",
        action="store_true",
        help="multiply the learning rate by the images of a step (--batch_size times --accumulate) over 64",
    )
    group.add_argument(
        "--weight_decay",
        type=strength,
        metavar="FACTOR",
        help="L2 penalty, added to the gradient; with ADAMW the share that weights lose in a step of rate 1 "
        f"({_own_defaults('weight_decay')})",
    )
    group.add_argument(
        "--no_bias_decay",
        action="store_true",
        help="weight decay for the weights of convolutions and linear layers only, not for biases and norms",
    )
    group.add_argument(
        "--decay_type",
        choices=("step", "step_warmup", "cosine_warmup"),
        default="step",
        help="how the learning rate falls, and whether it first rises",
    )
    group.add_argument(
        "--milestones",
        type=strength,
        nargs="+",
        metavar="EPOCH",
        help="when a step schedule divides the rate by 10 (default: at 25, 50 and 75 %% of the epochs)",
    )
    group.add_argument(
        "--warmup_epochs",
        type=strength,
        metavar="EPOCHS",
        help="how long a warm-up rises (default: a tenth of the epochs, at most 5)",
    )


def _add_loss_flags(group: Group) -> None:
    group.add_argument(
        "--label_smooth",
        type=fraction,
        default=0.0,
        metavar="SHARE",
        help="share of each label given to all classes alike",
    )
    group.add_argument(
        "--class_weights",
        choices=("none", "balanced"),
        default="none",
        help="balanced: images of rare classes count more, so that all classes weigh the same; epochs "
        "are chosen by balanced accuracy then, the mean over classes",
    )
    group.add_argument(
        "--teacher",
        type=path,
        metavar="FILE",
        help="follow the network of another run's best.pt, on the same classes",
    )
    group.add_argument(
        "--teacher_temperature",
        type=number(float, 0, above_low=True),
        default=20.0,
        metavar="T",
        help="how soft the teacher's probabilities are made",
    )
    group.add_argument(
        "--teacher_weight",
        type=number(float, 0, above_low=True),
        default=1.0,
        metavar="FACTOR",
        help="of the teacher's part of the loss",
    )


def _add_augmentation_flags(group: Group) -> None:
    group.add_argument(
        "--mixup",
        type=strength,
        default=0.0,
        metavar="ALPHA",
        help="blend pairs of images, by Beta(ALPHA, ALPHA); 0 is off",
    )
    group.add_argument(
        "--cutmix_alpha",
        type=strength,
        default=0.0,
        metavar="ALPHA",
        help="paste boxes between pairs of images, sized by Beta(ALPHA, ALPHA); 0 is off",
    )
    group.add_argument(
        "--cutmix_prob", type=fraction, default=0.0, metavar="P", help="share of batches that CutMix mixes"
    )
    group.add_argument(
        "--flip",
        choices=("none", "horizontal", "both"),
        default="horizontal",
        help="mirror half of the training images left to right, and with both half of them top to bottom "
        "too; none for text, digits, and whatever left and right tell apart",
    )
    group.add_argument("--randaugment", action="store_true", help="random operations on each training image")
    group.add_argument("--rand_n", type=number(int, 1, 16), default=3, metavar="N", help="how many")
    group.add_argument(
        "--rand_m", type=number(int, 0, 30), default=15, metavar="M", help="how strong, 0 to 30"
    )
    group.add_argument(
        "--trivial_augment",
        action="store_true",
        help="one of RandAugment's operations on each training image, of random strength",
    )
    group.add_argument(
        "--random_erasing",
        type=fraction,
        default=0.0,
        metavar="P",
        help="share of training images that lose a box",
    )
    group.add_argument(
        "--tta",
        choices=("none", "flip"),
        default="none",
        help="flip: classify images and mirror images",
    )


def _add_device_flags(group: Group) -> None:
    group.add_argument(
        "--device",
        type=device_name,
        default="auto",
        metavar="NAME",
        help="auto (the first CUDA device, else the CPU), cpu, cuda, cuda:N and, untested, mps, xpu or xpu:N",
    )
    group.add_argument(
        "--precision",
        choices=("auto", "fp32", "tf32", "bf16", "fp16"),
        default="auto",
        help="of the multiplications; auto takes the fastest that is safe here, fp32 keeps all 23 bits of a "
        "number's fraction, and tf32, on GPUs that have it, keeps 10 of them where it multiplies",
    )
    group.add_argument(
        "--memory_format",
        choices=("auto", "channels_last", "contiguous"),
        default="auto",
        help="the order of images and weights in memory; auto takes what the network is faster in there",
    )
    group.add_argument(
        "--compile",
        action="store_true",
        help="train with torch.compile, which takes a minute or more at first and pays in long runs",
    )
    group.add_argument(
        "--deterministic",
        action="store_true",
        help="the same bits each time on a GPU too, at some cost in speed",
    )


GROUPS = {
    "run": _add_run_flags,
    "data": _add_data_flags,
    "network": _add_network_flags,
    "training": _add_training_flags,
    "optimizer": _add_optimizer_flags,
    "loss": _add_loss_flags,
    "augmentation": _add_augmentation_flags,
    "device": _add_device_flags,
}


def build_parser() -> argparse.ArgumentParser:
    """The flags, in groups."""
    parser = Parser(
        prog="main.py",
        description="Train an image classifier on a folder of images, with the bag of tricks.",
        formatter_class=Help,
        allow_abbrev=False,
    )
    for title, add_flags in GROUPS.items():
        add_flags(parser.add_argument_group(title))
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
    if not args.checkpoint_name:
        problem = "--checkpoint_name is needed: name the run, or try --demo"
    elif sum((args.resume, args.overwrite, args.evaluate)) > 1:
        problem = "--resume, --overwrite and --evaluate exclude each other: give one of them"
    elif not (args.resume or args.evaluate):  # else the run's own flags count
        problem = contradiction(args)
    if problem:
        parser.error(problem)
    return args


def contradiction(args: argparse.Namespace) -> str | None:
    """What forbids to start a run with flags that are right one by one, or None."""
    given = set(args.given)
    if args.pretrained_path and not args.pretrained:
        return "--pretrained_path does nothing with --pretrained 0: leave one of them out"
    if args.norm == "frozen_batchnorm" and not args.pretrained:
        return "--norm frozen_batchnorm has no statistics to keep with --pretrained 0: use batchnorm"
    if args.freeze_epochs and not args.pretrained:
        return "--freeze_epochs would keep random weights with --pretrained 0: leave it out"
    if args.frame_size and args.crop != "random":
        return f"--frame_size does nothing with --crop {args.crop}: leave it out, or use random"
    if args.frame_size and args.frame_size < args.image_size:
        return (
            f"--frame_size {args.frame_size} is smaller than --image_size {args.image_size}: make it larger"
        )
    if args.tta == "flip" and args.flip == "none":
        return "--tta flip shows the network mirror images, and --flip none trains on none: leave one out"
    if args.freeze_epochs > args.epochs:
        return f"--freeze_epochs {args.freeze_epochs} is longer than --epochs {args.epochs}: shorten it"
    if args.freeze_epochs and args.norm.startswith("evonorm") and not args.pretrained_path:
        return f"--freeze_epochs would keep fresh norms with --norm {args.norm}: leave one of them out"
    if args.nesterov and args.optimizer != "SGD":
        return f"--nesterov does nothing with --optimizer {args.optimizer}: use SGD"
    if args.no_bias_decay and not args.weight_decay:
        return "--no_bias_decay does nothing with --weight_decay 0: leave it out"
    if "milestones" in given and args.decay_type == "cosine_warmup":
        return "--milestones does nothing with --decay_type cosine_warmup: leave it out, or use step"
    if "warmup_epochs" in given and args.decay_type == "step":
        return "--warmup_epochs does nothing with --decay_type step: use step_warmup or cosine_warmup"
    if args.warmup_epochs >= args.epochs:
        return f"--warmup_epochs {args.warmup_epochs:g} leaves nothing of --epochs {args.epochs}: shorten it"
    if args.milestones != sorted(args.milestones) or args.milestones[-1] >= args.epochs:
        return f"--milestones must rise and stay below --epochs {args.epochs}"
    if args.early_stop and args.early_stop <= args.freeze_epochs:
        return f"--early_stop {args.early_stop} may end the run within --freeze_epochs: make it longer"
    if args.early_stop and args.early_stop >= args.epochs - 1:
        return f"--early_stop {args.early_stop} never comes about in --epochs {args.epochs}: shorten it"
    if given & {"rand_n", "rand_m"} and not args.randaugment:
        return "--rand_n and --rand_m do nothing without --randaugment: add it"
    if args.randaugment and args.trivial_augment:
        return "--randaugment and --trivial_augment exclude each other: give one of them"
    if args.cutmix_prob and not args.cutmix_alpha:
        return "--cutmix_prob does nothing without --cutmix_alpha: add it, for example --cutmix_alpha 1.0"
    if args.cutmix_alpha and "cutmix_prob" not in given:
        return "--cutmix_alpha does nothing without --cutmix_prob: add it, for example --cutmix_prob 1.0"
    if given & {"teacher_temperature", "teacher_weight"} and not args.teacher:
        return "--teacher_temperature and --teacher_weight do nothing without --teacher: add it"
    return None


def run_flags(args: argparse.Namespace) -> dict[str, Any]:
    """The flags as plain values, for args.json and the checkpoint."""
    return {name: value for name, value in vars(args).items() if name != "given"}


def with_flags_of_run(args: argparse.Namespace, stored: dict[str, Any], run: str) -> argparse.Namespace:
    """`args` with the flags that an earlier run was started with, as its checkpoint has them.

    Flags in `NOT_OF_THE_RUN` are taken from the command line where they were given there. Any other
    given flag must repeat what the run has; else `UserError` names those that do not.
    """
    changed = [
        f"--{name} {getattr(args, name)} (the run has {stored.get(name)})"
        for name in args.given
        if name not in NOT_OF_THE_RUN and getattr(args, name) != stored.get(name)
    ]
    if changed:
        raise UserError(
            f"{run} was started with other flags; leave out {', '.join(changed)}, or choose another name"
        )
    defaults = vars(build_parser().parse_args([]))  # of flags that are younger than the run
    ours = {name: getattr(args, name) for name in NOT_OF_THE_RUN if name in args.given}
    actions = {name: getattr(args, name) for name in ("resume", "overwrite", "evaluate")}
    return argparse.Namespace(**{**defaults, **stored, **ours, **actions, "given": args.given})
