"""What the tests share: small data sets on disk and runs of the program."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

# Tests run beside each other and start processes of their own: torch's threads would fight for the
# cores. Set before torch is imported, and inherited by the processes.
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import pytest
from PIL import Image

import main

ROOT = Path(__file__).resolve().parent.parent
CLASSES = ("circle", "plain", "stripes")


def draw(name: str, rng: np.random.Generator, size: int = 24) -> Image.Image:
    """An image of a class that a network can learn: a shape in random colours, with noise."""
    y, x = np.mgrid[:size, :size]
    shape = {
        "circle": (x - size / 2) ** 2 + (y - size / 2) ** 2 < (size / 3) ** 2,
        "plain": np.zeros((size, size), bool),
        "stripes": (x // 3) % 2 == 0,
    }[name]
    back, front = rng.integers(0, 256, (2, 3))
    pixels = np.where(shape[..., None], front, back) + rng.normal(0, 10, (size, size, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def write_images(folder: Path, per_class: int, seed: int, classes=CLASSES) -> None:
    rng = np.random.default_rng(seed)
    for name in classes:
        (folder / name).mkdir(parents=True)
        for number in range(per_class):
            draw(name, rng).save(folder / name / f"{number:03d}.png")


def as_trained(network, model: str, classes=CLASSES, **others) -> dict:
    """What the best.pt of a run would hold whose network this is."""
    place = {"epoch": 1, "step": 3, "best": None, "precision": "fp32"}
    flags = {"model": model, "norm": "batchnorm", "image_size": 32}
    normalisation = [[0.4] * 3, [0.2] * 3]
    about = {"classes": list(classes), "flags": flags, "normalisation": normalisation}
    return {"network": network.state_dict(), **about, **place, **others}


def applied(transform, images, seed=0, aspects=None):
    """A transform of learning/augment.py alone, on a batch."""
    from learning.augment import Augment
    from utils.run.randomness import Draws

    return Augment({"alone": transform})(images, Draws(seed, 0), aspects)


@pytest.fixture(scope="session")
def shapes(tmp_path_factory) -> Path:
    """A data set in the Kaggle layout: 3 classes, 20 training and 6 test images each. Do not change it."""
    root = tmp_path_factory.mktemp("shapes")
    write_images(root / "seg_train/seg_train", 20, seed=0)
    write_images(root / "seg_test/seg_test", 6, seed=1)
    return root


# A run that takes a second or two: 48 training images in 3 steps an epoch. On a CPU, where the same flags
# always give the same bits.
SMALL = (
    *("--device", "cpu"),
    *("--model", "RegNetX-200MF", "--pretrained", "0", "--image_size", "32"),
    *("--epochs", "2", "--batch_size", "16", "--learning_rate", "0.01", "--log_interval", "2"),
)

# The same for 8 epochs, with tricks that have a state or draw at random.
TRICKED = (
    *(*SMALL, "--epochs", "8", "--optimizer", "ADAM", "--mixup", "0.2", "--randaugment"),
    *("--ema", "0.9", "--crop", "random", "--drop_path", "0.1"),
)


class Program:
    """Runs the command line on a data set, in a folder of its own."""

    def __init__(self, folder: Path, data: Path):
        self.folder = folder
        self.data = data

    def arguments(self, name: str, *flags: str) -> list[str]:
        return [
            *("--data_dir", str(self.data), "--checkpoint_name", name, "--device", "cpu"),
            *("--checkpoint_dir", str(self.folder / "checkpoint"), "--cache_dir", str(self.folder / "cache")),
            *flags,
        ]

    def __call__(self, name: str, *flags: str) -> int:
        """Run in this process; returns the exit code."""
        try:
            return main.main(self.arguments(name, *flags))
        except SystemExit as stop:
            return stop.code

    def start(self, name: str, *flags: str, **options) -> subprocess.Popen:
        """Run as a process of its own, with its output piped."""
        return subprocess.Popen(
            [sys.executable, str(ROOT / "main.py"), *self.arguments(name, *flags)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
            **options,
        )

    def run(self, name: str) -> Path:
        return self.folder / "checkpoint" / name


@pytest.fixture
def program(tmp_path, shapes) -> Program:
    return Program(tmp_path, shapes)


@pytest.fixture(scope="session")
def straight(tmp_path_factory, shapes) -> Path:
    """The folder of a run with the flags `TRICKED` that nothing disturbed. Do not change it."""
    program = Program(tmp_path_factory.mktemp("straight"), shapes)
    assert program("run", *TRICKED) == 0
    return program.run("run")


@pytest.fixture(scope="session")
def trained(tmp_path_factory, shapes) -> Program:
    """A program with a finished run called "run", of crops and two views. Copy what you change."""
    program = Program(tmp_path_factory.mktemp("trained"), shapes)
    assert program("run", *SMALL, "--epochs", "3", "--crop", "center", "--tta", "flip") == 0
    return program


@pytest.fixture
def used(trained, tmp_path) -> Program:
    """The same, in a folder of its own."""
    shutil.copytree(trained.folder, tmp_path, dirs_exist_ok=True)
    return Program(tmp_path, trained.data)
