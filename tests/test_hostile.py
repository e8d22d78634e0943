"""Files that mean harm: code in weights, images that explode, names that would run somewhere."""

import csv
import os
import pickle
import shutil
import struct
import subprocess
import sys
import tracemalloc
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import CLASSES, ROOT, SMALL, write_images
from tests.test_bad_input import data, told  # noqa: F401
from tests.test_weights import Touch
from utils.data.decode import Frame, UnreadableImage, decode
from utils.text import markdown, visible


@pytest.mark.parametrize("form", ["zip", "pickle"])
@pytest.mark.parametrize("place", ["pretrained_path", "teacher", "last.pt", "best.pt"])
def test_no_file_that_is_read_runs_code(program, capsys, tmp_path, place, form):
    touched = tmp_path / "touched"
    content = {"format": 1, "network": {"conv1.weight": Touch(touched)}, "flags": Touch(touched)}

    def write(path):
        torch.save(content, path) if form == "zip" else path.write_bytes(pickle.dumps(content))

    if place.endswith(".pt"):
        assert program("run", *SMALL) == 0
        (program.run("run") / "result.json").unlink()
        write(program.run("run") / place)
        flags = ["--resume"] if place == "last.pt" else ["--evaluate"]
    else:
        write(tmp_path / "weights")
        flags = [*SMALL, "--pretrained", "1", f"--{place}", str(tmp_path / "weights")]
        if place == "teacher":
            flags[flags.index("1")] = "0"
    capsys.readouterr()
    assert program("run", *flags) == 2
    told(capsys)
    assert not touched.exists()


def bomb(width: int, height: int) -> bytes:
    """A PNG file of a few hundred kilobytes that claims, and has, so many black pixels of one bit."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((1 + (width + 7) // 8) * height), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_decompression_bombs_are_refused_by_name(data, program, capsys):  # noqa: F811
    content = bomb(20_000, 20_000)  # 400 million pixels
    assert len(content) < 100_000
    (data / "train/plain/bomb.png").write_bytes(content)
    assert program("run", *SMALL) == 2
    err = told(capsys)
    assert "train/plain/bomb.png" in err
    assert "decompression bomb" in err
    assert program("run", *SMALL, "--skip_corrupt") == 0


def test_text_that_explodes_is_not_unpacked(tmp_path):
    text = b"comment\0\0" + zlib.compress(bytes(200_000_000), 9)
    whole = bomb(8, 8)
    chunk = struct.pack(">I", len(text)) + b"zTXt" + text + struct.pack(">I", zlib.crc32(b"zTXt" + text))
    (tmp_path / "text.png").write_bytes(whole[:33] + chunk + whole[33:])
    (tmp_path / "plain.png").write_bytes(whole)
    tracemalloc.start()
    pixels = decode(tmp_path / "text.png", Frame(8))
    assert tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()
    assert np.array_equal(pixels, decode(tmp_path / "plain.png", Frame(8)))


def test_large_photographs_and_transparent_palettes_are_read_without_a_word(tmp_path):
    """In a process of its own, since pytest has its own ways with warnings."""
    Image.new("RGB", (40, 40), (1, 2, 3)).save(tmp_path / "large.png")
    Image.effect_noise((16, 16), 90).convert("P").save(tmp_path / "clear.png", transparency=bytes(range(256)))
    code = (
        "import sys; from pathlib import Path; from PIL import Image\n"
        "from utils.data.decode import Frame, decode\n"
        "Image.MAX_IMAGE_PIXELS = 1000  # Pillow warns from here, and refuses from twice that\n"
        "for name in ('large.png', 'clear.png'): print(decode(Path(sys.argv[1], name), Frame(8))[0, 0])"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.startswith("[1 2 3]")
    assert done.stderr == ""


def test_no_image_starts_another_program(tmp_path, monkeypatch):
    """For PostScript Pillow would run Ghostscript, whatever the file is called."""
    mark = tmp_path / "gs_ran"
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {mark}\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    Image.new("RGB", (8, 8)).save(tmp_path / "x.eps")
    (tmp_path / "x.eps").rename(tmp_path / "x.jpg")
    with pytest.raises(UnreadableImage):
        decode(tmp_path / "x.jpg", Frame(8))
    assert not mark.exists()


def test_a_class_that_is_a_formula_is_text_in_a_spreadsheet(tmp_path, program):
    formula = "=cmd|'calc'!A0"
    for split, count in (("train", 4), ("test", 2)):
        write_images(tmp_path / "data" / split, count, seed=0)
        (tmp_path / "data" / split / "plain").rename(tmp_path / "data" / split / formula)
    program.data = tmp_path / "data"
    assert program("run", *SMALL) == 0
    with open(program.run("run") / "predictions.csv", newline="") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert f"'{formula}" in cells
    assert not any(cell.startswith("=") for cell in cells)


def test_names_show_as_text_in_the_terminal(tmp_path, program, capsys):
    names = ("\x1b]0;owned\x07\x1b[2J", "<img src=x onerror=alert(1)>", "$\\frac{")
    for split, count in (("train", 4), ("test", 2)):
        write_images(tmp_path / "da\x1b[31mta" / split, count, seed=0)
        for name in names:
            shutil.copytree(
                tmp_path / "da\x1b[31mta" / split / "plain", tmp_path / "da\x1b[31mta" / split / name
            )
    program.data = tmp_path / "da\x1b[31mta"
    assert program("run\x1b[1m", *SMALL) == 0
    shutil.copy(
        program.data / "train" / CLASSES[0] / "000.png", program.data / "test" / names[0] / "leak.png"
    )
    (program.data / "train" / names[0] / "bad\x1b[5m.png").write_text("x")
    assert program("two", *SMALL, "--skip_corrupt") == 0
    assert program("three", *SMALL) == 2
    (program.data / "test" / names[0]).rename(program.data / "test" / "other\x1b[7m")
    assert program("four", *SMALL) == 2
    assert program("five", "--model", "\x1b[31m") == 2
    out, err = capsys.readouterr()
    assert "\x1b" not in out + err
    assert "\\x1b]0;owned\\x07" in out + err


@pytest.mark.parametrize("name", ["../x", "/tmp/x", "a/../../x", ".."])
def test_a_run_cannot_be_named_out_of_its_folder(program, capsys, name):
    assert program(name, *SMALL) == 2
    assert "--checkpoint_name" in told(capsys)
    assert not (program.folder / "x").exists()


def test_text_is_made_safe_by_escapes_that_can_be_read():
    assert visible("a\x1b[31m\n\udc80é雪") == "a\\x1b[31m\\n\\udc80é雪"
    assert markdown("<b>|`*[x](y)_z_ snake_case &lt; <0.001") == (
        "\\<b>\\|\\`\\*\\[x\\](y)\\_z\\_ snake_case \\&lt; <0.001"
    )
