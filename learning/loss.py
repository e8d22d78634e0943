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


@dataclass(frozen=True)
class CrossEntropy:
    """`soft_cross_entropy` with so much smoothing."""

    smoothing: float = 0.0

    def __call__(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return soft_cross_entropy(logits, targets, self.smoothing)


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
