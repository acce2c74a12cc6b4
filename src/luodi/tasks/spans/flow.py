"""Questions in flight: each waits for all windows of its context."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from luodi.core.flow import MOST, Piece
from luodi.tasks.spans.windows import Reader, Window

if TYPE_CHECKING:
    from luodi.core.task import Answer, Forward, Request
    from luodi.fields.texts.cutters import Span


@dataclass(eq=False)
class Asked:
    """One question: its context's tokens and windows, and the logits of those that were read."""

    ticket: int
    text: str
    spans: Sequence[Span]
    windows: Sequence[Window]
    logits: list[np.ndarray] = field(default_factory=list)


class Reading:
    """The flow of answers from texts: a step reads the next windows, of however many questions."""

    def __init__(
        self,
        names: tuple[str, str, str],
        reader: Reader,
        forward: Forward,
        answer: Callable[[Asked], Mapping[str, Any]],
    ) -> None:
        self.question, self.context, self.target = names
        self.reader, self.forward, self.answer = reader, forward, answer
        self.waiting: list[tuple[Asked, Window]] = []
        self.next = 0

    def add(self, requests: Sequence[Request]) -> list[int]:
        tickets = list(range(self.next, self.next + len(requests)))
        self.next += len(requests)
        for ticket, request in zip(tickets, requests, strict=True):
            text = request[self.context]
            spans = self.reader.context.spans(text)
            asked = Asked(ticket, text, spans, self.reader.windows(request[self.question], spans))
            self.waiting += [(asked, window) for window in asked.windows]
        return tickets

    def step(self) -> list[Piece]:
        """Windows until a question is answered: one with more of them than a forward takes needs several."""
        done: list[Piece] = []
        while self.waiting and not done:
            now, self.waiting = self.waiting[:MOST], self.waiting[MOST:]
            done = self._read(now)
        return done

    def drop(self, ticket: int) -> None:
        self.waiting = [(asked, window) for asked, window in self.waiting if asked.ticket != ticket]

    def join(self, sofar: Answer | None, piece: Answer) -> Answer:
        return piece

    def _read(self, now: Sequence[tuple[Asked, Window]]) -> list[Piece]:
        outputs = self.forward(self.reader.arrays(self.context, [window for _, window in now]))[self.target]
        done = []
        for (asked, _), logits in zip(now, outputs, strict=True):
            asked.logits.append(logits)
            if len(asked.logits) == len(asked.windows):
                done.append(Piece(asked.ticket, {self.target: self.answer(asked)}, True))
        return done
