"""utils/data/demo.py and scenes.py."""

import signal
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from utils.data import demo
from utils.data.folders import find_dataset
from utils.data.scenes import PAINTERS, SIZE, draw_scene
from utils.errors import Interrupted, UserError
from utils.run.randomness import generator


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(demo, "IMAGES_PER_CLASS", {"seg_train/seg_train": 3, "seg_test/seg_test": 2})


def test_it_is_drawn_once_in_the_kaggle_layout(tmp_path, small):
    demo.draw_demo(tmp_path / "demo", lambda: None)
    dataset = find_dataset(tmp_path / "demo", seed=42)
    assert dataset.classes == ("buildings", "forest", "glacier", "mountain", "sea", "street")
    assert dataset.sizes() == {"train": 12, "val": 6, "test": 12}
    times = [path.stat().st_mtime_ns for path in sorted(tmp_path.rglob("*.jpg"))]
    demo.draw_demo(tmp_path / "demo", lambda: None)
    assert times == [path.stat().st_mtime_ns for path in sorted(tmp_path.rglob("*.jpg"))]


def test_processes_that_begin_together_draw_it_once(tmp_path, small):
    drawn = []
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(demo.draw_demo, [tmp_path / "demo"] * 4, [lambda: drawn.append(1)] * 4))
    assert len(find_dataset(tmp_path / "demo", seed=42).files) == 30
    assert len(drawn) >= 30
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]


def test_a_stopped_drawing_is_done_anew(tmp_path, small):
    calls = 0

    def stop():
        nonlocal calls
        calls += 1
        if calls == 7:
            raise Interrupted(signal.SIGINT)

    with pytest.raises(Interrupted):
        demo.draw_demo(tmp_path / "demo", stop)
    assert not (tmp_path / "demo").exists()
    demo.draw_demo(tmp_path / "demo", lambda: None)
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]


def test_a_folder_of_something_else_is_left_alone(tmp_path, small):
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="is not the demo's"):
        demo.draw_demo(tmp_path / "demo", lambda: None)
    assert (tmp_path / "demo" / "mine.txt").read_text() == "mine"


def scenes(split, count):
    images = [
        np.asarray(draw_scene(name, generator(0, f"{split}/{name}", number)), float)
        for name in PAINTERS
        for number in range(count)
    ]
    return np.stack(images), np.repeat(np.arange(len(PAINTERS)), count)


def test_the_mean_colour_does_not_tell_the_class():
    """The nearest of 300 images by mean colour and contrast, which a histogram would go by."""
    train, labels = scenes("train", 50)
    test, expected = scenes("test", 20)
    features = [np.concatenate((x.mean((1, 2)), x.std((1, 2))), 1) for x in (test, train)]
    distances = np.linalg.norm(features[0][:, None] - features[1], axis=2)
    nearest = labels[np.argsort(distances, 1)[:, :7]]
    guesses = [np.bincount(row, minlength=6).argmax() for row in nearest]
    assert np.mean(guesses == expected) < 0.5


def test_scenes_are_the_same_each_time_and_all_different():
    images, _ = scenes("train", 3)
    again, _ = scenes("train", 3)
    assert np.array_equal(images, again)
    assert len({image.tobytes() for image in images}) == len(images)
    assert Image.fromarray(images[0].astype(np.uint8)).size == (SIZE, SIZE)
