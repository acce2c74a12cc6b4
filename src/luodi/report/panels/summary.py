"""The first thing seen: what ran, whether it may go to work, and its numbers."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any, ClassVar

from luodi.core.evidence import Measure
from luodi.report.panel import chip
from luodi.report.table import SIGNS
from luodi.report.units import Column, bounds, duration, signed, three
from luodi.report.view import View

STATES = {"met": "better", "missed": "worse", "undecided": "undecided", "not measured": "undecided"}


class Summary:
    """The run's name, the verdict of its limits, and each headline number from the first model to the last."""

    title: ClassVar[str] = "At a glance"
    order: ClassVar[int] = 0

    def wanted(self, view: View) -> bool:
        return bool(view.evidence)

    def html(self, view: View) -> str:
        banner = "<p class='banner'>A rehearsal: a few rows and updates. No number here says how good anything is.</p>"
        cards = "".join(_card(view, column) for column in view.table.columns)
        return (
            f"<h1>{escape(view.name)}</h1><p class='about'>{_about(view)}</p>"
            f"<div class='verdicts'>{_verdicts(view)}</div>{banner if view.rehearsal else ''}"
            f"<div class='headline'>{cards}</div>"
        )


def _about(view: View) -> str:
    task: Any = next(iter((view.head.get("task") or {"": {}}).values()))
    parts = []
    if isinstance(task, Mapping) and task.get("inputs") and task.get("targets"):
        names = list(task["inputs"])
        inputs = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        parts.append(f"{inputs} → {', '.join(task['targets'])}")
    if view.head.get("config"):
        parts.append(next(iter(view.head["config"])))
    parts.append(" → ".join(dict.fromkeys(one.name for one in view.evidence)))
    if view.last and view.main in view.last.measures:
        parts.append(f"scored on {view.last.measures[view.main].count:,} held-out rows")
    parts.append(f"{duration(sum(one.seconds for one in view.evidence))} of work")
    return " · ".join(map(escape, parts))


def _verdicts(view: View) -> str:
    if not view.limits:
        return chip("no limits were stated", "undecided")
    counts: dict[str, int] = {}
    for one in view.limits:
        counts[one["state"]] = counts.get(one["state"], 0) + 1
    if list(counts) == ["met"]:
        return chip("✓ every limit met" if len(view.limits) > 1 else "✓ the limit is met", "better")
    marks = {"met": "✓", "missed": "✗"}
    return "".join(
        chip(f"{marks.get(s, '?')} {n} {'limits' if n > 1 else 'limit'} {s}", STATES[s]) for s, n in counts.items()
    )


def _card(view: View, column: Column) -> str:
    series = [(one, one.measures[column.name]) for one in view.measured if column.name in one.measures]
    if not series:
        return ""
    (first, before), (last, now) = series[0], series[-1]
    interval = f" <small>{bounds(now)}</small>" if column.metric else ""
    unit = f" <small>{escape(column.unit)}</small>" if column.unit else ""
    came = "the first model of this run<span></span>"
    if len(series) > 1:
        moved = _moved(column, [measure for _, measure in series])
        came = f"from <b>{three(before.value)}</b> after {escape(first.name)}<span>{moved}</span>"
    return (
        f"<div class='figure'><div class='name'>{escape(column.title)} · {escape(last.form)}</div>"
        f"<div class='big'>{three(now.value)}{unit}{interval}</div><div class='from'>{came}</div>"
        f"{_spark([measure.value for _, measure in series])}</div>"
    )


def _moved(column: Column, series: list[Measure]) -> str:
    """What became of it since the first model, said only as far as it is certain."""
    before, now = series[0], series[-1]
    if not column.metric:
        return _times(column, before, now)
    verdicts = {measure.verdict for measure in series[1:]} - {"same"}
    if not verdicts:
        return "= the same"
    off = signed(now.value - before.value)
    if len(verdicts) == 1 and (only := verdicts.pop()) in ("better", "worse"):  # every step that counts went that way
        return f"<span class='{only}-text'>{off} {SIGNS[only]} {only}</span>"
    return f"{off} over {len(series) - 1} steps"


def _times(column: Column, before: Measure, now: Measure) -> str:
    """How many times smaller or larger, said only when the two intervals do not touch."""
    words = {"ms": ("faster", "slower")}.get(column.unit, ("smaller", "larger"))
    if min(before.value, now.value) > 0 and now.high < before.low:
        return f"<span class='better-text'>{three(before.value / now.value)}× {words[0]}</span>"
    if min(before.value, now.value) > 0 and now.low > before.high:
        return f"<span class='worse-text'>{three(now.value / before.value)}× {words[1]}</span>"
    return "no clear difference"


def _spark(values: list[float]) -> str:
    """A line without axes, the steps from left to right."""
    if len(values) < 2 or not all(value == value for value in values):
        return ""
    low, high = min(values), max(values)
    places = [
        (4 + 192 * index / (len(values) - 1), 36 - 30 * ((value - low) / (high - low) if high > low else 0.5))
        for index, value in enumerate(values)
    ]
    line = " ".join(f"{'M' if index == 0 else 'L'}{x:.1f} {y:.1f}" for index, (x, y) in enumerate(places))
    return (
        "<svg class='spark' viewBox='0 0 200 40' preserveAspectRatio='none' aria-hidden='true'>"
        f"<line x1='0' x2='200' y1='39.5' y2='39.5'/><path d='{line}'/></svg>"
    )
