"""Input columns that cannot teach anything."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from luodi.core.rows import Rows
from luodi.core.task import Task
from luodi.data.columns.fields import fields, kind, texts

FEWEST = 20  # rows: in fewer, all cells of a column may differ by chance
DISTINCT = 0.9  # share of labels that occur once only, from which they name rows
SPREAD = 3  # whole numbers without a repeat in a range of at most so many times the rows count them


def useless(task: Task, rows: Rows) -> dict[str, str]:
    """Input column -> why: it holds one value in every row, or names rows as an identifier does."""
    found: dict[str, str] = {}
    for name, field in fields(task, "inputs").items():
        what = kind(field)
        if what not in ("number", "category"):
            continue
        cells = [field.read(cell) for cell in rows.column(name)] if what == "number" else texts(rows, name)
        distinct = len(set(cells))
        if distinct == 1 and len(rows) > 1:
            found[name] = f"constant: {cells[0]} in every row"
        elif len(rows) >= FEWEST and _names(what, cells, distinct):
            found[name] = f"identifier: {distinct} different values in {len(rows)} rows"
    return found


def _names(what: str, cells: Sequence[Any], distinct: int) -> bool:
    if what == "category":
        return distinct >= DISTINCT * len(cells)
    if distinct < len(cells) or None in cells or not all(float(cell).is_integer() for cell in cells):
        return False
    return max(cells) - min(cells) <= SPREAD * len(cells)
