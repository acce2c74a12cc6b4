"""The limits of the recipe against what was measured."""

from __future__ import annotations

import math
from html import escape
from typing import Any, ClassVar

from luodi.report.panel import chip
from luodi.report.units import COMMON, three
from luodi.report.view import View

VERDICTS = {"met": "better", "missed": "worse", "undecided": "undecided", "not measured": "undecided"}
MARKS = {"met": "✓ met", "missed": "✗ missed", "undecided": "? undecided", "not measured": "? not measured"}


class Limits:
    """Each limit: met, missed or undecided, and how far the measured interval lies from it."""

    title: ClassVar[str] = "Limits"
    order: ClassVar[int] = 30

    def wanted(self, view: View) -> bool:
        return bool(view.limits)

    def html(self, view: View) -> str:
        note = (
            "The upright line is the limit, the block the 95% interval of what was measured. A limit is met or missed "
            "only when the whole interval lies on one side."
        )
        return f"<p class='note'>{note}</p>{''.join(_limit(one) for one in view.limits)}"


def _limit(one: dict[str, Any]) -> str:
    title, unit, _ = COMMON.get(one["limit"], (one["limit"].replace("drop.", "loss of "), "", ""))
    kind = VERDICTS[one["state"]]
    words = one["words"].rpartition(": ")[2].removeprefix(one["state"]).strip("; ")
    value = f"<b>{three(float(one['value']))} {escape(unit)}</b>" if one.get("value") is not None else "–"
    return (
        f"<div class='limit'><div>{escape(title)} {value}<br>"
        f"<span class='note'>at most {three(one['allowed'])} {escape(unit)}</span></div>{_track(one, kind)}"
        f"<div class='said'>{chip(MARKS[one['state']], kind)} <span class='note'>{escape(words)}</span></div></div>"
    )


def _track(one: dict[str, Any], kind: str) -> str:
    """A bar from zero: what was measured, its interval, and the limit."""
    values = [float(one[key]) for key in ("value", "low", "high") if one.get(key) is not None]
    if len(values) < 3 or not all(map(math.isfinite, values)):
        return "<div class='track'></div>"
    value, low, high = values
    left, right = min(0.0, low), max(high, one["allowed"]) * 1.12 or 1.0
    at = {
        name: 100 * (x - left) / (right - left)
        for name, x in zip("vlha", (value, low, high, one["allowed"]), strict=True)
    }
    return (
        f"<div class='track'><span class='fill {kind}' style='width:{at['v']:.2f}%'></span>"
        f"<span class='between {kind}' style='left:{at['l']:.2f}%;width:{at['h'] - at['l']:.2f}%'></span>"
        f"<span class='at' style='left:{at['a']:.2f}%'></span></div>"
    )
