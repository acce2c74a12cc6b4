"""How well the probabilities rank: ROC and precision-recall."""

from __future__ import annotations

from html import escape
from typing import Any, ClassVar

import numpy as np

from luodi.report.answers import Answers, Curve, mean_curve, thinned
from luodi.report.panel import by_target, chart, floats, plain
from luodi.report.units import three
from luodi.report.view import View


class Ranking:
    """ROC and precision-recall, every label against the rest, and their macro average."""

    title: ClassVar[str] = "ROC and precision"
    order: ClassVar[int] = 60

    def wanted(self, view: View) -> bool:
        return any(map(_curved, view.final.values()))

    def html(self, view: View) -> str:
        return by_target(view.final, _curved, _target)


def _curved(answers: Answers) -> bool:
    return answers.scored and bool(answers.present())


def _target(answers: Answers) -> str:
    shown = answers.present()
    if len(answers.known) == 2:
        shown = shown[-1:]  # two labels give one curve: the second against the first
    roc = {k: answers.roc(k) for k in shown}
    recall = {k: answers.precision_recall(k) for k in shown}
    parts = [
        ("ROC", "area", roc, ("false positive rate", "true positive rate")),
        ("Precision and recall", "average precision", recall, ("recall", "precision")),
    ]
    charts = "".join(
        f"<div><h3>{title}</h3>{_chart(answers, curves, axes, what)}{_said(answers, curves, what)}</div>"
        for title, what, curves, axes in parts
    )
    many = "Thin lines are the labels, each against the rest; the strong line is their average. Hover for names."
    note = f"<p class='note'>{many}</p>" if len(shown) > 1 else ""
    return f"{note}<div class='split'>{charts}</div>"


def _chart(answers: Answers, curves: dict[int, Curve], axes: tuple[str, str], what: str) -> str:
    mean = mean_curve(list(curves.values()))
    data: list[dict[str, Any]] = []
    if len(curves) > 1:
        data += [_line(curve, answers.labels[k], what, "@muted", 1.2) for k, curve in curves.items()]
    name = "average" if len(curves) > 1 else answers.labels[next(iter(curves))]
    data.append(_line(mean if len(curves) > 1 else next(iter(curves.values())), name, what, "@one", 2.6))
    layout: dict[str, Any] = {
        "xaxis": {"title": {"text": axes[0]}, "range": [-0.01, 1.01]},
        "yaxis": {"title": {"text": axes[1]}, "range": [0, 1.02]}, "showlegend": False, "hovermode": "closest",
    }  # fmt: skip
    if axes[0].startswith("false"):
        corner = _corner(list(curves.values()))
        data.insert(0, {"x": [0, 1], "y": [0, 1], "mode": "lines", "hoverinfo": "skip",
                        "line": {"color": "@line", "width": 1, "dash": "dot"}})  # fmt: skip
        layout["xaxis"]["range"] = [-0.01 * corner, corner]
        layout["yaxis"]["range"] = [1 - 1.2 * corner if corner < 1 else 0, 1 + 0.02 * corner]
    elif min(curve.y[curve.x <= 0.9].min() for curve in curves.values()) > 0.9:
        layout["yaxis"]["range"] = [0.75, 1.01]
    says = f"{axes[1]} against {axes[0]}: {what} {three(mean.area)} on average over {len(curves)} labels"
    return chart(data, layout, says, height=330)


def _corner(curves: list[Curve]) -> float:
    """How much of the false positive axis is worth showing: the part where the curves still rise."""
    full = max(float(np.interp(0.98, curve.y, curve.x)) for curve in curves)
    return next((part for part in (0.05, 0.1, 0.25) if full < 0.6 * part), 1.0)


def _line(curve: Curve, label: str, what: str, colour: str, width: float) -> dict[str, Any]:
    drawn = thinned(curve)
    return {
        "x": floats(drawn.x), "y": floats(drawn.y), "mode": "lines", "name": plain(label),
        "line": {"color": colour, "width": width},
        "hovertemplate": f"{plain(label)}: {what} {three(curve.area)}<br>%{{x:.3f}}, %{{y:.3f}}<extra></extra>",
    }  # fmt: skip


def _said(answers: Answers, curves: dict[int, Curve], what: str) -> str:
    if len(curves) == 1:
        k, curve = next(iter(curves.items()))
        return f"<p class='note'>{what} of {escape(answers.labels[k])}: <b>{_exact(curve.area)}</b></p>"
    worst = sorted(curves, key=lambda k: curves[k].area)[:3]
    lowest = ", ".join(f"{escape(answers.labels[k])} {_exact(curves[k].area)}" for k in worst)
    mean = np.mean([curve.area for curve in curves.values()])
    return f"<p class='note'>{what}: <b>{_exact(float(mean))}</b> on average; lowest {lowest}</p>"


def _exact(area: float) -> str:
    """Areas crowd below 1, so they get a fourth digit."""
    return f"{area:.4f}"
