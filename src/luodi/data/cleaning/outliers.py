"""Numbers far from the others of their column."""

from __future__ import annotations

from typing import Literal

import numpy as np

from luodi.core.rows import Rows
from luodi.core.task import Task
from luodi.data.columns.fields import fields, kind

LIMITS = {"score": 3.5, "quartiles": 3.0}  # Iglewicz and Hoaglin 1993; Tukey 1977, his outer fences


def outliers(task: Task, rows: Rows, by: Literal["score", "quartiles"], limit: float | None) -> dict[int, str]:
    """Row -> the number that lies furthest out, and how far."""
    worst: dict[int, tuple[float, str]] = {}
    most = limit if limit is not None else LIMITS[by]
    for name, field in (fields(task, "inputs") | fields(task, "targets")).items():
        if kind(field) != "number":
            continue
        cells = [field.read(cell) for cell in rows.column(name)]
        values = np.asarray([np.nan if cell is None else cell for cell in cells], np.float64)
        scores = robust_scores(values) if by == "score" else beyond_quartiles(values)
        for row in np.flatnonzero(scores > most).tolist():
            if row not in worst or scores[row] > worst[row][0]:
                unit = "robust deviations" if by == "score" else "quartile ranges"
                worst[row] = (scores[row], f"{name} {values[row]:.6g} is {scores[row]:.1f} {unit} out")
    return {row: worst[row][1] for row in sorted(worst)}


def robust_scores(values: np.ndarray) -> np.ndarray:
    """Distance from the median in robust standard deviations: 1.4826 times the median distance.

    Where more than half of the values are equal, 1.2533 times the mean distance. NaN counts nowhere and scores 0.
    """
    known = values[np.isfinite(values)]
    if not len(known):
        return np.zeros(len(values))
    off = np.abs(known - np.median(known))
    spread = 1.482602 * float(np.median(off)) or 1.253314 * float(off.mean()) or 1.0
    return np.nan_to_num(np.abs(values - np.median(known)) / spread)


def beyond_quartiles(values: np.ndarray) -> np.ndarray:
    """How many quartile ranges (75% minus 25%) a value lies beyond the nearer quartile; inside: 0."""
    known = values[np.isfinite(values)]
    if not len(known):
        return np.zeros(len(values))
    low, high = np.percentile(known, [25, 75])
    beyond = np.maximum(np.maximum(low - values, values - high), 0.0)
    return np.nan_to_num(beyond / ((high - low) or 1.0))
