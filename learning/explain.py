"""A page of images with what the classifier makes of each, and where it looks."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib import colormaps

from learning.calibration import accepted
from learning.classifier import Classifier
from learning.evaluation import at_temperature
from learning.gradcam import heat_maps
from learning.predict import Predictions, open_loose
from utils.data.batches import in_order
from utils.page import Section, pixels_as_image, text, to_page
from utils.text import count

MOST = 200  # images on a page, which is one file that holds them all
AT_ONCE = 16
GUESSES = 5
SIDE = 192  # pixels an image is shown with, or more
OPACITY = 0.7  # of the heat map where it is hottest


def explained(classifier: Classifier, found: Predictions, num_workers: int, check: Callable[[], None]) -> str:
    """The page, as HTML: the least certain images first, at most `MOST` of them."""
    shown = found.from_uncertain[:MOST]
    images = count(len(found.from_uncertain), "image")
    what = (
        images if len(shown) == len(found.from_uncertain) else f"the {len(shown)} least certain of {images}"
    )
    seen = "its middle square" if classifier.frame.crop else "all of it, squeezed to a square"
    paragraphs = [
        f"Here: {what}, the least certain first. Of each the network sees {seen}; the brighter the "
        "colour over it, the more a place speaks for the predicted class (Grad-CAM).",
        "Bars are calibrated probabilities. Where the network looks does not say whether it is right.",
    ]
    if found.threshold is not None:
        paragraphs.append(
            f"Predictions below a confidence of {100 * found.threshold:g} % are marked as uncertain."
        )
    if found.errors:
        paragraphs.append(f"Not shown: {count(len(found.errors), 'image')} that could not be read.")
    cards = "\n".join(_cards(classifier, found, shown, num_workers, check))
    more = f'<div class="cards">{cards}</div>'
    return to_page([Section("What the network makes of these images", paragraphs, more=more)])


def _cards(
    classifier: Classifier, found: Predictions, shown: np.ndarray, num_workers: int, check: Callable[[], None]
) -> Iterator[str]:
    loader, _ = open_loose(classifier, found.images, num_workers, check)
    batches = zip(in_order(shown, AT_ONCE), loader(in_order(shown, AT_ONCE)), strict=True)
    for numbers, (images, *_) in batches:
        logits = classifier.log_probabilities(images)
        probabilities = np.exp(at_temperature(logits, classifier.calibration.temperature))
        classes = torch.from_numpy(found.predictions[numbers]).to(images.device)
        heat = heat_maps(classifier.network, classifier.views[0](images), classes)
        seen = classifier.cropped(images)
        for number, pixels, hot, row in zip(numbers, seen, heat, probabilities, strict=True):
            yield _card(classifier, found, number, pixels.cpu(), hot.cpu(), row)


def _card(
    classifier: Classifier,
    found: Predictions,
    number: int,
    pixels: torch.Tensor,
    heat: torch.Tensor,
    probabilities: np.ndarray,
) -> str:
    """One image [3, S, S] with its heat map [h, w] in 0..1."""
    name, label = found.images.names[number], found.images.labels[number]
    prediction, confidence = found.predictions[number], found.confidences[number]
    marks = [f"{100 * confidence:.1f} %"]
    if found.threshold is not None and not accepted(confidence, found.threshold):
        marks.append("uncertain")
    if label >= 0:
        marks.append("right" if label == prediction else f"wrong: it is {classifier.classes[label]}")
    if not heat.any():
        marks.append("no place speaks for it")
    best = np.argsort(-probabilities, kind="stable")[:GUESSES]
    bars = "".join(
        f'<li><span style="width: {100 * probabilities[guess]:.1f}%"></span>'
        f"{text(classifier.classes[guess])} {100 * probabilities[guess]:.1f} %</li>"
        for guess in best
    )
    size = max(SIDE, pixels.shape[-1])
    plain = _resized(pixels.float(), size)
    hot = _resized(heat[None], size)[0].clamp(0, 1)
    colours = torch.from_numpy(255 * colormaps["inferno"](hot.numpy())[..., :3]).permute(2, 0, 1)
    over = plain + OPACITY * hot * (colours - plain)
    pictures = "".join(
        pixels_as_image(image.permute(1, 2, 0).round().clamp(0, 255).byte().numpy(), words)
        for image, words in ((plain, name), (over, f"where the network looks in {name}"))
    )
    return (
        f'<article><div class="pair">{pictures}</div><h3>{text(classifier.classes[prediction])}</h3>'
        f'<p>{text(", ".join(marks))}</p><ul class="bars">{bars}</ul>'
        f'<div class="path">{text(name)}</div></article>'
    )


def _resized(image: torch.Tensor, size: int) -> torch.Tensor:
    """[C, h, w] to [C, size, size]."""
    return F.interpolate(image[None], (size, size), mode="bilinear")[0]
