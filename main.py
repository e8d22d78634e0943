"""Train, validate and test an image classifier: flags become objects, objects become a run.

Imports that need torch stand inside functions, so that --help, bad flags and finished runs are
answered without waiting for it.
"""

import json
import platform
import shlex
import sys
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import options
from network import WeightsError, build_network, load_weights
from utils.errors import Interrupted, RunFailed, UserError
from utils.run.files import write_json
from utils.run.folder import RunFolder
from utils.run.signals import StopSignal

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch
    from torch import nn

    from learning.augment import Normalise
    from learning.evaluator import Evaluation
    from learning.fit import Fit
    from learning.trainer import Trainer
    from network.weights import Normalisation
    from utils.data.batches import Batch, Loader
    from utils.data.folders import Dataset
    from utils.run.log import RunLog

Check = Callable[[], None]  # raises `Interrupted` once a signal has asked the run to stop


def main(argv: list[str] | None = None) -> int:
    """Run one command line; returns the exit code. Bad flags exit with code 2 at once."""
    args = options.parse_args(argv)
    try:
        folder = RunFolder(args.checkpoint_dir, args.checkpoint_name)
        with StopSignal() as stop:
            (evaluate if args.evaluate else train)(args, folder, stop.check)
        return 0
    except (UserError, WeightsError, RunFailed, Interrupted) as error:
        print(f"main.py: {error}", file=sys.stderr)
        return error.exit_code


def train(args: Namespace, folder: RunFolder, check: Check) -> None:
    """Train, validate and test; with --resume, whatever of that is left to do."""
    if args.resume and folder.finished:
        about, result = (json.loads((folder / name).read_text()) for name in ("args.json", "result.json"))
        options.with_flags_of_run(args, about["flags"], folder.path)
        print(f"{folder.path} is finished: test accuracy {result['test_accuracy']:.2f} %")
        return
    if not (args.resume or args.overwrite):
        folder.refuse_another_run()

    from utils.run.checkpoint import load_checkpoint
    from utils.run.log import RunLog

    checkpoint = None
    if args.resume and (folder / "last.pt").exists():
        checkpoint = load_checkpoint(folder / "last.pt")
        args = options.with_flags_of_run(args, checkpoint["flags"], folder.path)
    parts = assemble(args, checkpoint, check)
    trainer = make_trainer(args, parts)

    with folder.claim():
        if checkpoint is None:
            folder.clear()
            write_json(folder / "args.json", about_run(args, parts))
        try:
            with RunLog(folder.path, args.epochs, checkpoint["step"] if checkpoint else 0) as log:
                fit = make_fit(args, folder, parts, trainer, log)
                if checkpoint:
                    fit.load_state_dict(checkpoint)
                fit.run()
                finish(folder, parts, fit)
        except Interrupted as stopped:
            run = shlex.join(
                ["--checkpoint_dir", args.checkpoint_dir, "--checkpoint_name", args.checkpoint_name]
            )
            raise Interrupted(stopped.signal_number, f"go on with: python main.py {run} --resume") from None


def evaluate(args: Namespace, folder: RunFolder, check: Check) -> None:
    """Test the best weights of a run again."""
    from utils.run.checkpoint import load_checkpoint

    checkpoint = load_checkpoint(folder / "best.pt")
    args = options.with_flags_of_run(args, checkpoint["flags"], folder.path)
    parts = assemble(args, checkpoint, check)
    parts.network.load_state_dict(checkpoint["network"])
    result = test_result(parts, parts.evaluate("test"))
    write_json(folder / "evaluation.json", result)
    print(f"test accuracy {result['test_accuracy']:.2f} % with the weights of epoch {checkpoint['epoch']}")


@dataclass
class Parts:
    """What training and evaluation share."""

    dataset: "Dataset"
    network: "nn.Module"
    normalisation: "Normalisation"
    normalise: "Normalise"
    loader: "Loader"
    device: "torch.device"
    precision: str
    batch_size: int

    @property
    def steps_per_epoch(self) -> int:
        """How many steps show each training image once."""
        from utils.data.batches import steps_per_epoch

        return steps_per_epoch(len(self.dataset.splits["train"]), self.batch_size)

    def evaluate(self, split: str) -> "Evaluation":
        """Evaluate the network, as it is now, on a split."""
        from learning.evaluator import evaluate
        from utils.data.batches import in_order

        # Nothing is kept for a backward pass, so twice as many images surely fit.
        batches = self.loader(in_order(self.dataset.splits[split], 2 * self.batch_size))
        return evaluate(self.network, batches, self.normalise, self.precision)


def assemble(args: Namespace, checkpoint: dict | None, check: Check) -> Parts:
    """Find the images and build the network, and what carries the one to the other.

    With a `checkpoint` the classes, precision and normalisation are those of its run, and no
    pretrained weights are loaded.
    """
    import torch

    from learning.augment import Normalise
    from utils.data.batches import Loader
    from utils.run import device as devices

    device = devices.choose_device(args.device)
    precision = checkpoint["precision"] if checkpoint else devices.choose_precision(args.precision, device)
    devices.configure(device, args.deterministic)
    print(f"device   {devices.describe(device)}, {precision}")

    dataset = find_data(args, checkpoint, check)
    network, normalisation = make_network(args, len(dataset.classes), checkpoint)
    network.to(device, memory_format=torch.channels_last)
    return Parts(
        dataset,
        network,
        normalisation,
        Normalise(*normalisation, device),
        Loader(image_source(args, dataset, check), dataset.labels, device, check),
        device,
        precision,
        args.batch_size,
    )


def find_data(args: Namespace, checkpoint: dict | None, check: Check) -> "Dataset":
    """The data set of the flags, drawn first if it is the demo's; it must be that of the checkpoint."""
    from utils.data.demo import draw_demo
    from utils.data.folders import find_dataset

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


def image_source(args: Namespace, dataset: "Dataset", check: Check) -> object:
    """Where pixels come from, by --cache."""
    from utils.data.cache import cached_images, decoded_in_memory
    from utils.data.images import DecodedImages, StoredImages

    match args.cache:
        case "disk":
            return StoredImages(cached_images(dataset, args.image_size, Path(args.cache_dir), check))
        case "ram":
            return StoredImages(decoded_in_memory(dataset, args.image_size, check))
    paths = [dataset.root / name for name in dataset.files]
    return DecodedImages(paths, args.image_size, args.num_workers)


def make_network(
    args: Namespace, num_classes: int, checkpoint: dict | None
) -> tuple["nn.Module", "Normalisation"]:
    """The network of the flags and the normalisation its weights expect."""
    import torch

    from network.weights import IMAGENET, Normalisation, load_torchvision_weights
    from utils.run.randomness import torch_seed

    torch.manual_seed(torch_seed(args.seed, "weights"))
    network = build_network(args.model, num_classes, norm=args.norm, zero_gamma=args.zero_gamma)
    if checkpoint:
        source = f"from epoch {checkpoint['epoch']}, step {checkpoint['step']} of the run"
        normalisation = Normalisation(*checkpoint["normalisation"])
    elif args.pretrained:
        loaded = (
            load_weights(network, args.pretrained_path)
            if args.pretrained_path
            else load_torchvision_weights(network, args.model)
        )
        source, normalisation = loaded.describe(), loaded.normalisation
    else:
        source, normalisation = "from scratch", IMAGENET
    millions = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    print(f"network  {args.model}, {millions:.2f} M parameters; {source}")
    return network, normalisation


def make_trainer(args: Namespace, parts: Parts) -> "Trainer":
    """The optimizer, schedule, batch transforms and loss of the flags."""
    from learning.augment import Augment, flip
    from learning.loss import soft_cross_entropy
    from learning.mixing import make_mixing
    from learning.optimizer import make_optimizer
    from learning.randaugment import RandAugment
    from learning.schedule import lr_factor
    from learning.trainer import Trainer

    mixing = make_mixing(args.mixup, args.cutmix_alpha, args.cutmix_prob)
    smoothing = f", labels smoothed by {args.label_smooth:g}" if args.label_smooth else ""
    mixed = ", of mixed images and labels (accuracy: of the dominant label)" if mixing else ""
    print(f"loss     training: cross-entropy{smoothing}{mixed}; validation and test: plain cross-entropy")
    transforms = {"flip": flip}
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


def make_fit(args: Namespace, folder: RunFolder, parts: Parts, trainer: "Trainer", log: "RunLog") -> "Fit":
    """The run's epochs: which batches, and what is kept of them where."""
    from learning.fit import Fit
    from utils.data.batches import training_order
    from utils.run.checkpoint import save_checkpoint

    about = {
        "flags": options.run_flags(args),
        "classes": list(parts.dataset.classes),
        "images": parts.dataset.identity(),
        "normalisation": [list(part) for part in parts.normalisation],
        "precision": parts.precision,
    }

    def batches_from(step: int) -> "Iterator[Batch]":
        order = training_order(
            parts.dataset.splits["train"],
            parts.batch_size,
            args.seed,
            step,
            args.epochs * parts.steps_per_epoch,
        )
        return parts.loader(order)

    return Fit(
        trainer,
        batches_from,
        validate=partial(parts.evaluate, "val"),
        save=lambda name, state: save_checkpoint(folder / name, {**about, **state}),
        log=log,
        epochs=args.epochs,
        steps_per_epoch=parts.steps_per_epoch,
        log_interval=args.log_interval,
    )


def finish(folder: RunFolder, parts: Parts, fit: "Fit") -> None:
    """Test the last and the best weights and write what the run came to; result.json comes last."""
    from utils.run import pictures
    from utils.run.checkpoint import load_checkpoint
    from utils.run.results import write_predictions

    last = parts.evaluate("test")
    parts.network.load_state_dict(load_checkpoint(folder / "best.pt")["network"])
    best = parts.evaluate("test")
    classes = parts.dataset.classes
    files = [parts.dataset.files[index] for index in parts.dataset.splits["test"]]
    write_predictions(folder / "predictions.csv", files, classes, best.labels, best.probabilities)
    pictures.learning_curve(folder / "learning_curve.png", fit.history, str(folder.path))
    title = f"{folder.path}: test accuracy {best.accuracy:.2f} %"
    pictures.confusion_matrix(folder / "confusion_matrix.png", best.confusion, classes, title)

    seconds = sum(row["seconds"] for row in fit.history)
    images = len(fit.history) * len(parts.dataset.splits["train"])
    result = {
        "best_epoch": fit.best["epoch"],
        "val_accuracy": fit.best["val_accuracy"],
        **test_result(parts, best),
        "test_accuracy_last": last.accuracy,
        "train_seconds": seconds,
        "images_per_second": images / seconds,
        "split_sizes": parts.dataset.sizes(),
    }
    write_json(folder / "result.json", result)
    print(
        f"test accuracy {best.accuracy:.2f} % with the best weights (epoch {fit.best['epoch']}), "
        f"{last.accuracy:.2f} % with the last\n"
        f"results in {folder.path}: result.json, predictions.csv, learning_curve.png, confusion_matrix.png"
    )


def test_result(parts: Parts, evaluation: "Evaluation") -> dict:
    """The figures of a test, for result.json and evaluation.json."""
    return {
        "test_accuracy": evaluation.accuracy,
        "test_loss": evaluation.loss,
        "test_accuracy_per_class": dict(zip(parts.dataset.classes, evaluation.class_accuracies, strict=True)),
    }


def about_run(args: Namespace, parts: Parts) -> dict:
    """What a run was made of, for args.json."""
    import numpy
    import PIL
    import torch

    from utils.run.device import describe

    return {
        "flags": options.run_flags(args),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": numpy.__version__,
            "pillow": PIL.__version__,
        },
        "device": describe(parts.device),
        "threads": torch.get_num_threads(),
        "precision": parts.precision,
        "classes": list(parts.dataset.classes),
        "images": parts.dataset.identity(),
    }


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)  # whoever reads a pipe sees each line when it is printed
    sys.exit(main())
