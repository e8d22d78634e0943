"""learning/setup.py: what the flags of a run are made into."""

import pytest
import torch

from learning.augment import Normalise
from learning.setup import assemble, make_trainer
from options import parse_args
from tests.conftest import SMALL, as_trained, write_images
from utils.errors import UserError
from utils.run.checkpoint import save_checkpoint


@pytest.fixture
def parts_of(tmp_path):
    """Assembles a run on three classes, of which the second is rare."""
    for split in ("train", "test"):
        write_images(tmp_path / split, 20, seed=0, classes=("circle", "stripes"))
        write_images(tmp_path / split, 5, seed=1, classes=("plain",))
    folders = ("--data_dir", str(tmp_path), "--cache_dir", str(tmp_path / "cache"))

    def assembled(*flags):
        args = parse_args(["--checkpoint_name", "x", *folders, *SMALL, *flags])
        return assemble(args, None, lambda: None)

    return assembled


def images_of(parts):
    return next(iter(parts.loader([parts.dataset.splits["test"][:4]])))[0]


def test_evaluation_sees_the_middle_of_images_that_are_stored_larger(parts_of):
    parts = parts_of("--crop", "random")
    images = images_of(parts)
    assert images.shape[2:] == (37, 37)  # 8/7 of 32
    (view,) = parts.classifier.views
    assert torch.equal(view(images), parts.classifier.normalise(images[:, :, 2:34, 2:34]))
    whole = parts_of()
    assert torch.equal(
        whole.classifier.views[0](images_of(whole)), whole.classifier.normalise(images_of(whole))
    )


def test_the_second_view_is_the_mirror_image(parts_of):
    parts = parts_of("--tta", "flip")
    images = images_of(parts)
    first, second = parts.classifier.views
    assert torch.equal(second(images), first(images.flip(-1)))
    assert not torch.equal(second(images), first(images))


def test_the_rare_class_weighs_more(parts_of):
    trainer = make_trainer(parts_of("--class_weights", "balanced"))
    # 36 training images: 16, 4 and 16 of the classes circle, plain and stripes.
    assert trainer.criterion.class_weights.tolist() == pytest.approx([0.75, 3.0, 0.75])


def test_linear_scaling_counts_all_batches_of_a_step(parts_of):
    trainer = make_trainer(parts_of("--linear_scaling", "--accumulate", "3"))
    assert trainer.base_lrs == [pytest.approx(0.01 * 16 * 3 / 64)]


def test_a_teacher_gets_the_inputs_that_it_expects(parts_of, tmp_path):
    plain = parts_of()
    mean, std = [0.1, 0.2, 0.3], [0.4, 0.5, 0.6]
    trained = as_trained(plain.classifier.network, "RegNetX-200MF", normalisation=[mean, std])
    save_checkpoint(tmp_path / "teacher.pt", trained)
    parts = parts_of("--teacher", str(tmp_path / "teacher.pt"))
    images = images_of(parts)
    theirs = Normalise(mean, std, torch.device("cpu"))(images)
    torch.testing.assert_close(
        parts.teacher.to_input(parts.classifier.normalise(images)), theirs, rtol=1e-4, atol=1e-4
    )
    assert make_trainer(parts).criterion.teacher is parts.teacher


def losses_of(trainer, parts):
    losses = []
    for batch in parts.loader([parts.dataset.splits["train"][::2]] * 2):
        trainer.train_step(*batch)
        losses.append(trainer.totals.collect().loss / len(batch[0]))
    return losses


@pytest.mark.slow
def test_compiled_steps_have_the_same_losses(parts_of):
    plain, compiled = (
        parts_of("--precision", "fp32", "--learning_rate", "0.001", *flags) for flags in ((), ("--compile",))
    )
    expected = losses_of(make_trainer(plain), plain)  # of two steps: rounding grows with each
    assert abs(expected[0] - expected[1]) > 0.01
    assert losses_of(make_trainer(compiled), compiled) == pytest.approx(expected, rel=1e-3)
    assert compiled.classifier.network.state_dict().keys() == plain.classifier.network.state_dict().keys()


def test_a_machine_that_cannot_compile_is_told(parts_of, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match="C\\+\\+ compiler"):
        parts_of("--compile")
