"""Cells of rows and of requests through their fields: what cannot be read is told with its column, and of rows with
its place."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from luodi.core.errors import BadRequest, LuodiError, nearest
from luodi.core.flow import MOST

if TYPE_CHECKING:
    from luodi.core.field import Field
    from luodi.core.rows import Rows
    from luodi.core.thing import Json


class BadCell(BadRequest):
    """A cell of a stored row that its field cannot read."""

    def __init__(self, column: str, row: int, message: str) -> None:
        super().__init__(column, f"row {row}: {message}")
        self.row, self.said = row, message


def checked(rows: Rows, names: Iterable[str]) -> None:
    """Raises LuodiError unless the rows have these columns."""
    columns = rows.columns
    for name in names:
        if name not in columns:
            raise LuodiError(f"the data have no column {name!r}; {nearest(name, columns)}")


def value(name: str, field: Field, wire: Json) -> Any:
    """One value of a request; raises BadRequest naming the column."""
    try:
        return field.read(wire)
    except BadRequest as error:
        raise BadRequest(name, error.message) from error


def column(name: str, field: Field, rows: Rows) -> list[Any]:
    """A column's values after `read`; raises BadCell."""
    values: list[Any] = []
    try:
        for cell in rows.cells(name):
            values.append(field.read(cell))  # noqa: PERF401 - the length so far is the bad row's place
    except BadRequest as error:
        raise BadCell(name, len(values), error.message) from error
    return values


def fitted(name: str, field: Field, rows: Rows) -> Any:
    """The field fitted on a column; raises BadCell where it cannot read one."""
    try:
        return field.fit(rows.cells(name))
    except BadRequest:
        column(name, field, rows)  # says which row it is
        raise
    except LuodiError as error:
        raise LuodiError(f"{name}: {error}") from error


def parts(rows: Rows, seconds: float) -> Iterator[tuple[int, Rows]]:
    """(first row, rows) of pieces that a forward takes, in order: as many as fit the seconds, at least one."""
    began = perf_counter()
    for start in range(0, len(rows), MOST):
        if start and perf_counter() - began >= seconds:
            return
        yield start, rows.take(np.arange(start, min(start + MOST, len(rows))))


@contextmanager
def counted_from(start: int) -> Generator[None]:
    """A BadCell from inside tells its row among all, of which these begin at `start`."""
    try:
        yield
    except BadCell as error:
        raise BadCell(error.column, start + error.row, error.said) from error
