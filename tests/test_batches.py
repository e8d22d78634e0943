"""utils/data/batches.py: the order of images, and the way to the device."""

import signal
import threading
from itertools import chain

import numpy as np
import pytest
import torch

from utils.data.batches import Loader, in_order, steps_per_epoch, training_order
from utils.data.images import StoredImages
from utils.errors import Interrupted

INDICES = np.arange(100, 150)


def order(seed=0, first=0, last=None, batch_size=16):
    last = 3 * steps_per_epoch(len(INDICES), batch_size) if last is None else last
    return [batch.tolist() for batch in training_order(INDICES, batch_size, seed, first, last)]


def test_each_epoch_shows_each_image_once_in_equal_batches():
    steps = order()
    assert len(steps) == 12
    assert {len(batch) for batch in steps} == {12, 13}
    for epoch in range(3):
        assert sorted(chain(*steps[4 * epoch : 4 * epoch + 4])) == INDICES.tolist()


def test_the_order_depends_on_seed_and_epoch_alone():
    assert order() == order()
    assert order() != order(seed=1)
    assert order()[:4] != order()[4:8]


@pytest.mark.parametrize("first", range(13))
def test_the_order_goes_on_from_any_step(first):
    assert order(first=first) == order()[first:]


@pytest.mark.parametrize(
    ("images", "batch_size", "steps"), [(1, 64, 1), (64, 64, 1), (65, 64, 2), (960, 64, 15)]
)
def test_steps_per_epoch(images, batch_size, steps):
    assert steps_per_epoch(images, batch_size) == steps


def test_evaluation_sees_the_images_in_order():
    batches = list(in_order(INDICES, 20))
    assert [len(batch) for batch in batches] == [20, 20, 10]
    assert np.array_equal(np.concatenate(batches), INDICES)
    assert [len(batch) for batch in in_order(INDICES, 50)] == [50]


class CountedSource(StoredImages):
    """Counts the batches that were gathered."""

    gathered = 0

    def batches(self, index_lists):
        for batch in super().batches(index_lists):
            self.gathered += 1
            yield batch


def lists(*numbers):
    return iter([np.array(indices) for indices in numbers])


def make_loader(check=lambda: None, source=StoredImages):
    pixels = np.arange(20, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    return Loader(source(pixels), np.arange(20) % 7, torch.device("cpu"), check)


def test_images_arrive_with_their_labels():
    for indices, (images, labels, _) in zip(([3, 9], [12]), make_loader()(lists([3, 9], [12])), strict=True):
        assert images[:, 0, 0, 0].tolist() == indices
        assert labels.tolist() == [index % 7 for index in indices]


def test_a_check_stops_before_the_next_batch():
    stop = False

    def check():
        if stop:
            raise Interrupted(signal.SIGTERM)

    batches = make_loader(check)(lists([0], [1], [2]))
    next(batches)
    stop = True
    with pytest.raises(Interrupted):
        next(batches)


def test_an_error_of_the_source_reaches_the_consumer():
    class Failing(StoredImages):
        def batches(self, index_lists):
            yield from super().batches([next(index_lists)])
            raise OSError("the disk is gone")

    batches = make_loader(source=Failing)(lists([0], [1]))
    next(batches)
    with pytest.raises(OSError, match="the disk is gone"):
        next(batches)


def test_batches_are_made_ahead_but_not_without_end():
    loader = make_loader(source=CountedSource)
    batches = loader(lists(*[[index] for index in range(20)]))
    next(batches)
    for _ in range(100):
        if loader.source.gathered >= 4:
            break
        threading.Event().wait(0.01)
    threading.Event().wait(0.05)
    assert loader.source.gathered == 4  # one in use, two in the queue, one in the maker's hand


def test_a_signal_stops_the_wait_for_a_batch_that_never_comes(monkeypatch):
    """As where a worker's batch was lost."""
    monkeypatch.setattr("utils.data.batches.SECONDS_TO_END", 0.1)
    stuck = threading.Event()
    calls = 0

    class Stuck(StoredImages):
        def batches(self, index_lists):
            stuck.wait()
            yield from super().batches(index_lists)

    def check():
        nonlocal calls
        calls += 1
        if calls == 2:
            raise Interrupted(signal.SIGINT)

    with pytest.raises(Interrupted):
        next(make_loader(check, Stuck)(lists([0])))
    stuck.set()
    for thread in threading.enumerate():
        if thread.name == "batches ahead":
            thread.join()  # other tests count them


def test_a_consumer_that_leaves_takes_the_thread_with_it():
    threads = threading.active_count()
    batches = make_loader()(lists(*[[index] for index in range(20)]))
    next(batches)
    assert threading.active_count() == threads + 1
    del batches
    assert threading.active_count() == threads
