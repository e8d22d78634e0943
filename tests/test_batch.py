"""gpu_history.sh and utils/batch.py."""

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time

import pytest

import options
from options import parse_args
from tests.conftest import ROOT, SMALL
from tests.disturbed import wait_until
from utils import batch
from utils.errors import UserError
from utils.flags import run_flags
from utils.run.files import write_json
from utils.run.folder import RunFolder

A, R = "--optimizer ADAM --learning_rate 0.0001", "--optimizer RADAM --learning_rate 0.0001"
W, C = "--decay_type step_warmup", "--decay_type cosine_warmup"
S, M, CM = "--label_smooth 0.1", "--mixup 0.2", "--cutmix_alpha 1.0 --cutmix_prob 1.0"
EN, RN = "--model EfficientNet", "--model RegNet"
HISTORY = {
    "baseline_scratch": "--pretrained 0",
    "baseline": "",
    "baseline_warmup": W,
    "baseline_zerogamma": "--zero_gamma",
    "baseline_warmup_zerogamma": f"{W} --zero_gamma",
    "baseline_Adam": A,
    "baseline_Adam_warmup": f"{A} {W}",
    "baseline_Adam_warmup_cosine": f"{A} {C}",
    "baseline_Adam_warmup_labelsmooth": f"{A} {W} {S}",
    "baseline_Adam_warmup_mixup": f"{A} {W} {M}",
    "baseline_Adam_warmup_labelsmooth_mixup": f"{A} {W} {S} {M}",
    "baseline_Adam_warmup_cosine_labelsmooth": f"{A} {C} {S}",
    "baseline_Adam_warmup_cosine_mixup": f"{A} {C} {M}",
    "baseline_Adam_warmup_cosine_labelsmooth_mixup": f"{A} {C} {S} {M}",
    "baseline_Adam_warmup_cosine_cutmix": f"{A} {C} {CM}",
    "baseline_RAdam_warmup_cosine_labelsmooth": f"{R} {C} {S}",
    "baseline_Adam_warmup_cosine_labelsmooth_randaug": f"{A} {C} {S} --randaugment",
    "baseline_Adam_warmup_cosine_labelsmmoth_evonorm": f"{A} {C} {S} --norm evonorm",
    "baseline_RAdam_warmup_cosine_cutmix": f"{R} {C} {CM}",
    "efficientnet_Adam_warmup_cosine_labelsmooth": f"{EN} {A} {C} {S}",
    "efficientnet_Adam_warmup_cosine_labelsmooth_mixup": f"{EN} {A} {C} {S} {M}",
    "efficientnet_Adam_warmup_cosine_cutmix": f"{EN} {A} {C} {CM}",
    "efficientnet_RAdam_warmup_cosine_labelsmooth": f"{EN} {R} {C} {S}",
    "efficientnet_RAdam_warmup_cosine_cutmix": f"{EN} {R} {C} {CM}",
    "regnet_Adam_warmup_cosine_labelsmooth": f"{RN} {A} {C} {S}",
    "regnet_Adam_warmup_cosine_labelsmooth_mixup": f"{RN} {A} {C} {S} {M}",
    "regnet_Adam_warmup_cosine_cutmix": f"{RN} {A} {C} {CM}",
    "regnet_RAdam_warmup_cosine_labelsmooth": f"{RN} {R} {C} {S}",
    "regnet_RAdam_warmup_cosine_cutmix": f"{RN} {R} {C} {CM}",
}


def history_list(folder) -> str:
    """The list that gpu_history.sh gives to utils.batch, caught by another program of python's name."""
    fake = folder / "python"
    fake.write_text('#!/bin/sh\n[ "$*" = "-m utils.batch --epochs 3" ] && exec cat\n')
    fake.chmod(0o755)
    path = f"{folder}:{os.environ['PATH']}"
    command = ["bash", str(ROOT / "gpu_history.sh"), "--epochs", "3"]
    environment = os.environ | {"PATH": path, "VIRTUAL_ENV": "x"}
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout


def test_the_history_is_the_29_experiments_with_their_flags(tmp_path):
    found = batch.read_list(history_list(tmp_path))
    assert {name: " ".join(flags) for name, flags in found.items()} == HISTORY
    assert list(found) == list(HISTORY)
    assert os.access(ROOT / "gpu_history.sh", os.X_OK)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("aug#1 --randaugment", {"aug#1": ["--randaugment"]}),
        ("a --data_dir /d#2 # the second", {"a": ["--data_dir", "/d#2"]}),
        ("a --mixup 0.2 #much\n#b --zero_gamma\n  # c", {"a": ["--mixup", "0.2"]}),
        ("a --mixup 0.2 # don't", {"a": ["--mixup", "0.2"]}),
        ("a --data_dir 'it # is' # so", {"a": ["--data_dir", "it # is"]}),
        ('a --data_dir "it \\" # is" --sam 1', {"a": ["--data_dir", 'it " # is', "--sam", "1"]}),
        ("a --data_dir it\\ #is#so --sam 1", {"a": ["--data_dir", "it #is#so", "--sam", "1"]}),
        ("\ufeffa --mixup 0.2", {"a": ["--mixup", "0.2"]}),
        ("a\t--mixup\t 0.2\r\nb\rc\r\n\r\n", {"a": ["--mixup", "0.2"], "b": [], "c": []}),
        ("a --data_dir '/d\u00a01'", {"a": ["--data_dir", "/d\u00a01"]}),
        ("größe=1e-3,(x)+y@2 --sam 1", {"größe=1e-3,(x)+y@2": ["--sam", "1"]}),
    ],
)
def test_a_list_is_read_as_a_shell_would(text, expected):
    assert batch.read_list(text) == expected


SPACES = "\x0b\x0c\x1c\x1f\x85\u00a0\u2003\u2028\u2029\u202f\u3000"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        *((f"good\nx{space}--randaugment", "line 2 of the list, .* white space") for space in SPACES),
        *((f"x --data_dir /d{space}--randaugment", "line 1 of the list, .* white space") for space in SPACES),
        ("a\n--randaugment", "line 2 .*'--randaugment' is no plain name"),
        ("- a --randaugment", "line 1 .*'-' is no plain name"),
        ("'' --randaugment", "line 1 .*'' is no plain name"),
        ("'a b' --randaugment", "line 1 .*'a b' is no plain name"),
        ("a\u200b --randaugment", "line 1 .* is no plain name"),
        ("\ufeff\ufeffa", "line 1 .* is no plain name"),
        ("a\udce4 --randaugment", "line 1 .* is no plain name"),
        ("a --randaugment \\\n--zero_gamma", "line 1 .*escaped"),
        ("a\nb\nA/", "lines 1 and 3 of the list name A/ twice, or what may be the same folder"),
        ("\u00e4\na\u0308", "lines 1 and 2"),
    ],
)
def test_what_is_no_plain_line_is_refused_with_its_number(text, words):
    with pytest.raises(UserError, match=words):
        batch.read_list(text)


@pytest.mark.parametrize("path", sorted((ROOT / "assets").rglob("*.txt")), ids=lambda path: path.stem)
def test_the_lists_of_published_studies_can_be_run_as_they_say(path):
    text = path.read_text()
    command = " ".join(line.strip("# \\\n") for line in text.split("\nbaseline")[0].splitlines())
    flags = shlex.split(command.partition("-m utils.batch ")[2].partition("<")[0])
    commands = batch.make_commands(batch.read_list(text), flags, ["0", "1", "2"])
    assert len(commands) >= 3 * 8
    assert all(options.contradiction(parse_args([*command])) is None for command in commands.values())


def test_flags_for_all_come_before_an_experiments_own():
    commands = batch.make_commands(
        {"a": ["--optimizer", "RADAM"]}, ["--optimizer", "ADAM", "--epochs", "3"], []
    )
    args = parse_args(commands["a"])
    assert (args.optimizer, args.epochs, args.checkpoint_name) == ("RADAM", 3, "a")


def test_help_tells_what_a_list_is(capsys):
    assert batch.main(["--help"], "") == 0
    assert "< LIST" in capsys.readouterr().out


def test_each_seed_has_runs_of_its_own():
    commands = batch.make_commands({"a": [], "b": []}, [], ["0", "7"])
    assert list(commands) == ["a/seed0", "b/seed0", "a/seed7", "b/seed7"]  # one seed's table is whole early
    assert [parse_args(command).seed for command in commands.values()] == [0, 0, 7, 7]


@pytest.mark.parametrize(
    ("argv", "text", "variables", "named"),
    [
        (["--epochs", "0"], "a", {}, "--epochs"),
        (["--nonsense"], "a", {}, "--nonsense"),
        (["--overwrite"], "a", {}, "--overwrite"),
        (["--checkpoint_name=x"], "a", {}, "--checkpoint_name"),
        ([], "a --predict x", {}, "--predict is not for a batch"),
        ([], "a --inspect", {}, "--inspect is not for a batch"),
        (["--seed", "3"], "a", {"SEEDS": "1 2"}, "--seed"),
        ([], "a --mixup much", {}, "--mixup"),
        ([], "a\nb --cutmix_alpha 1.0", {}, "b: --cutmix_alpha"),
        ([], "a\nb --checkpoint_name c", {}, "--checkpoint_name"),
        ([], "a --seed=3", {"SEEDS": "1 2"}, "--seed"),
        ([], "a\nb\na", {}, "lines 1 and 3 of the list name a twice"),
        ([], "# nothing\n\n", {}, "no experiments"),
        ([], "a 'open", {}, "a 'open"),
        ([], "a", {"SEEDS": "1 one"}, "SEEDS"),
        ([], "a", {"SEEDS": "1 1"}, "SEEDS"),
        ([], "a", {"GPUS": "0;1"}, "GPUS"),
        ([], "a", {"GPUS": "0 2", "CUDA_VISIBLE_DEVICES": "4,5"}, "GPUS names 2"),
        ([], "a", {"GPUS": "1", "CUDA_VISIBLE_DEVICES": "4,-1,5"}, "shows only 1, numbered from 0"),
        ([], "a", {"GPUS": "G-b 1", "CUDA_VISIBLE_DEVICES": "G-a,G-b"}, "names a card twice"),
        ([], "../a", {}, "../a"),
        ([], "a\0b", {}, "'a\\x00b' is no plain name of a run"),
        (["--data_dir", "nowhere"], "a", {}, "nowhere"),
    ],
)
def test_a_mistake_is_told_in_one_line_before_anything_starts(
    argv, text, variables, named, capsys, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(batch, "MAIN", tmp_path / "would fail")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    try:
        code = batch.main(argv, text)
    except SystemExit as stop:
        code = stop.code
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert named in err


# In place of main.py: does what the run's name says.
FAKE = """
import os, pathlib, signal, sys, time
name = sys.argv[sys.argv.index("--checkpoint_name") + 1]
print("card", os.environ.get("CUDA_VISIBLE_DEVICES"), flush=True)
if name == "bad":
    sys.exit("main.py: the reason")
if name == "late" and not os.path.exists("begun"):
    pathlib.Path("begun").touch()
    sys.exit(75)
if name == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if name == "slow":
    def stop(number, frame):
        print("saved")
        sys.exit(128 + number)
    signal.signal(signal.SIGTERM, stop)
    print("ready", flush=True)
    time.sleep(30)
pathlib.Path(name).write_text("done")
"""


@pytest.fixture
def fake_main(tmp_path, monkeypatch, shapes):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "main.py").write_text(FAKE)
    monkeypatch.setattr(batch, "MAIN", tmp_path / "main.py")
    monkeypatch.setattr(batch, "catch", lambda handler: None)  # pytest's own stay
    return ["--data_dir", str(shapes)]


def test_a_failed_run_does_not_stop_the_others(fake_main, capfd, tmp_path):
    assert batch.main(fake_main, "bad\nkilled\ngood") == 1
    out = capfd.readouterr().out
    assert (tmp_path / "good").exists()
    assert (
        "1 of 3 runs are done\nfailed: bad: main.py: the reason\nfailed: killed: killed by SIGKILL\n" in out
    )


def test_the_time_that_is_left_is_that_of_the_runs_so_far(fake_main, capfd, tmp_path):
    (tmp_path / "checkpoint/before").mkdir(parents=True)
    (tmp_path / "checkpoint/before/result.json").write_text("{}")  # finished, which takes no time now
    flags = run_flags(parse_args([*fake_main, "--checkpoint_name", "before"]))
    write_json(tmp_path / "checkpoint/before/args.json", {"flags": flags})
    assert batch.main(fake_main, "before\none\ntwo\nthree") == 0
    said = [line for line in capfd.readouterr().out.splitlines() if line.startswith("batch ")]
    assert [line.split(", about")[0] for line in said] == ["batch    2 runs left", "batch    1 run left"]
    assert all(re.fullmatch(r".*, about \d+ s", line) for line in said)


def test_each_card_has_one_run_at_a_time(fake_main, capfd, tmp_path, monkeypatch):
    monkeypatch.setenv("GPUS", "2,5")
    names = [f"run{number}" for number in range(6)]
    assert batch.main(fake_main, "\n".join(names)) == 0
    out = capfd.readouterr().out
    assert all((tmp_path / name).exists() for name in names)
    assert {line for line in out.splitlines() if "card" in line} <= {
        f"{name}: card {card}" for name in names for card in (2, 5)
    }
    assert "card 2" in out
    assert "card 5" in out


def test_a_signal_is_passed_on_and_starts_nothing_more(fake_main, tmp_path):
    program = f"""
import pathlib, sys
from utils import batch
batch.MAIN = pathlib.Path("main.py")
sys.exit(batch.main({fake_main!r}, "slow\\ngood"))
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=environment, cwd=tmp_path
    )
    out = ""
    while "ready" not in out:
        out += process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    out += process.communicate(timeout=20)[0]
    assert process.returncode == 143
    assert "saved" in out
    assert "0 of 2 runs are done\nstopped; the same command goes on" in out
    assert not (tmp_path / "good").exists()


def test_a_batch_is_stopped_killed_and_goes_on_to_the_same_results(program, shapes):
    """With the real main.py: Ctrl-C, then SIGKILL to all of its processes, then to the end."""
    text = "plain\nsmooth --label_smooth 0.1\n"
    folder = program.folder
    where = ["--checkpoint_dir", str(folder / "checkpoint"), "--cache_dir", str(folder / "cache")]
    command = [sys.executable, "-m", "utils.batch", "--data_dir", str(shapes), *SMALL, *where]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "SEEDS": "1"}
    listed = folder / "list.txt"
    listed.write_text(text)

    def start():
        with listed.open() as stdin:
            return subprocess.Popen(
                command,
                stdin=stdin,
                stdout=subprocess.PIPE,
                text=True,
                env=environment,
                start_new_session=True,
            )

    for number, moment, code in ((signal.SIGINT, "1/2 ", 130), (signal.SIGKILL, "2/2: ", -9)):
        process = start()
        for line in process.stdout:
            if moment in line:
                break
        os.killpg(process.pid, number)
        process.communicate(timeout=30)
        assert process.returncode == code
    process = start()
    out = process.communicate(timeout=60)[0]
    assert process.returncode == 0
    assert "2 of 2 runs are done" in out
    assert "checkpoint/plain/seed1 is finished" in out
    for name, *flags in (("plain/seed1",), ("smooth/seed1", "--label_smooth", "0.1")):
        straight = f"straight/{name}"
        assert program(straight, *SMALL, "--seed", "1", *flags) == 0
        assert (program.run(name) / "predictions.csv").read_text() == (
            program.run(straight) / "predictions.csv"
        ).read_text()

    started = time.perf_counter()
    again = start()
    out = again.communicate(timeout=30)[0]
    assert out.count("is finished") == 2
    assert "train loss" not in out
    assert time.perf_counter() - started < 10


def start_batch(program, shapes, name, *flags, names="abcd"):
    """A batch with the real main.py, as one of several."""
    folder = program.folder
    (folder / "list.txt").write_text("\n".join(names))
    where = ["--checkpoint_dir", str(folder / "checkpoint"), "--cache_dir", str(folder / "cache")]
    with (folder / "list.txt").open() as stdin, (folder / name).open("w") as out:
        return subprocess.Popen(
            [sys.executable, "-m", "utils.batch", "--data_dir", str(shapes), *SMALL, *flags, *where],
            stdin=stdin,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            start_new_session=True,
        )


def output_of(program, name):
    return (program.folder / name).read_text()


def test_batches_on_one_list_train_each_experiment_once(program, shapes):
    names = ["first", "second", "third"]
    processes = [start_batch(program, shapes, name) for name in names]
    assert [process.wait(timeout=300) for process in processes] == [0, 0, 0]
    outputs = [output_of(program, name) for name in names]
    assert all("4 of 4 runs are done" in out for out in outputs)
    trained = [out.count("\ntricks ") for out in outputs]
    assert sum(trained) == 4, outputs
    assert sorted(trained)[1] > 0  # at least two of them had work
    for run in "abcd":
        assert len((program.run(run) / "log.csv").read_text().splitlines()) == 3


def test_what_a_killed_batch_leaves_is_done_by_another(program, shapes):
    first = start_batch(program, shapes, "first", "--epochs", "30", names="ab")
    wait_until(lambda: " 3/30 " in output_of(program, "first"))
    second = start_batch(program, shapes, "second", "--epochs", "30", names="ab")
    wait_until(lambda: output_of(program, "second").count("\ntricks ") == 1)  # of b: a is in use
    os.killpg(first.pid, signal.SIGKILL)
    assert second.wait(timeout=300) == 0
    out = output_of(program, "second")
    assert out.count("\ntricks ") == 2
    assert out.count(" 3/30 ") == 1  # of b
    assert len((program.run("a") / "log.csv").read_text().splitlines()) == 31


def test_who_is_waited_for_is_said_once_and_a_signal_ends_it(program, shapes):
    with RunFolder(str(program.folder / "checkpoint"), "b").claim():
        process = start_batch(program, shapes, "first", names="ab")
        wait_until(lambda: "waiting" in output_of(program, "first"))
        time.sleep(batch.SECONDS_BETWEEN_LOOKS + 1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 143
    out = output_of(program, "first")
    assert re.findall("^batch    waiting, since (.*)", out, re.MULTILINE) == [
        f"{program.run('b')} is in use by process {os.getpid()} on {socket.gethostname()}"
    ]
    assert "1 of 2 runs are done\nstopped; the same command goes on" in out
    assert program.run("b").exists() is False


def test_a_run_that_another_process_has_just_begun_is_tried_later(fake_main, capfd, tmp_path):
    """Between the look at its lock and its own start."""
    assert batch.main(fake_main, "late\nother") == 0
    out = capfd.readouterr().out
    assert out.index("other --") < out.rindex("late --")
    assert "2 of 2 runs are done" in out


def test_a_folder_that_cannot_be_looked_at_does_not_stop_the_others(fake_main, capfd, tmp_path):
    (tmp_path / "checkpoint/a/.lock").mkdir(parents=True)
    assert batch.main(fake_main, "a\nb") == 0
    assert "2 of 2 runs are done" in capfd.readouterr().out


@pytest.mark.parametrize("args", [None, "--sam 1"])
def test_a_finished_run_of_other_flags_does_not_stop_the_others(fake_main, args, capfd, tmp_path):
    (tmp_path / "checkpoint/a").mkdir(parents=True)
    (tmp_path / "checkpoint/a/result.json").write_text("{}")
    if args:
        flags = run_flags(parse_args(["--checkpoint_name", "a", *fake_main, *args.split()]))
        write_json(tmp_path / "checkpoint/a/args.json", {"flags": flags})
    assert batch.main([*fake_main, "--sam", "2"], "a\nb") == 0  # main.py, which is not here, refuses it
    assert "2 of 2 runs are done" in capfd.readouterr().out


def test_finished_runs_that_are_to_be_longer_are_not_done(fake_main, tmp_path):
    command = ["--checkpoint_name", "a", *fake_main, "--milestones", "1", "2", "--epochs"]
    (tmp_path / "checkpoint/a").mkdir(parents=True)
    (tmp_path / "checkpoint/a/result.json").write_text("{}")
    write_json(tmp_path / "checkpoint/a/args.json", {"flags": run_flags(parse_args([*command, "3"]))})
    assert list(batch.unfinished({"a": [*command, "3"]})) == []
    assert list(batch.unfinished({"a": [*command, "5"]})) == ["a"]


@pytest.mark.parametrize(
    ("visible", "card", "expected"),
    [
        (None, "1", "1"),
        ("4,5", "1", "5"),
        ("4, 5", "0", "4"),
        ("GPU-8a,GPU-8b", "1", "GPU-8b"),
        ("GPU-8a,GPU-8b", "GPU-8b", "GPU-8b"),
        ("4,5", None, "4,5"),
        ("4,5,-1,6", "1", "5"),
    ],
)
def test_a_card_is_one_of_those_that_are_visible(visible, card, expected, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    environment = batch.environment(card)
    assert environment.get("CUDA_VISIBLE_DEVICES") == expected
    assert environment["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"  # as nvidia-smi numbers them
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "FASTEST_FIRST")
    assert batch.environment(card)["CUDA_DEVICE_ORDER"] == "FASTEST_FIRST"


def test_a_dry_run_starts_nothing_and_estimates(fake_main, capfd, tmp_path):
    argv = [*fake_main, "--model", "RegNetX-200MF", "--image_size", "32", "--batch_size", "16"]
    assert (
        batch.main([*argv, "--dry_run", "--epochs", "50"], "plain\nmixed --mixup 0.2\nother --norm evonorm")
        == 0
    )
    out = capfd.readouterr().out
    assert "python main.py --checkpoint_name mixed --data_dir" in out
    assert "0 of 3 runs are done" in out
    assert "RegNetX-200MF, batchnorm, 16 images of 32 x 32: 2 at" in out
    assert "RegNetX-200MF, evonorm, 16 images of 32 x 32: 1 at" in out
    assert out.index("estimate about ") < out.index("python main.py")  # which is the answer
    assert not (tmp_path / "plain").exists()
    assert {path.name.partition(".")[2] for path in (tmp_path / "cache").iterdir()} == {
        "looks.npy",
        "looks.lock",
    }  # which the runs will need
