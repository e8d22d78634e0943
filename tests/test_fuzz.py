"""Anything at all, from hypothesis: parsed or refused in words, never another exception."""

import argparse
import io
import itertools
import math
import re
import shlex
import struct
import tempfile
import unicodedata
import zlib
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
from utils.batch import read_list
from utils.data.decode import Frame, UnreadableImage, decode
from utils.data.folders import find_dataset
from utils.data.layout import SPLIT_NAMES, is_foreign
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


@st.composite
def list_lines(draw):
    """A line of a list of experiments, and its words if it is plain."""
    bare = st.text("abcxyz019-_=./#,(", min_size=1, max_size=6)
    quoted = st.text("ab #'\"\\\t\u00a0", max_size=6)
    words, line = [], draw(st.sampled_from(["", " ", "\t"]))
    for number in range(draw(st.integers(0, 4))):
        if number == 0 or draw(st.booleans()):
            word = draw(bare.filter(lambda word: word[0] not in "#-"))
            words, line = [*words, word], line + word
        else:
            word = draw(quoted)
            words, line = [*words, word], line + shlex.quote(word)
        line += draw(st.sampled_from([" ", "\t", "  "]))
    if draw(st.booleans()):
        line += "#" + draw(st.text("ab#'\" \\", max_size=8))
    return line, words


@fuzz
@given(st.lists(list_lines(), max_size=5), st.sampled_from(["\n", "\r\n", "\r"]), st.booleans())
def test_a_plain_list_is_what_was_written(lines, end, mark):
    expected = {}
    for number, (line, words) in enumerate(lines):
        if words:
            words[0] = f"run{number}{words[0]}"
            lines[number] = (line.replace(words[0].removeprefix(f"run{number}"), words[0], 1), words)
            expected[words[0]] = words[1:]
    text = "\ufeff" * mark + end.join(line for line, _ in lines)
    if not expected:
        with pytest.raises(UserError, match="no experiments"):
            read_list(text)
        return
    assert read_list(text) == expected


@fuzz
@given(st.text(st.one_of(st.characters(), st.sampled_from(" \t#'\"\\\n-a")), max_size=30))
def test_of_any_list_each_word_is_used_or_told(text):
    """A reader of another make: words between spaces and tabs, where there are no quotes."""
    try:
        found = read_list(text)
    except UserError as error:
        named = "list" in str(error)
        assert named
        return
    for name in found:
        assert name.isprintable()
        assert not name.startswith("-")
        assert " " not in name
    if not set(text) & set("'\"\\"):
        lines = [line.split() for line in re.split(r"\r\n|\r|\n", text.removeprefix("\ufeff"))]
        lines = [line[: next((n for n, word in enumerate(line) if word[0] == "#"), None)] for line in lines]
        assert found == {line[0]: line[1:] for line in lines if line}


splits = st.sampled_from([".", "top", "seg_train/seg_train", *itertools.chain(*SPLIT_NAMES.values())])
odd = st.sampled_from(
    [".a", "._a", "@eaDir", "__MACOSX", "A", "a ", "\u00e4", "a\u0308", "#recycle", "e.jpg"]
)
images = st.builds(
    "{}{}".format, st.one_of(names, odd), st.sampled_from([".jpg", ".PNG", ".jfif", ".heic", ".txt", ""])
)
places = st.lists(
    st.tuples(splits, st.one_of(st.sampled_from(["a", "b"]), odd, names), st.lists(images, max_size=3)),
    max_size=8,
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
        known = {unicodedata.normalize("NFC", path.name) for path in root.rglob("*") if path.is_dir()}
        assert {*dataset.classes} <= known
        assert_all_is_used_or_told(root, dataset)


def assert_all_is_used_or_told(root, dataset):
    """Every file is in the data set, or counted in a note; what is hidden is never in it."""
    files = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    hidden = {name for name in files if any(map(is_foreign, Path(name).parts))}
    assert not hidden & {*dataset.files}
    notes = "\n".join(dataset.notes)
    unused = [int(n) for n in re.findall(r"not used, since in no folder of a class: (\d+) image", notes)]
    others = [int(n) for n in re.findall(r"(\d+) files? not taken for images", notes)]
    assert len(dataset.files) + sum(unused) + sum(others) + len(hidden) == len(files)
    assert bool(hidden) <= ("never looked into" in notes)


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


KINDS = {"PNG": "", "JPEG": "", "GIF": "", "TIFF": "", "WEBP": "", "JPEG2000": ".jp2", "TGA": ".tga"}
KINDS |= {"BMP": "", "PPM": "", "DDS": "", "SGI": ".rgb", "PCX": ".pcx", "DIB": ".dib", "MPO": ".mpo"}


@fuzz
@given(
    place=st.integers(min_value=0),
    change=st.binary(max_size=20),
    kind=st.sampled_from(sorted(KINDS)),
)
def test_a_changed_image_is_read_or_refused(place, change, kind):
    buffer = io.BytesIO()
    Image.linear_gradient("L").resize((40, 30)).convert("RGB").save(buffer, kind)
    whole = buffer.getvalue()
    place %= len(whole)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"image{KINDS[kind]}")
        path.write_bytes(whole[:place] + change + whole[place + len(change) :])
        try:
            assert decode(path, Frame(8)).shape == (8, 8, 3)
        except UnreadableImage as error:
            named = str(path) in str(error)
            assert named


letters = st.binary(max_size=60).map(lambda data: data + b"\0")
beginnings = st.sampled_from(
    [b"", b"Exif\0\0", b"Exif\0\0II*\0\x08\0\0\0", b"ICC_PROFILE\0\1\1", b"MPF\0", b"JFIF\0"]
)
PLAIN = Image.fromarray(np.random.default_rng(0).integers(0, 255, (12, 20, 3), np.uint8))


@fuzz
@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                [b"eXIf", b"iCCP", b"zTXt", b"iTXt", b"tEXt", b"pHYs", b"acTL", b"fcTL", b"sBIT"]
            ),
            st.builds(bytes.__add__, st.sampled_from([b"", b"k\0\0", b"II*\0\x08\0\0\0"]), letters),
            st.sampled_from([0, 0, 1]),
        ),
        max_size=4,
    )
)
def test_whatever_is_told_of_a_png_its_pixels_are_seen(chunks):
    more = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data) ^ wrong)
        for name, data, wrong in chunks
    ]
    assert_pixels("PNG", 33, b"".join(more))


@fuzz
@given(st.lists(st.tuples(st.integers(0xE0, 0xEF), beginnings, letters), max_size=4))
def test_whatever_is_told_of_a_jpeg_its_pixels_are_seen(segments):
    more = [
        struct.pack(">BBH", 0xFF, marker, 2 + len(begins + data)) + begins + data
        for marker, begins, data in segments
        if marker != 0xEE  # Adobe's, which may tell other colours
    ]
    assert_pixels("JPEG", 2, b"".join(more))


def assert_pixels(kind, place, more):
    """What stands in a file before its pixels turns them at most."""
    buffer = io.BytesIO()
    PLAIN.save(buffer, kind)
    content = buffer.getvalue()
    with Image.open(buffer) as image:
        ways = [image.convert("RGB"), *(image.convert("RGB").transpose(way) for way in Image.Transpose)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "image")
        path.write_bytes(content[:place] + more + content[place:])
        found = decode(path, Frame(20))
    expected = [np.asarray(way.resize((20, 20), Image.Resampling.BILINEAR)) for way in ways]
    assert any(np.array_equal(found, way) for way in expected)


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
