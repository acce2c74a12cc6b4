"""Labels that are likely wrong: confident learning (Northcutt, Jiang, Chuang; arXiv 1911.00068).

Shapes: N rows, K labels; `given` (N,) int64 places of the labels as they are, `shares` (N, K) probabilities from models
that did not see the row.
"""

from __future__ import annotations

import numpy as np


def thresholds(given: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """(K,): the mean probability of each label over the rows that have it; infinite for a label that none has."""
    found = np.full(shares.shape[1], np.inf)
    for label in np.unique(given):
        found[label] = shares[given == label, label].mean()
    return found


def confident(given: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """(N,): the label that each row is confidently one of, -1 for none.

    Of the labels whose probability reaches their threshold, the most probable one (equation 1 of the paper).
    """
    # A share and the mean of equal shares may differ in the last bit.
    reached = shares >= thresholds(given, shares)[None] - 1e-12
    best = np.where(reached, shares, -1.0).argmax(axis=1)
    return np.where(reached.any(axis=1), best, -1)


def joint(given: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """(K, K): the estimated joint distribution of given and true labels, sum 1 (equation 3 of the paper)."""
    found, size = confident(given, shares), shares.shape[1]
    sure = found >= 0
    counts = np.zeros((size, size))
    np.add.at(counts, (given[sure], found[sure]), 1)
    rows = np.bincount(given, minlength=size)
    # A label without a confident row is taken as right.
    counts[counts.sum(axis=1) == 0] = np.eye(size)[counts.sum(axis=1) == 0]
    scaled = counts / counts.sum(axis=1, keepdims=True) * rows[:, None]
    return scaled / scaled.sum()


def doubtful(given: np.ndarray, shares: np.ndarray) -> list[tuple[int, int]]:
    """(row, the label it more likely has), the most doubtful first: those off the diagonal of the confident joint."""
    found = confident(given, shares)
    rows = np.flatnonzero((found >= 0) & (found != given))
    margin = shares[rows, found[rows]] - shares[rows, given[rows]]
    return [(int(row), int(found[row])) for row in rows[np.argsort(-margin, kind="stable")]]
