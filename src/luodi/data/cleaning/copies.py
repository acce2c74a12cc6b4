"""Rows that are in the data more than once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from luodi.core.rows import Rows
from luodi.core.task import Task
from luodi.data.likeness.pairs import NONE, firsts
from luodi.data.likeness.rows import first_of, near_pairs, prints


def duplicates(rows: Rows, inputs: Sequence[str], targets: Sequence[str]) -> dict[int, str]:
    """Row -> that an earlier one has equal inputs and equal targets."""
    first = first_of(prints(rows, [*inputs, *targets])).tolist()
    return {row: f"a copy of {rows.ids[one]}" for row, one in enumerate(first) if one != row}


def conflicts(rows: Rows, inputs: Sequence[str], targets: Sequence[str]) -> dict[int, str]:
    """Row -> that a row with equal inputs has another target; both are named, since nothing says which is right."""
    if not targets:
        return {}
    first = first_of(prints(rows, inputs)).tolist()
    marks = prints(rows, targets)
    seen: dict[int, set[bytes]] = defaultdict(set)
    for one, mark in zip(first, marks, strict=True):
        seen[one].add(mark)
    return {
        row: f"{len(seen[one])} different targets of equal inputs"
        for row, one in enumerate(first)
        if len(seen[one]) > 1
    }


def near(task: Task, rows: Rows, inputs: Sequence[str], targets: Sequence[str]) -> dict[int, str]:
    """Row -> that it is nearly the same as an earlier one with equal targets, which stays."""
    pairs = near_pairs(task, rows, inputs)
    if pairs is None or not len(pairs):
        return {}
    marks = first_of(prints(rows, targets)) if targets else np.zeros(len(rows), np.int64)
    same = pairs[marks[pairs[:, 0]] == marks[pairs[:, 1]]]
    return {row: f"nearly the same as {rows.ids[one]}" for row, one in firsts(same).items()}


def held_out(task: Task, rows: Rows, others: Rows, inputs: Sequence[str], *, look_near: bool) -> dict[int, str]:
    """Row -> that a held-out row has the same inputs, or with `look_near` nearly the same."""
    both = Rows(pa.concat_tables([rows.table.select(inputs), others.table.select(inputs)]))
    ids, count = others.ids, len(rows)
    alone = first_of(prints(both, inputs))
    first = alone.tolist()
    equal = {one: at - count for at, one in reversed(list(enumerate(first))) if at >= count}
    found = {
        row: f"held-out row {ids[equal[one]]} has the same inputs"
        for row, one in enumerate(first[:count])
        if one in equal
    }
    pairs = near_pairs(task, both, inputs, alone) if look_near else None
    close: dict[int, int] = {}
    for one, other in (pairs if pairs is not None else NONE).tolist():
        for mine, theirs in ((one, other), (other, one)):
            if theirs in equal:
                close[mine] = equal[theirs]
    for row, one in enumerate(first[:count]):
        if row not in found and one in close:
            found[row] = f"nearly the same as held-out row {ids[close[one]]}"
    return dict(sorted(found.items()))


def joined(parts: Sequence[Rows]) -> Rows:
    """All rows of several parts."""
    return Rows(pa.concat_tables([rows.table for rows in parts]), np.concatenate([rows.ids for rows in parts]))
