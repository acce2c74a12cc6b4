"""Weights, gradients and activations of every layer, as the listener `layers` saw them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from math import log10
from typing import Any, ClassVar

from luodi.core.evidence import Evidence
from luodi.report.panel import chart, chip, plain
from luodi.report.view import View

SHOWN = 24  # lines of a chart; a table has every layer


class Layers:
    """The last look at every layer with its findings, and gradient norms over the training."""

    title: ClassVar[str] = "Layers while they learned"
    order: ClassVar[int] = 45

    def wanted(self, view: View) -> bool:
        return any("looks" in one.notes for one in view.evidence)

    def html(self, view: View) -> str:
        return "".join(_step(one, _looks(view, one)) for one in view.evidence if "looks" in one.notes)


def _looks(view: View, one: Evidence) -> list[Mapping[str, Any]]:
    """Every look at a step's layers in the stream of events, each update once: the last time that it was done."""
    found: dict[int, Mapping[str, Any]] = {}
    key = None
    for event in view.events:
        if event.get("step") != one.number:
            continue
        if event["event"] == "step" and event["key"] != key:  # another training than the one before: other fields
            key, found = event["key"], {}
        elif event["event"] == "layers":
            found[event["update"]] = event
    return [found[update] for update in sorted(found)]


def _step(one: Evidence, looks: Sequence[Mapping[str, Any]]) -> str:
    last: Mapping[str, Any] = one.notes["looks"]
    flags = "".join(f"<li>{chip(flag['what'], 'worse')} {escape(flag['text'])}</li>" for flag in last["flags"])
    told = f"<ul>{flags}</ul>" if flags else "<p>No layer vanishes, explodes or is dead.</p>"
    head = f"<p class='note'>{one.number} {escape(one.name)}: update {last['update']}, epoch {last['epoch']}.</p>{told}"
    rows = "".join(_row(layer) for layer in last["layers"])
    names = ("layer", "gradient norm", "weights", "update / weights", "activations", "zeros", "dead units")
    heads = "".join(f"<th scope='col'>{name}</th>" for name in names)
    table = f"<div class='scroll'><table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>"
    return head + (_curves(looks) if len(looks) > 1 else "") + table


def _row(layer: Mapping[str, Any]) -> str:
    gradients, activations = layer.get("gradients") or {}, layer.get("activations") or {}
    cells = (
        _short(gradients.get("norm")), _spread(layer.get("weights")), _short(layer.get("update")),
        _spread(activations), _share(activations.get("zeros")), _share(activations.get("dead")),
    )  # fmt: skip
    name = f"{escape(layer['name'])} <span class='interval'>{escape(layer['kind'])}</span>"
    return f"<tr><th scope='row'>{name}</th>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _curves(looks: Sequence[Mapping[str, Any]]) -> str:
    """The logarithm of every layer's gradient norm."""
    names = [layer["name"] for layer in looks[-1]["layers"] if layer.get("gradients")][:SHOWN]
    data = []
    for name in names:
        found = [next((one for one in look["layers"] if one["name"] == name), {}) for look in looks]
        norms = [(one.get("gradients") or {}).get("norm") for one in found]
        y = [round(log10(norm), 4) if norm else None for norm in norms]
        data.append({"x": [look["update"] for look in looks], "y": y, "name": plain(name), "mode": "lines+markers"})
    layout = {
        "xaxis": {"title": {"text": "update"}},
        "yaxis": {"title": {"text": "log10 of the gradient norm"}},
        "showlegend": True,
    }
    return chart(data, layout, f"gradient norms of {len(names)} layers over {len(looks)} looks", height=300)


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.2g}"


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"


def _spread(part: Mapping[str, float | None] | None) -> str:
    return f"{_short(part.get('mean'))} ± {_short(part.get('deviation'))}" if part else ""
