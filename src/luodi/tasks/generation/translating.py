"""Texts being written from other texts: single, batched, streamed and joined midway are one path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from luodi.core.flow import MOST, Piece
from luodi.core.spec import Arrays, Signature, Spec
from luodi.tasks.generation.beams import Beams
from luodi.tasks.generation.memory import Memory, rows_of
from luodi.tasks.generation.readings import Readings
from luodi.tasks.generation.writing import Writing, joined

if TYPE_CHECKING:
    from luodi.core.task import Answer, Forward, Request
    from luodi.fields.text import Text

Way = Writing | Beams


class Translating:
    """The flow of a translator: a step reads the sources that wait, or writes one token of every text.

    A request holds the source, the target's `prompt`, `rules` and `search`. A search of several beams is that many
    rows of a forward; its pieces are empty until the last.
    """

    def __init__(
        self, source: tuple[str, Text], target: tuple[str, Text], inputs: Mapping[str, Spec], forward: Forward,
        signature: Signature | None,
    ) -> None:  # fmt: skip
        (self.name, self.text), (self.answer, self.target), self.forward = source, target, forward
        self.sources = Readings(forward, signature, inputs)
        self.memory = Memory(signature) if signature is not None and signature.state else None
        self.waiting: dict[int, Request] = {}
        self.active: list[Way] = []  # in the order of the memory's rows
        self.next = 0

    def add(self, requests: Sequence[Request]) -> list[int]:
        tickets = list(range(self.next, self.next + len(requests)))
        self.next += len(requests)
        self.waiting.update(zip(tickets, requests, strict=True))
        return tickets

    def step(self) -> list[Piece]:
        begun = self._admitted()
        if begun:
            return self._read(begun)
        return self._write() if self.active else []

    def drop(self, ticket: int) -> None:
        self.waiting.pop(ticket, None)
        self._keep({way.ticket: [] for way in self.active if way.ticket == ticket})

    def join(self, sofar: Answer | None, piece: Answer) -> Answer:
        return joined(self.answer, sofar, piece)

    def _admitted(self) -> dict[int, Request]:
        """Those that wait, as far as their rows fit beside those in use; a lone one always does."""
        room = MOST - sum(self._width(way) for way in self.active)
        found: dict[int, Request] = {}
        for ticket, request in list(self.waiting.items()):
            room -= request["search"].beams
            if room < 0 and (found or self.active):
                break
            found[ticket] = self.waiting.pop(ticket)
        return found

    def _width(self, way: Way) -> int:
        return way.search.beams if isinstance(way, Beams) else 1

    def _read(self, begun: Mapping[int, Request]) -> list[Piece]:
        """Reads sources and what of the targets is given, and goes on with each."""
        ids = dict(zip(begun, self.text.ids([request[self.name] for request in begun.values()]), strict=True))
        ways = [self._way(ticket, request, len(ids[ticket])) for ticket, request in begun.items()]
        done = [way.piece("") for way in ways if way.over()]
        ways = [way for way in ways if not way.finish]
        if not ways:
            return done
        rows = [ids[way.ticket] for way in ways]
        arrays = {self.name + end: array for end, array in self.text.padded(rows).items()}
        self.sources.read([way.ticket for way in ways], arrays, list(map(len, rows)))
        prompts = [line for way in ways for line in way.lines]
        outputs = self._forward(ways, prompts, self.memory.first(len(ways)) if self.memory else {})
        lengths = list(map(len, prompts))
        if self.memory:
            self.memory.add(outputs, lengths)
        self.active += ways
        return done + self._went_on(ways, rows_of(outputs, self.answer, [length - 1 for length in lengths]))

    def _write(self) -> list[Piece]:
        """One more token of every line."""
        lines = [line for way in self.active for line in way.lines]
        if self.memory is None:
            outputs = self._forward(self.active, lines, {})
            at = [len(line) - 1 for line in lines]
        else:
            outputs = self._forward(self.active, [line[-1:] for line in lines], self.memory.view())
            self.memory.extend(outputs)
            at = [0] * len(lines)
        return self._went_on(list(self.active), rows_of(outputs, self.answer, at))

    def _forward(self, ways: Sequence[Way], rows: list[list[int]], states: Arrays) -> Arrays:
        arrays = {self.answer + end: array for end, array in self.target.padded(rows).items()}
        sources = self.sources.view([way.ticket for way in ways for _ in way.lines])
        return self.forward({**arrays, **sources, **states})

    def _went_on(self, ways: Sequence[Way], logits: Any) -> list[Piece]:
        """The pieces of the ways that went on; the rows of those that ended are given up."""
        pieces, parents, at = [], {}, 0
        before = {way.ticket: len(way.lines) for way in self.active}
        for way in ways:
            count = before[way.ticket]
            piece, parents[way.ticket] = way.go_on(logits[at : at + count])
            pieces.append(piece)
            at += count
        self._keep(parents, before)
        return pieces

    def _keep(self, parents: Mapping[int, Sequence[int]], before: Mapping[int, int] | None = None) -> None:
        """Goes on with these lines of each way, all of one that is not named; one without any leaves."""
        rows, active, first = [], [], 0
        for way in self.active:
            count = before[way.ticket] if before else len(way.lines)
            kept = parents.get(way.ticket, range(count))
            rows += [first + parent for parent in kept]
            first += count
            if len(kept):
                active.append(way)
            else:
                self.sources.drop(way.ticket)
        self.active = active
        if self.memory and rows != list(range(first)):
            self.memory.take(rows)

    def _way(self, ticket: int, request: Request, read: int) -> Way:
        rules, prompt = request["rules"], list(request["prompt"])
        most = min(rules.max_tokens, max(self.target.length - len(prompt), 0))
        writing = Writing(ticket, self.answer, self.target.cutter, rules, prompt, read, most, stops=rules.stop)
        return Beams(writing, request["search"]) if request["search"].beams > 1 else writing
