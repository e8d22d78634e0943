"""What flags become: the objects that a run is made of, and what each split is used for."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from learning.augment import Flip, RandomErasing, VerticalFlip
from learning.crop import RandomResizedCrop
from learning.mixing import Mixing
from learning.randaugment import RandAugment, TrivialAugment
from learning.setup import assemble, make_fit, make_trainer
from options import parse_args
from tests.conftest import SMALL, write_images
from utils.run.randomness import Draws


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Three classes in other proportions in each split; 65 training images."""
    root = tmp_path_factory.mktemp("wiring")
    for split, counts in {"train": (40, 20, 5), "val": (6, 7, 8), "test": (3, 30, 12)}.items():
        for seed, (name, count) in enumerate(zip(("circle", "plain", "stripes"), counts, strict=True)):
            write_images(root / split, count, seed=10 * seed + len(split), classes=(name,))
    return root


@pytest.fixture(scope="module")
def built(place):
    """The parts, the trainer and the epochs of a run."""

    def build(*flags):
        folders = ("--data_dir", str(place), "--cache_dir", str(place / "cache"))
        args = parse_args(["--checkpoint_name", "x", *folders, *SMALL, *flags])
        parts = assemble(args, None, lambda: None)
        trainer = make_trainer(parts)
        return parts, trainer, make_fit(parts, trainer, place, None)

    return build


def transforms(parts, trainer, fit):
    return list(trainer.augment.transforms.items())


def groups(parts, trainer, fit):
    """Of each parameter group the learning rate, the weight decay, and how many tensors are in it."""
    optimizer = trainer.optimizer
    assert trainer.base_lrs == [group["lr"] for group in optimizer.param_groups]
    found = [(group["lr"], group["weight_decay"], len(group["params"])) for group in optimizer.param_groups]
    return type(optimizer).__name__, found


def smoothing(parts, trainer, fit):
    logits, targets = torch.tensor([[2.0, -1.0, 0.5]]), torch.eye(3)[:1]
    expected = {
        share: F.cross_entropy(logits, targets, label_smoothing=share).item() for share in (0, 0.1, 0.3)
    }
    (share,) = (s for s, loss in expected.items() if trainer.criterion.loss(logits, targets).item() == loss)
    return share


def schedule(parts, trainer, fit):
    return [round(trainer.lr_factor(step), 4) for step in range(10)]


def of(owner, name):
    return lambda parts, trainer, fit: getattr({"parts": parts, "trainer": trainer, "fit": fit}[owner], name)


MEAN = (124, 116, 104)  # of ImageNet, in levels
WIRING = [
    # flags, what is looked at, and what it is; a batch has 16 images and an epoch 5 steps
    ((), transforms, [("flip", Flip())]),
    (("--flip", "none"), transforms, []),
    (("--flip", "both"), transforms, [("flip", Flip()), ("vertical_flip", VerticalFlip())]),
    (
        ("--crop", "random", "--flip", "both", "--randaugment", "--random_erasing", "0.3"),
        transforms,
        [
            ("crop", RandomResizedCrop(32)),
            ("flip", Flip()),
            ("vertical_flip", VerticalFlip()),
            ("randaugment", RandAugment(3, 15)),
            ("random_erasing", RandomErasing(0.3, MEAN)),
        ],
    ),
    (
        ("--randaugment", "--rand_n", "1", "--rand_m", "9"),
        transforms,
        [("flip", Flip()), ("randaugment", RandAugment(1, 9))],
    ),
    (("--trivial_augment",), transforms, [("flip", Flip()), ("trivial_augment", TrivialAugment())]),
    ((), of("trainer", "mixing"), Mixing(0, 0, 0)),
    (
        ("--mixup", "0.2", "--cutmix_alpha", "0.7", "--cutmix_prob", "0.4"),
        of("trainer", "mixing"),
        Mixing(0.2, 0.7, 0.4),
    ),
    ((), groups, ("SGD", [(0.01, 1e-4, 134)])),
    (("--optimizer", "ADAM"), groups, ("Adam", [(0.01, 1e-4, 134)])),
    (("--optimizer", "ADAMW"), groups, ("AdamW", [(0.01, 0.05, 134)])),
    (("--optimizer", "RADAM", "--weight_decay", "0.2"), groups, ("RAdam", [(0.01, 0.2, 134)])),
    (("--no_bias_decay",), groups, ("SGD", [(0.01, 1e-4, 45), (0.01, 0, 89)])),
    (("--linear_scaling",), groups, ("SGD", [(0.01 * 16 / 64, 1e-4, 134)])),
    (("--linear_scaling", "--accumulate", "3"), groups, ("SGD", [(0.01 * 48 / 64, 1e-4, 134)])),
    ((), smoothing, 0),
    (("--label_smooth", "0.1"), smoothing, 0.1),
    ((), of("parts", "steps_per_epoch"), 5),
    (("--accumulate", "2"), of("parts", "steps_per_epoch"), 3),
    (("--accumulate", "2"), of("fit", "steps_per_epoch"), 3),
    (("--accumulate", "2"), of("trainer", "accumulate"), 2),
    ((), schedule, [1] * 2 + [0.1] * 3 + [0.01] * 3 + [0.001] * 2),  # 25, 50 and 75 % of 10 steps
    (("--milestones", "1"), schedule, [1] * 5 + [0.1] * 5),
    (
        ("--decay_type", "step_warmup", "--warmup_epochs", "0.4", "--milestones", "1"),
        schedule,
        [0.5] + [1] * 4 + [0.1] * 5,
    ),
    (
        ("--decay_type", "cosine_warmup", "--warmup_epochs", "0"),
        schedule,
        [round((1 + np.cos(np.pi * step / 10)) / 2, 4) for step in range(10)],
    ),
    ((), of("trainer", "ema"), None),
    (("--log_interval", "7"), lambda parts, trainer, fit: trainer.norm_interval, 7),
    (("--ema", "0.9"), lambda parts, trainer, fit: trainer.ema.decay, 0.9),
    ((), of("trainer", "grad_clip"), None),
    (("--grad_clip", "2"), of("trainer", "grad_clip"), 2),
    ((), of("trainer", "freeze_steps"), 0),
    (("--seed", "7"), of("trainer", "seed"), 7),
    (("--precision", "bf16"), of("trainer", "precision"), "bf16"),
    ((), lambda parts, trainer, fit: trainer.criterion.class_weights, None),
    ((), of("fit", "accuracies"), ("accuracy",)),
    (("--class_weights", "balanced"), of("fit", "accuracies"), ("accuracy", "balanced_accuracy")),
    ((), of("fit", "patience"), None),
    (("--epochs", "9", "--early_stop", "4"), of("fit", "patience"), 4),
    (("--epochs", "9"), of("fit", "epochs"), 9),
    (("--log_interval", "3"), of("fit", "log_interval"), 3),
    ((), lambda parts, trainer, fit: len(parts.classifier.views), 1),
    (("--tta", "flip"), lambda parts, trainer, fit: len(parts.classifier.views), 2),
]


@pytest.mark.parametrize(
    ("flags", "look", "expected"),
    WIRING,
    ids=[f"{number} {' '.join(row[0])}" for number, row in enumerate(WIRING)],
)
def test_what_flags_become(built, flags, look, expected):
    assert look(*built(*flags)) == expected


def test_each_optimizer_has_a_learning_rate_and_a_weight_decay_of_its_own():
    found = {}
    for name in ("SGD", "ADAM", "ADAMW", "RADAM"):
        args = parse_args(["--checkpoint_name", "x", "--optimizer", name])
        found[name] = args.learning_rate, args.weight_decay
    assert found == {"SGD": (0.1, 1e-4), "ADAM": (1e-3, 1e-4), "ADAMW": (1e-3, 0.05), "RADAM": (1e-3, 1e-4)}
    given = parse_args(["--checkpoint_name", "x", "--optimizer", "ADAMW", "--weight_decay", "0"])
    assert (given.learning_rate, given.weight_decay) == (1e-3, 0)


def test_class_weights_count_the_training_images_alone(built):
    _, trainer, _ = built("--class_weights", "balanced")
    assert trainer.criterion.class_weights.tolist() == pytest.approx(
        [65 / (3 * count) for count in (40, 20, 5)]
    )


def test_epochs_are_chosen_on_the_validation_images_and_the_test_images_are_tested(built):
    parts, trainer, fit = built()
    labels, splits = parts.dataset.labels, parts.dataset.splits
    assert [len(splits[name]) for name in ("train", "val", "test")] == [65, 21, 45]
    assert np.array_equal(fit.validate(trainer.network).labels, labels[splits["val"]])
    assert np.array_equal(parts.evaluate(trainer.network, "test").labels, labels[splits["test"]])


def test_each_training_image_is_trained_on_once_an_epoch_and_no_other(built):
    parts, _, fit = built()
    stored = parts.loader.source.pixels[parts.loader.source.places]
    seen = []
    for number, (images, labels, aspects) in enumerate(fit.batches_from(0)):
        assert np.array_equal(aspects, np.ones(len(images)))
        for image, label in zip(images.permute(0, 2, 3, 1).numpy(), labels.tolist(), strict=True):
            (index,) = np.flatnonzero((stored == image).all((1, 2, 3)))
            assert parts.dataset.labels[index] == label
            seen.append(index)
        if number == 4:
            first = list(seen)
    assert sorted(first) == parts.dataset.splits["train"].tolist()
    assert sorted(seen) == sorted(2 * first)
    assert seen[65:] != first  # another order


@pytest.fixture(scope="module")
def shaped(tmp_path_factory):
    """Images of one colour each, by which they are known, and of many shapes."""
    root, rng = tmp_path_factory.mktemp("shaped"), np.random.default_rng(0)
    for split, count in (("train", 20), ("test", 3)):
        for label, name in enumerate(("a", "b")):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                width, height = rng.integers(20, 90, 2)
                image = Image.new("RGB", (width, height), (10 * number, 100 * label, 50 * (split == "test")))
                image.save(root / split / name / f"{number:02d}.png")
    return root


def test_random_crops_are_of_squeezed_training_images_in_their_own_proportions(shaped, monkeypatch, capsys):
    folders = ("--data_dir", str(shaped), "--cache_dir", str(shaped / "cache"))
    flags = ("--crop", "random", "--cache", "disk")
    args = parse_args(["--checkpoint_name", "x", *folders, *SMALL, *flags])
    parts = assemble(args, None, lambda: None)
    trainer = make_trainer(parts)
    log = SimpleNamespace(images=lambda pixels, labels: None, interval=lambda *values: None)
    fit = make_fit(parts, trainer, shaped, log)
    assert parts.loader.source.pixels.shape == (46, 37, 37, 3)  # 8/7 of 32
    assert parts.training_loader.source.pixels.shape == (40, 64, 64, 3)  # twice 32, of training images alone
    assert "crops    from 40 images squeezed to 64 x 64 pixels\n" in capsys.readouterr().out
    seen = []
    draw = trainer.augment.draw

    def note(draws, shape):
        seen.append(shape)
        return draw(draws, shape)

    monkeypatch.setattr(trainer.augment, "draw", note)
    expected = []
    for images, labels, aspects in fit.batches_from(0):
        for image, label, aspect in zip(images, labels.tolist(), aspects, strict=True):
            number = round(image[0].float().mean().item() / 10)
            with Image.open(shaped / "train" / "ab"[label] / f"{number:02d}.png") as file:
                assert aspect == file.width / file.height
            assert image[1].float().mean() == 100 * label
        expected.append(aspects)
    fit._train_to_end_of_epoch(fit.batches_from(0))
    assert all(
        np.array_equal(shape.aspects, aspects) for shape, aspects in zip(seen[1:], expected, strict=False)
    )
    assert np.array_equal(seen[0].aspects, expected[0])  # of the picture of augmented images
    assert len(seen) == 1 + parts.steps_per_epoch


def test_frames_for_random_crops_are_resized_finely_and_as_large_as_told(place):
    def frames(*flags):
        folders = ("--data_dir", str(place), "--cache", "ram")
        args = parse_args(["--checkpoint_name", "x", *folders, *SMALL, "--crop", *flags])
        parts = assemble(args, None, lambda: None)
        return parts, parts.training_loader.source.pixels

    parts, pixels = frames("random", "--frame_size", "50")
    with Image.open(place / parts.dataset.files[0]) as file:
        expected = np.asarray(file.convert("RGB").resize((50, 50), Image.Resampling.BICUBIC))
    assert np.array_equal(pixels[0], expected)
    parts, _ = frames("center")
    assert parts.training_loader is parts.loader


def drawn_at(step, trainer):
    """What a step draws for a batch of eight images: of augmentation, of random layers, and of mixing."""
    images = torch.zeros(8, 3, 32, 32, dtype=torch.uint8)
    seen = {}
    augment = trainer.augment.draw

    def note(draws, shape):
        seen["augmentation"] = augment(draws, shape)
        return seen["augmentation"]

    trainer.augment.draw = note
    mixing = trainer.mixing
    trainer.mixing = lambda pixels, targets, rng: (seen.update(mixing=rng.random(4)), (pixels, targets))[1]
    backward = trainer._backward

    def note_factors(part, pixels, targets, factors):
        seen["layers"] = factors
        return backward(part, pixels, targets, factors)

    trainer._backward = note_factors
    trainer.step = step
    trainer.train_step(images, torch.zeros(8, dtype=torch.int64))
    trainer.augment.draw, trainer.mixing, trainer._backward = augment, mixing, backward
    return seen


def alike(first, second) -> bool:
    found, _ = torch.utils._pytree.tree_flatten(first)
    others, _ = torch.utils._pytree.tree_flatten(second)
    return len(found) == len(others) and all(map(np.array_equal, found, others))


def test_every_kind_of_draw_is_another_at_the_next_step_and_with_another_seed_and_repeats(built):
    shares = ("--random_erasing", "0.5", "--mixup", "0.2", "--drop_path", "0.5", "--dropout", "0.5")
    flags = ("--randaugment", *shares)
    _, trainer, _ = built(*flags)
    _, other, _ = built(*flags, "--seed", "7")
    first, second, again = (drawn_at(step, trainer) for step in (3, 4, 3))
    of_another = drawn_at(3, other)
    assert first.keys() == {"augmentation", "layers", "mixing"}
    for kind in first:
        assert alike(first[kind], again[kind]), kind
        assert not alike(first[kind], second[kind]), kind
        assert not alike(first[kind], of_another[kind]), kind


def test_what_random_layers_drop_depends_on_an_images_place_in_the_whole_batch(built):
    """Not on the batches that accumulation makes of it."""
    flags = ("--drop_path", "0.5", "--dropout", "0.5")
    _, whole, _ = built(*flags)
    _, parts, _ = built(*flags, "--accumulate", "4")
    assert alike(drawn_at(2, whole)["layers"], drawn_at(2, parts)["layers"])
    fewer = whole._draw_layers(Draws(whole.seed, 2), 3)
    for few, all_of_them in zip(fewer, drawn_at(2, whole)["layers"], strict=True):
        assert np.array_equal(few, all_of_them[:3])
    seen = []
    for layer in parts.random_layers:
        layer.register_forward_pre_hook(lambda module, args: seen.append((module, module.factors.clone())))
    expected = drawn_at(5, parts)["layers"]
    for layer, factors in zip(parts.random_layers, expected, strict=True):
        used = torch.cat([found for module, found in seen if module is layer])
        assert torch.equal(used, factors)
        assert layer.factors is None  # so that nothing is used twice


def test_no_two_random_layers_drop_the_same(built):
    _, trainer, _ = built("--drop_path", "0.5", "--dropout", "0.5")
    layers = trainer._draw_layers(Draws(1, 2), 64)
    dropped = [factors.reshape(64, -1)[:, 0] == 0 for factors in layers]
    assert len({tuple(images) for images in dropped}) == len(dropped) > 5
