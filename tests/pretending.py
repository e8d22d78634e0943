"""The process behind `PretendGpu`: python -m tests.pretending, with its library loaded before torch.

Tensors are torch's fake ones on "cuda". Real are dispatch, autograd, autocast, dtypes, shapes, strides and
torch's checks of devices; pretended are kernels, values, streams, pinned memory and files of tensors. `Watch`
looks at each operation and notes what a GPU would refuse, or suffer from.
"""

import contextlib
import io
import json
import os
import signal
import sys
import traceback
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import IO

import numpy as np
import torch
from torch import nn
from torch._subclasses import fake_tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

CARDS = 2

# Operations whose result has a shape, or is a number, that the host must know.
WAITS = (
    *("nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive", "is_nonzero"),
    *("equal", "bincount"),
)
# From torch's documentation of `use_deterministic_algorithms`: what raises on CUDA when it is set.
NOT_DETERMINISTIC = (
    *("adaptive_max_pool2d", "adaptive_max_pool2d_backward", "_adaptive_avg_pool2d_backward", "bincount"),
    *("avg_pool3d_backward", "max_pool3d_with_indices", "max_unpool2d", "fractional_max_pool2d_backward"),
    *("cumsum", "grid_sampler_2d_backward", "histc", "kthvalue", "median.dim", "nll_loss2d_forward", "put_"),
    *("reflection_pad2d_backward", "replication_pad2d_backward", "scatter_reduce", "scatter_reduce_"),
    *("upsample_bilinear2d_backward", "upsample_bicubic2d_backward", "upsample_nearest2d_backward"),
)
COPIES = ("_to_copy", "copy_", "to")
EMPTY = ("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided")
NO_KERNEL = (*EMPTY, "_unsafe_view", "detach")


def device_of(tensor: torch.Tensor) -> torch.device:
    return tensor.fake_device if isinstance(tensor, FakeTensor) else tensor.device


def memory_format(tensor: torch.Tensor) -> torch.memory_format | None:
    """The memory order of feature maps that can only have one; None of others.

    So of the last and smallest maps: the gradient of their mean, from which all begins, has any order.
    """
    if tensor.dim() != 4 or not tensor.is_floating_point() or tensor.shape[2] * tensor.shape[3] < 16:
        return None
    formats = (torch.contiguous_format, torch.channels_last)
    has = [order for order in formats if tensor.is_contiguous(memory_format=order)]
    return has[0] if len(has) == 1 else None


class Watch(TorchDispatchMode):
    """Sees each operation before it is pretended, and notes faults, with the line of the project they are on.

    Waits, slow copies and memory orders count `in_step`; a device other than the current one always does.
    """

    def __init__(self):
        super().__init__()
        self.current = 0  # the card that torch computes on in this thread unless told otherwise
        self.in_step = False
        self.memory_format: torch.memory_format | None = None  # of feature maps
        self.faults: dict[str, str] = {}
        self.streams = self.steps = self.stop_at = 0
        self.capability = (9, 0)
        self.count()

    def count(self) -> None:
        """Start counting anew."""
        self.kernels = self.operations = self.copies = 0

    def fault(self, what: str) -> None:
        self.faults.setdefault(what, place())

    def wait(self, what: str) -> None:
        """The host waits for the device."""
        if self.in_step:
            self.fault(f"wait: {what}")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        full_name = func._schema.name.partition("::")[2]
        if func._schema.overload_name:
            full_name += f".{func._schema.overload_name}"
        name = full_name.partition(".")[0]
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        if name in ("_local_scalar_dense", "item"):
            if device_of(given[0]).type == "cuda":
                self.wait("a number is read")
            return {torch.bool: False}.get(given[0].dtype, 0.5 if given[0].is_floating_point() else 0)
        result = func(*args, **kwargs)
        made = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        if func._schema.name.startswith("aten::"):
            places = {device_of(tensor).type for tensor in (*given, *made)}
            if name in COPIES and len(places) > 1:
                self.look_at_copy(given[-1], made[0], args, kwargs)
            elif "cuda" in places:
                self.operations += 1
                self.kernels += not (func.is_view or name in NO_KERNEL)
                self.look_at(name, full_name, given, made, func.is_view)
        return result

    def look_at_copy(self, source: torch.Tensor, target: torch.Tensor, args: tuple, kwargs: dict) -> None:
        """A copy between host and device."""
        self.copies += 1
        if device_of(target).type == "cpu":
            self.wait(f"a copy to the host, {tuple(source.shape)}")
            return
        self.look_at_card(target)
        if not (kwargs.get("non_blocking") or args[2:3] == (True,)):
            self.wait(f"a copy to the device, {tuple(source.shape)}")
        elif not getattr(source, "is_pretended_pinned", False):
            self.wait(f"a copy of pageable memory to the device, {tuple(source.shape)}")

    def look_at_card(self, tensor: torch.Tensor) -> None:
        if device_of(tensor).index != self.current:
            self.fault(f"card: {device_of(tensor)} is used while cuda:{self.current} is the current one")

    def look_at(self, name: str, full_name: str, given: list, made: list, is_view: bool) -> None:
        """An operation on the device."""
        for tensor in (*given, *made):
            if device_of(tensor).type == "cuda":
                self.look_at_card(tensor)
                if tensor.dtype == torch.float64 and tensor.dim() > 0:
                    self.fault(f"float64: {full_name}")  # slow on most cards, and Apple's have none
            elif tensor.dim() > 0:
                self.fault(f"devices: {full_name} of the device and the host")
        if {name, full_name} & set(NOT_DETERMINISTIC):
            self.fault(f"not deterministic: {full_name}")
        masked = name in ("index", "index_put_") and any(tensor.dtype == torch.bool for tensor in given[1:])
        if name in WAITS or masked:
            self.wait(full_name)
        if name in ("convolution", "addmm", "mm") and len({tensor.dtype for tensor in given}) > 1:
            self.fault(f"dtypes: {full_name} of {[str(tensor.dtype) for tensor in given]}")
        if self.memory_format is not None and not is_view:
            before, after = (
                {memory_format(tensor) for tensor in tensors} - {None} for tensors in (given, made)
            )
            if self.memory_format in before and after and self.memory_format not in after:
                self.fault(f"memory order: lost in {full_name}, {tuple(made[0].shape)}")


def place() -> str:
    """The innermost line of the project on the stack."""
    root = str(Path(__file__).resolve().parent.parent)
    for frame in reversed(traceback.extract_stack()):
        inside = frame.filename.startswith(root)
        if inside and "/tests/" not in frame.filename and "/.venv" not in frame.filename:
            return f"{frame.filename[len(root) + 1 :]}:{frame.lineno}"
    return "backward"


watch = Watch()


class Stream:
    """Of `torch.cuda.Stream` as much as is used here, without doing anything."""

    def __init__(self, device: torch.device):
        watch.streams += 1
        if device.index != watch.current:
            watch.fault(f"card: a stream of {device} while cuda:{watch.current} is the current one")

    def record_event(self) -> object:
        return object()

    def wait_event(self, event: object) -> None:
        pass


def pretend() -> None:
    """Give torch two cards, on which fake tensors live."""
    cuda, current = torch.cuda, SimpleNamespace(wait_event=lambda event: None)

    def set_device(device):
        watch.current = cuda._utils._get_device_index(device)  # torch's own check: it must have a number

    cuda.init = lambda: None
    cuda.is_available = lambda: True
    cuda.is_current_stream_capturing = lambda: False
    cuda.device_count = lambda: CARDS
    cuda.current_device = lambda: watch.current
    cuda.set_device = set_device
    cuda.synchronize = lambda device=None: watch.wait("synchronize")
    cuda.get_device_capability = lambda device=None: watch.capability
    cuda.get_device_name = lambda device=None: "Pretend GPU"
    cuda.is_bf16_supported = lambda including_emulation=True: True
    cuda.max_memory_allocated = lambda device=None: 0
    cuda.manual_seed_all = cuda.manual_seed = lambda seed: None
    cuda.Stream, cuda.stream = Stream, lambda stream: contextlib.nullcontext()
    cuda.current_stream = lambda device=None: current
    cuda.amp.common.amp_definitely_not_available = lambda: False
    torch.backends.cuda.is_built = lambda: True

    fake_tensor.init_gpu_context = lambda device: None
    FakeTensorMode.avoid_device_init = property(lambda mode: True)
    torch._C._ensureCUDADeviceGuardSet()
    torch._C._conv_determine_backend_memory_format = convolution_format
    kernels = torch.library.Library("aten", "IMPL", "Meta")
    kernels.impl("_fused_sgd_", lambda *args, **kwargs: None)
    kernels.impl("_amp_update_scale_", lambda scale, *args: scale)
    pretend.kernels = kernels  # which are forgotten when this object is deleted

    def pin_memory(tensor):
        copied = tensor.clone(memory_format=torch.preserve_format)
        copied.is_pretended_pinned = True
        return copied

    # torch's exchanges tensors in a way that fake ones do not allow
    def apply(module, function, recurse=True):
        for part in module.modules():
            for name, parameter in part._parameters.items():
                if parameter is not None:
                    value = function(parameter.detach())
                    part._parameters[name] = nn.Parameter(value, parameter.requires_grad)
            part._buffers.update({name: function(buffer) for name, buffer in part._buffers.items()})
        return module

    torch.Tensor.pin_memory, torch.Tensor.record_stream = pin_memory, lambda tensor, stream: None
    torch.Tensor.numpy = values_of(torch.Tensor.numpy, lambda array: array)
    torch.Tensor.tolist = values_of(torch.Tensor.tolist, np.ndarray.tolist)
    # torch's copies a tensor's memory, of which there is none
    FakeTensor.__deepcopy__ = lambda tensor, memo: tensor.detach().clone()
    nn.Module._apply = apply
    torch.save, torch.load = save, load


def values_of(real: Callable, form: Callable) -> Callable:
    """A method like `real` that makes values up for fake tensors, in the form of `form`."""

    def method(tensor):
        if not isinstance(tensor, FakeTensor):
            return real(tensor)
        if device_of(tensor).type == "cuda":
            watch.wait(real.__name__)
        value = 0.5 if tensor.is_floating_point() else 0
        return form(np.full(tuple(tensor.shape), value, str(tensor.dtype).removeprefix("torch.")))

    return method


def convolution_format(images: torch.Tensor, weight: torch.Tensor, backend: object) -> torch.memory_format:
    """cuDNN's choice: channels_last if the images or the weights have it."""
    orders = {torch._prims_common.suggest_memory_format(tensor) for tensor in (images, weight)}
    return torch.channels_last if torch.channels_last in orders else torch.contiguous_format


FILES: list[dict] = []
real_load = torch.load


def save(content: dict, file: IO) -> None:
    """Keep the content here, and in the file the number under which it is found."""
    for leaf in tree_leaves(content):
        if isinstance(leaf, torch.Tensor) and device_of(leaf).type != "cpu":
            watch.fault(f"checkpoint: a tensor on {device_of(leaf)}")
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("pretended", str(len(FILES)))
    FILES.append(tree_map_only(torch.Tensor, lambda tensor: tensor.detach().clone(), content))


def load(file: Path | IO, **settings: object) -> dict:
    with zipfile.ZipFile(file) as archive:
        if "pretended" not in archive.namelist():
            if not isinstance(file, Path):
                file.seek(0)
            return real_load(file, **settings)
        content = FILES[int(archive.read("pretended"))]
    return tree_map_only(torch.Tensor, torch.clone, content)


def as_a_thread(items: Iterator, check: Callable) -> Iterator:
    """`utils.data.batches._ahead` without a thread, which would not pretend, but with a card of its own."""
    card = 0
    while True:
        before, watch.current, watch.in_step = watch.current, card, True
        try:
            item = next(items)
        except StopIteration:
            return
        finally:
            card, watch.current, watch.in_step = watch.current, before, False
        yield item


def in_steps(method: Callable) -> Callable:
    """A method of `Trainer` during which waits count."""

    def watched(trainer, *args):
        watch.count()
        watch.in_step = True
        try:
            result = method(trainer, *args)
        finally:
            watch.in_step = False
        watch.steps += 1
        if watch.steps == watch.stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        return result

    return watched


def in_networks(method: Callable) -> Callable:
    """A method of `Trainer` during which memory orders count."""

    def watched(trainer, *args):
        watch.memory_format = trainer.normalise.memory_format
        try:
            return method(trainer, *args)
        finally:
            watch.memory_format = None

    return watched


def between_batches(evaluate: Callable) -> Callable:
    """`evaluate`, where waits count until the last batch is through."""

    def watched(network, batches, views, precision):
        def handed_out():
            for batch in batches:
                watch.in_step = True
                yield batch
                watch.in_step = False

        return evaluate(network, handed_out(), views, precision)

    return watched


def no_pairs(*arguments: object) -> "NearPairs":
    """Of `utils.data.near`, where no two images show nearly the same."""
    return NearPairs(np.empty((0, 2), np.int64), np.empty(0, np.float32))


def take_steps(argv: list[str]) -> None:
    """Two steps of a run, of which the second is counted."""
    parts = assemble(options.parse_args(argv), None, lambda: None)
    trainer = make_trainer(parts)
    batches = make_fit(parts, trainer, Path(), None).batches_from(0)
    for _ in range(2):
        trainer.train_step(*next(batches))


def answer(do: str, argv: list[str], plant: str = "", stop_at: int = 0, capability: tuple = (9, 0)) -> dict:
    """Do "steps" or "main" with the flags `argv` on cards of a compute capability, with a fault planted.

    `main` gets SIGTERM after `stop_at` steps. The answer says the exit code, what was printed, the `faults`
    and where they are, the `error` that ended it, and what was counted in the last step.
    """
    watch.__init__()
    utils.data.batches.copy_stream.cache_clear()  # each run has its own, as in a process of its own
    watch.stop_at, watch.capability = stop_at, tuple(capability)
    printed, error, code = io.StringIO(), "", 0
    try:
        with (
            PLANTS[plant](),
            contextlib.redirect_stdout(printed),
            contextlib.redirect_stderr(printed),
            mode,
            watch,
        ):
            code = take_steps(argv) if do == "steps" else main.main(argv)
    except SystemExit as stop:
        code = stop.code
    except Exception:
        error = traceback.format_exc()
    about = {name: getattr(watch, name) for name in ("faults", "kernels", "operations", "copies", "streams")}
    return {"exit": code or 0, "printed": printed.getvalue(), "error": error, **about}


if __name__ == "__main__":
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever prints by itself
    pretend()

    import learning.classifier
    import main
    import network.weights
    import options
    import utils.data.batches
    import utils.data.copies
    from learning.setup import assemble, make_fit, make_trainer
    from learning.trainer import Trainer
    from tests.planted_faults import PLANTS
    from utils.data.near import NearPairs

    utils.data.batches._ahead = as_a_thread
    network.weights._is_usable = lambda *tensors: True  # which depends on values
    utils.data.copies.near_pairs = no_pairs  # which run on the CPU here, and depend on values
    learning.classifier.evaluate = between_batches(learning.classifier.evaluate)
    Trainer.train_step = in_steps(Trainer.train_step)
    Trainer._backward = in_networks(Trainer._backward)
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    print("ready", file=replies, flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(**json.loads(line))), file=replies, flush=True)
    os._exit(0)
