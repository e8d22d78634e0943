"""Run a list of experiments: python -m utils.batch [--dry_run] [flags of main.py] < LIST.

A line of the list is a run's name and its flags, with spaces or tabs between; quotes and backslashes mean
what they mean in a shell, and a word that begins with # begins a comment. The flags of the command line go
to every run, before its own, so that each stays what its name says. SEEDS="0 1 2" in the environment runs
each experiment once per seed, as NAME/seed0 and so on; GPUS="0 1" runs one at a time on each of these cards.
Finished runs are left alone, interrupted ones go on, and one that fails does not stop the others. Started on
several machines that share the folder of the runs, each takes the next run that none of them is doing.
"""

import itertools
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path, PurePath
from types import FrameType

import options
from utils.console import said_if_slow, say
from utils.data.demo import draw_demo
from utils.data.folders import Splitting, find_dataset
from utils.errors import Busy, UserError, explain
from utils.run.cores import wait_briefly
from utils.run.folder import RunFolder
from utils.run.signals import catch
from utils.text import count, duration, one_form, visible

MAIN = Path(__file__).resolve().parent.parent / "main.py"

SECONDS_BETWEEN_LOOKS = 5.0  # at runs that other processes do
QUOTED = r"""'[^']*'|"(?:\\.|[^"\\])*"|\\.#*"""  # or escaped, with what would look like a comment then

Commands = dict[str, list[str]]  # the flags of each run, by its name, in the order of the list


def main(argv: Sequence[str], text: str) -> int:
    """Run the experiments of the list `text` with the flags `argv`; returns the exit code."""
    if {"-h", "--help"} & set(argv):
        print(f"{__doc__}\nThe flags are those of main.py: python main.py --help.")
        return 0
    extra = [flag for flag in argv if flag != "--dry_run"]
    try:
        seeds, cards = words("SEEDS", r"\d+"), words("GPUS", r"[\w-]+")
        places = {environment(card)["CUDA_VISIBLE_DEVICES"] for card in cards}  # before anything is started
        if len(places) < len(cards):
            raise UserError(f'GPUS="{" ".join(cards)}" names a card twice, by its place and by its name')
        commands = make_commands(read_list(text), extra, seeds)
        left = unfinished(commands)
        if len(extra) < len(argv):
            dry_run(commands, left, cards=len(cards) or 1)
            return 0
        return Batch(commands, cards, left).run()
    except UserError as error:
        return fail(error)
    except OSError as error:
        return fail(explain(error, Path(), "try again"))


def fail(error: UserError) -> int:
    """Say in one line what went wrong; returns the exit code."""
    print(f"batch: {visible(error)}", file=sys.stderr)
    return error.exit_code


def words(variable: str, pattern: str) -> list[str]:
    """The words of an environment variable, each of which must match; raises `UserError`."""
    found = os.environ.get(variable, "").replace(",", " ").split()
    for word in found:
        if not re.fullmatch(pattern, word) or found.count(word) > 1:
            raise UserError(f'{variable}="{" ".join(found)}": give numbers with spaces between, each once')
    return found


def read_list(text: str) -> Commands:
    """The experiments of a list; raises `UserError` for a line that is not plain, a name twice, or none."""
    experiments: Commands = {}
    lines: dict[str, int] = {}  # where each folder's name is
    for number, line in enumerate(re.split(r"\r\n|\r|\n", text.removeprefix("\ufeff")), 1):
        try:
            words = split_line(line)
        except ValueError as error:
            raise UserError(f"line {number} of the list, {line!r}: {error}") from error
        if not words:
            continue
        name, *flags = words
        folder = one_form(str(PurePath(name))).casefold()  # as some systems compare them
        if folder in lines:
            raise UserError(
                f"lines {lines[folder]} and {number} of the list name {name} twice, or what may be the "
                "same folder; give each experiment a name of its own"
            )
        lines[folder] = number
        experiments[name] = flags
    if not experiments:
        raise UserError("no experiments: give a list of them, as in python -m utils.batch < LIST")
    return experiments


def split_line(line: str) -> list[str]:
    """The words of a line of the list, none of an empty one; raises `ValueError` for what is not plain."""
    line = re.sub(rf"({QUOTED})|(?<!\S)#.*", r"\1", line)
    words = shlex.split(line)
    if re.search(r"[^\S \t]", re.sub(QUOTED, "", line)):
        raise ValueError("it has white space that is neither a space nor a tab; type it anew, or quote it")
    for name in words[:1]:
        if not name.isprintable() or " " in name or name.startswith("-") or not name:
            raise ValueError(f"{name!r} is no plain name of a run; begin the line with one")
    return words


def make_commands(experiments: Commands, extra: Sequence[str], seeds: Sequence[str]) -> Commands:
    """The flags of each run. Raises `UserError`, or exits with code 2 if main.py knows no such flags."""
    own = {"--checkpoint_name", "--overwrite", "--inspect", *(f"--{use}" for use in options.USES)}
    own |= {"--seed"} if seeds else set()
    commands = {}
    for seed in seeds or [""]:
        for name, flags in experiments.items():
            for flag in own & {flag.split("=")[0] for flag in (*extra, *flags)}:
                raise UserError(
                    f"{flag} is not for a batch, which decides that itself; leave it out, or choose another "
                    "--checkpoint_dir"
                )
            run = f"{name}/seed{seed}" if seed else name
            commands[run] = ["--checkpoint_name", run, *extra, *flags, *(["--seed", seed] if seed else [])]
            options.parse_args([*commands[run], "--resume"])
    return commands


def unfinished(commands: Commands) -> dict[str, Namespace]:
    """The runs with something left to do. Raises `UserError` if one cannot start, or without images."""
    left = {}
    for run, command in commands.items():
        args = options.parse_args([*command, "--resume"])
        folder = folder_of(args)
        try:
            if options.nothing_left(args, folder):
                continue
        except (UserError, OSError):  # which main.py will say, and the others go on
            continue
        problem = options.contradiction(args)
        if problem and not (folder / "last.pt").exists():  # else the run's own flags count
            raise UserError(f"{run}: {problem}")
        left[run] = args
    data = {(args.data_dir, Splitting.of(args)) for args in left.values() if not args.demo}  # drawn first
    for folder, how in sorted(data, key=str):
        find_dataset(Path(folder), 0, how=how)
    return left


def environment(card: str | None) -> dict[str, str]:
    """The environment of a run on one card: of `GPUS`, as a place (from 0) among the visible ones, or a name.

    Cards are numbered as nvidia-smi does it. Raises `UserError` for a card that is not visible.
    """
    environ = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", **os.environ}
    if card is None:
        return environ
    visible_cards = environ.get("CUDA_VISIBLE_DEVICES")
    if visible_cards is not None:
        names = [name.strip() for name in visible_cards.split(",")]
        names = list(itertools.takewhile(lambda name: name not in ("", "-1"), names))  # as CUDA reads it
        chosen = dict(zip(map(str, range(len(names))) if card.isdigit() else names, names, strict=True))
        if card not in chosen:
            shown = f'CUDA_VISIBLE_DEVICES="{visible_cards}" shows only {len(names)}, numbered from 0'
            raise UserError(f"GPUS names {card}, but {shown}")
        card = chosen[card]
    return environ | {"CUDA_VISIBLE_DEVICES": card}


class Batch:
    """Runs that are started one after the other, on several cards beside each other.

    A run that another process is doing waits until that has done it, or is gone. A signal is passed on to
    the runs that are going, which save and stop; no other is started then.
    """

    def __init__(self, commands: Commands, cards: Sequence[str], left: dict[str, Namespace]):
        self.commands = commands
        self.cards: Sequence[str | None] = cards or [None]
        self.waiting = list(commands)
        self.going: dict[str, subprocess.Popen] = {}
        self.failed: dict[str, str] = {}
        self.done = 0
        self.stopped = 0
        self.stopping = threading.Event()
        self.left = dict(left)  # of the runs that have something to do
        self.trained: list[float] = []  # the seconds of those that were done
        self.lock = threading.Lock()

    def run(self) -> int:
        """Run them all and say what came of them; returns the exit code."""
        catch(self._stop)
        workers = [threading.Thread(target=self._work, args=(card,)) for card in self.cards]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()

        print(f"\n{self.done} of {len(self.commands)} runs are done")
        for run, reason in self.failed.items():
            print(f"failed: {run}: {reason}")
        if self.stopped:
            print("stopped; the same command goes on")
            return 128 + self.stopped
        if self.done:
            directory = options.parse_args(next(iter(self.commands.values()))).checkpoint_dir
            print(f"compare them with: python -m utils.report {shlex.quote(directory)}")
        return 1 if self.done < len(self.commands) else 0

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if not self.stopped:
            self.stopping.set()
        self.stopped = number
        for process in list(self.going.values()):
            process.send_signal(number)

    def _work(self, card: str | None) -> None:
        while run := self._next():
            try:
                self._run_one(card, run)
            except (OSError, ValueError, UserError) as error:
                self.failed[run] = str(error)

    def _next(self) -> str | None:
        """The next run that nobody is doing; None when all are done."""
        said: set[str] = set()
        while not self.stopped:
            reasons = []
            for run in list(self.waiting):
                args = self.left.get(run)
                if self.stopped:
                    return None
                if in_use := args and folder_of(args).in_use:
                    reasons.append(in_use)
                    continue
                with self.lock:
                    if run in self.waiting:  # else another worker was faster
                        self.waiting.remove(run)
                        return run
            if not self.waiting:
                return None
            for reason in reasons:
                if reason not in said:
                    say("batch", f"waiting, since {reason}")
            said.update(reasons)
            self.stopping.wait(SECONDS_BETWEEN_LOOKS)
        return None

    def _run_one(self, card: str | None, run: str) -> None:
        command = self.commands[run]
        number = f"{list(self.commands).index(run) + 1}/{len(self.commands)}"
        if run in self.left and options.nothing_left(self.left[run], folder_of(self.left[run])):
            with self.lock:
                del self.left[run]  # by another process
        mark = f"{run}: " if len(self.cards) > 1 else ""  # else lines of several runs could be mixed up
        print(f"\n== {number}{f' on GPU {card}' if card else ''}: {shown(command)}", flush=True)
        began = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, str(MAIN), *command, "--resume"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=environment(card),
        )
        self.going[run] = process
        if self.stopped:  # between the check and the start
            process.send_signal(self.stopped)
        line = ""
        for line in process.stdout or ():
            print(mark + line, end="", flush=True)
        code = process.wait()
        busy = code == Busy.exit_code  # another process began it just now
        if busy and not self.waiting:
            self.stopping.wait(SECONDS_BETWEEN_LOOKS)
        with self.lock:
            del self.going[run]
            if code == 0:
                self.done += 1
                self._say_left(run, time.monotonic() - began)
            elif busy:
                self.waiting.append(run)
            elif not self.stopped:
                self.left.pop(run, None)
                self.failed[run] = line.strip() if code > 0 else f"killed by {signal.Signals(-code).name}"

    def _say_left(self, run: str, seconds: float) -> None:
        """Say how long the rest of the list takes, by the runs so far, when one has come to its end."""
        if self.left.pop(run, None) is None:
            return
        self.trained.append(seconds)
        folders = {each: folder_of(args) for each, args in self.left.items()}
        left = {each for each, folder in folders.items() if not folder.finished}
        elsewhere = sum(bool(folders[each].in_use) for each in left.intersection(self.waiting))
        if left:
            rest = len(left) * sum(self.trained) / len(self.trained) / (len(self.cards) + elsewhere)
            others = f", of which other processes do {elsewhere}" * bool(elsewhere)
            say("batch", f"{count(len(left), 'run')} left{others}, about {duration(rest)}")


def folder_of(args: Namespace) -> RunFolder:
    """That of a run."""
    return RunFolder(args.checkpoint_dir, args.checkpoint_name)


def shown(command: Sequence[str]) -> str:
    """A run's command line, to copy."""
    return shlex.join(["python", "main.py", *command, "--resume"])


def dry_run(commands: Commands, left: dict[str, Namespace], cards: int) -> None:
    """Say how long what is left of the list takes, and print the commands."""
    estimate(commands, left, cards)
    for command in commands.values():
        print(shown(command))


def estimate(commands: Commands, left: dict[str, Namespace], cards: int) -> None:
    """Say how long what is left of the list takes, by one step of each network."""
    say("batch", f"{len(commands) - len(left)} of {len(commands)} runs are done")
    if not left:
        return
    with said_if_slow("loading", "torch"):
        from utils.benchmark import Ours, rates

    measured: dict[tuple, float] = {}  # images a second
    sizes: dict[tuple, dict[str, int]] = {}  # of the splits
    hours: dict[tuple, list[float]] = {}
    for args in left.values():
        args.cache, args.num_workers = "off", 0  # for the images of one step
        args.pretrained, args.pretrained_path = 0, None  # a step takes as long
        kind = (args.model, args.norm, args.image_size, args.batch_size, args.sam is not None, args.augmix)
        if kind not in measured:
            say(
                "measured",
                f"a step of {args.model}, {args.norm}, {args.image_size} x {args.image_size} pixels",
            )
            ours = Ours(args)
            measured[kind] = rates({"step": ours.synthetic}, rounds=1, steps_a_round=1)["step"]
            del ours
        data = (args.demo, args.data_dir, Splitting.of(args))
        if data not in sizes:
            if args.demo:
                draw_demo(Path(args.data_dir), lambda: None)
            sizes[data] = find_dataset(Path(args.data_dir), args.seed, how=Splitting.of(args)).sizes()
        # Validation is a forward pass, a third of a step's work.
        images = epochs_left(args) * (sizes[data]["train"] + sizes[data]["val"] / 3)
        hours.setdefault(kind, []).append(images / measured[kind] / 3600)
    for kind, each in hours.items():
        model, norm, size, batch, sam, augmix = kind
        what = f"{model}, {norm}{', SAM' * sam}{', AugMix' * augmix}, {batch} images of {size} x {size}"
        say("runs", f"{what}: {len(each)} at {measured[kind]:.1f} images/s, {duration(3600 * sum(each))}")
    total = 3600 * sum(map(sum, hours.values())) / cards
    say("estimate", f"about {duration(total)} of training{f' on {cards} GPUs' * (cards > 1)}")


def epochs_left(args: Namespace) -> int:
    """The epochs that a run has yet to train."""
    log = folder_of(args) / "log.csv"
    return args.epochs - (len(log.read_text().splitlines()) - 1 if log.exists() else 0)


if __name__ == "__main__":
    wait_briefly()
    nothing = sys.stdin is None or sys.stdin.isatty()
    sys.exit(main(sys.argv[1:], "" if nothing else sys.stdin.buffer.read().decode(errors="surrogateescape")))
