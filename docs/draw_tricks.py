"""Draw the pictures of docs/tricks.md with the code of the tricks: python -m docs.draw_tricks."""

from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from learning.augment import Augment, RandomErasing, Transform
from learning.augmix import AugMix
from learning.crop import RandomResizedCrop
from learning.loss import CrossEntropy, FocalLoss
from learning.mixing import cutmix, mixup
from learning.optimizer import _rectified
from learning.randaugment import RandAugment, TrivialAugment
from learning.schedule import SCHEDULES, Schedule
from utils.data.scenes import PAINTERS, draw_scene
from utils.figures import WIDTH, plain
from utils.run.pictures import save
from utils.run.randomness import Draws, generator

HERE = Path(__file__).parent
SIDE, SHOWN = 80, 5  # pixels of a scene, and how many examples of each augmentation


def schedules() -> Figure:
    """The learning rate of each schedule over 30 epochs."""
    figure = Figure(figsize=(WIDTH, 2.6), layout="constrained")
    axes = plain(figure.subplots())
    epochs, steps = 30, 50
    for name, style in zip(SCHEDULES, (":", "--", "-", "-."), strict=True):
        schedule = Schedule(name, steps, epochs, 3, [7.5, 15, 22.5])
        values = [schedule(step) for step in range(epochs * steps)]
        axes.plot(np.arange(epochs * steps) / steps, values, style, label=name)
    axes.set_xlabel("Epoch")
    axes.set_ylabel("Share of the learning rate")
    axes.legend(frameon=False)
    return figure


def radam() -> Figure:
    """RAdam's factor over the first steps."""
    figure = Figure(figsize=(WIDTH, 2.4), layout="constrained")
    axes = plain(figure.subplots())
    steps = range(1, 2001)
    factors = [_rectified({"betas": (0.9, 0.999), "lr": 1.0, "eps": 0.0}, step)["lr"] for step in steps]
    adaptive = [(step, factor) for step, factor in zip(steps, factors, strict=True) if factor <= 1]
    axes.plot(*zip(*adaptive, strict=True))
    axes.set_xlabel("Step")
    axes.set_ylabel("r")
    return figure


def losses() -> Figure:
    """The losses of an image of one of six classes, the others being equally probable."""
    figure = Figure(figsize=(WIDTH, 2.8), layout="constrained")
    axes = plain(figure.subplots())
    classes = 6
    p = torch.linspace(0.005, 0.995, 200)
    others = ((1 - p) / (classes - 1)).log()[:, None].expand(-1, classes - 1)
    logits = torch.cat([p.log()[:, None], others], 1)
    targets = torch.eye(classes)[:1].expand(len(p), -1)
    for name, loss, style in (
        ("cross-entropy", CrossEntropy(), "-"),
        ("label smoothing 0.1", CrossEntropy(0.1), "--"),
        ("focal, gamma 2", FocalLoss(), "-."),
    ):
        axes.plot(p, loss(logits, targets), style, label=name)
    axes.set_xlabel("Probability of the right class")
    axes.set_ylabel("Loss")
    axes.legend(frameon=False)
    return figure


def augmentations() -> Figure:
    """Some draws of each augmentation, a row each."""
    scenes = [draw_scene(name, generator(0, "scene")).resize((SIDE, SIDE)) for name in list(PAINTERS)[:SHOWN]]
    images = torch.from_numpy(np.stack([np.asarray(scene) for scene in scenes])).permute(0, 3, 1, 2)
    first = images[:1].repeat(SHOWN, 1, 1, 1)
    transforms: dict[str, Transform] = {
        "random crops": RandomResizedCrop(SIDE),
        "RandAugment": RandAugment(3, 15),
        "TrivialAugment": TrivialAugment(),
        "random erasing": RandomErasing(1.0, (124, 116, 104)),
        "AugMix": AugMix(),
    }
    rows = {"images": images.float()}
    for name, transform in transforms.items():
        changed = Augment({name: transform})(first, Draws(1, 0))
        rows[name] = changed[:, -3:].float()  # of AugMix's views the last
    mixers = {"MixUp": mixup, "CutMix": cutmix}
    for name, mix in mixers.items():
        mixed = [
            mix(images, torch.eye(SHOWN), 1.0, generator(place, name))[0][place] for place in range(SHOWN)
        ]
        rows[name] = torch.stack(mixed).float()
    figure = Figure(figsize=(0.62 * SHOWN + 1.4, 0.62 * len(rows)), layout="constrained")
    for line, (name, row) in zip(figure.subplots(len(rows), SHOWN), rows.items(), strict=True):
        for axes, image in zip(line, row, strict=True):
            axes.imshow(image.permute(1, 2, 0).round().to(torch.uint8).numpy())
            axes.set_xticks([])
            axes.set_yticks([])
        line[0].set_ylabel(name, rotation=0, ha="right", va="center")
    return figure


def main() -> None:
    """Write all pictures beside this file."""
    for draw in (schedules, radam, losses, augmentations):
        save(draw(), HERE / f"{draw.__name__}.png")


if __name__ == "__main__":
    main()
