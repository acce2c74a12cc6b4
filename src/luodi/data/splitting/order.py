"""Later rows are held out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from hashlib import sha256
from typing import Any

from luodi.core.errors import LuodiError
from luodi.data.splitting.assign import round_half_up


def by_time(
    moments: Sequence[Any], names: Sequence[str], shares: Mapping[str, float], seed: int
) -> dict[str, list[int]]:
    """Part -> row numbers: the latest rows to the first of `shares`, those before them to the next, "train" the rest.

    Rows of one moment are never divided: a part takes them all if that comes nearer to its share. Inside a part the
    order is that of a hash of the names and the seed, as in every split.
    """
    order = sorted(range(len(moments)), key=lambda row: moments[row])
    edges = [0, *(at for at in range(1, len(order)) if moments[order[at]] != moments[order[at - 1]]), len(order)]
    parts: dict[str, list[int]] = {}
    end, wanted = len(order), 0.0
    for part, share in shares.items():
        wanted += share
        cut = len(order) - round_half_up(len(order) * wanted)
        start = (
            min((edge for edge in edges if edge <= end), key=lambda edge: (abs(edge - cut), -edge)) if share else end
        )
        parts[part] = order[start:end]
        end = start
    parts["train"] = order[:end]
    mark = {row: sha256(f"{seed}\0{names[row]}".encode()).hexdigest() for row in order}
    return {part: sorted(rows, key=lambda row: (mark[row], row)) for part, rows in parts.items()}


def moments_of(cells: Sequence[Any], column: str) -> list[Any]:
    """Cells that can be ordered: numbers, dates, or text in ISO 8601; raises LuodiError that names the row."""
    found = []
    for row, cell in enumerate(cells):
        try:
            found.append(_moment(cell))
        except (ValueError, TypeError) as error:
            raise LuodiError(
                f"time: column {column!r}, row {row}: {cell!r:.40} is no moment; numbers, dates and text like "
                "2024-05-31 or 2024-05-31T18:00 can be ordered"
            ) from error
    kinds = {type(one).__name__ for one in found}
    if len(kinds) > 1 or len({one.tzinfo is None for one in found if isinstance(one, datetime)}) > 1:
        raise LuodiError(f"time: column {column!r} mixes kinds of moments ({', '.join(sorted(kinds))})")
    return found


def _moment(cell: Any) -> Any:
    if isinstance(cell, bool) or cell is None or cell != cell:
        raise ValueError("nothing to order by")
    if isinstance(cell, int | float):
        return float(cell)
    if isinstance(cell, datetime):
        return cell
    if isinstance(cell, date):
        return datetime(cell.year, cell.month, cell.day)
    text = str(cell).strip()
    try:
        return float(text)
    except ValueError:
        return datetime.fromisoformat(text)
