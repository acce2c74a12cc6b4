"""The one loop between a server and a model: takes all that waits, steps the flow, hands out the answers."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from luodi.core.predictor import Predictor
    from luodi.core.task import Answer, Request

MOST_CALLS = 512  # waiting or being answered; one more is refused
log = logging.getLogger("luodi.serve")


class Full(Exception):
    """As many calls as allowed wait already."""


class Work(Protocol):
    """What a call asks. Both methods run in the worker's thread; what `read` raises is this call's alone."""

    def read(self) -> Sequence[Request]:
        """The requests of the call."""
        ...

    def write(self, answers: Sequence[Answer]) -> bytes:
        """The answers, one a request in their order, as they go to the client."""
        ...


@dataclass(eq=False, slots=True)
class Call:
    """One call in flight; `future` belongs to the event loop, everything else to the worker."""

    work: Work
    future: asyncio.Future[bytes]
    requests: Sequence[Request] = ()
    answers: list[Any] = field(default_factory=list)
    left: int = 0


class Batcher:
    """Calls from one event loop, answered by one worker thread over one flow.

    A call that cannot be read, or whose requests make the model raise, fails alone: its neighbours are answered.
    """

    def __init__(self, predictor: Predictor, stepped: Callable[[int], None], most: int = MOST_CALLS) -> None:
        self.predictor, self.stepped, self.most = predictor, stepped, most
        self.calls = 0  # waiting or being answered; the event loop's
        self.loop: asyncio.AbstractEventLoop | None = None
        self._waiting: SimpleQueue[Call | None] = SimpleQueue()
        self._gone: deque[Call] = deque()
        self._flow = predictor.open()
        self._places: dict[int, tuple[Call, int]] = {}  # ticket -> the call and its request's place in it
        self._done: list[tuple[Call, bytes | Exception]] = []
        self._thread = Thread(target=self._run, name="luodi-model", daemon=True)

    @property
    def alive(self) -> bool:
        """Whether calls are being answered."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Starts the worker; called once, inside the event loop that will submit."""
        self.loop = asyncio.get_running_loop()
        self._thread.start()

    async def stop(self) -> None:
        """Answers what was submitted, then ends the worker."""
        self._waiting.put(None)
        await asyncio.to_thread(self._thread.join)

    def submit(self, work: Work) -> Call:
        """Queues a call; raises Full. Its future gives the bytes of `write`, or raises what went wrong."""
        if self.calls >= self.most:
            raise Full
        assert self.loop is not None, "start() comes first"
        call = Call(work, self.loop.create_future())
        self.calls += 1
        self._waiting.put(call)
        return call

    def drop(self, call: Call) -> None:
        """Forgets a call whose client went away; its future is cancelled."""
        if call.future.cancel():
            self._gone.append(call)

    def _deliver(self, done: list[tuple[Call, bytes | Exception]]) -> None:
        for call, result in done:
            self.calls -= 1
            if call.future.done():  # dropped meanwhile
                continue
            if isinstance(result, bytes):
                call.future.set_result(result)
            else:
                call.future.set_exception(result)

    def _run(self) -> None:
        while self._take():
            self._forget()
            if self._places:
                self._step()
            if self._done:
                assert self.loop is not None
                self.loop.call_soon_threadsafe(self._deliver, self._done)
                self._done = []

    def _take(self) -> bool:
        """Reads every call that waits, blocking while there is nothing else to do; False: no more will come."""
        try:
            call = self._waiting.get(block=not self._places)
            while call is not None:
                self._admit(call)
                call = self._waiting.get_nowait()
        except Empty:
            return True
        if self._places or self._done:
            self._waiting.put(None)  # the end is seen again once these are answered
            return True
        return False

    def _admit(self, call: Call) -> None:
        if call.future.cancelled():
            self._done.append((call, b""))
            return
        try:
            call.requests = call.work.read()
            call.answers, call.left = [None] * len(call.requests), len(call.requests)
            tickets = self._flow.add(call.requests)
        except Exception as error:  # whatever it was, it is this call's answer
            self._done.append((call, error))
            return
        self._places.update({ticket: (call, place) for place, ticket in enumerate(tickets)})

    def _forget(self) -> None:
        while self._gone:
            call = self._gone.popleft()
            tickets = [ticket for ticket, (owner, _) in self._places.items() if owner is call]
            for ticket in tickets:
                self._flow.drop(ticket)
                del self._places[ticket]
            if tickets:
                self._done.append((call, b""))

    def _step(self) -> None:
        try:
            pieces = self._flow.step()
            for piece in pieces:
                call, place = self._places[piece.ticket]
                call.answers[place] = self._flow.join(call.answers[place], piece.value)
                if piece.done:
                    del self._places[piece.ticket]
                    call.left -= 1
                    if not call.left:
                        self._finish(call)
        except Exception as error:
            self._one_by_one(error)
            return
        self.stepped(len(pieces))

    def _finish(self, call: Call) -> None:
        try:
            self._done.append((call, call.work.write(call.answers)))
        except Exception as error:
            self._done.append((call, error))

    def _one_by_one(self, error: Exception) -> None:
        """Finds whose request made the model raise: each call again, alone."""
        calls = list(dict.fromkeys(call for call, _ in self._places.values()))
        self._places.clear()
        self._flow = self.predictor.open()
        if len(calls) == 1:
            self._done.append((calls[0], error))
            return
        log.warning("a step of %d calls failed (%s); answering them one by one", len(calls), type(error).__name__)
        for call in calls:
            try:
                call.answers = list(self.predictor(call.requests))
                self.stepped(len(call.requests))
            except Exception as own:
                self._done.append((call, own))
                continue
            self._finish(call)
