"""The training losses, one number for each image."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F


def soft_cross_entropy(logits: torch.Tensor, targets: torch.Tensor, smoothing: float = 0.0) -> torch.Tensor:
    """Cross-entropy of logits [N, K] against probabilities `targets` [N, K]: [N].

        loss_i = -sum_k q_ik log softmax(logits_i)_k,   q = (1 - smoothing) targets + smoothing / K

    Label smoothing is that of Szegedy et al. 2015 (arXiv 1512.00567, section 7): the uniform
    distribution over all K classes, the right one included, is mixed in.
    """
    return F.cross_entropy(logits, targets, reduction="none", label_smoothing=smoothing)


def smoothed(targets: torch.Tensor, smoothing: float) -> torch.Tensor:
    """(1 - smoothing) targets + smoothing / K, for targets [N, K]."""
    return targets * (1 - smoothing) + smoothing / targets.shape[1]


@dataclass(frozen=True)
class CrossEntropy:
    """`soft_cross_entropy`."""

    smoothing: float = 0.0

    def __call__(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return soft_cross_entropy(logits, targets, self.smoothing)

    def __str__(self) -> str:
        return "cross-entropy"


@dataclass(frozen=True)
class FocalLoss:
    """Cross-entropy in which what is known well counts less: [N].

        loss_i = -sum_k q_ik (1 - p_ik)^gamma log p_ik,   p = softmax(logits), q smoothed as above

    Lin et al. 2017 (arXiv 1708.02002, equation 4, without alpha; there of two classes). With gamma = 0 it is
    the cross-entropy.
    """

    smoothing: float = 0.0
    gamma: float = 2.0

    def __call__(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        log_p = F.log_softmax(logits.float(), 1)
        # The chance of all other classes, whose gradient is finite where p is 1 as well.
        others = (1 - log_p.exp()).clamp(min=torch.finfo(torch.float32).eps)
        return -(smoothed(targets, self.smoothing) * others**self.gamma * log_p).sum(1)

    def __str__(self) -> str:
        return f"focal loss, gamma {self.gamma:g}"


@dataclass(frozen=True)
class BinaryCrossEntropy:
    """Each class is a question of its own, whether the image shows it; the mean over them: [N].

        loss_i = -1/K sum_k (q_ik log s_ik + (1 - q_ik) log (1 - s_ik)),   s = sigmoid(logits), q smoothed

    Wightman et al. 2021 (arXiv 2110.00476, section 3.2). Mixed images have both classes, in their shares.
    """

    smoothing: float = 0.0

    def __call__(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        wanted = smoothed(targets, self.smoothing)
        return F.binary_cross_entropy_with_logits(logits.float(), wanted, reduction="none").mean(1)

    def __str__(self) -> str:
        return "binary cross-entropy"


def distillation(logits: torch.Tensor, teacher_logits: torch.Tensor, temperature: float) -> torch.Tensor:
    """How far the student is from the teacher, both softened by T, for logits [N, K]: [N].

        loss_i = T^2 KL(softmax(r_i / T) || softmax(z_i / T)),   r the teacher's, z the student's

    The Bag of Tricks (arXiv 1812.01187, section 5.3, after Hinton et al. 2015, arXiv 1503.02531) has the
    cross-entropy in place of KL. That is the same gradient: they differ by T^2 times the teacher's
    entropy, a constant that at T = 20 would hide the rest of the loss.
    """
    student, teacher = (F.log_softmax(values.float() / temperature, 1) for values in (logits, teacher_logits))
    return temperature**2 * F.kl_div(student, teacher, reduction="none", log_target=True).sum(1)


def image_weights(targets: torch.Tensor, class_weights: torch.Tensor) -> torch.Tensor:
    """How much each image counts: sum_k targets_ik w_k, [N], for mixed but not smoothed `targets` [N, K].

    Whole images are weighed, and not the terms of their loss: with smoothing every image has a share of the
    rarest class, whose weight would make that share the largest.
    """
    return (targets * class_weights).sum(1)


def balanced_class_weights(counts: torch.Tensor) -> torch.Tensor:
    """w_k = n / (K n_k) for `counts` [K] of n images: all classes weigh the same, an image 1 on average.

    After King and Zeng 2001, Logistic Regression in Rare Events Data (there for two classes).
    """
    return counts.sum() / (len(counts) * counts)
