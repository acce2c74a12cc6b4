"""Arrow tables of other makers with the few column types that luodi's rows have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import types

from luodi.data.reading.kept import bytes_type


def plain(table: pa.Table, folder: Path | None = None) -> pa.Table:
    """int64, float64, text, bytes and lists; true and false, dates and decimals as text or numbers.

    An image as Hugging Face writes it ({bytes, path}) becomes its bytes; `folder` is where its path begins from.
    """
    columns = {name: _plain(table.column(name), folder) for name in table.column_names}
    return pa.table(columns)


def _plain(column: pa.ChunkedArray, folder: Path | None) -> pa.ChunkedArray | pa.Array:
    kind = column.type
    if types.is_dictionary(kind):
        return _plain(column.cast(kind.value_type), folder)
    if types.is_integer(kind):
        fits = not types.is_uint64(kind) or all(value is None or value < 2**63 for value in column.to_pylist())
        return column.cast(pa.int64() if fits else pa.string())
    if types.is_floating(kind) or types.is_decimal(kind):
        return pa.array([None if value is None else float(value) for value in column.to_pylist()], pa.float64())
    if types.is_boolean(kind):
        words = {True: "true", False: "false", None: None}
        return pa.array([words[value] for value in column.to_pylist()], pa.string())
    if is_image(kind):
        cells = [_image(value, folder) for value in column.to_pylist()]
        return pa.array(cells, bytes_type(sum(len(cell) for cell in cells if cell)))
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        return column.cast(bytes_type(column.nbytes))
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return column
    return pa.array([None if value is None else str(value) for value in column.to_pylist()], pa.string())


def is_image(kind: pa.DataType) -> bool:
    """Whether a column holds files as {bytes, path}."""
    return types.is_struct(kind) and {field.name for field in kind} == {"bytes", "path"}


def _image(value: Any, folder: Path | None) -> bytes | None:
    if value is None:
        return None
    return value["bytes"] if value["bytes"] is not None else (folder or Path()).joinpath(value["path"]).read_bytes()
