"""Where in an image a network finds its answer: Grad-CAM."""

import torch
from torch import nn


def heat_maps(network: nn.Module, inputs: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """How much each place of inputs [N, 3, H, W] speaks for `classes` [N]: float32 [N, h, w] in 0..1.

    Selvaraju et al. 2017 (arXiv 1610.02391, equations 1 and 2), at the last feature maps A (the network's
    `feature_layer`): with the logit y of the class

        map = ReLU(sum_k alpha_k A_k),   alpha_k = mean over the places of dy / dA_k.

    Each map is divided by its largest value; where nothing speaks for the class it is 0. Leaves the mode on
    eval.
    """
    network.eval()
    features: list[torch.Tensor] = []
    layer = network.get_submodule(network.feature_layer)  # type: ignore[arg-type]
    hook = layer.register_forward_hook(lambda module, given, maps: features.append(maps))
    try:
        with torch.enable_grad():
            logits = network(inputs.requires_grad_())  # also of a network whose weights are frozen
            chosen = logits.gather(1, classes[:, None]).sum()
            (gradients,) = torch.autograd.grad(chosen, features)
    finally:
        hook.remove()
    alphas = gradients.float().mean((2, 3), keepdim=True)
    maps = (alphas * features[0].detach().float()).sum(1).relu()
    largest = maps.amax((1, 2), keepdim=True)
    return maps / torch.where(largest > 0, largest, 1)
