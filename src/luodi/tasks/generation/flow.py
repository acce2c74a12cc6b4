"""Texts being written: single, batched, streamed and joined midway are one path."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from luodi.core.flow import MOST, Piece
from luodi.core.predictor import LAST
from luodi.core.spec import Arrays, Signature
from luodi.tasks.generation.likelihood import rows_at_once
from luodi.tasks.generation.memory import Memory, rows_of
from luodi.tasks.generation.writing import Writing, joined

if TYPE_CHECKING:
    from luodi.core.task import Answer, Forward, Request
    from luodi.fields.text import Text


class Generation:
    """The flow of a language model: a step reads the prompts that wait, or writes one token of every text.

    A text that reaches the field's `length` goes on from its last half, read anew.
    """

    def __init__(self, name: str, text: Text, forward: Forward, signature: Signature | None) -> None:
        self.name, self.text, self.forward = name, text, forward
        self.memory = Memory(signature) if signature is not None and signature.state else None
        self.waiting: dict[int, Writing] = {}
        self.active: list[Writing] = []  # in the order of the memory's rows
        self.next = 0

    def add(self, requests: Sequence[Request]) -> list[int]:
        tickets = list(range(self.next, self.next + len(requests)))
        self.next += len(requests)
        for ticket, request in zip(tickets, requests, strict=True):
            rules, ends = request["rules"], request.get("ends", ())
            stops = (*rules.stop, *request.get("stops", ()))
            prompt, most = list(request["prompt"]), rules.max_tokens
            self.waiting[ticket] = Writing(
                ticket, self.name, self.text.cutter, rules, prompt, len(prompt), most, ends, stops
            )
        return tickets

    def step(self) -> list[Piece]:
        room = MOST - len(self.active)
        if self.waiting and room:
            return self._read([self.waiting.pop(ticket) for ticket in self._begun(room)])
        if not self.active:
            return []
        self._slide()
        return self._write()

    def drop(self, ticket: int) -> None:
        self.waiting.pop(ticket, None)
        for row, writing in enumerate(self.active):
            if writing.ticket == ticket:
                self._leave(row)
                return

    def join(self, sofar: Answer | None, piece: Answer) -> Answer:
        return joined(self.name, sofar, piece)

    def _begun(self, room: int) -> list[int]:
        """Which of those that wait are read now: as many as there is room for, and room for the logits of."""
        tickets = list(self.waiting)[:room]
        longest = max(min(len(self.waiting[ticket].prompt), self.text.length) for ticket in tickets)
        return tickets[: rows_at_once(longest, self.text.cutter.size)]

    def _read(self, begun: list[Writing]) -> list[Piece]:
        """Reads prompts, and draws the first token of each."""
        done = [writing.piece("") for writing in begun if writing.over()]
        begun = [writing for writing in begun if not writing.finish]
        if not begun:
            return done
        for writing in begun:
            writing.forget(self.text.length - 1)
        rows = [writing.seen for writing in begun]
        lengths = [len(row) for row in rows]
        last = {LAST: np.asarray(lengths, np.int64) - 1}
        outputs = self._forward(rows, {**(self.memory.first(len(rows)) if self.memory else {}), **last})
        if self.memory:
            self.memory.add(outputs, lengths)
        self.active += begun
        logits = rows_of(outputs, self.name, [length - 1 for length in lengths])
        return done + self._drawn(begun, logits)

    def _write(self) -> list[Piece]:
        """One more token of every text."""
        if self.memory is None:
            rows = [writing.seen for writing in self.active]
            outputs = self._forward(rows, {LAST: np.asarray([len(row) - 1 for row in rows], np.int64)})
            at = [len(row) - 1 for row in rows]
        else:
            outputs = self._forward([[writing.ids[-1]] for writing in self.active], self.memory.view())
            self.memory.extend(outputs)
            at = [0] * len(self.active)
        return self._drawn(list(self.active), rows_of(outputs, self.name, at))

    def _forward(self, rows: list[list[int]], states: Arrays) -> Arrays:
        arrays = {self.name + end: array for end, array in self.text.padded(rows).items()}
        return self.forward({**arrays, **states})

    def _drawn(self, writings: list[Writing], logits: Any) -> list[Piece]:
        pieces = []
        for row, writing in enumerate(writings):
            piece, _ = writing.go_on(logits[row : row + 1])
            pieces.append(piece)
            if piece.done:
                self._leave(self.active.index(writing))
        return pieces

    def _slide(self) -> None:
        """Texts that are as long as the model sees are read anew, from their last half."""
        full = [one for one in self.active if len(one.prompt) + len(one.ids) - one.start > self.text.length]
        for writing in full:
            writing.forget(self.text.length // 2)
        if not full or self.memory is None:
            return
        for writing in full:
            self._leave(self.active.index(writing))
        rows = [writing.seen[:-1] for writing in full]  # the last token is the next step's
        self.memory.add(self._forward(rows, self.memory.first(len(rows))), [len(row) for row in rows])
        self.active += full

    def _leave(self, row: int) -> None:
        if self.memory:
            self.memory.remove(row)
        last = self.active.pop()
        if row < len(self.active):
            self.active[row] = last
