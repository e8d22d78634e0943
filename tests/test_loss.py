"""learning/loss.py."""

import math

import pytest
import torch
import torch.nn.functional as F

from learning.loss import (
    BinaryCrossEntropy,
    CrossEntropy,
    FocalLoss,
    balanced_class_weights,
    distillation,
    image_weights,
    soft_cross_entropy,
)


def test_by_hand():
    logits = torch.tensor([[0.0, math.log(3.0)]])  # probabilities 1/4, 3/4
    (loss,) = soft_cross_entropy(logits, torch.tensor([[0.5, 0.5]]))
    assert math.isclose(loss, -(math.log(0.25) + math.log(0.75)) / 2, rel_tol=1e-6)
    # Smoothing 0.2 of 2 classes: the label [0, 1] becomes [0.1, 0.9].
    (loss,) = soft_cross_entropy(logits, torch.tensor([[0.0, 1.0]]), smoothing=0.2)
    assert math.isclose(loss, -0.1 * math.log(0.25) - 0.9 * math.log(0.75), rel_tol=1e-6)


def test_hard_labels_give_the_plain_cross_entropy():
    logits, labels = torch.randn(8, 5), torch.arange(8) % 5
    torch.testing.assert_close(
        soft_cross_entropy(logits, torch.eye(5)[labels]), F.cross_entropy(logits, labels, reduction="none")
    )


def test_its_own_formula():
    logits, targets = torch.randn(6, 4, dtype=torch.double), torch.rand(6, 4, dtype=torch.double).softmax(1)
    smoothed = 0.9 * targets + 0.1 / 4
    expected = -(smoothed * logits.log_softmax(1)).sum(1)
    torch.testing.assert_close(soft_cross_entropy(logits, targets, 0.1), expected)


def test_an_image_counts_as_its_classes_do():
    targets = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.75, 0.25]])
    assert image_weights(targets, torch.tensor([2.0, 0.5])).tolist() == [2.0, 0.5, 1.625]


@pytest.mark.parametrize("classes", [2, 3, 10, 100])
def test_smoothing_never_changes_which_class_fits_best(classes):
    """Also where one is 100 times rarer: with weights on the smoothed terms that one would fit all images."""
    labels, weights = torch.eye(classes), torch.ones(classes)
    weights[0] = 100
    logits = torch.zeros(classes, classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=200, line_search_fn="strong_wolfe")

    def loss():
        optimizer.zero_grad()
        value = (soft_cross_entropy(logits, labels, 0.1) * image_weights(labels, weights)).mean()
        value.backward()
        return value

    optimizer.step(loss)
    assert logits.argmax(1).tolist() == list(range(classes))
    smoothed = 0.9 * labels + 0.1 / classes
    torch.testing.assert_close(logits.softmax(1), smoothed, rtol=0, atol=0.01)


def test_balanced_weights_give_each_class_the_same_sum_and_each_image_a_mean_of_one():
    counts = torch.tensor([1.0, 3.0, 8.0])
    weights = balanced_class_weights(counts)
    torch.testing.assert_close(weights * counts, torch.full((3,), 4.0))
    assert (weights * counts).sum() == counts.sum()


def test_distillation_by_hand():
    # At T = 2 the student has probabilities 1/2, 1/2 and the teacher 1/4, 3/4.
    student, teacher = torch.zeros(1, 2), torch.tensor([[0.0, 2 * math.log(3.0)]])
    expected = 4 * (0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5))
    assert math.isclose(distillation(student, teacher, 2.0), expected, rel_tol=1e-6)
    assert distillation(teacher, teacher, 2.0) == 0


def test_distillation_has_the_gradient_of_the_papers_loss():
    """T^2 l(softmax(r / T), softmax(z / T)) with l the cross-entropy: section 5.3 of arXiv 1812.01187."""
    z, r = torch.randn(2, 5, 7).unbind()
    ours, papers = z.clone().requires_grad_(), z.clone().requires_grad_()
    distillation(ours, r, 20.0).mean().backward()
    (400 * F.cross_entropy(papers / 20, (r / 20).softmax(1))).backward()
    torch.testing.assert_close(ours.grad, papers.grad, rtol=1e-3, atol=1e-5)


def test_the_focal_loss_by_hand():
    logits = torch.tensor([[0.0, math.log(3.0)]])  # probabilities 1/4, 3/4
    (loss,) = FocalLoss(gamma=2)(logits, torch.tensor([[0.0, 1.0]]))
    assert loss.item() == pytest.approx(-(0.25**2) * math.log(0.75), rel=1e-5)
    (loss,) = FocalLoss(gamma=2)(logits, torch.tensor([[0.5, 0.5]]))
    mixed = -0.5 * 0.75**2 * math.log(0.25) - 0.5 * 0.25**2 * math.log(0.75)
    assert loss.item() == pytest.approx(mixed, rel=1e-5)


def test_a_focal_loss_without_gamma_is_the_cross_entropy():
    logits, targets = torch.randn(6, 4), torch.rand(6, 4).softmax(1)
    torch.testing.assert_close(FocalLoss(0.1, gamma=0)(logits, targets), CrossEntropy(0.1)(logits, targets))


@pytest.mark.parametrize("gamma", [0.5, 2.0])
@pytest.mark.parametrize("value", [0.0, 20.0, 200.0])
def test_the_focal_loss_of_what_is_known_for_sure_has_finite_gradients(gamma, value):
    logits = torch.tensor([[value, -value], [-value, value]], requires_grad=True)
    FocalLoss(0.0, gamma)(logits, torch.tensor([[1.0, 0.0], [1.0, 0.0]])).sum().backward()
    assert logits.grad.isfinite().all()


def test_the_binary_cross_entropy_asks_for_each_class():
    logits, targets = torch.randn(6, 4, dtype=torch.double), torch.rand(6, 4, dtype=torch.double)
    wanted = 0.9 * targets + 0.1 / 4
    s = logits.sigmoid()
    expected = -(wanted * s.log() + (1 - wanted) * (1 - s).log()).mean(1)
    ours = BinaryCrossEntropy(0.1)(logits, targets)
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6, check_dtype=False)
