"""Processes that compute one step together: sums over them, and what each of them has."""

import warnings
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

# Of depthwise weights, whose strides in channels_last have two forms; both are right.
warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")

# Who waits for others does so for as long as they live: of the dead `utils.run.together` knows.
FOR_EVER = timedelta(days=365)


class Group:
    """All `size` processes, or those of `part`. Their sums come to the same bits in each."""

    def __init__(self, size: int, part: dist.ProcessGroup | None = None):
        self.size = size
        self.part = part

    def __deepcopy__(self, memo: object) -> "Group":
        return self  # of the layers of a network that is copied

    def first(self, count: int) -> "Group":
        """That of the first `count` of all processes, each of which has to call this."""
        return Group(count, dist.new_group(range(count)))  # type: ignore[arg-type]  # or a number, of no part

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum over all, in place of the tensor."""
        dist.all_reduce(tensor, group=self.part)
        return tensor

    def most(self, tensor: torch.Tensor) -> Any:
        """Begin to put the largest over all in place of the tensor; the result's `wait` ends it."""
        return dist.all_reduce(tensor, dist.ReduceOp.MAX, self.part, async_op=True)

    def gather(self, value: Any) -> list[Any]:
        """What each has, by rank."""
        values = [None] * self.size
        dist.all_gather_object(values, value, self.part)
        return values

    def replicate(self, network: nn.Module) -> DistributedDataParallel:
        """The network whose gradients are added up over all while the backward pass goes on."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of a name that older ones do not know
            replica = DistributedDataParallel(network, process_group=self.part, broadcast_buffers=False)
        replica.register_comm_hook(self.part, _summed)
        return replica


def _summed(part: dist.ProcessGroup | None, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
    """Where torch's own would take the mean: each loss is weighed by its share of the whole batch."""
    work = dist.all_reduce(bucket.buffer(), group=part, async_op=True)
    return work.get_future().then(lambda done: done.value()[0])


def connect(store: dist.Store, rank: int, size: int, cuda: bool) -> Group:
    """The group of all processes, over a store that they share."""
    backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=FOR_EVER)
    return Group(size)
