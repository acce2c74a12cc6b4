"""Rows that are equal, or nearly so, in all of their inputs."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Any, Protocol

import numpy as np

from luodi.core.errors import BadRequest, LuodiError
from luodi.core.field import Field
from luodi.core.rows import Rows
from luodi.core.task import Task
from luodi.data.columns.fields import fields, kind
from luodi.data.likeness.pairs import NONE
from luodi.data.likeness.pictures import Pictures
from luodi.data.likeness.texts import Texts

SHORTEST = 12  # letters: strings shorter than this on average are names and codes, and are compared whole


class Look(Protocol):
    """Cells of one column that can be nearly the same."""

    def pairs(self) -> np.ndarray: ...

    def alike(self, pairs: np.ndarray) -> np.ndarray: ...


def prints(rows: Rows, columns: Sequence[str]) -> list[bytes]:
    """What each row holds in these columns, as 32 bytes."""
    cells = zip(*(_short(rows.column(name)) for name in columns), strict=True)
    return [sha256(repr(row).encode()).digest() for row in cells]


def _short(cells: list[Any]) -> list[Any]:
    """A column of files by their hashes: the text of bytes is four times as long as they are."""
    files = all(isinstance(cell, bytes) or cell is None for cell in cells)
    return [cell and sha256(cell).digest() for cell in cells] if files else cells


def first_of(marks: Sequence[Any]) -> np.ndarray:
    """(rows,) int64: the first row with the same mark as each."""
    seen: dict[Any, int] = {}
    return np.fromiter((seen.setdefault(mark, at) for at, mark in enumerate(marks)), np.int64, len(marks))


def looks_of(task: Task, rows: Rows, columns: Sequence[str]) -> dict[str, str]:
    """Column -> "image" or "text", of those that can be nearly the same; numbers and labels are equal or not."""
    known = fields(task, "inputs")
    found: dict[str, str] = {}
    for name in columns:
        what = kind(known[name]) if name in known else _guess(rows, name)
        if what in ("image", "text"):
            found[name] = what
    return found


def _guess(rows: Rows, name: str) -> str:
    """A column that no field describes: bytes are a picture, long strings are text."""
    stored = str(rows.table.schema.field(name).type)
    if "binary" in stored:
        return "image"
    head = [cell for cell in rows.take(np.arange(min(len(rows), 200))).column(name) if isinstance(cell, str)]
    return "text" if head and sum(map(len, head)) >= SHORTEST * len(head) else ""


def near_pairs(task: Task, rows: Rows, columns: Sequence[str], first: np.ndarray | None = None) -> np.ndarray | None:
    """(pairs, 2) int64 of rows that are nearly the same in all of `columns`, among the first of each that are equal.

    Pictures and texts may be near; every other cell is equal. None where no column holds pictures or texts. `first`
    is what `first_of` found, if it is known.
    """
    kinds = looks_of(task, rows, columns)
    if not kinds:
        return None
    alone = np.unique(first_of(prints(rows, columns)) if first is None else first)
    some = rows.take(alone)
    known = fields(task, "inputs")
    looks: list[Look] = [_look(what, some, name, known.get(name)) for name, what in kinds.items()]
    pairs = looks[0].pairs()
    for look in looks[1:]:
        pairs = pairs[look.alike(pairs)]
    rest = [name for name in columns if name not in kinds]
    if rest and len(pairs):
        marks = np.asarray(first_of(prints(some, rest)))
        pairs = pairs[marks[pairs[:, 0]] == marks[pairs[:, 1]]]
    return alone[pairs] if len(pairs) else NONE


def _look(what: str, rows: Rows, name: str, field: Field | None) -> Look:
    if what == "image":
        return Pictures.of(_pixels(cell, name, at, field) for at, cell in enumerate(rows.column(name)))
    return Texts.of("" if cell is None else str(cell) for cell in rows.column(name))


def _pixels(cell: Any, name: str, row: int, field: Field | None) -> np.ndarray:
    """The picture in a cell; an empty one is a white dot."""
    import io

    from PIL import Image

    if cell is None:
        return np.full((1, 1), 255, np.uint8)
    try:
        if field is not None:
            return field.read(cell)
        with Image.open(io.BytesIO(cell)) as image:
            return np.asarray(image.convert("RGBA"))
    except (BadRequest, OSError) as error:
        raise LuodiError(f"row {row}: {name} is no picture: {error}") from error
