"""What a search for steps has tried: the frontier, the chain that was taken, and what spoke against the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, ClassVar

from luodi.core import yaml
from luodi.core.evidence import Evidence
from luodi.report.panel import chart, floats, plain
from luodi.report.units import three
from luodi.report.view import View

AXES = {"p50_ms": "one request, ms", "size_mb": "on disk, MB", "memory_mb": "memory, MB", "process_mb": "process, MB"}
COLOURS = {"met": "@better", "undecided": "@two", "not measured": "@faint", "missed": "@worse", "failed": "@faint"}


class Frontier:
    """Every chain of steps that `land` measured, quality against time, size and memory."""

    title: ClassVar[str] = "What was tried to land it"
    order: ClassVar[int] = 18

    def wanted(self, view: View) -> bool:
        return any("land" in one.notes for one in view.evidence)

    def html(self, view: View) -> str:
        return "".join(_search(one) for one in view.evidence if "land" in one.notes)


def _search(one: Evidence) -> str:
    note: Mapping[str, Any] = one.notes["land"]
    tried: Sequence[Mapping[str, Any]] = note["chains"]
    metric = note["metric"]
    axes = [axis for axis in AXES if any(axis in chain["figures"] for chain in tried)]
    scored = [chain for chain in tried if metric in chain["figures"]]
    drawn = "".join(f"<div>{_chart(scored, axis, metric, note)}</div>" for axis in axes) if len(scored) > 1 else ""
    said = "".join(f"<p class='note'>{escape(text)}</p>" for text in one.notes.get("told", ()))
    steps = yaml.dump({"steps": one.notes["instead"]}) if one.notes["instead"] else "steps: []"
    again = (
        f"<h3>the same without the search</h3><pre>{escape(steps)}</pre>"
        "<p class='note'>The whole recipe is in found.yaml beside this page.</p>"
    )
    return f"{said}<div class='split'>{drawn}</div>{_table(tried, note)}{again}"


def _chart(scored: Sequence[Mapping[str, Any]], axis: str, metric: str, note: Mapping[str, Any]) -> str:
    """The metric by one cost: every chain a point, the frontier a line, the limit a wall."""
    shown = [chain for chain in scored if axis in chain["figures"]]
    data: list[dict[str, Any]] = [_frontier(shown, axis, metric)]
    for state in [state for state in COLOURS if any(chain["state"] == state for chain in shown)]:
        part = [chain for chain in shown if chain["state"] == state]
        data.append({
            "x": floats([chain["figures"][axis] for chain in part], 5),
            "y": floats([chain["figures"][metric] for chain in part], 5),
            "text": [plain(chain["name"]) for chain in part], "mode": "markers", "name": state,
            "marker": {
                "color": COLOURS[state],
                "size": [14 if chain["name"] == note["taken"] else 9 for chain in part],
                "symbol": ["star" if chain["name"] == note["taken"] else "circle" for chain in part],
            },
            "hovertemplate": "%{text}<br>%{x:.3g}, %{y:.4g}<extra></extra>",
        })  # fmt: skip
    values = [chain["figures"][metric] for chain in shown]
    room = max((max(values) - min(values)) * 0.15, abs(max(values)) * 0.01)
    layout: dict[str, Any] = {
        "xaxis": {"title": {"text": AXES[axis]}, "type": "log"},
        "yaxis": {"title": {"text": plain(metric)}, "range": floats([min(values) - room, max(values) + room], 5)},
    }  # fmt: skip
    most = note["limits"].get(axis)
    if most is not None:
        layout["shapes"] = [{"type": "line", "x0": most, "x1": most, "y0": 0, "y1": 1, "yref": "paper",
                             "line": {"color": "@worse", "dash": "dot", "width": 1}}]  # fmt: skip
    return chart(data, layout, f"{metric} by {AXES[axis]} of {len(shown)} chains; the star was taken", height=330)


def _frontier(shown: Sequence[Mapping[str, Any]], axis: str, metric: str) -> dict[str, Any]:
    """Chains than which none is both cheaper and at least as good."""
    lost = {chain["name"]: chain["loss"]["value"] if chain["loss"] else 0.0 for chain in shown}
    best, line = float("inf"), []
    for chain in sorted(shown, key=lambda chain: (chain["figures"][axis], lost[chain["name"]])):
        if lost[chain["name"]] < best:
            best = lost[chain["name"]]
            line.append(chain)
    return {
        "x": floats([chain["figures"][axis] for chain in line], 5),
        "y": floats([chain["figures"][metric] for chain in line], 5), "mode": "lines", "name": "frontier",
        "line": {"color": "@soft", "width": 1, "shape": "hv"}, "hoverinfo": "skip",
    }  # fmt: skip


def _table(tried: Sequence[Mapping[str, Any]], note: Mapping[str, Any]) -> str:
    axes = [axis for axis in AXES if any(axis in chain["figures"] for chain in tried)]
    heads = "".join(f"<th class='count'>{escape(AXES[axis])}</th>" for axis in axes)
    metric = escape(str(note["metric"] or "quality"))
    rows = "".join(_row(chain, axes, note) for chain in sorted(tried, key=_order))
    left = "".join(f"<li>not tried: {escape(text)}</li>" for text in note["lacking"])
    return (
        f"<div class='scroll'><table class='chains'><thead><tr><th>steps</th><th>limits</th>{heads}"
        f"<th class='count'>{metric} lost</th><th>why not</th></tr></thead><tbody>{rows}</tbody></table></div>"
        + (f"<ul>{left}</ul>" if left else "")
    )


def _order(chain: Mapping[str, Any]) -> tuple[int, float]:
    return list(COLOURS).index(chain["state"]), chain["figures"].get("p50_ms", float("inf"))


def _row(chain: Mapping[str, Any], axes: Sequence[str], note: Mapping[str, Any]) -> str:
    taken = chain["name"] == note["taken"]
    figures = "".join(
        f"<td class='count'>{three(chain['figures'][axis]) if axis in chain['figures'] else '–'}</td>" for axis in axes
    )
    loss = chain["loss"]
    lost = f"{loss['value']:.3g} [{loss['low']:.3g}, {loss['high']:.3g}]" if loss else "–"
    why = "taken" if taken else escape(chain["why"]) or "another one is better"
    return (
        f"<tr{' class=taken' if taken else ''}><td>{escape(chain['name'])}</td>"
        f"<td>{escape(chain['state'])}</td>{figures}"
        f"<td class='count'>{escape(lost)}</td><td>{why}</td></tr>"
    )
