"""A trained network with all that it takes to use it.

classifier = Classifier.load("checkpoint/baseline/best.pt")
for name, probabilities in classifier.classify(["a.jpg", "b.jpg"]):
    print(name, probabilities)  # the class, and {class: calibrated probability}
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from operator import index
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from learning.augment import Normalise
from learning.calibration import COLDEST, HOTTEST, Calibration
from learning.crop import center_crop
from learning.evaluation import Evaluation, at_temperature
from learning.evaluator import View, evaluate, log_probabilities
from network import build_network
from network.weights import Normalisation
from utils.data.decode import Frame, decode
from utils.run.checkpoint import explained_contents, load_checkpoint
from utils.run.device import DTYPES, MEMORY_FORMATS, choose_device, configure
from utils.run.records import Weights

CROP_MARGIN = 8 / 7  # images are stored so much larger than a crop, as 256 pixels for crops of 224


def frame_of(flags: Any) -> Frame:
    """What images become before a network sees them or, with --crop, their middle."""
    crop = flags.get("crop", "none") != "none"
    return Frame(round(flags["image_size"] * CROP_MARGIN) if crop else flags["image_size"], crop)


@dataclass
class Classifier:
    """A network, the names of its classes, and how an image becomes its input."""

    network: nn.Module
    classes: Sequence[str]
    frame: Frame
    image_size: int
    mirrored: bool  # show it the mirror image too
    normalisation: Normalisation
    device: torch.device
    precision: str
    memory_format: str
    calibration: Calibration = field(default_factory=lambda: Calibration(1.0, {}))

    @classmethod
    def load(cls, path: str | Path, device: str = "auto") -> "Classifier":
        """That of a checkpoint, of which no more than the file is needed; raises `UserError`.

        Before a run has ended, and in runs of older versions, its temperature is 1, that is not calibrated.
        """
        weights = load_checkpoint(Path(path), Weights)
        chosen = choose_device(device)
        configure(chosen, weights.precision, deterministic=False)
        return cls.of(weights, Path(path), chosen)

    @classmethod
    def of(cls, weights: Weights, path: Path, device: torch.device) -> "Classifier":
        """That of what was read from the file; raises `UserError` if it does not fit together."""
        with explained_contents(path):
            flags = weights.flags
            DTYPES[weights.precision], index(flags["image_size"])  # raise for what is none
            temperature = 1.0 if weights.temperature is None else float(weights.temperature)
            if not COLDEST <= temperature <= HOTTEST:
                raise ValueError(temperature)
            thresholds = {
                key: None if value is None else float(value)
                for key, value in dict(weights.thresholds or {}).items()
            }
            network = build_network(flags["model"], len(weights.classes), norm=flags["norm"])
            network.load_state_dict(weights.network)
            network.to(device).to(memory_format=MEMORY_FORMATS[weights.memory_format])
            return cls(
                network.eval(),
                tuple(weights.classes),
                frame_of(flags),
                flags["image_size"],
                flags.get("tta") == "flip",
                Normalisation.of(weights.normalisation),
                device,
                weights.precision,
                weights.memory_format,
                Calibration(temperature, thresholds),
            )

    @property
    def normalise(self) -> Normalise:
        """Makes the network's input of uint8 images."""
        return Normalise(*self.normalisation, self.device, MEMORY_FORMATS[self.memory_format])

    def cropped(self, images: torch.Tensor) -> torch.Tensor:
        """What the network sees of images [N, 3, S, S] as they are stored."""
        return center_crop(images, self.image_size)

    @property
    def views(self) -> list[View]:
        """What the network is shown of each image."""
        normalise = self.normalise

        def whole(images: torch.Tensor) -> torch.Tensor:
            return normalise(self.cropped(images))

        return [whole, lambda images: whole(images.flip(-1))] if self.mirrored else [whole]

    def evaluate(self, batches: Iterable[tuple], network: nn.Module | None = None) -> Evaluation:
        """Evaluate it, or another network, on batches of (images uint8 [N, 3, S, S], labels [N], ...)."""
        return evaluate(network or self.network, batches, self.views, self.precision)

    def log_probabilities(self, images: torch.Tensor) -> np.ndarray:
        """Those of the classes, not calibrated, for uint8 images [N, 3, S, S]: float64 [N, K]."""
        return log_probabilities(self.network, [images], self.views, self.precision).numpy()

    def classify(
        self, paths: str | Path | Iterable[str | Path], batch_size: int = 64
    ) -> Iterator[tuple[str, dict[str, float]]]:
        """The class of each image file and the probability of every class, in the order of the `paths`.

        Probabilities are calibrated: at the temperature of the run. A file may be given alone. Raises
        `ValueError` for a `batch_size` below 1, and `utils.data.decode.UnreadableImage` for a file that is no
        image.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size {batch_size} is below 1")
        left = iter([paths] if isinstance(paths, str | Path) else paths)
        while pixels := [decode(Path(path), self.frame) for path in islice(left, batch_size)]:
            images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).to(self.device)
            found = at_temperature(self.log_probabilities(images), self.calibration.temperature)
            for row in np.exp(found):
                yield self.classes[row.argmax()], dict(zip(self.classes, row.tolist(), strict=True))
