"""options.py: the ancestor's flags, ranges, and contradictions."""

import argparse
import re
import subprocess
import sys

import pytest

import options
from tests.conftest import ROOT
from utils.errors import UserError
from utils.flags import run_flags

ANCESTOR_DEFAULTS = {
    "model": "ResNet50",
    "norm": "batchnorm",
    "pretrained": 1,
    "pretrained_path": None,
    "zero_gamma": False,
    "num_workers": None,
    "seed": 42,
    "batch_size": 64,
    "epochs": 120,
    "log_interval": 20,
    "evaluate": False,
    "mixup": 0.0,
    "label_smooth": 0.0,
    "cutmix_alpha": 0.0,
    "cutmix_prob": 0.0,
    "randaugment": False,
    "rand_n": 3,
    "rand_m": 15,
    "learning_rate": 0.1,
    "weight_decay": 0.0001,
    "optimizer": "SGD",
    "decay_type": "step",
    # Changed on purpose:
    "num_classes": None,
    "checkpoint_dir": "checkpoint",
}
ANCESTOR_CHOICES = {
    "model": {"ResNet50", "RegNet", "EfficientNet"},
    "norm": {"batchnorm", "evonorm"},
    "optimizer": {"SGD", "ADAM", "RADAM"},
    "decay_type": {"step", "step_warmup", "cosine_warmup"},
}


def parse(*flags: str) -> argparse.Namespace:
    return options.parse_args(["--checkpoint_name", "x", *flags])


def test_the_ancestors_flags_keep_their_defaults():
    args = vars(parse())
    assert {name: args[name] for name in ANCESTOR_DEFAULTS} == ANCESTOR_DEFAULTS


@pytest.mark.parametrize(("flag", "choices"), ANCESTOR_CHOICES.items())
def test_the_ancestors_choices_are_all_there(flag, choices):
    for choice in choices:
        assert getattr(parse(f"--{flag}", choice), flag) == choice


def test_every_flag_has_a_help_text_of_its_own():
    actions = [action for action in options.build_parser()._actions if action.dest != "help"]
    texts = [action.help for action in actions]
    assert all(texts)
    assert len(set(texts)) == len(texts)


def test_help_and_bad_flags_are_answered_without_torch():
    for flags, code in (("--help", 0), ("--epochs 0", 2), ("--checkpoint_name ../x", 2)):
        script = (
            "import sys, main\n"
            f"try: code = main.main({flags.split()})\n"
            "except SystemExit as stop: code = stop.code\n"
            "sys.exit(code if 'torch' not in sys.modules else 99)"
        )
        done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == code, done.stderr


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ("--mixup -1", "--mixup"),
        ("--mixup nan", "--mixup"),
        ("--mixup inf", "--mixup"),
        ("--label_smooth 1.5", "--label_smooth"),
        ("--cutmix_prob 2 --cutmix_alpha 1", "--cutmix_prob"),
        ("--epochs 0", "--epochs"),
        ("--epochs 1.5", "--epochs"),
        ("--batch_size 0", "--batch_size"),
        ("--learning_rate 0", "--learning_rate"),
        ("--seed -1", "--seed"),
        ("--rand_m 31 --randaugment", "--rand_m"),
        ("--norm groupnorm", "--norm"),  # an unknown norm silently meant BatchNorm
        ("--pretrained 3", "--pretrained"),
        ("--pretrained 2 --pretrained_path x.pth", "--pretrained 2"),
        ("--device tpu", "--device"),
        ("--num_classes 1", "--num_classes"),
        ("--no_such_flag", "--no_such_flag"),
        ("--epoch 3", "--epoch"),  # no abbreviations: a flag added later would make them ambiguous
        # Flags that contradict each other or do nothing together:
        ("--cutmix_prob 0.5", "--cutmix_alpha"),
        ("--tta flip --flip none", "--flip none"),
        ("--frame_size 512", "--crop none"),
        ("--frame_size 200 --crop random", "--image_size 256"),
        ("--norm frozen_batchnorm --pretrained 0", "--pretrained 0"),
        ("--cutmix_alpha 1", "--cutmix_prob"),
        ("--freeze_epochs 1 --norm evonorm", "--norm evonorm"),
        ("--early_stop 7 --epochs 8", "--early_stop"),
        ("--early_stop 2 --freeze_epochs 2", "--freeze_epochs"),
        ("--learning_rate nan", "--learning_rate"),
        ("--freeze_epochs 1 --pretrained 0", "--freeze_epochs"),
        ("--freeze_epochs 9 --epochs 8", "--freeze_epochs"),
        ("--nesterov --optimizer ADAM", "--optimizer ADAM"),
        ("--no_bias_decay --weight_decay 0", "--weight_decay 0"),
        ("--randaugment --trivial_augment", "--trivial_augment"),
        ("--teacher_weight 2", "--teacher"),
        ("--focal_gamma 3", "--loss softmax"),
        ("--sam 0", "--sam"),
        ("--model ConvNeXt-Tiny --image_size 31", "--image_size 31"),
        ("--augmix --randaugment", "--augmix"),
        ("--model ConvNeXt-Tiny --norm evonorm", "--model ConvNeXt-Tiny"),
        ("--model ConvNeXt-Tiny --zero_gamma", "--model ConvNeXt-Tiny"),
        ("--ema 1", "--ema"),
        ("--dropout 1", "--dropout"),
        ("--drop_path -0.1", "--drop_path"),
        ("--random_erasing 1.1", "--random_erasing"),
        ("--grad_clip 0", "--grad_clip"),
        ("--accumulate 0", "--accumulate"),
        ("--rand_m 9", "--randaugment"),
        ("--rand_n 2", "--randaugment"),
        ("--warmup_epochs 2", "--decay_type"),
        ("--decay_type cosine_warmup --milestones 3 4", "--milestones"),
        ("--decay_type step_warmup --epochs 5 --warmup_epochs 5", "--warmup_epochs"),
        ("--milestones 90 60", "--milestones"),
        ("--epochs 3 --milestones 5", "--milestones"),
        ("--pretrained 0 --pretrained_path x.pth", "--pretrained_path"),
        ("--resume --overwrite", "--resume"),
    ],
)
def test_bad_flags_are_refused_in_one_line_with_exit_2(flags, named, capsys):
    with pytest.raises(SystemExit) as stop:
        parse(*flags.split())
    assert stop.value.code == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert named in message


def test_a_run_needs_a_name(capsys):
    with pytest.raises(SystemExit) as stop:
        options.parse_args([])
    assert stop.value.code == 2
    assert "--checkpoint_name" in capsys.readouterr().err


def test_the_schedule_scales_with_the_epochs():
    assert parse().milestones == [30, 60, 90]
    assert parse().warmup_epochs == 5
    short = parse("--epochs", "8", "--decay_type", "step_warmup")
    assert short.milestones == [2, 4, 6]
    assert short.warmup_epochs == 0.8
    assert parse("--milestones", "7", "9").milestones == [7, 9]


def test_the_demo_sets_sizes_that_flags_override():
    demo = options.parse_args(["--demo"])
    assert (demo.checkpoint_name, demo.model, demo.pretrained) == ("demo", "ResNet18", 0)
    assert options.parse_args(["--demo", "--epochs", "1"]).epochs == 1


def test_a_run_goes_on_with_its_own_flags():
    stored = run_flags(parse("--epochs", "7", "--mixup", "0.2", "--num_workers", "1"))
    args = options.with_flags_of_run(parse("--resume", "--num_workers", "2", "--mixup", "0.2"), stored, "x")
    assert (args.epochs, args.mixup, args.num_workers, args.resume) == (7, 0.2, 2, True)


def test_flags_that_would_change_a_run_are_named():
    stored = run_flags(parse("--epochs", "7"))
    with pytest.raises(UserError, match=r"--epochs 8 \(the run has 7\), --mixup 0.2 \(the run has 0.0\)"):
        options.with_flags_of_run(parse("--resume", "--epochs", "8", "--mixup", "0.2"), stored, "x")


STEP = ("--decay_type", "step_warmup", "--epochs", "10")


@pytest.mark.parametrize(
    ("before", "flags", "words"),
    [
        (STEP, ("--epochs", "20"), "give --milestones 2.5 5 7.5 --warmup_epochs 1 too"),
        (STEP, ("--epochs", "20", "--milestones", "2.5", "5", "7.5"), "--warmup_epochs 1 too"),
        (STEP, ("--epochs", "5"), "can be made longer only"),
        (("--epochs", "10"), ("--epochs", "20"), "give --milestones 2.5 5 7.5 too"),
        (
            ("--decay_type", "cosine_warmup", "--epochs", "10"),
            ("--epochs", "20"),
            "by --decay_type cosine_warmup",
        ),
    ],
)
def test_a_run_that_cannot_be_made_longer_so_says_why(before, flags, words):
    stored = run_flags(parse(*before))
    kind = ("--decay_type", stored["decay_type"])
    with pytest.raises(UserError, match=re.escape(words)):
        options.with_flags_of_run(parse("--resume", *kind, *flags), stored, "x")


def test_a_run_is_made_longer_where_the_rest_stays():
    stored = run_flags(parse(*STEP))
    flags = ("--epochs", "20", "--milestones", "2.5", "5", "7.5", "--warmup_epochs", "1")
    same = parse(*STEP, *flags)
    args = options.with_flags_of_run(parse("--resume", *STEP, *flags), stored, "x")
    assert run_flags(args) | {"resume": False} == run_flags(same)


@pytest.mark.parametrize("recipe", options.RECIPES)
def test_a_recipe_is_its_flags(recipe):
    flags = [word for name, value in options.RECIPES[recipe].items() for word in (f"--{name}", str(value))]
    by_hand, by_name = parse(*flags), parse("--recipe", recipe)
    assert run_flags(by_name) | {"recipe": None} == run_flags(by_hand)
    assert set(by_hand.given) | {"recipe"} == set(by_name.given)


def test_each_flag_of_a_recipe_can_be_given():
    args = parse("--recipe", "finetune", "--epochs", "3", "--learning_rate", "0.01")
    assert (args.epochs, args.learning_rate, args.optimizer) == (3, 0.01, "ADAM")
    other = parse("--recipe", "finetune", "--optimizer", "SGD")
    assert other.learning_rate == parse("--optimizer", "SGD").learning_rate
    assert other.norm == "frozen_batchnorm"
    without = parse("--recipe", "finetune", "--model", "ConvNeXt-Tiny")  # which has no batch norm
    assert "--norm" not in options.recipe(without)
    assert options.contradiction(without) is None
    assert "--epochs" not in options.recipe(args)
    assert "--optimizer ADAM" in options.recipe(args)
    assert options.recipe(parse("--recipe", "baseline")) == "baseline: no flags"


def test_recipes_say_where_weights_come_from():
    assert parse("--recipe", "scratch").pretrained == 0
    assert options.parse_args(["--demo", "--recipe", "finetune"]).pretrained == 1
    assert parse("--recipe", "finetune", "--optimizer", "adam").learning_rate == 1e-3
    with pytest.raises(SystemExit):
        parse("--recipe", "finetune", "--pretrained", "0")


def test_a_recipe_that_would_change_a_run_is_refused():
    stored = run_flags(parse("--epochs", "7"))
    with pytest.raises(UserError, match="--optimizer ADAM"):
        options.with_flags_of_run(parse("--resume", "--recipe", "finetune", "--epochs", "7"), stored, "x")


def test_the_baseline_from_pretrained_weights_is_allowed_and_said_to_be_unwise():
    (warning,) = options.unwise(parse())
    assert "SGD with --learning_rate 0.1" in warning
    assert options.unwise(parse("--pretrained", "0")) == []
    assert options.unwise(parse("--recipe", "finetune")) == []
    assert options.unwise(parse("--learning_rate", "0.001")) == []


def test_a_run_older_than_a_flag_has_the_flags_default():
    stored = run_flags(parse("--epochs", "7"))
    del stored["ema"], stored["crop"]
    args = options.with_flags_of_run(parse("--resume"), stored, "x")
    assert (args.epochs, args.ema, args.crop) == (7, None, "none")
    args = options.with_flags_of_run(parse("--resume", "--crop", "none"), stored, "x")
    assert args.crop == "none"
    with pytest.raises(UserError, match=r"--crop center \(the run has none\)"):
        options.with_flags_of_run(parse("--resume", "--crop", "center"), stored, "x")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--epoch", "3"], "unrecognized arguments: --epoch 3; did you mean --epochs?"),
        (["--batch-size=8"], "unrecognized arguments: --batch-size=8; did you mean --batch_size?"),
        (["-epochs", "3"], "did you mean --epochs?"),
        (["--xyz"], "unrecognized arguments: --xyz (--help lists all flags)"),
        (["--labelsmooth", "0.1", "--zerogamma"], "did you mean --label_smooth --zero_gamma?"),
        (["--mixup", "--nonsense--"], "expected one argument (--help"),
    ],
)
def test_a_flag_that_is_nearly_one_is_guessed(argv, words, capsys):
    with pytest.raises(SystemExit):
        options.parse_args(["--checkpoint_name", "x", *argv])
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert words in err


def test_names_are_taken_in_any_case():
    argv = ["--model", "resnet18", "--optimizer", "radam", "--decay_type", "COSINE_WARMUP", "--cache", "Ram"]
    args = options.parse_args(["--checkpoint_name", "x", *argv])
    found = (args.model, args.optimizer, args.decay_type, args.cache)
    assert found == ("ResNet18", "RADAM", "cosine_warmup", "ram")
    assert options.parse_args(["--checkpoint_name", "x", "--model", "regnetY-1.6gf"]).model == "RegNetY-1.6GF"
