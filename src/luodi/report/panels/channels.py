"""Which channels were taken out of which layers, and what each layer alone would have cost."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any, ClassVar

from luodi.core.evidence import Evidence
from luodi.report.panel import chart, floats, plain
from luodi.report.units import three
from luodi.report.view import View


class Channels:
    """Channels of every layer before and after a cut, and the loss with each kind of channel cut alone."""

    title: ClassVar[str] = "Channels taken out"
    order: ClassVar[int] = 46

    def wanted(self, view: View) -> bool:
        return any("channels" in one.notes for one in view.evidence)

    def html(self, view: View) -> str:
        return "".join(_step(one) for one in view.evidence if "channels" in one.notes)


def _step(one: Evidence) -> str:
    layers: Mapping[str, Any] = one.notes["channels"]
    before, after = one.notes["parameters"]
    head = (
        f"<p class='note'>{one.number} {escape(one.name)}: {before:,} parameters became {after:,}, "
        f"{1 - after / max(before, 1):.0%} fewer.</p>"
    )
    rows = "".join(
        f"<tr><th scope='row'>{escape(name)}</th><td>{old}</td><td>{new}</td></tr>"
        for name, (old, new) in layers.items()
    )
    heads = "".join(f"<th scope='col'>{name}</th>" for name in ("layer", "channels before", "after"))
    table = f"<div class='scroll'><table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>"
    sensitivity = one.notes.get("sensitivity")
    return head + (_sensitivity(sensitivity) if sensitivity else "") + table


def _sensitivity(said: Mapping[str, Any]) -> str:
    """A bar a kind of channel: how much the loss rises when it alone is cut."""
    rises = {name: loss - said["loss"] for name, loss in said["layers"].items()}
    names = list(rises)
    bars = {
        "type": "bar", "x": floats(list(rises.values()), 5), "y": list(range(len(names))), "orientation": "h",
        "marker": {"color": "@one"}, "hovertext": [f"{plain(name)}: {rises[name]:+.4g}" for name in names],
        "hoverinfo": "text",
    }  # fmt: skip
    labels = [plain(name if len(name) <= 32 else f"{name[:31]}…") for name in names]
    layout = {
        "xaxis": {"title": {"text": f"loss above {three(said['loss'])}"}},
        "yaxis": {"tickvals": list(range(len(names))), "ticktext": labels, "autorange": "reversed", "automargin": True},
        "showlegend": False,
    }
    told = f"the loss with {said['share']:.0%} of one kind of channel cut, before any recovery"
    return f"<h3>{told}</h3>" + chart([bars], layout, f"{told}: {len(names)} kinds", height=120 + 22 * len(names))
