"""A training step of our networks beside torchvision's: python -m tests.benchmark_networks [NAME ...]

Both take turns in one process on the same batch, in channels_last, and the ratio is that of the medians:
above 1, ours is faster.
"""

import argparse
import statistics
import time

import torch
import torchvision
from torch import nn

from network import build_network
from network.weights import torchvision_name
from utils.run.device import autocast, choose_device, describe

DEFAULT = ("ResNet50", "RegNetY-1.6GF", "EfficientNet-B2")


def make_step(network: nn.Module, images: torch.Tensor, labels: torch.Tensor, precision: str):
    """A function that does one training step and returns its seconds."""
    network.to(images.device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(network.parameters(), 0.01, momentum=0.9, fused=True)

    def step() -> float:
        started = time.perf_counter()
        with autocast(images.device, precision):
            loss = nn.functional.cross_entropy(network(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        loss.item()  # waits for the device
        return time.perf_counter() - started

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("names", nargs="*", default=DEFAULT)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=15)
    args = parser.parse_args()

    device = choose_device("auto")
    print(f"{describe(device)}, torch {torch.__version__}, torchvision {torchvision.__version__}")
    print(f"training steps of {args.batch} images of {args.size} x {args.size}, images a second")
    print(f"{'network':20} {'precision':9} {'ours':>8} {'theirs':>8} {'ratio':>6}")
    images = torch.randn(args.batch, 3, args.size, args.size, device=device)
    images = images.to(memory_format=torch.channels_last)
    labels = torch.arange(args.batch, device=device) % 6
    for name in args.names:
        for precision in ("fp32", "bf16"):
            networks = (
                build_network(name, 6),
                torchvision.models.get_model(torchvision_name(name), num_classes=6),
            )
            steps = [make_step(network, images, labels, precision) for network in networks]
            times = [[step() for step in steps] for _ in range(args.steps + 2)][2:]
            ours, theirs = (args.batch / statistics.median(column) for column in zip(*times, strict=True))
            print(f"{name:20} {precision:9} {ours:8.1f} {theirs:8.1f} {ours / theirs:6.3f}", flush=True)


if __name__ == "__main__":
    main()
