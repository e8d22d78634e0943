"""How fast a machine trains, and what each trick costs there (python -m utils.benchmark --help).

Contenders take turns in one process, a few steps each, and a rate is the median over the rounds, so that
what else the machine does hits all of them alike. What we switch on in torch and in malloc serves all too.
Started by torchrun, it measures how fast one run is with one process, with two and so on, up to all of them.
"""

import argparse
import contextlib
import io
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL
import torch
import torchvision
from torch import nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from torch.utils.flop_counter import FlopCounterMode
from torchvision import transforms
from torchvision.datasets.folder import default_loader

import options
from learning.setup import Parts, assemble, make_fit, make_trainer
from learning.tricks import TRICKS
from network.weights import IMAGENET, torchvision_name
from utils.data.batches import Batch, in_order
from utils.data.cache import cached_images
from utils.data.decode import Frame
from utils.data.demo import draw_demo
from utils.data.folders import Dataset, find_dataset
from utils.errors import ProgramError
from utils.run.cores import cores
from utils.run.device import DTYPES, choose_device, describe, peak_memory_mb
from utils.run.together import ALONE, Together, joined, stop_signal
from utils.text import markdown_table, visible
from utils.world import World

NETWORKS = ("ResNet50", "RegNet", "EfficientNet")
TIMED = [example.flags for trick in TRICKS for example in trick.examples if example.timed]
AHEAD = 2  # batches that each worker of the tuned loop prepares ahead, torch's default
NOT_OURS = ("--checkpoint_name", "--model", "--demo", "--resume", "--overwrite", "--evaluate")

Step = Callable[[], int]  # does a step, and returns how many images it took


class Ours:
    """Training as `main.py` builds it."""

    def __init__(self, args: argparse.Namespace, together: Together = ALONE):
        with contextlib.redirect_stdout(io.StringIO()):  # what a run says of itself
            self.parts: Parts = assemble(args, None, lambda: None, together=together)
        self.trainer = make_trainer(self.parts)
        fit = make_fit(self.parts, self.trainer, Path(), None)  # type: ignore[arg-type]
        self.batches = fit.batches_from(0)
        self.fixed = next(self.batches)

    def end_to_end(self) -> int:
        """A step on the next batch of real images."""
        return self._step(next(self.batches))

    def synthetic(self) -> int:
        """A step on a batch that lies on the device."""
        return self._step(self.fixed)

    def _step(self, batch: Batch) -> int:
        shares, step = self.trainer.shares, self.trainer.step
        self.trainer.train_step(*batch)
        return shares(step).count if shares else len(batch[0])


def ours_with(settings: argparse.Namespace, *flags: str, together: Together = ALONE) -> Ours:
    """Training with Adam from scratch, on the images and in the sizes of the settings."""
    argv = ["--checkpoint_name", "benchmark", "--data_dir", settings.data_dir]
    argv += ["--cache_dir", settings.cache_dir, "--pretrained", "0", "--epochs", "1000"]
    argv += ["--image_size", str(settings.image_size), "--batch_size", str(settings.batch_size)]
    argv += ["--optimizer", "ADAM", "--learning_rate", "0.0001", *settings.flags, *flags]
    return Ours(options.parse_args(argv), together)


class ImageFiles(TorchDataset):
    """Training images as torchvision's ImageFolder gives them, from any layout of folders."""

    def __init__(self, dataset: Dataset, transform: Callable):
        self.images = dataset.training_images()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.images.files)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        pixels = self.transform(default_loader(self.images.root / self.images.files[index]))
        return pixels, int(self.images.labels[index])


class Loop:
    """The usual loop: torchvision's network, Pillow in a DataLoader, torch's Adam as it comes.

    `tuned` adds what a good trainer has: bf16 autocast, channels_last and a worker for each core.
    """

    def __init__(self, settings: argparse.Namespace, model: str, tuned: bool):
        self.device, self.tuned = choose_device(settings.device), tuned
        size = (settings.image_size, settings.image_size)
        prepare = [transforms.Resize(size), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
        dataset = find_dataset(Path(settings.data_dir), 42)
        images = ImageFiles(dataset, transforms.Compose([*prepare, transforms.Normalize(*IMAGENET)]))
        self.loader = DataLoader(
            images,
            settings.batch_size,
            shuffle=True,
            drop_last=True,
            num_workers=cores() if tuned else 0,
            prefetch_factor=AHEAD if tuned else None,
            persistent_workers=tuned,
            pin_memory=self.device.type == "cuda",
        )
        self.memory_format = torch.channels_last if tuned else torch.contiguous_format
        self.network = torchvision.models.get_model(torchvision_name(model), num_classes=len(dataset.classes))
        self.network.to(self.device, memory_format=self.memory_format).train()
        self.optimizer = torch.optim.Adam(self.network.parameters(), 0.0001)
        self.batches = self._forever()

    def _forever(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        while True:
            yield from self.loader

    def end_to_end(self) -> int:
        """A step on the next batch."""
        images, labels = next(self.batches)
        images = images.to(self.device, memory_format=self.memory_format, non_blocking=True)
        labels = labels.to(self.device, non_blocking=True)
        self.optimizer.zero_grad()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.tuned):
            loss = nn.functional.cross_entropy(self.network(images), labels)
        loss.backward()
        self.optimizer.step()
        return len(images)


def rates(steps: dict[str, Step], rounds: int, steps_a_round: int, ahead: int = 0) -> dict[str, float]:
    """Images a second of each contender: the median over rounds in which all take turns.

    A turn begins with `ahead` steps that are not timed: as many as the workers of a loader had time to
    prepare while others had their turns.
    """
    measured: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds + 1):
        for name, step in steps.items():
            for _ in range(ahead):
                step()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            started = time.perf_counter()
            images = sum(step() for _ in range(steps_a_round))
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if number > 0:  # the first round warms up
                measured[name].append(images / (time.perf_counter() - started))
    return {name: statistics.median(values) for name, values in measured.items()}


def in_a_process_of_its_own(function: Callable, *args: object) -> object:
    """The result of a call whose memory and thread settings are its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def peak_memory(settings: argparse.Namespace, model: str, kind: str) -> float:
    """The most memory that three steps take, in MB."""
    ours = kind == "ours"
    contender = ours_with(settings, "--model", model) if ours else Loop(settings, model, kind == "tuned")
    for _ in range(3):
        contender.end_to_end()
    return peak_memory_mb(choose_device(settings.device))


def loader_rate(settings: argparse.Namespace, size: int, *flags: str) -> float:
    """Images a second that come normalised out of the input pipeline, on one core of a CPU."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    settings.image_size = size
    parts = ours_with(settings, "--model", "ResNet18", "--device", "cpu", *flags).parts
    indices = np.tile(parts.dataset.splits["train"], 4)
    best = 0.0
    for _ in range(3):
        started = time.perf_counter()
        for images, *_ in parts.loader(in_order(indices, settings.batch_size)):
            parts.classifier.normalise(images)
        best = max(best, len(indices) / (time.perf_counter() - started))
    return best


def ceiling(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations a second of a large matrix product."""
    size = 8192 if device.type == "cuda" else 2048
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    fastest = float("inf")
    for _ in range(8):
        started = time.perf_counter()
        torch.mm(left, right)
        if device.type == "cuda":
            torch.cuda.synchronize()
        fastest = min(fastest, time.perf_counter() - started)
    return 2 * size**3 / fastest


def operations_of_a_step(network: nn.Module, size: int, device: torch.device) -> int:
    """Floating-point operations for one image: its forward pass, and twice that for the backward pass."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()(torch.zeros(1, 3, size, size, device=device))
    return 3 * counter.get_total_flops()


def table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """Print a Markdown table."""
    print(f"\n{title}\n\n{markdown_table(columns, rows)}\n", flush=True)


def compare_networks(settings: argparse.Namespace, device: torch.device) -> None:
    """Each network on a fixed batch and with real loading and, with --baseline, beside the usual loops."""
    kinds = ["ours", *(["plain", "tuned"] if settings.baseline else [])]
    rows = []
    for model in settings.networks:
        ours = ours_with(settings, "--model", model)
        steps: dict[str, Step] = {"synthetic": ours.synthetic, "ours": ours.end_to_end}
        for kind in kinds[1:]:
            steps[kind] = Loop(settings, model, kind == "tuned").end_to_end
        ahead = AHEAD * cores() if "tuned" in kinds else 0
        rate = rates(steps, settings.rounds, settings.steps, ahead)
        dtype = DTYPES[ours.parts.classifier.precision]
        operations = operations_of_a_step(ours.parts.classifier.network, settings.image_size, device)
        share = rate["synthetic"] * operations / ceiling(device, dtype)
        row = [model, f"{rate['synthetic']:.0f}", f"{rate['ours']:.0f}"]
        row += [f"{rate['ours'] / rate['synthetic']:.2f}", f"{share:.0%}"]
        for kind in kinds[1:]:
            row += [f"{rate[kind]:.0f}", f"{rate['ours'] / rate[kind]:.2f}"]
        if "memory" not in settings.skip:
            memory = [in_a_process_of_its_own(peak_memory, settings, model, kind) for kind in kinds]
            row.append(" / ".join(f"{value:.0f}" for value in memory))
        rows.append(row)
        del ours, steps
    columns = ["network", "fixed batch", "end to end", "ratio", "of the ceiling"]
    for kind in kinds[1:]:
        columns += [f"{kind} loop", "ours to it"]
    if "memory" not in settings.skip:
        columns.append(" / ".join(["peak memory, MB", *kinds[1:]]))
    table("Training, images a second", columns, rows)


def compare_tricks(settings: argparse.Namespace) -> None:
    """What each trick costs, with real loading, beside the first network without it."""
    model = settings.networks[0]
    plain = ours_with(settings, "--model", model)
    rows = []
    for flags in TIMED:
        trick = ours_with(settings, "--model", model, *flags.split())
        rate = rates({"plain": plain.end_to_end, flags: trick.end_to_end}, settings.rounds, settings.steps)
        rows.append([flags, f"{rate[flags]:.0f}", f"{rate[flags] / rate['plain']:.2f}"])
        del trick
    table(f"Tricks on {model}, images a second", ["flags", "end to end", "to without"], rows)


def measure_input(settings: argparse.Namespace) -> None:
    """The input pipeline alone, on one core, and how fast the cache is built."""
    rows = []
    for size in (64, 256):
        with tempfile.TemporaryDirectory() as folder:
            fresh = argparse.Namespace(**{**vars(settings), "cache_dir": folder, "image_size": size})
            dataset = find_dataset(Path(settings.data_dir), 42)
            started = time.perf_counter()
            cached_images(dataset, Frame(size), Path(folder), lambda: None)
            built = len(dataset.files) / (time.perf_counter() - started)
            cached = in_a_process_of_its_own(loader_rate, fresh, size)
            decoded = in_a_process_of_its_own(loader_rate, fresh, size, "--cache", "off")
        rows.append([f"{size} x {size}", f"{cached:.0f}", f"{decoded:.0f}", f"{built:.0f}"])
    columns = ["size", "from the cache, one core", "decoding, one core", "building the cache, all cores"]
    table("Input alone, normalised images a second", columns, rows)


def compare_processes(settings: argparse.Namespace, together: Together) -> None:
    """How fast the first processes train together, and how fast when each computes its part alone."""
    device = ["--device", together.device_name(settings.device)]
    rows, world = [], together.world
    for model in settings.networks:
        found: list[float] = []
        for number in range(1, world.size + 1):
            together.check()
            parts = {"joined": Together(together.stop), "apart": Together(together.stop)}
            for part in parts.values():
                part.world = replace(world, size=number)
            parts["joined"].group = together.group.first(number)
            if world.rank < number:
                steps = {
                    name: ours_with(settings, "--model", model, *device, together=part).end_to_end
                    for name, part in parts.items()
                }
                rate = rates(steps, settings.rounds, settings.steps, ahead=1)
                found.append(rate["joined"])
                row = [model, str(number), f"{found[-1]:.0f}", f"{found[-1] / found[0]:.2f}"]
                rows.append([*row, f"{max(1 - found[-1] / rate['apart'], 0):.0%}" if number > 1 else ""])
                del steps
            together.group.gather(None)  # the others wait
    columns = ["network", "processes", "images/s", "to one", "waiting for each other"]
    if together.first:
        table("Training by several processes, images of the whole batch a second", columns, rows)


def main(argv: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m utils.benchmark",
        description=__doc__.splitlines()[0],
        epilog="Other flags are those of main.py, for our side of each comparison.",
        allow_abbrev=False,
    )
    parser.add_argument("--data_dir", help="a folder of images (default: the demo's, drawn first)")
    parser.add_argument("--networks", nargs="+", default=NETWORKS, metavar="NAME")
    parser.add_argument("--image_size", type=int, default=64, metavar="PIXELS")
    parser.add_argument("--batch_size", type=int, default=64, metavar="N")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="turns of each contender")
    parser.add_argument("--steps", type=int, default=4, metavar="N", help="steps a turn")
    parser.add_argument("--baseline", action="store_true", help="beside the usual loops of torchvision")
    parser.add_argument("--skip", nargs="+", default=(), choices=("networks", "memory", "tricks", "input"))
    settings, flags = parser.parse_known_args(argv)
    settings.flags = flags
    refused = [flag for flag in settings.flags if flag.partition("=")[0] in NOT_OURS]
    if refused:
        parser.error(f"{refused[0]} has no meaning here; leave it out (--networks names the networks)")
    settings.device = options.parse_args(["--checkpoint_name", "benchmark", *settings.flags]).device
    world = World.of(os.environ)
    if world.size > 1 and (settings.baseline or settings.skip):
        parser.error("--baseline and --skip are for one process: start it without torchrun")
    try:
        # A process alone is ended by a signal at once.
        stop = stop_signal(world) if world.size > 1 else contextlib.nullcontext(ALONE.stop)
        with stop as signals, joined(settings, signals, world) as together:
            measure(settings, together)
    except ProgramError as error:
        if not (error.said or world.rank):
            print(f"{parser.prog}: {visible(error)}", file=sys.stderr)
        sys.exit(error.exit_code)


def measure(settings: argparse.Namespace, together: Together) -> None:
    """Measure what the settings ask for, and print it. Raises `UserError` or `WeightsError`."""
    with tempfile.TemporaryDirectory() as folder:
        settings.cache_dir = f"{folder}/cache"
        if settings.data_dir is None:
            settings.data_dir = "data/demo"
            draw_demo(Path(settings.data_dir), lambda: None)
        if together.group:
            compare_processes(settings, together)
            return
        device = choose_device(settings.device)
        print(
            f"{describe(device)}; torch {torch.__version__}, torchvision {torchvision.__version__}, "
            f"Pillow {PIL.__version__}; {time.strftime('%Y-%m-%d')}\n"
            f"{len(find_dataset(Path(settings.data_dir), 42).files)} images; steps of {settings.batch_size} "
            f"images of {settings.image_size} x {settings.image_size}, Adam; matrix products: "
            + ", ".join(
                f"{ceiling(device, dtype) / 1e9:.0f} GFLOP/s {name}"
                for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16))
            )
        )
        if "networks" not in settings.skip:
            compare_networks(settings, device)
        if "tricks" not in settings.skip:
            compare_tricks(settings)
        if "input" not in settings.skip:
            measure_input(settings)


if __name__ == "__main__":
    main()
