"""The training step."""

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel as DDP

from learning.augment import Augment, Normalise, one_view_each, shape_of
from learning.ema import Ema
from learning.mixing import Mixing
from learning.sam import at_the_sharpest
from learning.share import Share, WholeBatch
from network.layers import random_layers
from network.norm import synchronise
from utils.errors import RunFailed
from utils.run.device import autocast
from utils.run.group import Group
from utils.run.randomness import Draws
from utils.run.transfer import to_device

Losses = Callable[[nn.Module, torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


class Totals:
    """Loss, hits, images and seconds of the training part of an epoch so far.

    Steps leave their loss and hits on the device; `collect` fetches all that wait there at once, so
    that the host does not wait for the device at every step. The sums do not depend on when.
    """

    def __init__(
        self,
        loss: float = 0.0,
        hits: int = 0,
        images: int = 0,
        seconds: float = 0.0,
        group: Group | None = None,
    ):
        self.loss, self.hits, self.images, self.seconds = loss, hits, images, seconds
        self.group = group
        self._waiting: list[tuple[int, int, torch.Tensor]] = []
        self.start_clock()

    def start_clock(self) -> None:
        """Leave the time since the last `collect` out of `seconds`."""
        self._clock = time.perf_counter()

    def add(self, step: int, images: int, loss: torch.Tensor, hits: torch.Tensor) -> None:
        """Note the mean `loss` and the number of `hits` of one step over `images` images.

        With a `group` both are this process's part, and what is fetched is the sum.
        """
        # Hits are whole in float32 up to 16 million images a step, and not all devices have float64.
        self._waiting.append((step, images, torch.stack((loss.detach().float(), hits.float()))))

    def collect(self) -> "Totals":
        """Fetch what waits on the device and return it apart, as the totals since the last time.

        Raises `RunFailed` naming the first step whose loss is not finite.
        """
        values = []
        if self._waiting:
            waiting = torch.stack([value for _, _, value in self._waiting])
            values = (self.group.sum(waiting) if self.group else waiting).tolist()
        recent = Totals(seconds=time.perf_counter() - self._clock)
        for (step, images, _), (loss, hits) in zip(self._waiting, values, strict=True):
            if not math.isfinite(loss):
                raise RunFailed(
                    f"the loss of step {step} is {loss}: try a smaller --learning_rate, a warm-up, or fp32"
                )
            for totals in (self, recent):
                totals.loss += loss * images
                totals.hits += int(hits)
                totals.images += images
        self._waiting.clear()
        self.seconds += recent.seconds
        self.start_clock()
        return recent

    def state_dict(self) -> dict[str, float]:
        """The arguments that make the same totals again; what waits on the device is not in them."""
        return {"loss": self.loss, "hits": self.hits, "images": self.images, "seconds": self.seconds}


class Trainer:
    """Runs training steps; step t is a function of the state, the batch and (seed, t) alone.

    `lr_factor` maps a step to the factor of the learning rate, `augment` and `mixing` change a uint8 batch,
    `normalise` makes the network's input of it, and `criterion` maps the network, its inputs and target
    probabilities [N, K] to the loss of each image and the logits [N, K]. The loss of a step is the mean. With
    a `sam_rho` its gradients are taken at the sharpest place so far from the weights (`learning.sam`).

    The images of a step go through the network in `accumulate` batches, which takes the memory of one.
    Gradients longer than `grad_clip` over all parameters are scaled down to it; how long they are is left in
    `gradient_norm`, without clipping of every `norm_interval`-th step. For the first
    `freeze_steps` steps only `network.head` is trained, with the norm statistics as they are. When
    `compiled`, all from the normalisation to the loss and back is one graph of torch.compile's;
    augmentation and mixing stay outside, whose shapes and numbers change with the draws.

    Of several processes each takes its part of every step's batch, which `shares` knows, and `train_step`
    gets what that loads. Gradients and the statistics of norms are those of the whole batch of the `group`;
    with `norms_apart` the statistics are of each process's own images, and the mean of running ones is kept.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        lr_factor: Callable[[int], float],
        augment: Augment,
        normalise: Normalise,
        mixing: Mixing,
        criterion: Losses,
        num_classes: int,
        precision: str,
        seed: int,
        device: torch.device,
        accumulate: int = 1,
        grad_clip: float | None = None,
        freeze_steps: int = 0,
        ema_decay: float | None = None,
        sam_rho: float | None = None,
        norm_interval: int = 1,
        compiled: bool = False,
        shares: Share | None = None,
        group: Group | None = None,
        norms_apart: bool = False,
    ):
        self.network = network
        self.shares = shares
        self.group = group
        self.norms_apart = norms_apart and group is not None
        if group and not norms_apart:
            synchronise(network, group)
        self.replica = group.replicate(network) if group else network
        # A graph for each batch size and kind of pixels, of which there are at most two each.
        self.loss_and_hits = (
            torch.compile(self._loss_and_hits, dynamic=False) if compiled else self._loss_and_hits
        )
        self.optimizer = optimizer
        self.lr_factor = lr_factor
        self.augment = augment
        self.normalise = normalise
        self.mixing = mixing
        self.criterion = criterion
        self.precision = precision
        self.seed = seed
        self.device = device
        self.accumulate = accumulate
        self.grad_clip = grad_clip
        self.freeze_steps = freeze_steps
        self.sam_rho = sam_rho
        self.norm_interval = norm_interval
        self.ema = None if ema_decay is None else Ema(network, ema_decay)
        self.random_layers = random_layers(network)
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
        self.one_hot = torch.eye(num_classes, device=device)
        self.base_lrs = [group["lr"] for group in optimizer.param_groups]
        self.frozen = False
        self.gradient_norm = torch.zeros(())
        self.step = 0
        self.totals = self.no_totals()

    def no_totals(self) -> Totals:
        """Those of an epoch that begins."""
        return Totals(group=self.group)

    @property
    def learning_rate(self) -> float:
        """The learning rate of the last step (of the first parameter group)."""
        return self.optimizer.param_groups[0]["lr"]

    def train_step(
        self, images: torch.Tensor, labels: torch.Tensor, aspects: np.ndarray | None = None
    ) -> None:
        """One step on images uint8 [N, 3, H, W] with labels int64 [N], both on the device.

        `aspects` [N], on the host, are the widths over heights of what squeezed images show.
        """
        part = self.shares(self.step) if self.shares else WholeBatch(len(images), self.accumulate)
        draws = Draws(self.seed, self.step, part.at_hand)
        own_draws = Draws(self.seed, self.step, part.places)
        count = len(images) if part.places is None else len(part.places)
        changes, factors = to_device(
            (self.augment.draw(draws, shape_of(images, aspects)), self._draw_layers(own_draws, count)),
            self.device,
        )
        factor = self.lr_factor(self.step)
        for group, base in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
            group["lr"] = base * factor

        images = self.augment.apply(images, changes)
        mixed, targets = map(part.own, self.mixing(images, self.one_hot[labels], draws.of_step("mixing")))

        self._set_mode()
        loss, hits = self._backward(part, mixed, targets, factors)
        if self.sam_rho is not None:
            with at_the_sharpest(self.network, self.sam_rho):
                self._backward(part, mixed, targets, factors)
        if self.grad_clip is not None or (self.step + 1) % self.norm_interval == 0:
            self.scaler.unscale_(self.optimizer)
            gradients = [each.grad for each in self.network.parameters() if each.grad is not None]
            self.gradient_norm = nn.utils.get_total_norm(gradients)
        if self.grad_clip is not None:
            nn.utils.clip_grads_with_norm_(self.network.parameters(), self.grad_clip, self.gradient_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.norms_apart:
            self._average_statistics()
        if self.ema is not None:
            self.ema.update(self.step)

        self.totals.add(self.step, part.count, loss, hits)
        self.step += 1

    def _draw_layers(self, draws: Draws, count: int) -> list[np.ndarray]:
        """What each of the random layers does to the images."""
        columns: Counter[str] = Counter()
        for layer in self.random_layers:
            columns[layer.stream] += layer.columns
        left = {stream: draws.of_places(stream, count, number) for stream, number in columns.items()}
        factors = []
        for layer in self.random_layers:
            uniforms, left[layer.stream] = np.split(left[layer.stream], [layer.columns], axis=1)
            factors.append(layer.draw(uniforms))
        return factors

    def _set_mode(self) -> None:
        """Put the network into training mode, but for what is frozen at this step."""
        frozen = self.step < self.freeze_steps
        if self.network.training and self.frozen == frozen:
            return
        self.network.train()
        if frozen != self.frozen:
            for name, parameter in self.network.named_parameters():
                parameter.requires_grad_(not frozen or name.startswith(f"{self.network.head}."))
            if self.group:
                self.replica = self.group.replicate(self.network)  # which waits for what has gradients
        if frozen:
            for module in self.network.modules():
                if hasattr(module, "running_var"):
                    module.eval()
        self.frozen = frozen

    def _backward(
        self, part: WholeBatch, pixels: torch.Tensor, targets: torch.Tensor, factors: list[torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Add up the gradients of the mean loss over the batch; returns that loss and the hits.

        `factors` are those of each of the random layers. Of a part of the batch it is that part of the mean.
        """
        total = hits = torch.zeros((), device=self.device)
        views = pixels.shape[1] // 3
        whole = (pixels, targets, *factors)
        batches = zip(*map(part.split, whole), strict=True) if part.batches > 1 else [whole]
        for number, (batch, batch_targets, *batch_factors) in enumerate(batches, 1):
            for layer, of_layer in zip(self.random_layers, batch_factors, strict=True):
                layer.factors = of_layer.repeat_interleave(views, 0) if views > 1 else of_layer
            with self._gradients_apart(number < part.batches):
                with autocast(self.device, self.precision):
                    loss, batch_hits = self.loss_and_hits(batch, batch_targets)
                loss = loss * (len(batch) / part.count)
                self.scaler.scale(loss).backward()
            total = total + loss.detach()
            hits = hits + batch_hits
        for layer in self.random_layers:
            layer.factors = None
        return total, hits

    def _gradients_apart(self, apart: bool) -> AbstractContextManager:
        """Where gradients are only added to those that each process has."""
        return self.replica.no_sync() if apart and isinstance(self.replica, DDP) else nullcontext()

    def _average_statistics(self) -> None:
        """Put the means over the processes in place of the running statistics of norms."""
        assert self.group
        statistics = [each for name, each in self.network.named_buffers() if "running_" in name]
        if statistics:
            means = self.group.sum(torch.cat(statistics)) / self.group.size
            torch._foreach_copy_(statistics, list(means.split([len(each) for each in statistics])))

    def _loss_and_hits(
        self, pixels: torch.Tensor, targets: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The mean loss over the images, and how many were taken for the class of their largest target."""
        inputs = self.normalise(one_view_each(pixels))
        losses, logits = self.criterion(self.replica, inputs, targets)
        return losses.mean(), (logits.detach().argmax(1) == targets.argmax(1)).sum()

    def state_dict(self) -> dict:
        """All that the next step depends on beside the batch, and the epoch's totals so far."""
        self.totals.collect()
        return {
            "network": self.network.state_dict(),
            "ema": None if self.ema is None else self.ema.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "step": self.step,
            "totals": self.totals.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`."""
        self.network.load_state_dict(state["network"])
        if self.ema is not None:
            self.ema.network.load_state_dict(state["ema"])
        # But for the last step's learning rate, the settings are those of the torch and device that go on.
        pairs = zip(
            self.optimizer.state_dict()["param_groups"], state["optimizer"]["param_groups"], strict=True
        )
        groups = [{**ours, "lr": stored["lr"]} for ours, stored in pairs]
        self.optimizer.load_state_dict({**state["optimizer"], "param_groups": groups})
        self.scaler.load_state_dict(state["scaler"])
        self.step = state["step"]
        self.totals = Totals(**state["totals"], group=self.group)
