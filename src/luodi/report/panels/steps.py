"""The one table, in the page."""

from __future__ import annotations

from typing import ClassVar

from luodi.report.view import View


class Steps:
    """Every step and form with its measures, its change against the step before, and what it changed in words."""

    title: ClassVar[str] = "Every step, measured"
    order: ClassVar[int] = 10

    def wanted(self, view: View) -> bool:
        return bool(view.evidence)

    def html(self, view: View) -> str:
        note = (
            "Every number is of the saved bundle, opened again. Changes are against the step before, on the same "
            "held-out rows and in interleaved calls; brackets hold 95% intervals. "
            "▲ better, ▼ worse, = the same, ? undecided: the interval lies on both sides of zero."
        )
        if any(line.rival for line in view.table.lines):
            note += " Against: another recipe, scored on the same held-out rows and timed at another moment."
        return f"<p class='note'>{note}</p><div class='scroll'>{view.table.html()}</div>"
