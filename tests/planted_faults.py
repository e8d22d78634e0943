"""Faults for the pretend GPU to find, by name: each is a context in which the program has it."""

from collections.abc import Callable
from contextlib import nullcontext
from unittest.mock import patch

import torch
import torch.nn.functional as F

import learning.evaluator
import learning.mixing
import learning.optimizer
import learning.setup
import utils.data.batches
import utils.run.checkpoint
import utils.run.transfer
from learning.augment import Flip, Normalise
from learning.trainer import Totals
from network.layers import Conv2d
from network.norm import BatchNormAct
from utils.data.batches import Loader


def before(owner: type, name: str, act: Callable):
    """A method that first calls `act` with the same arguments."""
    method = getattr(owner, name)

    def planted(*args):
        act(*args)
        return method(*args)

    return patch.object(owner, name, planted)


def after(owner: type, name: str, change: Callable):
    """A method whose result is changed."""
    method = getattr(owner, name)
    return patch.object(owner, name, lambda *args: change(method(*args)))


def flip_by_a_mask(flip, images, drawn):
    images = images.clone()
    images[drawn] = images[drawn].flip(-1)
    return images


def convolve_in_fp32(layer, images):
    with torch.autocast("cuda", enabled=False):
        return F.conv2d(images.bfloat16(), layer.weight, None, layer.stride, layer.padding, 1, layer.groups)


def only_once(function: Callable) -> Callable:
    """A function that does nothing when it is called again."""
    calls = []
    return lambda *args: None if calls else (calls.append(args), function(*args))[1]


def stack_on_the_host(tensors, dim=0):
    return torch.cat([tensor.unsqueeze(dim).cpu() for tensor in tensors], dim)


def torchs_radam(groups, learning_rate, fused):
    return torch.optim.RAdam(groups, learning_rate, foreach=True)


PLANTS = {
    "": nullcontext,
    "a loss that is read": lambda: before(Totals, "add", lambda *args: args[3].item()),
    "images in float64": lambda: before(Normalise, "__call__", lambda normalise, images: images.double()),
    "a mask": lambda: patch.object(Flip, "apply", flip_by_a_mask),
    "pageable memory": lambda: patch.object(utils.run.transfer, "pinned", lambda tensor, device: tensor),
    "pageable images": lambda: patch.object(utils.data.batches, "pinned", lambda tensor, device: tensor),
    "a constant from the host": lambda: before(
        Normalise, "__call__", lambda normalise, images: torch.tensor([1.0, 2.0], device=images.device)
    ),
    "an index on the host": lambda: patch.object(
        learning.mixing, "partners", lambda batch: batch[torch.arange(len(batch)).roll(-1)]
    ),
    "statistics on the host": lambda: before(
        Normalise, "__call__", lambda normalise, _: setattr(normalise, "scale", normalise.scale.cpu())
    ),
    "another memory order": lambda: after(BatchNormAct, "forward", torch.Tensor.contiguous),
    "an operation without order": lambda: before(
        Normalise, "__call__", lambda normalise, images: images.float().cumsum(0)
    ),
    "a convolution of two precisions": lambda: patch.object(Conv2d, "forward", convolve_in_fp32),
    "a checkpoint of the device": lambda: patch.object(
        utils.run.checkpoint, "tree_map_only", lambda kind, function, content: content
    ),
    "a device without a number": lambda: patch.object(
        learning.setup, "choose_device", lambda name: torch.cuda.set_device(torch.device("cuda"))
    ),
    "no current card": lambda: patch.object(torch.cuda, "set_device", lambda device: None),
    "no current card in the thread": lambda: patch.object(
        torch.cuda, "set_device", only_once(torch.cuda.set_device)
    ),
    "a stream for each loading": lambda: before(
        Loader, "__call__", lambda loader, lists: torch.cuda.Stream(loader.device)
    ),
    "an evaluation that waits": lambda: patch.object(learning.evaluator.torch, "stack", stack_on_the_host),
    "a RAdam that waits": lambda: patch.dict(learning.optimizer.OPTIMIZERS, RADAM=torchs_radam),
}
