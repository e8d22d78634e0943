"""What people give a run: each mistake is answered in one line that names the thing, with exit code 2."""

import errno
import json
import os
import re
import shutil
import stat
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import options
from learning.setup import assemble
from tests.conftest import CLASSES, SMALL, write_images
from tests.test_images import never
from utils.data.decode import Frame, decode
from utils.data.folders import find_dataset
from utils.run.checkpoint import read_checkpoint, save_checkpoint


@pytest.fixture
def data(tmp_path, program):
    """A data set of one's own to spoil: 3 classes, 5 training and 2 test images each."""
    root = tmp_path / "data"
    write_images(root / "train", 5, seed=0)
    write_images(root / "test", 2, seed=1)
    program.data = root
    return root


def told(capsys) -> str:
    """What was said on stderr, which must be one line without a traceback."""
    err = capsys.readouterr().err
    assert err.count("\n") == 1, err
    assert err.startswith("main.py: ")
    return err


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda root: shutil.rmtree(root), "no such folder"),
        (lambda root: (shutil.rmtree(root), root.mkdir()), "holds no images"),
        (lambda root: (shutil.rmtree(root), root.write_text("x")), "no such folder"),
        (
            lambda root: [path.unlink() for path in (root / "train/plain").iterdir()],
            "different classes; only in test: 'plain'",
        ),
        (
            lambda root: [path.unlink() for path in (root / "test/plain").iterdir()],
            "different classes; only in train: 'plain'",
        ),
        (
            lambda root: (root / "test/plain").rename(root / "test/plan"),
            "only in train: 'plain'; only in test: 'plan'",
        ),
        (
            lambda root: [
                shutil.rmtree(root / split / name) for split in ("train", "test") for name in CLASSES[1:]
            ],
            "holds one class, circle",
        ),
        (lambda root: [path.unlink() for path in sorted((root / "train/plain").iterdir())[1:]], None),
    ],
    ids=[
        "none",
        "empty",
        "a file",
        "no training images",
        "no test images",
        "other classes",
        "one class",
        "one image",
    ],
)
def test_folders(data, program, capsys, spoil, named):
    spoil(data)
    code = program("run", *SMALL)
    if named is None:  # one image of a class is little, but no mistake: it is trained on
        assert code == 0
        return
    assert code == 2
    assert re.search(named, told(capsys))
    assert not (program.folder / "checkpoint").exists()


def test_one_image_in_every_class_is_too_few(data, program, capsys):
    for folder in (data / "train").iterdir():
        for path in sorted(folder.iterdir())[1:]:
            path.unlink()
    assert program("run", *SMALL) == 2
    assert "none to validate on" in told(capsys)


def test_more_workers_than_cores_are_taken_without_a_word(data, program, capfd):
    assert program("run", *SMALL, "--cache", "off", "--num_workers", "9") == 0
    assert capfd.readouterr().err == ""


def test_fewer_images_than_a_batch_are_one_batch(data, program):
    assert program("run", *SMALL, "--batch_size", "1000") == 0
    assert read_checkpoint(program.run("run") / "last.pt")["step"] == 2  # in two epochs


def test_every_kind_of_image_is_read_rightly(tmp_path):
    colours = (
        np.array([[[200, 30, 60], [20, 120, 220]]], np.uint8).repeat(4, 0).repeat(2, 1)
    )  # 4 x 4, two halves
    image = Image.fromarray(colours)
    Image.new("RGB", (1, 1), (9, 8, 7)).save(tmp_path / "one.png")
    Image.new("RGB", (20_000, 2), (9, 8, 7)).save(tmp_path / "wide.png")
    Image.new("CMYK", (4, 4), (0, 255, 255, 0)).save(tmp_path / "cmyk.tif")
    image.quantize(4).save(tmp_path / "palette.gif")
    image.quantize(4).save(tmp_path / "clear.png", transparency=0)
    image.save(tmp_path / "moving.gif", save_all=True, append_images=[Image.new("RGB", (4, 4))])
    image.save(tmp_path / "whole.png")
    (tmp_path / "link.png").symlink_to("whole.png")
    exif = Image.Exif()
    exif[0x0112] = 3  # taken upside down
    image.save(tmp_path / "turned.png", exif=exif)

    def pixels(name):
        return decode(tmp_path / name, Frame(4)).astype(int)

    assert (pixels("one.png") == (9, 8, 7)).all()
    assert (pixels("wide.png") == (9, 8, 7)).all()
    assert (pixels("cmyk.tif") == (255, 0, 0)).all()
    for name in ("palette.gif", "moving.gif", "whole.png", "link.png"):
        assert np.abs(pixels(name) - colours).max() <= 1, name  # a first frame, a link's end
    assert pixels("clear.png").shape == (4, 4, 3)
    assert np.array_equal(pixels("turned.png"), colours[::-1, ::-1])


def spoil_images(root) -> list[str]:
    """Add images that cannot be read; returns their names."""
    whole = root / "train/plain/whole.jpg"
    Image.effect_noise((64, 64), 50).convert("RGB").save(whole)
    (root / "train/plain/cut.jpg").write_bytes(whole.read_bytes()[:700])
    (root / "train/circle/empty.png").touch()
    (root / "test/circle/text.jpg").write_text("no image")
    (root / "test/stripes/nowhere.png").symlink_to("missing.png")
    return [
        "test/circle/text.jpg",
        "test/stripes/nowhere.png",
        "train/circle/empty.png",
        "train/plain/cut.jpg",
    ]


@pytest.mark.parametrize("cache", ["disk", "ram", "off"])
def test_images_that_cannot_be_read_are_all_named_at_once(data, program, capsys, cache):
    names = spoil_images(data)
    assert program("run", *SMALL, "--cache", cache) == 2
    err = told(capsys)
    assert "4 of 26 images cannot be read" in err
    assert "--skip_corrupt" in err
    assert all(name in err for name in names)


@pytest.mark.parametrize("cache", ["disk", "ram", "off"])
def test_skip_corrupt_goes_on_without_them_and_counts_them(data, program, capsys, cache):
    assert program("clean", *SMALL, "--cache", cache, "--skip_corrupt") == 0
    names = spoil_images(data)
    (data / "train/plain/whole.jpg").unlink()
    capsys.readouterr()
    assert program("run", *SMALL, "--cache", cache, "--skip_corrupt") == 0
    out = capsys.readouterr().out
    assert "4 images cannot be read, and left out" in out
    assert all(name in out for name in names)
    results = [json.loads((program.run(name) / "result.json").read_text()) for name in ("clean", "run")]
    assert [result["skipped_images"] for result in results] == [0, 4]
    assert json.loads((program.run("run") / "args.json").read_text())["skipped_images"] == names
    tables = [(program.run(name) / "predictions.csv").read_text() for name in ("clean", "run")]
    assert tables[0] == tables[1]  # as if they were not there
    assert program("run", "--cache", cache, "--evaluate") == 0
    evaluation = json.loads((program.run("run") / "evaluation.json").read_text())
    assert evaluation["test_accuracy"] == results[1]["test_accuracy"]


def test_a_class_of_corrupt_images_is_told(data, program, capsys):
    for path in (data / "train/plain").iterdir():
        path.write_bytes(b"")
    assert program("run", *SMALL, "--skip_corrupt") == 2
    assert "no train image of class plain can be read" in told(capsys)


def test_a_test_image_that_is_trained_on_is_told_by_name(data, program, capsys):
    shutil.copy(data / "train/plain/000.png", data / "test/plain/copy of one.png")
    shutil.copy(data / "train/plain/001.png", data / "test/stripes/a mistake.png")
    assert program("run", *SMALL) == 0
    out = capsys.readouterr().out
    assert "2 test images are also trained or validated on, which makes the accuracy too good: " in out
    assert "test/plain/copy of one.png (plain) is train/plain/000.png (plain)" in out
    assert (
        "warning  1 image is also under another label, which makes one of the two wrong: "
        "test/stripes/a mistake.png (stripes) is train/plain/001.png (plain)\n"
    ) in out


def test_levels_of_fewer_bits_than_their_file_has_are_told(data, program, capsys):
    """Numbers of 12 bits in files of 16, as X-rays are kept: their upper 8 bits are almost nothing."""
    for number, path in enumerate(sorted(data.rglob("*.png"))):
        levels = np.asarray(Image.open(path).convert("L"), np.uint16) * 16
        levels[0, 0] = number  # no two alike
        Image.fromarray(levels).save(path)
    count = len([*data.rglob("*.png")])
    told = f"{count} of {count} images with levels of more than 8 bits use the lower ones only: at most 16 of"
    assert program("run", *SMALL) == 0
    assert f"warning  {told}" in capsys.readouterr().out
    assert program("run", "--inspect", "--output", str(program.folder / "look")) == 0
    assert f"levels   {told}" in capsys.readouterr().out
    for path in data.rglob("*.png"):
        Image.fromarray(np.asarray(Image.open(path)) * np.uint16(16)).save(path)
    assert program("again", *SMALL) == 0
    assert "more than 8 bits" not in capsys.readouterr().out


def test_a_run_of_a_version_that_kept_names_as_the_system_writes_them_is_evaluated(data, program, capsys):
    for split in ("train", "test"):
        (data / split / "plain").rename(data / split / "zu\u0308ge")
    assert program("run", *SMALL) == 0
    path = program.run("run") / "best.pt"
    content = torch.load(path, weights_only=True)
    assert content["classes"] == ["circle", "stripes", "z\u00fcge"]
    save_checkpoint(path, {**content, "classes": ["circle", "stripes", "zu\u0308ge"]})
    assert program("run", "--evaluate") == 0
    assert "other classes" not in "".join(capsys.readouterr())


def test_a_validation_image_that_is_trained_on_is_told(data, program, capsys):
    write_images(data / "val", 2, seed=5)
    shutil.copy(data / "train/plain/000.png", data / "val/plain/000.png")
    assert program("run", *SMALL) == 0
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning")]
    assert [line for line in told if "also" in line] == [
        "warning  1 validation image is also trained on, which makes the validation accuracy too good: "
        "val/plain/000.png (plain) is train/plain/000.png (plain)"
    ]


NAMES = (
    "with spaces.png",
    "quote'\".png",
    "new\nline.png",
    "снег_雪_❄.png",
    "comma,semicolon;.png",
    "-dash.png",
    "%s{0}$x.png",
    "x" * 251 + ".png",
    os.fsdecode(b"\xff\xfe.png"),
)


def test_any_file_name_will_do(data, program, capsys):
    for number, name in enumerate(NAMES):
        for split in ("train", "test"):
            place = data / split / CLASSES[number % 3]
            shutil.copy(place / f"00{number % 2}.png", place / name)
            (place / name).write_bytes((place / name).read_bytes() + name.encode(errors="surrogateescape"))
    assert program("run", *SMALL) == 0
    with open(program.run("run") / "predictions.csv", newline="", errors="surrogateescape") as file:
        import csv

        paths = [row["path"] for row in csv.DictReader(file)]
    assert {f"test/{CLASSES[number % 3]}/{name}" for number, name in enumerate(NAMES)} <= set(paths)


def test_classes_may_have_any_name_too(tmp_path, program, capsys):
    classes = ("with space", "снег", "new\nline", "=1+1", os.fsdecode(b"\xff"))
    for split, count in (("train", 4), ("test", 2)):
        write_images(tmp_path / "data" / split, count, seed=0)
        for name in classes:
            shutil.copytree(tmp_path / "data" / split / "plain", tmp_path / "data" / split / name)
    program.data = tmp_path / "data"
    assert program("run", *SMALL) == 0
    stored = json.loads((program.run("run") / "args.json").read_text())["classes"]
    assert set(stored) == {*classes, *CLASSES}
    assert program("run", "--evaluate") == 0
    assert capsys.readouterr().err == ""


def test_the_data_folder_is_only_read(data, program):
    def state():
        return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in [data, *data.rglob("*")]}

    before = state()
    for path in sorted(data.rglob("*"), reverse=True):
        path.chmod(stat.S_IREAD | (stat.S_IEXEC if path.is_dir() else 0))
    data.chmod(stat.S_IREAD | stat.S_IEXEC)
    assert program("run", *SMALL) == 0
    data.chmod(stat.S_IRWXU)
    for path in data.rglob("*"):
        path.chmod(stat.S_IRWXU)
    assert state() == before


def test_a_cache_of_an_older_version_is_replaced(data, program, capsys, monkeypatch):
    with monkeypatch.context() as older:
        older.setattr("utils.data.cache.FORMAT", 1)
        assert program("old", *SMALL) == 0
    (old,) = (program.folder / "cache").glob("*px-*.npy")
    assert program("new", *SMALL) == 0
    assert f"removed {old}, of other images" in capsys.readouterr().out
    assert len(list((program.folder / "cache").glob("*px-*.npy"))) == 1


def number_flags() -> list[str]:
    """The flags that take a number."""
    kinds = [action for action in options.build_parser()._actions if action.type is not None]
    return [
        action.option_strings[0]
        for action in kinds
        if action.type is int or getattr(action.type, "__name__", "") == "parse"
    ]


@pytest.mark.parametrize("flag", number_flags())
@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "", "-1", "1e999", "9" * 400, "0x10", "one", "١٢x"])
def test_a_number_out_of_range_is_refused_naming_the_flag(flag, value, capsys):
    with pytest.raises(SystemExit) as stop:
        options.parse_args(["--checkpoint_name", "x", f"{flag}={value}"])
    assert stop.value.code == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert flag in err


@pytest.mark.parametrize("flag", ["data_dir", "checkpoint_dir", "cache_dir", "pretrained_path", "teacher"])
def test_an_empty_path_is_refused(flag, capsys):
    with pytest.raises(SystemExit):
        options.parse_args(["--checkpoint_name", "x", f"--{flag}", ""])
    assert f"--{flag}" in capsys.readouterr().err


@pytest.mark.parametrize(
    "place", [("--checkpoint_dir", "{file}/x"), ("--cache_dir", "{file}/x"), ("--checkpoint_name", "x" * 300)]
)
def test_a_place_where_nothing_can_be_written_is_named(program, capsys, tmp_path, place):
    (tmp_path / "file").touch()
    flag, value = place[0], place[1].format(file=tmp_path / "file")
    assert program("run", *SMALL, flag, value) == 2
    assert value in told(capsys)


def test_checkpoints_that_do_not_belong_are_refused(data, program, capsys, tmp_path):
    assert program("run", *SMALL) == 0
    run = program.run("run")
    content = read_checkpoint(run / "last.pt")

    def answer(*flags: str) -> str:
        capsys.readouterr()
        assert program("run", *flags) == 2
        return told(capsys)

    (run / "result.json").unlink()  # as if it were not finished
    assert "--model ResNet18 (the run has RegNetX-200MF)" in answer("--resume", "--model", "ResNet18")
    for split in ("train", "test"):
        shutil.copytree(data / split / "plain", data / split / "dotted")
    assert "holds other classes" in answer("--resume")
    assert "holds other classes" in answer("--evaluate")
    for split in ("train", "test"):
        shutil.rmtree(data / split / "dotted")

    whole = (run / "last.pt").read_bytes()
    for damage in (whole[:-200], whole[: len(whole) // 2], b"", bytes([whole[0] ^ 1]) + whole[1:]):
        (run / "last.pt").write_bytes(damage)
        assert "last.pt is damaged" in answer("--resume")
    middle = len(whole) // 2
    (run / "last.pt").write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    assert "last.pt is damaged" in answer("--resume")
    save_checkpoint(run / "last.pt", {**content, "format": 99})
    assert "newer version" in answer("--resume")
    del content["flags"]
    save_checkpoint(run / "last.pt", content)
    assert "last.pt lacks 'flags'" in answer("--resume")
    (run / "last.pt").write_bytes(whole)
    assert program("run", "--resume") == 0


@pytest.mark.parametrize("file", ["args.json", "result.json"])
def test_a_finished_run_with_damaged_records_is_told(program, capsys, file):
    assert program("run", *SMALL) == 0
    for content in ('{"flags": ', "{}", "[]", "3"):
        (program.run("run") / file).write_text(content)
        capsys.readouterr()
        assert program("run", "--resume") == 2
        assert file in told(capsys)


def test_the_seed_makes_no_difference_to_what_is_skipped(data, tmp_path):
    spoil_images(data)
    flags = ["--checkpoint_name", "x", "--data_dir", str(data), *SMALL, "--skip_corrupt"]
    parts = [
        assemble(options.parse_args([*flags, "--seed", seed, "--cache", "off"]), None, never) for seed in "12"
    ]
    assert parts[0].skipped == parts[1].skipped
    assert parts[0].dataset.files == parts[1].dataset.files
    assert torch.equal(next(parts[0].loader([np.arange(4)]))[0], next(parts[1].loader([np.arange(4)]))[0])


def test_what_may_be_read_tomorrow_is_not_noted_as_unreadable(data, program, monkeypatch):
    real = Path.read_bytes

    def refused(path):
        if path.name == "000.png":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path)

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.read_bytes", refused)
        assert program("refused", *SMALL, "--skip_corrupt") == 0
    assert program("allowed", *SMALL, "--skip_corrupt") == 0
    results = [json.loads((program.run(name) / "result.json").read_text()) for name in ("refused", "allowed")]
    assert [result["skipped_images"] for result in results] == [6, 0]


def test_folders_may_be_links_and_may_lead_back_and_pipes_are_no_images(data, tmp_path):
    files = len(find_dataset(data, seed=42).files)
    write_images(tmp_path / "elsewhere", 2, seed=3)
    (data / "train/plain/linked").symlink_to(tmp_path / "elsewhere/plain")
    (data / "train/plain/back").symlink_to(data / "train/plain")
    os.mkfifo(data / "train/plain/pipe.png")
    assert len(find_dataset(data, seed=42).files) == files + 2


def test_a_folder_that_may_not_be_read_is_named(data, program, capsys, monkeypatch):
    scandir = os.scandir

    def refused(path):
        if str(path).endswith("plain"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr("os.scandir", refused)
    assert program("run", *SMALL) == 2
    assert "plain: Permission denied" in told(capsys)


def test_a_data_folder_with_a_strange_or_long_name_has_a_cache(data, program):
    for name in ("a**b[c]", "x" * 240):
        program.data = data.with_name(name)
        data.rename(program.data)
        data = program.data
        assert program(name[:9], *SMALL) == 0


def test_one_image_at_a_time_is_too_little_for_batch_norm(data, program, capsys):
    assert program("run", *SMALL, "--batch_size", "1") == 1
    assert "batch norm cannot be trained on one image at a time" in told(capsys)


def test_a_cache_that_does_not_fit_into_memory_is_told(data, program, capsys, monkeypatch):
    empty = np.empty

    def full(shape, *args, **kwargs):
        if np.shape(shape) == (4,):
            raise MemoryError("Unable to allocate 28.2 GiB")
        return empty(shape, *args, **kwargs)

    monkeypatch.setattr("utils.data.cache.np.empty", full)
    assert program("run", *SMALL, "--cache", "ram") == 2
    assert "use --cache disk" in told(capsys)


@pytest.mark.parametrize("name", ["cuda:01", "cuda:١", "cuda:128", "cuda:-1", "gpu", "cuda:"])
def test_a_device_that_cannot_be_is_refused(name, capsys):
    with pytest.raises(SystemExit):
        options.parse_args(["--checkpoint_name", "x", "--device", name])
    assert "--device" in capsys.readouterr().err


def test_the_weights_of_another_network_in_a_runs_place_are_told(program, capsys):
    assert program("run", *SMALL) == 0
    assert program("other", *SMALL, "--model", "ResNet18") == 0
    best = program.run("run") / "best.pt"
    flags = read_checkpoint(best)["flags"]
    save_checkpoint(best, {**read_checkpoint(program.run("other") / "best.pt"), "flags": flags})
    capsys.readouterr()
    assert program("run", "--evaluate") == 2
    assert "best.pt holds another network than its flags say" in told(capsys)
    assert program("student", *SMALL, "--teacher", str(best)) == 2
    assert "best.pt holds another network" in told(capsys)


def test_a_run_that_lost_its_last_checkpoint_keeps_its_best(program, capsys):
    assert program("run", *SMALL, "--learning_rate", "0.001") == 0
    run = program.run("run")
    content = read_checkpoint(run / "best.pt")
    save_checkpoint(run / "best.pt", {**content, "epoch": 2})
    for name in ("last.pt", "result.json"):
        (run / name).unlink()
    capsys.readouterr()
    assert program("run", "--resume") == 2
    assert "has lost its last.pt" in told(capsys)
    assert (run / "best.pt").exists()


def test_a_run_that_another_process_finishes_meanwhile_is_kept(program, capsys, monkeypatch):
    from utils.run.folder import RunFolder

    claim, rival = RunFolder.claim, []

    def late(folder):
        if not rival:
            rival.append(1)
            assert program("run", *SMALL) == 0
        return claim(folder)

    monkeypatch.setattr(RunFolder, "claim", late)
    assert program("run", *SMALL, "--epochs", "3") == 2
    assert "holds a run already" in told(capsys)
    assert len((program.run("run") / "log.csv").read_text().splitlines()) == 3
