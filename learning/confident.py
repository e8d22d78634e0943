"""Confident learning: which labels a network contradicts that was trained without them.

Northcutt, Jiang and Chuang 2021, "Confident Learning: Estimating Uncertainty in Dataset Labels",
arXiv 1911.00068.
"""

from typing import NamedTuple

import numpy as np


class Suspects(NamedTuple):
    """m images whose label is contradicted, the most suspect first.

    Their `numbers` int64 [m], the class that each is `taken_for` int64 [m], the most probable but for its
    label, and their `margins` float64 [m]: the probability of the label less that of the other, -1 to 1.
    """

    numbers: np.ndarray
    taken_for: np.ndarray
    margins: np.ndarray


def suspects(labels: np.ndarray, probabilities: np.ndarray) -> Suspects:
    """The images whose labels are most likely wrong, as many as the confident joint says there are.

    `labels` [n] are those given, `probabilities` [n, K] of networks that were trained without the images. A
    class's threshold is the mean probability of itself over the images X_j that have its label (equation 2),

        t_j = 1 / |X_j| * sum over x in X_j of p(j; x),

    and an image of label i counts in C_ij where p(j; x) >= t_j; if there are several such classes, for the
    most probable (equation 1). Rows are scaled to the images of their labels (equation 3),

        Q_ij = |X_i| * C_ij / sum over j of C_ij,

    and for each pair of classes the round(Q_ij) images of label i are suspects whose p(j; x) - p(i; x) is
    largest, if it is above 0 ("prune by noise rate", section 3.2). They are ordered by the "normalized
    margin" p(given label; x) - max over the others of p(j; x).
    """
    count, classes = probabilities.shape
    own = probabilities[np.arange(count), labels]
    sizes = np.bincount(labels, minlength=classes)
    thresholds = np.bincount(labels, own, minlength=classes) / np.maximum(sizes, 1)
    reached = np.where((probabilities >= thresholds) & (sizes > 0), probabilities, -1.0)
    counted = reached.max(1) >= 0
    joint = np.zeros((classes, classes))
    np.add.at(joint, (labels[counted], reached.argmax(1)[counted]), 1)
    expected = joint * (sizes / np.maximum(joint.sum(1), 1))[:, None]

    suspect = np.zeros(count, bool)
    for label, other in np.argwhere(expected.round() * (1 - np.eye(classes))).tolist():
        numbers = np.flatnonzero(labels == label)
        lead = probabilities[numbers, other] - own[numbers]
        chosen = np.argsort(-lead, kind="stable")[: int(expected[label, other].round())]
        suspect[numbers[chosen[lead[chosen] > 0]]] = True
    found = np.flatnonzero(suspect)
    others = probabilities.copy()
    others[np.arange(count), labels] = -1
    margins = own - others.max(1)
    found = found[np.argsort(margins[found], kind="stable")]
    return Suspects(found, others.argmax(1)[found], margins[found])
