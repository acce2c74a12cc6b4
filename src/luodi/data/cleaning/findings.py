"""What was found in rows, what goes, and how it is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from luodi.core.errors import LuodiError
from luodi.core.rows import Rows
from luodi.core.run import ASIDE, Run

Choice = Literal["off", "report", "drop"]
MOST = 50  # rows of each finding that the notes list; the file lists all
FILE = "rows.parquet"
# One, and more of them.
WORDS = {
    "missing": ("unreadable", "unreadable"), "duplicates": ("copy", "copies"),
    "conflicts": ("with conflicting targets", "with conflicting targets"), "near": ("near copy", "near copies"),
    "copies": ("copy of a held-out row", "copies of held-out rows"), "outliers": ("outlier", "outliers"),
    "labels": ("likely wrong label", "likely wrong labels"), "drop": ("named by you", "named by you"),
}  # fmt: skip


@dataclass
class Findings:
    """Findings on rows of one table, by number; a row that goes is not looked at again."""

    rows: Rows
    keep: frozenset[str]  # identities of rows that stay whatever is found
    found: dict[str, dict[int, str]] = field(default_factory=dict)  # finding -> {row: why}
    gone: set[int] = field(default_factory=set)
    asked: set[str] = field(default_factory=set)  # findings whose rows go

    def left(self) -> np.ndarray:
        """The numbers of the rows that still stand and can be read."""
        hidden = self.gone | set(self.found.get("missing", ()))
        return np.asarray([row for row in range(len(self.rows)) if row not in hidden], np.int64)

    def add(self, name: str, found: Mapping[int, str], places: np.ndarray, choice: Choice) -> None:
        """Findings on `rows.take(places)`."""
        self.found[name] = {int(places[row]): why for row, why in found.items()}
        if choice == "drop":
            self.asked.add(name)
            self.gone |= {row for row in self.found[name] if str(self.rows.ids[row]) not in self.keep}

    def kept(self) -> np.ndarray:
        """The numbers of the rows that stay."""
        return np.asarray([row for row in range(len(self.rows)) if row not in self.gone], np.int64)

    def counts(self, *, dropped: bool) -> dict[str, int]:
        """Finding -> rows that went by it, each by the first; or rows that it only reports."""
        if not dropped:
            return {name: len(found) for name, found in self.found.items() if found and name not in self.asked}
        taken: set[int] = set()
        counts: dict[str, int] = {}
        for name in self.found:
            if name in self.asked:
                mine = (self.found[name].keys() & self.gone) - taken
                taken |= mine
                counts |= {name: len(mine)} if mine else {}
        return counts

    def notes(self, part: str) -> dict[str, Any]:
        """Rows in and out, counts, and the first rows of each finding."""
        ids = self.rows.ids
        listed = {
            name: [{"id": str(ids[row]), "row": row, "why": why} for row, why in list(found.items())[:MOST]]
            for name, found in self.found.items() if found
        }  # fmt: skip
        stay = sum(1 for found in self.found.values() for row in found if str(ids[row]) in self.keep)
        return {
            "part": part, "rows_in": len(self.rows), "rows_out": len(self.rows) - len(self.gone),
            "dropped": self.counts(dropped=True), "reported": self.counts(dropped=False), "kept_by_you": stay,
            "listed": listed, "told": self.told(part),
        }  # fmt: skip

    def told(self, part: str) -> list[str]:
        """A sentence for the table: rows in and out and why; and one for what is only reported."""
        before, after = len(self.rows), len(self.rows) - len(self.gone)
        went = ", ".join(f"{count:,} {WORDS[name][count != 1]}" for name, count in self.counts(dropped=True).items())
        name = {"train": "training rows", "all": "rows"}[part]
        said = [f"{before:,} -> {after:,} {name}: {went} dropped" if went else f"{before:,} {name}, none dropped"]
        seen = ", ".join(f"{count:,} {WORDS[name][count != 1]}" for name, count in self.counts(dropped=False).items())
        return [*said, f"reported only: {seen}"] if seen else said

    def write(self, run: Run) -> str | None:
        """Every row that something was found on, as Parquet, with why; its place beside the step's bundle."""
        from pyarrow import array, parquet, string

        places = [(row, name, why) for name, found in self.found.items() for row, why in found.items()]
        if not places:
            return None
        rows, names, whys = zip(*places, strict=True)
        chosen = self.rows.take(np.asarray(rows, np.int64))
        table = chosen.table
        said = {
            "id": list(map(str, chosen.ids)),
            "row": list(map(str, rows)),
            "finding": list(names),
            "why": list(whys),
        }
        said["went"] = ["yes" if row in self.gone else "no" for row in rows]
        for name, cells in said.items():
            table = table.append_column(f"__{name}__", array(cells, string()))
        path = Path(run.out) / ASIDE / FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(table, path)
        return f"{ASIDE}/{FILE}"


def named(rows: Rows, wanted: Sequence[str | int]) -> dict[int, str]:
    """Row -> that it was named, by its identity (every row that has it) or by its number."""
    places: dict[str, list[int]] = {}
    for row, name in enumerate(rows.ids):
        places.setdefault(str(name), []).append(row)
    found: dict[int, str] = {}
    for one in wanted:
        rows_of = places.get(one, []) if isinstance(one, str) else [one] if 0 <= one < len(rows) else []
        if not rows_of:
            raise LuodiError(f"clean: drop: no row {one!r} here; identities stand in the notes of the step, as text")
        found.update(dict.fromkeys(rows_of, "named in `drop`"))
    return found
