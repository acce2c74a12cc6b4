"""Whether a confidence means what it says."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from luodi.report.answers import Answers, Bins
from luodi.report.panel import by_target, chart, floats
from luodi.report.units import three
from luodi.report.view import View


class Calibration:
    """The reliability diagram: confidence against how often the answer was right, and the expected error."""

    title: ClassVar[str] = "Calibration"
    order: ClassVar[int] = 70

    def wanted(self, view: View) -> bool:
        return any(answers.scored for answers in view.final.values())

    def html(self, view: View) -> str:
        return by_target(view.final, lambda answers: answers.scored, _target)


def _target(answers: Answers) -> str:
    bins = answers.calibration()
    gap = float(np.mean(answers.confidence) - np.mean(answers.right))
    lean = "too sure" if gap > 0 else "too modest"
    note = (
        f"Expected calibration error <b>{three(bins.error)}</b> in 10 equal bins; on average the answers are "
        f"{lean} by {three(abs(gap))}. Points on the diagonal mean what they say; bars are 95% intervals (Wilson)."
    )
    return (
        f"<p class='note'>{note}</p><div class='split'>"
        f"<div><h3>confidence against being right</h3>{_reliability(bins)}</div>"
        f"<div><h3>how sure the answers are</h3>{_spread(answers)}</div></div>"
    )


def _reliability(bins: Bins) -> str:
    low, high = _wilson(bins.right, bins.rows)
    diagonal = {"x": [0, 1], "y": [0, 1], "mode": "lines", "hoverinfo": "skip", "showlegend": False,
                "line": {"color": "@faint", "width": 1, "dash": "dot"}}  # fmt: skip
    points = {
        "x": floats(bins.confidence), "y": floats(bins.right), "mode": "lines+markers", "showlegend": False,
        "line": {"color": "@one", "width": 1.6}, 
        "marker": {"size": floats(6 + 12 * np.sqrt(bins.rows / bins.rows.max()), 1)},
        "error_y": {"type": "data", "symmetric": False, "array": floats(high - bins.right), "color": "@muted",
                    "arrayminus": floats(bins.right - low), "thickness": 1.4, "width": 4},
        "customdata": bins.rows.tolist(),
        "hovertemplate": "confidence %{x:.3f}<br>right %{y:.3f}<br>%{customdata} rows<extra></extra>",
    }  # fmt: skip
    layout: dict[str, Any] = {
        "xaxis": {"title": {"text": "confidence"}, "range": [0, 1.02]},
        "yaxis": {"title": {"text": "share right"}, "range": [0, 1.04]},
    }
    says = f"reliability diagram; expected calibration error {three(bins.error)}"
    return chart([diagonal, points], layout, says, height=300)


def _spread(answers: Answers) -> str:
    edges = np.linspace(0, 1, 21)
    data = []
    for name, chosen, colour in (("right", answers.right, "@one"), ("wrong", ~answers.right, "@two")):
        counts, _ = np.histogram(answers.confidence[chosen], edges)
        data.append({
            "type": "bar", "x": floats((edges[1:] + edges[:-1]) / 2), "y": counts.tolist(), "name": name,
            "marker": {"color": colour}, "hovertemplate": f"{name}: %{{y}} rows around %{{x:.2f}}<extra></extra>",
        })  # fmt: skip
    layout = {
        "barmode": "stack", "bargap": 0.08, "xaxis": {"title": {"text": "confidence"}, "range": [0, 1]},
        "yaxis": {"title": {"text": "rows (logarithmic)"}, "type": "log", "dtick": 1}, "showlegend": True,
    }  # fmt: skip
    median = float(np.median(answers.confidence))
    return chart(data, layout, f"histogram of confidences, median {three(median)}", height=300)


def _wilson(share: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The 95% interval of a share. Source: Wilson 1927, equation of the score interval."""
    z = 1.959964
    middle = (share + z * z / (2 * rows)) / (1 + z * z / rows)
    half = z * np.sqrt(share * (1 - share) / rows + z * z / (4 * rows**2)) / (1 + z * z / rows)
    return middle - half, middle + half
