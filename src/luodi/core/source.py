"""Where examples come from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luodi.core.thing import Json, Thing

if TYPE_CHECKING:
    from luodi.core.rows import Rows  # Arrow: a server opens bundles without it


class Source(Thing):
    """A place that rows come from. Its Arrow file is made once in the cache and opened memory-mapped afterwards."""

    def open(self, cache: Path) -> Rows:
        """All rows; `cache` is the folder for what is fetched or converted. Raises LuodiError with what to do."""
        raise NotImplementedError

    def licence(self) -> str:
        """The terms of its rows, "" where they are not known."""
        return ""


@dataclass(frozen=True)
class Origin:
    """Where a bundle's rows came from, so that they can be opened again: the source and the data steps since."""

    source: Json  # the source, every field
    fingerprint: str  # of the source's rows
    steps: tuple[Json, ...] = ()  # [{"step": ..., "seed": ..., "scope": [...]}]: data steps to replay
    most: int | None = None  # a rehearsal keeps this many rows, evenly spaced
    own: Mapping[str, str | None] = field(default_factory=dict)  # import paths among them -> SHA-256 of their files


@dataclass(frozen=True)
class Data:
    """Rows in memory (memory-mapped), by split: {"all": ...} before a split, then train, validation, test."""

    splits: Mapping[str, Rows]
    origin: Origin | None = None

    def __getitem__(self, name: str) -> Rows:
        return self.splits[name]


def rows_of(columns: Mapping[str, Iterable[Any]]) -> Rows:
    """Rows from named columns."""
    import pyarrow as pa

    from luodi.core.rows import Rows

    return Rows(pa.table({name: list(column) for name, column in columns.items()}))
