"""The range test of every step that looked for its learning rate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, ClassVar

from luodi.core.evidence import Evidence
from luodi.report.panel import chart, floats
from luodi.report.units import three
from luodi.report.view import View


class Rates:
    """Loss by learning rate as the range test saw it, and the rate that was taken."""

    title: ClassVar[str] = "Learning rate"
    order: ClassVar[int] = 42

    def wanted(self, view: View) -> bool:
        return any(one.notes.get("rates") for one in view.evidence)

    def html(self, view: View) -> str:
        return "".join(_curve(one) for one in view.evidence if one.notes.get("rates"))


def _curve(one: Evidence) -> str:
    tried: Sequence[Mapping[str, Any]] = one.notes["rates"]
    found = float(one.notes["learning_rate"])
    rates, losses, still = ([float(each[name]) for each in tried] for name in ("rate", "loss", "still"))
    data = [
        {"x": rates, "y": floats(losses, 7), "mode": "lines+markers", "line": {"color": "@one", "width": 2},
         "marker": {"size": 4}, "name": "rising rate"},
        {"x": rates, "y": floats(still, 7), "mode": "lines", "line": {"color": "@soft", "width": 1},
         "name": "weights that stand still"},
        {"x": [found, found], "y": floats([min(losses), max(still)], 7), "mode": "lines", "showlegend": False,
         "line": {"color": "@two", "width": 2, "dash": "dot"}, "hoverinfo": "skip"},
    ]  # fmt: skip
    layout = {"xaxis": {"title": {"text": "learning rate"}, "type": "log", "exponentformat": "power"},
              "yaxis": {"title": {"text": "loss of one update"}}}  # fmt: skip
    said = (
        f"{one.name}: {three(found)} was taken, where the loss fell fastest in {len(tried)} updates with rising rates."
    )
    drawn = chart(data, layout, f"loss by learning rate; {three(found)} was taken", height=280)
    return f"<p class='note'>{escape(said)}</p>{drawn}"
