"""How each number moved, step by step."""

from __future__ import annotations

from html import escape
from typing import Any, ClassVar

from luodi.core.evidence import Evidence, Measure
from luodi.report.panel import chart, floats, plain
from luodi.report.units import Column, bounds, column_of, signed, three
from luodi.report.view import View

SYMBOLS = {
    "better": "triangle-up",
    "worse": "triangle-down",
    "undecided": "circle-open",
    "same": "circle",
    None: "circle",
}
COLOURS = {"better": "@better", "worse": "@worse", "undecided": "@undecided", "same": "@undecided", None: "@one"}


class Moves:
    """One small chart a number: its value after every step, with its interval and the verdict on each move."""

    title: ClassVar[str] = "How each number moved"
    order: ClassVar[int] = 20

    def wanted(self, view: View) -> bool:
        return len(view.measured) > 1

    def html(self, view: View) -> str:
        note = (
            "▲ and ▼ mark moves that are surely better or worse than the step before; an open circle is undecided. "
            "The band is the 95% interval."
        )
        columns = [*view.table.columns]
        columns += [column_of(n, view.names) for n in ("p95_ms", "process_mb") if n in view.names]
        charts = "".join(f"<div><h3>{escape(column.heading)}</h3>{_moves(view, column)}</div>" for column in columns)
        return f"<p class='note'>{note}</p><div class='split'>{charts}</div>"


def _moves(view: View, column: Column) -> str:
    series = [(one, one.measures[column.name]) for one in view.measured if column.name in one.measures]
    places = list(range(len(series)))
    labels = ["<br>".join(map(plain, filter(None, (one.name, one.form)))) for one, _ in series]
    low, high = floats([m.low for _, m in series], 6), floats([m.high for _, m in series], 6)
    band = {
        "x": [*places, *places[::-1]], "y": [*high, *low[::-1]], "fill": "toself", "fillcolor": "@band",
        "line": {"width": 0}, "mode": "lines", "hoverinfo": "skip", "showlegend": False,
    }  # fmt: skip
    colours = [COLOURS[m.verdict] for _, m in series]
    line = {
        "x": places, "y": floats([m.value for _, m in series], 6), "mode": "lines+markers+text", "showlegend": False,
        "line": {"color": "@one", "width": 1.6}, "text": [three(m.value) for _, m in series], "cliponaxis": False,
        "textposition": _sides([m.value for _, m in series]), "textfont": {"size": 11, "color": "@soft"},
        "marker": {"size": 10, "symbol": [SYMBOLS[m.verdict] for _, m in series], "color": colours,
                   "line": {"width": 1.6, "color": colours}},
        "hovertext": [_hover(one, measure, column) for one, measure in series], "hoverinfo": "text",
    }  # fmt: skip
    layout: dict[str, Any] = {
        "xaxis": {
            "tickvals": places,
            "ticktext": labels,
            "showgrid": False,
            "tickangle": 0,
            "range": [-0.35, len(series) - 0.65],
        },
        "yaxis": {"nticks": 5, "tickformat": "~g", "range": _range(column, low, high)},
    }
    says = f"{column.heading}: " + ", ".join(f"{_label(one)} {three(m.value)}" for one, m in series)
    return chart([band, line], layout, says, height=230)


def _range(column: Column, low: list[float | None], high: list[float | None]) -> list[float]:
    """Metrics fill the chart; what has a natural zero (time, size, memory) starts there."""
    known = [value for value in (*low, *high) if value is not None] or [0.0, 1.0]
    bottom, top = min(known), max(known)
    room = (top - bottom) or abs(top) or 1.0
    if not column.metric and bottom >= 0:
        return [-0.1 * top, top * 1.25 or 1.0]
    return [bottom - 0.15 * room, top + 0.3 * room]


def _sides(values: list[float]) -> list[str]:
    """Where each number stands: off the line that comes from the left and goes to the right."""
    found = []
    for place, value in enumerate(values):
        if place == 0:
            found.append("top center")
            continue
        falls = values[place - 1] > value
        rises = place + 1 < len(values) and values[place + 1] > value
        found.append(("bottom center" if rises else "top right") if falls else "top left" if rises else "top center")
    return found


def _label(one: Evidence) -> str:
    return one.name if one.form in ("", "torch") else f"{one.name} {one.form}"


def _hover(one: Evidence, measure: Measure, column: Column) -> str:
    text = f"{plain(_label(one))}<br>{three(measure.value)} {column.unit} {bounds(measure)}"
    if measure.change is not None:
        change = measure.change
        text += f"<br>{signed(change.value)} [{signed(change.low)}, {signed(change.high)}]: {measure.verdict}"
    return text
