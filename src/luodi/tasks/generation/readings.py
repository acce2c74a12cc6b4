"""What texts are written from, read once: a row of a forward is as long as the longest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from luodi.core.spec import Arrays, Signature, Spec

if TYPE_CHECKING:
    from luodi.core.task import Forward


class Readings:
    """The sources of the texts in flight by ticket: their tokens, or what the model made of them once."""

    def __init__(self, forward: Forward, signature: Signature | None, inputs: Mapping[str, Spec]) -> None:
        reading = signature.reading if signature is not None else None
        self.forward, self.reads = forward, reading is not None
        self.specs = dict(inputs)
        if signature is not None and reading is not None:
            stay = {name: spec for name, spec in inputs.items() if name in signature.inputs}
            self.specs = {**stay, **reading.outputs}
        self.axes = {name: _free(spec) for name, spec in self.specs.items()}
        self.held: dict[int, Arrays] = {}
        self.shown: tuple[tuple[int, ...], Arrays] = ((), {})

    def read(self, tickets: Sequence[int], arrays: Arrays, lengths: Sequence[int]) -> None:
        """Reads sources, padded arrays of so many tokens each."""
        whole = {**arrays, **(self.forward(arrays) if self.reads else {})}
        for row, (ticket, length) in enumerate(zip(tickets, lengths, strict=True)):
            self.held[ticket] = {
                name: whole[name][row].take(range(length), axis=axis) for name, axis in self.axes.items()
            }

    def view(self, tickets: Sequence[int]) -> Arrays:
        """A forward's inputs of these rows; several may be of one ticket."""
        key = tuple(tickets)
        if self.shown[0] != key:
            self.shown = key, {name: self._padded(name, key) for name in self.specs}
        return self.shown[1]

    def drop(self, ticket: int) -> None:
        self.held.pop(ticket, None)

    def _padded(self, name: str, tickets: Sequence[int]) -> np.ndarray:
        parts = [self.held[ticket][name] for ticket in tickets]
        axis, spec = self.axes[name], self.specs[name]
        shape = list(parts[0].shape)
        shape[axis] = max(part.shape[axis] for part in parts)
        found = np.full((len(parts), *shape), spec.pad, spec.dtype)
        for row, part in enumerate(parts):
            found[(row, *map(slice, part.shape))] = part
        return found


def _free(spec: Spec) -> int:
    """The axis of a spec that has a name instead of a size."""
    return next(axis for axis, side in enumerate(spec.shape) if isinstance(side, str))
