"""A question and a context as one row of tokens, or as several where the context is long."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from luodi.core.spec import Arrays
from luodi.fields.text import Text
from luodi.fields.texts.cutters import Span


@dataclass(frozen=True)
class Window:
    """Tokens [first, end) of a context behind its question; the context's begin at `place` of the row `ids`."""

    ids: tuple[int, ...]
    place: int
    first: int
    end: int


@dataclass(frozen=True)
class Reader:
    """Cuts pairs into windows: rows of at most the context field's `length`, which share `overlap` tokens."""

    question: Text
    context: Text
    overlap: int

    def windows(self, question: str, spans: Sequence[Span]) -> list[Window]:
        """All windows of a context, in order; one without tokens where it has none. A question that is longer than its
        field's `length` is cut."""
        before, between, after = self.context.cutter.pair
        (asked,) = self.question.cutter.ids([self.question.settled(question)])
        head = [*before, *asked[: self.question.length], *between] or [self.context.cutter.blank]
        room = self.context.length - len(head) - len(after)
        ids = [token for token, _, _ in spans]
        starts = range(0, max(len(ids) - self.overlap, 1), room - self.overlap)
        return [Window((*head, *ids[at : at + room], *after), len(head), at, min(at + room, len(ids))) for at in starts]

    def arrays(self, name: str, windows: Sequence[Window]) -> Arrays:
        """Windows as int64 (windows, length): ids, `_mask`, and `_part`, 1 where the context's own tokens are."""
        found = self.context.padded([window.ids for window in windows])
        part = np.zeros_like(found[""])
        for row, window in enumerate(windows):
            part[row, window.place : window.place + window.end - window.first] = 1
        return {name: found[""], f"{name}_mask": found["_mask"], f"{name}_part": part}
