"""Pretrained weights: where they come from, what input they expect, and loading them.

The state dicts here have torchvision's names, and timm's for ResNet-C and -D, so files of both load as
they are. The names of timm's other files, of pycls and of EfficientNet-Lite files are translated.
"""

import json
import urllib.error
from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from network import NETWORKS, WeightsError
from network.evonorm import EvoNorm
from network.files import read_file, unwrap
from network.members import REGNETS
from network.names import PYCLS_MARKS, PYCLS_NAMES, TIMM_MARKS, TIMM_NAMES, Names, State, translate
from network.norm import zero_residual_gammas
from utils.text import one_form, some


class Normalisation(NamedTuple):
    """What a network's input is: (RGB in [0, 1] - mean) / std, a number a channel."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @classmethod
    def of(cls, parts: Sequence[Sequence[float]]) -> "Normalisation":
        """That of a checkpoint, which holds lists."""
        (red, green, blue), (red_std, green_std, blue_std) = parts
        return cls((red, green, blue), (red_std, green_std, blue_std))


IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
LITE = Normalisation((127 / 255,) * 3, (128 / 255,) * 3)  # (x - 127) / 128 of levels 0 to 255

TIMM_LITE = Normalisation((0.5,) * 3, (0.5,) * 3)

KEYS_SHOWN = 6

# BatchNorm's count of batches, which older files lack; nothing here depends on it.
COUNTER = ".num_batches_tracked"


@dataclass(frozen=True)
class LoadedWeights:
    """What a load did: where the weights are from, the input they expect, and what it left fresh or out."""

    source: str
    normalisation: Normalisation
    loaded: int
    fresh: tuple[str, ...]
    warnings: tuple[str, ...]
    left_out: tuple[str, ...] = ()

    def describe(self) -> str:
        """One line for the person who started the run."""
        text = f"{self.loaded} tensors from {self.source}"
        for what, keys in (("left fresh", self.fresh), ("left out", self.left_out)):
            text += f"; {what}: {some(keys, KEYS_SHOWN)}" if keys else ""
        return text


def load_weights(network: nn.Module, path: Path, classes: Sequence[str] | None = None) -> LoadedWeights:
    """Load a weights file into `network`; nothing in the file is ever executed.

    Recognised are state dicts with the names of torchvision or timm, also as .safetensors (the `config.json`
    beside timm's says which network it is and what input it expects), pycls files (`model_state`, trained on
    BGR images: the stem is flipped, so that the network sees RGB), EfficientNet-Lite files (`_conv_stem`,
    `_blocks.N`), and this project's checkpoints and exports; all but those also within what training scripts
    put around them. What cannot fit is left as it is: a head that is not there, or for another number of
    classes, and the norms of an EvoNorm network if the file has others. So is a head for other classes than
    `classes`, where the file says for which it is. Every other difference raises `WeightsError` naming the
    keys, and so do numbers that are not finite.
    """
    content, knows_classes = read_file(path), False
    try:
        if {"network", "normalisation"} <= content.keys():
            loaded, knows_classes = _fill_from_ours(network, content, path, classes)
        else:
            loaded = _fill_from_others(network, content, path)
    except (AttributeError, TypeError, IndexError, ValueError) as error:
        raise WeightsError(f"weights file {path} holds something else than tensors by name") from error
    return loaded if knows_classes or classes is None else _tell_head(network, loaded)


def _fill_from_ours(
    network: nn.Module, content: dict, path: Path, classes: Sequence[str] | None
) -> tuple[LoadedWeights, bool]:
    """Fill the network from a checkpoint or export of this project, and say whether it tells its classes."""
    state, normalisation = content["network"], Normalisation.of(content["normalisation"])
    source, others = f"the checkpoint {path}", content.get("classes")
    if classes is not None and others is not None and [*map(one_form, others)] != [*classes]:
        state = {key: value for key, value in state.items() if not key.startswith(f"{network.head}.")}
        source += f", trained on other classes ({some(others, KEYS_SHOWN)})"
    return _fill(network, state, source, normalisation), others is not None


def _fill_from_others(network: nn.Module, content: dict, path: Path) -> LoadedWeights:
    """Fill the network from a file of another project's."""
    state, told = unwrap(content)
    source = f"{path}{f' ({told})' * bool(told)}"
    if PYCLS_MARKS & state.keys():
        loaded = _fill(network, from_pycls(state, network), f"pycls's {source}", IMAGENET)
        _make_up_for_epsilon(network, 1e-5)
        return loaded
    if "_conv_stem.weight" in state:
        return _fill(network, from_lite(state, network), f"EfficientNet-Lite's {source}", LITE)
    if type(network).__name__ == "ResNet" or TIMM_MARKS & state.keys():
        return _fill_from_timm(network, state, path, source)
    return _fill(network, state, source, IMAGENET)


def load_torchvision_weights(network: nn.Module, name: str, version: int = 1) -> LoadedWeights:
    """Load torchvision's ImageNet weights (IMAGENET1K_V1 or _V2), fetched by torchvision on first use."""
    import torchvision  # slow to import, so only where it is needed

    try:
        known = torchvision.models.get_model_weights(torchvision_name(name))
    except ValueError:
        known = {}
    if f"IMAGENET1K_V{version}" not in (weights.name for weights in known):
        what, instead = ("weights", "") if version == 1 else ("newer weights", "use --pretrained 1, ")
        raise WeightsError(
            f"torchvision has no {what} of {name}; {instead}name a file with --pretrained_path, "
            "or train from scratch with --pretrained 0"
        )
    weights = known[f"IMAGENET1K_V{version}"]
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
    return _tell_head(network, _fill(network, state, f"torchvision's {weights}", normalisation))


def _tell_head(network: nn.Module, loaded: LoadedWeights) -> LoadedWeights:
    """The same, with a warning if it has the last layer, of which nobody knows for which classes it is."""
    weight = f"{network.head}.weight"
    if weight in loaded.fresh:
        return loaded
    told = (
        "the last layer is taken as it is: the file does not say for which "
        f"{len(network.state_dict()[weight])} classes it was trained, and in which order"
    )
    return replace(loaded, warnings=(*loaded.warnings, told))


def _fill_from_timm(network: nn.Module, content: State, path: Path, source: str) -> LoadedWeights:
    """Fill the network from a file of timm's, or from a plain ResNet's, which may be torchvision's too."""
    member, notes = str(network.member), []
    place = path.with_name("config.json")
    config = _read_config(place) if place.is_file() else None
    architecture = config.get("architecture") if config else None
    is_timm = bool(TIMM_MARKS & content.keys())
    if config and isinstance(architecture, str):
        is_timm = True
        _check_architecture(architecture, member, place)
        normalisation = _normalisation_of(config, place)
    else:
        normalisation = TIMM_LITE if "Lite" in member else IMAGENET
        if is_timm or config is not None:
            lack = f"there is no {place}" if config is None else f"{place} is not timm's"
            notes.append(f"{lack}: {path.name} is {_assumption(member, normalisation)}")
    whose = "timm's " if is_timm else ""
    loaded = _fill(network, from_timm(content, network), f"{whose}{source}", normalisation)
    _make_up_for_epsilon(network, 1e-3 if "Lite" in member else 1e-5)
    return replace(loaded, warnings=(*notes, *loaded.warnings))


def _assumption(member: str, normalisation: Normalisation) -> str:
    """What a file of timm's is taken for where no `config.json` says what it is."""
    name = timm_name(member)
    twin = f", not {_twin(name)}" if member.startswith("EfficientNet") else ""
    mean, std = (", ".join(map(str, part)) for part in normalisation)
    return f"taken for timm's {name}{twin}, trained on images normalised by mean {mean} and std {std}"


def _read_config(place: Path) -> dict:
    """The object that a `config.json` holds; raises `WeightsError` if it holds none."""
    try:
        config = json.loads(place.read_bytes(), parse_int=float)
    except OSError as error:
        raise WeightsError(f"{place}: {error.strerror}") from error
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        raise WeightsError(f"{place} is damaged, since it holds no JSON object: restore it, or move it away")
    return config


def _check_architecture(architecture: str, member: str, place: Path) -> None:
    """Raise `WeightsError` unless the architecture, under timm's name, is the member's."""
    found = architecture.partition(".")[0]  # the name of a training follows the dot
    expected = timm_name(member)
    if found == expected:
        return
    ours = next((name for name in NETWORKS if timm_name(name) == found), None)
    if ours:
        advice = f"use --model {ours}"
    elif found == _twin(expected):
        advice = f"it pads in another way; use a file of {expected}"
    else:
        advice = f"no network here is that; use a file of {expected}"
    raise WeightsError(f"{place} says that the weights are of timm's {found}, not {expected}: {advice}")


def _normalisation_of(config: dict, place: Path) -> Normalisation:
    """That of a `config.json` of timm's; older ones have it outside of `pretrained_cfg`."""
    settings = config.get("pretrained_cfg", config)
    try:
        normalisation = Normalisation.of((settings["mean"], settings["std"]))
        numbers = [number for part in normalisation for number in part]
    except (KeyError, TypeError, ValueError):
        numbers = []
    if not numbers or not all(type(n) is float and 0 <= n <= 1 for n in numbers) or 0 in normalisation.std:
        raise WeightsError(
            f"{place} has no `mean` and `std` of three numbers from 0 to 1 each, those of `std` above 0: "
            "restore it, or move it away"
        )
    return normalisation


def _make_up_for_epsilon(network: nn.Module, epsilon: float) -> None:
    """Let gamma make up for an epsilon of batch norms that was another in training.

    EfficientNet-B5 to -B7 have torchvision's here, 1e-3, while timm's and pycls's have 1e-5.
    """
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and module.eps != epsilon:
            variance = module.get_buffer("running_var")
            module.weight.data *= ((variance + module.eps) / (variance + epsilon)).sqrt()


def timm_name(name: str) -> str:
    """What timm calls a member: RegNetY-8.0GF is regnety_080_tv, EfficientNet-Lite0 tf_efficientnet_lite0."""
    family, member = NETWORKS[name]
    if family == "resnet":
        return member.lower().replace("-", "").removesuffix("b")
    if family == "regnet":
        kind, size = member.split("-")
        tenths = float(size[:-2]) * (10 if size.endswith("GF") else 0.01)  # of 10^9 multiply-adds
        return f"{kind.lower()}_{tenths:03.0f}{'_tv' if REGNETS[member].as_torchvision else ''}"
    return f"{'tf_' if 'Lite' in member else ''}{member.lower().replace('-', '_')}"


def _twin(name: str) -> str:
    """The EfficientNet of timm's with the same names and shapes that pads as TensorFlow does, or does not."""
    return name.removeprefix("tf_") if name.startswith("tf_") else f"tf_{name}"


def torchvision_name(name: str) -> str:
    """What torchvision calls a member: RegNetY-8.0GF is regnet_y_8gf."""
    family, member = NETWORKS[name]
    if family == "resnet":
        return member.lower().removesuffix("-b")
    separated = member.replace("RegNet", "RegNet_").lower().replace("-", "_")
    return separated.replace(".0gf", "gf").replace(".", "_")


def from_pycls(state: State, network: nn.Module) -> State:
    """The state under our names, for RGB images: the channels of the stem's weights are turned round."""
    family = type(network).__name__
    if family not in PYCLS_NAMES:
        raise WeightsError(f"pycls has no {family}: is --model right?")
    state = translate(state, PYCLS_NAMES[family])
    stem = next(name for name, module in network.named_modules() if isinstance(module, nn.Conv2d))
    if f"{stem}.weight" in state:
        state[f"{stem}.weight"] = state[f"{stem}.weight"].flip(1)
    return state


def from_timm(state: State, network: nn.Module) -> State:
    """The state under our names; ConvNeXt's layer scales, [C] there, become [C, 1, 1]."""
    family = type(network).__name__
    for names in TIMM_NAMES["EfficientNet-Lite" if "Lite" in str(network.member) else family]:
        state = translate(state, names)
    return {
        key.replace(".gamma", ".layer_scale"): tensor[:, None, None] if key.endswith(".gamma") else tensor
        for key, tensor in state.items()
    }


def from_lite(state: State, network: nn.Module) -> State:
    """The state under our names; the file counts blocks through all stages."""
    blocks = [name for name, module in network.named_modules() if hasattr(module, "last_norm")]
    return translate(
        state,
        Names(
            r"_blocks\.(\d+)\.",
            lambda match: f"{blocks[int(match[1])]}.block." if int(match[1]) < len(blocks) else match[0],
            {
                "_expand_conv": "0.0",
                "_bn0": "0.1",
                "_depthwise_conv": "1.0",
                "_bn1": "1.1",
                "_project_conv": "2.0",
                "_bn2": "2.1",
            },
            {
                "_conv_stem": "features.0.0",
                "_bn0": "features.0.1",
                "_conv_head": "features.8.0",
                "_bn1": "features.8.1",
                "_fc": "classifier.1",
            },
            expansion="_expand_conv",
        ),
    )


def _fill(network: nn.Module, state: object, source: str, normalisation: Normalisation) -> LoadedWeights:
    """Copy `state` into `network`, strictly but for a head that is of another size or missing, and norms."""
    state = _tensors(state, source)
    own = {key: value for key, value in network.state_dict().items() if not key.endswith(COUNTER)}
    warnings = []

    norms = tuple(f"{name}." for name, module in network.named_modules() if isinstance(module, EvoNorm))
    fresh = {key for key in own if norms and key.startswith(norms)}
    if fresh <= state.keys():  # none, or those of a network with the same norms
        fresh = set()
    else:
        state = {key: value for key, value in state.items() if not key.startswith(norms)}
        warnings.append(
            f"the {len(norms)} norms start fresh, since EvoNorm cannot use the pretrained ones: the network "
            "starts near chance, and the convolutions have to fit themselves to them again"
        )
    head = {key for key in own if key.startswith(f"{network.head}.")}
    left_out: set[str] = set()
    if head & state.keys():
        if any(own[key].shape != state[key].shape for key in head & state.keys()):
            fresh |= head & state.keys()
    else:
        fresh |= head
        left_out = {key for key in state if key.startswith(f"{network.head}.")}  # a head of several layers
        state = {key: value for key, value in state.items() if key not in left_out}

    expected = own.keys() - fresh
    _refuse_differences(network, {key: own[key] for key in expected}, state, state.keys() - fresh, source)
    low = {str(state[key].dtype).removeprefix("torch.") for key in expected if state[key].itemsize < 4}
    if low:
        source += f", of {', '.join(sorted(low))}"
    network.load_state_dict({key: state[key] for key in expected}, strict=False)
    if head <= fresh:
        # All classes alike at first: the gradients of random weights would only disturb the features.
        for parameter in network.get_submodule(str(network.head)).parameters():
            nn.init.zeros_(parameter)
    if network.zero_gamma:
        count = zero_residual_gammas(network)
        warnings.append(
            f"zero gamma wipes the last norm of all {count} residual branches: the network starts as its "
            "shortcuts alone, and what the branches had learnt comes back only by training"
        )
    return LoadedWeights(
        source, normalisation, len(expected), tuple(sorted(fresh)), tuple(warnings), tuple(sorted(left_out))
    )


def _tensors(state: object, source: str) -> State:
    """The state dict without counters; raises `WeightsError` if there is anything but plain tensors in it."""
    if not isinstance(state, dict):
        raise WeightsError(f"{source} holds no state dict: expected tensors by name")
    if others := [key for key, value in state.items() if not _is_plain(value)]:
        told = some(others, KEYS_SHOWN)
        raise WeightsError(f"{source} holds no state dict: expected tensors by name, not {told}")
    return {key: value for key, value in state.items() if not key.endswith(COUNTER)}


def _refuse_differences(network: nn.Module, own: State, state: State, found: Set[str], source: str) -> None:
    """Raise `WeightsError` unless the tensors `found` in `state` can take the place of our own."""
    problems = {
        "missing": own.keys() - found,
        "unexpected": found - own.keys(),
        "of another shape": {key for key in own.keys() & found if own[key].shape != state[key].shape},
    }
    if any(problems.values()):
        text = "; ".join(
            f"{kind}: {some(sorted(keys), KEYS_SHOWN)}" for kind, keys in problems.items() if keys
        )
        raise WeightsError(f"{source} does not fit {type(network).__name__} ({text}); is --model right?")
    if unusable := [key for key in sorted(own) if not _is_usable(key, state[key], own[key])]:
        raise WeightsError(f"{source} holds numbers that no network has: {some(unusable, KEYS_SHOWN)}")


def _is_plain(value: object) -> bool:
    """Whether a value is a tensor of the usual kind, with numbers in it."""
    if not isinstance(value, torch.Tensor):
        return False
    return not (value.is_nested or value.is_meta or value.is_quantized) and value.layout == torch.strided


def _is_usable(key: str, tensor: torch.Tensor, own: torch.Tensor) -> bool:
    """Whether a tensor's numbers can take the place of our own: finite ones, and variances at least 0."""
    if not tensor.is_floating_point():
        return False
    numbers = tensor.to(own.dtype)
    return bool(numbers.isfinite().all()) and not (key.endswith("running_var") and bool((numbers < 0).any()))
