"""The one loop between a server and a model: takes all that waits, steps the flow, hands out the answers."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from luodi.core.flow import Piece
    from luodi.core.predictor import Predictor
    from luodi.core.task import Answer, Request

MOST_CALLS = 512  # waiting or being answered; one more is refused
log = logging.getLogger("luodi.serve")


class Full(Exception):
    """As many calls as allowed wait already."""


class Work(Protocol):
    """What a call asks. All methods run in the worker's thread; what they raise is this call's alone."""

    @property
    def streamed(self) -> bool:
        """Whether pieces are sent as they come; known once it was read."""
        ...

    def read(self) -> Sequence[Request]:
        """The requests of the call."""
        ...

    def piece(self, place: int, piece: Answer, done: bool) -> bytes:
        """A piece of the answer to one of the requests, as it goes to the client; b"" where nothing does."""
        ...

    def write(self, answers: Sequence[Answer]) -> bytes:
        """The answers, one a request in their order, as they go to the client; of a stream, what ends it."""
        ...


class Stream:
    """What a streamed call is answered with: pieces as they come. The event loop's."""

    def __init__(self) -> None:
        self.waiting: asyncio.Queue[bytes | Exception | None] = asyncio.Queue()

    def give(self, piece: bytes | Exception, last: bool) -> None:
        """One more piece, or what went wrong."""
        self.waiting.put_nowait(piece)
        if last:
            self.waiting.put_nowait(None)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """The pieces until the end; raises what went wrong midway."""
        while (piece := await self.waiting.get()) is not None:
            if isinstance(piece, Exception):
                raise piece
            yield piece


@dataclass(eq=False, slots=True)
class Call:
    """One call in flight; `future` and `stream` belong to the event loop, everything else to the worker."""

    work: Work
    future: asyncio.Future[bytes | Stream]
    stream: Stream | None = None
    requests: Sequence[Request] = ()
    answers: list[Any] = field(default_factory=list)
    left: int = 0
    sent: bool = False  # some of a stream is with the client
    gone: bool = False


Result = tuple[Call, bytes | Exception, bool]  # a call, what it is given, whether that is the end of it


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
        self._done: list[Result] = []
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
        """Queues a call; raises Full. Its future gives the bytes of `write`, or a Stream of a streamed call once there
        is a piece, or raises what went wrong before that."""
        if self.calls >= self.most:
            raise Full
        assert self.loop is not None, "start() comes first"
        call = Call(work, self.loop.create_future())
        self.calls += 1
        self._waiting.put(call)
        return call

    def drop(self, call: Call) -> None:
        """Forgets a call whose client went away; its future is cancelled."""
        if call.future.cancel() or call.stream is not None:
            call.gone = True
            self._gone.append(call)

    def _deliver(self, done: list[Result]) -> None:
        for call, result, last in done:
            self.calls -= last
            if call.stream is not None:
                call.stream.give(result, last)
            elif call.future.done():  # dropped meanwhile
                continue
            elif isinstance(result, Exception):
                call.future.set_exception(result)
            elif not call.work.streamed:
                call.future.set_result(result)
            else:
                call.stream = Stream()
                call.stream.give(result, last)
                call.future.set_result(call.stream)

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
        if call.gone:
            self._done.append((call, b"", True))
            return
        try:
            call.requests = call.work.read()
            call.answers, call.left = [None] * len(call.requests), len(call.requests)
            tickets = self._flow.add(call.requests)
        except Exception as error:  # whatever it was, it is this call's answer
            self._done.append((call, error, True))
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
                self._done.append((call, b"", True))

    def _step(self) -> None:
        try:
            pieces = self._flow.step()
        except Exception as error:
            self._one_by_one(error)
            return
        for piece in pieces:
            if piece.ticket in self._places:  # else its call failed a moment ago
                self._take_piece(piece)
        self.stepped(len(pieces))

    def _take_piece(self, piece: Piece) -> None:
        call, place = self._places[piece.ticket]
        if piece.done:
            del self._places[piece.ticket]
            call.left -= 1
        try:
            self._join(call, place, piece)
        except Exception as error:
            self._fail(call, error)
            return
        if not call.left:
            self._finish(call)

    def _join(self, call: Call, place: int, piece: Piece) -> None:
        call.answers[place] = self._flow.join(call.answers[place], piece.value)
        if call.work.streamed and (sent := call.work.piece(place, piece.value, piece.done)):
            call.sent = True
            self._done.append((call, sent, False))

    def _finish(self, call: Call) -> None:
        try:
            self._done.append((call, call.work.write(call.answers), True))
        except Exception as error:
            self._done.append((call, error, True))

    def _fail(self, call: Call, error: Exception) -> None:
        """Ends one call, whose other requests are forgotten."""
        for ticket in [ticket for ticket, (owner, _) in self._places.items() if owner is call]:
            self._flow.drop(ticket)
            del self._places[ticket]
        self._done.append((call, error, True))

    def _one_by_one(self, error: Exception) -> None:
        """Finds whose request made the model raise: each call again, alone; of a stream nothing is said twice."""
        calls = list(dict.fromkeys(call for call, _ in self._places.values()))
        self._places.clear()
        self._flow = self.predictor.open()
        again = [call for call in calls if not call.sent] if len(calls) > 1 else []
        self._done += [(call, error, True) for call in calls if call not in again]
        if again:
            log.warning("a step of %d calls failed (%s); answering them one by one", len(calls), type(error).__name__)
        for call in again:
            try:
                call.answers = [None] * len(call.requests)
                for piece in self.predictor.stream(call.requests):
                    self._join(call, piece.ticket, piece)
                self.stepped(len(call.requests))
            except Exception as own:
                self._done.append((call, own, True))
                continue
            self._finish(call)
