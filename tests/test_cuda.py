"""What only a GPU can show; skipped without one: python -m pytest tests/test_cuda.py"""

import pytest
import torch

from learning.setup import assemble, make_fit, make_trainer
from options import parse_args
from tests.conftest import SMALL
from tests.test_trainer import assert_same

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

TRICKS = (
    *("--randaugment", "--mixup", "0.2", "--cutmix_alpha", "1", "--cutmix_prob", "1", "--crop", "random"),
    *("--random_erasing", "0.5", "--ema", "0.9", "--label_smooth", "0.1", "--optimizer", "ADAM"),
)


def load(path):
    content = torch.load(path, weights_only=True, map_location="cpu")
    del content["flags"]
    return content


def test_deterministic_runs_have_the_same_bits(program):
    for name in ("first", "second"):
        assert program(name, *SMALL, *TRICKS, "--device", "cuda", "--deterministic") == 0
    assert_same(*(load(program.run(name) / "last.pt") for name in ("first", "second")))


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_every_precision_trains(program, precision):
    assert program("run", *SMALL, "--device", "cuda", "--precision", precision) == 0


def test_a_step_does_not_make_the_host_wait(program, tmp_path):
    flags = program.arguments("x", *SMALL, *TRICKS, "--device", "cuda", "--precision", "bf16")
    parts = assemble(parse_args(flags), None, lambda: None)
    trainer = make_trainer(parts)
    batches = make_fit(parts, trainer, tmp_path, {}, None).batches_from(0)
    trainer.train_step(*next(batches))
    images, labels = next(batches)
    torch.cuda.set_sync_debug_mode("error")
    try:
        trainer.train_step(images, labels)
    finally:
        torch.cuda.set_sync_debug_mode("default")
