"""Texts being written: single, batched, streamed and joined midway are one path."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from luodi.core.flow import MOST, Piece
from luodi.core.spec import Arrays, Signature
from luodi.tasks.generation.memory import Memory, rows_of
from luodi.tasks.generation.sampling import Sampling, chosen, whole_part

if TYPE_CHECKING:
    from luodi.core.task import Answer, Forward, Request
    from luodi.fields.text import Text

TAIL = 8  # tokens of the prompt beside which new ones are turned into text


@dataclass(eq=False)
class Writing:
    """One text that is being written."""

    ticket: int
    rules: Sampling
    prompt: list[int]
    ends: Collection[int] = ()  # of this request, beside the tokenizer's own
    stops: Sequence[str] = ()  # texts that end it
    ids: list[int] = field(default_factory=list)  # drawn so far
    shown: str = ""
    start: int = 0  # of what the model still sees
    finish: str = ""  # why it ended: "end", "stop", "length"

    @property
    def whole(self) -> list[int]:
        return [*self.prompt, *self.ids]

    @property
    def seen(self) -> list[int]:
        return self.whole[self.start :]

    def forget(self, most: int) -> None:
        """Leaves only its last tokens to be seen."""
        self.start = max(len(self.prompt) + len(self.ids) - most, 0)


class Generation:
    """The flow of a language model: a step reads the prompts that wait, or writes one token of every text.

    A text that reaches the field's `length` goes on from its last half, read anew. An answer's pieces are
    {name: {"value": text, "tokens": how many, "read": those of the prompt, "finish": "" or why it ended}}.
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
            self.waiting[ticket] = Writing(ticket, rules, list(request["prompt"]), ends, stops)
        return tickets

    def step(self) -> list[Piece]:
        room = MOST - len(self.active)
        if self.waiting and room:
            return self._read([self.waiting.pop(ticket) for ticket in list(self.waiting)[:room]])
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
        if sofar is None:
            return piece
        before, after = sofar[self.name], piece[self.name]
        return {self.name: {**after, "value": before["value"] + after["value"]}}

    def _read(self, begun: list[Writing]) -> list[Piece]:
        """Reads prompts, and draws the first token of each."""
        done = [self._piece(writing, "") for writing in begun if self._over(writing)]
        begun = [writing for writing in begun if not writing.finish]
        if not begun:
            return done
        for writing in begun:
            writing.forget(self.text.length - 1)
        rows = [writing.seen for writing in begun]
        outputs = self._forward(rows, self.memory.first(len(rows)) if self.memory else {})
        lengths = [len(row) for row in rows]
        if self.memory:
            self.memory.add(outputs, lengths)
        self.active += begun
        logits = rows_of(outputs, self.name, [length - 1 for length in lengths])
        return done + self._drawn(begun, logits)

    def _write(self) -> list[Piece]:
        """One more token of every text."""
        if self.memory is None:
            rows = [writing.seen for writing in self.active]
            outputs = self._forward(rows, {})
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
        for writing, row in zip(writings, logits, strict=True):
            token = chosen(row, writing.rules, writing.whole if writing.rules.repetition != 1 else (), len(writing.ids))
            writing.ids.append(token)
            pieces.append(self._next_piece(writing, token))
            if writing.finish:
                self._leave(self.active.index(writing))
        return pieces

    def _next_piece(self, writing: Writing, token: int) -> Piece:
        cutter = self.text.cutter
        if token in cutter.ends or token in writing.ends:
            writing.finish = "end"
        text = self._text(writing, writing.ids[:-1] if writing.finish else writing.ids)
        shown, stopped = whole_part(text, writing.stops)
        if stopped:
            writing.finish = "stop"
        elif writing.finish or self._over(writing):
            shown = text
        shown = shown if shown.startswith(writing.shown) else writing.shown
        more, writing.shown = shown[len(writing.shown) :], shown
        return self._piece(writing, more)

    def _text(self, writing: Writing, ids: list[int]) -> str:
        """What these tokens add to the prompt: some tokenizers write a space only between two words."""
        before = writing.prompt[-TAIL:]
        base, whole = self.text.cutter.text(before), self.text.cutter.text([*before, *ids])
        return whole[len(base) :] if whole.startswith(base) else self.text.cutter.text(ids)

    def _over(self, writing: Writing) -> bool:
        if len(writing.ids) >= writing.rules.max_tokens:
            writing.finish = "length"
        return bool(writing.finish)

    def _piece(self, writing: Writing, more: str) -> Piece:
        read = len(writing.prompt)
        value = {"value": more, "tokens": len(writing.ids), "read": read, "finish": writing.finish}
        return Piece(writing.ticket, {self.name: value}, bool(writing.finish))

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
