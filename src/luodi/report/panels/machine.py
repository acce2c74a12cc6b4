"""Where the numbers were taken."""

from __future__ import annotations

from typing import ClassVar

from luodi.report.panel import chip, pairs
from luodi.report.view import View


class Machine:
    """The machine behind the numbers: processor, cores, threads, versions, and whether it was busy."""

    title: ClassVar[str] = "Machine"
    order: ClassVar[int] = 90

    def wanted(self, view: View) -> bool:
        return any(one.machine for one in view.evidence)

    def html(self, view: View) -> str:
        described = [one.machine for one in view.evidence if one.machine]
        steady = [{key: value for key, value in machine.items() if key != "busy"} for machine in described]
        busy = [f"{one.number} {one.name}" for one in view.evidence if one.machine.get("busy")]
        notes = "".join(
            f"<p class='note'>{mark}</p>"
            for mark, said in (
                (chip("steps were measured on different machines: their times cannot be compared", "worse"),
                 any(other != steady[-1] for other in steady)),
                (chip(f"the machine was busy while measuring {', '.join(busy)}", "undecided"), bool(busy)),
            )
            if said
        )  # fmt: skip
        return notes + pairs(steady[-1])
