"""AugMix (Hendrycks et al. 2019, arXiv 1912.02781): an image is shown beside two mild mixtures of itself, and
the network is to say the same of all three.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from learning.augment import Shape, Transform
from learning.randaugment import COLUMNS, MAX_M, Plan, apply_operations, draw_operations

# Those of RandAugment's that are none of the corruptions which robustness is measured with.
MILD = (
    *("AutoContrast", "Equalize", "Posterize", "Rotate", "Solarize"),
    *("ShearX", "ShearY", "TranslateX", "TranslateY"),
)
MIXTURES = 2  # beside the image itself
CHAINS, LONGEST = 3, 3  # of operations, and of how many each at most
SEVERITY = 0.3 * MAX_M  # the paper's 3 of 10
CONSISTENCY = 12.0  # the weight of the consistency loss

Drawn = list[dict[str, np.ndarray | list[list[Plan]]]]


@dataclass(frozen=True)
class AugMix(Transform):
    """Each image and two mixtures of it, one behind the other: [N, 3, H, W] to [N, 9, H, W].

    A mixture is m x + (1 - m) (w_1 c_1(x) + w_2 c_2(x) + w_3 c_3(x)): the c are one to three operations one
    after the other, w ~ Dirichlet(1, 1, 1) and m ~ Beta(1, 1). Strengths are uniform up to `SEVERITY`.
    """

    columns = MIXTURES * (CHAINS * (LONGEST * (COLUMNS + 1) + 2) + 1)
    views = 1 + MIXTURES

    def draw(self, uniforms: np.ndarray, shape: Shape) -> Drawn:
        return [_draw_mixture(part, shape) for part in np.split(uniforms, MIXTURES, axis=1)]

    def apply(self, images: torch.Tensor, drawn: list) -> torch.Tensor:
        return torch.cat([images, *(_mixture(images, **mixture) for mixture in drawn)], 1)


def _draw_mixture(uniforms: np.ndarray, shape: Shape) -> dict:
    share, shares, lengths, rest = np.split(uniforms, np.cumsum((1, CHAINS, CHAINS)), axis=1)
    weights = -np.log(1 - shares)  # of the exponential distribution: Dirichlet's are their shares of the sum
    weights = (1 - share) * weights / weights.sum(1, keepdims=True)
    lengths = 1 + np.floor(lengths * LONGEST)
    chains = []
    for chain, of_chain in enumerate(np.split(rest, CHAINS, axis=1)):
        plans = []
        for place, of_place in enumerate(np.split(of_chain, LONGEST, axis=1)):
            chosen = lengths[:, chain] > place
            strengths = of_place[:, -1] * SEVERITY
            plans.append(draw_operations(of_place[:, :-1], strengths, shape, MILD, chosen))
        chains.append(plans)
    return {"share": share.astype(np.float32), "weights": weights.astype(np.float32), "chains": chains}


def _mixture(
    images: torch.Tensor, share: torch.Tensor, weights: torch.Tensor, chains: list[list[Plan]]
) -> torch.Tensor:
    mixed = share[:, :, None, None] * images
    for weight, plans in zip(weights.unbind(1), chains, strict=True):
        changed = images
        for plan in plans:
            changed = apply_operations(changed, plan)
        mixed = mixed + weight[:, None, None, None] * changed
    return mixed.round().to(torch.uint8)


def divergence(logits: torch.Tensor) -> torch.Tensor:
    """How differently the views of each image are classified, for logits [N, V, K]: [N].

    The Jensen-Shannon divergence, the mean over views of KL(p_v || p), where p is the mean of the p_v.
    """
    log_p = F.log_softmax(logits.float(), 2)
    log_mean = log_p.exp().mean(1, keepdim=True).clamp(min=1e-7).log()
    return (log_p.exp() * (log_p - log_mean)).sum(2).mean(1)
