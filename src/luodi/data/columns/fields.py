"""Columns as a task sees them: its inputs, its targets, its labels."""

from __future__ import annotations

from typing import Any

from luodi.core.catalog import name_of
from luodi.core.errors import LuodiError, nearest
from luodi.core.field import Field
from luodi.core.rows import Rows
from luodi.core.task import Task


def fields(task: Task, side: str) -> dict[str, Field]:
    """Column -> field of the task's "inputs" or "targets"; {} for a task without such fields."""
    found: Any = vars(task).get(side)
    return {name: field for name, field in found.items() if isinstance(field, Field)} if isinstance(found, dict) else {}


def kind(field: Field) -> str:
    """The name of a field in recipes: "number", "category", "image"..."""
    return name_of(type(field))


def input_columns(task: Task, rows: Rows, *without: str | None) -> list[str]:
    """The columns that the task is given; for a task that names none, every column that is no target."""
    targets = fields(task, "targets")
    named = [column for column in fields(task, "inputs") if column in rows.columns]
    return named or [column for column in rows.columns if column not in targets and column not in without]


def labels_of(task: Task) -> list[str]:
    """The targets that are labels."""
    return [name for name, field in fields(task, "targets").items() if kind(field) == "category"]


def label_column(task: Task, rows: Rows, wanted: str, where: str) -> str:
    """`wanted`, or for "auto" the only target that is a label; raises LuodiError if there is not just one."""
    if wanted != "auto":
        if wanted not in rows.columns:
            raise LuodiError(f"{where}: no column {wanted!r}; {nearest(wanted, rows.columns)}")
        return wanted
    found = [name for name in labels_of(task) if name in rows.columns]
    if len(found) != 1:
        raise LuodiError(f"{where}: the task has {len(found)} columns of labels to choose from; name one")
    return found[0]


def texts(rows: Rows, column: str) -> list[str]:
    """A column's cells as labels: 3, 3.0 and "3" are one."""
    return [
        str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell) for cell in rows.column(column)
    ]
