"""What goes wrong in a run while it runs, each said once, with what to try."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from learning.evaluation import Confusion
from utils.text import some

SHARE_OF_EPOCHS = 0.1  # after which a network should have learnt something
LEAST_EPOCHS = 2
FALL = 0.98  # a training loss that is no lower than so much of the first epoch's does not fall
RISE = 1.5  # a validation loss so many times its lowest has parted from the training loss
SMALL_LOSS = 0.1  # nats: below it nothing is wrong
PATIENCE = 5  # epochs without a better validation accuracy
CLASSES_SHOWN = 5


class Watch:
    """Looks at each epoch of a run of `epochs`; `classes` are their names."""

    def __init__(self, epochs: int, classes: Sequence[str]):
        self.first = max(LEAST_EPOCHS, round(SHARE_OF_EPOCHS * epochs))
        self.classes = classes
        self.said: set[str] = set()

    def warnings(self, history: Sequence[Mapping], confusion: Confusion) -> Iterator[str]:
        """What is new to say after the last row of `history`, whose validation gave this confusion."""
        if len(history) < self.first:
            return
        chance = _at_chance(confusion)
        found = {
            "at chance": chance,
            "flat": None if chance else _flat(history),
            "parts": _parts(history),
            "never predicted": None if chance else _never_predicted(confusion, self.classes),
        }
        for kind, words in found.items():
            if words and kind not in self.said:
                self.said.add(kind)
                yield f"epoch {history[-1]['epoch']}: {words}"


def _at_chance(confusion: Confusion) -> str | None:
    """Neither all images nor the classes alike are recognised more often than luck explains."""
    images, classes = confusion.sizes.sum(), np.count_nonzero(confusion.sizes)
    largest = confusion.sizes.max() / images
    reach = [100 * (share + 2 * np.sqrt(share * (1 - share) / images)) for share in (largest, 1 / classes)]
    if classes < 2 or confusion.accuracy > reach[0] or confusion.balanced_accuracy > reach[1]:
        return None
    return (
        f"the validation accuracy of {confusion.accuracy:.2f} % is not clearly above that of guessing the "
        f"largest class ({100 * largest:.2f} %); try a --recipe, a smaller --learning_rate or a warm-up, and "
        "--inspect the images"
    )


def _flat(history: Sequence[Mapping]) -> str | None:
    first, now = history[0]["train_loss"], history[-1]["train_loss"]
    if now <= max(FALL * first, SMALL_LOSS):
        return None
    return (
        f"the training loss does not fall ({first:.4f} in the first epoch, {now:.4f} in this); try another "
        "--learning_rate"
    )


def _parts(history: Sequence[Mapping]) -> str | None:
    accuracies = [row["val_accuracy"] for row in history]
    lowest = min(history, key=lambda row: row["val_loss"])
    now = history[-1]
    if (
        now["val_loss"] > RISE * lowest["val_loss"] + SMALL_LOSS
        and now["train_loss"] < lowest["train_loss"]
        and len(history) - 1 - int(np.argmax(accuracies)) >= PATIENCE
    ):
        return (
            f"the validation loss has risen from {lowest['val_loss']:.4f} (epoch {lowest['epoch']}) to "
            f"{now['val_loss']:.4f} while the training loss falls: the network learns its images by heart; "
            "try more augmentation (--trivial_augment, --mixup 0.2), fewer epochs or --early_stop"
        )
    return None


def _never_predicted(confusion: Confusion, classes: Sequence[str]) -> str | None:
    never = np.flatnonzero((confusion.counts.sum(0) == 0) & (confusion.sizes > 0))
    if not len(never):
        return None
    names = some([classes[label] for label in never.tolist()], CLASSES_SHOWN)
    return (
        f"no validation image is taken for {names}; if such images are rare, try --class_weights balanced, "
        "else look at them by --inspect"
    )
