"""Indices of axes that belong together: they can only go together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Indices = NDArray[np.int64]  # of one axis: a node for each place along it

FIXED = 0  # the node of all that stays


@dataclass(frozen=True)
class Followed:
    """A tensor on its way through the graph: for each axis a node at each place."""

    axes: tuple[Indices, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(len(axis) for axis in self.axes)


@dataclass
class Ties:
    """A forest of nodes (union-find); the roots are the components, that of `FIXED` is what stays."""

    parents: list[int] = field(default_factory=lambda: [FIXED])

    def fresh(self, count: int) -> Indices:
        """Nodes of a new axis; of an axis of one place there is nothing to cut."""
        if count < 2:
            return still(count)
        first = len(self.parents)
        self.parents.extend(range(first, first + count))
        return np.arange(first, first + count)

    def root(self, node: int) -> int:
        while self.parents[node] != node:
            self.parents[node] = self.parents[self.parents[node]]
            node = self.parents[node]
        return node

    def roots(self, axis: Indices) -> Indices:
        found = {node: self.root(node) for node in np.unique(axis).tolist()}
        return np.fromiter((found[node] for node in axis.tolist()), np.int64, len(axis))

    def tie(self, *axes: Indices) -> Indices:
        """Axes of equal length become one, place by place."""
        first = axes[0]
        for other in axes[1:]:
            assert len(other) == len(first), "only axes of one length belong together"
            if other is not first:
                for a, b in zip(first.tolist(), other.tolist(), strict=True):
                    low, high = sorted((self.root(a), self.root(b)))
                    self.parents[high] = low  # the lowest is the root, so that what is fixed stays fixed
        return first

    def fix(self, *axes: Indices) -> None:
        for axis in axes:
            for node in np.unique(axis).tolist():
                self.parents[self.root(node)] = FIXED

    def moves(self, axis: Indices) -> bool:
        """Whether any place of the axis may still be cut."""
        return bool(self.roots(axis).any())

    def together(self, *tensors: Followed) -> Followed:
        """What an operation gives that works place by place, with axes of one place stretched."""
        rank = max(len(one.axes) for one in tensors)
        found: list[Indices] = []
        for axis in range(-rank, 0):
            sides = [one.axes[axis] for one in tensors if len(one.axes) >= -axis]
            length = max(map(len, sides)) if min(map(len, sides)) else 0
            found.append(self.tie(*(side for side in sides if len(side) == length)))
        return Followed(tuple(found))


def still(count: int) -> Indices:
    """An axis that stays as it is."""
    return np.zeros(count, np.int64)


def stays(shape: Sequence[int]) -> Followed:
    """A tensor of which nothing is cut."""
    return Followed(tuple(still(int(side)) for side in shape))
