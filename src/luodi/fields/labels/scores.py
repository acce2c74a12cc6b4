"""Metrics of labels in plain NumPy, quick enough to be bootstrapped.

Shapes: truth, value and right (rows,), as places of labels; probabilities (rows, labels).
"""

from __future__ import annotations

import numpy as np

BINS = 15  # of the calibration error
SMALLEST = 1e-15  # a probability of 0 costs 34.5, not infinity


def scores(truth: np.ndarray, value: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """Every metric of one label column."""
    right = truth == value
    return {
        "accuracy": float(right.mean()),
        "loss": log_loss(truth, probabilities),
        **averages(truth, value, right, probabilities.shape[1]),
        "auc": auc(truth, probabilities),
        "ece": calibration_error(right, probabilities),
    }


def log_loss(truth: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean of minus the logarithm of the true label's probability."""
    chosen = probabilities[np.arange(len(truth)), truth].astype(np.float64)
    return float(-np.log(np.maximum(chosen, SMALLEST)).mean())


def averages(truth: np.ndarray, value: np.ndarray, right: np.ndarray, labels: int) -> dict[str, float]:
    """Precision, recall and F1, averaged three ways, over the labels that occur in truths or answers; 0/0 is 0."""
    support, answered = np.bincount(truth, minlength=labels), np.bincount(value, minlength=labels)
    hits = np.bincount(truth[right], minlength=labels)
    seen = (support + answered) > 0
    support, answered, hits = support[seen], answered[seen], hits[seen]
    precision, recall = hits / np.maximum(answered, 1), hits / np.maximum(support, 1)
    f1 = 2 * hits / (support + answered)
    share = support / support.sum()
    micro = float(hits.sum() / support.sum())
    found: dict[str, float] = {}
    for name, of in (("f1", f1), ("precision", precision), ("recall", recall)):
        found[f"{name}_macro"] = float(of.mean())
        found[f"{name}_weighted"] = float(of @ share)
        found[f"{name}_micro"] = micro
    return found


def auc(truth: np.ndarray, probabilities: np.ndarray) -> float:
    """Area under the ROC curve, each label against the rest, mean over labels with rows on both sides; else NaN.

    By ranks (Mann-Whitney): ties count a half.
    """
    count, areas = len(truth), []
    for label in np.unique(truth):
        column = probabilities[:, label]
        inside = column[truth == label]
        positives, negatives = len(inside), count - len(inside)
        if not negatives:
            continue
        order = np.sort(column)
        below, up_to = np.searchsorted(order, inside, "left"), np.searchsorted(order, inside, "right")
        ranks = (below.sum() + up_to.sum() + positives) / 2
        areas.append((ranks - positives * (positives + 1) / 2) / (positives * negatives))
    return float(np.mean(areas)) if areas else float("nan")


def calibration_error(right: np.ndarray, probabilities: np.ndarray) -> float:
    """Expected calibration error of the answered label, 15 bins of equal width (arXiv 1706.04599)."""
    confidence = probabilities.max(axis=1).astype(np.float64)
    place = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
    gaps = np.bincount(place, weights=right - confidence, minlength=BINS)
    return float(np.abs(gaps).sum() / len(right))
