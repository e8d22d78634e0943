"""The processes of one run: how they meet, agree and end.

Alone, everything here is what a single process does. With others (`World`), steps are computed by the
`Group`; whatever is decided is decided by all at the same step, and the first process alone writes. A thread
watches the others: signals reach all of them, and when one dies or fails the others end, with one line that
names it.
"""

import os
import secrets
import socket
import sys
import threading
import time
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from utils.errors import Interrupted, ProgramError, RunFailed, UserError
from utils.run.signals import StopSignal
from utils.text import count, shortened, visible
from utils.world import World

Item = TypeVar("Item")
Found = TypeVar("Found")

SECONDS_BETWEEN_LOOKS = 0.5
SECONDS_OF_SILENCE = 30.0  # of a process on another machine that is not thought dead yet
SECONDS_TO_END = 5.0  # that a process has to end by itself after it is known that all have to
SECONDS_TO_STOP = 25.0  # in which several signals are one: torchrun kills after 30
LONGEST_FACT = 60  # characters of what differs


class Together:
    """One process alone."""

    world = World()
    group: Any = None  # a `utils.run.group.Group`, of several

    def __init__(self, stop: StopSignal):
        self.stop = stop

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.world.rank == 0

    def check(self) -> None:
        """Raise `Interrupted` if a signal asks to stop, where this process may stop by itself."""
        self.stop.check()

    @contextmanager
    def first_of_machine_first(self) -> Iterator[None]:
        """Within this context one process of each machine prepares what the others then find done."""
        yield

    @contextmanager
    def in_step(self) -> Iterator[None]:
        """Within this context all do the same steps, and stop by `agree` or `merged` alone."""
        yield

    def agree(self, wish: bool) -> bool:
        """After a step: whether all do what the first wishes. Raises `Interrupted` in all of them."""
        return wish

    def mine(self, items: Iterable[Item]) -> Iterator[Item]:
        """Of items that are shared out, those of this process."""
        return iter(items)

    def merged(
        self,
        items: Iterable[Item],
        find: Callable[[Iterable[Item]], Found],
        join: Callable[[list[Found]], Found],
    ) -> Found:
        """What is found for the items of all, in their order. Raises `Interrupted` in all processes.

        What several of them find for one item each is joined.
        """
        return find(items)

    def device_name(self, name: str) -> str:
        """The `--device` of this process."""
        return name

    def refuse_unlike(self, facts: Callable[[], dict[str, object]]) -> None:
        """Raise `UserError` in all processes if what they have is not the same."""

    def refuse_unshared(self, folder: Path) -> None:
        """Raise `UserError` in all processes if one does not find a folder that the first made."""

    def failed(self, error: ProgramError) -> bool:
        """Let the others end as well; returns whether this process is to say the error itself."""
        return True


ALONE = Together(StopSignal())


class Joined(Together):
    """One of several processes, which meet when this is made."""

    def __init__(self, world: World, stop: StopSignal, args: Namespace):
        super().__init__(stop)
        import torch
        from torch import distributed as dist

        from utils.run.group import connect

        self.world = world
        self._pending: tuple[Any, Any] | None = None
        self._torch, self._dist = torch, dist
        self._in_step = False
        self._cuda = args.device == "cuda" or (args.device == "auto" and torch.cuda.is_available())
        store = _meet(dist, world, stop.check)
        self._guard = Guard(store, world, stop)
        self._guard.start()
        self.group = connect(store, world.rank, world.size, self._cuda)

    def device_name(self, name: str) -> str:
        if ":" in name or name in ("mps", "xpu"):
            raise UserError(
                f"--device {name}: of several processes each has a card of its own; give cuda or cpu"
            )
        if not self._cuda:
            return name
        if self.world.local_size > (cards := self._torch.cuda.device_count()):
            processes = f"{self.world.local_size} processes on this machine"
            raise UserError(f"{processes}, but torch sees {count(cards, 'GPU')}; start as many")
        return f"cuda:{self.world.local_rank}"

    def check(self) -> None:
        if not self._in_step:
            self.stop.check()

    @contextmanager
    def first_of_machine_first(self) -> Iterator[None]:
        if self.world.local_rank:
            self.group.gather(None)
        yield
        if not self.world.local_rank:
            self.group.gather(None)

    @contextmanager
    def in_step(self) -> Iterator[None]:
        self._in_step = True  # also afterwards: what stopped all of them stopped them together
        yield

    def agree(self, wish: bool) -> bool:
        """As of the step before, so that nobody waits for the others' answers."""
        answered, self._pending = self._pending, self._ask(wish and self.first)
        if answered is None:
            return False
        work, values = answered
        work.wait()
        number, wished = values.tolist()
        if number:
            self._pending[0].wait()
            raise Interrupted(number)
        return bool(wished)

    def _ask(self, wish: bool) -> tuple[Any, Any]:
        values = self._torch.tensor([self.stop.received or 0, int(wish)])
        return self.group.most(values), values

    def mine(self, items: Iterable[Item]) -> Iterator[Item]:
        for number, item in enumerate(items):
            if self.stop.received is not None:
                return  # `merged` says it to all
            if number % self.world.size == self.world.rank:
                yield item

    def merged(
        self,
        items: Iterable[Item],
        find: Callable[[Iterable[Item]], Found],
        join: Callable[[list[Found]], Found],
    ) -> Found:
        found = [find([item]) for item in items]
        gathered = self.group.gather((self.stop.received, found))  # after `mine` may have ended by a signal
        number = next((number for number, _ in gathered if number), None)
        if number:
            raise Interrupted(number)
        size = self.world.size
        total = sum(len(part) for _, part in gathered)
        return join([gathered[place % size][1][place // size] for place in range(total)])

    def refuse_unlike(self, facts: Callable[[], dict[str, object]]) -> None:
        gathered = self.group.gather((_name(self.world.rank), facts()))
        first, expected = gathered[0]
        for name, found in gathered:
            for what, value in expected.items():
                if found[what] != value:
                    two = " and ".join(shortened(each, LONGEST_FACT) for each in (value, found[what]))
                    raise UserError(
                        f"{first} and {name} differ in {what.replace('_', ' ')} ({two}); start all alike"
                    )

    def refuse_unshared(self, folder: Path) -> None:
        token = folder / f".{secrets.token_hex(8)}.part"
        if self.first:
            folder.mkdir(parents=True, exist_ok=True)
            token.touch()
        name = self.group.gather(token.name)[0]
        found = self.group.gather((_name(self.world.rank), (folder / name).exists()))
        token.unlink(missing_ok=True)
        if missing := [name for name, there in found if not there]:
            raise UserError(
                f"{missing[0]} does not see {folder} of the first process; give a folder that all share"
            )

    def failed(self, error: ProgramError) -> bool:
        interrupted = isinstance(error, Interrupted)
        if interrupted and self._guard.dead() is not None:  # for which torchrun sends the others a signal
            self.find_out()
        # The first has saved when it comes here, and then the others may end.
        self._guard.end_all(error, wait=interrupted and self._in_step and not self.first)
        return self.first

    def find_out(self) -> None:
        """Wait for why the others cannot be reached, which ends this process; return if they can be."""
        time.sleep(SECONDS_OF_SILENCE + 2 * SECONDS_TO_END)

    def leave(self) -> None:
        """End; the first, where the store may be, after all others."""
        self._guard.leave()
        self._dist.destroy_process_group()


class Guard(threading.Thread):
    """Watches the other processes, and passes signals on to them.

    Each shows by a key of the shared store that it lives. The first watches all, and the others the first.
    """

    def __init__(self, store: Any, world: World, stop: StopSignal):
        super().__init__(name="guard", daemon=True)
        self.store, self.world, self.stop = store.clone(), world, stop
        self._left = threading.Event()
        self._ending = False
        self._seen: dict[int, tuple[str, float]] = {}  # what each showed last, and since when
        self._beats = 0

    def run(self) -> None:
        while not self._left.wait(SECONDS_BETWEEN_LOOKS):
            try:
                self._look()
            except Exception as error:  # the store is gone
                self._end(1, f"the process that started this one is gone ({str(error).splitlines()[0]})")

    def _look(self) -> None:
        """Show that this process lives, and end it if it has to."""
        self._beats += 1
        shown = f"{_name(self.world.rank)}\n{os.getpid()}\n{self._beats}"
        self.store.set(f"lives/{self.world.rank}", shown)
        if self.stop.received is not None:
            self.store.set("signal", str(self.stop.received))
        elif self.store.check(["signal"]):
            self.stop.note(int(self.store.get("signal")))
        if not self.store.check(["over"]) and (dead := self.dead()):
            self._publish(RunFailed(dead))
        if self.store.check(["over"]):
            code, _, why = self.store.get("over").decode().partition("\n")
            self._end(int(code), why)

    def dead(self) -> str | None:
        """Which of those that are watched has died, in words."""
        watched = range(1, self.world.size) if self.world.rank == 0 else [0]
        for rank in watched:
            if not self.store.check([f"lives/{rank}"]) or self.store.check([f"left/{rank}"]):
                continue
            shown = self.store.get(f"lives/{rank}").decode()
            name, number, _ = shown.split("\n")
            before, since = self._seen.get(rank, ("", 0.0))
            if shown != before:
                self._seen[rank] = shown, time.monotonic()
                since = time.monotonic()
            here = name.endswith(f" on {socket.gethostname()}")
            if (here and _is_gone(int(number))) or time.monotonic() - since > SECONDS_OF_SILENCE:
                return f"{name} has died; what was saved before is whole: go on with --resume"
        return None

    def end_all(self, error: ProgramError, wait: bool) -> None:
        """Let the others know why this process ends or, to `wait`, end once they let it know."""
        self._ending = True
        if not wait:
            self._publish(error, "" if self.world.rank == 0 else f"{_name(self.world.rank)}: ")
        self._wait_for("over")

    def _publish(self, error: ProgramError, whose: str = "") -> None:
        if not self.store.check(["over"]):  # the first reason counts
            self.store.set("over", f"{error.exit_code}\n{whose}{visible(error)}")

    def _wait_for(self, *keys: str) -> None:
        """Wait until all of these are set, while this thread goes on looking."""
        while not self.store.check(list(keys)):
            time.sleep(0.1)

    def leave(self) -> None:
        """Stop watching, the first when all others have left."""
        self.store.set(f"left/{self.world.rank}", "")
        if self.world.rank == 0:
            self._wait_for(*(f"left/{rank}" for rank in range(self.world.size)))
        self._left.set()
        self.join()

    def _end(self, code: int, why: str) -> None:
        """End this process, unless it does so by itself; the first says why, or the second if that died."""
        if self._ending:
            time.sleep(SECONDS_TO_END)
        elif self.world.rank == 0 or (self.world.rank == 1 and why.startswith("process 0 ")):
            print(f"main.py: {why}", file=sys.stderr, flush=True)
        os._exit(code)


def _name(rank: int) -> str:
    return f"process {rank} on {socket.gethostname()}"


def _is_gone(number: int) -> bool:
    """Whether a process of this machine has ended, though its parent may not know it yet."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except FileNotFoundError:
        return Path("/proc").exists()


def _meet(dist: Any, world: World, check: Callable[[], None]) -> Any:
    """A store that these processes share, and not those that ran before torchrun started them anew.

    Each shows a word of its own; the first makes a list of them, and others take the list that has theirs.
    Counts of restarts would not do, which differ between machines.
    """
    hosted = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = dist.TCPStore(address, port, is_master=world.rank == 0 and not hosted, wait_for_workers=False)
    word = secrets.token_hex(8)
    store.set(f"word/{world.rank}", word)
    names = [f"word/{rank}" for rank in range(world.size)]
    while True:
        check()
        if world.rank == 0 and store.check(names):
            words = [store.get(name).decode() for name in names]
            store.set("met", " ".join(words))
        met = store.get("met").decode().split() if store.check(["met"]) else []
        if met and met[world.rank] == word:
            store.set(f"agreed/{world.rank}", " ".join(met))
            agreed = [f"agreed/{rank}" for rank in range(world.size)]
            if store.check(agreed) and all(store.get(name).decode().split() == met for name in agreed):
                return dist.PrefixStore(" ".join(met), store)
        time.sleep(0.05)


@contextmanager
def joined(args: Namespace, stop: StopSignal, world: World) -> Iterator[Together]:
    """The processes of the run, this one among them."""
    if world.size == 1:
        yield Together(stop)
        return
    together = Joined(world, stop, args)
    try:
        yield together
    except ProgramError as error:
        error.said = not together.failed(error)
        raise
    except RuntimeError:  # as torch says that another one cannot be reached
        together.find_out()
        raise
    together.leave()


def stop_signal(world: World) -> StopSignal:
    """That of this process; torchrun passes signals on, so that one may come twice."""
    return StopSignal(SECONDS_TO_STOP) if world.size > 1 else StopSignal()
