"""Examples as an Arrow table: sliced without copying, written once, opened memory-mapped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

PIECE = 256  # cells read at a time: of pictures, some tens of MB
BLOCK = 8192  # rows of a fingerprint's block


class Rows(Sequence[Mapping[str, Any]]):
    """Rows of one table; images are encoded bytes (PNG, JPEG) in a binary column.

    Rows chosen from a memory-mapped file (`path`) are their numbers (`chosen`): no cell is copied before it is read.
    """

    def __init__(
        self, table: pa.Table, ids: np.ndarray | None = None, *, path: Path | None = None,
        chosen: np.ndarray | None = None,
    ) -> None:  # fmt: skip
        self._whole = table.combine_chunks() if table.num_rows < 1_000_000 else table
        self._ids, self.path, self.chosen = ids, path, chosen

    @cached_property
    def table(self) -> pa.Table:
        """All cells, in memory if they are not a whole file."""
        return self._part(0, len(self))

    def _part(self, start: int, stop: int) -> pa.Table:
        if self.chosen is None:
            return self._whole.slice(start, stop - start)
        return self._whole.take(_numbers(self.chosen[start:stop]))

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
            return cls(table.drop_columns(["__id__"]), ids, path=path)
        return cls(table, path=path)

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
        return list(self._whole.column_names)

    def column(self, name: str) -> list[Any]:
        """A column's stored values; KeyError if there is none."""
        return self._cells(name, 0, len(self))

    def cells(self, name: str) -> Iterator[Any]:
        """A column's stored values, read a few at a time; KeyError if there is none."""
        for start in range(0, len(self), PIECE):
            yield from self._cells(name, start, start + PIECE)

    def _cells(self, name: str, start: int, stop: int) -> list[Any]:
        column = self._whole.column(name)
        if self.chosen is None:
            return column.slice(start, stop - start).to_pylist()
        return column.take(_numbers(self.chosen[start:stop])).to_pylist()

    def take(self, indices: Sequence[int] | np.ndarray) -> Rows:
        """These rows, in this order, with their identities."""
        wanted = np.ascontiguousarray(indices, dtype=np.int64)
        if self.path is not None:
            chosen = wanted if self.chosen is None else self.chosen[wanted]
            return Rows(self._whole, self.ids[wanted], path=self.path, chosen=chosen)
        return Rows(self._whole.take(_numbers(wanted)), self.ids[wanted])

    def with_ids(self, ids: np.ndarray) -> Rows:
        """The same rows under other identities."""
        return Rows(self._whole, ids, path=self.path, chosen=self.chosen)

    @cached_property
    def ids(self) -> np.ndarray:
        """Identities: those given, else the SHA-256 of each row's columns (16 hex digits)."""
        if self._ids is not None:
            return self._ids
        names = sorted(self.columns)
        cells = zip(*(self.cells(name) for name in names), strict=True)
        return np.asarray([sha256(repr((names, row)).encode()).hexdigest()[:16] for row in cells], dtype=object)

    @cached_property
    def fingerprint(self) -> str:
        """The SHA-256 of all values and column names, in order."""
        whole = sha256(repr([(f.name, str(f.type)) for f in self._whole.schema]).encode())
        for start in range(0, len(self), BLOCK):
            stop = min(start + BLOCK, len(self))
            for name in self.columns:
                before = b"["  # the text of the block's list of cells, a few at a time
                for at in range(start, stop, PIECE):
                    whole.update(before + repr(self._cells(name, at, min(at + PIECE, stop)))[1:-1].encode())
                    before = b", "
                whole.update(b"]")
        return whole.hexdigest()

    def __len__(self) -> int:
        return self._whole.num_rows if self.chosen is None else len(self.chosen)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        at = range(len(self))[index]
        return self._part(at, at + 1).to_pylist()[0]

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        for start in range(0, len(self), 1024):
            yield from self._part(start, start + 1024).to_pylist()


def _numbers(chosen: np.ndarray) -> pa.Array:
    """Row numbers for Arrow. Not pa.array: it imports pandas wherever that is installed, half a second and 40 MB."""
    return pa.Array.from_buffers(pa.int64(), len(chosen), [None, pa.py_buffer(chosen)])
