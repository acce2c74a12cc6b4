"""Which row goes where: exact counts, even strata, one identity in one part."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np


@dataclass(slots=True)
class _Group:
    """Rows of one identity."""

    rank: str  # decides the part
    order: str  # decides the place inside the part: by rank, the strata would not be mixed at the ends
    rows: list[int]
    stratum: str


def assign(names: Sequence[str], strata: Sequence[str], shares: Mapping[str, float], seed: int) -> dict[str, list[int]]:
    """Part -> row numbers in hash order; `shares` are handed out in their order, "train" is the rest."""
    groups = _groups(names, strata, seed)
    by_stratum: dict[str, list[_Group]] = defaultdict(list)
    for group in sorted(groups, key=lambda group: group.rank):
        by_stratum[group.stratum].append(group)
    total = len(names)
    taken: dict[str, list[_Group]] = {part: [] for part in (*shares, "train")}
    left = {stratum: by_stratum[stratum] for stratum in sorted(by_stratum)}
    for part, share in shares.items():
        sizes = {stratum: sum(len(group.rows) for group in members) for stratum, members in left.items()}
        whole = {stratum: sum(len(group.rows) for group in by_stratum[stratum]) for stratum in left}
        quota = shared_out(round_half_up(total * share), {s: whole[s] * share for s in left}, sizes)
        debt = 0  # rows that a group too large for its stratum's quota gave too few or too many
        for stratum, members in left.items():
            chosen, left[stratum] = _fill(members, quota[stratum] + debt)
            debt += quota[stratum] - sum(len(group.rows) for group in chosen)
            taken[part] += chosen
    for members in left.values():
        taken["train"] += members
    return {
        part: [row for group in sorted(found, key=lambda group: group.order) for row in group.rows]
        for part, found in taken.items()
    }


def _groups(names: Sequence[str], strata: Sequence[str], seed: int) -> list[_Group]:
    members: dict[str, list[int]] = defaultdict(list)
    for row, name in enumerate(names):
        members[name].append(row)
    groups = []
    for name, rows in members.items():
        common = strata[rows[0]] if len(rows) == 1 else _most_frequent([strata[row] for row in rows])
        digest = sha256(f"{seed}\0{name}".encode()).hexdigest()
        groups.append(_Group(digest[:32], digest[32:], rows, common))
    return groups


def _most_frequent(strata: Sequence[str]) -> str:
    """The stratum of an identity whose rows may disagree; the order of the rows does not matter."""
    counts = Counter(strata)
    return min(counts, key=lambda stratum: (-counts[stratum], stratum))


def _fill(groups: list[_Group], quota: int) -> tuple[list[_Group], list[_Group]]:
    """The first groups that fit into the quota, and the others; one too large is taken if that comes nearer."""
    chosen, others, missing = [], [], quota
    for group in groups:
        fits = len(group.rows) <= missing
        (chosen if fits else others).append(group)
        missing -= len(group.rows) if fits else 0
    if missing > 0 and others:
        smallest = min(others, key=lambda group: len(group.rows))
        if len(smallest.rows) - missing < missing and len(others) > 1:
            others.remove(smallest)
            chosen.append(smallest)
    return chosen, others


def round_half_up(value: float) -> int:
    """The nearest whole number; 0.1 * 45 is 4.5 and gives 5."""
    return int(np.floor(value + 0.5 + 1e-9))


def shared_out(total: int, wanted: Mapping[str, float], most: Mapping[str, int]) -> dict[str, int]:
    """Whole numbers near `wanted` that sum to `total` (largest remainder); one row of each stratum is left over."""
    rooms = ({name: max(most[name] - 1, 0) for name in wanted}, most)  # strata of one row give it only in need
    given = {name: min(int(np.floor(value + 1e-9)), rooms[0][name]) for name, value in wanted.items()}
    missing = min(total, sum(most.values())) - sum(given.values())
    for room in rooms:
        while missing > 0 and (open_ := [name for name in wanted if given[name] < room[name]]):
            open_.sort(key=lambda name: (given[name] - wanted[name], name))
            for name in open_[:missing]:
                given[name] += 1
                missing -= 1
    return given
