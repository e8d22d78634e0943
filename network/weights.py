"""Pretrained weights: where they come from, what they expect of their input, and loading them."""

import urllib.error
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from network import WeightsError
from network.evonorm import EvoNormS0
from network.norm import zero_residual_gammas


class Normalisation(NamedTuple):
    """What a network's input is: (RGB in [0, 1] - mean) / std, a number a channel."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


# BatchNorm's count of batches, which older files lack; nothing here depends on it.
COUNTER = ".num_batches_tracked"

IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class LoadedWeights:
    """What a load did: where the weights are from, the input they expect, and what it left fresh."""

    source: str
    normalisation: Normalisation
    loaded: int
    fresh: tuple[str, ...]

    def describe(self) -> str:
        """One line for the person who started the run."""
        text = f"{self.loaded} tensors from {self.source}"
        if self.fresh:
            text += f"; left fresh: {_few(self.fresh)}"
        return text


def load_weights(network: nn.Module, path: Path) -> LoadedWeights:
    """Load a weights file into `network`; nothing in the file is ever executed.

    Recognised are torchvision's state dicts and this project's checkpoints, which carry their own
    normalisation. A head for another number of classes is left as it is; every other difference
    raises `WeightsError` naming the keys.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise WeightsError(f"weights file {path}: {error.strerror}") from error
    except Exception as error:  # a stranger's file can fail in any way
        raise WeightsError(
            f"weights file {path} is damaged, or is no dictionary of tensors that loads without running code"
        ) from error
    if isinstance(content, dict) and {"network", "normalisation"} <= content.keys():
        normalisation = Normalisation(*(tuple(part) for part in content["normalisation"]))
        return _fill(network, content["network"], f"the checkpoint {path}", normalisation)
    return _fill(network, content, str(path), IMAGENET)


def load_torchvision_weights(network: nn.Module, name: str) -> LoadedWeights:
    """Load torchvision's ImageNet weights (IMAGENET1K_V1), fetched by torchvision on first use."""
    import torchvision  # slow to import, so only where it is needed

    weights = torchvision.models.get_model_weights(name.lower())["IMAGENET1K_V1"]
    place = Path(torch.hub.get_dir(), "checkpoints", weights.url.rpartition("/")[2])
    try:
        state = weights.get_state_dict(progress=True, check_hash=True)
    except (urllib.error.URLError, OSError, RuntimeError) as error:
        reason = getattr(error, "reason", error)
        raise WeightsError(
            f"could not fetch {weights.url} ({reason}); put that file at {place}, name another with "
            "--pretrained_path, or train from scratch with --pretrained 0"
        ) from error
    transforms = weights.transforms()
    normalisation = Normalisation(tuple(transforms.mean), tuple(transforms.std))
    return _fill(network, state, f"torchvision's {weights}", normalisation)


def _fill(network: nn.Module, state: object, source: str, normalisation: Normalisation) -> LoadedWeights:
    """Copy `state` into `network`, strictly but for what cannot fit.

    That is a head for another number of classes, and the norms of a network with EvoNorm if the file
    is of one without.
    """
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise WeightsError(f"{source} holds no state dict: expected tensors by name")
    own = network.state_dict()
    norms = tuple(f"{name}." for name, module in network.named_modules() if isinstance(module, EvoNormS0))
    if norms and not any(key.startswith(norms) and key.endswith(".v") for key in state):
        fresh = {key for key in own if key.startswith(norms)}
        state = {key: value for key, value in state.items() if not key.startswith(norms)}
    else:
        fresh = set()
    head = {key for key in own if key.startswith(f"{network.head}.")}
    fresh |= {key for key in head & state.keys() if own[key].shape != state[key].shape}

    expected = {key for key in own.keys() - fresh if not key.endswith(COUNTER)}
    found = {key for key in state.keys() - fresh if not key.endswith(COUNTER)}
    problems = {
        "missing": expected - found,
        "unexpected": found - expected,
        "of another shape": {key for key in expected & found if own[key].shape != state[key].shape},
    }
    if any(problems.values()):
        text = "; ".join(f"{kind}: {_few(sorted(keys))}" for kind, keys in problems.items() if keys)
        raise WeightsError(f"{source} does not fit {type(network).__name__} ({text}); is --model right?")
    network.load_state_dict({key: state[key] for key in expected}, strict=False)
    if network.zero_gamma:
        zero_residual_gammas(network)
    return LoadedWeights(source, normalisation, len(expected), tuple(sorted(fresh)))


def _few(keys: Sequence[str], most: int = 6) -> str:
    return ", ".join(keys[:most]) + (f" and {len(keys) - most} more" if len(keys) > most else "")
