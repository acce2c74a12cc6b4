"""Pairs of close hashes without comparing all with all, and the groups that pairs make."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

BLOCK = 1 << 22  # comparisons at a time
NONE = np.zeros((0, 2), np.int64)


def close_pairs(hashes: np.ndarray, most: int) -> np.ndarray:
    """(pairs, 2) int64, sorted: every pair of uint64 hashes (count,) that differ in at most `most` of 64 bits.

    Cut into `most` + 1 bands, two such hashes agree in one band at least (pigeonhole), so none is missed.
    """
    edges = np.linspace(0, 64, most + 2).astype(np.uint64)
    found = [NONE]
    for low, high in pairwise(edges):
        bands = (hashes >> low) & np.uint64((1 << int(high - low)) - 1)
        found += [pairs for bucket in buckets(bands) for pairs in _within(hashes, bucket, most)]
    return np.unique(np.concatenate(found), axis=0)


def buckets(keys: np.ndarray) -> Iterator[np.ndarray]:
    """The places of equal keys, ascending, of those that occur more than once."""
    order = np.argsort(keys, kind="stable")
    cuts = np.flatnonzero(np.diff(keys[order])) + 1
    yield from (group for group in np.split(order, cuts) if len(group) > 1)


def _within(hashes: np.ndarray, bucket: np.ndarray, most: int) -> Iterator[np.ndarray]:
    inside = hashes[bucket]
    step = max(BLOCK // len(bucket), 1)
    for start in range(0, len(bucket), step):
        off = np.bitwise_count(inside[start : start + step, None] ^ inside[None])
        one, other = np.nonzero(off <= most)
        one += start
        yield np.stack([bucket[one[one < other]], bucket[other[one < other]]], axis=1)


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
