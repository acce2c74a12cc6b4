"""Rows made up between neighbours of one label: SMOTE (Chawla, Bowyer, Hall, Kegelmeyer; arXiv 1106.1813).

Number columns take a point on the line to one of the nearest neighbours; label columns take what most of these have.
The distance counts a differing label as the median deviation of the numbers (SMOTE-NC, section 6.1), in units where
each number column's deviation over all rows is 1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

CHUNK = 256  # rows whose distances are taken at a time


@dataclass(frozen=True)
class Columns:
    """Inputs of some rows: numbers (rows, n) float64 with NaN for an empty cell, labels (rows, m) as small numbers."""

    numbers: np.ndarray
    labels: np.ndarray

    def take(self, rows: np.ndarray) -> Columns:
        """These rows."""
        return Columns(self.numbers[rows], self.labels[rows])


def space(whole: Columns, some: np.ndarray) -> tuple[np.ndarray, float]:
    """(the chosen rows' numbers in units of each column's deviation, what a differing label adds to the square)."""
    filled = np.where(np.isfinite(whole.numbers), whole.numbers, np.nan_to_num(_mean(whole.numbers)))
    spread = filled.std(axis=0)
    scaled = filled[some] / np.where(spread > 0, spread, 1.0)
    medians = scaled.std(axis=0)
    return scaled, float(np.median(medians)) ** 2 if len(medians) and np.median(medians) > 0 else 1.0


def _mean(numbers: np.ndarray) -> np.ndarray:
    known = np.isfinite(numbers)
    return np.where(known, numbers, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)


def neighbours(points: np.ndarray, labels: np.ndarray, penalty: float, count: int) -> np.ndarray:
    """(rows, count) int64: the nearest other rows of each, nearest first; fewer where there are fewer rows."""
    count = min(count, len(points) - 1)
    found = np.empty((len(points), count), np.int64)
    squares = (points**2).sum(axis=1)
    for start in range(0, len(points), CHUNK):
        part = points[start : start + CHUNK]
        away = squares[start : start + CHUNK, None] + squares[None] - 2 * part @ points.T
        away += penalty * (labels[start : start + CHUNK, None] != labels[None]).sum(axis=2)
        away[np.arange(len(part)), np.arange(start, start + len(part))] = np.inf
        found[start : start + CHUNK] = np.argsort(away, axis=1, kind="stable")[:, :count]
    return found


def made_up(
    whole: Columns, minority: np.ndarray, count: int, near: int, dice: np.random.Generator
) -> tuple[Columns, np.ndarray]:
    """(`count` new rows, the row in `whole` that each began from) between rows of `minority` and their neighbours."""
    mine = whole.take(minority)
    points, penalty = space(whole, minority)
    around = neighbours(points, mine.labels, penalty, near)
    first = np.resize(dice.permutation(len(minority)), count)
    second = around[first, dice.integers(0, around.shape[1], count)]
    steps = dice.random(count)[:, None]
    begin, end = mine.numbers[first], mine.numbers[second]
    numbers = np.where(np.isfinite(begin) & np.isfinite(end), begin + steps * (end - begin), begin)
    labels = np.empty((count, mine.labels.shape[1]), mine.labels.dtype)
    for at, row in enumerate(first.tolist()):
        for column in range(labels.shape[1]):
            labels[at, column] = _usual(mine.labels[around[row], column].tolist(), int(mine.labels[row, column]))
    return Columns(numbers, labels), minority[first]


def _usual(values: Sequence[int], own: int) -> int:
    """The most frequent value; of equally frequent ones the row's own, then the smallest."""
    counts = Counter(values)
    return min(counts, key=lambda value: (-counts[value], value != own, value))


def coded(cells: Sequence[Any]) -> tuple[np.ndarray, list[Any]]:
    """(the place of each cell among the different ones, these in order of appearance)."""
    known: Mapping[Any, int] = {cell: at for at, cell in enumerate(dict.fromkeys(cells))}
    return np.asarray([known[cell] for cell in cells], np.int64), list(known)
