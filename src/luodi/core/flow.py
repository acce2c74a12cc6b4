"""Requests in flight: single, batched, streamed and joined midway are the same verbs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from luodi.core.task import Answer, Forward, Request, Task

MOST = 64  # requests in one forward


@dataclass(frozen=True)
class Piece:
    """An answer, or the next piece of one."""

    ticket: int
    value: Any
    done: bool


class Flow(Protocol):
    """Requests in flight. The batcher of a server, a stream and a single call use the same verbs."""

    def add(self, requests: Sequence[Request]) -> list[int]:
        """Takes requests, also between steps; a ticket for each."""
        ...

    def step(self) -> list[Piece]:
        """One forward; [] when nothing waits."""
        ...

    def drop(self, ticket: int) -> None:
        """Forgets a request: its client went away."""
        ...

    def join(self, sofar: Answer | None, piece: Answer) -> Answer:
        """The answer so far with its next piece."""
        ...


class OneShot:
    """The default flow: one forward answers everything that waits, `MOST` at a time."""

    def __init__(self, task: Task, forward: Forward) -> None:
        self.task, self.forward = task, forward
        self.waiting: dict[int, Request] = {}
        self.next = 0

    def add(self, requests: Sequence[Request]) -> list[int]:
        tickets = list(range(self.next, self.next + len(requests)))
        self.next += len(requests)
        self.waiting.update(zip(tickets, requests, strict=True))
        return tickets

    def step(self) -> list[Piece]:
        tickets = list(self.waiting)[:MOST]
        if not tickets:
            return []
        arrays = self.task.encode([self.waiting.pop(ticket) for ticket in tickets])
        answers = self.task.decode(self.forward(arrays))
        return [Piece(ticket, answer, True) for ticket, answer in zip(tickets, answers, strict=True)]

    def drop(self, ticket: int) -> None:
        self.waiting.pop(ticket, None)

    def join(self, sofar: Answer | None, piece: Answer) -> Answer:
        return piece
