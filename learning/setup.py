"""From flags to objects: the one place that reads flags to decide what a run is made of."""

import hashlib
import platform
import sys
from argparse import Namespace
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import PIL
import torch
from torch import nn

from learning.augment import Augment, Flip, Normalise, RandomErasing, Transform, VerticalFlip
from learning.crop import CenterCrop, RandomResizedCrop, center_crop
from learning.evaluator import Evaluation, View, evaluate
from learning.fit import Fit
from learning.loss import CrossEntropy, balanced_class_weights
from learning.mixing import Mixing
from learning.optimizer import make_optimizer
from learning.randaugment import RandAugment, TrivialAugment
from learning.schedule import Schedule
from learning.teacher import Teacher
from learning.trainer import Trainer
from network import NETWORKS, build_network, load_weights
from network.weights import IMAGENET, Normalisation, load_torchvision_weights
from utils.data.batches import Loader, in_order, steps_per_epoch, training_order
from utils.data.cache import check_images, image_aspects, unreadable_images
from utils.data.decode import Frame
from utils.data.demo import draw_demo
from utils.data.folders import Dataset, find_dataset
from utils.data.images import open_images
from utils.data.leaks import leaks
from utils.errors import UserError
from utils.run.checkpoint import contents_told, load_checkpoint, save_checkpoint
from utils.run.compiler import prepare_compiler
from utils.run.device import (
    MEMORY_FORMATS,
    choose_device,
    choose_memory_format,
    choose_precision,
    configure,
    describe,
)
from utils.run.folder import RunFolder
from utils.run.log import RunLog
from utils.run.randomness import torch_seed
from utils.text import visible

Check = Callable[[], None]

REFERENCE_BATCH = 64  # the batch that --learning_rate is meant for, with --linear_scaling
NAMES_SHOWN = 20
CROP_MARGIN = 8 / 7  # images are stored so much larger than a crop, as 256 pixels for crops of 224
FRAME_FACTOR = 2  # and those that --crop random draws from, so that small parts have pixels enough


@dataclass
class Parts:
    """What training and evaluation share: the images, the network, and what carries them to it."""

    args: Namespace
    dataset: Dataset
    skipped: list[str]  # images that cannot be read
    network: nn.Module
    normalisation: Normalisation
    loader: Loader  # of all images, as evaluation sees them
    training_loader: Loader  # of training images
    teacher: Teacher | None
    device: torch.device
    precision: str
    memory_format: str

    @property
    def global_batch(self) -> int:
        """The most images of one step."""
        return self.args.batch_size * self.args.accumulate

    @property
    def steps_per_epoch(self) -> int:
        """How many steps show each training image once."""
        return steps_per_epoch(len(self.dataset.splits["train"]), self.global_batch)

    @property
    def normalise(self) -> Normalise:
        """Makes the network's input of uint8 images."""
        return Normalise(*self.normalisation, self.device, MEMORY_FORMATS[self.memory_format])

    @property
    def views(self) -> list[View]:
        """What evaluation shows the network of each image."""
        normalise, size = self.normalise, self.args.image_size

        def whole(images: torch.Tensor) -> torch.Tensor:
            return normalise(center_crop(images, size))

        return [whole, lambda images: whole(images.flip(-1))] if self.args.tta == "flip" else [whole]

    def inspect(self, check: Check) -> None:
        """Look at the images once, before a run starts: tell leaks, and refuse what cannot be read.

        Without stored images a bad test image would else be met when all is trained.
        """
        if pairs := leaks(self.dataset):
            print(
                f"warning  {len({test for _, test in pairs})} test images are also trained or validated on, "
                f"which makes the accuracy too good: {_some(f'{test} is {other}' for other, test in pairs)}"
            )
        if self.args.cache == "off" and not self.args.skip_corrupt:
            check_images(self.dataset, frame_of(self.args), check)

    def evaluate(self, network: nn.Module, split: str) -> Evaluation:
        """Evaluate a network, as it is now, on a split."""
        # Nothing is kept for a backward pass, so twice as many images surely fit.
        batches = self.loader(in_order(self.dataset.splits[split], 2 * self.args.batch_size))
        return evaluate(network, batches, self.views, self.precision)

    def about(self) -> dict:
        """What a run's files say about it beside its flags."""
        return {
            "classes": list(self.dataset.classes),
            "images": self.dataset.identity(),
            "skipped_images": self.skipped,
            "normalisation": [list(part) for part in self.normalisation],
            "teacher": self.teacher and self.teacher.fingerprint,
            "precision": self.precision,
            "memory_format": self.memory_format,
            "device": describe(self.device),
            "versions": {
                "python": platform.python_version(),
                "torch": str(torch.__version__),
                "numpy": np.__version__,
                "pillow": PIL.__version__,
            },
        }


def assemble(args: Namespace, checkpoint: dict | None, check: Check) -> Parts:
    """Find the images and build the network.

    With a `checkpoint` the classes, precision, memory format and normalisation are those of its run, and no
    pretrained weights are loaded. Raises `UserError` or `WeightsError`, and `Interrupted` from `check`.
    """
    device = choose_device(args.device)
    if checkpoint:
        precision = checkpoint["precision"]
        memory_format = checkpoint.get("memory_format", "channels_last")  # younger than the first checkpoints
    else:
        precision = choose_precision(args.precision, device)
        memory_format = choose_memory_format(args.memory_format, NETWORKS[args.model][0], device)
    configure(device, precision, args.deterministic)
    if args.compile and not args.evaluate:  # which is never compiled
        prepare_compiler(device, Path(args.cache_dir))
    print(f"device   {describe(device)}; {precision}, {memory_format}")
    dataset, skipped = find_data(args, checkpoint, check)
    network, normalisation = make_network(args, len(dataset.classes), checkpoint)
    network.to(device, memory_format=MEMORY_FORMATS[memory_format])
    teacher = None
    if args.teacher and not args.evaluate:
        teacher = make_teacher(args, dataset, normalisation, device)
    if checkpoint and not args.evaluate and (teacher and teacher.fingerprint) != checkpoint.get("teacher"):
        raise UserError(f"--teacher {args.teacher} is not the network that the run follows; name that one")
    stores = (args.cache, Path(args.cache_dir), args.num_workers, check)
    loader = Loader(open_images(dataset, frame_of(args), *stores), dataset.labels, device, check)
    training_loader = loader
    if args.crop == "random" and not args.evaluate:
        pool = dataset.training_images()
        frame = Frame(args.frame_size or FRAME_FACTOR * args.image_size, fine=True)
        if args.cache != "off":
            print(
                f"crops    from {len(pool.files)} images squeezed to {frame.size} x {frame.size} pixels, "
                f"beside the others {frame.size**2 * 3 * len(pool.files) / 1e9:.2g} GB of {args.cache}"
            )
        images = open_images(pool, frame, *stores)
        aspects = image_aspects(pool, frame, cache_folder(args), check)
        training_loader = Loader(images, pool.labels, device, check, aspects)
    settings = (teacher, device, precision, memory_format)
    return Parts(args, dataset, skipped, network, normalisation, loader, training_loader, *settings)


def frame_of(args: Namespace) -> Frame:
    """What images are stored as; those to train on have a frame of their own with `--crop random`."""
    crop = args.crop != "none"
    return Frame(round(args.image_size * CROP_MARGIN) if crop else args.image_size, crop)


def cache_folder(args: Namespace) -> Path | None:
    """Where what is known of the images is kept."""
    return Path(args.cache_dir) if args.cache == "disk" else None


def find_data(args: Namespace, checkpoint: dict | None, check: Check) -> tuple[Dataset, list[str]]:
    """The data set of the flags, drawn first if it is the demo's, and which images it goes without.

    It must be that of the checkpoint.
    """
    root = Path(args.data_dir)
    if args.demo:
        draw_demo(root, check)
    dataset, skipped = find_dataset(root, args.seed), []
    count = len(dataset.classes)
    if args.num_classes not in (None, count):
        raise UserError(f"--num_classes {args.num_classes}: {root} holds {count} classes; leave the flag out")
    if checkpoint and list(dataset.classes) != checkpoint["classes"]:
        raise UserError(f"{root} holds other classes than the run was trained on; check --data_dir")
    if args.skip_corrupt:
        skipped = unreadable_images(dataset, frame_of(args), cache_folder(args), check)
        dataset = find_dataset(root, args.seed, without=set(skipped))
    if checkpoint and not args.evaluate and dataset.identity() != checkpoint["images"]:
        raise UserError(f"the images in {root} changed since the run started; train anew with --overwrite")
    sizes = dataset.sizes()
    print(
        f"data     {visible(root)}: {count} classes; {sizes['train']} training, {sizes['val']} validation "
        f"and {sizes['test']} test images, {args.image_size} x {args.image_size} pixels"
    )
    if skipped:
        print(f"warning  {len(skipped)} images cannot be read and are left out: {_some(skipped)}")
    return dataset, skipped


def _some(names: Iterable[str]) -> str:
    """Names for the console, but not thousands of them."""
    names = list(names)
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return "; ".join(map(visible, names[:NAMES_SHOWN])) + more


def make_network(
    args: Namespace, num_classes: int, checkpoint: dict | None
) -> tuple[nn.Module, Normalisation]:
    """The network of the flags and the normalisation its weights expect."""
    torch.manual_seed(torch_seed(args.seed, "weights"))
    network = build_network(
        args.model,
        num_classes,
        norm=args.norm,
        zero_gamma=args.zero_gamma,
        drop_path=args.drop_path,
        dropout=args.dropout,
    )
    if checkpoint:
        source = f"from epoch {checkpoint['epoch']}, step {checkpoint['step']} of the run"
        normalisation = Normalisation(*checkpoint["normalisation"])
    elif args.pretrained:
        if args.pretrained_path:
            loaded = load_weights(network, args.pretrained_path)
        else:
            loaded = load_torchvision_weights(network, args.model)
        source, normalisation = loaded.describe(), loaded.normalisation
        for warning in loaded.warnings:
            print(f"main.py: warning: {visible(warning)}", file=sys.stderr)
    else:
        source, normalisation = "from scratch", IMAGENET
    millions = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    print(f"network  {args.model}, {millions:.2f} M parameters; {visible(source)}")
    return network, normalisation


def make_teacher(
    args: Namespace, dataset: Dataset, normalisation: Normalisation, device: torch.device
) -> Teacher:
    """The network of another run's checkpoint, for inputs of the student's `normalisation`.

    Raises `UserError` if there is none in the file, or one that knows other classes.
    """
    path = Path(args.teacher)
    checkpoint = load_checkpoint(path)
    if checkpoint["classes"] != list(dataset.classes):
        raise UserError(f"--teacher {path} was trained on other classes; name a run on these")
    with contents_told(path):
        flags = checkpoint["flags"]
        network = build_network(flags["model"], len(dataset.classes), norm=flags["norm"])
        network.load_state_dict(checkpoint["network"])
    with path.open("rb") as file:
        fingerprint = hashlib.file_digest(file, "sha256").hexdigest()
    family = NETWORKS[flags["model"]][0]
    memory_format = MEMORY_FORMATS[choose_memory_format(args.memory_format, family, device)]
    normalise = Normalise(*checkpoint["normalisation"], device, memory_format)
    return Teacher(
        network.to(device, memory_format=memory_format),
        normalise.after(Normalise(*normalisation, device)),
        args.teacher_temperature,
        args.teacher_weight,
        fingerprint,
    )


def make_transforms(args: Namespace, normalisation: Normalisation) -> dict[str, Transform]:
    """The augmentation of training images, by the names of their random streams."""
    transforms: dict[str, Transform] = {}
    if args.crop != "none":
        crop = RandomResizedCrop if args.crop == "random" else CenterCrop
        transforms["crop"] = crop(args.image_size)
    if args.flip != "none":
        transforms["flip"] = Flip()
    if args.flip == "both":
        transforms["vertical_flip"] = VerticalFlip()
    if args.randaugment:
        transforms["randaugment"] = RandAugment(args.rand_n, args.rand_m)
    if args.trivial_augment:
        transforms["trivial_augment"] = TrivialAugment()
    if args.random_erasing:
        mean = tuple(round(255 * channel) for channel in normalisation.mean)
        transforms["random_erasing"] = RandomErasing(args.random_erasing, mean)
    return transforms


def make_trainer(parts: Parts) -> Trainer:
    """The optimizer, schedule, batch transforms and loss of the flags."""
    args, dataset = parts.args, parts.dataset
    class_weights = None
    if args.class_weights == "balanced":
        counts = np.bincount(dataset.labels[dataset.splits["train"]], minlength=len(dataset.classes))
        class_weights = balanced_class_weights(torch.tensor(counts, dtype=torch.float32)).to(parts.device)
    return Trainer(
        parts.network,
        make_optimizer(
            args.optimizer,
            parts.network,
            args.learning_rate * (parts.global_batch / REFERENCE_BATCH if args.linear_scaling else 1),
            args.weight_decay,
            nesterov=args.nesterov,
            no_bias_decay=args.no_bias_decay,
        ),
        lr_factor=Schedule(
            args.decay_type, parts.steps_per_epoch, args.epochs, args.warmup_epochs, args.milestones
        ),
        augment=Augment(make_transforms(args, parts.normalisation)),
        normalise=parts.normalise,
        mixing=Mixing(args.mixup, args.cutmix_alpha, args.cutmix_prob),
        criterion=CrossEntropy(args.label_smooth),
        num_classes=len(dataset.classes),
        precision=parts.precision,
        seed=args.seed,
        device=parts.device,
        teacher=parts.teacher,
        class_weights=class_weights,
        accumulate=args.accumulate,
        grad_clip=args.grad_clip,
        freeze_steps=args.freeze_epochs * parts.steps_per_epoch,
        ema_decay=args.ema,
        compiled=args.compile,
    )


def make_fit(parts: Parts, trainer: Trainer, folder: RunFolder, about: dict, log: RunLog) -> Fit:
    """The run's epochs: which batches, and where they are kept; `about` goes into each checkpoint."""
    args = parts.args
    order = partial(
        training_order,
        parts.dataset.splits["train"],
        parts.global_batch,
        args.seed,
        last_step=args.epochs * parts.steps_per_epoch,
    )
    return Fit(
        trainer,
        batches_from=lambda step: parts.training_loader(order(first_step=step)),
        validate=partial(parts.evaluate, split="val"),
        save=lambda name, state: save_checkpoint(folder / name, {**about, **state}),
        log=log,
        epochs=args.epochs,
        steps_per_epoch=parts.steps_per_epoch,
        log_interval=args.log_interval,
        patience=args.early_stop,
        balanced=trainer.class_weights is not None,
    )
