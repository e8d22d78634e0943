"""utils/data/decode.py, images.py and cache.py."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import ROOT, write_images
from utils.data.cache import cached_images, decoded_in_memory
from utils.data.decode import Frame, UnreadableImage, decode
from utils.data.folders import Splitting, find_dataset
from utils.data.images import DecodedImages, StoredImages, open_images
from utils.errors import Interrupted, UserError
from utils.run.cores import cores


def never() -> None:
    """A check that never stops a run."""


@pytest.fixture
def data(tmp_path):
    write_images(tmp_path / "data/train", 4, seed=0)
    write_images(tmp_path / "data/test", 2, seed=1)
    return tmp_path / "data"


def build(data, folder, size=16, check=never):
    pixels, places = cached_images(find_dataset(data, seed=42), Frame(size), folder, check)
    return pixels[places]


def test_decoding_is_pillows_bilinear_resize(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (30, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    expected = Image.fromarray(pixels).resize((20, 20), Image.Resampling.BILINEAR)
    assert np.array_equal(decode(tmp_path / "a.png", Frame(20)), np.asarray(expected))


def test_a_large_jpeg_keeps_its_looks(tmp_path):
    coarse = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((1600, 1600), Image.Resampling.BICUBIC)
    image.save(tmp_path / "a.jpg", quality=95)
    expected = np.asarray(image.resize((32, 32), Image.Resampling.BILINEAR), int)
    assert np.abs(decode(tmp_path / "a.jpg", Frame(32)) - expected).mean() < 2


def test_grey_and_rotated_images_are_read_rightly(tmp_path):
    grey = Image.new("L", (10, 10), 77)
    grey.save(tmp_path / "grey.png")
    assert (decode(tmp_path / "grey.png", Frame(8)) == 77).all()
    half = Image.new("RGB", (10, 10))
    half.paste((255, 255, 255), (0, 0, 10, 5))
    exif = Image.Exif()
    exif[0x0112] = 3  # taken upside down
    half.save(tmp_path / "turned.png", exif=exif)
    turned = decode(tmp_path / "turned.png", Frame(10))
    assert turned[:5].max() == 0
    assert turned[5:].min() == 255


@pytest.mark.parametrize("content", [b"", b"this is text", b"\x89PNG\r\n\x1a\nbroken"])
def test_what_is_no_image_is_named(tmp_path, content):
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(UnreadableImage, match=r"a\.jpg"):
        decode(tmp_path / "a.jpg", Frame(8))


def test_the_cache_holds_what_decoding_gives(data, tmp_path):
    dataset = find_dataset(data, seed=42)
    expected = np.stack([decode(data / name, Frame(16)) for name in dataset.files])
    assert np.array_equal(build(data, tmp_path / "new" / "cache"), expected)
    assert np.array_equal(decoded_in_memory(dataset, Frame(16), never), expected)


def test_the_cache_is_built_once_for_all_seeds(data, tmp_path, monkeypatch):
    before = build(data, tmp_path / "cache")
    monkeypatch.setattr("utils.data.cache.decode", None)  # decoding again would fail
    pixels, places = cached_images(find_dataset(data, seed=7), Frame(16), tmp_path / "cache", never)
    again = pixels[places]
    assert np.array_equal(before, again)


def test_another_size_is_another_cache(data, tmp_path):
    assert build(data, tmp_path / "cache", 16).shape == (18, 16, 16, 3)
    assert build(data, tmp_path / "cache", 8).shape == (18, 8, 8, 3)
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 2


def test_a_changed_image_makes_a_new_cache_in_place_of_the_old(data, tmp_path, capsys):
    path = data / "train/plain/a.bmp"  # of the same length whatever it shows
    Image.new("RGB", (24, 24), (9, 9, 9)).save(path)
    build(data, tmp_path / "cache")
    Image.new("RGB", (24, 24), (1, 2, 3)).save(path)
    os.utime(path, (0, 0))
    pixels = build(data, tmp_path / "cache")
    index = find_dataset(data, seed=42).files.index("train/plain/a.bmp")
    assert (pixels[index] == (1, 2, 3)).all()
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 1
    assert "before a change" in capsys.readouterr().out


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-100]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"x" * path.stat().st_size),
        lambda path: path.write_bytes(path.read_bytes().replace(b"(18, 16", b"(17, 16")),
    ],
    ids=["cut short", "empty", "no header", "another shape"],
)
def test_a_damaged_cache_is_built_again(data, tmp_path, damage, capsys):
    expected = build(data, tmp_path / "cache").copy()
    (path,) = (tmp_path / "cache").glob("*.npy")
    damage(path)
    assert np.array_equal(build(data, tmp_path / "cache"), expected)
    assert "is damaged; building it again" in capsys.readouterr().out


def test_a_stopped_build_leaves_no_cache(data, tmp_path):
    count = 0

    def stop_at_the_fifth() -> None:
        nonlocal count
        count += 1
        if count == 5:
            raise Interrupted(signal.SIGINT)

    with pytest.raises(Interrupted):
        build(data, tmp_path / "cache", check=stop_at_the_fifth)
    assert not list((tmp_path / "cache").glob("*.npy"))


BUILDER = """
import os, pathlib, sys, time
from utils.data import cache
from utils.data.folders import find_dataset
decode, data, folder, slow = cache.decode, pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3]
def slowly(*args):
    print("decoding", flush=True)
    time.sleep(float(slow))
    return decode(*args)
cache.decode = slowly
cache.cached_images(find_dataset(data, 42), cache.Frame(16), folder, lambda: None)
"""


def start_builder(data, folder, seconds_per_image) -> subprocess.Popen:
    command = [sys.executable, "-c", BUILDER, str(data), str(folder), str(seconds_per_image)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_a_killed_build_is_not_mistaken_for_a_cache(data, tmp_path):
    builder = start_builder(data, tmp_path / "cache", 0.2)
    builder.stdout.readline()
    time.sleep(0.3)
    builder.kill()
    builder.communicate()
    assert not list((tmp_path / "cache").glob("*.npy"))
    dataset = find_dataset(data, seed=42)
    assert np.array_equal(build(data, tmp_path / "cache"), decoded_in_memory(dataset, Frame(16), never))


def test_of_two_runs_that_start_together_one_builds(data, tmp_path):
    builders = [start_builder(data, tmp_path / "cache", 0.05) for _ in range(2)]
    outputs = [builder.communicate(timeout=60)[0] for builder in builders]
    assert [builder.returncode for builder in builders] == [0, 0]
    assert sorted(output.count("decoding") for output in outputs) == [0, 18]


def test_unreadable_images_are_all_named_at_once(data, tmp_path):
    (data / "train/plain/000.png").write_bytes(b"")
    (data / "test/circle/001.png").write_text("text")
    with pytest.raises(UserError, match=r"2 of 18 images.*test/circle/001\.png.*train/plain/000\.png"):
        build(data, tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*.npy"))


def sources(data, tmp_path):
    dataset = find_dataset(data, seed=42)
    paths = [data / name for name in dataset.files]
    return {
        "disk": StoredImages(*cached_images(dataset, Frame(16), tmp_path / "cache", never)),
        "ram": StoredImages(decoded_in_memory(dataset, Frame(16), never)),
        "no workers": DecodedImages(paths, Frame(16), 0),
        "two workers": DecodedImages(paths, Frame(16), 2),
    }


def test_all_sources_give_the_same_batches(data, tmp_path):
    orders = [np.array([3, 1, 17]), np.array([0, 5]), np.array([1])]
    expected = None
    for name, source in sources(data, tmp_path).items():
        batches = list(source.batches(iter(orders)))
        assert [tuple(batch.shape) for batch in batches] == [(3, 3, 16, 16), (2, 3, 16, 16), (1, 3, 16, 16)]
        assert all(batch.is_contiguous(memory_format=torch.channels_last) for batch in batches)
        expected = expected or batches
        assert all(torch.equal(*pair) for pair in zip(batches, expected, strict=True)), name


WORKERS_OF_BATCHES = """
import sys
from pathlib import Path
import numpy as np
from utils.data.decode import Frame
from utils.data.images import DecodedImages
path = Path(sys.argv[1])
batches = list(DecodedImages([path], Frame(256), 4).batches([np.zeros(128, int)] * 8))
print(sum(int(batch[:, 0].long().sum()) for batch in batches))
"""


@pytest.mark.parametrize("room", ["64m", "1g", "4k"])
def test_batches_of_workers_arrive_however_little_memory_is_shared(tmp_path, room):
    """As in a container; 8 batches of 25 MB, of which two are ready for each worker."""
    Image.new("RGB", (8, 8), (1, 0, 0)).save(tmp_path / "a.png")
    mounted = f"mount -t tmpfs -o size={room} tmpfs /dev/shm && exec "
    program = shlex.join([sys.executable, "-c", WORKERS_OF_BATCHES, str(tmp_path / "a.png")])
    command = ["unshare", "-rm", "sh", "-c", mounted + program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    if "unshare" in done.stderr or "mount" in done.stderr:
        pytest.skip("this system lends no mounts")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    told = (
        "warning  images are decoded in one process, since no others can be started (shared memory: No space"
    )
    assert done.stdout.startswith(told) == (room == "4k")
    assert done.stdout.splitlines()[-1] == str(8 * 128 * 256 * 256)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_that_goes_bad_during_a_run_is_named_in_one_line(data, tmp_path, workers):
    dataset = find_dataset(data, seed=42)
    source = DecodedImages([data / name for name in dataset.files], Frame(16), workers)
    shutil.copy("/dev/null", data / dataset.files[4])
    with pytest.raises(UserError) as error:
        list(source.batches([np.array([0, 4])]))
    assert dataset.files[4] in str(error.value)
    assert "\n" not in str(error.value)


def test_reading_the_mapped_cache_does_not_grow_the_process(tmp_path):
    """64 MB of images are read; the process may keep a small part of them."""
    script = """
import sys, numpy as np
from utils.data.images import StoredImages
def resident():  # bytes, from /proc
    return int(open("/proc/self/statm").read().split()[1]) * 4096
images = StoredImages(np.lib.format.open_memmap(sys.argv[1], mode="r"))
order = np.random.default_rng(0).permutation(4096).reshape(-1, 64)
next(images.batches(order[:1]))
before = resident()
for batch in images.batches(order): pass
print((resident() - before) / 1e6)
"""
    pixels = np.lib.format.open_memmap(tmp_path / "a.npy", "w+", np.uint8, (4096, 72, 72, 3))
    pixels[:] = 1
    del pixels
    command = [sys.executable, "-c", script, str(tmp_path / "a.npy")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 16


def test_a_crop_keeps_the_aspect_ratio_and_takes_the_middle(tmp_path):
    pixels = np.zeros((40, 100, 3), np.uint8)
    pixels[:, 30:70] = 200  # the middle square
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    cropped = decode(tmp_path / "wide.png", Frame(20, crop=True))
    assert (cropped[:, 1:-1] == 200).all()  # the filter looks one pixel over the edge
    assert (decode(tmp_path / "wide.png", Frame(20)) == 0).any()


def test_crops_and_whole_images_have_caches_of_their_own(data, tmp_path):
    dataset = find_dataset(data, seed=42)
    for frame in (Frame(16), Frame(16, crop=True), Frame(16)):
        cached_images(dataset, frame, tmp_path / "cache", never)
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 2


def test_sixteen_bits_of_grey_keep_their_upper_eight(tmp_path):
    levels = np.arange(256, dtype=np.uint16).reshape(16, 16) * 256 + 77
    for name in ("deep.png", "deep.tiff"):
        Image.fromarray(levels).save(tmp_path / name)
        assert np.array_equal(decode(tmp_path / name, Frame(16))[..., 0], levels >> 8)


def test_thirty_two_bits_of_grey_are_refused(tmp_path):
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "deep.tiff")
    with pytest.raises(UnreadableImage, match=r"deep.tiff: .* 32 bits"):
        decode(tmp_path / "deep.tiff", Frame(4))


def test_a_large_jpeg_keeps_twice_the_pixels_to_average(tmp_path):
    """Decoded at half its size it is as good as whole, and at the size of the frame it would not be."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    coarse.resize((512, 512), Image.Resampling.BICUBIC).save(tmp_path / "large.jpg", quality=95)
    with Image.open(tmp_path / "large.jpg") as whole:
        expected = np.asarray(whole.convert("RGB").resize((128, 128), Image.Resampling.BILINEAR)).astype(int)
    error = np.abs(decode(tmp_path / "large.jpg", Frame(128)) - expected).mean()
    with Image.open(tmp_path / "large.jpg") as small:
        small.draft("RGB", (128, 128))
        assert small.size == (128, 128)
        assert error < 0.4 * np.abs(np.asarray(small) - expected).mean()
    with Image.open(tmp_path / "large.jpg") as half:
        half.draft("RGB", (256, 256))
        quick = np.asarray(half.convert("RGB").resize((128, 128), Image.Resampling.BILINEAR))
    assert np.array_equal(decode(tmp_path / "large.jpg", Frame(128)), quick)  # and no more than twice


def test_the_disk_space_that_is_taken_is_that_of_the_file(data, tmp_path, monkeypatch):
    taken = []
    monkeypatch.setattr("os.posix_fallocate", lambda descriptor, start, length: taken.append(length))
    build(data, tmp_path / "cache")
    (path,) = (tmp_path / "cache").glob("*.npy")
    assert taken == [path.stat().st_size]


def test_a_cache_is_shared_however_images_are_split(data, tmp_path, monkeypatch):
    table = tmp_path / "t.csv"
    names = sorted(find_dataset(data, seed=42).files, reverse=True)
    rows = [f"{name},{'ab'[number % 2]}" for number, name in enumerate(names)]
    table.write_text("\n".join(["path,label", *rows]))
    before = dict(zip(find_dataset(data, seed=42).files, build(data, tmp_path / "cache"), strict=True))
    monkeypatch.setattr("utils.data.cache.decode", None)  # decoding again would fail
    dataset = find_dataset(data, 42, how=Splitting(labels=table))
    source = StoredImages(*cached_images(dataset, Frame(16), tmp_path / "cache", never))
    (found,) = source.batches([np.arange(len(names))])
    for name, pixels in zip(dataset.files, found, strict=True):
        assert np.array_equal(pixels.permute(1, 2, 0), before[name])
    assert dataset.files != tuple(before)


@pytest.mark.parametrize(("free", "kept"), [(4.001, True), (3.999, False)])
def test_images_are_kept_on_disk_where_a_quarter_of_what_is_free_will_do(
    data, tmp_path, monkeypatch, capsys, free, kept
):
    dataset, cache = find_dataset(data, seed=42), tmp_path / "not/there/yet"
    size = len(dataset.files) * 16 * 16 * 3
    usage = SimpleNamespace(free=free * size)
    monkeypatch.setattr("shutil.disk_usage", lambda place: usage if place == tmp_path else None)
    source = open_images(dataset, Frame(16), "auto", cache, None, never)
    out = capsys.readouterr().out
    assert isinstance(source, StoredImages if kept else DecodedImages)
    assert f"{size / 1e9:.2g} GB of decoded images" in out
    assert f"{free * size / 1e9:.2g} GB are free in" in out
    assert ("cache    off" in out) == (not kept)
    if kept:
        usage.free = 0  # it is there already
        assert isinstance(open_images(dataset, Frame(16), "auto", cache, None, never), StoredImages)
    else:
        assert source.num_workers == cores()
        assert open_images(dataset, Frame(16), "auto", cache, 1, never).num_workers == 1
        assert open_images(dataset, Frame(16), "off", cache, None, never).num_workers == 0
