"""Rows that a task cannot read, and cells that are empty."""

from __future__ import annotations

from luodi.core.errors import BadRequest
from luodi.core.rows import Rows
from luodi.core.task import Task
from luodi.data.columns.fields import fields


def unreadable(task: Task, rows: Rows) -> dict[int, str]:
    """Row -> why its inputs or targets cannot be read: a cell is missing where its field wants one, or is damaged."""
    found: dict[int, str] = {}
    for name, field in (fields(task, "inputs") | fields(task, "targets")).items():
        for row, cell in enumerate(rows.column(name)):
            try:
                field.read(cell)
            except BadRequest as error:
                found.setdefault(row, f"{name}: {error.message}")
    return dict(sorted(found.items()))


def empty_cells(rows: Rows) -> dict[str, int]:
    """Column -> how many of its cells are empty; columns without any are left out."""
    counts = {
        name: sum(cell is None or cell != cell or cell == "" for cell in rows.column(name)) for name in rows.columns
    }
    return {name: count for name, count in counts.items() if count}
