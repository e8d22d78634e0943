"""learning/trainer.py and evaluator.py."""

import copy
import math
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from learning.augment import Augment, Flip, Normalise
from learning.augmix import AugMix
from learning.criterion import Criterion
from learning.evaluation import Evaluation
from learning.evaluator import evaluate
from learning.loss import CrossEntropy, balanced_class_weights, distillation, soft_cross_entropy
from learning.mixing import Mixing
from learning.optimizer import make_optimizer
from learning.teacher import Teacher
from learning.trainer import Totals, Trainer
from network.layers import Dropout
from utils.errors import RunFailed
from utils.run.randomness import Draws

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
        Dropout(0.3, 8),
        nn.Linear(8, 3),
    )


def make_trainer(
    network=None, optimizer="SGD", mixing=(0.4, 1, 0.5), lr_factor=lambda step: 1 / (1 + step), **changes
):
    network = network or tiny_network()
    settings = {
        "lr_factor": lr_factor,
        "augment": Augment({"flip": Flip()}),
        "normalise": NORMALISE,
        "mixing": Mixing(*mixing),
        "criterion": Criterion(CrossEntropy()),
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
    restored.load_state_dict(torch.load(tmp_path / "state", weights_only=True))  # no objects in it
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


def test_the_loss_is_the_mean_over_images():
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


def test_hits_are_counted_against_the_dominant_label():
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3, bias=False))
    nn.init.eye_(network[2].weight)  # the class is the strongest channel
    trainer = make_trainer(network, mixing=(0, 0, 0), lr_factor=lambda step: 0.0)
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


def plain_trainer(network, **changes):
    """Without chance: no mixing, no augmentation, SGD with learning rate 0.1."""
    settings = {"mixing": (0, 0, 0), "augment": Augment({}), "lr_factor": lambda step: 1.0}
    return make_trainer(network, **(settings | changes))


def linear_network() -> nn.Module:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 5), nn.Tanh(), nn.Linear(5, 3))
    network.head = "3"
    return network


@pytest.mark.parametrize("parts", [2, 3])
def test_a_step_in_parts_is_the_step_of_the_whole_batch(parts):
    trainers = [plain_trainer(linear_network(), accumulate=count) for count in (1, parts)]
    for trainer in trainers:
        for seed in range(3):
            trainer.train_step(*random_batch(7, seed=seed))
        trainer.totals.collect()
    (whole, cut) = trainers
    for first, second in zip(whole.network.parameters(), cut.network.parameters(), strict=True):
        torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-6)
    assert whole.totals.loss == pytest.approx(cut.totals.loss, rel=1e-5)
    assert whole.totals.hits == cut.totals.hits


def test_no_part_of_a_step_is_a_single_image_unless_all_are():
    trainer = plain_trainer(tiny_network(), accumulate=8)  # batch norm of one pixel needs two images
    seen = []
    trainer.network.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    trainer.train_step(*random_batch(17))
    trainer.train_step(*random_batch(5))
    assert seen == [3] + [2] * 7 + [1] * 5


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_gradients_are_clipped_to_a_norm_over_all_parameters(precision):
    network = linear_network()
    before = [parameter.detach().clone() for parameter in network.parameters()]
    trainer = plain_trainer(network, grad_clip=0.01, precision=precision)
    trainer.optimizer = torch.optim.SGD(network.parameters(), 1.0)
    trainer.base_lrs = [1.0]
    trainer.train_step(*random_batch())
    steps = [old - new.detach() for old, new in zip(before, network.parameters(), strict=True)]
    assert torch.cat([step.flatten() for step in steps]).norm() == pytest.approx(0.01, rel=1e-3)


def test_only_the_head_is_trained_for_the_first_steps():
    network = tiny_network()
    network.head = "6"
    trainer = plain_trainer(network, freeze_steps=2)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    for step in range(3):
        trainer.train_step(*random_batch(seed=step))
        state = network.state_dict()
        changed = {name for name in state if not torch.equal(state[name], before[name])}
        assert changed == ({"6.weight", "6.bias"} if step < 2 else set(before))
        evaluate(network, batches_of(*random_batch(), 6), [NORMALISE], "fp32")  # as after an epoch
    assert network[5].training is False
    trainer.train_step(*random_batch())
    assert network[1].training
    assert network[5].training


def test_a_restored_trainer_goes_on_frozen_or_not_to_the_same_bits():
    def build():
        network = tiny_network()
        network.head = "6"
        return make_trainer(network, freeze_steps=4, ema_decay=0.9, accumulate=2, grad_clip=0.5)

    straight, states = build(), {}
    for step in range(8):
        if step in (2, 6):
            states[step] = copy.deepcopy(straight.state_dict())
        straight.train_step(*random_batch(seed=step))
    for start, state in states.items():
        restored = build()
        restored.load_state_dict(state)
        for step in range(start, 8):
            restored.train_step(*random_batch(seed=step))
        assert_same(straight.state_dict(), restored.state_dict())


def test_the_average_follows_the_weights():
    trainer = make_trainer(ema_decay=0.5)
    expected = trainer.network[0].weight.detach().clone()
    for step in range(3):
        trainer.train_step(*random_batch(seed=step))
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * trainer.network[0].weight.detach()
    torch.testing.assert_close(trainer.ema.network[0].weight, expected)


@pytest.mark.parametrize("class_weights", [None, torch.tensor([2.0, 0.5, 1.5])])
def test_a_teacher_is_frozen_in_eval_mode_and_sees_the_mixed_images(class_weights):
    images, labels = random_batch()
    seen = []

    class Watching(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = tiny_network()

        def forward(self, inputs):
            assert not self.training
            assert not torch.is_grad_enabled()
            seen.append(inputs)
            return self.inner(inputs)

    network = Watching()
    before = copy.deepcopy(network.state_dict())
    teacher = Teacher(network, lambda inputs: 2 * inputs, temperature=3.0, weight=0.7)
    student, mixed = tiny_network(), []
    student[5].p = 0.0
    student.register_forward_pre_hook(lambda _, args: mixed.append(args[0]))
    settings = {"mixing": (0.4, 0, 0), "augment": Augment({})}
    smoothed = partial(soft_cross_entropy, smoothing=0.2)
    trainer = make_trainer(student, criterion=Criterion(smoothed, teacher, class_weights), **settings)
    logits = []
    student.register_forward_hook(lambda _, args, output: logits.append(output.detach()))
    trainer.train_step(images, labels)
    assert torch.equal(seen[0], 2 * mixed[0])
    assert not torch.equal(mixed[0], NORMALISE(images))
    assert_same(before, network.state_dict())
    assert all(name in dict(tiny_network().state_dict()) for name in trainer.state_dict()["network"])

    # The loss by hand: cross-entropy of the mixed and smoothed labels, and 0.7 times the distillation; an
    # image counts as the classes of its mixed label do.
    _, targets = trainer.mixing(
        NORMALISE(images), torch.eye(3)[labels], Draws(trainer.seed, 0).of_step("mixing")
    )
    far = distillation(logits[0], network.inner(seen[0]), 3.0)
    trainer.totals.collect()
    losses = -((0.8 * targets + 0.2 / 3) * logits[0].log_softmax(1)).sum(1) + 0.7 * far
    counts = torch.ones(len(images)) if class_weights is None else targets @ class_weights
    assert trainer.totals.loss / len(images) == pytest.approx((counts * losses).mean().item(), rel=1e-5)


def test_a_rare_class_is_learned_beside_the_others():
    """With smoothing too, where it was predicted for all images."""
    labels = torch.tensor([0] * 98 + [1] * 2)
    images = (labels * 200).to(torch.uint8)[:, None, None, None].expand(-1, 3, 4, 4).contiguous()
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 2))
    weights = balanced_class_weights(labels.bincount().float())
    smoothed = partial(soft_cross_entropy, smoothing=0.1)
    settings = {"mixing": (0, 0, 0), "num_classes": 2, "lr_factor": lambda step: 0.1}
    trainer = make_trainer(network, criterion=Criterion(smoothed, class_weights=weights), **settings)
    for _ in range(60):
        trainer.train_step(images, labels)
    assert torch.equal(network(NORMALISE(images)).argmax(1), labels)


def batches_of(images, labels, size):
    return zip(images.split(size), labels.split(size), strict=True)


@pytest.mark.parametrize("batch_size", [1, 4, 10])
def test_evaluation_by_an_independent_count(batch_size):  # top-k broke on some memory orders
    images, labels = random_batch(10)
    network = tiny_network()
    result = evaluate(network, batches_of(images, labels, batch_size), [NORMALISE], "fp32")
    assert not network.training
    with torch.inference_mode():
        logits = network(NORMALISE(images))
    assert result.accuracy == pytest.approx(100 * (logits.argmax(1) == labels).float().mean().item())
    assert result.loss == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)
    np.testing.assert_allclose(result.probabilities, logits.softmax(1).numpy(), rtol=1e-4)
    assert result.labels.tolist() == labels.tolist()


def test_the_probabilities_of_several_views_are_averaged():
    images, labels = random_batch(10)
    network = tiny_network()
    views = [NORMALISE, lambda images: NORMALISE(images.flip(-1))]
    result = evaluate(network, batches_of(images, labels, 4), views, "fp32")
    with torch.inference_mode():
        expected = torch.stack([network(view(images)).softmax(1) for view in views]).mean(0)
    np.testing.assert_allclose(result.probabilities, expected.numpy(), rtol=1e-4)
    assert result.loss == pytest.approx(F.nll_loss(expected.log(), labels).item(), rel=1e-5)


def test_evaluation_changes_nothing_and_needs_no_randomness():
    images, labels = random_batch(10)
    network = tiny_network()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    first, second = (evaluate(network, batches_of(images, labels, 5), [NORMALISE], "fp32") for _ in range(2))
    assert_same(before, network.state_dict())
    assert np.array_equal(first.probabilities, second.probabilities)


def test_two_classes_and_the_confusion_matrix_by_hand():  # top-3 crashed below 3 classes
    probabilities = np.log([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.7, 0.3]])
    result = Evaluation(np.array([0, 0, 1, 1]), probabilities)
    assert result.confusion.counts.tolist() == [[1, 1], [1, 1]]
    assert result.accuracy == 50
    result = Evaluation(np.array([0, 0, 1, 0]), probabilities)
    assert result.confusion.counts.tolist() == [[2, 1], [0, 1]]
    assert result.confusion.recall.tolist() == pytest.approx([200 / 3, 100])
    assert result.loss == pytest.approx(-np.log([0.9, 0.4, 0.8, 0.7]).mean())


@pytest.mark.parametrize("settings", [{}, {"accumulate": 2}, {"grad_clip": 0.1}])
def test_a_step_of_sam_by_hand(settings):
    """w - lr g(w + rho g(w) / |g(w)|), with SGD in its first step; statistics and loss are those at w."""
    images, labels = random_batch()
    rho, plain = 0.5, {"mixing": (0, 0, 0), "augment": Augment({}), **settings}
    network = tiny_network()
    network[5].p = 0.0
    by_hand = copy.deepcopy(network)

    def gradients():
        for index in torch.arange(len(images)).tensor_split(settings.get("accumulate", 1)):
            logits = by_hand(NORMALISE(images[index]))
            (F.cross_entropy(logits, labels[index]) * len(index) / len(images)).backward()
        found = [parameter.grad.clone() for parameter in by_hand.parameters()]
        by_hand.zero_grad()
        return found

    by_hand.train()
    first = gradients()
    statistics = by_hand[1].running_mean.clone()
    length = torch.cat([gradient.flatten() for gradient in first]).norm()
    parameters = [parameter.detach().clone() for parameter in by_hand.parameters()]
    with torch.no_grad():
        for parameter, gradient in zip(by_hand.parameters(), first, strict=True):
            parameter += rho * gradient / length
    second = gradients()
    if "grad_clip" in settings:
        of_all = torch.cat([gradient.flatten() for gradient in second]).norm()
        assert of_all > 0.1
        second = [gradient * 0.1 / of_all for gradient in second]

    trainer = make_trainer(network, sam_rho=rho, **plain)
    trainer.train_step(images, labels)
    lr = trainer.learning_rate
    for ours, before, gradient in zip(network.parameters(), parameters, second, strict=True):
        expected = before - lr * (gradient + 1e-4 * before)
        torch.testing.assert_close(ours.detach(), expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(network[1].running_mean, statistics)
    without = make_trainer(tiny_network(), **plain)
    without.network[5].p = 0.0
    without.train_step(images, labels)
    assert trainer.totals.collect().loss == pytest.approx(without.totals.collect().loss)


@pytest.mark.parametrize("parts", [2, 5])
def test_the_views_of_an_image_stay_together_in_parts_of_a_step(parts):
    images, labels = random_batch(5)

    def trained(accumulate):
        torch.manual_seed(1)
        layers = (nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), Dropout(0.5, 288), nn.Linear(288, 3))
        network, augment = nn.Sequential(*layers), Augment({"augmix": AugMix()})
        criterion = Criterion(CrossEntropy(), views=augment.views)
        trainer = make_trainer(network, augment=augment, criterion=criterion, accumulate=accumulate)
        trainer.train_step(images, labels)
        return [*network.parameters(), torch.tensor(trainer.totals.collect().loss)]

    for whole, cut in zip(trained(1), trained(parts), strict=True):
        torch.testing.assert_close(whole, cut)
