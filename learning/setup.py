"""From flags to objects: the one place that reads flags to decide what a run is made of."""

import hashlib
import platform
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import PIL
import torch
from torch import nn

from learning.augment import Augment, Flip, Normalise, RandomErasing, Transform, VerticalFlip
from learning.augmix import AugMix
from learning.classifier import Classifier, frame_of
from learning.criterion import Criterion, Loss
from learning.crop import CenterCrop, RandomResizedCrop
from learning.data import Check, FoundData, changed, find_data
from learning.evaluation import Evaluation
from learning.fit import Fit
from learning.loss import BinaryCrossEntropy, CrossEntropy, FocalLoss, balanced_class_weights
from learning.mixing import Mixing
from learning.optimizer import make_optimizer
from learning.randaugment import RandAugment, TrivialAugment
from learning.schedule import Schedule
from learning.share import Shares
from learning.teacher import Teacher
from learning.trainer import Trainer
from learning.watch import Watch
from network import NETWORKS, build_network, load_weights
from network.weights import IMAGENET, Normalisation, load_torchvision_weights
from utils.console import say, warn
from utils.data.batches import Batch, Loader, in_order, steps_per_epoch, training_order
from utils.data.copies import find_copies, misplaced
from utils.data.decode import Frame
from utils.data.folders import Dataset
from utils.data.images import open_images
from utils.data.looks import Looks
from utils.errors import UserError
from utils.flags import run_flags
from utils.run.checkpoint import explained_contents, load_checkpoint, save_checkpoint
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
from utils.run.log import Log
from utils.run.randomness import torch_seed
from utils.run.records import About, Progress, Weights
from utils.run.together import ALONE, Together
from utils.text import count

REFERENCE_BATCH = 64  # the batch that --learning_rate is meant for, with --linear_scaling
# Images that --crop random draws from are stored so much larger, so that small parts have pixels enough.
FRAME_FACTOR = 2


@dataclass
class Parts:
    """What training and evaluation share: the images, the network, and what carries them to it."""

    args: Namespace
    dataset: Dataset
    looks: Looks  # at its images
    skipped: list[str]  # images that cannot be read
    classifier: Classifier
    loader: Loader  # of all images, as evaluation sees them
    training_loader: Loader  # of training images
    teacher: Teacher | None
    together: Together  # with the other processes of the run

    @property
    def global_batch(self) -> int:
        """The most images of one step."""
        return self.args.batch_size * self.args.accumulate

    @property
    def steps_per_epoch(self) -> int:
        """How many steps show each training image once."""
        return steps_per_epoch(len(self.dataset.splits["train"]), self.global_batch)

    def tell_copies(self, check: Check) -> None:
        """Say which images are on two sides of a split, or under two labels."""
        folder, device = Path(self.args.cache_dir), self.classifier.device
        for told in misplaced(find_copies(self.dataset, self.looks, folder, device, check), self.dataset):
            warn(told)

    def evaluate(self, network: nn.Module, split: str) -> Evaluation:
        """Evaluate a network, as it is now, on a split, whose batches several processes share out."""
        batches = self.loader(self.together.mine(evaluated_batches(self.dataset, split, self.args)))
        return self.together.merged(
            batches, lambda some: self.classifier.evaluate(some, network), Evaluation.joined
        )

    @property
    def shares(self) -> Shares | None:
        """Which images of each step this process trains on, of several."""
        world = self.together.world
        if world.size == 1:
            return None
        mixed = bool(make_mixing(self.args).methods)
        images = len(self.dataset.splits["train"])
        shares = Shares(images, self.steps_per_epoch, self.args.accumulate, world.rank, world.size, mixed)
        if shares.smallest < world.size:
            raise UserError(
                f"{world.size} processes, but {count(shares.smallest, 'image')} at a time: start fewer, or "
                "give a larger --batch_size"
            )
        return shares

    def facts(self) -> dict[str, object]:
        """What has to be the same in all processes of a run."""
        weights = hashlib.sha256()
        for weight in self.classifier.network.parameters():
            weights.update(weight.detach().float().cpu().numpy().tobytes())
        about = {name: value for name, value in self.about().items() if name not in ("device", "flags")}
        flags = {f"--{name}": value for name, value in run_flags(self.args).items()}
        return {**flags, **about, "weights": weights.hexdigest()}

    def about(self) -> dict:
        """What a run's files say about it, an `About`."""
        classifier = self.classifier
        about = About(
            flags=run_flags(self.args),
            classes=list(self.dataset.classes),
            images=self.dataset.identity(),
            skipped_images=self.skipped,
            normalisation=[list(part) for part in classifier.normalisation],
            teacher=self.teacher.fingerprint if self.teacher else None,
            precision=classifier.precision,
            memory_format=classifier.memory_format,
            device=describe(classifier.device),
            versions={
                "python": platform.python_version(),
                "torch": str(torch.__version__),
                "numpy": np.__version__,
                "pillow": PIL.__version__,
            },
        )
        return dict(vars(about))


def assemble(
    args: Namespace,
    progress: Progress | None,
    check: Check,
    data: FoundData | None = None,
    together: Together = ALONE,
) -> Parts:
    """Find the images, unless `data` has them, and build the network of a run.

    It starts or, given its `progress`, goes on.
    Then classes, precision, memory format and normalisation are those that it has, and no pretrained weights
    are loaded. Raises `UserError` or `WeightsError`, and `Interrupted` from `check`.
    """
    device = choose_device(args.device)
    if progress:
        precision, memory_format = progress.precision, progress.memory_format
    else:
        precision = choose_precision(args.precision, device)
        memory_format = choose_memory_format(args.memory_format, NETWORKS[args.model][0], device)
    if args.compile:
        prepare_compiler(device, Path(args.cache_dir))
    prepare_device(args, device, precision, memory_format)
    dataset, looks, skipped = data or find_data(args, progress, check)
    if progress and dataset.identity() != progress.images:
        raise UserError(f"{changed(args)}; train anew with --overwrite")
    network, normalisation = make_network(args, dataset.classes, progress)
    classifier = Classifier(
        network.to(device).to(memory_format=MEMORY_FORMATS[memory_format]),
        dataset.classes,
        frame_of(vars(args)),
        args.image_size,
        args.tta == "flip",
        normalisation,
        device,
        precision,
        memory_format,
    )
    teacher = make_teacher(args, classifier) if args.teacher else None
    if progress and (teacher and teacher.fingerprint) != progress.teacher:
        raise UserError(f"--teacher {args.teacher} is not the network that the run follows; name that one")
    loader = open_loader(args, dataset, classifier, check)
    training_loader = loader
    if args.crop == "random":
        pool = dataset.training_images()
        frame = Frame(args.frame_size or FRAME_FACTOR * args.image_size, fine=True)
        say("crops", f"from {len(pool.files)} images squeezed to {frame.size} x {frame.size} pixels")
        images = open_images(pool, frame, args.cache, Path(args.cache_dir), args.num_workers, check)
        known = looks.of(slice(dataset.pool))
        aspects = known["width"] / known["height"]
        training_loader = Loader(images, pool.labels, device, check, aspects)
    return Parts(args, dataset, looks, skipped, classifier, loader, training_loader, teacher, together)


def prepare_device(args: Namespace, device: torch.device, precision: str, memory_format: str) -> None:
    """Set torch's switches for the run, and say what it computes on and how."""
    configure(device, precision, args.deterministic)
    say("device", f"{describe(device)}; {precision}, {memory_format}")


def open_loader(args: Namespace, dataset: Dataset, classifier: Classifier, check: Check) -> Loader:
    """The images as the classifier sees them."""
    images = open_images(dataset, classifier.frame, args.cache, Path(args.cache_dir), args.num_workers, check)
    return Loader(images, dataset.labels, classifier.device, check)


def evaluated_batches(dataset: Dataset, split: str, args: Namespace) -> Iterator[np.ndarray]:
    """The numbers of the images of a split, in the batches that a network is evaluated on."""
    # Nothing is kept for a backward pass, so twice as many images surely fit.
    return in_order(dataset.splits[split], 2 * args.batch_size)


def evaluated(loader: Loader, dataset: Dataset, split: str, args: Namespace) -> Iterator[Batch]:
    """The batches of a split that a network is evaluated on."""
    return loader(evaluated_batches(dataset, split, args))


def make_network(
    args: Namespace, classes: Sequence[str], progress: Progress | None
) -> tuple[nn.Module, Normalisation]:
    """The network of the flags and the normalisation its weights expect."""
    torch.manual_seed(torch_seed(args.seed, "weights"))
    network = build_network(
        args.model,
        len(classes),
        norm=args.norm,
        zero_gamma=args.zero_gamma,
        drop_path=args.drop_path,
        dropout=args.dropout,
    )
    if progress:
        source = place_of(progress)
        normalisation = Normalisation.of(progress.normalisation)
    elif args.pretrained:
        if args.pretrained_path:
            loaded = load_weights(network, args.pretrained_path, classes)
        else:
            loaded = load_torchvision_weights(network, args.model, args.pretrained)
        source, normalisation = loaded.describe(), loaded.normalisation
        for warning in loaded.warnings:
            warn(warning)
    else:
        source, normalisation = "from scratch", IMAGENET
    say_network(args.model, network, source)
    return network, normalisation


def say_network(model: str, network: nn.Module, source: str) -> None:
    """Say what is trained or evaluated, and where its weights come from."""
    millions = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    say("network", f"{model}, {millions:.2f} M parameters; {source}")


def place_of(weights: Weights) -> str:
    """Where in its run a checkpoint was made, in words."""
    return f"from epoch {weights.epoch}, step {weights.step} of the run"


def make_teacher(args: Namespace, student: Classifier) -> Teacher:
    """The network of another run's checkpoint, for the student's inputs.

    Raises `UserError` if there is none in the file, or one that knows other classes.
    """
    path = Path(args.teacher)
    weights = load_checkpoint(path, Weights)
    if list(weights.classes) != list(student.classes):
        raise UserError(f"--teacher {path} was trained on other classes; name a run on these")
    with explained_contents(path):
        family = NETWORKS[weights.flags["model"]][0]
    memory_format = choose_memory_format(args.memory_format, family, student.device)
    teacher = Classifier.of(replace(weights, memory_format=memory_format), path, student.device)
    with path.open("rb") as file:
        fingerprint = hashlib.file_digest(file, "sha256").hexdigest()
    return Teacher(
        teacher.network,
        teacher.normalise.after(Normalise(*student.normalisation, student.device)),
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
        red, green, blue = (round(255 * channel) for channel in normalisation.mean)
        transforms["random_erasing"] = RandomErasing(args.random_erasing, (red, green, blue))
    if args.augmix:
        transforms["augmix"] = AugMix()  # the last, since others take one image of three channels
    return transforms


def make_loss(args: Namespace) -> Loss:
    """The loss of an image by its logits."""
    match args.loss:
        case "focal":
            return FocalLoss(args.label_smooth, args.focal_gamma)
        case "bce":
            return BinaryCrossEntropy(args.label_smooth)
    return CrossEntropy(args.label_smooth)


def make_mixing(args: Namespace) -> Mixing:
    """How images of a batch are mixed."""
    return Mixing(args.mixup, args.cutmix_alpha, args.cutmix_prob)


def make_trainer(parts: Parts) -> Trainer:
    """The optimizer, schedule, batch transforms and loss of the flags."""
    args, dataset = parts.args, parts.dataset
    class_weights = None
    if args.class_weights == "balanced":
        counts = np.bincount(dataset.labels[dataset.splits["train"]], minlength=len(dataset.classes))
        class_weights = balanced_class_weights(torch.tensor(counts, dtype=torch.float32)).to(
            parts.classifier.device
        )
    augment = Augment(make_transforms(args, parts.classifier.normalisation))
    return Trainer(
        parts.classifier.network,
        make_optimizer(
            args.optimizer,
            parts.classifier.network,
            args.learning_rate * (parts.global_batch / REFERENCE_BATCH if args.linear_scaling else 1),
            args.weight_decay,
            nesterov=args.nesterov,
            no_bias_decay=args.no_bias_decay,
        ),
        lr_factor=Schedule(
            args.decay_type, parts.steps_per_epoch, args.epochs, args.warmup_epochs, args.milestones
        ),
        augment=augment,
        normalise=parts.classifier.normalise,
        mixing=make_mixing(args),
        criterion=Criterion(make_loss(args), parts.teacher, class_weights, augment.views),
        num_classes=len(dataset.classes),
        precision=parts.classifier.precision,
        seed=args.seed,
        device=parts.classifier.device,
        accumulate=args.accumulate,
        grad_clip=args.grad_clip,
        freeze_steps=args.freeze_epochs * parts.steps_per_epoch,
        ema_decay=args.ema,
        sam_rho=args.sam,
        norm_interval=args.log_interval,
        compiled=args.compile,
        shares=parts.shares,
        group=parts.together.group,
        norms_apart=args.norm_per_process,
    )


def make_fit(parts: Parts, trainer: Trainer, folder: RunFolder, log: Log) -> Fit:
    """The run's epochs: which batches, and where they are kept."""
    args, about = parts.args, parts.about()
    order = partial(
        training_order,
        parts.dataset.splits["train"],
        parts.global_batch,
        args.seed,
        last_step=args.epochs * parts.steps_per_epoch,
    )

    def batches_from(step: int) -> Iterator[Batch]:
        batches = order(first_step=step)
        if trainer.shares:  # also the images after those that are trained on, for mixing
            batches = (batch[trainer.shares(number).at_hand] for number, batch in enumerate(batches, step))
        return parts.training_loader(batches)

    def save(name: str, state: Mapping[str, object]) -> None:
        if parts.together.first:
            save_checkpoint(folder / name, {**about, **state})

    return Fit(
        trainer,
        batches_from=batches_from,
        validate=partial(parts.evaluate, split="val"),
        save=save,
        agree=parts.together.agree,
        log=log,
        watch=Watch(args.epochs, parts.dataset.classes),
        epochs=args.epochs,
        steps_per_epoch=parts.steps_per_epoch,
        log_interval=args.log_interval,
        patience=args.early_stop,
        balanced=args.class_weights == "balanced",
    )
