"""Equal inputs in two parts of a split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from itertools import combinations
from typing import Any

from luodi.core.rows import Rows


def leaks(splits: Mapping[str, Rows], columns: Sequence[str]) -> dict[str, Any]:
    """How many rows of validation and test have inputs that an earlier part holds too: counts by pair, and words.

    Exact copies only: equal values in all of `columns`. `rows` counts each held-out row once.
    """
    seen = {part: _prints(rows, columns) for part, rows in splits.items()}
    pairs: dict[str, int] = {}
    leaked: dict[str, set[int]] = {part: set() for part in splits}
    for first, second in combinations(splits, 2):
        known = set(seen[first])
        both = [at for at, found in enumerate(seen[second]) if found in known]
        pairs[f"{first}-{second}"] = len(both)
        leaked[second].update(both)
    count = sum(map(len, leaked.values()))
    words = ", ".join(f"{number} between {pair.replace('-', ' and ')}" for pair, number in pairs.items() if number)
    return {
        "rows": count,
        "pairs": pairs,
        "columns": list(columns),
        "words": f"{count} held-out rows have the same inputs as rows of another part ({words})" if count else
        "no held-out row has the same inputs as a row of another part",
    }  # fmt: skip


def _prints(rows: Rows, columns: Sequence[str]) -> list[bytes]:
    cells = zip(*(rows.column(name) for name in columns), strict=True)
    return [sha256(repr(row).encode()).digest() for row in cells]
