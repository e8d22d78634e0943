"""learning/tricks.py: each trick changes the run, is told, and gives the same numbers when it is repeated."""

from itertools import islice

import numpy as np
import pytest
import torch

from learning.setup import assemble, make_fit, make_trainer
from learning.tricks import TRICKS as TABLE
from learning.tricks import Built, in_effect
from network import build_network
from options import parse_args
from tests.conftest import ROOT, as_trained, write_images
from utils.run.checkpoint import save_checkpoint

BASE = (
    *("--model", "RegNetX-200MF", "--image_size", "32", "--batch_size", "8", "--precision", "fp32"),
    *("--optimizer", "ADAM", "--learning_rate", "0.001", "--device", "cpu"),
)
SGD = ("--optimizer", "SGD")
COSINE = ("--decay_type", "cosine_warmup")

# The flags of a trick, what it is compared with beside BASE, and how it is told.
TRICKS = [
    (("--decay_type", "step_warmup"), (), "schedule: step_warmup, rises over"),
    (("--warmup_epochs", "1"), COSINE, "schedule: cosine_warmup, rises over 6 steps, ends at 0.0076 of"),
    (COSINE, ("--decay_type", "step_warmup"), "schedule: cosine_warmup"),
    (("--decay_type", "linear_warmup"), COSINE, "schedule: linear_warmup"),
    (("--milestones", "1", "2"), (), "ends at 0.01 of the learning rate"),
    (("--zero_gamma",), (), "zero gamma: in 13 of 13 residual branches"),
    (("--norm", "evonorm"), (), "norm: 44 EvoNormS0"),
    (("--norm", "evonorm_b0"), (), "norm: 44 EvoNormB0"),
    (("--norm", "frozen_batchnorm"), ("--pretrained_path", "WEIGHTS"), "norm: 44 FrozenBatchNormAct"),
    (("--drop_path", "0.3"), (), "drop path: up to 0.3, in 13 residual branches"),
    (("--dropout", "0.3"), (), "dropout: 0.3"),
    (("--label_smooth", "0.1"), (), "label smoothing: 0.1"),
    (("--loss", "focal"), (), "loss: focal loss, gamma 2;"),
    (("--focal_gamma", "3"), ("--loss", "focal"), "focal loss, gamma 3;"),
    (("--loss", "bce"), (), "loss: binary cross-entropy;"),
    (("--label_smooth", "0.1"), ("--loss", "bce"), "label smoothing: 0.1"),
    (("--sam", "0.05"), (), "SAM: rho 0.05"),
    (("--mixup", "0.2"), (), "MixUp: alpha 0.2"),
    (("--cutmix_alpha", "1", "--cutmix_prob", "1"), (), "CutMix: alpha 1, probability 1"),
    (("--mixup", "0.2"), ("--cutmix_alpha", "1", "--cutmix_prob", "1"), "MixUp: alpha 0.2, in half of"),
    (("--cutmix_prob", "1"), ("--cutmix_alpha", "1", "--cutmix_prob", "0"), "CutMix: alpha 1, probability 1"),
    (
        ("--class_weights", "balanced"),
        (),
        "class weights: from 0.767 to 2.56; epochs are chosen by balanced accuracy",
    ),
    (("--randaugment",), (), "RandAugment(n=3, m=15)"),
    (("--randaugment", "--rand_m", "9"), ("--randaugment",), "RandAugment(n=3, m=9)"),
    (("--randaugment", "--rand_n", "1"), ("--randaugment",), "RandAugment(n=1, m=15)"),
    (("--trivial_augment",), (), "TrivialAugment()"),
    (("--augmix",), (), "AugMix()"),
    (("--crop", "center"), (), "CenterCrop(size=32)"),
    (("--crop", "random"), ("--crop", "center"), "RandomResizedCrop(size=32"),
    (("--random_erasing", "0.5"), (), "RandomErasing(p=0.5"),
    (SGD, (), "optimizer: SGD, momentum 0.9, learning rate 0.001, weight decay 0.0001 on 134 tensors"),
    (("--optimizer", "RADAM"), (), "optimizer: RAdam, learning rate 0.001"),
    (("--optimizer", "ADAMW"), (), "optimizer: AdamW, learning rate 0.001"),
    (("--weight_decay", "0.05"), (), "weight decay 0.05 on 134 tensors"),
    (("--nesterov",), SGD, "Nesterov momentum 0.9"),
    (("--no_bias_decay",), (), "decay 0.0001 on 45 tensors, weight decay 0 on 89 tensors"),
    (("--linear_scaling",), (), "learning rate 0.000125"),
    (("--grad_clip", "0.1"), (), "gradient clipping: norm at most 0.1"),
    (("--batch_size", "4", "--accumulate", "2"), (), "accumulation: 2 batches a step"),
    (("--accumulate", "2", "--linear_scaling"), ("--accumulate", "2"), "learning rate 0.00025"),
    (("--freeze_epochs", "1"), ("--pretrained_path", "WEIGHTS"), "freezing: only the last layer for 6 steps"),
    (("--freeze_epochs", "1"), ("--pretrained_path", "WEIGHTS", *SGD), "freezing: only the last layer"),
    (("--teacher", "TEACHER"), (), "distillation: temperature 20, weight 1"),
    (("--teacher", "TEACHER", "--teacher_temperature", "2"), ("--teacher", "TEACHER"), "temperature 2,"),
    (("--teacher", "TEACHER", "--teacher_weight", "0.5"), ("--teacher", "TEACHER"), "weight 0.5"),
    (("--precision", "bf16"), (), "low precision: bf16"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Images of three classes, one of them rare; pretrained weights; and a teacher."""
    root = tmp_path_factory.mktemp("tricks")
    for split in ("train", "test"):
        write_images(root / split, 25, seed=0, classes=("plain", "stripes"))
        write_images(root / split, 8, seed=1, classes=("circle",))
    torch.manual_seed(0)
    network = build_network("RegNetX-200MF", 3)
    for module in network.modules():  # as if it had been trained on other images
        if hasattr(module, "running_var"):
            module.running_var.uniform_(0.5, 2)
    torch.save(network.state_dict(), root / "weights.pth")
    save_checkpoint(root / "teacher.pt", as_trained(network, "RegNetX-200MF"))
    return root


@pytest.fixture(scope="module")
def run(place):
    """Does the first 20 steps of a run and returns their losses and the tricks that are told."""
    known = {}

    def twenty_steps(*flags, again=False):
        if flags in known and not again:
            return known[flags]
        files = {"WEIGHTS": str(place / "weights.pth"), "TEACHER": str(place / "teacher.pt")}
        pretrained = () if "WEIGHTS" in flags else ("--pretrained", "0")
        folders = ("--data_dir", str(place), "--cache_dir", str(place / "cache"))
        flags_given = [files.get(flag, flag) for flag in (*BASE, *pretrained, *flags)]
        args = parse_args(["--checkpoint_name", "x", "--epochs", "4", *folders, *flags_given])
        parts = assemble(args, None, lambda: None)
        trainer = make_trainer(parts)
        fit = make_fit(parts, trainer, place, None)
        told = in_effect(Built(fit, len(parts.classifier.views)))
        told = "\n".join(f"{name}: {strength}" for name, strength in told.items())
        losses = []
        for batch in islice(fit.batches_from(0), 20):
            trainer.train_step(*batch)
            losses.append(trainer.totals.collect().loss)
        known[flags] = losses, told
        return known[flags]

    return twenty_steps


@pytest.mark.parametrize(
    ("trick", "beside", "words"), TRICKS, ids=[" ".join(trick) for trick, _, _ in TRICKS]
)
def test_a_trick_is_in_effect_is_told_and_repeats(run, trick, beside, words):
    losses, told = run(*beside, *trick)
    losses_without, told_without = run(*beside)
    assert losses != losses_without
    assert words in told
    assert words not in told_without
    assert run(*beside, *trick, again=True)[0] == losses


COMPANIONS = (
    *("--mixup", "0.2", "--cutmix_alpha", "1", "--cutmix_prob", "0.5", "--label_smooth", "0.1"),
    *("--class_weights", "balanced", "--teacher", "TEACHER", "--batch_size", "4", "--accumulate", "2"),
    *("--ema", "0.9", "--grad_clip", "1", "--drop_path", "0.2", "--dropout", "0.2", "--crop", "random"),
)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("trick", [("--loss", "focal"), ("--loss", "bce"), ("--augmix",), ("--sam", "0.05")])
def test_a_trick_goes_with_the_others_in_every_precision(run, trick, precision):
    flags = (*COMPANIONS, "--precision", precision)
    losses, _ = run(*flags, *trick)
    without, _ = run(*flags)
    assert np.isfinite(losses).all()
    assert losses != without


def test_nothing_is_told_of_a_plain_run_but_what_every_run_has(run):
    _, told = run()
    assert [line.split(":")[0] for line in told.splitlines()] == [
        *("optimizer", "schedule", "loss", "augmentation"),
    ]
    assert "augmentation: Flip()" in told


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--ema", "0.99"), "average of weights: decay 0.99"),
        (("--early_stop", "2"), "early stopping: after 2 epochs"),
        (("--tta", "flip"), "test-time augmentation: mean of 2 views"),
    ],
)
def test_what_acts_after_the_steps_is_told_and_leaves_them_alone(run, flags, words):
    losses, told = run(*flags)
    plain, told_without = run()
    assert losses == plain
    assert words in told
    assert words not in told_without


def test_examples_are_complete_and_their_files_are_there():
    for trick in TABLE:
        for example in trick.examples:
            parse_args(["--checkpoint_name", "x", *example.flags.split()])
            assert (ROOT / example.where).is_file()


def test_a_flag_is_of_one_trick_and_names_are_told_apart():
    names = [flag.name for trick in TABLE for flag in trick.flags]
    assert len(names) == len(set(names))
    assert len({trick.name for trick in TABLE}) == len(TABLE)
    letters = [trick.letters for trick in TABLE if trick.on_or_off]
    letters += [
        short for trick in TABLE if isinstance(trick.letters, dict) for short in trick.letters.values()
    ]
    assert len(letters) == len(set(letters))
