"""learning/trainer.py and evaluator.py, and the ancestor's defects C6 to C10 and E7."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from learning.augment import Augment, Normalise, flip
from learning.evaluator import Evaluation, evaluate
from learning.loss import soft_cross_entropy
from learning.mixing import make_mixing
from learning.optimizer import make_optimizer
from learning.trainer import Totals, Trainer
from utils.errors import RunFailed

CPU = torch.device("cpu")
NORMALISE = Normalise((0.5,) * 3, (0.25,) * 3, CPU)


def tiny_network() -> nn.Module:
    """A network with everything that can go wrong on resuming: norm statistics and dropout."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(8, 3),
    )


def make_trainer(
    network=None, optimizer="SGD", mixing=(0.4, 1, 0.5), lr_factor=lambda step: 1 / (1 + step), **changes
):
    network = network or tiny_network()
    settings = {
        "lr_factor": lr_factor,
        "augment": Augment({"flip": flip}),
        "normalise": NORMALISE,
        "mixing": make_mixing(*mixing),
        "criterion": soft_cross_entropy,
        "num_classes": 3,
        "precision": "fp32",
        "seed": 7,
        "device": CPU,
    }
    return Trainer(network, make_optimizer(optimizer, network, 0.1, 1e-4), **(settings | changes))


def random_batch(count=6, size=8, seed=0):
    rng = np.random.default_rng(seed)
    pixels = torch.from_numpy(rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8))
    return pixels.permute(0, 3, 1, 2), torch.from_numpy(rng.integers(0, 3, count))


def tensors(content, prefix=""):
    """All tensors and numbers of nested dictionaries and lists, by path; times left out."""
    if isinstance(content, dict):
        items = content.items()
    elif isinstance(content, (list, tuple)):
        items = enumerate(content)
    else:
        return {prefix: content}
    found = {}
    for key, value in items:
        if key not in ("seconds", "images_per_second", "peak_memory_mb"):
            found |= tensors(value, f"{prefix}/{key}")
    return found


def assert_same(first, second):
    first, second = tensors(first), tensors(second)
    assert first.keys() == second.keys()
    for name, value in first.items():
        other = second[name]
        same = torch.equal(value, other) if isinstance(value, torch.Tensor) else value == other
        assert same, name


def test_a_step_is_a_function_of_state_batch_and_step():
    first, second = make_trainer(), make_trainer()
    for step in range(4):
        first.train_step(*random_batch(seed=step))
    torch.manual_seed(99)
    np.random.seed(99)
    for step in range(4):
        second.train_step(*random_batch(seed=step))
    assert_same(first.state_dict(), second.state_dict())


@pytest.mark.parametrize(
    ("optimizer", "precision"),
    [("SGD", "fp32"), ("ADAM", "fp32"), ("RADAM", "fp32"), ("ADAM", "bf16"), ("SGD", "fp16")],
)
def test_a_restored_trainer_goes_on_to_the_same_bits(optimizer, precision, tmp_path):
    straight = make_trainer(optimizer=optimizer, precision=precision)
    for step in range(8):
        if step == 5:
            torch.save(straight.state_dict(), tmp_path / "state")
        straight.train_step(*random_batch(seed=step))
    network = tiny_network()
    nn.init.zeros_(network[0].weight)
    restored = make_trainer(network, optimizer=optimizer, precision=precision)
    restored.load_state_dict(torch.load(tmp_path / "state", weights_only=True))  # S7: no objects in it
    for step in range(5, 8):
        restored.train_step(*random_batch(seed=step))
    assert_same(straight.state_dict(), restored.state_dict())


def test_another_seed_gives_another_run():
    first, second = make_trainer(), make_trainer(seed=8)
    for trainer in (first, second):
        trainer.train_step(*random_batch())
    assert not torch.equal(first.network[0].weight, second.network[0].weight)


def test_the_learning_rate_is_the_schedules():
    trainer = make_trainer()
    for step in range(3):
        trainer.train_step(*random_batch())
        assert trainer.learning_rate == pytest.approx(0.1 / (1 + step))


def test_c7_the_loss_is_the_mean_over_images():
    """The ancestor divided it by the number of samples twice."""
    trainer = make_trainer(mixing=(0, 0, 0), augment=Augment({}), lr_factor=lambda step: 0.0)
    trainer.network[5].p = 0.0
    batches = [random_batch(6, seed=0), random_batch(3, seed=1)]
    losses = []
    for images, labels in batches:
        losses.append(
            F.cross_entropy(trainer.network.train()(NORMALISE(images)), labels).item() * len(labels)
        )
        trainer.train_step(images, labels)
    trainer.totals.collect()
    assert trainer.totals.images == 9
    assert trainer.totals.loss / 9 == pytest.approx(sum(losses) / 9, rel=1e-5)


def test_totals_do_not_depend_on_when_they_are_collected():
    losses = torch.rand(50).double() * 3

    def total(interval):
        totals = Totals()
        for step, loss in enumerate(losses):
            totals.add(step, 7, loss, torch.tensor(step % 5))
            if (step + 1) % interval == 0:
                totals.collect()
        totals.collect()
        return totals.loss, totals.hits, totals.images

    assert total(1) == total(7) == total(100)
    assert total(1)[1:] == (100, 350)


def test_collect_returns_what_came_since_the_last_time():
    totals = Totals()
    totals.add(0, 10, torch.tensor(2.0), torch.tensor(4))
    totals.collect()
    totals.add(1, 10, torch.tensor(1.0), torch.tensor(6))
    recent = totals.collect()
    assert (recent.loss, recent.hits, recent.images) == (10.0, 6, 10)
    assert (totals.loss, totals.hits, totals.images) == (30.0, 10, 20)
    assert Totals(**totals.state_dict()).state_dict() == totals.state_dict()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_names_its_step(value):
    totals = Totals()
    for step in range(40, 50):
        totals.add(step, 1, torch.tensor(value if step >= 43 else 1.0), torch.tensor(0))
    with pytest.raises(RunFailed, match=r"the loss of step 43 is (nan|inf)"):
        totals.collect()


def test_c8_hits_are_counted_against_the_dominant_label():
    trainer = make_trainer(mixing=(0, 0, 0), lr_factor=lambda step: 0.0)
    trainer.network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3, bias=False))
    nn.init.eye_(trainer.network[2].weight)  # the class is the strongest channel
    images = torch.zeros(4, 3, 2, 2, dtype=torch.uint8)
    images[range(4), [0, 1, 2, 0]] = 255
    labels = torch.tensor([0, 1, 1, 0])

    def swap_labels_mostly(images, targets, rng):
        return images, 0.3 * targets + 0.7 * targets.roll(1, 1)

    trainer.train_step(images, labels)
    trainer.totals.collect()
    assert trainer.totals.hits == 3
    trainer.mixing = swap_labels_mostly  # dominant labels: 1, 2, 2, 1
    trainer.train_step(images, labels)
    trainer.totals.collect()
    assert trainer.totals.hits == 3 + 1


def batches_of(images, labels, size):
    return zip(images.split(size), labels.split(size), strict=True)


@pytest.mark.parametrize("batch_size", [1, 4, 10])
def test_evaluation_by_an_independent_count(batch_size):  # C9: top-k broke on some memory orders
    images, labels = random_batch(10)
    network = tiny_network()
    result = evaluate(network, batches_of(images, labels, batch_size), NORMALISE, "fp32")
    assert not network.training
    with torch.inference_mode():
        logits = network(NORMALISE(images))
    assert result.accuracy == pytest.approx(100 * (logits.argmax(1) == labels).float().mean().item())
    assert result.loss == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)
    np.testing.assert_allclose(result.probabilities, logits.softmax(1).numpy(), rtol=1e-4)
    assert result.labels.tolist() == labels.tolist()


def test_evaluation_changes_nothing_and_needs_no_randomness():
    images, labels = random_batch(10)
    network = tiny_network()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    first, second = (evaluate(network, batches_of(images, labels, 5), NORMALISE, "fp32") for _ in range(2))
    assert_same(before, network.state_dict())
    assert np.array_equal(first.probabilities, second.probabilities)


def test_c10_two_classes_and_the_confusion_matrix_by_hand():  # top-3 crashed below 3 classes
    probabilities = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.7, 0.3]])
    result = Evaluation(0.0, np.array([0, 0, 1, 1]), probabilities)
    assert result.confusion.tolist() == [[1, 1], [1, 1]]
    assert result.accuracy == 50
    result = Evaluation(0.0, np.array([0, 0, 1, 0]), probabilities)
    assert result.confusion.tolist() == [[2, 1], [0, 1]]
    assert result.class_accuracies == pytest.approx([200 / 3, 100])
