"""A trained network as a file for other programs, which is not finished before it has proved itself.

The file is run by its own runtime on all test images, and its probabilities are compared with those of this
program in fp32 on the CPU.
"""

import copy
import importlib.util
import io
import json
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from learning.classifier import Classifier
from learning.evaluation import at_temperature
from learning.evaluator import over_views
from network.norm import BatchNormAct
from utils.errors import RunFailed, UserError
from utils.run.files import replacing

TOLERANCE = 1e-5  # of a probability
# The packages that a format needs, and where they are listed.
NEEDED = {
    ".onnx": (("onnx", "onnxscript", "onnxruntime"), "requirements-export.txt"),
    ".pt2": ((), "requirements.txt"),
    ".safetensors": (("safetensors",), "requirements.txt"),
}

Metadata = Mapping[str, str]  # JSON values
Runtime = Callable[[np.ndarray], np.ndarray]  # uint8 [N, H, W, 3] to probabilities [N, K]


class Deployed(nn.Module):
    """All that happens to an image between its file and its probabilities, but for the resize.

    uint8 RGB [N, S, S, 3], of the frame's size, to calibrated probabilities float32 [N, K]: centre crop,
    normalisation, network, mean over the views, temperature, softmax.
    """

    def __init__(self, classifier: Classifier, network: nn.Module):
        super().__init__()
        self.network = network
        self.views = classifier.views
        self.temperature = classifier.calibration.temperature

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        pixels = images.permute(0, 3, 1, 2)
        logits = torch.stack([self.network(view(pixels)) for view in self.views], 1)
        return (over_views(logits) / self.temperature).softmax(1)


def folded(network: nn.Module, example: torch.Tensor) -> nn.Module:
    """A copy in which batch norms that follow a convolution are part of it; `example` is an input.

    Which convolution a norm follows is seen from what it is given in a forward pass.
    """
    network = copy.deepcopy(network).eval()
    made: dict[int, tuple[str, torch.Tensor]] = {}  # the convolution by its output, which is kept alive
    follows: dict[str, str] = {}
    hooks = []
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):

            def note(_module: nn.Module, _given: tuple, maps: torch.Tensor, name: str = name) -> None:
                made[id(maps)] = name, maps

            hooks.append(module.register_forward_hook(note))
        elif isinstance(module, BatchNormAct):

            def find(_module: nn.Module, given: tuple[torch.Tensor], name: str = name) -> None:
                if id(given[0]) in made:
                    follows[name] = made[id(given[0])][0]

            hooks.append(module.register_forward_pre_hook(find))
    with torch.no_grad():
        network(example)
    for hook in hooks:
        hook.remove()
    for norm_name, convolution_name in follows.items():
        norm = network.get_submodule(norm_name)
        assert isinstance(norm, BatchNormAct)
        convolution = fuse_conv_bn_eval(network.get_submodule(convolution_name), norm)  # type: ignore[type-var]
        network.set_submodule(convolution_name, convolution)
        network.set_submodule(norm_name, norm.activation)
    return network


def as_onnx(classifier: Classifier, metadata: Metadata) -> bytes:
    """The graph in the opset that torch writes, with the norms folded."""
    example, batch = _example(classifier), torch.export.Dim("batch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        program = torch.onnx.export(
            _graph(classifier),
            (example,),
            dynamo=True,
            input_names=["images"],
            output_names=["probabilities"],
            dynamic_shapes=({0: batch},),
            verbose=False,
        )
    assert program is not None
    program.model.metadata_props.update(metadata)
    return program.model_proto.SerializeToString()


def as_pt2(classifier: Classifier, metadata: Metadata) -> bytes:
    """The graph of torch.export, with the norms folded."""
    file, batch = io.BytesIO(), torch.export.Dim("batch")
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(
            _graph(classifier), (_example(classifier),), dynamic_shapes=({0: batch},)
        )
        torch.export.save(program, file, extra_files=dict(metadata))
    return file.getvalue()


def as_safetensors(classifier: Classifier, metadata: Metadata) -> bytes:
    """The weights alone, under torchvision's names."""
    from safetensors.torch import save

    weights = {name: tensor.contiguous() for name, tensor in classifier.network.state_dict().items()}
    return save(weights, dict(metadata))


def _graph(classifier: Classifier) -> Deployed:
    pixels = _example(classifier).permute(0, 3, 1, 2)
    return Deployed(classifier, folded(classifier.network, classifier.views[0](pixels))).eval()


def _example(classifier: Classifier) -> torch.Tensor:
    return torch.zeros(2, classifier.frame.size, classifier.frame.size, 3, dtype=torch.uint8)


def run_onnx(path: Path, classifier: Classifier) -> Runtime:
    """The file in onnxruntime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda images: session.run(["probabilities"], {"images": images})[0]


def run_pt2(path: Path, classifier: Classifier) -> Runtime:
    """The file in the loader of torch.export."""
    with warnings.catch_warnings(), path.open("rb") as file:
        warnings.simplefilter("ignore")
        module = torch.export.load(file).module()
    return _run_module(module)


def run_safetensors(path: Path, classifier: Classifier) -> Runtime:
    """The weights in a network of the same kind."""
    from safetensors.torch import load_file

    network = copy.deepcopy(classifier.network)
    network.load_state_dict(load_file(path))
    return _run_module(Deployed(classifier, network.eval()))


def _run_module(module: nn.Module) -> Runtime:
    @torch.inference_mode()
    def run(images: np.ndarray) -> np.ndarray:
        return module(torch.from_numpy(images)).numpy()

    return run


FORMATS: dict[str, tuple[Callable[[Classifier, Metadata], bytes], Callable[[Path, Classifier], Runtime]]] = {
    ".onnx": (as_onnx, run_onnx),
    ".pt2": (as_pt2, run_pt2),
    ".safetensors": (as_safetensors, run_safetensors),
}


@dataclass
class Proof:
    """How an exported file compares with this program on n images, in probability."""

    images: int
    greatest_difference: float
    mean_difference: float
    changed_predictions: int  # but for exact ties
    images_per_second: float  # of this program, in fp32 on the CPU
    images_per_second_exported: float


def prove(classifier: Classifier, runtime: Runtime, batches: Iterable[tuple]) -> tuple[Proof, np.ndarray]:
    """Compare on batches of (images uint8 [N, 3, S, S], ...); with our probabilities as trained, [n, K]."""
    ours, theirs, times = [], [], np.zeros(2)
    for images, *_ in batches:
        exported = np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy())
        starts = [time.perf_counter()]
        ours.append(classifier.log_probabilities(images))
        starts.append(time.perf_counter())
        theirs.append(runtime(exported))
        starts.append(time.perf_counter())
        times += np.diff(starts)
    log_probabilities = np.concatenate(ours)
    expected = np.exp(at_temperature(log_probabilities, classifier.calibration.temperature))
    found = np.concatenate(theirs)
    differences = np.abs(found - expected)
    speeds = len(expected) / times
    proof = Proof(
        len(expected),
        float(differences.max()),
        float(differences.mean()),
        changed_predictions(expected, found),
        *map(float, speeds),
    )
    return proof, np.exp(log_probabilities)


def changed_predictions(a: np.ndarray, b: np.ndarray) -> int:
    """How many predictions of two sets of probabilities [n, K] differ, where neither has a tie of the two."""
    rows, of_a, of_b = np.arange(len(a)), a.argmax(1), b.argmax(1)
    tie = (a[rows, of_a] == a[rows, of_b]) | (b[rows, of_a] == b[rows, of_b])
    return int(((of_a != of_b) & ~tie).sum())


def refuse_missing_packages(suffix: str) -> None:
    """Raise `UserError` that names the packages which a format needs and which are not there."""
    packages, listed = NEEDED[suffix]
    if missing := [name for name in packages if importlib.util.find_spec(name) is None]:
        raise UserError(f"--export to {suffix} needs {', '.join(missing)}; pip install -r {listed}")


def export_proved(
    classifier: Classifier, path: Path, metadata: Metadata, batches: Iterable[tuple]
) -> tuple[Proof, np.ndarray]:
    """Write the file, whole and proved on the test images, or not at all; see `prove`.

    The classifier computes in fp32 on the CPU. Raises `RunFailed` if the file answers otherwise.
    """
    write, run = FORMATS[path.suffix]
    with replacing(path) as file:
        file.write(write(classifier, metadata))
        file.flush()
        proof, probabilities = prove(classifier, run(Path(file.name), classifier), batches)
        if not proof.greatest_difference < TOLERANCE or proof.changed_predictions:
            raise RunFailed(
                f"{path} is not written: its probabilities differ from this program's by up to "
                f"{proof.greatest_difference:.2g}, on {proof.images} test images, of which "
                f"{proof.changed_predictions} are classified otherwise"
            )
    return proof, probabilities


def metadata_of(classifier: Classifier, about: Mapping[str, object]) -> Metadata:
    """What a file says of itself: how to bring an image to its input, what its outputs are, and `about`."""
    frame = classifier.frame
    values = {
        "classes": list(classifier.classes),
        "image_size": frame.size,
        "crop": frame.crop,
        "resize": "bilinear",
        "input_size": classifier.image_size,
        "tta": "flip" if classifier.mirrored else "none",
        "normalisation": [list(part) for part in classifier.normalisation],
        "temperature": classifier.calibration.temperature,
        **about,
    }
    return {name: json.dumps(value) for name, value in values.items()}
