"""Pairs of close hashes without comparing all with all, and the groups that pairs make."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, pairwise

import numpy as np

NONE = np.zeros((0, 2), np.int64)


def close_pairs(hashes: np.ndarray, most: int) -> np.ndarray:
    """(pairs, 2) int64, sorted: every pair of uint64 hashes (count,) that differ in at most `most` of 64 bits.

    Cut into `most` + 2 bands, two such hashes agree in two bands at least (pigeonhole), so none is missed; two bands
    are chance less often than one. A pair is told by the first two that it agrees in.
    """
    edges = np.linspace(0, 64, most + 3).astype(int).tolist()
    bands = [np.uint64((1 << high) - (1 << low)) for low, high in pairwise(edges)]
    found = [np.zeros(0, np.int64)]
    for a, b in combinations(range(len(bands)), 2):
        for one, other in _near(hashes, bands[a] | bands[b], most):
            off = hashes[one] ^ hashes[other]
            new = np.logical_and.reduce([off & bands[c] != 0 for c in range(b) if c != a], initial=True)
            found.append((one * len(hashes) + other)[np.broadcast_to(new, one.shape)])
    return np.stack(divmod(np.sort(np.concatenate(found)), max(len(hashes), 1)), axis=1)


def _near(hashes: np.ndarray, mask: np.uint64, most: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Close pairs, the smaller place first, of hashes that agree in the bits of the mask.

    In the order of these bits each is compared with the next one, with the one after that..., as long as they agree.
    """
    order = np.argsort(hashes & mask, kind="stable")  # equal ones by their place
    inside, at = hashes[order], np.arange(len(order))
    for step in range(1, len(order)):
        at = at[: np.searchsorted(at, len(order) - step)]
        off = inside[at] ^ inside[at + step]
        agree = off & mask == 0
        at, off = at[agree], off[agree]
        if not len(at):
            return
        near = at[np.bitwise_count(off) <= most]
        yield order[near], order[near + step]


def buckets(keys: np.ndarray) -> Iterator[np.ndarray]:
    """The places of equal keys, ascending, of those that occur more than once."""
    order = np.argsort(keys, kind="stable")
    cuts = np.flatnonzero(np.diff(keys[order])) + 1
    yield from (group for group in np.split(order, cuts) if len(group) > 1)


def all_pairs(bucket: np.ndarray) -> np.ndarray:
    """Every pair of these places."""
    one, other = np.triu_indices(len(bucket), 1)
    return np.stack([bucket[one], bucket[other]], axis=1)


def groups(count: int, pairs: np.ndarray) -> np.ndarray:
    """(count,) int64: the smallest number that each is joined with, through however many pairs."""
    root = np.arange(count)

    def top(place: int) -> int:
        while root[place] != place:
            root[place] = root[root[place]]
            place = int(root[place])
        return place

    for one, other in pairs.tolist():
        low, high = sorted((top(one), top(other)))
        root[high] = low
    return np.fromiter((top(place) for place in range(count)), np.int64, count)


def firsts(pairs: np.ndarray) -> dict[int, int]:
    """Place -> an earlier one that it is close to and that stays: in order, each is left out if close to one kept."""
    near: dict[int, list[int]] = {}
    for one, other in pairs.tolist():
        near.setdefault(max(one, other), []).append(min(one, other))
    left: dict[int, int] = {}
    for place in sorted(near):
        kept = [one for one in sorted(near[place]) if one not in left]
        if kept:
            left[place] = kept[0]
    return left
