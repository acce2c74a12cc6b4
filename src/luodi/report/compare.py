"""Two bundles or runs side by side: every measure, what surely differs, and which answers flipped."""

from __future__ import annotations

import json as jsonlib
from dataclasses import dataclass, field
from math import comb
from pathlib import Path
from typing import Any

import numpy as np

from luodi.core import records, statistics, store
from luodi.core.errors import LuodiError
from luodi.core.evidence import Change, Evidence, Measure
from luodi.core.task import Exam, Task
from luodi.core.thing import Trust, make
from luodi.report.table import SIGNS
from luodi.report.units import bounds, column_of, data, signed, three
from luodi.report.view import evidence_of

SHOWN, RESAMPLES = 10, 400  # flipped examples listed a side; bootstrap resamples


@dataclass(frozen=True)
class Side:
    """One of the two: its last evidence that has measures, its answers if they were kept, and its task."""

    path: Path
    head: dict[str, Any]
    evidence: Evidence
    exam: Exam | None

    @property
    def form(self) -> str:
        return f"{self.evidence.name} {self.evidence.form}"


@dataclass(frozen=True)
class Difference:
    """One measure on both sides; `change` is second less first, None where the two cannot be compared."""

    name: str
    first: Measure | None
    second: Measure | None
    change: Change | None = None
    verdict: str | None = None


@dataclass(frozen=True)
class Flips:
    """Rows of one target that one side answers right and the other wrong; `chance` is the exact two-sided sign test."""

    target: str
    gained: int  # wrong in the first, right in the second
    lost: int
    both_right: int
    both_wrong: int
    chance: float
    examples: tuple[dict[str, str], ...] = ()


@dataclass(frozen=True)
class Comparison:
    """Everything `luodi compare` says; `why` says what cannot be compared, and why."""

    first: Side
    second: Side
    differences: tuple[Difference, ...]
    flips: tuple[Flips, ...] = ()
    why: tuple[str, ...] = field(default=())


def compare(first: Path, second: Path, *, json: bool = False) -> str:
    """The comparison of two bundle or run folders, as text or as JSON."""
    found = comparison(Path(first), Path(second))
    return jsonlib.dumps(as_json(found), ensure_ascii=False, indent=1) if json else text(found)


def comparison(first: Path, second: Path) -> Comparison:
    """Compares two bundle or run folders; quality only where both answered the same rows."""
    a, b = side(first), side(second)
    reason = _apart(a, b)
    paired: dict[str, Measure] = {}
    flips: tuple[Flips, ...] = ()
    if reason is None:
        assert a.exam is not None and b.exam is not None
        new, old = records.shared(b.exam, a.exam)
        paired = _paired(_task(a), _task(b), old, new)
        flips = tuple(_flips(old, new))
    why = [reason] if reason else []
    if not _same_machine(a, b):
        why.append("times and memory are not comparable: they were measured on different machines")
    else:
        why.append("times and memory were measured at different moments: no verdict (a run measures its steps in turn)")
    names = list(dict.fromkeys([*a.evidence.measures, *b.evidence.measures]))
    ordered = [*(name for name in names if "." in name), *(name for name in names if "." not in name)]
    return Comparison(a, b, tuple(_difference(name, a, b, paired) for name in ordered), flips, tuple(why))


def side(path: Path) -> Side:
    """One side from a bundle's or a run's folder."""
    head = store.peek(path)
    measured = [one for one in evidence_of(path) if one.measures]
    if not measured:
        raise LuodiError(f"{path}: nothing in it was measured; `luodi run` measures what it makes")
    last = measured[-1]
    homes = (path, path.parent, *path.resolve().parents[1:3])  # a run, its bundle, the bundle of a step
    files = [home / "records" / last.records for home in homes if last.records]
    found = next((file for file in files if file.is_file()), None)
    return Side(path, head, last, records.read(found) if found else None)


def _task(one: Side) -> Task:
    task: Any = make("tasks", one.head["task"], Trust((), one.head["own"]))  # a bundle's own code is not run here
    return task


def _apart(a: Side, b: Side) -> str | None:
    """Why the quality of the two cannot be compared, None if it can."""
    if not a.evidence.rows or not b.evidence.rows:
        return "quality is not comparable: one of the two was scored on no rows"
    if a.evidence.rows != b.evidence.rows:
        return "quality is not comparable: the two were scored on different rows"
    if a.exam is None or b.exam is None:
        lacking = a.path if a.exam is None else b.path
        return f"quality is not comparable row by row: the answers of {lacking} are not beside it (a run's records/)"
    new, old = records.shared(b.exam, a.exam)
    if not len(new):
        return "quality is not comparable: the two answered no row in common"
    for name, column in new.columns.items():
        if name.endswith(".truth") and name in old.columns and not np.array_equal(column, old.columns[name]):
            return f"quality is not comparable: the same rows have another {name}"
    return None


def _paired(task_a: Task, task_b: Task, old: Exam, new: Exam) -> dict[str, Measure]:
    return statistics.bootstrap(
        lambda rows: task_b.score(new.take(rows)), lambda rows: task_a.score(old.take(rows)), len(new), RESAMPLES,
        dict(task_b.metrics()),
    )  # fmt: skip


def _same_machine(a: Side, b: Side) -> bool:
    keys = ("processor", "cores", "threads", "device")
    return all(a.evidence.machine.get(key) == b.evidence.machine.get(key) for key in keys)


def _difference(name: str, a: Side, b: Side, paired: dict[str, Measure]) -> Difference:
    first, second = a.evidence.measures.get(name), b.evidence.measures.get(name)
    if first is None or second is None:
        return Difference(name, first, second)
    if "." in name:
        found = paired.get(name)
        return (
            Difference(name, first, second, found.change, found.verdict) if found else Difference(name, first, second)
        )
    if name != "size_mb" and not _same_machine(a, b):
        return Difference(name, first, second)
    change = Change(value=second.value - first.value, low=second.low - first.high, high=second.high - first.low)
    return Difference(name, first, second, change, statistics.judge(change, "lower") if name == "size_mb" else None)


def _flips(old: Exam, new: Exam) -> list[Flips]:
    found = []
    for name in new.columns:
        target = name.removesuffix(".value")
        truth = new.columns.get(f"{target}.truth")
        if target == name or truth is None or truth.dtype != object or name not in old.columns:
            continue
        was, now = old.columns[name] == truth, new.columns[name] == truth
        gained, lost = np.flatnonzero(~was & now), np.flatnonzero(was & ~now)
        examples = [
            {"id": str(new.ids[row]), "truth": str(truth[row]), "first": str(old.columns[name][row]),
             "second": str(new.columns[name][row])}
            for row in (*lost[:SHOWN], *gained[:SHOWN])
        ]  # fmt: skip
        found.append(
            Flips(target, len(gained), len(lost), int((was & now).sum()), int((~was & ~now).sum()),
                  sign_test(len(gained), len(lost)), tuple(examples))
        )  # fmt: skip
    return found


def sign_test(gained: int, lost: int) -> float:
    """The chance of a split at least this uneven if both were as likely: the exact McNemar test, two-sided."""
    count, least = gained + lost, min(gained, lost)
    tail = sum(comb(count, k) for k in range(least + 1))
    return min(1.0, 2 * tail / 2**count)


def text(found: Comparison) -> str:
    """The comparison as plain lines, at most 120 columns wide."""
    names = [one.name for one in found.differences]
    rows = [["", "first", "second", "second less first", ""]]
    for one in found.differences:
        column = column_of(one.name, names)
        rows.append([column.heading, _value(one.first), _value(one.second), _change(one), _mark(one)])
    widths = [max(len(row[place]) for row in rows) for place in range(5)]
    lines = [
        f"first   {found.first.path}  ({found.first.form})",
        f"second  {found.second.path}  ({found.second.form})",
        "",
    ]
    lines += ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines += ["", *found.why]
    for flips in found.flips:
        lines += ["", *_flips_text(flips)]
    return "\n".join(lines)


def _flips_text(flips: Flips) -> list[str]:
    if not flips.gained + flips.lost:
        return [f"{flips.target}: no answer went from right to wrong or back"]
    lines = [
        f"{flips.target}: {flips.lost} right in the first and wrong in the second, {flips.gained} the other way",
        f"  right in both {flips.both_right:,}, wrong in both {flips.both_wrong:,}; "
        f"chance of so uneven a split by luck {three(flips.chance)}",
    ]
    lines += [
        f"  {one['id']}  is {one['truth']}: first {one['first']}, second {one['second']}" for one in flips.examples
    ]
    return lines


def as_json(found: Comparison) -> dict[str, Any]:
    """The comparison as plain data."""
    sides = {
        key: {"path": str(one.path), "step": one.evidence.name, "form": one.evidence.form, "rows": one.evidence.rows}
        for key, one in (("first", found.first), ("second", found.second))
    }
    measures = {
        one.name: {
            "first": data(one.first),
            "second": data(one.second),
            "change": data(one.change),
            "verdict": one.verdict,
        }
        for one in found.differences
    }
    return {**sides, "measures": measures, "flips": [vars(one) for one in found.flips], "notes": list(found.why)}


def _value(measure: Measure | None) -> str:
    return "-" if measure is None else f"{three(measure.value)} {bounds(measure)}".rstrip()


def _change(one: Difference) -> str:
    if one.change is None:
        return "not comparable" if one.first and one.second else ""
    interval = "" if one.change.low == one.change.high else f" [{signed(one.change.low)}, {signed(one.change.high)}]"
    return signed(one.change.value) + interval


def _mark(one: Difference) -> str:
    return f"{SIGNS[one.verdict]} {one.verdict}" if one.verdict else ""
