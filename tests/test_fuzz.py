"""Anything at all, from hypothesis: parsed or refused in words, never another exception."""

import argparse
import io
import itertools
import math
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import options
from learning.schedule import lr_factor
from tests.test_trainer import assert_same
from utils.data.decode import Frame, UnreadableImage, decode
from utils.data.folders import find_dataset
from utils.data.layout import SPLIT_NAMES
from utils.errors import UserError
from utils.run.checkpoint import read_checkpoint, save_checkpoint

FLAGS = [flag for action in options.build_parser()._actions for flag in action.option_strings]
CHOICES = [str(choice) for action in options.build_parser()._actions for choice in action.choices or ()]

fuzz = settings(max_examples=200, deadline=None)

words = st.one_of(
    st.sampled_from(FLAGS),
    st.sampled_from([*CHOICES, "0", "1", "0.5", "-1", "nan", "inf", "1e-300", "x", ""]),
    st.builds("{}={}".format, st.sampled_from(FLAGS), st.text(max_size=8)),
    st.floats().map(str),
    st.integers().map(str),
    st.text(),
)


@fuzz
@given(st.lists(words, max_size=12))
def test_any_command_line_is_parsed_or_refused(argv):
    try:
        args = options.parse_args(["--checkpoint_name", "run", *argv])
    except SystemExit as stop:
        refused = stop.code == 2 or "-h" in argv or "--help" in argv
        assert refused
    else:
        assert isinstance(args, argparse.Namespace)
        assert 0 <= args.warmup_epochs < args.epochs or args.resume or args.evaluate


names = st.text(
    st.characters(blacklist_characters="/\0", blacklist_categories=("Cs",)), min_size=1, max_size=8
).filter(lambda name: name not in (".", ".."))
splits = st.sampled_from([".", "top", "seg_train/seg_train", *itertools.chain(*SPLIT_NAMES.values())])
images = st.builds("{}{}".format, names, st.sampled_from([".jpg", ".PNG", ".txt", ""]))
places = st.lists(
    st.tuples(splits, st.one_of(st.sampled_from(["a", "b"]), names), st.lists(images, max_size=3)), max_size=8
)


@fuzz
@given(places)
def test_any_tree_of_folders_is_a_data_set_or_refused(tree):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for split, name, files in tree:
            place = root / split / name
            try:
                place.mkdir(parents=True, exist_ok=True)
                for file in files:
                    (place / file).touch()
            except OSError:
                continue  # a file where a folder should be, or the other way round
        try:
            dataset = find_dataset(root, seed=42)
        except UserError as error:
            named = str(root) in str(error)
            assert named
            return
        indices = np.concatenate([dataset.splits[split] for split in ("train", "val", "test")])
        assert sorted(indices) == list(range(len(dataset.files)))
        assert all((root / file).is_file() for file in dataset.files)
        assert set(dataset.labels[dataset.splits["train"]]) == set(range(len(dataset.classes)))
        assert dataset.identity() == find_dataset(root, seed=42).identity()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A checkpoint's path, bytes and content."""
    path = tmp_path_factory.mktemp("fuzz") / "last.pt"
    save_checkpoint(path, {"network": {"w": torch.arange(100.0)}, "flags": {"mixup": 0.2}, "step": 3})
    return path, path.read_bytes(), read_checkpoint(path)


@fuzz
@given(content=st.binary(max_size=300))
def test_any_bytes_are_no_checkpoint(checkpoint, content):
    path, _, _ = checkpoint
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"last\.pt"):
        read_checkpoint(path)


@fuzz
@given(place=st.integers(min_value=0), change=st.binary(min_size=1, max_size=20), cut=st.booleans())
def test_a_changed_checkpoint_is_refused_or_unharmed(checkpoint, place, change, cut):
    path, whole, content = checkpoint
    place %= len(whole)
    path.write_bytes(whole[:place] + change + (b"" if cut else whole[place + len(change) :]))
    try:
        loaded = read_checkpoint(path)
    except UserError:
        return
    assert_same(loaded, content)


def test_a_tensor_that_is_marked_as_a_folder_is_damage(checkpoint):
    path, whole, _ = checkpoint
    attributes = whole.rindex(b"archive/data/0") - 8  # in the zip's directory
    path.write_bytes(whole[:attributes] + b"\x10" + whole[attributes + 1 :])
    with pytest.raises(UserError, match="damaged"):
        read_checkpoint(path)


@fuzz
@given(
    place=st.integers(min_value=0),
    change=st.binary(max_size=20),
    kind=st.sampled_from(["PNG", "JPEG", "GIF", "TIFF", "WEBP"]),
)
def test_a_changed_image_is_read_or_refused(place, change, kind):
    buffer = io.BytesIO()
    Image.linear_gradient("L").resize((40, 30)).convert("RGB").save(buffer, kind)
    whole = buffer.getvalue()
    place %= len(whole)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "image")
        path.write_bytes(whole[:place] + change + whole[place + len(change) :])
        try:
            assert decode(path, Frame(8)).shape == (8, 8, 3)
        except UnreadableImage as error:
            named = str(path) in str(error)
            assert named


@fuzz
@given(
    steps_per_epoch=st.integers(1, 50),
    epochs=st.integers(1, 40),
    decay_type=st.sampled_from(["step", "step_warmup", "cosine_warmup"]),
    warmup=st.floats(0, 1, exclude_max=True),
    shares=st.lists(st.floats(0, 1, exclude_max=True), max_size=4),
)
def test_any_legal_schedule_stays_between_0_and_1(steps_per_epoch, epochs, decay_type, warmup, shares):
    factors = [
        lr_factor(
            step,
            steps_per_epoch=steps_per_epoch,
            epochs=epochs,
            decay_type=decay_type,
            warmup_epochs=warmup * epochs,
            milestones=sorted(share * epochs for share in shares),
        )
        for step in range(steps_per_epoch * epochs)
    ]
    assert all(math.isfinite(factor) and 0 <= factor <= 1 for factor in factors)
    assert max(factors) > 0
