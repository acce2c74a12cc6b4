"""Predicted numbers against true ones."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from luodi.report.answers import Answers
from luodi.report.panel import by_target, chart, floats
from luodi.report.units import three
from luodi.report.view import View

MOST = 2000  # points drawn: more only hide each other


class Numbers:
    """Targets that are numbers: predicted against truth, and what is left over."""

    title: ClassVar[str] = "Predicted and true"
    order: ClassVar[int] = 55

    def wanted(self, view: View) -> bool:
        return any(not answers.categorical for answers in view.final.values())

    def html(self, view: View) -> str:
        return by_target(view.final, lambda answers: not answers.categorical, _target)


def _target(answers: Answers) -> str:
    off = answers.value - answers.truth
    note = (
        f"Half of the answers lie within {three(float(np.median(np.abs(off))))} of the truth, nine in ten within "
        f"{three(float(np.quantile(np.abs(off), 0.9)))}; on average {three(abs(float(off.mean())))} too "
        f"{'high' if off.mean() > 0 else 'low'}."
    )
    return (
        f"<p class='note'>{len(answers):,} rows. {note}</p><div class='split'>"
        f"<div><h3>predicted against true</h3>{_scatter(answers)}</div>"
        f"<div><h3>predicted less true</h3>{_residuals(answers, off)}</div></div>"
    )


def _scatter(answers: Answers) -> str:
    rows = np.unique(np.linspace(0, len(answers) - 1, min(MOST, len(answers))).astype(int))
    ends = [float(min(answers.truth.min(), answers.value.min())), float(max(answers.truth.max(), answers.value.max()))]
    data = [
        {"x": ends, "y": ends, "mode": "lines", "hoverinfo": "skip", 
         "line": {"color": "@faint", "dash": "dot", "width": 1}},
        {"x": floats(answers.truth[rows], 6), "y": floats(answers.value[rows], 6), "mode": "markers",
         "marker": {"color": "@one", "size": 6, "opacity": 0.55},
         "hovertemplate": "true %{x:.4g}<br>predicted %{y:.4g}<extra></extra>"},
    ]  # fmt: skip
    layout: dict[str, Any] = {
        "xaxis": {"title": {"text": "true"}}, "yaxis": {"title": {"text": "predicted"}}, "showlegend": False,
    }  # fmt: skip
    return chart(data, layout, f"predicted against true, {len(answers)} rows", height=330)


def _residuals(answers: Answers, off: np.ndarray) -> str:
    counts, edges = np.histogram(off, bins=min(40, max(8, int(np.sqrt(len(off))))))
    data = [{"type": "bar", "x": floats((edges[1:] + edges[:-1]) / 2, 6), "y": counts.tolist(),
             "marker": {"color": "@one"}, "hovertemplate": "%{y} rows around %{x:.4g}<extra></extra>"}]  # fmt: skip
    layout: dict[str, Any] = {
        "bargap": 0.05, "xaxis": {"title": {"text": "predicted less true"}}, "yaxis": {"title": {"text": "rows"}},
        "shapes": [{"type": "line", "x0": 0, "x1": 0, "y0": 0, "y1": 1, "yref": "paper",
                    "line": {"color": "@faint", "dash": "dot", "width": 1}}],
    }  # fmt: skip
    return chart(data, layout, f"residuals from {three(float(off.min()))} to {three(float(off.max()))}", height=330)
