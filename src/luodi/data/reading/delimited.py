"""Comma-separated text, in whatever encoding and with whatever delimiter, as columns of text."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TextIO

import numpy as np
import pyarrow as pa

from luodi.core.errors import LuodiError
from luodi.data.reading.aside import Aside
from luodi.data.reading.cells import NUMBER

DELIMITERS = (",", ";", "\t", "|")
SNIFFED = 200  # records that the delimiter is told from
CHUNK = 50_000  # rows turned into Arrow at once: cells as Python text take ten times their size


@dataclass
class Delimited:
    """A file's columns of text, the line that each row begins on, and what could not be read."""

    names: list[str]
    columns: list[list[pa.Array]]
    lines: list[np.ndarray]
    aside: Aside = field(default_factory=Aside)

    def column(self, name: str) -> list[str]:
        """The cells of a column, as they stand in the file."""
        return [cell for chunk in self.columns[self.names.index(name)] for cell in chunk.to_pylist()]

    def line_numbers(self) -> np.ndarray:
        return np.concatenate(self.lines) if self.lines else np.zeros(0, np.int64)


def read_delimited(
    path: Path, encoding: str, delimiter: str | None = None, names: Sequence[str] | None = None
) -> Delimited:
    """The whole file. Quoted cells may hold delimiters and line ends; a row with another number of cells is kept aside.

    The first line names the columns unless `names` does. Raises LuodiError for text that is not in the encoding,
    for columns of one name and for a quote that is never closed.
    """
    try:
        with path.open(encoding=encoding, newline="") as text:
            chosen = delimiter or sniffed(text)
        with path.open(encoding=encoding, newline="") as text:
            return _parsed(path, text, chosen, names)
    except UnicodeDecodeError as error:
        raise LuodiError(
            f"{path}: byte {error.start} is not {encoding} ({error.reason}); set `encoding: auto` or another one"
        ) from error
    except LookupError as error:
        raise LuodiError(f"{path}: {error}; `encoding` is auto or a name such as utf-8, gb18030, cp1252") from error


def sniffed(text: TextIO) -> str:
    """The delimiter that cuts the first records into the most even columns."""
    head = list(islice(text, SNIFFED))
    best, best_score = ",", (0.0, 0)
    for delimiter in DELIMITERS:
        widths = [len(record) for record in _records(head, delimiter) if record]
        if len(widths) > 1 and len(head) == SNIFFED:
            widths.pop()  # the last record may go on in the next line
        if not widths or widths[0] < 2:
            continue
        even = Counter(widths)[widths[0]] / len(widths)
        if (even, widths[0]) > best_score:
            best, best_score = delimiter, (even, widths[0])
    return best


def _records(lines: Sequence[str], delimiter: str) -> list[list[str]]:
    try:
        return list(csv.reader(lines, delimiter=delimiter))
    except csv.Error:  # a cell beyond csv's limit: this delimiter leaves a quote open
        return []


def _parsed(path: Path, text: TextIO, delimiter: str, names: Sequence[str] | None) -> Delimited:
    records = _numbered(path, text, delimiter)
    header = list(names) if names else next(records, (0, []))[1]
    table = Delimited(_names(path, header), [[] for _ in header], [])
    while chunk := list(islice(records, CHUNK)):
        good = []
        for line, cells in chunk:
            if len(cells) == len(header):
                good.append((line, cells))
            elif cells:  # an empty line is no row
                table.aside.add(f"line {line}", f"{len(cells)} cells, expected {len(header)}", cells)
        table.lines.append(np.asarray([line for line, _ in good], np.int64))
        for at, cells in enumerate(zip(*(cells for _, cells in good), strict=True)):
            table.columns[at].append(pa.array(cells, pa.string()))
    return table


def _numbered(path: Path, text: TextIO, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Each record with the line that it begins on."""
    reader = csv.reader(text, delimiter=delimiter)
    line = 1
    try:
        for cells in reader:
            yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        raise LuodiError(f'{path}: line {line}: {error}; is a quote (") opened there and never closed?') from error


def _names(path: Path, header: Sequence[str]) -> list[str]:
    if not header:
        raise LuodiError(f"{path} is empty: its first line names the columns")
    names = [name.strip() or f"column {number}" for number, name in enumerate(header, 1)]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise LuodiError(f"{path}: line 1: two columns are named {twice[0]!r}")
    if all(NUMBER.fullmatch(name) for name in names):
        raise LuodiError(
            f"{path}: line 1 holds numbers, not the names of the columns; name them: `names: [...]` ({len(names)})"
        )
    return names
