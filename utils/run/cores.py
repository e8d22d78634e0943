"""The cores of the CPU, and how threads wait on them."""

import os

from utils.world import World

SPINS = "16000"  # of a waiting thread, before it lets others have its core


def wait_briefly() -> None:
    """Let waiting OpenMP threads spin a little and then sleep, unless the environment says how they wait.

    It has to be called before torch is imported. Threads that only spin, as they do without it, take the
    cores from those that work as soon as a machine has other work too: training then went at a tenth of its
    speed (docs/speed.md). The results are the same to the bit.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = SPINS


def cores() -> int:
    """How many cores of the CPU this process may use, beside others of the same run on this machine."""
    all_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(all_cores // World.of(os.environ).local_size, 1)
