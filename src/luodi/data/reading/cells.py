"""Columns of text become columns of numbers, or stay text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Literal

import pyarrow as pa

Kind = Literal["text", "integer", "number"]
Decimal = Literal[".", ","]

# A needless zero in front makes no number: 012 is a code, a postal code or an account.
INTEGER = re.compile(r"[+-]?(0|[1-9][0-9]{0,17})")  # 18 digits always fit an int64
NUMBER = re.compile(r"[+-]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?|[+-]?(?i:inf|infinity)")
LONG = re.compile(r"[+-]?[1-9][0-9]{18,}")  # as a float it would lose digits: an identifier
# What a number may look like where the recipe asks for one.
ASKED = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?|[+-]?(?i:inf|infinity)")
ASKED_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
ABSENT = frozenset(("", "NA", "N/A", "n/a", "NaN", "nan", "NULL", "null", "None", "-", "?"))


def kind_of(cells: Iterable[str], decimal: Decimal = ".") -> Kind:
    """integer if every cell is a whole number, number if every cell is one, else text.

    In a column of numbers the usual words for nothing (NA, null, ?...) are missing cells.
    """
    kind: Kind = "text"
    for cell in {one.strip() for one in cells} - ABSENT:
        pointed = _pointed(cell, decimal)
        if not NUMBER.fullmatch(pointed) or LONG.fullmatch(pointed):
            return "text"
        if not INTEGER.fullmatch(pointed):
            kind = "number"
        elif kind == "text":
            kind = "integer"
    return kind


def unreadable(cells: Sequence[str], kind: Kind, decimal: Decimal = ".") -> list[int]:
    """The places of cells that are not of the kind that the recipe asks for; missing ones are."""
    if kind == "text":
        return []
    pattern = ASKED_INTEGER if kind == "integer" else ASKED
    stripped = (cell.strip() for cell in cells)
    return [
        at for at, cell in enumerate(stripped) if cell not in ABSENT and not pattern.fullmatch(_pointed(cell, decimal))
    ]


def as_kind(cells: Sequence[str], kind: Kind, decimal: Decimal = ".") -> pa.Array:
    """The cells as int64, float64 or text, empty ones missing; every cell must be readable as that kind."""
    if kind == "text":
        return pa.array([cell or None for cell in cells], pa.string())
    read = int if kind == "integer" else float
    stripped = (cell.strip() for cell in cells)
    values = [None if cell in ABSENT else read(_pointed(cell, decimal)) for cell in stripped]
    return pa.array(values, pa.int64() if kind == "integer" else pa.float64())


def _pointed(cell: str, decimal: Decimal) -> str:
    return cell if decimal == "." else cell.replace(",", ".")
