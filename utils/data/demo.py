"""The demo's data set: synthetic scenes in the Kaggle layout, so that nothing has to be downloaded."""

import shutil
from collections.abc import Callable
from pathlib import Path

from tqdm import tqdm

from utils.data.scenes import PAINTERS, draw_scene
from utils.errors import UserError
from utils.run.lock import hold_in_turn
from utils.run.randomness import generator

IMAGES_PER_CLASS = {"seg_train/seg_train": 200, "seg_test/seg_test": 60}


def draw_demo(folder: Path, check: Callable[[], None]) -> None:
    """Draw the demo's data set into `folder`, in the Kaggle layout, unless it is there already.

    It is drawn beside its place and renamed when whole. `check` is called between images and may
    raise to stop. Raises `UserError` when `folder` holds something else.
    """
    if not _is_whole(folder):
        lock = folder.with_name(f".{folder.name}.lock")
        with hold_in_turn(lock, "data", check):
            if not folder.exists():  # else another process has drawn it meanwhile
                _draw(folder, check)
            lock.unlink()
    if not _is_whole(folder):
        raise UserError(f"{folder} exists and is not the demo's; name another folder with --data_dir")


def _is_whole(folder: Path) -> bool:
    return all((folder / split / name).is_dir() for split in IMAGES_PER_CLASS for name in PAINTERS)


def _draw(folder: Path, check: Callable[[], None]) -> None:
    unfinished = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(unfinished, ignore_errors=True)
    total = len(PAINTERS) * sum(IMAGES_PER_CLASS.values())
    with tqdm(
        total=total, desc="drawing the demo's scenes", unit=" images", disable=None, leave=False
    ) as bar:
        for split, count in IMAGES_PER_CLASS.items():
            for name in PAINTERS:
                place = unfinished / split / name
                place.mkdir(parents=True)
                for number in range(count):
                    check()
                    rng = generator(0, f"{split}/{name}", number)
                    draw_scene(name, rng).save(place / f"{number:04d}.jpg", quality=int(rng.integers(70, 96)))
                    bar.update()
    unfinished.rename(folder)
