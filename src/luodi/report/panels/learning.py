"""Learning curves of every step that trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, ClassVar

from luodi.core.evidence import Evidence
from luodi.report.panel import chart, floats, plain
from luodi.report.units import three
from luodi.report.view import View


class Learning:
    """Loss and validation metrics by epoch, for each step that reported a history."""

    title: ClassVar[str] = "Learning curves"
    order: ClassVar[int] = 40

    def wanted(self, view: View) -> bool:
        return any(one.notes.get("history") for one in view.evidence)

    def html(self, view: View) -> str:
        return "".join(_curves(one) for one in view.evidence if one.notes.get("history"))


def _curves(one: Evidence) -> str:
    history: Sequence[Mapping[str, Any]] = one.notes["history"]
    losses = {"training": _series(history, "train_loss"), "validation": _series(history, "validation_loss")}
    charts = [("loss", losses)]
    charts += [
        (
            metric.rpartition(".")[2] + " on validation rows",
            {"validation": [_get(epoch.get("validation"), metric) for epoch in history]},
        )
        for metric in list(history[-1].get("validation") or {})[:1]
    ]
    rates = _series(history, "learning_rate")
    if len({rate for rate in rates if rate is not None}) > 1:
        charts.append(("learning rate", {"learning rate": rates}))
    epochs = [epoch.get("epoch", index + 1) for index, epoch in enumerate(history)]
    drawn = "".join(f"<div><h3>{escape(name)}</h3>{_chart(name, epochs, lines)}</div>" for name, lines in charts)
    return f"<p class='note'>{escape(one.name)}: {len(history)} epochs.</p><div class='split three'>{drawn}</div>"


def _chart(name: str, epochs: list[Any], lines: Mapping[str, list[float | None]]) -> str:
    known = {label: values for label, values in lines.items() if any(value is not None for value in values)}
    data = [
        {"x": epochs, "y": floats([float("nan") if v is None else v for v in values], 7), "name": plain(label),
         "mode": "lines+markers", "line": {"color": colour, "width": 2, "dash": dash}, "marker": {"size": 5}}
        for (label, values), colour, dash in zip(known.items(), ("@one", "@two"), ("solid", "dot"), strict=False)
    ]  # fmt: skip
    layout = {"xaxis": {"title": {"text": "epoch"}, "dtick": max(1, len(epochs) // 10)}, "showlegend": len(known) > 1}
    ends = ", ".join(f"{label} {three(_last(values))}" for label, values in known.items())
    return chart(data, layout, f"{name} by epoch; at the end {ends}", height=260)


def _series(history: Sequence[Mapping[str, Any]], key: str) -> list[float | None]:
    return [_get(epoch, key) for epoch in history]


def _get(values: Mapping[str, Any] | None, key: str) -> float | None:
    value = (values or {}).get(key)
    return float(value) if value is not None else None


def _last(values: list[float | None]) -> float:
    return next(value for value in reversed(values) if value is not None)
