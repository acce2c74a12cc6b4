"""Rows that could not be read: kept aside in a file, counted, told, and too many of them refused."""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from luodi.core.atomic import write_text
from luodi.core.errors import LuodiError

MARK = b"luodi.aside"  # in the Arrow file's metadata, which says nothing about the values


@dataclass
class Aside:
    """The bad rows of one file or folder: where each was, why, and what it held."""

    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(self, where: str, why: str, held: Any = None) -> None:
        """One bad row; `held` is what was there, as far as it could be read."""
        self.rows.append({"where": where, "why": why, "held": held})

    def marked(self, table: pa.Table, path: Path) -> pa.Table:
        """The good rows' table, which remembers the bad ones; they are written to `path` as JSON Lines."""
        if not self.rows:
            return table
        text = "".join(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in self.rows)
        reasons = Counter(row["why"] for row in self.rows)
        note = {
            "bad": len(self.rows),
            "good": table.num_rows,
            "first": [f"{row['where']}: {row['why']}" for row in self.rows[:3]],
            "reasons": dict(reasons.most_common(10)),
            "file": str(write_text(path, text)),
        }
        return table.replace_schema_metadata({MARK: json.dumps(note, ensure_ascii=False)})


def aside_of(table: pa.Table) -> dict[str, Any] | None:
    """What a table remembers of the rows that were kept aside: counts, reasons, file; None if there were none."""
    found = (table.schema.metadata or {}).get(MARK)
    return json.loads(found) if found else None


def judged(table: pa.Table, what: str, most: float) -> None:
    """Tells of bad rows; raises LuodiError when their share is above `most`."""
    note = aside_of(table)
    if note is None:
        return
    total = note["bad"] + note["good"]
    told = f"{what}: {note['bad']} of {total} rows cannot be read and are kept aside in {note['file']}"
    first = "\n".join(f"  {line}" for line in note["first"])
    if note["bad"] > most * total:
        allow = f"more than {most:.0%} stops the run; `bad_rows: {note['bad'] / total + 0.005:.2f}` would allow them"
        raise LuodiError(f"{told}\n{first}\n{allow}")
    print(f"{told}\n{first}", file=sys.stderr, flush=True)
