"""Examples as an Arrow table: sliced without copying, written once, opened memory-mapped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa


class Rows(Sequence[Mapping[str, Any]]):
    """Rows of one table; images are encoded bytes (PNG, JPEG) in a binary column."""

    def __init__(self, table: pa.Table, ids: np.ndarray | None = None) -> None:
        self.table = table.combine_chunks() if table.num_rows < 1_000_000 else table
        self._ids = ids

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, Any]]) -> Rows:
        """Rows from plain mappings."""
        return cls(pa.Table.from_pylist([dict(row) for row in rows]))

    @classmethod
    def open(cls, path: Path) -> Rows:
        """Rows of an Arrow file, memory-mapped."""
        with pa.memory_map(str(path)) as source:
            table = pa.ipc.open_file(source).read_all()
        if "__id__" in table.column_names:
            ids = np.asarray(table.column("__id__").to_pylist(), dtype=object)
            return cls(table.drop_columns(["__id__"]), ids)
        return cls(table)

    def save(self, path: Path) -> Path:
        """Writes an Arrow file with the rows' identities, aside and renamed."""
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(path.name + ".part")
        table = self.table.append_column("__id__", pa.array([str(i) for i in self.ids], pa.string()))
        with pa.OSFile(str(aside), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        return aside.replace(path)

    @property
    def columns(self) -> list[str]:
        return list(self.table.column_names)

    def column(self, name: str) -> list[Any]:
        """A column's stored values; KeyError if there is none."""
        return self.table.column(name).to_pylist()

    def take(self, indices: Sequence[int] | np.ndarray) -> Rows:
        """These rows, in this order, with their identities."""
        chosen = np.ascontiguousarray(indices, dtype=np.int64)
        # Not pa.array: it imports pandas wherever that is installed, which costs half a second and 40 MB.
        picked = pa.Array.from_buffers(pa.int64(), len(chosen), [None, pa.py_buffer(chosen)])
        return Rows(self.table.take(picked), self.ids[chosen])

    def with_ids(self, ids: np.ndarray) -> Rows:
        """The same rows under other identities."""
        return Rows(self.table, ids)

    @cached_property
    def ids(self) -> np.ndarray:
        """Identities: those given, else the SHA-256 of each row's columns (16 hex digits)."""
        if self._ids is not None:
            return self._ids
        names = sorted(self.columns)
        columns = [self.column(name) for name in names]
        cells = zip(*columns, strict=True)
        return np.asarray([sha256(repr((names, row)).encode()).hexdigest()[:16] for row in cells], dtype=object)

    @cached_property
    def fingerprint(self) -> str:
        """The SHA-256 of all values and column names, in order."""
        whole = sha256(repr([(f.name, str(f.type)) for f in self.table.schema]).encode())
        for start in range(0, len(self), 8192):
            part = self.table.slice(start, 8192)
            for name in part.column_names:
                whole.update(repr(part.column(name).to_pylist()).encode())
        return whole.hexdigest()

    def __len__(self) -> int:
        return self.table.num_rows

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        return {name: self.table.column(name)[index].as_py() for name in self.columns}

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        for start in range(0, len(self), 1024):
            yield from self.table.slice(start, 1024).to_pylist()
