"""A path that asks the model: reads a body within its limits, waits for the worker, says no in words."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from time import perf_counter
from typing import TYPE_CHECKING, Protocol
from uuid import uuid4

from luodi.core.errors import BadRequest
from luodi.serve.batching import Batcher, Call, Full, Stream, Work
from luodi.serve.body import Bodies, ClientGone, busy
from luodi.serve.metrics import Metrics
from luodi.serve.refusal import Headers, Refusal, event

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

PATIENCE = 0.1  # seconds after which a waiting call looks whether its client is still there
GONE = 499  # counted, never sent
RETRY: Headers = [(b"retry-after", b"1")]
JSON_HEADERS: Headers = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]
EVENT_HEADERS: Headers = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]
log = logging.getLogger("luodi.serve")


class Manner(Protocol):
    """How a path is asked and how it says no."""

    def start(self, headers: Mapping[bytes, bytes]) -> Callable[[bytes], Work]:
        """What makes work of the body; raises Refusal before any body is read."""
        ...

    def unfit(self, error: BadRequest) -> Refusal:
        """The refusal of a value that only shows itself unfit when it is encoded."""
        ...

    def refused(self, refusal: Refusal) -> bytes:
        """The JSON of a refusal."""
        ...


class Endpoint:
    """One path as a plain ASGI callable: no validation layer and no thread hop but the worker's."""

    def __init__(self, manner: Manner, batcher: Batcher, metrics: Metrics, bodies: Bodies) -> None:
        self.manner, self.batcher, self.metrics, self.bodies = manner, batcher, metrics, bodies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = perf_counter()
        held = [0]
        try:
            status = await self._answer(scope, receive, send, held)
        except ClientGone:
            status = GONE
        except Exception as error:
            refusal = self._refusal(error)
            status = refusal.status
            await _send(send, status, self.manner.refused(refusal), RETRY if status == 503 else [])
        finally:
            self.bodies.held -= held[0]
        self.metrics.called(status, perf_counter() - started)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, held: list[int]) -> int:
        headers = dict(scope["headers"])
        work = self.manner.start(headers)
        body = await self.bodies.read(receive, headers.get(b"content-length", b""), held)
        try:
            call = self.batcher.submit(work(body))
        except Full as error:
            raise busy(f"{self.batcher.most} calls wait already") from error
        answer = await self._wait(call, receive)
        if isinstance(answer, Stream):
            return await self._stream(call, answer, receive, send)
        await _send(send, 200, answer)
        return 200

    async def _wait(self, call: Call, receive: Receive) -> bytes | Stream:
        """The answer; a client that leaves meanwhile has its requests dropped."""
        watchers: list[asyncio.Task[None]] = []
        loop = asyncio.get_running_loop()
        timer = loop.call_later(
            PATIENCE, lambda: watchers.append(loop.create_task(self._drop_when_gone(call, receive)))
        )
        try:
            return await call.future
        except asyncio.CancelledError:
            if watchers and watchers[0].done():
                raise ClientGone from None
            self.batcher.drop(call)
            raise
        finally:
            timer.cancel()
            for watcher in watchers:
                watcher.cancel()

    async def _stream(self, call: Call, stream: Stream, receive: Receive, send: Send) -> int:
        """Sends pieces as they come; what goes wrong midway is the last event."""
        watcher = asyncio.create_task(self._drop_when_gone(call, receive))
        await send({"type": "http.response.start", "status": 200, "headers": EVENT_HEADERS})
        status = 200
        try:
            async for piece in stream:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        except asyncio.CancelledError:
            self.batcher.drop(call)
            raise
        except Exception as error:
            refusal = self._refusal(error)
            status = refusal.status
            last = event(self.manner.refused(refusal))
            await send({"type": "http.response.body", "body": last, "more_body": True})
        finally:
            gone = watcher.done()
            watcher.cancel()
        await send({"type": "http.response.body", "body": b""})
        return GONE if gone else status

    async def _drop_when_gone(self, call: Call, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.batcher.drop(call)

    def _refusal(self, error: Exception) -> Refusal:
        if isinstance(error, Refusal):
            return error
        if isinstance(error, BadRequest):
            return self.manner.unfit(error)
        failure = uuid4().hex[:12]  # the whole story in the log, its id to the client
        log.error("failure %s", failure, exc_info=error)
        return Refusal(500, "the server failed; its log has the reason under this id", extra={"id": failure})


async def _send(send: Send, status: int, body: bytes, more: Headers | None = None) -> None:
    length = (b"content-length", str(len(body)).encode())
    headers = [*JSON_HEADERS, length, *(more or [])]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
