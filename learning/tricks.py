"""The tricks: of each its flags, what it excludes, how it is told, where it is from, and an example.

The one place that knows which tricks there are. The command line and its contradictions, what a run says of
itself, the report, the benchmark and the table in the README follow from it. Nothing here imports torch.
"""

import argparse
import difflib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from learning.schedule import SCHEDULES, step_decay
from network import NETWORKS, NORMS
from utils.flags import Flag, not_negative, number, path, positive, share, share_below_one, spelled

# Of each optimizer its learning rate and weight decay, where no others are given. The decay of ADAMW is
# another rule, for which values about 100 times larger do the same.
OWN_DEFAULTS = {
    "SGD": {"learning_rate": 0.1, "weight_decay": 1e-4},
    "ADAM": {"learning_rate": 1e-3, "weight_decay": 1e-4},
    "ADAMW": {"learning_rate": 1e-3, "weight_decay": 0.05},
    "RADAM": {"learning_rate": 1e-3, "weight_decay": 1e-4},
}


@dataclass(frozen=True)
class Built:
    """What was built for a run, of which the tricks in effect are read back."""

    fit: Any  # learning.fit.Fit
    views: int  # of an image, that evaluation shows the network

    @property
    def trainer(self) -> Any:
        """The `learning.trainer.Trainer`."""
        return self.fit.trainer

    def layers(self, *kinds: str) -> list[Any]:
        """The network's layers of classes of these names."""
        return [layer for layer in self.trainer.network.modules() if type(layer).__name__ in kinds]


@dataclass(frozen=True)
class Example:
    """A use of a trick: a row of the table in the README and, if `timed`, of the benchmark's."""

    flags: str
    where: str  # the file
    about: str  # what it does, and when to take it
    papers: tuple[str, ...] = ()  # numbers of arXiv's, or words and an address
    name: str = ""  # else that of the trick
    timed: bool = False


@dataclass(frozen=True)
class Refused:
    """What forbids to start a run with flags that are right one by one."""

    when: Callable[[argparse.Namespace], Any]
    message: str  # with the names of flags in braces


@dataclass(frozen=True)
class Unwise:
    """What is allowed, and likely to go wrong."""

    when: Callable[[argparse.Namespace], Any]
    message: str  # with the names of flags in braces


Flags = Mapping[str, Any]
Part = Flag | Example | Refused | Unwise


@dataclass(frozen=True, eq=False)
class Trick:
    """Something that is on or off (`letters` is a string), or in one of several ways (a string for some).

    Without letters the report tells it by its flags.
    """

    name: str
    group: str  # of --help
    parts: tuple[Part, ...]
    letters: str | dict[str, str] | None = None
    built: Callable[[Built], str | None] | None = None  # its strength in words, None where it is not there
    told: str = ""  # what a run tells it under, which several may share; else its name
    values: Callable[[Flags, Flags], tuple] | None = None  # what the report compares, of flags and defaults

    @property
    def on_or_off(self) -> bool:
        """Whether it is not in one of several ways."""
        return isinstance(self.letters, str)

    @property
    def apart(self) -> bool:
        """Whether the report tells it as one, and not flag by flag."""
        return self.letters is not None or self.values is not None

    @property
    def flags(self) -> list[Flag]:
        """Its flags."""
        return [part for part in self.parts if isinstance(part, Flag)]

    @property
    def examples(self) -> list[Example]:
        """Its uses."""
        return [part for part in self.parts if isinstance(part, Example)]

    def contradiction(self, args: argparse.Namespace) -> str | None:
        """What forbids it with the other flags, or None."""
        found = (part.message for part in self.parts if isinstance(part, Refused) and part.when(args))
        message = next(found, None)
        return message and message.format(**vars(args))

    def unwise(self, args: argparse.Namespace) -> list[str]:
        """What is likely to go wrong with it."""
        found = (part.message for part in self.parts if isinstance(part, Unwise) and part.when(args))
        return [message.format(**vars(args)) for message in found]

    def value(self, flags: Flags, plain: Flags) -> tuple:
        """What tells runs with the trick from those without or with another; the first says which way."""
        return self.values(flags, plain) if self.values else tuple(flags[flag.name] for flag in self.flags)

    def short(self, value: tuple) -> str:
        """The letters of a value."""
        if isinstance(self.letters, dict):
            return self.letters.get(value[0], self.long(value))
        return self.letters or self.long(value)

    def long(self, value: tuple) -> str:
        """A value in words."""
        if isinstance(self.letters, dict):
            return str(value[0])
        return self.name if self.on_or_off or value[0] is True else f"{self.name} {value[0]}"


def row(name: str, group: str, *parts: Part, **rest: Any) -> Trick:
    """A row of the table."""
    return Trick(name, group, parts, **rest)


def network_name(text: str) -> str:
    """The type of --model."""
    text = spelled(NETWORKS)(text)
    if text not in NETWORKS:
        near = difflib.get_close_matches(text, NETWORKS, n=4, cutoff=0)
        raise argparse.ArgumentTypeError(f"there is no network {text!r}; like it are {', '.join(near)}")
    return text


def has_layer_norms(model: str) -> bool:
    """Whether the network has norms of its own, which --norm does not choose."""
    return NETWORKS[model][0] == "convnext"


def own_defaults(flag: str) -> str:
    """In words, what a flag is for each optimizer unless it is given."""
    return "default: " + ", ".join(f"{own[flag]:g} for {name}" for name, own in OWN_DEFAULTS.items())


def _norms(built: Built) -> str | None:
    kinds = Counter(
        type(layer).__name__ for layer in built.layers("EvoNormS0", "EvoNormB0", "FrozenBatchNormAct")
    )
    return ", ".join(f"{count} {kind}" for kind, count in kinds.items()) or None


def _zero_gammas(built: Built) -> str | None:
    lasts = [
        block.last_norm for block in built.trainer.network.modules() if getattr(block, "last_norm", None)
    ]
    zeros = sum(not norm.weight.any() for norm in lasts)
    return f"in {zeros} of {len(lasts)} residual branches" if zeros else None


def _drop_path(built: Built) -> str | None:
    drops = [layer.p for layer in built.layers("StochasticDepth") if layer.p]
    return f"up to {max(drops):.3g}, in {len(drops)} residual branches" if drops else None


def _dropout(built: Built) -> str | None:
    drops = [layer.p for layer in built.layers("Dropout") if layer.p]
    return f"{drops[0]:g}" if drops else None


def _optimizer(built: Built) -> str:
    optimizer, groups = built.trainer.optimizer, built.trainer.optimizer.param_groups
    words = [type(optimizer).__name__]
    if "momentum" in groups[0]:
        words.append(f"{'Nesterov ' * groups[0].get('nesterov', False)}momentum {groups[0]['momentum']:g}")
    words.append(f"learning rate {built.trainer.base_lrs[0]:g}")
    for group in groups:
        words.append(f"weight decay {group['weight_decay']:g} on {len(group['params'])} tensors")
    return ", ".join(words)


def _schedule(built: Built) -> str:
    schedule = built.trainer.lr_factor
    factors = [schedule(step) for step in range(built.fit.epochs * built.fit.steps_per_epoch)]
    highest = factors.index(max(factors))
    rise = f"rises over {highest + 1} steps, " if highest else ""
    return f"{schedule.decay_type}, {rise}ends at {factors[-1]:.3g} of the learning rate"


def _share_of_batches(built: Built) -> str:
    return ", in half of the batches" * (len(built.trainer.mixing.methods) == 2)


def _mixup(built: Built) -> str | None:
    alpha = built.trainer.mixing.mixup_alpha
    return f"alpha {alpha:g}{_share_of_batches(built)}" if alpha else None


def _cutmix(built: Built) -> str | None:
    mixing = built.trainer.mixing
    if not (mixing.cutmix_alpha and mixing.cutmix_prob):
        return None
    return f"alpha {mixing.cutmix_alpha:g}, probability {mixing.cutmix_prob:g}{_share_of_batches(built)}"


def _loss(built: Built) -> str:
    loss = str(built.trainer.criterion.loss)
    plain = ", plain" if loss == "cross-entropy" else "; plain cross-entropy"
    return f"{loss}{plain} for validation and test images"


def _smoothing(built: Built) -> str | None:
    smoothing = built.trainer.criterion.loss.smoothing
    return f"{smoothing:g}" if smoothing else None


def _class_weights(built: Built) -> str | None:
    if built.trainer.criterion.class_weights is None:
        return None
    weights = built.trainer.criterion.class_weights.tolist()
    return f"from {min(weights):.3g} to {max(weights):.3g}; epochs are chosen by balanced accuracy"


def _distillation(built: Built) -> str | None:
    teacher = built.trainer.criterion.teacher
    return teacher and f"temperature {teacher.temperature:g}, weight {teacher.weight:g}"


def _early_stop(built: Built) -> str | None:
    patience = built.fit.patience
    return patience and f"after {patience} epochs without a better validation accuracy"


def _transforms(*streams: str) -> Callable[[Built], str]:
    """The augmentations of these random streams."""

    def built(built: Built) -> str:
        transforms = built.trainer.augment.transforms
        return ", ".join(str(transforms[stream]) for stream in streams if stream in transforms)

    return built


def _of_trainer(name: str, words: str, unless: Any = None) -> Callable[[Built], str | None]:
    """What a number of the trainer means, where it is not that of a plain run."""

    def built(built: Built) -> str | None:
        value = getattr(built.trainer, name)
        return None if value == unless else words.format(value)

    return built


def _warm_up(flags: Flags, plain: Flags) -> tuple:
    epochs = flags["warmup_epochs"]
    usual = "usual" if epochs == plain["warmup_epochs"] else epochs
    return (usual if SCHEDULES[flags["decay_type"]][0] and epochs else None,)


def _decay(flags: Flags, plain: Flags) -> tuple:
    return (SCHEDULES[flags["decay_type"]][1].__name__.replace("_", " "),)


def _milestones(flags: Flags, plain: Flags) -> tuple:
    counts = _decay(flags, plain) == ("step decay",) and flags["milestones"] != plain["milestones"]
    return (tuple(flags["milestones"]) if counts else None,)


def _weights(flags: Flags, plain: Flags) -> tuple:
    file = flags["pretrained_path"]
    return (Path(file).name if file else ("scratch", "ImageNet", "ImageNet V2")[flags["pretrained"]],)


# In the order in which letters are written, and in which a trick counts as added to those before it.
# fmt: off
TRICKS = (
    row("network", "network",
        Flag("model", "ResNet50", "ResNet18, 34, 50, 101 or 152, each also with -B, -C or -D; "
            "RegNetX-200MF to RegNetY-32GF; EfficientNet-B0 to -B7, -Lite0 to -Lite4; RegNet is "
            "RegNetY-1.6GF, and EfficientNet its B2; ConvNeXt-Tiny, -Small, -Base", network_name, "NAME"),
        Example("--model ResNet50-D", "network/resnet.py",
            "Downsample by a pooled shortcut, with a stem of three small convolutions; a point on "
            "ImageNet for almost no time. D is the one to take.",
            ("1512.03385", "1812.01187"), "ResNet-B, -C, -D",
            True),
        Example("--model EfficientNet-B2", "network/efficientnet.py",
            "Depth, width and pixels grow together; few parameters, and the Lite ones are quick on CPUs. "
            "For small models that have to be accurate.", ("1905.11946",),
            "EfficientNet-B0 to -B7, -Lite0 to -Lite4"),
        Example("--model RegNetY-1.6GF", "network/regnet.py",
            "Widths on a line, in groups; found by searching design spaces. As accurate as EfficientNets, "
            "and quicker on GPUs.", ("2003.13678",),
            "RegNetX, RegNetY, 200MF to 32GF"),
        Example("--model ConvNeXt-Tiny", "network/convnext.py",
            "A ResNet with the habits of transformers: large depthwise kernels, layer norm, few "
            "activations. For large data sets, or pretrained.", ("2201.03545",),
            "ConvNeXt-Tiny, -Small, -Base"),
        Refused(lambda args: has_layer_norms(args.model) and args.image_size < 32,
            "--model {model} halves images five times: --image_size {image_size} must be 32 or more"),
        letters={"ResNet50": "B", "EfficientNet": "EN", "RegNet": "RN"}),
    row("weights", "network",
        Flag("pretrained", 1,
            "1: start from ImageNet weights, 2: from torchvision's newer ones, 0: from scratch",
            (0, 1, 2)),
        Flag("pretrained_path", None, "a weights file (default: torchvision's, downloaded once)", path,
            "FILE"),
        Refused(lambda args: args.pretrained_path and not args.pretrained,
            "--pretrained_path does nothing with --pretrained 0: leave one of them out"),
        Refused(lambda args: args.pretrained_path and args.pretrained == 2,
            "--pretrained 2 is torchvision's weights, not those of --pretrained_path: leave one of them out"),
        letters={}, values=_weights),
    row("optimizer", "optimizer",
        Flag("optimizer", "SGD", "SGD has momentum 0.9", tuple(OWN_DEFAULTS)),
        Flag("learning_rate", None, f"the highest of the schedule ({own_defaults('learning_rate')})",
            positive, "RATE"),
        Example("--optimizer RADAM", "learning/optimizer.py",
            "Adam that holds its steps back while it knows little of the gradients' variance; a warm-up "
            "of its own. Where Adam starts badly.", ("1908.03265",), "RAdam", True),
        Example("--optimizer ADAMW", "learning/optimizer.py",
            "Adam whose weight decay does not pass through its scaling. The usual choice for ConvNeXts.",
            ("1711.05101",), "AdamW"),
        Unwise(lambda args: args.pretrained and args.optimizer == "SGD" and args.learning_rate >= 0.05,
            "SGD with --learning_rate {learning_rate:g} can destroy pretrained weights; --recipe finetune is "
            "gentler"),
        letters={"SGD": "SGD", "ADAM": "A", "ADAMW": "AW", "RADAM": "R"}, built=_optimizer),
    row("weight decay", "optimizer",
        Flag("weight_decay", None,
            "L2 penalty, added to the gradient; with ADAMW the share that weights lose in a step of rate 1 "
            f"({own_defaults('weight_decay')})", not_negative, "FACTOR")),
    row("Nesterov's momentum", "optimizer",
        Flag("nesterov", False, "Nesterov's momentum, for SGD"),
        Example("--nesterov", "learning/optimizer.py",
            "Looks at the gradient where momentum is about to lead. Costs nothing; take it with SGD.",
            ("ICML 2013 https://proceedings.mlr.press/v28/sutskever13.html",)),
        Refused(lambda args: args.nesterov and args.optimizer != "SGD",
            "--nesterov does nothing with --optimizer {optimizer}: use SGD")),
    row("linear scaling of the learning rate", "optimizer",
        Flag("linear_scaling", False, "multiply the learning rate by the images of a step (--batch_size "
            "times --accumulate) over 64"),
        Example("--linear_scaling", "learning/setup.py",
            "A batch k times as large takes a learning rate k times as high. When you change the batch "
            "size.", ("1706.02677",))),
    row("warm-up", "optimizer",
        Flag("warmup_epochs", None, "how long a warm-up rises (default: a tenth of the epochs, at most 5)",
            not_negative, "EPOCHS"),
        Example("--decay_type step_warmup", "learning/schedule.py",
            "The learning rate rises from 0 at first, so that fresh layers do not spoil the others. With "
            "high rates, large batches and Adam.", ("1706.02677",)),
        Refused(lambda args: "warmup_epochs" in args.given and not SCHEDULES[args.decay_type][0],
            "--warmup_epochs does nothing with --decay_type {decay_type}: use one with a warm-up"),
        Refused(lambda args: args.warmup_epochs >= args.epochs,
            "--warmup_epochs {warmup_epochs:g} leaves nothing of --epochs {epochs}: shorten it"),
        letters="W", values=_warm_up),
    row("schedule", "optimizer",
        Flag("decay_type", "step", "how the learning rate falls, and whether it first rises",
            tuple(SCHEDULES)),
        Example("--decay_type cosine_warmup", "learning/schedule.py",
            "The learning rate falls along half a cosine, with no milestones to choose. The default "
            "choice.", ("1608.03983",), "cosine decay"),
        Example("--decay_type linear_warmup", "learning/schedule.py",
            "The learning rate falls on a line. As good as cosine where epochs are few.", (), "linear decay"),
        letters={"step decay": "SD", "cosine decay": "C", "linear decay": "L"}, values=_decay,
        built=_schedule),
    row("--milestones", "optimizer",
        Flag("milestones", None,
            "when a step schedule divides the rate by 10 (default: at 25, 50 and 75 %% of the epochs)",
            not_negative, "EPOCH", several=True),
        Refused(lambda args: "milestones" in args.given and SCHEDULES[args.decay_type][1] != step_decay,
            "--milestones does nothing with --decay_type {decay_type}: leave it out, or use step"),
        Refused(
            lambda args: args.milestones != sorted(args.milestones) or args.milestones[-1] >= args.epochs,
            "--milestones must rise and stay below --epochs {epochs}"),
        values=_milestones),
    row("zero gamma", "network",
        Flag("zero_gamma", False, "start the last norm of each residual branch at 0"),
        Example("--zero_gamma", "network/norm.py",
            "Each residual branch starts at 0, so that a deep network starts as a shallow one. From "
            "scratch, in deep ResNets.", ("1812.01187",)),
        Refused(lambda args: args.zero_gamma and has_layer_norms(args.model),
            "--zero_gamma does nothing with --model {model}, whose branches start small: leave it out"),
        letters="Z", built=_zero_gammas),
    row("no bias decay", "optimizer",
        Flag("no_bias_decay", False,
            "weight decay for convolutions and linear layers, not for biases and norms"),
        Example("--no_bias_decay", "learning/optimizer.py",
            "Only weights of convolutions and linear layers are decayed. From scratch and with large "
            "batches.", ("1812.01187",)),
        Refused(lambda args: args.no_bias_decay and not args.weight_decay,
            "--no_bias_decay does nothing with --weight_decay 0: leave it out"),
        letters="NB"),
    row("loss", "loss",
        Flag("loss", "softmax", "focal: what is known well counts less; bce: each class is a question of its "
            "own", ("softmax", "focal", "bce")),
        Flag("focal_gamma", 2.0, "how much less, with --loss focal", not_negative, "GAMMA"),
        Example("--loss focal", "learning/loss.py",
            "Images that are known well count less. Where easy images drown the others.",
            ("1708.02002",), "focal loss"),
        Example("--loss bce", "learning/loss.py",
            "A yes or no for each class, in place of one choice. Where classes overlap, and with MixUp "
            "and CutMix.", ("2110.00476",), "binary cross-entropy", True),
        Refused(lambda args: "focal_gamma" in args.given and args.loss != "focal",
            "--focal_gamma does nothing with --loss {loss}: use focal"),
        letters={"softmax": "CE", "focal": "FL", "bce": "BCE"}, built=_loss),
    row("label smoothing", "loss",
        Flag("label_smooth", 0.0, "share of each label given to all classes alike", share, "SHARE"),
        Example("--label_smooth 0.1", "learning/loss.py",
            "The right class gets 0.9 and a little is left for the others, so that the network does not "
            "become too sure. Long runs, many classes.", ("1512.00567",), timed=True),
        letters="S",
        built=_smoothing),
    row("class weights", "loss",
        Flag("class_weights", "none", "balanced: images of rare classes count more, so that all classes "
            "weigh the same; epochs are chosen by balanced accuracy then, the mean over classes",
            ("none", "balanced")),
        Example("--class_weights balanced", "learning/loss.py",
            "Images of rare classes count more, and the best epoch is that of the best mean over classes. "
            "Where rare classes matter as much.",
            ("King and Zeng 2001 https://doi.org/10.1093/oxfordjournals.pan.a004868",),
            "weights for rare classes"),
        built=_class_weights),
    row("MixUp", "augmentation",
        Flag("mixup", 0.0, "blend pairs of images, by Beta(ALPHA, ALPHA); 0 is off", not_negative, "ALPHA"),
        Example("--mixup 0.2", "learning/mixing.py",
            "Blends pairs of images and of their labels. Against learning by heart, in long runs.",
            ("1710.09412",), timed=True),
        letters="M", built=_mixup),
    row("CutMix", "augmentation",
        Flag("cutmix_alpha", 0.0,
            "paste boxes between pairs of images, sized by Beta(ALPHA, ALPHA); 0 is off", not_negative,
            "ALPHA"),
        Flag("cutmix_prob", 0.0, "share of batches that CutMix mixes", share, "P"),
        Example("--cutmix_alpha 1 --cutmix_prob 1", "learning/mixing.py",
            "Pastes a box of another image and shares the label by area. As MixUp, and keeps images "
            "sharp; for long runs.", ("1905.04899",), timed=True),
        Refused(lambda args: args.cutmix_prob and not args.cutmix_alpha,
            "--cutmix_prob does nothing without --cutmix_alpha: add it, for example --cutmix_alpha 1.0"),
        Refused(lambda args: args.cutmix_alpha and "cutmix_prob" not in args.given,
            "--cutmix_alpha does nothing without --cutmix_prob: add it, for example --cutmix_prob 1.0"),
        letters="CM", built=_cutmix),
    row("training accuracy", "augmentation",
        built=lambda built: built.trainer.mixing.methods and "against the label that has the larger share"),
    row("random crops", "data",
        Flag("crop", "none", "center: keep the aspect ratio and cut out the middle; random: so too, but "
            "train on random parts of 8 to 100 %% of the area; none: squeeze whole images to squares",
            ("none", "center", "random")),
        Flag("frame_size", None, "squares of this side hold the whole training images that --crop random "
            "takes parts of (default: twice --image_size)", number(int, 8, 8192), "PIXELS"),
        Example("--crop random", "learning/crop.py",
            "Trains on a random part of each image, of random shape, at full size. The strongest "
            "augmentation for photographs; not where size or border matter.", ("1409.4842",), timed=True),
        Refused(lambda args: args.frame_size and args.crop != "random",
            "--frame_size does nothing with --crop {crop}: leave it out, or use random"),
        Refused(lambda args: args.frame_size and args.frame_size < args.image_size,
            "--frame_size {frame_size} is smaller than --image_size {image_size}: make it larger"),
        built=_transforms("crop"), told="augmentation"),
    row("flips", "augmentation",
        Flag("flip", "horizontal", "mirror half of the training images left to right, and with both half "
            "of them top to bottom too; none for text, digits, and whatever left and right tell apart",
            ("none", "horizontal", "both")),
        built=_transforms("flip", "vertical_flip"), told="augmentation"),
    row("RandAugment", "augmentation",
        Flag("randaugment", False, "random operations on each training image"),
        Flag("rand_n", 3, "how many", number(int, 1, 16), "N"),
        Flag("rand_m", 15, "how strong, 0 to 30", number(int, 0, 30), "M"),
        Example("--randaugment", "learning/randaugment.py",
            "N operations of strength M on each image, from 16 of colour and geometry. For large networks "
            "and long runs.", ("1909.13719",), timed=True),
        Refused(lambda args: {"rand_n", "rand_m"} & {*args.given} and not args.randaugment,
            "--rand_n and --rand_m do nothing without --randaugment: add it"),
        letters="RA", built=_transforms("randaugment"), told="augmentation"),
    row("TrivialAugment", "augmentation",
        Flag("trivial_augment", False, "one of RandAugment's operations on each image, of random strength"),
        Example("--trivial_augment", "learning/randaugment.py",
            "One operation of random strength on each image; nothing to choose. The first to try.",
            ("2103.10158",), timed=True),
        Refused(lambda args: args.randaugment and args.trivial_augment,
            "--randaugment and --trivial_augment exclude each other: give one of them"),
        letters="TA", built=_transforms("trivial_augment"), told="augmentation"),
    row("AugMix", "augmentation",
        Flag("augmix", False, "show each image beside two mixtures of it, to be classified alike; thrice the "
            "work"),
        Example("--augmix", "learning/augmix.py",
            "Shows an image beside two mixtures of its changes, which have to be classified alike. "
            "Against noise, blur and weather in use; thrice the work.", ("1912.02781",), timed=True),
        Refused(lambda args: args.augmix and (args.randaugment or args.trivial_augment),
            "--augmix has operations of its own: leave out --randaugment and --trivial_augment"),
        letters="AM", built=_transforms("augmix"), told="augmentation"),
    row("random erasing", "augmentation",
        Flag("random_erasing", 0.0, "share of training images that lose a box", share, "P"),
        Example("--random_erasing 0.25", "learning/augment.py",
            "Paints over a box. Where things are often hidden in part.", ("1708.04896",), timed=True),
        letters="RE", built=_transforms("random_erasing"), told="augmentation"),
    row("norm", "network",
        Flag("norm", "batchnorm",
            "the norm layers; frozen_batchnorm keeps pretrained statistics, evonorm is EvoNorm-S0", NORMS),
        Example("--norm evonorm", "network/evonorm.py",
            "One layer for norm and activation, found by evolution; S0 needs no batch statistics. For "
            "small batches, from scratch.", ("2004.02967",), "EvoNorm-S0, -B0", True),
        Example("--norm frozen_batchnorm", "network/norm.py",
            "Keeps the statistics of pretrained weights. Fine-tuning on few images or in small batches.",
            (), "pretrained norm statistics"),
        Refused(lambda args: args.norm == "frozen_batchnorm" and not args.pretrained,
            "--norm frozen_batchnorm has no statistics to keep with --pretrained 0: use batchnorm"),
        Refused(lambda args: "norm" in args.given and has_layer_norms(args.model),
            "--norm does nothing with --model {model}, which has layer norms: leave it out"),
        letters={"batchnorm": "BN", "evonorm": "E", "evonorm_b0": "EB", "frozen_batchnorm": "FB"},
        built=_norms),
    row("drop path", "network",
        Flag("drop_path", None, "share of images for which training leaves out the last residual branch, "
            "less for earlier ones (default: as published, up to 0.2 in the EfficientNets, 0.1 to 0.5 in the "
            "ConvNeXts and else 0)", share_below_one, "P"),
        Example("--drop_path 0.1", "network/layers.py",
            "Leaves out residual branches at random, the deeper the more often. Deep networks, long runs.",
            ("1603.09382",), "stochastic depth"),
        built=_drop_path),
    row("dropout", "network",
        Flag("dropout", None, "share of features that training leaves out before the last layer "
            "(default: as published, 0.2 to 0.5 for the EfficientNets and else 0)", share_below_one, "P"),
        Example("--dropout 0.2", "network/layers.py",
            "Leaves out features before the last layer. EfficientNets have it anyway.",
            ("1207.0580",), "dropout before the last layer"),
        built=_dropout),
    row("average of weights", "training",
        Flag("ema", None,
            "also average weights over the steps, for example with 0.999, and keep what validates better",
            share_below_one, "DECAY"),
        Example("--ema 0.999", "learning/ema.py",
            "Averages the weights over the last steps, and keeps what validates better. Costs little and "
            "seldom hurts.",
            ("Polyak and Juditsky 1992 https://doi.org/10.1137/0330046",), timed=True),
        letters="EMA",
        built=lambda built: built.trainer.ema and f"decay {built.trainer.ema.decay:g}, after a ramp"),
    row("distillation", "loss",
        # Where it is; which one it is belongs to the run, and is checked.
        Flag("teacher", None, "follow the network of another run's best.pt, on the same classes", path,
            "FILE", of_run=False),
        Flag("teacher_temperature", 20.0, "how soft the teacher's probabilities are made", positive, "T"),
        Flag("teacher_weight", 1.0, "of the teacher's part of the loss", positive, "FACTOR"),
        Example("--teacher checkpoint/NAME/best.pt", "learning/teacher.py",
            "A small network follows the probabilities of a large one. When the model that goes to work "
            "has to be small.", ("1503.02531", "1812.01187")),
        Refused(lambda args: {"teacher_temperature", "teacher_weight"} & {*args.given} and not args.teacher,
            "--teacher_temperature and --teacher_weight do nothing without --teacher: add it"),
        letters="KD", built=_distillation),
    row("SAM", "training",
        Flag("sam", None, "take gradients at the sharpest place so far from the weights; twice the work, try "
            "0.05", positive, "RHO"),
        Example("--sam 0.05", "learning/sam.py",
            "Takes each gradient where the loss is worst nearby, which leads to flat minima. Few images, "
            "and twice the time.", ("2010.01412",), timed=True),
        letters="SAM", built=_of_trainer("sam_rho", "rho {:g}")),
    row("gradient clipping", "training",
        Flag("grad_clip", None, "scale longer gradients down to this norm", positive, "NORM"),
        Example("--grad_clip 1", "learning/trainer.py",
            "Shortens gradients that are longer than this. Where the loss jumps.", ("1211.5063",)),
        built=_of_trainer("grad_clip", "norm at most {:g}")),
    row("accumulation", "training",
        Flag("accumulate", 1, "a step takes K batches, that is K times --batch_size images, in the memory of "
            "one", number(int, 1, 10**6), "K"),
        Example("--accumulate 4", "learning/trainer.py",
            "A step of several batches in the memory of one. Where the batch you want does not fit.",
            (), "gradient accumulation"),
        built=_of_trainer("accumulate", "{} batches a step", unless=1)),
    row("freezing", "training",
        Flag("freeze_epochs", 0, "train only the last layer at first, on top of pretrained weights",
            number(int, 0, 10**6), "EPOCHS"),
        Example("--freeze_epochs 1", "learning/trainer.py",
            "Trains the new last layer first, on the pretrained network as it is. Fine-tuning on few "
            "images.", ("2202.10054",), "head first, then all"),
        Refused(lambda args: args.freeze_epochs and not args.pretrained,
            "--freeze_epochs would keep random weights with --pretrained 0: leave it out"),
        Refused(lambda args: args.freeze_epochs > args.epochs,
            "--freeze_epochs {freeze_epochs} is longer than --epochs {epochs}: shorten it"),
        Refused(
            lambda args: args.freeze_epochs and args.norm.startswith("evonorm") and not args.pretrained_path,
            "--freeze_epochs would keep fresh norms with --norm {norm}: leave one of them out"),
        built=_of_trainer("freeze_steps", "only the last layer for {} steps", unless=0)),
    row("low precision", "device",
        Flag("precision", "auto", "of the multiplications; auto takes the fastest that is safe here, "
            "fp32 keeps all 23 bits of a number's fraction, and tf32, on GPUs that have it, keeps 10 of "
            "them where it multiplies", ("auto", "fp32", "tf32", "bf16", "fp16")),
        Example("--precision bf16", "utils/run/device.py",
            "Multiplies with 16 bits where the hardware is fast at it. Chosen for you; fp32 for "
            "comparisons across machines.", ("1710.03740",)),
        built=_of_trainer("precision", "{}", unless="fp32")),
    row("early stopping", "training",
        Flag("early_stop", None, "stop after so many epochs without a better validation accuracy",
            number(int, 1, 10**6), "EPOCHS"),
        Example("--early_stop 20", "learning/fit.py",
            "Ends a run that no longer improves. Saves time with step schedules; cosine wants its whole "
            "length."),
        Refused(lambda args: args.early_stop and args.early_stop <= args.freeze_epochs,
            "--early_stop {early_stop} may end the run within --freeze_epochs: make it longer"),
        Refused(lambda args: args.early_stop and args.early_stop >= args.epochs - 1,
            "--early_stop {early_stop} never comes about in --epochs {epochs}: shorten it"),
        built=_early_stop),
    row("test-time augmentation", "augmentation",
        Flag("tta", "none", "flip: classify images and mirror images", ("none", "flip")),
        Example("--tta flip", "learning/evaluator.py",
            "Classifies an image and its mirror image, and takes the mean. A little more accurate at "
            "twice the time in use.", ("1409.1556",), "mirror images in the test too"),
        Refused(lambda args: args.tta == "flip" and args.flip == "none",
            "--tta flip shows the network mirror images, and --flip none trains on none: leave one out"),
        built=lambda built: f"mean of {built.views} views" if built.views > 1 else None),
)
# fmt: on


def in_effect(built: Built) -> dict[str, str]:
    """The tricks of a run and their strengths in words, read back from what was built.

    A flag that came to nothing is missing here.
    """
    found: dict[str, str] = {}
    for trick in TRICKS:
        if words := trick.built and trick.built(built):
            name = trick.told or trick.name
            found[name] = f"{found[name]}, {words}" if name in found else words
    return found


def table() -> str:
    """The table of tricks in docs/tricks.md."""
    rows = ["| trick | flag | what it does, and when to take it | where | paper |", "|---|---|---|---|---|"]
    for trick in TRICKS:
        for example in trick.examples:
            links = []
            for paper in example.papers:
                words, _, address = paper.rpartition(" ")
                links.append(
                    f"[{words}]({address})" if words else f"[{paper}](https://arxiv.org/abs/{paper})"
                )
            cells = (
                example.name or trick.name,
                f"`{example.flags}`",
                example.about,
                f"[{example.where}](../{example.where})",
                ", ".join(links),
            )
            rows.append(f"| {' | '.join(cells)} |".replace("|  |", "| |"))
    return "\n".join(rows)
