"""How the bundle came to be: data, steps, events."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from html import escape
from typing import Any, ClassVar

from luodi.core.evidence import Evidence
from luodi.report.panel import named, pairs
from luodi.report.units import duration, three
from luodi.report.view import View

MOST = 200  # events shown


class Lineage:
    """The steps in order with every field, time and share of weights touched; the data's fingerprint; the events."""

    title: ClassVar[str] = "Lineage"
    order: ClassVar[int] = 100

    def wanted(self, view: View) -> bool:
        return bool(view.evidence)

    def html(self, view: View) -> str:
        steps = "".join(_step(one) for one in view.evidence)
        return f"<ol class='steps'>{steps}</ol><br>{pairs(_facts(view))}{_events(view)}"


def _step(one: Evidence) -> str:
    fields: Any = next(iter(one.step.values()), {}) if one.step else {}
    said = ", ".join(f"{name} {_short(value)}" for name, value in fields.items()) if isinstance(fields, Mapping) else ""
    touched = f" · {three(100 * one.touched)}% of the weights touched" if one.touched is not None else ""
    notes = {name: value for name, value in one.notes.items() if name not in ("history", "looks")}
    more = f"<details><summary>what it reported</summary>{pairs(notes)}</details>" if notes else ""
    measuring = f", {duration(one.measuring)} of measuring" if one.measuring else ""
    took = f"{duration(one.seconds)} of work{measuring}{touched}"
    return (
        f"<li><b>{one.number} {escape(one.name)}</b> {escape(one.form)}<span class='took'>{took}</span>"
        f"<div class='fields'>{escape(said)}</div>{more}</li>"
    )


def _facts(view: View) -> dict[str, Any]:
    origin = view.head.get("origin") or {}
    facts = {
        "data": named(origin["source"]) if origin.get("source") else None,
        "data fingerprint": origin.get("fingerprint"),
        "scored on rows": view.last.rows if view.last else None,
        "bundle digest": view.head.get("digest"),
        "answers with": view.head.get("serving"),
        "luodi": view.head.get("luodi"),
    }
    return {name: value for name, value in facts.items() if value}


def _events(view: View) -> str:
    """The event stream, progress left out."""
    told = [event for event in view.events if event.get("event") != "progress"]
    if not told:
        return ""
    lines = "\n".join(escape(_event(event)) for event in told[-MOST:])
    cut = f" (the last {MOST})" if len(told) > MOST else ""
    return f"<details><summary>{len(told)} events{cut}</summary><div class='log'>{lines}</div></details>"


def _event(event: Mapping[str, Any]) -> str:
    rest = {key: value for key, value in event.items() if key not in ("time", "step", "name", "event")}
    at = datetime.fromtimestamp(event["time"], UTC).strftime("%Y-%m-%d %H:%M:%S") if "time" in event else ""
    where = f"{event.get('step', '')} {event.get('name', '')}".strip()
    return f"{at}  {where:<12}  {event.get('event', '')}  {_short(rest)}"


def _short(value: Any) -> str:
    if isinstance(value, Mapping) and len(value) == 1 and isinstance(next(iter(value.values())), Mapping):
        return named(value)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 160 else text[:157] + "..."
