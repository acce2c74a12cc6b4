"""The answers behind one target of one evidence, and what can be counted from them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Curve:
    """One curve of a chart: x, y, and its summary (an area, an average precision)."""

    x: np.ndarray
    y: np.ndarray
    area: float


@dataclass(frozen=True)
class Bins:
    """A reliability diagram: mean confidence, share right and rows of each filled bin, and the expected error."""

    confidence: np.ndarray
    right: np.ndarray
    rows: np.ndarray
    edges: np.ndarray  # lower edges
    error: float


@dataclass(frozen=True)
class Answers:
    """Answers and truths of one target, the first axis the rows; `known` labels name the probabilities' columns."""

    target: str
    ids: np.ndarray
    value: np.ndarray
    truth: np.ndarray
    probabilities: np.ndarray | None = None
    known: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def categorical(self) -> bool:
        return not np.issubdtype(self.value.dtype, np.number)

    @property
    def labelled(self) -> bool:
        """Whether the answers are labels, and no texts of which each is another."""
        return self.categorical and (bool(self.known) or 2 * len(self.labels) <= len(self))

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """The known labels, then those that only occur in these rows."""
        new = {*map(str, self.value), *map(str, self.truth)} - {*self.known}
        return (*self.known, *sorted(new))

    @property
    def scored(self) -> bool:
        """Whether every known label has a probability."""
        return self.probabilities is not None and self.probabilities.shape[1] == len(self.known) > 1

    @cached_property
    def right(self) -> np.ndarray:
        return self.value == self.truth

    @cached_property
    def confidence(self) -> np.ndarray:
        """The probability of the given answer."""
        assert self.probabilities is not None
        return self.probabilities.max(axis=1)

    def mistakes(self) -> np.ndarray:
        """Row numbers of wrong answers, the surest first; of numbers: all rows, the furthest off first."""
        if not self.categorical:
            return np.argsort(-np.abs(self.value - self.truth), kind="stable")
        wrong = np.flatnonzero(~self.right)
        if not self.scored:
            return wrong
        return wrong[np.argsort(-self.confidence[wrong], kind="stable")]

    def confusion(self) -> np.ndarray:
        """Counts (labels, labels): truth down, answer across."""
        place = {label: index for index, label in enumerate(self.labels)}
        counts = np.zeros((len(self.labels), len(self.labels)), dtype=np.int64)
        np.add.at(counts, ([place[t] for t in self.truth], [place[v] for v in self.value]), 1)
        return counts

    def present(self) -> list[int]:
        """Labels that some rows have and others do not: only these have a curve."""
        shares = [float(np.mean(self.truth == label)) for label in self.known]
        return [index for index, part in enumerate(shares) if 0 < part < 1]

    def roc(self, label: int) -> Curve:
        """False against true positive rate of one label against the rest, and the area below."""
        hits, falls = self._counts(label)
        x, y = np.r_[0.0, falls / falls[-1]], np.r_[0.0, hits / hits[-1]]
        return Curve(x, y, float(np.trapezoid(y, x)))

    def precision_recall(self, label: int) -> Curve:
        """Recall against precision of one label against the rest, and the average precision."""
        hits, falls = self._counts(label)
        precision, recall = hits / (hits + falls), hits / hits[-1]
        average = float(np.sum(np.diff(np.r_[0.0, recall]) * precision))
        return Curve(np.r_[0.0, recall], np.r_[1.0, precision], average)

    def _counts(self, label: int) -> tuple[np.ndarray, np.ndarray]:
        """True and false positives at every distinct threshold, from the highest down."""
        assert self.probabilities is not None
        score = self.probabilities[:, label]
        order = np.argsort(-score, kind="stable")
        positive = (self.truth == self.labels[label])[order]
        ends = np.r_[np.flatnonzero(np.diff(score[order])), len(score) - 1]
        hits = np.cumsum(positive)[ends]
        return hits, 1 + ends - hits

    def calibration(self, bins: int = 10) -> Bins:
        """Confidence of the given answer against how often it was right, in equal bins, and the expected error.

        Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", equation 5.
        """
        place = np.minimum((self.confidence * bins).astype(int), bins - 1)
        rows = np.bincount(place, minlength=bins)
        filled = rows > 0
        total = rows[filled]
        confidence = np.bincount(place, self.confidence, bins)[filled] / total
        right = np.bincount(place, self.right.astype(float), bins)[filled] / total
        error = float(np.sum(total * np.abs(confidence - right)) / len(self))
        return Bins(confidence, right, total, np.flatnonzero(filled) / bins, error)

    def json(self) -> dict[str, Any]:
        """What the page draws from these answers, as plain numbers."""
        if not self.categorical:
            off = self.value - self.truth
            return {
                "rows": len(self),
                "mean_error": float(off.mean()),
                "mean_absolute_error": float(np.abs(off).mean()),
            }
        found: dict[str, Any] = {
            "rows": len(self), "labels": list(self.labels), "confusion": self.confusion().tolist(),
            "mistakes": [str(self.ids[row]) for row in self.mistakes()],
        }  # fmt: skip
        if self.scored:
            bins = self.calibration()
            found["roc_area"] = {self.labels[k]: self.roc(k).area for k in self.present()}
            found["average_precision"] = {self.labels[k]: self.precision_recall(k).area for k in self.present()}
            found["calibration"] = {
                "expected_error": bins.error, "confidence": bins.confidence.tolist(), "right": bins.right.tolist(),
                "rows": bins.rows.tolist(),
            }  # fmt: skip
        return found


def mean_curve(curves: list[Curve], *, points: int = 201) -> Curve:
    """The macro average: curves read at the same x and averaged, and the mean of their areas."""
    x = np.linspace(0.0, 1.0, points)
    y = np.mean([np.interp(x, curve.x, curve.y) for curve in curves], axis=0)
    return Curve(x, y, float(np.mean([curve.area for curve in curves])))


def thinned(curve: Curve, points: int = 200) -> Curve:
    """The same curve with at most about `points` points for drawing; its area stays that of the full curve."""
    if len(curve.x) <= points:
        return curve
    keep = np.unique(np.linspace(0, len(curve.x) - 1, points).astype(int))
    bend = np.flatnonzero(np.diff(np.sign(np.diff(curve.y))))[: points // 2] + 1
    keep = np.union1d(keep, bend)
    return Curve(curve.x[keep], curve.y[keep], curve.area)
