"""Equal and nearly equal inputs in two parts of a split."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from luodi.core.rows import Rows
from luodi.data.likeness.rows import prints

COPIES = "have the same inputs as"
NEAR = "are nearly the same as"


def leaks(splits: Mapping[str, Rows], columns: Sequence[str]) -> dict[str, Any]:
    """How many rows of validation and test have inputs that an earlier part holds too: counts by pair, and words.

    Exact copies only: equal values in all of `columns`. `rows` counts each held-out row once.
    """
    seen = {part: prints(rows, columns) for part, rows in splits.items()}
    found = {part: [{mark} for mark in marks] for part, marks in seen.items()}
    return {**_counted(found, COPIES), "columns": list(columns)}


def near_leaks(parts: Mapping[str, Sequence[int]], alone: np.ndarray, pairs: np.ndarray) -> dict[str, Any]:
    """The same of rows that are nearly the same as one of another part, exact copies not counted.

    `alone` (rows,) is the first row with the same inputs as each, `pairs` are of such rows.
    """
    close: dict[int, set[int]] = defaultdict(set)
    for one, other in pairs.tolist():
        close[one].add(other)
        close[other].add(one)
    # A row looks for its neighbours, and is found as itself.
    mine = {part: [{int(alone[row])} for row in rows] for part, rows in parts.items()}
    near = {part: [close[int(alone[row])] for row in rows] for part, rows in parts.items()}
    return _counted(near, NEAR, mine)


def _counted(
    wanted: Mapping[str, Sequence[set[Any]]], how: str, held: Mapping[str, Sequence[set[Any]]] | None = None
) -> dict[str, Any]:
    """Rows of a later part of which something `wanted` is `held` by an earlier one."""
    every = {part: set().union(*marks) if marks else set() for part, marks in (held or wanted).items()}
    pairs: dict[str, int] = {}
    leaked: dict[str, set[int]] = {part: set() for part in wanted}
    for first, second in combinations(wanted, 2):
        both = [at for at, marks in enumerate(wanted[second]) if not marks.isdisjoint(every[first])]
        pairs[f"{first}-{second}"] = len(both)
        leaked[second].update(both)
    count = sum(map(len, leaked.values()))
    words = ", ".join(f"{number} between {pair.replace('-', ' and ')}" for pair, number in pairs.items() if number)
    return {
        "rows": count,
        "pairs": pairs,
        "words": f"{count} held-out rows {how} rows of another part ({words})" if count else
        f"no held-out row {how.replace('have', 'has').replace('are', 'is')} a row of another part",
    }  # fmt: skip
