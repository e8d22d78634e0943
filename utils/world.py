"""The processes of a run that torchrun started, as its environment names them."""

from collections.abc import Mapping
from dataclasses import dataclass

NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


@dataclass(frozen=True)
class World:
    """Which process this is: of `size` in all, of `local_size` on its machine."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> "World":
        """That of torchrun's environment; one process alone where that is not whole."""
        if not {*NAMES, "MASTER_ADDR", "MASTER_PORT"} <= environ.keys():
            return cls()
        return cls(*(int(environ[name]) for name in NAMES))
