"""Data sets of the Hugging Face hub, or a local folder in the same format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from luodi.core.catalog import require
from luodi.core.errors import LuodiError, nearest
from luodi.core.rows import Rows
from luodi.core.source import Source
from luodi.data.reading.kept import kept, key_of
from luodi.data.reading.plain import plain


class Hub(Source):
    """A data set of the Hugging Face hub by its name, or a local folder in the same format.

    Class numbers become class names and images their bytes. Fetched once into the cache; code of a hub is never run.
    Here `datasets` does what would be long to write: names, revisions, formats, splits, resumed downloads.
    """

    name: str  # owner/name on the hub, or a folder
    split: str = "train"  # as `datasets` writes it: train, test, train+test, train[:1000]
    config: str | None = None  # a named part of the data set
    revision: str | None = None  # a commit, tag or branch; a commit makes it the same for ever
    columns: tuple[str, ...] | None = None  # only these

    def open(self, cache: Path) -> Rows:
        """All rows of the split. Raises LuodiError when the name, split or a column is unknown or nothing answers."""
        folder = Path(self.name)
        state: list[Any] = []
        if not folder.is_dir() and (folder.is_absolute() or self.name.startswith(".") or self.name.count("/") > 1):
            raise LuodiError(f"hub: no folder {folder}; a name on the hub is `owner/name`")
        if folder.is_dir():
            files = sorted(path for path in folder.rglob("*") if path.is_file())
            state = [(str(path.relative_to(folder)), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
        return kept(cache, key_of("hub", self.model_dump(), state), lambda: self._fetch(cache))

    def _fetch(self, cache: Path) -> pa.Table:
        datasets: Any = require("datasets", "data")
        try:
            found = datasets.load_dataset(
                self.name, self.config, split=self.split, revision=self.revision, cache_dir=str(cache / "hub")
            )
        except (OSError, ValueError, RuntimeError) as error:  # what datasets and its client raise for a user's mistake
            raise LuodiError(f"hub: {self.name}: {str(error).strip()}{_advice(error)}") from error
        if unknown := [name for name in self.columns or () if name not in found.column_names]:
            raise LuodiError(f"hub: {self.name}: no column {unknown[0]!r}; {nearest(unknown[0], found.column_names)}")
        if self.columns:
            found = found.select_columns(list(self.columns))
        table = plain(found.with_format("arrow")[:], Path(self.name) if Path(self.name).is_dir() else None)
        for name, feature in found.features.items():
            if isinstance(feature, datasets.ClassLabel):
                at = table.column_names.index(name)
                table = table.set_column(at, name, _named(table.column(name).to_pylist(), feature.names))
        return table


def _named(numbers: list[int | None], names: list[str]) -> pa.Array:
    return pa.array([None if number is None or number < 0 else names[number] for number in numbers], pa.string())


def _advice(error: Exception) -> str:
    if isinstance(error, ConnectionError) or "offline" in str(error).lower():
        return "\nWithout a network: fetch it elsewhere, copy the folder here and give its path as the name"
    return ""
