"""From flags to objects: the one place that reads flags to decide what a run is made of."""

import platform
import sys
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import PIL
import torch
from torch import nn

from learning.augment import Augment, Normalise, Transform, flip
from learning.evaluator import Evaluation, evaluate
from learning.fit import Fit
from learning.loss import soft_cross_entropy
from learning.mixing import make_mixing
from learning.optimizer import make_optimizer
from learning.randaugment import RandAugment
from learning.schedule import lr_factor
from learning.trainer import Trainer
from network import build_network, load_weights
from network.weights import IMAGENET, Normalisation, load_torchvision_weights
from utils.data.batches import Loader, in_order, steps_per_epoch, training_order
from utils.data.demo import draw_demo
from utils.data.folders import Dataset, find_dataset
from utils.data.images import open_images
from utils.errors import UserError
from utils.run.checkpoint import save_checkpoint
from utils.run.device import choose_device, choose_precision, configure, describe
from utils.run.folder import RunFolder
from utils.run.log import RunLog
from utils.run.randomness import torch_seed

Check = Callable[[], None]


@dataclass
class Parts:
    """What training and evaluation share: the images, the network, and what carries them to it."""

    dataset: Dataset
    network: nn.Module
    normalisation: Normalisation
    loader: Loader
    device: torch.device
    precision: str
    batch_size: int

    @property
    def normalise(self) -> Normalise:
        """Makes the network's input of uint8 images."""
        return Normalise(*self.normalisation, self.device)

    @property
    def steps_per_epoch(self) -> int:
        """How many steps show each training image once."""
        return steps_per_epoch(len(self.dataset.splits["train"]), self.batch_size)

    def evaluate(self, split: str) -> Evaluation:
        """Evaluate the network, as it is now, on a split."""
        # Nothing is kept for a backward pass, so twice as many images surely fit.
        batches = self.loader(in_order(self.dataset.splits[split], 2 * self.batch_size))
        return evaluate(self.network, batches, self.normalise, self.precision)

    def about(self) -> dict:
        """What a run's files say about it beside its flags."""
        return {
            "classes": list(self.dataset.classes),
            "images": self.dataset.identity(),
            "normalisation": [list(part) for part in self.normalisation],
            "precision": self.precision,
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

    With a `checkpoint` the classes, precision and normalisation are those of its run, and no pretrained
    weights are loaded. Raises `UserError` or `WeightsError`, and `Interrupted` from `check`.
    """
    device = choose_device(args.device)
    precision = checkpoint["precision"] if checkpoint else choose_precision(args.precision, device)
    configure(device, args.deterministic)
    print(f"device   {describe(device)}, {precision}")
    dataset = find_data(args, checkpoint, check)
    network, normalisation = make_network(args, len(dataset.classes), checkpoint)
    network.to(device, memory_format=torch.channels_last)
    images = open_images(dataset, args.image_size, args.cache, Path(args.cache_dir), args.num_workers, check)
    loader = Loader(images, dataset.labels, device, check)
    return Parts(dataset, network, normalisation, loader, device, precision, args.batch_size)


def find_data(args: Namespace, checkpoint: dict | None, check: Check) -> Dataset:
    """The data set of the flags, drawn first if it is the demo's; it must be that of the checkpoint."""
    root = Path(args.data_dir)
    if args.demo:
        draw_demo(root, check)
    dataset = find_dataset(root, args.seed)
    count = len(dataset.classes)
    if args.num_classes not in (None, count):
        raise UserError(f"--num_classes {args.num_classes}: {root} holds {count} classes; leave the flag out")
    if checkpoint and list(dataset.classes) != checkpoint["classes"]:
        raise UserError(f"{root} holds other classes than the run was trained on; check --data_dir")
    if checkpoint and not args.evaluate and dataset.identity() != checkpoint["images"]:
        raise UserError(f"the images in {root} changed since the run started; train anew with --overwrite")
    sizes = dataset.sizes()
    print(
        f"data     {root}: {count} classes; {sizes['train']} training, {sizes['val']} validation and "
        f"{sizes['test']} test images, {args.image_size} x {args.image_size} pixels"
    )
    return dataset


def make_network(
    args: Namespace, num_classes: int, checkpoint: dict | None
) -> tuple[nn.Module, Normalisation]:
    """The network of the flags and the normalisation its weights expect."""
    torch.manual_seed(torch_seed(args.seed, "weights"))
    network = build_network(args.model, num_classes, norm=args.norm, zero_gamma=args.zero_gamma)
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
            print(f"main.py: warning: {warning}", file=sys.stderr)
    else:
        source, normalisation = "from scratch", IMAGENET
    millions = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    print(f"network  {args.model}, {millions:.2f} M parameters; {source}")
    return network, normalisation


def make_trainer(args: Namespace, parts: Parts) -> Trainer:
    """The optimizer, schedule, batch transforms and loss of the flags."""
    mixing = make_mixing(args.mixup, args.cutmix_alpha, args.cutmix_prob)
    smoothing = f", labels smoothed by {args.label_smooth:g}" if args.label_smooth else ""
    mixed = ", of mixed images and labels (accuracy: of the dominant label)" if mixing else ""
    print(f"loss     training: cross-entropy{smoothing}{mixed}; validation and test: plain cross-entropy")
    transforms: dict[str, Transform] = {"flip": flip}
    if args.randaugment:
        transforms["randaugment"] = RandAugment(args.rand_n, args.rand_m)
    return Trainer(
        parts.network,
        make_optimizer(args.optimizer, parts.network, args.learning_rate, args.weight_decay),
        lr_factor=partial(
            lr_factor,
            steps_per_epoch=parts.steps_per_epoch,
            epochs=args.epochs,
            decay_type=args.decay_type,
            warmup_epochs=args.warmup_epochs,
            milestones=args.milestones,
        ),
        augment=Augment(transforms),
        normalise=parts.normalise,
        mixing=mixing,
        criterion=partial(soft_cross_entropy, smoothing=args.label_smooth),
        num_classes=len(parts.dataset.classes),
        precision=parts.precision,
        seed=args.seed,
        device=parts.device,
    )


def make_fit(
    args: Namespace, parts: Parts, trainer: Trainer, folder: RunFolder, about: dict, log: RunLog
) -> Fit:
    """The run's epochs: which batches, and where they are kept; `about` goes into each checkpoint."""
    order = partial(
        training_order,
        parts.dataset.splits["train"],
        args.batch_size,
        args.seed,
        last_step=args.epochs * parts.steps_per_epoch,
    )
    return Fit(
        trainer,
        batches_from=lambda step: parts.loader(order(first_step=step)),
        validate=partial(parts.evaluate, "val"),
        save=lambda name, state: save_checkpoint(folder / name, {**about, **state}),
        log=log,
        epochs=args.epochs,
        steps_per_epoch=parts.steps_per_epoch,
        log_interval=args.log_interval,
    )
