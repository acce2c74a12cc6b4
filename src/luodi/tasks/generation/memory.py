"""The states of all texts that are being written, side by side: rows 0..n-1 are in use, a state may grow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from luodi.core.predictor import HELD, START, empty
from luodi.core.spec import Arrays, Signature

ROOM = 64  # by which a growing state's room, and what is shown of it, is rounded up


class Memory:
    """One array a state, (rows, *state). A forward reads the rows in use, cut to the longest rounded up to ROOM, so
    that a runtime meets few shapes; it copies nothing."""

    def __init__(self, signature: Signature) -> None:
        self.pairs = dict(signature.state)
        self.specs = {name: signature.inputs[name] for name in self.pairs}
        self.axes = {name: spec.shape.index(HELD) + 1 for name, spec in self.specs.items() if HELD in spec.shape}
        self.arrays: dict[str, np.ndarray] = {}
        self.lengths: list[int] = []  # of each row in use: how many tokens its states hold

    def view(self) -> Arrays:
        """The states of all rows in use, as a forward's inputs."""
        return self._inputs(len(self.lengths), max(self.lengths, default=0), self.lengths)

    def first(self, rows: int) -> Arrays:
        """Empty states for texts that begin."""
        found = {name: empty(spec, rows) for name, spec in self.specs.items()}
        return {**found, **({START: np.zeros(rows, np.int64)} if self.axes else {})}

    def add(self, outputs: Arrays, lengths: Sequence[int]) -> None:
        """Takes the states of texts that were just read, of so many tokens each."""
        began = len(self.lengths)
        self.lengths += lengths
        self._reserve(len(self.lengths), max(self.lengths, default=0))
        for name, after in self.pairs.items():
            for row, length in enumerate(lengths):
                self._write(name, began + row, outputs[after][row], 0, length)

    def extend(self, outputs: Arrays) -> None:
        """Takes what one more token of every row in use adds."""
        self._reserve(len(self.lengths), max(self.lengths, default=0) + 1)
        for name, after in self.pairs.items():
            for row, length in enumerate(self.lengths):
                self._write(name, row, outputs[after][row], length, 1)
        self.lengths = [length + 1 for length in self.lengths]

    def remove(self, row: int) -> None:
        """Forgets a row; the last one takes its place."""
        last = len(self.lengths) - 1
        for array in self.arrays.values():
            array[row] = array[last]
        self.lengths[row] = self.lengths[last]
        self.lengths.pop()

    def take(self, rows: Sequence[int]) -> None:
        """Goes on with these rows, in this order; one may be there several times."""
        held = max(self.lengths, default=0)
        self._reserve(len(rows), held)
        same = next((at for at, row in enumerate(rows) if at != row), len(rows))  # up to here nothing moves
        for name, array in self.arrays.items():
            rest: list[Any] = [slice(None)] * (array.ndim - 1)
            if name in self.axes:
                rest[self.axes[name] - 1] = slice(0, held)
            array[(slice(same, len(rows)), *rest)] = array[(list(rows[same:]), *rest)]
        self.lengths = [self.lengths[row] for row in rows]

    def _inputs(self, rows: int, held: int, lengths: Sequence[int]) -> Arrays:
        found: dict[str, np.ndarray] = {}
        for name, array in self.arrays.items():
            cut: list[slice] = [slice(0, rows), *[slice(None)] * (array.ndim - 1)]
            if name in self.axes:
                cut[self.axes[name]] = slice(0, -(-held // ROOM) * ROOM)
            found[name] = array[tuple(cut)]
        return {**found, **({START: np.asarray(lengths, np.int64)} if self.axes else {})}

    def _write(self, name: str, row: int, state: np.ndarray, at: int, count: int) -> None:
        if name not in self.axes:
            self.arrays[name][row] = state
            return
        axis = self.axes[name] - 1
        into: list[slice] = [slice(None)] * state.ndim
        out = list(into)
        into[axis], out[axis] = slice(at, at + count), slice(0, count)
        self.arrays[name][row][tuple(into)] = state[tuple(out)]

    def _reserve(self, rows: int, held: int) -> None:
        """Room for so many rows and tokens; what is there is kept."""
        for name, spec in self.specs.items():
            have = self.arrays.get(name)
            had_rows, had = (0, 0) if have is None else (len(have), self._held(name, have))
            if have is not None and had_rows >= rows and (name not in self.axes or had >= held):
                continue
            room = max(had, -(-held * 3 // 2 // ROOM) * ROOM) if held > had else had
            fresh = empty(spec, max(rows, had_rows * 2 if rows > had_rows else had_rows), room)
            if have is not None:
                fresh[tuple(map(slice, have.shape))] = have
            self.arrays[name] = fresh

    def _held(self, name: str, array: np.ndarray) -> int:
        return array.shape[self.axes[name]] if name in self.axes else 0


def rows_of(outputs: Mapping[str, np.ndarray], name: str, at: Sequence[int]) -> np.ndarray:
    """The logits (rows, vocabulary) of one place of each row of `name`, which holds all places or that one."""
    logits = outputs[name]
    return logits[:, 0] if logits.shape[1] == 1 else logits[np.arange(len(at)), np.asarray(at)]
