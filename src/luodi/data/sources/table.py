"""Rows of a file: comma-separated text, Parquet, JSON."""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from luodi.core.atomic import file_sha
from luodi.core.errors import LuodiError, nearest
from luodi.core.rows import Rows
from luodi.core.source import Source
from luodi.data.reading.aside import Aside, judged
from luodi.data.reading.cells import Kind, as_kind, kind_of, unreadable
from luodi.data.reading.delimited import read_delimited
from luodi.data.reading.encoding import encoding_of
from luodi.data.reading.json_rows import read_json
from luodi.data.reading.kept import kept, key_of
from luodi.data.reading.plain import plain

ENDINGS = {
    ".csv": "csv", ".tsv": "csv", ".txt": "csv", ".tab": "csv", ".parquet": "parquet", ".pq": "parquet",
    ".jsonl": "json", ".ndjson": "json", ".json": "json",
}  # fmt: skip


class Table(Source):
    """Rows of one file: CSV in any encoding, Parquet, JSON Lines or a JSON array.

    A column of text becomes int64 or float64 if all its cells are numbers; 012 is text. Rows that cannot be read are
    told with their line and kept aside. Python's and Arrow's own readers: `datasets` reads these files with the same
    ones, takes 7 CPU seconds to import and tells no line numbers.
    """

    path: str
    kind: Literal["auto", "csv", "parquet", "json"] = "auto"  # auto: by the file's ending
    columns: dict[str, Kind] = {}  # what a column is, where its cells do not tell
    names: tuple[str, ...] | None = None  # the columns of a CSV file whose first line is a row
    encoding: str = "auto"  # of text: auto, or a name such as utf-8, gb18030, cp1252
    delimiter: str = Field("auto", pattern=r"^(auto|.|\t)$")  # of CSV: auto, or one character
    decimal: Literal[".", ","] = "."  # of numbers in CSV
    bad_rows: float = Field(0.05, ge=0, le=1)  # largest share of rows that cannot be read; more stops

    def open(self, cache: Path) -> Rows:
        """All readable rows; the file's bytes are hashed each time, so that a changed file is read anew."""
        file = Path(self.path)
        if not file.is_file():
            raise LuodiError(f"table: {_absent(file)}")
        config = self.model_dump(exclude={"path", "bad_rows"})
        key = key_of("table", self._kind(file), file_sha(file), config)

        def make() -> pa.Table:
            aside = Aside()
            table = self._read(file, aside)
            if not table.num_columns:
                raise LuodiError(f"{file} holds no rows")
            return aside.marked(table, cache / "tables" / f"{key}.aside.jsonl")

        rows = kept(cache, key, make)
        judged(rows.table, str(file), self.bad_rows)
        return rows

    def kept(self, cache: Path) -> Rows | None:
        with TemporaryDirectory(prefix="luodi-look-") as elsewhere:  # the rows stay mapped when the folder is gone
            return self.open(Path(elsewhere))

    def _kind(self, file: Path) -> str:
        if self.kind != "auto":
            return self.kind
        if file.suffix.lower() not in ENDINGS:
            known = ", ".join(sorted(ENDINGS))
            raise LuodiError(f"table: {file}: unknown ending; say `kind: csv`, parquet or json, or use one of {known}")
        return ENDINGS[file.suffix.lower()]

    def _read(self, file: Path, aside: Aside) -> pa.Table:
        kind = self._kind(file)
        if kind == "parquet":
            return self._chosen(_parquet(file))
        encoding = self.encoding if self.encoding != "auto" else encoding_of(file)
        if self.encoding == "auto" and not encoding.startswith("utf"):  # told by its letters, which can be wrong
            print(f"{file}: read as {encoding}; if letters are wrong, set `encoding`", file=sys.stderr, flush=True)
        if kind == "json":
            try:
                return self._chosen(read_json(file, encoding, aside))
            except (UnicodeDecodeError, LookupError) as error:
                raise LuodiError(f"table: {file}: {error}; set `encoding` to the right one") from error
        return self._delimited(file, encoding, aside)

    def _delimited(self, file: Path, encoding: str, aside: Aside) -> pa.Table:
        found = read_delimited(file, encoding, None if self.delimiter == "auto" else self.delimiter, self.names)
        self._known(found.names)
        aside.rows += found.aside.rows
        lines = found.line_numbers()
        good = np.ones(len(lines), bool)
        for name, kind in self.columns.items():
            cells = found.column(name)
            for at in unreadable(cells, kind, self.decimal):
                if good[at]:
                    aside.add(f"line {lines[at]}", f"{name}: not {kind}", cells[at])
                good[at] = False
        columns = {}
        for name in found.names:
            cells = [cell for cell, whole in zip(found.column(name), good, strict=True) if whole]
            columns[name] = as_kind(cells, self.columns.get(name) or kind_of(cells, self.decimal), self.decimal)
        return pa.table(columns)

    def _chosen(self, table: pa.Table) -> pa.Table:
        """Columns as the recipe wants them, for files that already have types."""
        self._known(table.column_names)
        wanted = {"text": pa.string(), "integer": pa.int64(), "number": pa.float64()}
        for name, kind in self.columns.items():
            try:
                cast = table.column(name).cast(wanted[kind])
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                raise LuodiError(f"table: {self.path}: column {name!r} is not {kind}: {error}") from error
            table = table.set_column(table.column_names.index(name), name, cast)
        return table

    def _known(self, names: list[str]) -> None:
        for name in self.columns:
            if name not in names:
                raise LuodiError(f"table: {self.path}: columns: no column {name!r}; {nearest(name, names)}")


def _parquet(file: Path) -> pa.Table:
    import pyarrow.parquet as pq

    try:
        return plain(pq.read_table(file))
    except pa.ArrowInvalid as error:
        raise LuodiError(f"table: {file} is no Parquet file: {error}") from error


def _absent(file: Path) -> str:
    folder = file.parent
    if file.is_dir():
        return f"{file} is a folder; a folder of images is read by `folder: {{path: {file}}}`"
    if not folder.is_dir():
        return f"no folder {folder}"
    return f"no file {file}; {nearest(file.name, (path.name for path in folder.iterdir()))}"
