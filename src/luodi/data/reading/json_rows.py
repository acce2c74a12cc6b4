"""JSON Lines and JSON arrays of objects as an Arrow table."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from luodi.core.errors import LuodiError
from luodi.data.reading.aside import Aside

Numbered = Iterator[tuple[str, Any]]  # where it is, what it is


def read_json(path: Path, encoding: str, aside: Aside) -> pa.Table:
    """One object a line, or one array of objects; what is no object is kept aside, a key that is absent is missing."""
    text = path.read_text(encoding=encoding)
    objects = _array(path, text) if text.lstrip()[:1] == "[" else _lines(text, aside)
    rows: list[Mapping[str, Any]] = []
    for where, value in objects:
        if isinstance(value, Mapping):
            rows.append(value)
        else:
            aside.add(where, f"expected an object, got {type(value).__name__}", value)
    names = list(dict.fromkeys(name for row in rows for name in row))
    return pa.table({name: column_of([row.get(name) for row in rows]) for name in names})


def _array(path: Path, text: str) -> Numbered:
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise LuodiError(f"{path}: line {error.lineno}, column {error.colno}: {error.msg}") from error
    for number, value in enumerate(values, 1):
        yield f"item {number}", value


def _lines(text: str, aside: Aside) -> Numbered:
    for number, line in enumerate(text.split("\n"), 1):  # not splitlines: a JSON string may hold other line ends
        if line.strip():
            try:
                yield f"line {number}", json.loads(line)
            except json.JSONDecodeError as error:
                aside.add(f"line {number}", f"no JSON: {error.msg} at column {error.colno}", line[:1000])


def column_of(values: list[Any]) -> pa.Array:
    """A column of one type: whole numbers, numbers, text, lists; true and false, and mixtures, become text."""
    kinds = {type(value) for value in values if value is not None}
    if kinds == {int} and all(abs(value) < 2**63 for value in values if value is not None):
        return pa.array(values, pa.int64())
    if kinds and kinds <= {int, float}:
        return pa.array([None if value is None else float(value) for value in values], pa.float64())
    if kinds <= {list}:
        try:
            return pa.array(values)
        except (pa.ArrowInvalid, pa.ArrowTypeError):  # lists of mixed things: kept as the text they were
            return pa.array([None if value is None else _text(value) for value in values], pa.string())
    return pa.array([None if value is None else _text(value) for value in values], pa.string())


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
